"""The pages for people."""

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from virtualchain.reading import views
from virtualchain.web.pages import own


def add_to(application: FastAPI) -> None:
    """Add the routes of the pages to the application."""

    def home(request: Request) -> PlainTextResponse:
        with request.app.state.site.sessions.snapshot() as connection:
            return PlainTextResponse(str(views.apps(connection)))

    application.add_route("/", home)
    own.add_to(application)

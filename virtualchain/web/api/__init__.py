"""`/api/v1`: the deployment as JSON, and `/api`, a page that lists it."""

from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from virtualchain.errors import VirtualchainError
from virtualchain.web.api import deployment, document, guide, log, proofs, statements, tables, watching
from virtualchain.web.api.answers import PREFIX, answer_error, problem_answer
from virtualchain.web.hub import Hub
from virtualchain.web.problems import Problem

_ERRORS: Final = (VirtualchainError, RequestValidationError, HTTPException, Exception)
_MODULES: Final = (deployment, log, proofs, tables, statements, watching, document)


def add_to(application: FastAPI) -> Hub:
    """Add the API's routes to the application; return what must be closed at the end."""
    site = application.state.site
    api = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        exception_handlers=dict.fromkeys(_ERRORS, answer_error),
        redirect_slashes=False,
    )
    api.state.site = site
    api.state.hub = Hub(site.sessions, site.versions)
    for module in _MODULES:
        api.include_router(module.router)
    application.state.api = api
    application.mount(PREFIX, api)
    application.add_route("/api", guide.show)
    application.add_route("/api/{rest:path}", _nothing)
    hub: Hub = api.state.hub
    return hub


def _nothing(request: Request) -> Response:
    """Answer for a path below /api that is not of this version."""
    del request
    return problem_answer(
        Problem(HTTPStatus.NOT_FOUND, "Not found", f"there is no such path; {PREFIX}/openapi.json lists all")
    )

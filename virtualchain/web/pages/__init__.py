"""The pages for people."""

from fastapi import FastAPI

from virtualchain.web.pages import apps, chain, ops, overview, own, plots, rows, search, sql, tables

_ROOMS = (overview, apps, ops, tables, rows, own, chain, plots, search, sql)


def add_to(application: FastAPI) -> None:
    """Add the routes of the pages to the application, and last a page for every other path."""
    for room in _ROOMS:
        for path, handler in room.ROUTES:
            application.add_route(path, handler)
    application.add_route("/{path:path}", search.missing, include_in_schema=False)

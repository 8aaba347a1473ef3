"""`/apps/APP`: an app, and why it is halted."""

from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from virtualchain.engine.expectations import describe_mismatch
from virtualchain.engine.halting import op_of, place_of
from virtualchain.reading import journal
from virtualchain.reading.catalog import projections
from virtualchain.web.pages.plots import activity_plot, range_of
from virtualchain.web.problems import NotFound
from virtualchain.web.rendering import page, render, site_of

_LISTED: Final = 8
"""Ops and rejections that the page of an app lists."""


@page
def index(request: Request) -> Response:
    """Lead to the overview, which lists the apps."""
    del request
    return RedirectResponse("/#apps", 303)


@page
def show(request: Request) -> Response:
    """Show an app."""
    name = request.path_params["app"]
    with site_of(request).sessions.snapshot() as connection:
        glance = journal.deployment(connection)
        app = next((app for app in glance["apps"] if app["name"] == name), None)
        if app is None:
            names = ", ".join(app["name"] for app in glance["apps"]) or "no app at all"
            raise NotFound(f"This deployment has no app {name}; it has {names}.")
        tables = projections(connection, name)
        opcodes = [item.value for item in journal.opcodes(connection, name)]
        ops = journal.ops(connection, name, limit=_LISTED).rows
        rejections = journal.rejections(connection, name, limit=_LISTED).rows
        activity = [item.value for item in journal.activity(connection, name)]
    error = app["error"]
    node = None if glance["writer"] is None else glance["writer"]["node_block_id"]
    reached = app["first_block_id"] - 1 if app["block_id"] is None else app["block_id"]
    return render(
        "app.html",
        live=True,
        app=app,
        glance=glance,
        tables=tables,
        own_pages=site_of(request).own_pages.menu(name),
        opcodes=opcodes,
        ops=ops,
        rejections=rejections,
        plot=activity_plot(activity, f"Ops and rejections of {name} by block", range_of(glance)),
        builds=[build for build in glance["builds"] if build["app"] == name],
        lag=None if node is None else max(0, node - reached),
        has_code=glance["writer"] is None or name in (glance["writer"]["apps"] or [name]),
        error=error,
        error_place=None if error is None else place_of(error),
        error_op=None if error is None else op_of(error),
        unexpected=None if app["unexpected"] is None else describe_mismatch(app["unexpected"]),
    )


ROUTES: Final = (("/apps", index), ("/apps/{app}", show))

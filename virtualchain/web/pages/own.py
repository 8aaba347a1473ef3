"""Pages of apps' own: `/apps/APP/pages/PAGE[/KEY]`."""

from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from virtualchain.web import own_pages
from virtualchain.web.pages.asking import as_of_of
from virtualchain.web.rendering import page, site_of


@page
def show(request: Request) -> Response:
    """Show a page of an app."""
    site, places = site_of(request), request.path_params
    shown_page = site.own_pages.find(places["app"], places["page"])
    as_of = as_of_of(request.query_params)
    args = {name: value for name, value in request.query_params.items() if name != "as_of"}
    key = places.get("key") or None
    with site.sessions.snapshot(as_of, is_foreign=True) as connection:
        shown = own_pages.read(connection, places["app"], shown_page, key=key, args=args, as_of=as_of)
    try:
        return HTMLResponse(site.own_pages.render(places["app"], shown_page, shown))
    except own_pages.Moved as moved:
        return RedirectResponse(moved.path, HTTPStatus.SEE_OTHER)


ROUTES: Final = (("/apps/{app}/pages/{page}", show), ("/apps/{app}/pages/{page}/{key:path}", show))

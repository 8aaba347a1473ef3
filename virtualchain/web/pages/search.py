"""Search, which leads to the only hit or lists several, and the page for paths that do not exist."""

from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from virtualchain.reading.search import Hit, search
from virtualchain.web.problems import NotFound
from virtualchain.web.rendering import link, page, render, site_of

_KINDS: Final = {
    "block": "Block",
    "transaction": "Transaction",
    "consensus": "Consensus hash",
    "address": "Address",
    "page": "Page",
    "row": "Row",
    "rows": "Rows",
    "app": "App",
    "table": "Table",
}


@page
def show(request: Request) -> Response:
    """Search for a text."""
    text = request.query_params.get("q", "").replace("\0", "").strip()
    site = site_of(request)
    with site.sessions.snapshot(is_foreign=True) as connection:
        hits = [*site.own_pages.hits(connection, text), *search(connection, text)]
    if not hits and "," in text:
        with site.sessions.snapshot() as connection:
            hits = search(connection, text.replace(",", ""))  # a height as the pages write it
    if len(hits) == 1:
        return RedirectResponse(path_of(hits[0]), 303)
    listed = [
        {"kind": _KINDS.get(hit.kind, hit.kind), "label": hit.label, "link": path_of(hit)} for hit in hits
    ]
    return render("search.html", searched=text[:400], text=text, hits=listed)


def path_of(hit: Hit) -> str:
    """Return the path of what was found."""
    return link(*hit.path, pairs=list(hit.parameters.items()))


@page
def missing(request: Request) -> Response:
    """Answer for a path that does not exist."""
    raise NotFound(f"There is no page {request.url.path}.")


ROUTES: Final = (("/search", show),)

"""Projections: their rows by PostgREST's filters, the history of a row, and its proof."""

from typing import Final

import psycopg
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from virtualchain.errors import UsageError, quoted
from virtualchain.reading import catalog, views
from virtualchain.reading.catalog import Projection
from virtualchain.reading.history import row_history
from virtualchain.reading.rows import parse_filters, read_json
from virtualchain.web.api.answers import (
    AppName,
    TableName,
    body_answer,
    check_as_of,
    json_answer,
    next_page,
    site_of,
    take_any,
)
from virtualchain.web.api.deployment import find_app
from virtualchain.web.api.proofs import row_proof
from virtualchain.web.problems import NotFound

router: Final = APIRouter(dependencies=[Depends(take_any)], tags=["tables"])
_KEY: Final = "key."
"""What makes any parameter a column of the key, even if the column is called `at`."""


def find_projection(connection: psycopg.Connection, app: str, table: str) -> Projection:
    """Return a projection; raises NotFound."""
    try:
        return catalog.projection(connection, app, table)
    except views.BlockNotShown:
        raise
    except UsageError as error:
        raise NotFound(str(error)) from error


def rows(request: Request, app: AppName, table: TableName) -> Response:
    """Return rows as objects, by PostgREST's filters: `owner=eq.alice`, `order=height.desc`, `select=a,b`."""
    parameters = request.query_params.multi_items()
    as_of = check_as_of(parameters)
    with site_of(request).sessions.snapshot(as_of) as connection:
        projection = find_projection(connection, app, table)
        body, following = read_json(connection, projection, parse_filters(projection, parameters))
    return body_answer(body, following=next_page(request, following))


def row(request: Request, app: AppName, table: TableName) -> Response:
    """Return the versions of a row by its key, the last one first, with the ops that may have caused it."""
    key, own = _key_and(request, ("after", "limit"))
    with site_of(request).sessions.snapshot() as connection:
        projection = find_projection(connection, app, table)
        before = _number("after", own.get("after"))
        limit = _number("limit", own.get("limit"))
        history = row_history(connection, projection, key, before, 50 if limit is None else limit)
    following = next_page(request, None if history.next is None else str(history.next))
    return json_answer(
        {
            "kept_from": history.kept_from,
            "versions": [
                {
                    "from_block": version.from_block,
                    "until_block": version.until_block,
                    "row": version.row,
                    "ops": version.ops,
                    "has_more_ops": version.has_more_ops,
                }
                for version in history.versions
            ],
        },
        following=following,
    )


def proof(request: Request, app: AppName, table: TableName) -> Response:
    """Return what `virtualchain check-proof` checks, against a state root that its user trusts.

    The parameters are the columns of the primary key, and `at`, the block. Shows also that there is no row.
    """
    key, own = _key_and(request, ("at",))
    with site_of(request).sessions.snapshot() as connection:
        projection = find_projection(connection, app, table)
    return row_proof(request, projection, key, _number("at", own.get("at")))


def _key_and(request: Request, names: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the parameters that are columns of a key, and those with names of their own."""
    key: dict[str, str] = {}
    own: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        place, column = (own, name) if name in names else (key, name.removeprefix(_KEY))
        if column in place:
            raise UsageError(f"the parameter {quoted(name)} is there twice")
        place[column] = value
    return key, own


def _number(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text[:11]) <= views.HIGHEST):
        raise UsageError(f"{name} is not a number: {quoted(text)}")
    return int(text)


@router.get("/apps/{app}/tables", summary="The projections of an app")
def tables(request: Request, app: AppName) -> Response:
    """Return their names and comments; `/apps/{app}` has their columns, too."""
    with site_of(request).sessions.snapshot() as connection:
        find_app(connection, app)
        listed = catalog.projections(connection, app)
    return json_answer([{"name": item.name, "comment": item.comment} for item in listed])


# The first path always works; the second is short, and not for a projection with the name of another path.
for path in ("/apps/{app}/tables/{table:path}", "/apps/{app}/{table}"):
    router.add_api_route(f"{path}/proof", proof, summary="The proof of a row")
    router.add_api_route(f"{path}/history", row, summary="The history of a row")
    router.add_api_route(path, rows, summary="The rows of a projection")

"""A projection as a table: filtered, sorted, page by page, as of any block."""

import time
from typing import Any, Final

import psycopg
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from virtualchain.errors import UsageError
from virtualchain.model import Json
from virtualchain.reading import rows, views
from virtualchain.reading.catalog import Column, Projection, projection
from virtualchain.web.pages.asking import as_of_of, order_name, require_app, without
from virtualchain.web.problems import NotFound
from virtualchain.web.rendering import filter_name, link, page, render, site_of, with_query
from virtualchain.web.site import Site

_ROWS: Final = 50
_FRESH: Final = 30.0
"""Seconds for which the description of a table is used again."""
_MOST_KNOWN: Final = 500
"""How many of them are kept."""
_NEW: Final = ("new-column", "new-operator", "new-value")
"""Fields of the form that adds a filter: they become one parameter."""
WORDS: Final = {
    "eq": "is",
    "neq": "is not",
    "gt": "is more than",
    "gte": "is at least",
    "lt": "is less than",
    "lte": "is at most",
    "like": "is like",
    "ilike": "is like (any case)",
    "in": "is one of",
    "is": "is",
    "cs": "contains",
    "cd": "is contained in",
}
"""Operators as people read them."""
_OFFERED: Final = ("eq", "neq", "gt", "gte", "lt", "lte", "like", "ilike", "in", "is")
_NUMBERS: Final = ("smallint", "integer", "bigint", "numeric", "real", "double precision")


@page
def show_table(request: Request) -> Response:
    """Show a page of a projection's rows."""
    asked = request.query_params
    app_name, name = request.path_params["app"], request.path_params["table"]
    path = link("apps", app_name, "tables", name)
    added = _added(asked)
    if added is not None:
        pairs = [*without(asked.multi_items(), *_NEW, "after"), *added]
        return RedirectResponse(with_query(path, pairs), 303)
    as_of = as_of_of(asked)
    with site_of(request).sessions.snapshot() as connection:
        app, table = find_table(site_of(request), connection, app_name, name)
        query = rows.parse_filters(table, without(asked.multi_items(), *_NEW), limit=_ROWS)
        if as_of is not None:
            views.show_block(connection, as_of)
        shown = rows.read_rows(connection, table, query)
        count = _count(connection, table, query, shown, as_of)
    pairs = without(asked.multi_items(), "after", *_NEW)
    return render(
        "table.html",
        live=as_of is None and query.after is None,
        app=app,
        table=table,
        path=path,
        query=query,
        rows=shown,
        count=count,
        as_of=as_of,
        lowest=lowest_shown(app),
        pairs=pairs,
        headings=[_heading(path, query, pairs, column) for column in shown.columns],
        filters=[_chip(path, pairs, name, value) for name, value in pairs if _is_filter(name)],
        next=None if shown.next is None else with_query(path, [*pairs, ("after", shown.next)]),
        first=None if query.after is None else with_query(path, pairs),
        operators=[(name, WORDS[name]) for name in _OFFERED],
        hidden=without(pairs, "as_of"),
        numbers=_NUMBERS,
    )


def find_table(site: Site, connection: psycopg.Connection, app: str, table: str) -> tuple[Json, Projection]:
    """Return an app, and a projection of it; raises NotFound.

    The tables of a build never change, so a description is used again for a while: only its estimate of the
    number of rows grows old.
    """
    row = require_app(connection, app)
    place = (app, row["schema"], row["build"], row["fingerprint"], table)
    read_at, known = site.tables.get(place, (float("-inf"), None))
    if known is not None and time.monotonic() - read_at < _FRESH:
        return row, known
    try:
        known = projection(connection, app, table)
    except UsageError as error:
        raise NotFound(str(error)) from error
    if len(site.tables) >= _MOST_KNOWN:
        site.tables.clear()
    site.tables[place] = time.monotonic(), known
    return row, known


def lowest_shown(app: Json) -> int:
    """Return the lowest block whose rows can be shown."""
    return max(int(app["first_block_id"]), int(app["history_from"] or 0))


def _added(asked: QueryParams) -> list[tuple[str, str]] | None:
    """Return the filter that the form adds, as a parameter; nothing if no column was chosen."""
    if not any(name in asked for name in _NEW):
        return None
    column, operator, value = (asked.get(name, "") for name in _NEW)
    if not column or (not value and operator != "eq"):
        return []
    if operator == "in" and not value.startswith("("):
        value = f"({value})"
    return [(filter_name(column), f"{operator or 'eq'}.{value}")]


def _is_filter(name: str) -> bool:
    return name not in ("select", "order", "limit", "as_of")


def _count(
    connection: psycopg.Connection, table: Projection, query: rows.Query, shown: rows.Rows, as_of: str | None
) -> str:
    """Write how many rows there are, as far as that is known for little."""
    if query.after is None and shown.next is None:
        number = len(shown.rows)
    elif query.filters or as_of is not None or not table.row_estimate or table.row_estimate < rows.COUNTED:
        count = rows.count(connection, table, query)
        if count.is_more:
            return f"more than {count.rows:,} rows"
        number = count.rows
    else:
        return f"about {table.row_estimate:,} rows"
    return f"{number:,} row" if number == 1 else f"{number:,} rows"


def _heading(path: str, query: rows.Query, pairs: list[tuple[str, str]], column: Column) -> dict[str, Any]:
    """Describe a column's head: how the rows are sorted by it, and a link that sorts them the next way."""
    order = next((order for order in query.order if order.column.name == column.name), None)
    others = without(pairs, "order")
    following = "desc" if order is not None and not order.descending else "asc"
    ordered = ("order", f"{order_name(column.name)}.{following}")
    return {
        "column": column,
        "sort": None if order is None else "descending" if order.descending else "ascending",
        "link": with_query(path, [*others, ordered]),
    }


def _chip(path: str, pairs: list[tuple[str, str]], name: str, value: str) -> dict[str, str]:
    """Describe a filter: in words, and with a link that removes it."""
    operator, _, operand = value.removeprefix("not.").partition(".")
    negation = "not: " if value.startswith("not.") else ""
    words = f"{negation}{name.removeprefix('filter.')} {WORDS.get(operator, operator)} {operand}"
    rest = list(pairs)
    rest.remove((name, value))
    return {"words": words, "link": with_query(path, rest)}


ROUTES: Final = (("/apps/{app}/tables/{table}", show_table),)

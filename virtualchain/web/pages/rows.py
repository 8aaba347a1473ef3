"""A row with its history and its proof, and what changed between two blocks."""

from typing import Any, Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from virtualchain.proof.rows import prove_row
from virtualchain.reading import history, views
from virtualchain.reading.catalog import projections
from virtualchain.web.pages.asking import as_of_of, integer, require_app
from virtualchain.web.pages.tables import find_table, lowest_shown
from virtualchain.web.problems import NotFound
from virtualchain.web.proving import proving
from virtualchain.web.rendering import file_of, filter_name, link, page, render, site_of


@page
def show_row(request: Request) -> Response:
    """Show a row: what it is, and every version of it from its birth."""
    asked = request.query_params
    app_name, name = request.path_params["app"], request.path_params["table"]
    as_of = as_of_of(asked)
    before = integer(asked, "before")
    with site_of(request).sessions.snapshot() as connection:
        app, table = find_table(site_of(request), connection, app_name, name)
        key = _key(asked)
        if as_of is not None:
            views.show_block(connection, as_of)
        shown = history.row_history(connection, table, key, before)
    if not shown.versions and before is None:
        raise NotFound(
            f"Table {name} of {app_name} has no row with this key"
            + (f" as of block {as_of}" if as_of else "")
            + ", and had none since the block from which its history is kept."
        )
    return render(
        "row.html",
        live=as_of is None and before is None,
        app=app,
        table=table,
        key=key,
        own_page=site_of(request).own_pages.of_row(app_name, name, key, as_of),
        history=shown,
        steps=_steps(shown),
        as_of=as_of,
        before=before,
        lowest=lowest_shown(app),
        table_path=link("apps", app_name, "tables", name, as_of=as_of),
        path=link("apps", app_name, "tables", name, "row"),
        pairs=[(filter_name(column), value) for column, value in key.items()],
        older=None
        if shown.next is None
        else link(
            "apps",
            app_name,
            "tables",
            name,
            "row",
            pairs=[(filter_name(column), value) for column, value in key.items()],
            as_of=as_of,
            before=shown.next,
        ),
    )


def _steps(shown: history.RowHistory) -> list[dict[str, Any]]:
    """Return the versions with what each changed, compared with the one before it."""
    steps = []
    for place, version in enumerate(shown.versions):
        earlier = shown.versions[place + 1] if place + 1 < len(shown.versions) else None
        older, newer = (earlier.row if earlier else None), version.row
        is_first = earlier is None and shown.next is None
        steps.append(
            {
                "version": version,
                "action": "deleted" if newer is None else "changed" if older is not None else "created",
                "is_cut": is_first and shown.kept_from is not None and version.from_block <= shown.kept_from,
                "changed": {
                    name: older[name]
                    for name in newer or {}
                    if older is not None and name in older and older[name] != (newer or {})[name]
                },
            }
        )
    return steps


@page
def proof(request: Request) -> Response:
    """Make the proof of a row, or that there is none, for whoever trusts the state root of a block."""
    asked, app_name, name = request.query_params, request.path_params["app"], request.path_params["table"]
    at = integer(asked, "at")
    with proving(site_of(request).sessions) as connection:
        _, table = find_table(site_of(request), connection, app_name, name)
        values = history.key_values(table, _key(asked))
        made = prove_row(connection, app_name, name, [values[column] for column in table.key], at)
    return file_of(made, f"row-proof{'' if at is None else f'-at-{at}'}.json")


def _key(asked: QueryParams) -> dict[str, str]:
    """Return the key that the parameters of a row's page have."""
    return {
        column.removeprefix("filter."): value
        for column, value in asked.multi_items()
        if column not in ("as_of", "before", "at")
    }


@page
def show_changes(request: Request) -> Response:
    """Show how an app's rows differ between two blocks."""
    asked, name = request.query_params, request.path_params["app"]
    first, last = integer(asked, "from"), integer(asked, "to")
    table, after = asked.get("table") or None, asked.get("after") or None
    with site_of(request).sessions.snapshot() as connection:
        app = require_app(connection, name)
        tables = projections(connection, name)
        highest, lowest = app["block_id"], app["history_from"]
        if last is None:
            last = highest
        if first is None and last is not None:
            first = max(lowest or 0, last - 1)
        shown = None
        if first is not None and last is not None:
            shown = history.net_changes(connection, name, table, first, last, after=after)
    return render(
        "changes.html",
        live="from" not in asked and "to" not in asked,
        app=app,
        tables=tables,
        first=first,
        last=last,
        table=table,
        lowest=lowest,
        highest=highest,
        changes=[] if shown is None else shown.rows,
        has_blocks=shown is not None,
        newest=_changes_link(name, first, last, table) if after else None,
        next=None
        if shown is None or shown.next is None
        else _changes_link(name, first, last, table, after=shown.next),
    )


def _changes_link(
    app: str, first: int | None, last: int | None, table: str | None, after: str | None = None
) -> str:
    return link("apps", app, "changes", pairs=[("from", first), ("to", last)], table=table, after=after)


ROUTES: Final = (
    ("/apps/{app}/tables/{table}/row", show_row),
    ("/apps/{app}/tables/{table}/row/proof.json", proof),
    ("/apps/{app}/changes", show_changes),
)

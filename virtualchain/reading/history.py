"""How rows came to be: the versions of a row, what a block changed, and what differs between two blocks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg.types.json import Jsonb

from virtualchain.errors import UsageError
from virtualchain.model import Json
from virtualchain.reading.catalog import Projection
from virtualchain.reading.mistakes import require_height, require_text
from virtualchain.reading.pages import Item, Page, read_cursor, read_item, read_items, read_page
from virtualchain.store.sql import queries

_Q = queries("versions")

MOST_VERSIONS: Final = 50
"""The most versions of a row that are returned."""
MOST_OPS: Final = 10
"""The most ops that are returned for a version."""
SHOWN: Final = 100
"""Changes of a page, if nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class RowVersion:
    """What a row was from one block on, before another; there was no row if `row` is None."""

    from_block: int
    """The block that wrote it."""
    until_block: int | None
    """The block that changed it; None if it is the last version."""
    row: Json | None
    ops: tuple[Json, ...]
    """Ops of the app in `from_block` that may have caused it, the most likely first.

    Keys: block_id, vtxindex, txid, opcode, fields (None if they are long), and mentions: how many values the
    op and the row share, of those that tell rows apart: its key, and the transaction's id. Those that share
    none are among them only if all do.
    """
    has_more_ops: bool


@dataclass(frozen=True, slots=True)
class RowHistory:
    """The versions of a row, newest first."""

    versions: tuple[RowVersion, ...]
    next: int | None
    """The `before` of those that are older; None if these are all."""
    kept_from: int | None
    """The block from which history is kept: a version that began earlier may not be the first. None if all of
    it is kept."""


def row_history(
    connection: psycopg.Connection,
    projection: Projection,
    key: Mapping[str, str],
    before: int | None = None,
    limit: int = MOST_VERSIONS,
) -> RowHistory:
    """Return the versions of the row with a key, whether it still exists or not; none if there never was one.

    `key` has a text for each column of the primary key; `before` is the `next` of a page before. Raises
    UsageError if the key has other columns, or a value that does not fit its column.
    """
    values = key_values(projection, key)
    require_height(before)
    if not 1 <= limit <= MOST_VERSIONS:
        raise UsageError(f"limit is not a number from 1 to {MOST_VERSIONS}: {limit}")
    item = read_item(
        connection,
        _Q["row_history"],
        {
            "app": projection.app,
            "table": projection.name,
            "key": Jsonb(values),
            "before": before,
            "limit": limit + 1,
            "texts": sorted(
                {text for value in values.values() for text in (value, value.removeprefix("\\x"))}
            ),
            "ops": MOST_OPS + 1,
        },
        f"the key of table {projection.name}",
    )
    assert item is not None, "the query returns one row"
    answer = item.value
    versions = (
        RowVersion(row["from_block"], row["until_block"], row["row"], *_likely(row["ops"]))
        for row in answer["versions"]
    )
    return RowHistory(tuple(versions), answer["next"], answer["kept_from"])


def _likely(ops: list[Json]) -> tuple[tuple[Json, ...], bool]:
    """Return those of a block's ops that share a value with the row, or all; and whether there are more."""
    likely = [op for op in ops if op["mentions"]] or ops
    return tuple(likely[:MOST_OPS]), len(likely) > MOST_OPS


def key_values(projection: Projection, key: Mapping[str, str]) -> dict[str, str]:
    r"""Return the texts of a key by column, in order; bytes may be written without `\x`.

    Raises UsageError if a column is missing, or is not one of the primary key.
    """
    others = sorted(key.keys() - set(projection.key))
    missing = [name for name in projection.key if name not in key]
    if others or missing:
        wrong = f"{others[0]} is not a column of it" if others else f"{missing[0]} is missing"
        raise UsageError(f"the key of table {projection.name} is {', '.join(projection.key)}, and {wrong}")
    return {
        name: projection.column(name).literal(require_text(f"column {name}", key[name]))
        for name in projection.key
    }


def block_changes(
    connection: psycopg.Connection,
    app: str | None,
    block_id: int,
    limit: int = SHOWN,
    after: str | None = None,
) -> Page:
    """Return what a block did to the projections of an app, or of all: the columns of virtualchain.changes.

    They are in the order of app, table and key; empty for a block whose history is not kept.
    """
    return _changes(connection, app, None, (block_id - 1, block_id), limit, after)


def net_changes(
    connection: psycopg.Connection,
    app: str | None,
    table: str | None,
    first: int,
    last: int,
    limit: int = SHOWN,
    after: str | None = None,
) -> Page:
    """Return how rows differ after block `last` from what they were after block `first`, earlier or later.

    Keys: app, table, action, key, old (after `first`) and new (after `last`). What was changed and changed
    back in between is not among them. Changes are known as far back as history is kept: raises UsageError if
    it does not reach the lower block.
    """
    low = min(first, last)
    require_height(low)
    pruned = connection.execute(_Q["pruned"], {"app": _name(app), "low": low}).fetchone()
    if pruned is not None:
        raise UsageError(
            f"history of app {pruned[0]} is kept from block {pruned[1]} on: compare no earlier block"
        )
    return _changes(connection, app, table, (first, last), limit, after)


def op_changes(connection: psycopg.Connection, app: str, block_id: int, vtxindex: int) -> list[Item]:
    """Return the changes of an op's block, those first that share the most values with the op.

    Keys: those of virtualchain.changes, and mentions; see `RowVersion.ops`. Which op changed a row is not
    recorded: it is certain if the block has no other op of the app.
    """
    place = {"app": require_text("the app's name", app), "block_id": block_id, "vtxindex": vtxindex}
    return read_items(connection, _Q["op_changes"], {**place, "limit": SHOWN})


def _changes(
    connection: psycopg.Connection,
    app: str | None,
    table: str | None,
    span: tuple[int, int],
    limit: int,
    after: str | None,
) -> Page:
    first, last = span
    for block_id in span:
        require_height(block_id)
    last_app, last_table, key = ("", "", "null") if after is None else read_cursor(after, str, str, str)
    parameters = {
        "app": _name(app),
        "table": None if table is None else require_text("the table's name", table),
        "low": min(span),
        "high": max(span),
        "backwards": first > last,
        "has_cursor": after is not None,
        "last_app": last_app,
        "last_table": last_table,
        "last_key": key,
    }
    return read_page(connection, _Q["net_changes"], parameters, limit)


def _name(app: str | None) -> str | None:
    return None if app is None else require_text("the app's name", app)

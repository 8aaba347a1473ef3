"""The versions of every row of a projection, read without its history: from the view, block by block."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

Version = tuple[int, int | None, dict[str, Any]]
"""The block that wrote the row, the one that ended that (None: it is valid), and the row."""


def rows_at(connection: psycopg.Connection[Any], view: str, block: int) -> list[dict[str, Any]]:
    """Return the rows of a view as of a block."""
    with connection.transaction():
        connection.execute("SELECT set_config('virtualchain.as_of', %s, true)", [str(block)])
        return [row for (row,) in connection.execute(f"SELECT to_jsonb(r) FROM {view} AS r".encode())]


def versions_by_key(
    connection: psycopg.Connection[Any], view: str, key: Sequence[str], blocks: range
) -> dict[tuple[Any, ...], list[Version]]:
    """Return the versions of every row that the view shows at these blocks, newest first, by key.

    One that is there at the first block counts as written by it.
    """
    versions: dict[tuple[Any, ...], list[Version]] = {}
    for block in blocks:
        rows = {tuple(row[column] for column in key): row for row in rows_at(connection, view, block)}
        for place in rows.keys() | versions.keys():
            before = versions.setdefault(place, [])
            row = rows.get(place)
            is_valid = bool(before) and before[0][1] is None
            if is_valid and before[0][2] != row:
                before[0] = (before[0][0], block, before[0][2])
                is_valid = False
            if row is not None and not is_valid:
                before.insert(0, (block, None, row))
    return versions


def history_of(
    connection: psycopg.Connection[Any],
    app: str,
    table: str,
    key: dict[str, Any],
    below: int | None = None,
    most: int | None = None,
) -> list[Version]:
    """Return what `virtualchain.row_history` does."""
    query = "SELECT from_block, until_block, row FROM virtualchain.row_history(%s, %s, %s, %s, %s)"
    return connection.execute(query, [app, table, Jsonb(key), below, most]).fetchall()

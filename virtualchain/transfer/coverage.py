"""What an imported stretch was searched for: what the database's apps need, and what is noted of it."""

from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg.rows import dict_row

from virtualchain.errors import UsageError
from virtualchain.store.sql import queries
from virtualchain.store.tape import Covered, Tape

_Q = queries("transfer")


def require_searched(
    connection: psycopg.Connection, folder: Path, coverage: Sequence[Covered], first: int, last: int
) -> None:
    """Raise UsageError where blocks `first` to `last` were not searched for what an installed app looks for.

    The app could never be advanced along them.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        apps = cursor.execute(_Q["searches"]).fetchall()
    for app in apps:
        for magic in app["magics"]:
            rows = [row for row in coverage if (row.magic, row.rule) == (magic, app["rule"])]
            gap = _gap(rows, max(first, app["first_block_id"]), last)
            if gap is not None:
                raise UsageError(
                    f"{folder} was not searched for the magic {magic.hex()} of app {app['name']} in block "
                    f"{gap}: export from a deployment that runs it, or import into a database without it"
                )


def carry_over(connection: psycopg.Connection, coverage: Sequence[Covered], first: int, last: int) -> None:
    """Note what blocks `first` to `last`, just appended, were searched for.

    A search that went on in the database and in the export goes on as one.
    """
    tape = Tape(connection)
    new = {
        (row.magic, row.rule, max(row.from_block, first)): row.until_block
        for row in coverage
        if row.from_block <= last and (row.until_block is None or row.until_block >= first)
    }
    for row in tape.coverage():
        if row.until_block is not None:
            continue
        search = {"magic": row.magic, "rule": row.rule}
        if row.from_block <= first and (row.magic, row.rule, first) in new:
            until = new.pop((row.magic, row.rule, first))
            connection.execute(_Q["end_coverage"], {**search, "until_block": until})
        else:
            tape.close_coverage(row.magic, row.rule, first - 1)
    for (magic, rule, start), until in new.items():
        wanted = {"magic": magic, "rule": rule, "from_block": start, "until_block": until}
        connection.execute(_Q["add_coverage"], wanted)


def _gap(rows: Sequence[Covered], first: int, last: int) -> int | None:
    """Give the first block from `first` to `last` that was not searched; None where each was."""
    for row in sorted(rows, key=lambda row: row.from_block):
        if row.from_block <= first:
            first = max(first, last + 1 if row.until_block is None else row.until_block + 1)
    return first if first <= last else None

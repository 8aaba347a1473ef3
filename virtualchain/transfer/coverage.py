"""What an imported stretch was searched for, noted in the database that it comes into."""

from collections.abc import Sequence

import psycopg

from virtualchain.store.sql import queries
from virtualchain.store.tape import Covered, Tape

_Q = queries("transfer")


def carry_over(connection: psycopg.Connection, coverage: Sequence[Covered], first: int, last: int) -> None:
    """Note what blocks `first` to `last`, just appended, were searched for.

    A search that went on in the database and in the export goes on as one. One that the export lacks ends: an
    app that needs it searches these blocks anew, once there is a node.
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

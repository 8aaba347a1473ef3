"""What blocks did to the projections of one build: read from the history that triggers keep, undone by it."""

from collections.abc import Sequence

import psycopg
from psycopg import sql

from virtualchain.consensus.state_hash import row_element, update_number
from virtualchain.store.projections import Projection
from virtualchain.store.sql import queries

_Q = queries("history")


class History:
    """The changes of one build: a block's rows for the state hash, and the way back to an earlier block."""

    def __init__(self, connection: psycopg.Connection, projections: Sequence[Projection]) -> None:
        # Its parameters are $1, so that a % in a column's name is nothing but a letter.
        self._cursor = psycopg.RawCursor(connection)
        self._projections = projections
        self._names = [projection.name for projection in projections]
        self._changes = sql.SQL("\nUNION ALL\n").join(
            _rows(query, place, projection)
            for place, projection in enumerate(projections)
            for query in ("went", "came")
        )

    def state_number(self, number: bytes, block_id: int) -> bytes:
        """Bring the number under the state hash from before `block_id` to after it.

        `block_id` must be the newest block that wrote to the projections.
        """
        if not self._names:
            return number
        came: list[int] = []
        went: list[int] = []
        for place, is_new, columns in self._cursor.execute(self._changes, [block_id]):
            (came if is_new else went).append(row_element(self._names[place], columns))
        return update_number(number, came, went) if came or went else number

    def undo(self, fork_block_id: int) -> int:
        """Bring every projection back to what it was behind a block; give how many rows that took.

        All rows go before the first comes back, and foreign keys must be deferred: so no constraint meets a
        state that no block had. The history must reach down to that block.
        """
        self._cursor.execute(_Q["begin_undo"])
        rows = 0
        for query in ("unmake", "put_back", "forget_changes", "forget_births"):
            for projection in self._projections:
                self._cursor.execute(_filled(query, projection), [fork_block_id])
                rows += self._cursor.rowcount if query in {"unmake", "put_back"} else 0
        self._cursor.execute(_Q["end_undo"])
        return rows

    def prune(self, oldest: int, pruned: int) -> None:
        """Forget what is only needed to go back below a block; below `pruned` that was done before."""
        for projection in self._projections:
            for query in ("prune_history", "prune_births"):
                self._cursor.execute(_filled(query, projection), [oldest, pruned])

    def newest(self) -> int | None:
        """Give the last block that changed a projection, as far as history goes; None where there is none."""
        found = [self._cursor.execute(_filled("newest", item)).fetchone() for item in self._projections]
        return max((row[0] for row in found if row and row[0] is not None), default=None)


def _filled(query: str, projection: Projection) -> sql.Composed:
    same_key = (
        sql.SQL("r.{column} = b.{column}").format(column=sql.Identifier(name)) for name in projection.key
    )
    return sql.SQL(_Q[query]).format(
        table=projection.table,
        history=projection.history,
        births=projection.births,
        columns=sql.SQL(", ").join(map(sql.Identifier, projection.columns)),
        same_key=sql.SQL(" AND ").join(same_key),
    )


def _rows(query: str, place: int, projection: Projection) -> sql.Composed:
    texts = (sql.SQL(_Q["text"]).format(column=sql.Identifier(name)) for name in projection.columns)
    return sql.SQL(_Q[query]).format(
        place=sql.Literal(place),
        texts=sql.SQL(", ").join(texts),
        table=projection.table,
        history=projection.history,
        births=projection.births,
        key=sql.SQL(", ").join(map(sql.Identifier, projection.key)),
    )

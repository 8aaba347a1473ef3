"""What a block did to an app's projections, read from the history that its triggers keep."""

from collections.abc import Sequence

import psycopg
from psycopg import sql

from virtualchain import muhash
from virtualchain.store.projections import Projection
from virtualchain.store.sql import queries

_Q = queries("projections")


class History:
    """Reads the changes of one app's build, one block at a time."""

    def __init__(self, connection: psycopg.Connection, projections: Sequence[Projection]) -> None:
        # Its parameters are $1, so that a % in a column's name is nothing but a letter.
        self._cursor = psycopg.RawCursor(connection)
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
            (came if is_new else went).append(muhash.element(self._names[place], columns))
        return muhash.update(number, came, went) if came or went else number


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

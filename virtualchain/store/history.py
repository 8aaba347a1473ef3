"""The history of a build's projections: what each block changed, the way back, and a check against the log.

Triggers keep this history, whoever writes to a projection.
"""

from collections.abc import Iterable, Sequence

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from virtualchain.consensus.state_hash import NumberUpdate, digest_number, row_element
from virtualchain.errors import StoreError
from virtualchain.store.pipeline import Answer, pipeline_of
from virtualchain.store.projections import Projection, build_schema, projections
from virtualchain.store.rows import Change
from virtualchain.store.sql import queries

_Q = queries("history")


class History:
    """The changes to one build's projections: a block's rows for the state hash, and how to undo them."""

    def __init__(self, connection: psycopg.Connection, projections: Sequence[Projection]) -> None:
        # Parameters are written $1 here, so that a % in a column's name needs no escaping.
        self._cursor = psycopg.RawCursor(connection)
        self._projections = projections
        self._names = [projection.name for projection in projections]
        changes = sql.SQL("\nUNION ALL\n").join(
            _changes_of_block(query, index, projection)
            for index, projection in enumerate(projections)
            for query in ("went", "came")
        )
        self._changes = changes.as_string(connection).encode()
        self._changed_rows: Answer | None = None

    def ask_changes(self, block_id: int) -> None:
        """Ask which rows `block_id` changed, the newest block that wrote to the projections."""
        self._changed_rows = pipeline_of(self._cursor.connection).send(self._changes, [block_id])

    def state_number(self, number: bytes) -> bytes:
        """Return the number under the state hash after the block that `ask_changes` asked for.

        `number` is the one before that block.
        """
        update = NumberUpdate()
        assert self._changed_rows is not None, "ask first"
        for index, is_new, columns in self._changed_rows.each():
            change = update.add if is_new else update.remove
            change(row_element(self._names[index], columns))
        self._changed_rows = None
        return update.after(number)

    @staticmethod
    def number_after(number: bytes, changes: Iterable[Change]) -> bytes:
        """Return the number under the state hash after these changes."""
        update = NumberUpdate()
        for before, after in changes:
            if before is not None:
                update.remove(before)
            if after is not None:
                update.add(after)
        return update.after(number)

    def undo(self, fork_block_id: int) -> int:
        """Restore every projection to its rows as of a block; return how many rows were removed or put back.

        All removals come before the first row is put back, and foreign keys must be deferred, so that no
        constraint sees a state that never existed after a block. The history must reach back to that block.
        """
        self._cursor.execute(_Q["begin_undo"])
        rows = 0
        for query in ("unmake", "put_back", "forget_changes", "forget_births"):
            for projection in self._projections:
                self._cursor.execute(_statement(query, projection), [fork_block_id])
                rows += self._cursor.rowcount if query in {"unmake", "put_back"} else 0
        self._cursor.execute(_Q["end_undo"])
        return rows

    def prune(self, oldest: int, app: str, build: str) -> None:
        """Send what drops history that is only needed to go back below `oldest`."""
        pipeline = pipeline_of(self._cursor.connection)
        for projection in self._projections:
            for query in ("prune_history", "prune_births"):
                pipeline.send(_statement(query, projection).as_bytes(), [oldest, app, build])

    def last_changed_block(self) -> int | None:
        """Return the last block that changed a projection, as far as history goes; None if there is none."""
        rows = [self._cursor.execute(_statement("newest", item)).fetchone() for item in self._projections]
        return max((row[0] for row in rows if row and row[0] is not None), default=None)


def check_consistency(connection: psycopg.Connection, except_app: str | None = None) -> None:
    """Check that what one transaction wrote for each live build still agrees: tape, log and tables.

    Every start does this; it costs a few index look-ups, however large the database is. It notices tables of
    another block than the log's last one, a log that is ahead of the tape, and a last state hash that does
    not fit the number stored with it. It reads no row of a projection: `virtualchain verify` checks them all.

    `except_app` is skipped. Raises StoreError, which names the app and what disagrees.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        for build in cursor.execute(_Q["live_builds"]).fetchall():
            if build["name"] != except_app and (fault := _inconsistency(connection, build)):
                raise StoreError(
                    f"app {build['name']} is damaged: its last digests are of block {build['block_id']}, "
                    f"{fault}. Restore the database from a backup, or rebuild the app's tables: "
                    f"`virtualchain replay {build['name']}`"
                )


def _inconsistency(connection: psycopg.Connection, build: dict[str, object]) -> str | None:
    if not build["is_on_tape"]:
        return "which is not on the tape"
    tables = build_schema(str(build["schema"]), str(build["build"]))
    newest = History(connection, projections(connection, tables)).last_changed_block()
    if newest is not None and newest > int(str(build["block_id"])):
        return f"and its tables are those of block {newest}"
    row = (
        psycopg.RawCursor(connection).execute(_Q["latest_number"], [build["name"], build["build"]]).fetchone()
    )
    assert row is not None, "a query without FROM returns one row"
    state_hash, state_number = row
    if state_number is not None and digest_number(bytes(state_number)) != state_hash:
        return "and its state hash does not match the number stored with it"
    return None


def _statement(query: str, projection: Projection) -> sql.Composed:
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


def _changes_of_block(query: str, index: int, projection: Projection) -> sql.Composed:
    return sql.SQL(_Q[query]).format(
        index=sql.Literal(index),
        texts=projection.texts(),
        table=projection.table,
        history=projection.history,
        births=projection.births,
        key=sql.SQL(", ").join(map(sql.Identifier, projection.key)),
    )

"""The state root of an app, and proofs of its rows: everything is read through the views, as a reader may.

`docs/protocol/proofs.md` defines both. All rows as of the block are read for either, and must have the state
hash in the log: of a table that was changed by hand, nothing is proved.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import sql

from virtualchain.consensus.row_proofs import OrderedRows, make_row_proof
from virtualchain.consensus.state_hash import EMPTY, NumberUpdate, digest_number
from virtualchain.errors import DamagedTables, UsageError
from virtualchain.model import Json
from virtualchain.reading import views
from virtualchain.store.projections import Projection, build_schema, projections
from virtualchain.store.sql import queries

_Q = queries("rows")
_CHUNK: Final = 1000
"""Rows fetched at once."""


def read_state(connection: psycopg.Connection, app: str, block_id: int | None = None) -> Json:
    """Return an app's state at a block, by default its last one: what the state root is the hash of.

    `connection` is a `snapshot` of views. Raises UsageError if the database cannot show the app's rows at the
    block, or the app has none, and DamagedTables if they do not have the state hash in the log.
    """
    with _shown(connection, app, block_id) as state:
        return state.read()[0]


def prove_row(
    connection: psycopg.Connection, app: str, table: str, key: Sequence[str], block_id: int | None = None
) -> Json:
    """Make the proof of the row with a key, or that there is none, at a block, by default the app's last one.

    `key` has one text for each column of the table's primary key; the row is the one of which the database
    says that it has these values, and the proof has its own texts. Raises what `read_state` raises, and
    UsageError if there is no such table or a text is not a value of its column.
    """
    with _shown(connection, app, block_id) as state:
        projection = state.table(table)
        texts = state.stored_key(projection, key)
        described, rows = state.read(projection.name, texts)
    return make_row_proof(described, table, texts, rows)


@contextmanager
def _shown(connection: psycopg.Connection, app: str, block_id: int | None) -> Iterator["_State"]:
    """Have the views show an app's rows as of a block."""
    [row] = views.apps(connection, [app])
    last = row["block_id"]
    if last is None:
        raise UsageError(f"app {app} has taken no block here: there is nothing to prove")
    at = last if block_id is None else block_id
    if at > last:
        raise UsageError(f"app {app} is at block {last}, so it has no rows as of block {at} yet")
    digests = next(iter(views.digests(connection, at, [app])), None)
    tables = projections(connection, build_schema(row["schema"], row["build"]))
    if not tables and row["state_hash"] != digest_number(EMPTY):
        raise UsageError(f"app {app} has an opaque state, which has no rows: nothing in it can be proved")
    if digests is None or digests["block_hash"] is None:
        raise UsageError(f"block {at} is not on the tape, or app {app} has no digests there")
    if digests["state_hash"] is None:
        raise UsageError(f"app {app} has no state hash at block {at}, which is below its first rows")
    try:
        views.show_block(connection, str(at))
        yield _State(connection, row["schema"], tables, digests)
    except psycopg.Error as error:
        if error.sqlstate == views.NOT_SHOWN:
            raise UsageError(views.complaint(error)) from error
        raise


class _State:
    """An app at a block, which its views show."""

    def __init__(
        self, connection: psycopg.Connection, schema: str, tables: Sequence[Projection], digests: Json
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._tables = tables
        self._digests = digests

    def table(self, name: str) -> Projection:
        """Return a projection; raises UsageError if there is none of that name."""
        for table in self._tables:
            if table.name == name:
                return table
        names = ", ".join(table.name for table in self._tables) or "none"
        raise UsageError(f"app {self._digests['name']} has no table {name}: its tables are {names}")

    def stored_key(self, table: Projection, key: Sequence[str]) -> list[str]:
        """Return the texts of a key as its row has them, or else as a row would have them."""
        if len(key) != len(table.key):
            names = ", ".join(table.key)
            raise UsageError(f"the key of table {table.name} has {len(table.key)} columns: {names}")
        view = self._view(table)
        conditions = [
            sql.SQL(_Q["key_column"]).format(column=sql.Identifier("r", name), text=sql.Literal(text))
            for name, text in zip(table.key, key, strict=True)
        ]
        statement = sql.SQL(_Q["stored_key"]).format(
            texts=table.key_texts(), view=view, conditions=sql.SQL(" AND ").join(conditions)
        )
        try:
            row = self._connection.execute(statement).fetchone()
            return self._own_texts(table, key) if row is None else list(row[0])
        except (psycopg.DataError, UnicodeEncodeError) as error:
            message = error.diag.message_primary if isinstance(error, psycopg.Error) else None
            raise UsageError(
                f"a text of the key of table {table.name} is not a value of its column: {message or error}"
            ) from error

    def _own_texts(self, table: Projection, key: Sequence[str]) -> list[str]:
        """Return the texts of a key that no row has."""
        place = {"schema": self._schema, "view": table.name}
        limited: dict[str, str] = dict(self._connection.execute(_Q["limited_types"], place).fetchall())
        texts = []
        for name, text in zip(table.key, key, strict=True):
            query = _Q["text_of_limited_value" if name in limited else "text_of_value"]
            statement = sql.SQL(query).format(
                column=sql.Identifier(name),
                view=self._view(table),
                text=sql.Literal(text),
                type=sql.SQL(limited.get(name, "")),  # the database wrote it, for its own use
            )
            row = self._connection.execute(statement).fetchone()
            assert row is not None, "a literal is one row"
            texts.append(str(row[0]))
        return texts

    def read(self, table: str | None = None, key: Sequence[str] | None = None) -> tuple[Json, list[Json]]:
        """Read all rows; return the state, and the rows of a proof if a key of a table is sought."""
        update, summaries, neighbors = NumberUpdate(), [], []
        for projection in self._tables:
            sought = key if projection.name == table else None
            rows = OrderedRows(projection.name, projection.columns, projection.key, sought)
            for values in self._rows(projection):
                try:
                    update.add(rows.add(values))
                except ValueError as error:
                    raise DamagedTables(
                        f"table {projection.name} of app {self._digests['name']} is damaged: a row cannot be "
                        f"in the state root, because {error}"
                    ) from error
            summaries.append(rows.summary())
            neighbors += rows.neighbors()
        digests, computed = self._digests, digest_number(update.after(EMPTY))
        if computed != digests["state_hash"]:
            raise DamagedTables(
                f"app {digests['name']} is damaged, so nothing is proved: its state hash at block "
                f"{digests['block_id']} is {digests['state_hash']}, but its rows have {computed}; "
                "`virtualchain verify` shows more"
            )
        [genesis_hash] = self._connection.execute(_Q["genesis"]).fetchone() or (None,)
        names = ("block_hash", "block_id", "consensus_hash", "state_hash")
        state = {name: digests[name] for name in names}
        return {**state, "app": digests["name"], "genesis_hash": genesis_hash, "tables": summaries}, neighbors

    def _rows(self, table: Projection) -> Iterator[list[str | None]]:
        statement = sql.SQL(_Q["rows"]).format(
            texts=table.texts(), view=self._view(table), order=table.order()
        )
        with self._connection.cursor("rows") as cursor:
            cursor.itersize = _CHUNK
            for (values,) in cursor.execute(statement):
                yield values

    def _view(self, table: Projection) -> sql.Identifier:
        return sql.Identifier(self._schema, table.name)

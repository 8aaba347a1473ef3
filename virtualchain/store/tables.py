"""All tables of an app, as the callbacks of one block see them row by row."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import psycopg
from psycopg import sql

from virtualchain.errors import Unserializable, UsageError
from virtualchain.model import Json
from virtualchain.store.columns import Column, Shape, Values
from virtualchain.store.failures import ValueDoesNotFit
from virtualchain.store.kept import MOST_KEPT
from virtualchain.store.pipeline import Answer, pipeline_of
from virtualchain.store.projections import Projection, index_columns, projections
from virtualchain.store.rows import AT_ONCE, Call, Change, Rows
from virtualchain.store.sql import queries
from virtualchain.store.table import Table
from virtualchain.store.values import to_database

_Q = queries("tables")
_TXID: Final = re.compile("[0-9a-f]{64}")

_Outpoint = tuple[str, int]
"""An output as the tracked table names it: txid and vout."""


class Tables:
    """The tables of one build, as the callbacks of one block see them."""

    def __init__(self, connection: psycopg.Connection, schema: str, tracks: str | None = None) -> None:
        self._rows: dict[str, Rows] = {}
        self._tracks = tracks
        self._refused: dict[str, str] = {}
        self._call = Call(pipeline_of(connection))
        self.begin_call = self._call.begin
        self._tables: dict[str, Table[Any]] = {}
        """Those that callbacks have asked for."""
        self.computing: list[Rows] = []
        """The rows of tables whose checks compute: a change may be refused for what comes of it."""
        all_projections = projections(connection, schema)
        for projection in all_projections:
            shape = _read_shape(connection, projection)
            if isinstance(shape, Shape):
                most_kept = MOST_KEPT // len(all_projections)
                rows = Rows(connection, projection, shape, self._call, most_kept)
                self._rows[projection.name] = rows
                if shape.has_computed_check:
                    self.computing.append(rows)
            else:
                self._refused[projection.name] = shape
            if projection.name == tracks:
                name = "at" if isinstance(shape, Shape) else "present"
                self._at = _at(connection, name, projection)

    def table(self, name: str) -> Table[Any]:
        """Return a table; raise UsageError if there is none, or one that only statements can handle."""
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = Table(self._rows_of(name))
        return table

    def begin(self, block_id: int) -> None:
        """Start a new block."""
        self._call.block_id = block_id
        for rows in self._rows.values():
            rows.begin()

    def keep(self) -> None:
        """Keep what is known of the rows for the blocks to come: they are written, and nobody else writes."""
        for rows in self._rows.values():
            rows.keep()

    def read_ahead(self, keys: Mapping[str, Iterable[object]]) -> None:
        """Read the rows with these keys, by table."""
        tables = [(self._rows_of(name), named) for name, named in keys.items()]
        missing = [(rows, rows.missing(named)) for rows, named in tables]
        for start in range(0, max((len(keys) for _, keys in missing), default=0), AT_ONCE):
            asked = [
                (rows, rows.ask(part)) for rows, keys in missing if (part := keys[start : start + AT_ONCE])
            ]
            _, last_answer = asked[-1][1][-1]
            self._call.pipeline.wait_for(last_answer)
            for rows, answers in asked:
                rows.learn(answers)

    def ask_at(self, outpoints: Iterable[bytes]) -> Answer:
        """Ask for what the tracked table has for some outputs; `learn_at` takes the answer."""
        return self._call.pipeline.send(self._at, [to_database(b"".join(outpoints), 0)])

    def outputs_in(self, answer: Answer) -> set[bytes]:
        """Return the outputs that the tracked table has rows for, by the answer to `ask_at`."""
        tracked = self._tracked_rows
        txid, vout = (0, 1) if tracked is None else map(tracked.shape.place, ("txid", "vout"))
        return {_packed(row[txid], row[vout]) for row in answer.rows()}

    def learn_at(self, outpoints: Iterable[bytes], rows: Iterable[Values]) -> None:
        """Take all rows that the tracked table has for some outputs in the database."""
        if self._tracked_rows is not None:
            self._tracked_rows.learn_all(self._tracked_rows.output, map(_output, outpoints), rows)

    def tracked(self, outpoints: Iterable[bytes]) -> set[bytes]:
        """Return those of some outputs that the tracked table has a row for now."""
        named = {_output(outpoint): outpoint for outpoint in outpoints}
        tracked = self._tracked_rows
        unknown = list(named) if tracked is None else tracked.unknown(tracked.output, named)
        present: set[bytes] = set()
        if unknown:
            asked = [named[output] for output in unknown]
            answer = self.ask_at(asked)
            self._call.pipeline.wait()
            present = self.outputs_in(answer)
            self.learn_at(asked, answer.rows())
        if tracked is None:
            return present
        return {outpoint for output, outpoint in named.items() if tracked.at(tracked.output, output)}

    def rows_at(self, txid: str, vout: int) -> list[Json]:
        """Return the tracked table's rows for an output, in the order of their keys."""
        if self._tracks is None:
            raise UsageError("state.tracked: the app does not track outputs")
        rows = self._rows_of(self._tracks)
        if not _TXID.fullmatch(txid) or not 0 <= vout < 1 << 32:
            return []  # there is no such output
        self.tracked([_packed(txid, vout)])
        return [dict(zip(rows.shape.names, row, strict=True)) for row in rows.at(rows.output, (txid, vout))]

    @property
    def _tracked_rows(self) -> Rows | None:
        """The tracked table; None if only statements can handle it."""
        return None if self._tracks is None else self._rows.get(self._tracks)

    @property
    def is_dirty(self) -> bool:
        """Whether a change is not written yet."""
        return any(rows.is_dirty for rows in self._rows.values())

    @property
    def has_changed(self) -> bool:
        """Whether the call has changed a row."""
        return self._call.has_changed

    def undo(self, *, statements_wrote: bool) -> None:
        """Return to the call's beginning; the caller undoes its statements, which may have written."""
        for rows in self._rows.values():
            rows.undo(statements_wrote=statements_wrote)

    def write(self) -> None:
        """Write all changes; the triggers that keep history must be silent."""
        for rows in self._rows.values():
            if rows.is_dirty:
                rows.write()

    def forget(self) -> None:
        """Forget all rows, because a statement may have changed them."""
        for rows in self._rows.values():
            rows.forget()

    def changes(self) -> Iterator[Change]:
        """Yield what the block did to the rows that are known."""
        for rows in self._rows.values():
            yield from rows.changes()

    def touched(self) -> Iterator[tuple[Shape, list[tuple[Values, Values | None, Values | None]]]]:
        """Yield, by table, the rows that a call changed one by one, as far as no statement wrote since."""
        for rows in self._rows.values():
            touched = rows.touched()
            if touched:
                yield rows.shape, touched

    def _rows_of(self, name: str) -> Rows:
        if name in self._refused:
            raise UsageError(f"state.table({name!r}): {self._refused[name]}: use statements")
        if name not in self._rows:
            raise UsageError(
                f"state.table({name!r}): the app has no such table; it has {', '.join(self._rows) or 'none'}"
            )
        return self._rows[name]


def _read_shape(connection: psycopg.Connection, projection: Projection) -> Shape | str:
    """Read a table's columns and indexes; return why, if only statements can handle them."""
    names = list(projection.columns)
    place = {"tables": projection.schema, "table": projection.name, "columns": names}
    columns = []
    for name, kind, modifier, type_, is_required, expression in connection.execute(_Q["columns"], place):
        column = Column(name, kind, modifier, type_, is_required)
        if not column.is_known:
            return f"its column {name} has the type {type_}"
        if name in projection.key and not column.has_one_text:
            return f"its key {name} is numeric without a precision"
        if expression is not None:
            default = sql.SQL(_Q["default"]).format(expression=sql.SQL(expression), type=sql.SQL(type_))
            try:
                with connection.transaction():
                    row = connection.execute(default).fetchone()
                assert row is not None, "a SELECT without FROM has a row"
                column = replace(column, default=column.fit(row[0]))
            except (psycopg.DataError, ValueDoesNotFit, Unserializable):
                return f"the default of its column {name} does not fit the column"
        columns.append(column)
    if connection.execute(_Q["deferrable_key"], place).fetchone() is not None:
        return "its primary key is deferrable"
    indexes = []
    for index in index_columns(connection, projection):
        if index is None:
            return "it has an index with an expression or a predicate"
        indexes.append(tuple(names.index(name) for name in index))
    return Shape(
        projection.name,
        tuple(columns),
        tuple(names.index(name) for name in projection.key),
        tuple(indexes),
        connection.execute(_Q["computed_check"], place).fetchone() is not None,
    )


def _at(connection: psycopg.Connection, name: str, projection: Projection) -> bytes:
    """Return the statement that asks what a table has for some outputs."""
    parts: dict[str, sql.Composable] = {
        "table": projection.table,
        "own_columns": sql.SQL(", ").join(sql.Identifier("r", column) for column in projection.columns),
        "outpoints": sql.SQL(_Q["outpoints"]),
    }
    return sql.SQL(_Q[name]).format(**parts).as_string(connection).encode()


def _output(outpoint: bytes) -> _Outpoint:
    """Return an outpoint as the tracked table has it."""
    return outpoint[:32].hex(), int.from_bytes(outpoint[32:])


def _packed(txid: str, vout: int) -> bytes:
    """Return an output in the engine's form."""
    return bytes.fromhex(txid) + vout.to_bytes(4)

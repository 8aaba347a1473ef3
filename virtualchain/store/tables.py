"""Tables as reducers read and write them row by row: read ahead, kept for the block, written back at once.

What is changed is written in few statements a table, with the history that the table's triggers would keep:
before any statement of the app, which may see it, and at the end of the block.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from virtualchain.errors import Unserializable, UsageError
from virtualchain.model import Json
from virtualchain.store.columns import Column, Shape, Values
from virtualchain.store.failures import ValueDoesNotFit
from virtualchain.store.pipeline import Answer, Pipeline, pipeline_of
from virtualchain.store.projections import Projection, index_columns, projections
from virtualchain.store.sql import queries
from virtualchain.store.values import to_database

_Q = queries("tables")
_AT_ONCE: Final = 5_000
"""Rows that a statement reads or writes."""
_STATEMENTS: Final = ("bear", "remove", "write")
_TXID: Final = re.compile("[0-9a-f]{64}")

_Outpoint = tuple[str, int]
"""An output as the tracked table names it: txid and vout."""


class Change(NamedTuple):
    """What a block did to a row: the texts of its columns before and after, None if there was no row."""

    table: str
    before: list[str | None] | None
    after: list[str | None] | None


class Table:
    """One projection, row by row. A key is a value, or for a key of several columns a tuple.

    A row is read once a block. What is changed is written later, and constraints are checked then. A value
    that does not fit its column rejects the input; one of another type is an error of the app.
    """

    def __init__(self, rows: "_Rows") -> None:
        self._rows = rows

    @property
    def name(self) -> str:
        """The table's name."""
        return self._rows.shape.table

    def get(self, key: object) -> Json | None:
        """Return the row with this key as a dict, or None."""
        values = self._rows.shape.find_key(key)
        row = None if values is None else self._rows.row(values).now
        return None if row is None else dict(zip(self._rows.shape.names, row, strict=True))

    def find(self, *prefix: object) -> list[Json]:
        """Return the rows whose key begins with these values, at least one, in the order of their keys."""
        values = self._rows.shape.find_prefix(prefix)
        rows = () if values is None else self._rows.beginning_with(values)
        return [dict(zip(self._rows.shape.names, row, strict=True)) for row in rows]

    def put(self, row: Mapping[str, object]) -> None:
        """Insert a row, or replace the one with its key; a column that is left out gets its default."""
        values = self._rows.shape.row(row)
        self._rows.change(self._rows.shape.key_of(values), values)

    def add(self, key: object, **amounts: object) -> None:
        """Add amounts to columns of a row; if there is none yet, to one with the columns' defaults."""
        shape = self._rows.shape
        fitted = shape.fit_key(key)
        row = list(self._rows.row(fitted).now or shape.default_row(fitted))
        for name, amount in amounts.items():
            place = shape.place(name)
            row[place] = shape.columns[place].add(row[place], amount)
        shape.check(row)
        self._rows.change(fitted, tuple(row))

    def delete(self, key: object) -> bool:
        """Delete the row with this key; return whether there was one."""
        values = self._rows.shape.find_key(key)
        if values is None or self._rows.row(values).now is None:
            return False
        self._rows.change(values, None)
        return True


@dataclass(slots=True)
class _Row:
    """What is known of one key in a block."""

    before: Values | None
    """The row as it was before the block; None: there was none."""
    now: Values | None
    is_changed: bool = False
    """Whether it was changed in the block."""
    is_dirty: bool = False
    """Whether it was changed since it was written."""
    was_put: bool = False
    """Whether it was put since it was written."""


class _Call:
    """What all tables know of the block, and of the call of a callback that runs."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.block_id = -1
        self.may_be_undone = False
        self.has_changed = False
        """Whether a row was changed since the call began."""
        self.journal: list[tuple[_Rows, Values, _Row]] = []
        """Rows as they were before they were changed or written, if the call may have to be undone."""

    def begin(self, *, may_be_undone: bool) -> None:
        """Begin a call."""
        self.may_be_undone = may_be_undone
        self.has_changed = False
        self.journal.clear()


_Places = tuple[int, ...]
"""Places in a key."""


@dataclass(slots=True)
class _Group:
    """The keys of one table by the values at some places."""

    keys: dict[Values, list[Values]]
    """Those of which something is known."""
    complete: set[Values] = field(default_factory=set)
    """The values with which all rows are known."""


def _part(key: Values, places: _Places) -> Values:
    return tuple([key[place] for place in places])


class _Rows:
    """The rows of one table that a block has touched."""

    def __init__(
        self, connection: psycopg.Connection, projection: Projection, shape: Shape, call: _Call
    ) -> None:
        self.shape = shape
        self._call = call
        self._name = projection.name
        self._known: dict[Values, _Row] = {}
        self._dirty: list[Values] = []
        """The keys of rows with a change that is not written yet."""
        self._statements = _Statements(connection, call.pipeline, projection, shape)
        self._groups: dict[_Places, _Group] = {}
        """Made when they are first asked for."""
        self.output = tuple(projection.key.index(name) for name in ("txid", "vout") if name in projection.key)
        """Where a key has its output, if the table may be tracked."""

    @property
    def is_dirty(self) -> bool:
        """Whether a change is not written yet."""
        return bool(self._dirty)

    def row(self, key: Values) -> _Row:
        """Return what is known of a key; read it if nothing is."""
        if not self._is_known(key):
            self._read(key)
        return self._known[key]

    def beginning_with(self, prefix: Values) -> list[Values]:
        """Return the rows whose key begins so, in the order of their keys; read them if nobody has."""
        if not self._is_known(prefix):
            self._read(prefix)
        return self.at(tuple(range(len(prefix))), prefix)

    def missing(self, keys: Iterable[object]) -> list[Values]:
        """Return those of some keys, or beginnings of keys, that a row may have and that are not known."""
        possible: dict[Values | None, None] = {}
        for key in keys:
            with suppress(Unserializable):  # that rejects the input which asks for such a row, later
                if isinstance(key, tuple) and 0 < len(key) < len(self.shape.key):
                    possible[self.shape.find_prefix(key)] = None
                else:
                    possible[self.shape.find_key(key)] = None
        return [key for key in possible if key is not None and not self._is_known(key)]

    def ask(self, keys: Sequence[Values]) -> list[tuple[Sequence[Values], Answer]]:
        """Ask for the rows with these keys, or with keys that begin so."""
        by_size: dict[int, list[Values]] = {}
        for key in keys:
            by_size.setdefault(len(key), []).append(key)
        return [(some, self._statements.read(some)) for some in by_size.values()]

    def learn(self, answers: Iterable[tuple[Sequence[Values], Answer]]) -> None:
        """Take the answers to `ask`."""
        for keys, answer in answers:
            if len(keys[0]) < len(self.shape.key):
                self.learn_all(tuple(range(len(keys[0]))), keys, answer.rows())
            else:
                stored = {self.shape.key_of(row): row for row in answer.rows()}
                for key in keys:
                    self._learn(key, stored.get(key))

    def learn_all(self, places: _Places, parts: Iterable[Values], rows: Iterable[Values]) -> None:
        """Take all rows that the database has with some values at these places of the key."""
        for row in rows:
            self._learn(self.shape.key_of(row), row)
        self._group(places).complete.update(parts)

    def at(self, places: _Places, part: Values) -> list[Values]:
        """Return the known rows with these values at these places of the key, in the order of their keys."""
        keys = self._group(places).keys.get(part, ())
        return [row for key in sorted(keys) if (row := self._known[key].now) is not None]

    def unknown(self, places: _Places, parts: Iterable[Values]) -> list[Values]:
        """Return those of some values at these places of the key with which not all rows are known."""
        complete = self._group(places).complete
        return [part for part in parts if part not in complete]

    def _read(self, key: Values) -> None:
        answers = self.ask([key])
        self._call.pipeline.wait()
        self.learn(answers)

    def _learn(self, key: Values, row: Values | None) -> None:
        """Take what the database has for a key; what is known already is newer."""
        if key not in self._known:
            self._known[key] = _Row(row, row)
            for places, group in self._groups.items():
                group.keys.setdefault(_part(key, places), []).append(key)

    def _is_known(self, key: Values) -> bool:
        """Check whether the row with a key is known, or with the beginning of one all rows are."""
        if key in self._known:
            return True
        size = len(key)
        is_known = any(
            max(places) < size and _part(key, places) in group.complete
            for places, group in self._groups.items()
        )
        if is_known and size == len(self.shape.key):
            self._learn(key, None)
        return is_known

    def _group(self, places: _Places) -> _Group:
        """Return the known keys by their values at these places."""
        if places not in self._groups:
            keys: dict[Values, list[Values]] = {}
            for key in self._known:
                keys.setdefault(_part(key, places), []).append(key)
            self._groups[places] = _Group(keys)
        return self._groups[places]

    def change(self, key: Values, values: Values | None) -> None:
        """Set the row with a key, or with None remove it."""
        row = self.row(key)
        if values is not None:
            self.shape.check_sizes(row.now, values)
        self._note(key, row)
        row.now = values
        if not row.is_dirty:
            self._dirty.append(key)
        row.is_changed = row.is_dirty = self._call.has_changed = True
        row.was_put = row.was_put or values is not None

    def write(self) -> None:
        """Write what was changed, with its history."""
        known = self._known
        for key in self._dirty:
            self._note(key, known[key])
        for keys in _parts([key for key in self._dirty if known[key].now is None]):
            self._statements.bear(self._call.block_id, [key for key in keys if known[key].was_put])
            self._statements.remove(self._call.block_id, keys)
        for keys in _parts([key for key in self._dirty if known[key].now is not None]):
            self._statements.write(self._call.block_id, [row for key in keys if (row := known[key].now)])
        for key in self._dirty:
            known[key].is_dirty = known[key].was_put = False
        self._dirty = []

    def undo(self, *, statements_wrote: bool) -> None:
        """Bring back the rows as they were when the call began; forget what a statement may have changed."""
        for rows, key, row in reversed(self._call.journal):
            if rows is self:
                self._known[key] = row
        self._dirty = [key for key, row in self._known.items() if row.is_dirty]
        if statements_wrote:
            self._known, self._groups = {key: self._known[key] for key in self._dirty}, {}

    def forget(self) -> None:
        """Forget all rows."""
        self._known, self._dirty, self._groups = {}, [], {}

    def changes(self) -> Iterator[Change]:
        """Yield what the block did to these rows."""
        for row in self._known.values():
            if row.is_changed:
                change = Change(self._name, self._texts(row.before), self._texts(row.now))
                if change.before != change.after:
                    yield change

    def touched(self) -> list[tuple[Values, Values | None, Values | None]]:
        """Return a row with the key of each that a call has changed, and that row before the call and now."""
        before: dict[Values, Values | None] = {}
        some: dict[Values, Values | None] = {}
        for rows, key, row in self._call.journal:
            if rows is self:
                before.setdefault(key, row.now)
                some[key] = row.now or some.get(key)
        left = [(key, row, self._known[key].now) for key, row in before.items() if key in self._known]
        return [(one, row, now) for key, row, now in left if (one := now or some[key]) is not None]

    def _texts(self, row: Values | None) -> list[str | None] | None:
        return None if row is None else self.shape.texts(row)

    def _note(self, key: Values, row: _Row) -> None:
        if self._call.may_be_undone:
            self._call.journal.append((self, key, copy(row)))


class Tables:
    """The tables of one build, as the callbacks of one block see them."""

    def __init__(self, connection: psycopg.Connection, schema: str, tracks: str | None = None) -> None:
        self._rows: dict[str, _Rows] = {}
        self._tracks = tracks
        self._refused: dict[str, str] = {}
        self._call = _Call(pipeline_of(connection))
        for projection in projections(connection, schema):
            shape = _read_shape(connection, projection)
            if isinstance(shape, Shape):
                self._rows[projection.name] = _Rows(connection, projection, shape, self._call)
            else:
                self._refused[projection.name] = shape
            if projection.name == tracks:
                name = "at" if isinstance(shape, Shape) else "present"
                self._at = _at(connection, name, projection)

    def table(self, name: str) -> Table:
        """Return a table; raise UsageError if there is none, or one that only statements can handle."""
        return Table(self._rows_of(name))

    def begin(self, block_id: int) -> None:
        """Start a new block."""
        self._call.block_id = block_id
        self.forget()

    def begin_call(self, *, may_be_undone: bool) -> None:
        """Begin a call, to which `undo` returns if it may be undone."""
        self._call.begin(may_be_undone=may_be_undone)

    def read_ahead(self, keys: Mapping[str, Iterable[object]]) -> None:
        """Read the rows with these keys, by table."""
        tables = [(self._rows_of(name), named) for name, named in keys.items()]
        missing = [(rows, rows.missing(named)) for rows, named in tables]
        for start in range(0, max((len(keys) for _, keys in missing), default=0), _AT_ONCE):
            asked = [
                (rows, rows.ask(part)) for rows, keys in missing if (part := keys[start : start + _AT_ONCE])
            ]
            self._call.pipeline.wait()
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
    def _tracked_rows(self) -> _Rows | None:
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

    def _rows_of(self, name: str) -> _Rows:
        if name in self._refused:
            raise UsageError(f"state.table({name!r}): {self._refused[name]}: use statements")
        if name not in self._rows:
            raise UsageError(f"state.table({name!r}): the app has no such table")
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
    )


class _Statements:
    """The statements that read and write one table; parameters are arrays, one for each column."""

    def __init__(
        self, connection: psycopg.Connection, pipeline: Pipeline, projection: Projection, shape: Shape
    ) -> None:
        self._shape = shape
        self._pipeline = pipeline
        key = [sql.Identifier(name) for name in projection.key]
        columns = [sql.Identifier(name) for name in shape.names]
        changed = [name for name in shape.names if name not in projection.key]
        same = (sql.SQL("r.{column} = w.{column}").format(column=column) for column in key)
        updates = (
            sql.SQL("{column} = EXCLUDED.{column}").format(column=sql.Identifier(name))
            for name in (*changed, "since_block")
        )
        parts: dict[str, sql.Composable] = {
            "table": projection.table,
            "history": projection.history,
            "births": projection.births,
            "key": sql.SQL(", ").join(key),
            "written_key": sql.SQL(", ").join(sql.SQL("written.{}").format(column) for column in key),
            "columns": sql.SQL(", ").join(columns),
            "own_columns": sql.SQL(", ").join(sql.SQL("r.{}").format(column) for column in columns),
            "keys": self._arrays(shape.key),
            "rows": self._arrays(range(len(columns))),
            "row_keys": sql.SQL(", ").join(
                sql.SQL(f"${place + 1}::{shape.columns[place].type}[]") for place in shape.key
            ),
            "same_key": sql.SQL(" AND ").join(same),
            "changes": sql.SQL(", ").join(updates),
        }
        self._texts: dict[str, bytes] = {}
        for name in _STATEMENTS:
            arrays = len(columns) if name == "write" else len(key)
            parts["block"] = sql.SQL(f"${arrays + 1}::integer")
            for part in ("kept", "born"):
                parts[part] = sql.SQL(_Q[part]).format(**parts)
            self._texts[name] = sql.SQL(_Q[name]).format(**parts).as_string(connection).encode()
        for size in range(1, len(key) + 1):
            parts["key"] = sql.SQL(", ").join(key[:size])
            parts["keys"] = self._arrays(shape.key[:size])
            self._texts[f"read {size}"] = sql.SQL(_Q["read"]).format(**parts).as_string(connection).encode()

    def read(self, keys: Sequence[Values]) -> Answer:
        """Ask for the rows with these keys, or with keys that begin so, all of the same length."""
        return self._run(f"read {len(keys[0])}", _columns(keys))

    def bear(self, block_id: int, keys: Sequence[Values]) -> None:
        """Record the keys of rows that were put and are to be removed."""
        if keys:
            self._run("bear", [*_columns(keys), block_id])

    def remove(self, block_id: int, keys: Sequence[Values]) -> None:
        """Remove rows, and keep their history."""
        if keys:
            self._run("remove", [*_columns(keys), block_id])

    def write(self, block_id: int, rows: Sequence[Values]) -> None:
        """Insert or replace rows, and keep their history."""
        if rows:
            self._run("write", [*_columns(rows), block_id])

    def _run(self, name: str, parameters: Sequence[object]) -> Answer:
        values = [to_database(value, place) for place, value in enumerate(parameters)]
        return self._pipeline.send(self._texts[name], values)

    def _arrays(self, places: Iterable[int]) -> sql.Composable:
        """Return a parameter for each of these columns: an array of its type."""
        types = (self._shape.columns[place].type for place in places)
        return sql.SQL(", ").join(sql.SQL(f"${number}::{type_}[]") for number, type_ in enumerate(types, 1))


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


def _parts(keys: Sequence[Values]) -> Iterator[Sequence[Values]]:
    """Yield as many keys at a time as one statement has."""
    return (keys[start : start + _AT_ONCE] for start in range(0, len(keys), _AT_ONCE))


def _columns(rows: Sequence[Values]) -> list[object]:
    """Turn rows into columns."""
    return [list(column) for column in zip(*rows, strict=True)]

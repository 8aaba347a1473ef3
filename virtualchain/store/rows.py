"""The rows of one table that a block has touched: read when they are first asked for, kept, written at once.

What is changed is written in few statements a table, with the history that the table's triggers would keep:
before any statement of the app, which may see it, and at the end of the block. Later blocks need not read
again what is kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from itertools import repeat
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from virtualchain.consensus.state_hash import element
from virtualchain.errors import Unserializable
from virtualchain.store.columns import Shape, Values
from virtualchain.store.kept import KeptRows
from virtualchain.store.pipeline import Answer, Pipeline
from virtualchain.store.projections import Projection
from virtualchain.store.sql import queries
from virtualchain.store.values import to_database

_Q = queries("tables")
AT_ONCE: Final = 5_000
"""Rows that a statement reads or writes."""
_MOST_BYTES: Final = 16_000_000
"""Bytes of rows, by an estimate, after which a statement writes no more: the server takes a gigabyte."""
_SOME: Final = 100
"""Rows that are read from an end of a list at once, if the first are not enough."""
_STATEMENTS: Final = ("bear", "remove", "write")


class Change(NamedTuple):
    """What a block did to a row: its elements in the state hash before and after; None: there was no row."""

    before: int | None
    after: int | None


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
    order: int = 0
    """Its place among the rows that became dirty; they are written in this order."""
    was_put: bool = False
    """Whether it was put since it was written."""
    element: int | None = None
    """That of `before` in the state hash, if it is known; once `changes` was asked, that of `now`."""


class Call:
    """What all tables know of the block, and of the call of a callback that runs."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.block_id = -1
        self.may_be_undone = False
        self.has_changed = False
        """Whether a row was changed since the call began."""
        self.journal: list[tuple[Rows, Values, _Row]] = []
        """Rows as they were before they were changed or written, if the call may have to be undone."""

    def begin(self, *, may_be_undone: bool) -> None:
        """Begin a call, to which `Rows.undo` returns if it may be undone."""
        self.may_be_undone = may_be_undone
        self.has_changed = False
        self.journal.clear()


_Places = tuple[int, ...]
"""Places in a key."""


@dataclass(slots=True)
class _Group:
    """The keys of one table by the values at some places."""

    keys: dict[Values, list[Values]] = field(default_factory=dict)
    """Those of which something is known."""
    complete: set[Values] = field(default_factory=set)
    """The values with which all rows are known."""
    bounds: dict[tuple[Values, bool], Values] = field(default_factory=dict)
    """By such values and direction (True is backwards), the key up to which all rows are known."""
    unsorted: set[Values] = field(default_factory=set)
    """The values whose keys are not in order."""

    def add(self, part: Values, key: Values) -> None:
        """Take a key that has some values at the group's places."""
        keys = self.keys.setdefault(part, [])
        if keys and key < keys[-1]:
            self.unsorted.add(part)
        keys.append(key)

    def ordered(self, part: Values) -> Sequence[Values]:
        """Return the keys that have some values at the group's places, in order."""
        if part in self.unsorted:
            self.keys[part].sort()
            self.unsorted.remove(part)
        return self.keys.get(part, ())


def _part(key: Values, places: _Places) -> Values:
    return tuple([key[place] for place in places])


class Rows:
    """The rows of one table that a block has touched."""

    def __init__(
        self,
        connection: psycopg.Connection,
        projection: Projection,
        shape: Shape,
        call: Call,
        most_kept: int,
    ) -> None:
        self.shape = shape
        self._call = call
        self._kept = KeptRows(shape, most_kept)
        self._known: dict[Values, _Row] = {}
        self._dirty: list[Values] = []
        """The keys of rows with a change that is not written yet, in the order of their first changes."""
        self._changes = 0
        """How many rows became dirty."""
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
        row = self._known.get(key)
        if row is not None:
            return row
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
        keys = self._group(places).ordered(part)
        return [row for key in keys if (row := self._known[key].now) is not None]

    def edge(self, prefix: Values, limit: int, *, backwards: bool) -> list[Values]:
        """Return the first rows whose key begins so, in the order of their keys, or the last, from the end.

        No more are read than it takes: of the rows in the database, the block may have deleted some.
        """
        places, size = tuple(range(len(prefix))), limit
        while True:
            edge_rows = self._known_edge(places, prefix, limit, backwards=backwards)
            if edge_rows is not None:
                return edge_rows
            group = self._group(places)
            answer = self._statements.edge(prefix, group.bounds.get((prefix, backwards)), size, backwards)
            self._call.pipeline.wait()
            rows = answer.rows()
            for row in rows:
                self._learn(self.shape.key_of(row), row)
            if len(rows) < size:
                group.complete.add(prefix)
            else:
                group.bounds[prefix, backwards] = self.shape.key_of(rows[-1])
            size = max(limit, _SOME)

    def _known_edge(
        self, places: _Places, prefix: Values, limit: int, *, backwards: bool
    ) -> list[Values] | None:
        """Return the rows of `edge`; None if they are not all known."""
        group, is_complete = self._group(places), self._is_known(prefix)
        bound = group.bounds.get((prefix, backwards))
        edge_rows: list[Values] = []
        if limit and (is_complete or bound is not None):
            keys = group.ordered(prefix)
            for key in reversed(keys) if backwards else keys:
                if not is_complete and bound is not None and (key < bound if backwards else key > bound):
                    break
                row = self._known[key].now
                if row is not None:
                    edge_rows.append(row)
                    if len(edge_rows) == limit:
                        return edge_rows
        return edge_rows if is_complete or not limit else None

    def unknown(self, places: _Places, parts: Iterable[Values]) -> list[Values]:
        """Return those of some values at these places of the key with which not all rows are known."""
        complete = self._group(places).complete
        return [part for part in parts if part not in complete]

    def _read(self, key: Values) -> None:
        answers = self.ask([key])
        self._call.pipeline.wait()
        self.learn(answers)

    def _learn(self, key: Values, row: Values | None, element: int | None = None) -> None:
        """Take what the database has for a key; what is known already is newer."""
        if key not in self._known:
            self._known[key] = _Row(row, row, element=element)
            for places, group in self._groups.items():
                group.add(_part(key, places), key)

    def _is_known(self, key: Values) -> bool:
        """Check whether the row with a key is known, or with the beginning of one all rows are."""
        if key in self._known:
            return True
        if key in self._kept:
            self._learn(key, *self._kept[key])
            return True
        size = len(key)
        is_known = any(
            max(places, default=-1) < size and _part(key, places) in group.complete
            for places, group in self._groups.items()
        )
        if is_known and size == len(self.shape.key):
            self._learn(key, None)
        return is_known

    def _group(self, places: _Places) -> _Group:
        """Return the known keys by their values at these places."""
        if places not in self._groups:
            self._groups[places] = group = _Group()
            for key in self._known:
                group.add(_part(key, places), key)
        return self._groups[places]

    def change(self, key: Values, values: Values | None) -> None:
        """Set the row with a key, or with None remove it."""
        row = self.row(key)
        if values is not None:
            self.shape.check_sizes(row.now, values)
        if self._call.may_be_undone:
            self._note(key, row)
        row.now = values
        if not row.is_dirty:
            self._dirty.append(key)
            self._changes += 1
            row.order = self._changes
        row.is_changed = row.is_dirty = self._call.has_changed = True
        row.was_put = row.was_put or values is not None

    def write(self) -> None:
        """Write what was changed, with its history."""
        known = self._known
        if self._call.may_be_undone:
            for key in self._dirty:
                self._note(key, known[key])
        for keys in _parts([key for key in self._dirty if known[key].now is None]):
            self._statements.bear(self._call.block_id, [key for key in keys if known[key].was_put])
            self._statements.remove(self._call.block_id, keys)
        kept = [key for key in self._dirty if known[key].now is not None]
        for keys in _parts(kept, map(self._kept.size_of, (known[key].now for key in kept))):
            self._statements.write(self._call.block_id, [row for key in keys if (row := known[key].now)])
        for key in self._dirty:
            known[key].is_dirty = known[key].was_put = False
        self._dirty = []

    def undo(self, *, statements_wrote: bool) -> None:
        """Bring back the rows as they were when the call began; forget what a statement may have changed."""
        for rows, key, row in reversed(self._call.journal):
            if rows is self:
                self._known[key] = row
        dirty = [key for key, row in self._known.items() if row.is_dirty]
        self._dirty = sorted(dirty, key=lambda key: self._known[key].order)
        if statements_wrote:
            self._known, self._groups = {key: self._known[key] for key in self._dirty}, {}

    def begin(self) -> None:
        """Begin a block, in which nothing has been touched."""
        self._known, self._dirty, self._groups = {}, [], {}

    def keep(self) -> None:
        """Keep the rows as the block leaves them, which must be written, for the blocks to come."""
        for key, row in self._known.items():
            self._kept.keep(key, row.now, row.element)
        self.begin()

    def forget(self) -> None:
        """Forget all rows."""
        self._kept.clear()
        self.begin()

    def changes(self) -> Iterator[Change]:
        """Yield what the block did to these rows."""
        for row in self._known.values():
            if row.is_changed:
                before = row.element or self._element(row.before)
                row.element = self._element(row.now)
                if before != row.element:
                    yield Change(before, row.element)

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

    def _element(self, row: Values | None) -> int | None:
        return None if row is None else element(self.shape.as_json(row))

    def _note(self, key: Values, row: _Row) -> None:
        self._call.journal.append((self, key, copy(row)))


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
        for size in range(len(key)):
            for is_bound in (False, True):
                for backwards in (False, True):
                    text = sql.SQL(_Q["edge"]).format(**parts, **self._edge(key, size, is_bound, backwards))
                    self._texts[f"edge {size} {is_bound} {backwards}"] = text.as_string(connection).encode()

    def read(self, keys: Sequence[Values]) -> Answer:
        """Ask for the rows with these keys, or with keys that begin so, all of the same length."""
        return self._run(f"read {len(keys[0])}", self._arrays_of(keys, self._shape.key))

    def edge(self, prefix: Values, bound: Values | None, most: int, backwards: bool) -> Answer:
        """Ask for the first rows whose key begins so, after a bound, or for the last, before it."""
        beyond = () if bound is None else bound[len(prefix) :]
        name = f"edge {len(prefix)} {bound is not None} {backwards}"
        return self._run(name, [*prefix, *beyond, most])

    def _edge(
        self, key: Sequence[sql.Identifier], size: int, is_bound: bool, backwards: bool
    ) -> dict[str, sql.Composable]:
        """Return the parts of the statement for beginnings of `size` columns of the key."""
        columns = [sql.SQL("r.{}").format(column) for column in key]
        types = [self._shape.columns[place].type for place in self._shape.key]
        values = [sql.SQL(f"${number}::{type_}") for number, type_ in enumerate(types, 1)]
        conditions: list[sql.Composable] = [
            sql.SQL("{} = {}").format(column, value)
            for column, value in zip(columns[:size], values, strict=False)
        ]
        if is_bound:
            beyond = sql.SQL("({}) < ({})" if backwards else "({}) > ({})")
            rest = (sql.SQL(", ").join(columns[size:]), sql.SQL(", ").join(values[size:]))
            conditions.append(beyond.format(*rest))
        order = (sql.SQL("{} DESC" if backwards else "{}").format(column) for column in columns[size:])
        count = len(key) if is_bound else size
        return {
            "condition": sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("true"),
            "order": sql.SQL(", ").join(order),
            "most": sql.SQL(f"${count + 1}::bigint"),
        }

    def bear(self, block_id: int, keys: Sequence[Values]) -> None:
        """Record the keys of rows that were put and are to be removed."""
        if keys:
            self._run("bear", [*self._arrays_of(keys, self._shape.key), block_id])

    def remove(self, block_id: int, keys: Sequence[Values]) -> None:
        """Remove rows, and keep their history."""
        if keys:
            self._run("remove", [*self._arrays_of(keys, self._shape.key), block_id])

    def write(self, block_id: int, rows: Sequence[Values]) -> None:
        """Insert or replace rows, and keep their history."""
        if rows:
            self._run("write", [*self._arrays_of(rows, range(len(self._shape.columns))), block_id])

    def _run(self, name: str, parameters: Sequence[object]) -> Answer:
        # What arrays hold fits its column, or comes from there, with more digits than a parameter may have.
        values = [
            value if isinstance(value, list) else to_database(value, place)
            for place, value in enumerate(parameters)
        ]
        return self._pipeline.send(self._texts[name], values)

    def _arrays_of(self, rows: Sequence[Values], places: Sequence[int]) -> list[object]:
        """Turn rows, which have the columns at these places, into arrays, one for each column."""
        columns = [self._shape.columns[place] for place in places]
        return [
            _integers(values) if column.is_integer else list(values)
            for column, values in zip(columns, zip(*rows, strict=True), strict=False)
        ]

    def _arrays(self, places: Iterable[int]) -> sql.Composable:
        """Return a parameter for each of these columns: an array of its type."""
        types = (self._shape.columns[place].type for place in places)
        return sql.SQL(", ").join(sql.SQL(f"${number}::{type_}[]") for number, type_ in enumerate(types, 1))


def _parts(keys: Iterable[Values], sizes: Iterable[int] = repeat(0)) -> Iterator[list[Values]]:
    """Yield as many keys at a time as one statement has, fewer if their rows, of these sizes, are large."""
    part: list[Values] = []
    bytes_of_part = 0
    for key, size in zip(keys, sizes, strict=False):
        part.append(key)
        bytes_of_part += size
        if len(part) == AT_ONCE or bytes_of_part > _MOST_BYTES:
            yield part
            part, bytes_of_part = [], 0
    if part:
        yield part


def _integers(values: tuple[int | None, ...]) -> str:
    """Write an array of integers as the server reads it, in a tenth of the time that the driver takes."""
    return f"{{{str(list(values))[1:-1]}}}".replace("None", "NULL")

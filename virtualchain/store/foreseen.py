"""What the calls of a block that is foreseen do to projections, call by call.

A block's history shows what the block has done as a whole. What one call has done is found by the versions of
rows: each call has a savepoint of its own, so what it writes is younger than what calls before it wrote.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from virtualchain.model import Json
from virtualchain.store.columns import Shape, Values
from virtualchain.store.log import as_json
from virtualchain.store.pipeline import pipeline_of
from virtualchain.store.projections import Projection, build_schema, install
from virtualchain.store.projections import projections as projections_in
from virtualchain.store.publish import free_name, key_pairs
from virtualchain.store.sql import queries
from virtualchain.store.values import to_database

_Q = queries("foreseen")
_LOAD = queries("checkpoint")
_OLDEST: Final = 2**31 - 1
"""No version of a row has this age: ages fall, and are negative in a transaction that writes."""
_loads = partial(json.loads, parse_float=Decimal)

_Row = tuple[str, str]
"""A row of a table: its columns as JSON, and their texts, by which rows differ."""
_Place = tuple[str, str]
"""Where a row is: its table, and its key, the same for keys that are equal, such as 1.0 and 1.00."""
_Kept = Sequence[tuple[Values, Values | None, Values | None]]
"""Rows before and after; the first one has their key."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """What an input does to a row of a projection: the row's key, and its columns before and after, as JSON.

    Values are as PostgreSQL writes them in JSON: bytes are text, a backslash, x, and hex.
    """

    table: str
    key_json: str
    old_json: str | None
    """None if there was no row."""
    new_json: str | None
    """None if there is none any more."""

    @property
    def action(self) -> str:
        """insert, update or delete."""
        return "insert" if self.old_json is None else "delete" if self.new_json is None else "update"

    @property
    def key(self) -> Json:
        """The row's primary key, by column; fractions are Decimals, here and in rows."""
        key: Json = _loads(self.key_json)
        return key

    @property
    def old(self) -> Json | None:
        """The row before, by column."""
        return None if self.old_json is None else _loads(self.old_json)

    @property
    def new(self) -> Json | None:
        """The row after, by column."""
        return None if self.new_json is None else _loads(self.new_json)

    def as_dict(self) -> Json:
        """Return a new dict, as `virtualchain.changes` has its columns."""
        return {
            "table": self.table,
            "action": self.action,
            "key": self.key,
            "old": self.old,
            "new": self.new,
        }

    def as_json(self) -> str:
        """Return that dict as JSON, with all digits of numbers."""
        start = as_json({"table": self.table, "action": self.action})[:-1]
        return (
            f'{start},"key":{self.key_json},"old":{self.old_json or "null"},"new":{self.new_json or "null"}}}'
        )


class Change(NamedTuple):
    """What a call does to a row."""

    place: _Place
    key: str
    old: _Row | None
    new: _Row | None


def merged(changes: Iterable[Change]) -> tuple[RowChange, ...]:
    """Return what changes do together, in the order in which rows were first touched."""
    first: dict[_Place, Change] = {}
    last: dict[_Place, Change] = {}
    for change in changes:
        first.setdefault(change.place, change)
        last[change.place] = change
    return tuple(
        RowChange(place[0], change.key, _content(change.old), _content(last[place].new))
        for place, change in first.items()
        if change.old != last[place].new
    )


def net(changes: Iterable[RowChange]) -> list[RowChange]:
    """Return what the changes of several inputs do together."""
    first: dict[_Place, RowChange] = {}
    last: dict[_Place, RowChange] = {}
    for change in changes:
        place = _place(change.table, change.key_json)
        first.setdefault(place, change)
        last[place] = change
    return [replace(change, new_json=last[place].new_json) for place, change in first.items()]


class Captured:
    """The changes of one block to the projections of a build, in the session that makes them.

    Needs the engine's own role.
    """

    def __init__(self, connection: psycopg.Connection, projections: Sequence[Projection]) -> None:
        self._connection = connection
        self._pipeline = pipeline_of(connection)
        self._names = [projection.name for projection in projections]
        self._projections = {projection.name: projection for projection in projections}
        statements = sql.SQL("\nUNION ALL\n").join(
            sql.SQL(_Q[query]).format(**_parts(projection), index=sql.Literal(index))
            for index, projection in enumerate(projections)
            for query in ("went", "came", "gone")
        )
        self._statement = statements.as_string(connection).encode()
        self._conversions: dict[str, bytes] = {}
        self.begin(-1)

    def begin(self, block_id: int) -> None:
        """Begin a block."""
        self._block_id = block_id
        self._age = _OLDEST
        self._now: dict[_Place, _Row | None] = {}
        """The rows that the block has touched, as they are."""
        self._unread: list[tuple[list[Change], Shape, _Kept]] = []
        """Rows that were changed one by one, and the lists that their changes belong to."""

    def take(
        self, touched: Iterable[tuple[Shape, _Kept]], *, statements_wrote: bool, has_savepoint: bool
    ) -> list[Change]:
        """Return what has changed since the last time, in a list that is complete after `settle`.

        `touched` are the rows that were changed one by one and are not written yet; `statements_wrote` says
        whether statements may have changed others. Without a savepoint of its own, what the call wrote is not
        younger, and all rows that the block has touched are compared.
        """
        if not has_savepoint:
            self._age = _OLDEST
        changes: list[Change] = []
        if statements_wrote and self._names:
            self.settle()
            changes += self._written()
        self._unread += [(changes, shape, kept) for shape, kept in touched]
        return changes

    def settle(self) -> None:
        """Complete the lists that `take` has returned, with one statement for each table."""
        unread, self._unread = self._unread, []
        rows: dict[str, list[Values]] = {}
        for _, shape, kept in unread:
            rows.setdefault(shape.table, []).extend(row for each in kept for row in each if row is not None)
        shapes = {shape.table: shape for _, shape, _ in unread}
        shown = {table: iter(self._shown(shapes[table], some)) for table, some in rows.items()}
        for changes, shape, kept in unread:
            changes.extend(self._kept(shape, kept, shown[shape.table]))

    def _written(self) -> list[Change]:
        answer = self._pipeline.send(self._statement, [self._block_id, self._age])
        self._pipeline.wait()
        keys: dict[_Place, str] = {}
        old: dict[_Place, _Row] = {}
        new: dict[_Place, _Row | None] = {}
        for index, what, key, content, texts, age in answer.rows():
            place = _place(self._names[index], key)
            keys.setdefault(place, key)
            if what == "went":
                old[place] = content, texts
                new.setdefault(place, None)
            elif what == "came":
                new[place] = content, texts
            elif self._now.get(place) is not None:
                new.setdefault(place, None)
            if age is not None:
                self._age = min(self._age, age)
        return [
            change
            for place, after in new.items()
            if (change := self._change(place, keys[place], old.get(place), after)) is not None
        ]

    def _kept(self, shape: Shape, kept: _Kept, shown: Iterator[tuple[str, str, str]]) -> list[Change]:
        changes = []
        for rows in kept:
            one, *both = (None if row is None else next(shown) for row in rows)
            assert one is not None, "the first row is there"
            old, new = (None if row is None else row[1:] for row in both)
            change = self._change(_place(shape.table, one[0]), one[0], old, new)
            if change is not None:
                changes.append(change)
        return changes

    def _shown(self, shape: Shape, rows: Sequence[Values]) -> list[tuple[str, str, str]]:
        """Return keys and rows as the database writes them."""
        if not rows:
            return []
        statement = self._conversions.get(shape.table)
        if statement is None:
            projection = self._projections[shape.table]
            arrays = (
                sql.SQL(f"${number}::{column.type}[]") for number, column in enumerate(shape.columns, 1)
            )
            parts = {**_parts(projection), "arrays": sql.SQL(", ").join(arrays)}
            statement = sql.SQL(_Q["rows"]).format(**parts).as_string(self._connection).encode()
            self._conversions[shape.table] = statement
        values = [to_database(list(column), place) for place, column in enumerate(zip(*rows, strict=True))]
        answer = self._pipeline.send(statement, values)
        self._pipeline.wait()
        return [(key, content, texts) for key, content, texts in answer.rows()]

    def _change(self, place: _Place, key: str, old: _Row | None, new: _Row | None) -> Change | None:
        """Note a row as it is; return what has changed. `old` counts if nothing was known of it."""
        old = self._now.get(place, old)
        self._now[place] = new
        return None if old == new else Change(place, key, old, new)


def copy_tables(
    connection: psycopg.Connection, app: str, schema: str, live: str, copy: str, ddl: str, tracks: str | None
) -> list[Projection]:
    """Make a build's tables again, under another name, with their rows, in the caller's transaction.

    `schema` is that of the app's views, `live` and `copy` are names of builds.
    """
    made = install(connection, app, schema, copy, ddl, tracks)
    lent = {table.name: table for table in projections_in(connection, build_schema(schema, live))}
    place = {"tables": build_schema(schema, copy), "live": build_schema(schema, live)}
    restore: list[tuple[str]] = []
    row = connection.execute(_Q["is_large"], place).fetchone()
    if row is not None and row[0]:
        restore = connection.execute(_Q["restored"], place).fetchall()
        for (statement,) in connection.execute(_Q["laid_aside"], place).fetchall():
            connection.execute(statement.encode())
    connection.execute(_LOAD["begin_load"])
    connection.execute(_LOAD["defer_constraints"])
    for new in made:
        _copy(connection, lent[new.name], new)
    connection.execute(_LOAD["check_constraints"])
    connection.execute(_LOAD["end_load"])
    for (statement,) in restore:
        connection.execute(statement.encode())
    return made


def _copy(connection: psycopg.Connection, old: Projection, new: Projection) -> None:
    place = {"tables": new.schema, "table": new.name}
    types = connection.execute(_Q["own_types"], place).fetchall()
    own = {name: sql.SQL("::text::") + sql.SQL(type_) for name, type_ in types}
    values = (sql.Identifier(name) + own.get(name, sql.SQL("")) for name in new.columns)
    statement = sql.SQL(_Q["copy"]).format(
        new=new.table,
        columns=sql.SQL(", ").join(map(sql.Identifier, new.columns)),
        values=sql.SQL(", ").join(values),
        table=old.table,
    )
    connection.execute(statement)


def _place(table: str, key: str) -> _Place:
    return table, json.dumps(json.loads(key, parse_int=str, parse_float=_shortest), sort_keys=True)


def _shortest(number: str) -> str:
    return number.rstrip("0").rstrip(".")


def _content(row: _Row | None) -> str | None:
    return None if row is None else row[0]


def _parts(projection: Projection) -> dict[str, sql.Composable]:
    row = free_name("row", projection)
    same = (
        sql.SQL("r.{} = {}").format(sql.Identifier(name), sql.Identifier(row, name))
        for name in projection.key
    )
    return {
        "table": projection.table,
        "history": projection.history,
        "births": projection.births,
        "row": sql.Identifier(row),
        "key": sql.SQL(", ").join(map(sql.Identifier, projection.key)),
        "columns": sql.SQL(", ").join(map(sql.Identifier, projection.columns)),
        "pairs": key_pairs(projection, row),
        "texts": projection.texts(row),
        "same_key": sql.SQL(" AND ").join(same),
    }

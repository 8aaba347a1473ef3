"""What the calls of a block that is foreseen do to projections, call by call.

A block's history shows what the block has done as a whole. What one call has done is found by the versions of
rows: each call has a savepoint of its own, so what it writes is younger than what calls before it wrote.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Final

import psycopg
from psycopg import sql

from virtualchain.model import Json
from virtualchain.store.columns import Shape, Values
from virtualchain.store.pipeline import pipeline_of
from virtualchain.store.projections import Projection, build_schema, install
from virtualchain.store.projections import projections as projections_in
from virtualchain.store.publish import free_name
from virtualchain.store.sql import queries
from virtualchain.store.values import to_database

_Q = queries("foreseen")
_LOAD = queries("checkpoint")
_OLDEST: Final = 2**31 - 1
"""No version of a row has this age: ages fall, and are negative in a transaction that writes."""
_loads = partial(json.loads, parse_float=Decimal)

_Key = tuple[str, str]
"""A row: its table, and its key as JSON."""
_Pairs = Iterable[tuple[Values | None, Values | None]]
"""Rows before and after."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """What an input does to a row of a projection; `old` and `new` are the row's columns.

    Values are as PostgreSQL writes them in JSON: bytes are text, a backslash, x, and hex. Fractions are
    Decimals.
    """

    table: str
    key: Json
    old: Json | None
    new: Json | None

    @property
    def action(self) -> str:
        """insert, update or delete."""
        return "insert" if self.old is None else "delete" if self.new is None else "update"

    def as_dict(self) -> Json:
        """Return a new dict, as JSON shows it."""
        return {
            "table": self.table,
            "action": self.action,
            "key": self.key,
            "old": self.old,
            "new": self.new,
        }


def merged(changes: Iterable[RowChange]) -> tuple[RowChange, ...]:
    """Return what changes do together, in the order in which rows were first touched."""
    first: dict[_Key, RowChange] = {}
    last: dict[_Key, RowChange] = {}
    for change in changes:
        key = change.table, json.dumps(change.key, sort_keys=True, default=str)
        first.setdefault(key, change)
        last[key] = change
    together = (RowChange(item.table, item.key, item.old, last[key].new) for key, item in first.items())
    return tuple(change for change in together if repr(change.old) != repr(change.new))


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
        self._now: dict[_Key, str | None] = {}
        """The rows that the block has touched, as they are: JSON, or None."""

    def take(self, touched: Iterable[tuple[Shape, _Pairs]], *, statements_wrote: bool) -> list[RowChange]:
        """Return what has changed since the last time.

        `touched` are the rows that were changed one by one and are not written yet; `statements_wrote` says
        whether statements may have changed others.
        """
        changes: list[RowChange] = []
        if statements_wrote and self._names:
            changes += self._written()
        for shape, pairs in touched:
            changes += self._kept(shape, pairs)
        return changes

    def _written(self) -> list[RowChange]:
        answer = self._pipeline.send(self._statement, [self._block_id, self._age])
        self._pipeline.wait()
        old: dict[_Key, str] = {}
        new: dict[_Key, str | None] = {}
        for index, what, key, content, age in answer.rows():
            place = self._names[index], key
            if what == "went":
                old[place] = content
                new.setdefault(place, None)
            elif what == "came":
                new[place] = content
            elif self._now.get(place) is not None:
                new[place] = None
            if age is not None:
                self._age = min(self._age, age)
        return [
            change
            for place, after in new.items()
            if (change := self._change(place, self._now.get(place, old.get(place)), after)) is not None
        ]

    def _kept(self, shape: Shape, pairs: _Pairs) -> list[RowChange]:
        pairs = list(pairs)
        rows = [row for pair in pairs for row in pair if row is not None]
        texts = iter(self._texts(shape, rows))
        changes = []
        for before, after in pairs:
            shown = [None if row is None else next(texts) for row in (before, after)]
            known = [text for text in shown if text is not None]
            if not known:
                continue
            place = shape.table, known[0][0]
            old, new = (None if text is None else text[1] for text in shown)
            change = self._change(place, self._now.get(place, old), new)
            if change is not None:
                changes.append(change)
        return changes

    def _texts(self, shape: Shape, rows: Sequence[Values]) -> list[tuple[str, str]]:
        """Return keys and rows as JSON."""
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
        return [(key, row) for key, row in answer.rows()]

    def _change(self, place: _Key, old: str | None, new: str | None) -> RowChange | None:
        self._now[place] = new
        if old == new:
            return None
        table, key = place
        return RowChange(
            table, _loads(key), None if old is None else _loads(old), None if new is None else _loads(new)
        )


def copy_tables(
    connection: psycopg.Connection, app: str, schema: str, live: str, copy: str, ddl: str, tracks: str | None
) -> list[Projection]:
    """Make a build's tables again, under another name, with their rows, in the caller's transaction.

    `schema` is that of the app's views, `live` and `copy` are names of builds.
    """
    made = install(connection, app, schema, copy, ddl, tracks)
    lent = {table.name: table for table in projections_in(connection, build_schema(schema, live))}
    connection.execute(_LOAD["begin_load"])
    connection.execute(_LOAD["defer_constraints"])
    for new in made:
        statement = sql.SQL(_Q["copy"]).format(
            new=new.table,
            columns=sql.SQL(", ").join(map(sql.Identifier, new.columns)),
            table=lent[new.name].table,
        )
        connection.execute(statement)
    connection.execute(_LOAD["check_constraints"])
    connection.execute(_LOAD["end_load"])
    return made


def _parts(projection: Projection) -> dict[str, sql.Composable]:
    row = free_name("row", projection)
    pairs = (
        sql.SQL("{}, {}").format(sql.Literal(name), sql.Identifier(row, name)) for name in projection.key
    )
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
        "pairs": sql.SQL(", ").join(pairs),
        "same_key": sql.SQL(" AND ").join(same),
    }

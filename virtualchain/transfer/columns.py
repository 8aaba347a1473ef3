"""How the database's types are written: in CSV as PostgreSQL writes them, in Parquet as types of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Final

import psycopg
from psycopg import sql

from virtualchain.store.sql import queries

_Q = queries("transfer")
TEXT: Final = "string"
TIME: Final = "timestamp[us, UTC]"

_KINDS: Final = MappingProxyType(
    {
        "bool": "bool",
        "int2": "int16",
        "int4": "int32",
        "int8": "int64",
        "oid": "int64",
        "float4": "float",
        "float8": "double",
        "bytea": "binary",
        "date": "date32",
        "timestamp": "timestamp[us]",
        "timestamptz": TIME,
    }
)
"""Parquet's types by PostgreSQL's; values of all others are text."""
_NAMES: Final = MappingProxyType({kind: name for name, kind in _KINDS.items() if name != "oid"})
_LISTS: Final = ("bool", "int2", "int4", "int8", "text", "varchar", "bytea")
"""Types whose arrays are lists; other arrays are text."""
_READ: Final[Mapping[str, Callable[[str], object]]] = MappingProxyType(
    {"date32": date.fromisoformat, "timestamp[us]": datetime.fromisoformat, TIME: datetime.fromisoformat}
)
"""What reads the values that come as text and are none."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file: its name, the database's type, and Parquet's."""

    name: str
    type: str
    kind: str

    def values(self, values: Sequence[Any]) -> Sequence[object]:
        """Turn what the database gave into what Parquet takes."""
        read = _READ.get(self.kind)
        return values if read is None else [None if value is None else read(value) for value in values]


def columns_of(
    connection: psycopg.Connection, query: sql.Composable, *, may_be_odd: bool
) -> tuple[Column, ...]:
    """Give the columns of a query.

    With `may_be_odd` all rows are looked at, and a column with a value that Parquet has no form for (an
    infinite day, an array of several dimensions) is text.
    """
    cursor = connection.execute(sql.SQL(_Q["columns"]).format(query=query))
    assert cursor.description is not None, "a query has columns"
    oids = [column.type_code for column in cursor.description]
    types = [name for (name,) in connection.execute(_Q["type_names"], {"oids": oids})]
    found = [
        Column(column.name, name, _kind(connection, column.type_code))
        for column, name in zip(cursor.description, types, strict=True)
    ]
    odd = _odd(connection, query, found) if may_be_odd else set()
    return tuple(Column(c.name, c.type, TEXT) if c.name in odd else c for c in found)


def copy_types(columns: Sequence[Column]) -> list[str]:
    """Give the types as which the rows of a COPY are to be read."""
    return [_copy_type(column.kind) for column in columns]


def _copy_type(kind: str) -> str:
    if kind.startswith("list<"):
        return f"{_copy_type(kind[5:-1])}[]"
    return "text" if kind in _READ else _NAMES.get(kind, "text")


def _kind(connection: psycopg.Connection, oid: int) -> str:
    info = connection.adapters.types.get(oid)
    if info is None:
        return TEXT
    if info.array_oid != oid:
        return _KINDS.get(info.name, TEXT)
    return f"list<{_KINDS.get(info.name, TEXT)}>" if info.name in _LISTS else TEXT


def _odd(connection: psycopg.Connection, query: sql.Composable, columns: Sequence[Column]) -> set[str]:
    """Find the columns with values that Parquet has no form for."""
    tests = {
        column.name: _Q["has_odd_date" if column.kind in _READ else "has_odd_array"]
        for column in columns
        if column.kind in _READ or column.kind.startswith("list<")
    }
    if not tests:
        return set()
    parts = [sql.SQL(test).format(column=sql.Identifier(name)) for name, test in tests.items()]
    statement = sql.SQL(_Q["unfit"]).format(tests=sql.SQL(", ").join(parts), query=query)
    row = connection.execute(statement).fetchone()
    assert row is not None, "an aggregate gives a row"
    return {name for name, is_odd in zip(tests, row, strict=True) if is_odd}

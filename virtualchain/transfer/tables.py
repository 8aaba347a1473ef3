"""What can be exported: the tape, the log, and every view, by the names that users give.

A column has two types: the database's, which CSV follows as PostgreSQL writes it, and Parquet's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from virtualchain.errors import UsageError
from virtualchain.reading.views import HIGHEST
from virtualchain.store.projections import build_schema, projections
from virtualchain.store.sql import queries

_Q = queries("transfer")
TAPE: Final = "tape"
ALL: Final = "all"
DEFAULT: Final = (TAPE, "ops")
_LOG: Final[Mapping[str, Sequence[str]]] = {
    TAPE: ("blocks", "inputs"),
    "ops": ("ops",),
    "rejections": ("rejections",),
    "snapshots": ("snapshots",),
}
"""The tables of tape and log, by the names that select them."""
LOWEST: Final = -1
"""The lowest block id: that of an initial snapshot before the genesis block."""

TEXT: Final = "string"
TIME: Final = "timestamp[us, UTC]"
_PARQUET_TYPES: Final = MappingProxyType(
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
"""Parquet's types by PostgreSQL's; all other types become text."""
_SQL_TYPES: Final = MappingProxyType(
    {parquet_type: name for name, parquet_type in _PARQUET_TYPES.items() if name != "oid"}
)
_LISTS: Final = ("bool", "int2", "int4", "int8", "text", "varchar", "bytea")
"""Types whose arrays become lists; other arrays become text."""
_PARSERS: Final[Mapping[str, Callable[[str], object]]] = MappingProxyType(
    {"date32": date.fromisoformat, "timestamp[us]": datetime.fromisoformat, TIME: datetime.fromisoformat}
)
"""Parsers for values that are read as text, because the driver rejects some of them, by Parquet's types."""


@dataclass(frozen=True, slots=True)
class Table:
    """The content of one file: the rows of a query."""

    name: str
    query: sql.Composed
    is_view: bool
    """Whether it is a view outside the tape and the log; then nothing is known about its values."""

    @property
    def stem(self) -> str:
        """The file's name without its suffix; characters that a file name cannot have are percent-encoded."""
        return quote(self.name, safe="")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file: its name, the database's type, and Parquet's."""

    name: str
    type: str
    parquet_type: str

    def parquet_values(self, values: Sequence[Any]) -> Sequence[object]:
        """Convert the values that the database returned to those that Parquet stores."""
        parse = _PARSERS.get(self.parquet_type)
        return values if parse is None else [None if value is None else parse(value) for value in values]


def select_tables(
    connection: psycopg.Connection, names: Sequence[str], first: int = LOWEST, last: int = HIGHEST
) -> list[Table]:
    """Return the named tables, each once; `first` and `last` limit those of tape and log to some blocks.

    Raises UsageError for an unknown name.
    """
    views = {f"{schema}.{name}": (schema, name, build) for schema, name, build in _views(connection)}
    requested = list(dict.fromkeys(names))
    if ALL in requested:
        requested += [*_LOG, *views]
    selected: dict[str, Table] = {}
    for name in requested:
        short = name.removeprefix("virtualchain.")
        if name == ALL:
            continue
        if short in _LOG or short in {"blocks", "inputs"}:
            for table in _LOG.get(short, (short,)):
                selected.setdefault(table, _log_table(table, first, last))
        else:
            selected.setdefault(name, _view(connection, name, views))
    return list(selected.values())


def columns_of(
    connection: psycopg.Connection, query: sql.Composable, *, check_values: bool
) -> tuple[Column, ...]:
    """Return the columns of a query.

    With `check_values`, a column becomes text if any of its values cannot be represented in Parquet, such as
    an infinite date or an array of several dimensions. That reads all rows.
    """
    cursor = connection.execute(sql.SQL(_Q["columns"]).format(query=query))
    assert cursor.description is not None, "a query has columns"
    oids = [column.type_code for column in cursor.description]
    types = [name for (name,) in connection.execute(_Q["type_names"], {"oids": oids})]
    columns = [
        Column(column.name, name, _parquet_type(connection, column.type_code))
        for column, name in zip(cursor.description, types, strict=True)
    ]
    as_text = _unrepresentable(connection, query, columns) if check_values else set()
    return tuple(Column(c.name, c.type, TEXT) if c.name in as_text else c for c in columns)


def copy_types(columns: Sequence[Column]) -> list[str]:
    """Return the PostgreSQL types by which the driver parses the rows of a COPY."""
    return [_copy_type(column.parquet_type) for column in columns]


def _log_table(name: str, first: int, last: int) -> Table:
    limits = {"first": sql.Literal(first), "last": sql.Literal(last)}
    return Table(name, sql.SQL(_Q[name]).format(**limits), is_view=False)


def _view(connection: psycopg.Connection, name: str, views: Mapping[str, tuple[str, str, str]]) -> Table:
    schema, _, relation = name.partition(".")
    row = connection.execute(_Q["relation_exists"], {"schema": schema, "name": relation}).fetchone()
    if not (row and row[0]):
        raise UsageError(
            f"there is no {name} to export: choose from {', '.join((*_LOG, *views))}, {ALL}, "
            "and any other view as schema.view"
        )
    names = {"relation": sql.Identifier(schema, relation)}
    for key in _keys(connection, *views[name]) if name in views else ():
        columns = sql.SQL(", ").join(map(sql.Identifier, key))
        return Table(name, sql.SQL(_Q["rows_in_order"]).format(key=columns, **names), is_view=True)
    return Table(name, sql.SQL(_Q["rows"]).format(**names), is_view=True)


def _keys(connection: psycopg.Connection, schema: str, view: str, build: str) -> list[tuple[str, ...]]:
    """Return the key of the projection that a view shows, or nothing if it shows none."""
    tables = projections(connection, build_schema(schema, build))
    return [projection.key for projection in tables if projection.name == view]


def _views(connection: psycopg.Connection) -> list[tuple[str, str, str]]:
    return connection.execute(_Q["views"]).fetchall()


def _copy_type(parquet_type: str) -> str:
    if parquet_type.startswith("list<"):
        return f"{_copy_type(parquet_type[5:-1])}[]"
    return "text" if parquet_type in _PARSERS else _SQL_TYPES.get(parquet_type, "text")


def _parquet_type(connection: psycopg.Connection, oid: int) -> str:
    info = connection.adapters.types.get(oid)
    if info is None:
        return TEXT
    if info.array_oid != oid:
        return _PARQUET_TYPES.get(info.name, TEXT)
    return f"list<{_PARQUET_TYPES.get(info.name, TEXT)}>" if info.name in _LISTS else TEXT


def _unrepresentable(
    connection: psycopg.Connection, query: sql.Composable, columns: Sequence[Column]
) -> set[str]:
    """Find the columns with values that Parquet cannot represent."""
    tests = {
        column.name: _Q[
            "unrepresentable_date" if column.parquet_type in _PARSERS else "unrepresentable_array"
        ]
        for column in columns
        if column.parquet_type in _PARSERS or column.parquet_type.startswith("list<")
    }
    if not tests:
        return set()
    parts = [sql.SQL(test).format(column=sql.Identifier(name)) for name, test in tests.items()]
    statement = sql.SQL(_Q["unrepresentable"]).format(tests=sql.SQL(", ").join(parts), query=query)
    row = connection.execute(statement).fetchone()
    assert row is not None, "an aggregate returns a row"
    return {name for name, is_unrepresentable in zip(tests, row, strict=True) if is_unrepresentable}

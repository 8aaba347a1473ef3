"""What the statements of an app may name: its projections, the types made for them, built-in functions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psycopg

from virtualchain.store.projections import projections
from virtualchain.store.sql import queries

_Q = queries("catalog")


@dataclass(frozen=True, slots=True)
class Table:
    """A projection as statements see it: types by column, the primary key, keys checked row by row."""

    columns: Mapping[str, str]
    key: tuple[str, ...]
    unique: tuple[frozenset[str], ...]
    """Of each unique index that is not deferrable, its columns; empty for one on expressions."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """What statements of one app may name."""

    tables: Mapping[str, Table]
    enums: frozenset[str] = frozenset()
    are_immutable: Callable[[frozenset[str]], Mapping[str, bool]] = field(default=lambda _: {})
    """By name whether all built-in functions of that name are immutable; unknown names are left out."""


def read_catalog(connection: psycopg.Connection, tables: str) -> Catalog:
    """Read what statements may name: the projections in the schema `tables`, and the types made for them."""
    names = [projection.name for projection in projections(connection, tables)]
    place = {"tables": tables, "names": names}
    columns: dict[str, dict[str, str]] = {name: {} for name in names}
    for table, column, kind in connection.execute(_Q["columns"], place):
        columns[table][column] = kind
    keys: dict[str, tuple[str, ...]] = {}
    unique: dict[str, list[frozenset[str]]] = {name: [] for name in names}
    for table, is_primary, is_immediate, key, has_expression in connection.execute(_Q["keys"], place):
        if is_primary:
            keys[table] = tuple(key)
        if is_immediate:
            unique[table].append(frozenset() if has_expression else frozenset(key))
    enums = {name for name, is_enum in connection.execute(_Q["types"], place) if is_enum}

    def are_immutable(functions: frozenset[str]) -> dict[str, bool]:
        rows = connection.execute(_Q["functions"], {"names": sorted(functions)}).fetchall()
        return dict(rows)

    return Catalog(
        {name: Table(columns[name], keys.get(name, ()), tuple(unique[name])) for name in names},
        frozenset(enums),
        are_immutable,
    )

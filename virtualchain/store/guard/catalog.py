"""What statements of an app may name: its projections with their keys, and the types made for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psycopg

from virtualchain.store.projections import projections
from virtualchain.store.sql import queries

_Q = queries("catalog")

AreImmutable = Callable[[frozenset[str]], Mapping[str, bool]]
"""By name whether all built-in functions of that name may run; unknown names are left out."""


@dataclass(frozen=True, slots=True)
class Table:
    """A projection as statements see it."""

    columns: Mapping[str, str]
    """Types by column."""
    key: tuple[str, ...]
    """The columns of the primary key."""
    unique: tuple[frozenset[str], ...]
    """Of each unique index that is not deferrable, its columns; empty for one on expressions."""
    keys: tuple[frozenset[str], ...] = ()
    """Sets of columns that no two rows share at any time, and that are never null."""
    weak_keys: tuple[frozenset[str], ...] = ()
    """The same for columns that may be null: rows whose key has a null may share it."""
    checked: frozenset[str] = frozenset()
    """Columns whose new value may violate a constraint: a check, a domain's, a unique index."""
    required: frozenset[str] = frozenset()
    """Columns that may not be null."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """What statements of one app may name."""

    tables: Mapping[str, Table]
    enums: frozenset[str] = frozenset()
    domains: Mapping[str, str] = field(default_factory=dict)
    """The domains that the projections made, and the types that they are made of."""
    are_immutable: AreImmutable = field(default=lambda _: {})
    """By name whether all built-in functions of that name may run; unknown names are left out."""


def read_catalog(connection: psycopg.Connection, tables: str) -> Catalog:
    """Read what statements may name: the projections in the schema `tables`, and the types made for them."""
    names = [projection.name for projection in projections(connection, tables)]
    place = {"tables": tables, "names": names}
    columns: dict[str, dict[str, str]] = {name: {} for name in names}
    required: dict[str, set[str]] = {name: set() for name in names}
    checked: dict[str, set[str]] = {name: set() for name in names}
    for table, column, kind, is_required, is_checked in connection.execute(_Q["columns"], place):
        columns[table][column] = kind
        required[table] |= {column} if is_required else set()
        checked[table] |= {column} if is_checked else set()
    primary: dict[str, tuple[str, ...]] = {}
    unique: dict[str, list[frozenset[str]]] = {name: [] for name in names}
    keys: dict[str, list[frozenset[str]]] = {name: [] for name in names}
    weak: dict[str, list[frozenset[str]]] = {name: [] for name in names}
    for table, is_primary, is_immediate, key, has_expression, is_partial in connection.execute(
        _Q["keys"], place
    ):
        if is_primary:
            primary[table] = tuple(key)
        if is_immediate:
            unique[table].append(frozenset() if has_expression else frozenset(key))
        if is_immediate and not has_expression and not is_partial:
            (keys if set(key) <= required[table] else weak)[table].append(frozenset(key))
    types = connection.execute(_Q["types"], place).fetchall()

    def are_immutable(functions: frozenset[str]) -> dict[str, bool]:
        rows = connection.execute(_Q["functions"], {"names": sorted(functions)}).fetchall()
        return dict(rows)

    return Catalog(
        {
            name: Table(
                columns[name],
                primary.get(name, ()),
                tuple(unique[name]),
                tuple(keys[name]),
                tuple(weak[name]),
                frozenset(checked[name]),
                frozenset(required[name]),
            )
            for name in names
        },
        frozenset(name for name, is_enum, _ in types if is_enum),
        {name: base for name, is_enum, base in types if not is_enum},
        are_immutable,
    )

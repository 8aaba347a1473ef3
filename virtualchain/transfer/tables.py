"""What can be exported, by the names that people give: the tape, the log, and every view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
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
"""The tables of the log by what asks for them."""
LOWEST: Final = -1
"""No block id is below this: that of an initial snapshot in front of the genesis block."""


@dataclass(frozen=True, slots=True)
class Table:
    """What one file holds: the rows of a query."""

    name: str
    query: sql.Composed
    is_view: bool
    """Whether it is none of the log's: then nothing is known of its values."""

    @property
    def stem(self) -> str:
        """The file's name without its ending; a view may be called whatever no file may."""
        return quote(self.name, safe="")


def tables(
    connection: psycopg.Connection, what: Sequence[str], first: int = LOWEST, last: int = HIGHEST
) -> list[Table]:
    """Give the tables that were asked for, each once; `first` and `last` narrow those of the log.

    Raises UsageError for a name that there is not.
    """
    views = {f"{schema}.{name}": (schema, name, build) for schema, name, build in _views(connection)}
    wanted = list(dict.fromkeys(what))
    if ALL in wanted:
        wanted += [*_LOG, *views]
    found: dict[str, Table] = {}
    for name in wanted:
        short = name.removeprefix("virtualchain.")
        if name == ALL:
            continue
        if short in _LOG or short in {"blocks", "inputs"}:
            for table in _LOG.get(short, (short,)):
                found.setdefault(table, _of_log(table, first, last))
        else:
            found.setdefault(name, _view(connection, name, views))
    return list(found.values())


def _of_log(name: str, first: int, last: int) -> Table:
    ends = {"first": sql.Literal(first), "last": sql.Literal(last)}
    return Table(name, sql.SQL(_Q[name]).format(**ends), is_view=False)


def _view(connection: psycopg.Connection, name: str, views: Mapping[str, tuple[str, str, str]]) -> Table:
    schema, _, relation = name.partition(".")
    row = connection.execute(_Q["relation_exists"], {"schema": schema, "name": relation}).fetchone()
    if not (row and row[0]):
        raise UsageError(
            f"there is no {name} to export: choose among {', '.join((*_LOG, *views))}, {ALL}, "
            "and any other view as schema.view"
        )
    names = {"relation": sql.Identifier(schema, relation)}
    for key in _key(connection, *views[name]) if name in views else ():
        columns = sql.SQL(", ").join(map(sql.Identifier, key))
        return Table(name, sql.SQL(_Q["rows_in_order"]).format(key=columns, **names), is_view=True)
    return Table(name, sql.SQL(_Q["rows"]).format(**names), is_view=True)


def _key(connection: psycopg.Connection, schema: str, name: str, build: str) -> list[tuple[str, ...]]:
    """Give the key of the projection that a view shows, if it shows one."""
    shown = projections(connection, build_schema(schema, build))
    return [projection.key for projection in shown if projection.name == name]


def _views(connection: psycopg.Connection) -> list[tuple[str, str, str]]:
    return connection.execute(_Q["views"]).fetchall()

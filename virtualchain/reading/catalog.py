"""The projections that a user may read, with their columns, keys and comments: the database's catalog."""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from virtualchain.errors import UsageError, quoted
from virtualchain.reading.mistakes import explained, require_text
from virtualchain.reading.views import apps
from virtualchain.store.sql import queries

_Q = queries("explorer")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a projection."""

    name: str
    type: str
    """As PostgreSQL writes it: numeric(10,2), or the name of a domain or an enum."""
    base: str
    """The same without modifiers; of a domain, the type below it."""
    nullable: bool
    comment: str | None
    is_long: bool
    """Whether its values differ in length."""

    def literal(self, text: str) -> str:
        r"""Return a value as the column's type reads it: bytes may be written without `\x`."""
        if self.base != "bytea" or text.startswith("\\x"):
            return text
        try:
            bytes.fromhex(text)
        except ValueError as error:
            raise UsageError(f"the value of {self.name} is not hex: {quoted(text)}") from error
        return f"\\x{text}"


@dataclass(frozen=True, slots=True)
class Projection:
    """A table that an app's reducers build, as its view shows it."""

    app: str
    schema: str
    name: str
    comment: str | None
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    """The columns of its primary key, in order."""
    indexed: tuple[str, ...]
    """The columns that an index begins with: rows are found by their values without reading all of them."""
    row_estimate: int | None
    """About how many rows it has now; None if the database has not counted any yet."""

    @property
    def view(self) -> sql.Identifier:
        """The view."""
        return sql.Identifier(self.schema, self.name)

    def column(self, name: str) -> Column:
        """Return a column; raise UsageError if there is none of that name."""
        for column in self.columns:
            if column.name == name:
                return column
        names = ", ".join(column.name for column in self.columns)
        raise UsageError(f"table {self.name} has no column {quoted(name)}; it has {names}")


def projections(connection: psycopg.Connection, app: str | None = None) -> list[Projection]:
    """Return the projections of all apps, or of one, that the user may read, by app and name.

    They are those of the apps' live builds. Other views in an app's schema, such as those of pending rows,
    are not among them. Raises UsageError for a block that cannot be shown.
    """
    return _read(connection, None if app is None else require_text("the app's name", app), None)


def projection(connection: psycopg.Connection, app: str, name: str) -> Projection:
    """Return a projection of an app; raise UsageError, which names what there is, if there is none."""
    matches = _read(connection, require_text("the app's name", app), require_text("the table's name", name))
    if matches:
        return matches[0]
    apps(connection, [app])
    tables = ", ".join(item.name for item in projections(connection, app))
    if not tables:
        raise UsageError(
            f"app {app} has no table {quoted(name)}: it has none that user {connection.info.user} may read"
        )
    raise UsageError(f"app {app} has no table {quoted(name)}; it has {tables}")


def _read(connection: psycopg.Connection, app: str | None, name: str | None) -> list[Projection]:
    with explained("the list of tables"), connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(_Q["projections"], {"app": app, "name": name}).fetchall()
    return [_projection(*row) for row in rows]


def _projection(
    app: str, schema: str, name: str, comment: str | None, columns: list[dict[str, Any]],
    key: list[str], indexed: list[str], row_estimate: int | None,
) -> Projection:  # fmt: skip
    return Projection(
        app,
        schema,
        name,
        comment,
        tuple(Column(**column) for column in columns),
        tuple(key),
        tuple(indexed),
        row_estimate,
    )

"""Install an app's projections: its DDL, history under each table, and the views that people read."""

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from virtualchain.errors import InvalidApp
from virtualchain.store.checks import complaints
from virtualchain.store.sql import queries

_Q = queries("projections")
_KEPT = ("since_block", "until_block")


@dataclass(frozen=True, slots=True)
class Projection:
    """A table that an app's reducers build; `columns` are the app's own, in order."""

    schema: str
    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    @property
    def table(self) -> sql.Identifier:
        """The table itself."""
        return sql.Identifier(self.schema, self.name)

    @property
    def history(self) -> sql.Identifier:
        """Its twin with the rows as they were."""
        return sql.Identifier(self.schema, f"{self.name}_history")

    @property
    def births(self) -> sql.Identifier:
        """The record of the keys that each block made or changed."""
        return sql.Identifier(self.schema, f"{self.name}_births")


def build_schema(schema: str, build: str) -> str:
    """Give the schema that the tables of one build lie in."""
    return f"{schema}__{build}"


def install(connection: psycopg.Connection, app: str, schema: str, build: str, ddl: str) -> None:
    """Create the schemas, tables, history and views of an app's first build.

    Must run in a transaction of its own. Raises InvalidApp where the DDL fails or makes what cannot
    be rolled back or would differ between nodes.
    """
    tables = build_schema(schema, build)
    names = {"schema": sql.Identifier(schema), "build": sql.Identifier(tables)}
    try:
        connection.execute(sql.SQL(_Q["create_schemas"]).format(**names))
    except psycopg.errors.DuplicateSchema as error:
        raise InvalidApp(
            f"app {app}: the database already has a schema {schema} or {tables} that is not this app's: "
            "rename the app, or use another database"
        ) from error
    connection.execute(_Q["search_path"], {"build": tables})
    _run(connection, app, ddl)
    found = complaints(connection, schema, tables, ddl)
    if found:
        raise InvalidApp("\n".join(f"app {app}: {complaint}" for complaint in found))
    for projection in projections(connection, tables):
        _refuse_rows(connection, app, projection)
        try:
            _keep_history(connection, projection)
            _publish(connection, schema, projection)
        except psycopg.Error as error:
            raise InvalidApp(f"app {app}: no history can be kept of {projection.name}: {error}") from error


def projections(connection: psycopg.Connection, tables: str) -> list[Projection]:
    """Give the projections in the schema `tables` of a build, sorted by name."""
    rows = [
        Projection(tables, name, tuple(c for c in columns if c not in _KEPT), tuple(key))
        for name, columns, key in connection.execute(_Q["tables"], {"build": tables})
    ]
    twins = {f"{row.name}{suffix}" for row in rows for suffix in ("_history", "_births")}
    return [row for row in rows if row.name not in twins]


def _run(connection: psycopg.Connection, app: str, ddl: str) -> None:
    """Run an app's DDL, as a block of PL/pgSQL: that lets it neither end the transaction nor copy from us."""
    before = _session_settings(connection)
    try:
        block = sql.SQL("BEGIN EXECUTE {ddl}; END").format(ddl=sql.Literal(ddl)).as_string(connection)
        connection.execute(sql.SQL("DO {block}").format(block=sql.Literal(block)))
    except (psycopg.Error, UnicodeEncodeError) as error:
        raise InvalidApp(f"app {app}: its projections cannot be created: {_told(error, ddl)}") from error
    changed = sorted(name for name, _ in _session_settings(connection) ^ before)
    if changed:
        names = ", ".join(changed)
        raise InvalidApp(f"app {app}: its projections set {names}, which would outlast them: leave SET out")


def _session_settings(connection: psycopg.Connection) -> set[tuple[str, str]]:
    return set(connection.execute(_Q["session_settings"]).fetchall())


def _told(error: Exception, ddl: str) -> str:
    """Give the database's message, and the line of the DDL where it says so."""
    if not isinstance(error, psycopg.Error) or error.diag.message_primary is None:
        return str(error)
    position = error.diag.internal_position
    line = f" (line {ddl[: int(position) - 1].count(chr(10)) + 1})" if position else ""
    return f"{error.diag.message_primary}{line}"


def _refuse_rows(connection: psycopg.Connection, app: str, projection: Projection) -> None:
    """Refuse rows that the DDL wrote: no block made them, so no history or hash would know them."""
    if connection.execute(sql.SQL(_Q["any_row"]).format(table=projection.table)).fetchone():
        raise InvalidApp(f"app {app}: its projections put rows into {projection.name}: reducers do that")


def _keep_history(connection: psycopg.Connection, projection: Projection) -> None:
    connection.execute(
        sql.SQL(_Q["keep_history"]).format(
            table=projection.table,
            history=projection.history,
            births=projection.births,
            function=sql.Identifier(projection.schema, f"{projection.name}_keep"),
            key=_columns(projection.key),
            old_key=_columns(projection.key, "old"),
            new_key=_columns(projection.key, "new"),
        )
    )


def _publish(connection: psycopg.Connection, schema: str, projection: Projection) -> None:
    connection.execute(
        sql.SQL(_Q["publish"]).format(
            view=sql.Identifier(schema, projection.name),
            columns=_columns(projection.columns),
            table=projection.table,
        )
    )
    place = {"schema": schema, "build": projection.schema, "table": projection.name}
    for (comment,) in connection.execute(_Q["copy_comment"], place).fetchall():
        connection.execute(comment.encode())


def _columns(names: Sequence[str], row: str | None = None) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(*([row] if row else []), name) for name in names)

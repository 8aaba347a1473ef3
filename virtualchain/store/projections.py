"""Install the projections of one build of an app: its DDL, and history under each table."""

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


def create_app_schema(connection: psycopg.Connection, app: str, schema: str) -> None:
    """Make the schema of an app's views; InvalidApp where somebody else has one of that name."""
    _create_schema(connection, app, schema)


def install(connection: psycopg.Connection, app: str, schema: str, build: str, ddl: str) -> list[Projection]:
    """Create the schema, tables and history of one build of an app; `schema` is that of its views.

    Must run in a transaction of its own. Raises InvalidApp where the DDL fails or makes what cannot
    be rolled back or would differ between nodes.
    """
    tables = build_schema(schema, build)
    _create_schema(connection, app, tables)
    connection.execute(_Q["search_path"], {"tables": tables})
    _run(connection, app, ddl)
    found = complaints(connection, schema, tables, ddl)
    if found:
        raise InvalidApp("\n".join(f"app {app}: {complaint}" for complaint in found))
    made = projections(connection, tables)
    for projection in made:
        _refuse_rows(connection, app, projection)
        try:
            _keep_history(connection, projection)
        except psycopg.Error as error:
            raise InvalidApp(f"app {app}: no history can be kept of {projection.name}: {error}") from error
    return made


def drop(connection: psycopg.Connection, tables: str) -> None:
    """Remove the tables of one build."""
    connection.execute(sql.SQL(_Q["drop_schema"]).format(schema=sql.Identifier(tables)))


def projections(connection: psycopg.Connection, tables: str) -> list[Projection]:
    """Give the projections in the schema `tables` of a build, sorted by name."""
    rows = [
        Projection(tables, name, tuple(c for c in columns if c not in _KEPT), tuple(key))
        for name, columns, key in connection.execute(_Q["tables"], {"tables": tables})
    ]
    twins = {f"{row.name}{suffix}" for row in rows for suffix in ("_history", "_births")}
    return [row for row in rows if row.name not in twins]


def _create_schema(connection: psycopg.Connection, app: str, schema: str) -> None:
    try:
        connection.execute(sql.SQL(_Q["create_schema"]).format(schema=sql.Identifier(schema)))
    except psycopg.errors.DuplicateSchema as error:
        raise InvalidApp(
            f"app {app}: the database already has a schema {schema} that is not this app's: "
            "rename the app, or use another database"
        ) from error


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


def _columns(names: Sequence[str], row: str | None = None) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(*([row] if row else []), name) for name in names)

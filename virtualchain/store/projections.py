"""Install an app's projections: its DDL, the checks on it, history triggers and views.

What is checked here is what rollback, replay and equal tables on every node rest on (house.md, Tables).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from virtualchain.errors import InvalidApp
from virtualchain.store.sql import queries

_Q = queries("projections")
_KEPT = ("since_block", "until_block")
_FAULTS = {
    "identity": "is an identity column: its numbers would differ after a rollback",
    "generated": "is generated: let the reducer compute it",
    "float": "is a float: use numeric or integer",
    "unstable_default": "has a default that is not the same everywhere and always",
    "collates": 'does not compare in byte order: add COLLATE "C"',
}


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
    try:
        connection.execute(ddl.encode())
    except psycopg.Error as error:
        raise InvalidApp(f"app {app}: its projections cannot be created: {error}") from error
    _check(connection, app, tables)
    for projection in projections(connection, tables):
        _keep_history(connection, projection)
        _publish(connection, schema, projection)


def projections(connection: psycopg.Connection, tables: str) -> list[Projection]:
    """Give the projections in the schema `tables` of a build, sorted by name."""
    rows = [
        Projection(tables, name, tuple(c for c in columns if c not in _KEPT), tuple(key))
        for name, columns, key in connection.execute(_Q["tables"], {"build": tables})
    ]
    twins = {f"{row.name}{suffix}" for row in rows for suffix in ("_history", "_births")}
    return [row for row in rows if row.name not in twins]


def _check(connection: psycopg.Connection, app: str, tables: str) -> None:
    complaints = [f"app {app}: {complaint}" for complaint in _complaints(connection, tables)]
    if complaints:
        raise InvalidApp("\n".join(complaints))


def _complaints(connection: psycopg.Connection, tables: str) -> list[str]:
    build = {"build": tables}
    found = [
        f"its projections make {name} elsewhere: use unqualified names"
        for (name,) in connection.execute(_Q["strangers"], build)
    ]
    found += [
        f"its projections make {kind}, {name}: they are tables and what belongs to them"
        for name, kind in connection.execute(_Q["not_tables"], build)
    ]
    found += [
        f"projection {table} has a trigger or rule of its own, {name}: reducers do that work"
        for table, name in connection.execute(_Q["triggers"], build)
    ]
    found += _table_complaints(projections(connection, tables), connection, tables)
    cursor = connection.cursor(row_factory=dict_row)
    for row in cursor.execute(_Q["foreign_keys"], build):
        key = f"foreign key {row['conname']} of {row['relname']}"
        if not row["inside"]:
            found.append(f"{key} leads out of the app, to {row['target']}")
        elif not (row["deferrable"] and row["no_action"]):
            found.append(f"{key} must be DEFERRABLE, and NO ACTION on update and delete")
    for row in cursor.execute(_Q["columns"], build):
        column = f"column {row['attname']} of {row['relname']}"
        found += [f"{column} {fault}" for trait, fault in _FAULTS.items() if row[trait]]
    return found


def _table_complaints(found: Sequence[Projection], connection: psycopg.Connection, tables: str) -> list[str]:
    complaints: list[str] = []
    every = {name: columns for name, columns, _ in connection.execute(_Q["tables"], {"build": tables})}
    for projection in found:
        if not projection.key:
            complaints.append(f"projection {projection.name} has no primary key")
        if len(projection.name.encode()) > 54:
            complaints.append(f"the name of projection {projection.name} is longer than 54 bytes")
        complaints += [
            f"projection {projection.name} has a column {column}: that name is the engine's"
            for column in _KEPT
            if column in every[projection.name]
        ]
    taken = set(every) - {projection.name for projection in found}
    complaints += [f"projection {name} has a name that the engine needs for a twin" for name in sorted(taken)]
    return complaints


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

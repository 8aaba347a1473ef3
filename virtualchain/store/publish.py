"""The views of an app's schema, which people read: they show the tables of the app's live build.

Each shows its projection as it is now, or as of the block that the reader's setting `virtualchain.as_of`
names.
"""

from collections.abc import Sequence

import psycopg
from psycopg import sql

from virtualchain.store.projections import Projection
from virtualchain.store.readers import admit_readers
from virtualchain.store.sql import queries

_Q = queries("publish")


def unpublish(connection: psycopg.Connection, schema: str) -> None:
    """Remove an app's views, and their schema."""
    for name in _published(connection, schema):
        _withdraw(connection, schema, name)
    connection.execute(sql.SQL(_Q["drop_schema"]).format(schema=sql.Identifier(schema)))


def publish(connection: psycopg.Connection, app: str, schema: str, projections: Sequence[Projection]) -> None:
    """Let the views of an app's schema show these projections, and nothing else; let readers read them."""
    for name in _published(connection, schema).keys() - {projection.name for projection in projections}:
        _withdraw(connection, schema, name)
    for projection in projections:
        definition, changes = _made(connection, app, schema, projection)
        _create(connection, sql.Identifier(schema, projection.name), definition)
        place = {"schema": schema, "tables": projection.schema, "table": projection.name}
        for (comment,) in connection.execute(_Q["copy_comment"], place).fetchall():
            connection.execute(comment.encode())
        made = {"schema": schema, "name": projection.name, "definition": definition, "changes": changes}
        connection.execute(_Q["record"], made)
    admit_readers(connection)


def is_published(
    connection: psycopg.Connection, app: str, schema: str, projections: Sequence[Projection]
) -> bool:
    """Tell whether the views are what `publish` would make of these projections."""
    made = {projection.name: _made(connection, app, schema, projection) for projection in projections}
    return made == _published(connection, schema)


def _published(connection: psycopg.Connection, schema: str) -> dict[str, tuple[str, str]]:
    rows = connection.execute(_Q["published"], {"schema": schema}).fetchall()
    return {name: (definition, changes) for name, definition, changes in rows}


def _made(connection: psycopg.Connection, app: str, schema: str, projection: Projection) -> tuple[str, str]:
    """Give the statement that makes a projection's view, and the query that tells what a block did to it."""
    era = "era"
    while era in projection.columns:
        era += "_"
    pairs = (sql.SQL("{}, r.{}").format(sql.Literal(name), sql.Identifier(name)) for name in projection.key)
    parts: dict[str, sql.Composable] = {
        "view": sql.Identifier(schema, projection.name),
        "columns": sql.SQL(", ").join(map(sql.Identifier, projection.columns)),
        "table": projection.table,
        "history": projection.history,
        "births": projection.births,
        "app": sql.Literal(app),
        "era": sql.Identifier(era),
        "key": sql.SQL(", ").join(map(sql.Identifier, projection.key)),
        "pairs": sql.SQL(", ").join(pairs),
    }
    view, changes = (sql.SQL(_Q[name]).format(**parts).as_string(connection) for name in ("view", "changes"))
    return view, changes


def _withdraw(connection: psycopg.Connection, schema: str, name: str) -> None:
    """Remove the view of a projection, unless something of others depends on it."""
    connection.execute(sql.SQL(_Q["withdraw"]).format(view=sql.Identifier(schema, name)))
    connection.execute(_Q["forget"], {"schema": schema, "name": name})


def _create(connection: psycopg.Connection, view: sql.Identifier, definition: str) -> None:
    """Make a view, or have it show something else; only where its columns change is it another one then."""
    try:
        with connection.transaction():
            connection.execute(definition.encode())
    except psycopg.errors.InvalidTableDefinition:
        connection.execute(sql.SQL(_Q["withdraw"]).format(view=view))
        connection.execute(definition.encode())

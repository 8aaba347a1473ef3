"""The views in an app's schema, which people read: they show the tables of the app's live build.

Each view shows its projection as it is now, or as of the block that the session's setting
`virtualchain.as_of` names.
"""

from collections.abc import Sequence

import psycopg
from psycopg import sql

from virtualchain.store.projections import Projection
from virtualchain.store.roles import admit_readers
from virtualchain.store.sql import queries

_Q = queries("publish")


def unpublish(connection: psycopg.Connection, schema: str) -> None:
    """Drop an app's views and their schema."""
    for name in _published(connection, schema):
        _drop_view(connection, schema, name)
    connection.execute(sql.SQL(_Q["drop_schema"]).format(schema=sql.Identifier(schema)))


def publish(connection: psycopg.Connection, app: str, schema: str, projections: Sequence[Projection]) -> None:
    """Make the views of an app's schema show exactly these projections, and grant them to the readers."""
    for name in _published(connection, schema).keys() - {projection.name for projection in projections}:
        _drop_view(connection, schema, name)
    for projection in projections:
        definition, changes = _statements(connection, app, schema, projection)
        _create(connection, sql.Identifier(schema, projection.name), definition)
        source = {"schema": schema, "tables": projection.schema, "table": projection.name}
        for (comment,) in connection.execute(_Q["copy_comments"], source).fetchall():
            connection.execute(comment.encode())
        view = {"schema": schema, "name": projection.name, "definition": definition, "changes": changes}
        connection.execute(_Q["record"], view)
    admit_readers(connection)


def is_published(
    connection: psycopg.Connection, app: str, schema: str, projections: Sequence[Projection]
) -> bool:
    """Return whether the views are the ones that `publish` would make from these projections."""
    expected = {item.name: _statements(connection, app, schema, item) for item in projections}
    return expected == _published(connection, schema)


def _published(connection: psycopg.Connection, schema: str) -> dict[str, tuple[str, str]]:
    rows = connection.execute(_Q["published"], {"schema": schema}).fetchall()
    return {name: (definition, changes) for name, definition, changes in rows}


def _statements(
    connection: psycopg.Connection, app: str, schema: str, projection: Projection
) -> tuple[str, str]:
    """Return the statement that makes a projection's view, and the query for what a block did to it."""
    current = connection.execute(_Q["live_build"], {"app": app}).fetchone()
    assert current is not None, f"app {app} has no live build"
    (build,) = current
    row = free_name("row", projection)
    pairs = (
        sql.SQL("{}, {}").format(sql.Literal(name), sql.Identifier(row, name)) for name in projection.key
    )
    parts: dict[str, sql.Composable] = {
        "view": sql.Identifier(schema, projection.name),
        "columns": sql.SQL(", ").join(map(sql.Identifier, projection.columns)),
        "table": projection.table,
        "history": projection.history,
        "births": projection.births,
        "app": sql.Literal(app),
        "build": sql.Literal(build),
        "era": sql.Identifier(free_name("era", projection)),
        "row": sql.Identifier(row),
        "texts": projection.texts(row),
        "key": sql.SQL(", ").join(map(sql.Identifier, projection.key)),
        "pairs": sql.SQL(", ").join(pairs),
    }
    view, changes = (sql.SQL(_Q[name]).format(**parts).as_string(connection) for name in ("view", "changes"))
    return view, changes


def free_name(name: str, projection: Projection) -> str:
    """Return a name that no column has: an alias that a column has means the column, not the row."""
    while name in projection.columns:
        name += "_"
    return name


def _drop_view(connection: psycopg.Connection, schema: str, name: str) -> None:
    """Drop a projection's view; fails if another object depends on it."""
    connection.execute(sql.SQL(_Q["drop_view"]).format(view=sql.Identifier(schema, name)))
    connection.execute(_Q["forget"], {"schema": schema, "name": name})


def _create(connection: psycopg.Connection, view: sql.Identifier, definition: str) -> None:
    """Create or replace a view; it is dropped first only if its columns change."""
    try:
        with connection.transaction():
            connection.execute(definition.encode())
    except psycopg.errors.InvalidTableDefinition:
        connection.execute(sql.SQL(_Q["drop_view"]).format(view=view))
        connection.execute(definition.encode())

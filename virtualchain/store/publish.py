"""The views in an app's schema, which people read: they show the tables of the app's live build.

Each view shows its projection as it is now, or as of the block that the session's setting
`virtualchain.as_of` names.
"""

from collections.abc import Sequence
from typing import NamedTuple

import psycopg
from psycopg import sql

from virtualchain.store.projections import Projection
from virtualchain.store.roles import admit_readers
from virtualchain.store.sql import queries

_Q = queries("publish")


class _Statements(NamedTuple):
    """The statement that makes a projection's view, and what reads its history."""

    definition: str
    changes: str
    """The query for what a block did."""
    versions: str
    """The query for the versions of a row."""


def unpublish(connection: psycopg.Connection, schema: str) -> None:
    """Drop an app's views and their schema."""
    for name in _pending_views(connection, schema):
        _drop_pending_view(connection, schema, name)
    for name in _published(connection, schema):
        _drop_view(connection, schema, name)
    connection.execute(sql.SQL(_Q["drop_schema"]).format(schema=sql.Identifier(schema)))


def publish(connection: psycopg.Connection, app: str, schema: str, projections: Sequence[Projection]) -> None:
    """Make the views of an app's schema show exactly these projections, and grant them to the readers."""
    pending = _pending_views(connection, schema)
    for name in pending - {view for view, _ in _named_pending(projections)}:
        _drop_pending_view(connection, schema, name)
    for name in _published(connection, schema).keys() - {projection.name for projection in projections}:
        _drop_view(connection, schema, name)
    for projection in projections:
        statements = _statements(connection, app, schema, projection)
        _create(connection, schema, projection.name, statements.definition)
        source = {"schema": schema, "tables": projection.schema, "table": projection.name}
        for (comment,) in connection.execute(_Q["copy_comments"], source).fetchall():
            connection.execute(comment.encode())
        connection.execute(_Q["record"], {"schema": schema, "name": projection.name, **statements._asdict()})
    if pending:
        _create_pending_views(connection, app, schema, projections)
    admit_readers(connection)


def show_pending(
    connection: psycopg.Connection, app: str, schema: str, projections: Sequence[Projection]
) -> None:
    """Make views that show these projections as they would be after the pending inputs, if there are none.

    The view of a projection `t` is called `t_pending`, unless another projection is. Needs a transaction.
    """
    if not _pending_views(connection, schema):
        _create_pending_views(connection, app, schema, projections)
        admit_readers(connection)


def _create_pending_views(
    connection: psycopg.Connection, app: str, schema: str, projections: Sequence[Projection]
) -> None:
    for name, projection in _named_pending(projections):
        row, its = free_name("row", projection), free_name("its", projection)
        same = (
            sql.SQL("{} = {}").format(sql.Identifier(its, column), sql.Identifier(row, column))
            for column in projection.key
        )
        parts: dict[str, sql.Composable] = {
            "pending": sql.Identifier(schema, name),
            "view": sql.Identifier(schema, projection.name),
            "columns": sql.SQL(", ").join(map(sql.Identifier, projection.columns)),
            "written": sql.SQL(", ").join(sql.Identifier(row, column) for column in projection.columns),
            "same_key": sql.SQL(" AND ").join(same),
            "its": sql.Identifier(its),
            "row": sql.Identifier(row),
            "app": sql.Literal(app),
            "name": sql.Literal(projection.name),
        }
        connection.execute(sql.SQL(_Q["pending_view"]).format(**parts))
        connection.execute(_Q["record_pending_view"], {"schema": schema, "name": name})


def _named_pending(projections: Sequence[Projection]) -> list[tuple[str, Projection]]:
    """Return the views that show projections as they would be, by name."""
    taken = {projection.name for projection in projections}
    named = [(f"{projection.name}_pending", projection) for projection in projections]
    return [(name, projection) for name, projection in named if name not in taken]


def _pending_views(connection: psycopg.Connection, schema: str) -> set[str]:
    """Return the names of the views that show what is pending."""
    return {name for (name,) in connection.execute(_Q["pending_views"], {"schema": schema}).fetchall()}


def _drop_pending_view(connection: psycopg.Connection, schema: str, name: str) -> None:
    connection.execute(sql.SQL(_Q["drop_view"]).format(view=sql.Identifier(schema, name)))
    connection.execute(_Q["forget_pending_view"], {"schema": schema, "name": name})


def is_published(
    connection: psycopg.Connection, app: str, schema: str, projections: Sequence[Projection]
) -> bool:
    """Return whether the views are the ones that `publish` would make from these projections."""
    expected = {item.name: _statements(connection, app, schema, item) for item in projections}
    return expected == _published(connection, schema)


def _published(connection: psycopg.Connection, schema: str) -> dict[str, _Statements]:
    rows = connection.execute(_Q["published"], {"schema": schema}).fetchall()
    return {name: _Statements(*statements) for name, *statements in rows}


def _statements(connection: psycopg.Connection, app: str, schema: str, projection: Projection) -> _Statements:
    """Return what is recorded of a projection's view."""
    current = connection.execute(_Q["live_build"], {"app": app}).fetchone()
    assert current is not None, f"app {app} has no live build"
    (build,) = current
    row = free_name("row", projection)
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
        "pairs": key_pairs(projection, row),
        "has_key": _has_key(projection, row),
    }
    return _Statements(
        *(sql.SQL(_Q[name]).format(**parts).as_string(connection) for name in ("view", "changes", "versions"))
    )


def _has_key(projection: Projection, row: str) -> sql.Composed:
    """Return the condition that a row has the key in the object $1; `row` is the row's alias."""
    conditions = (
        sql.SQL(_Q["has_key"]).format(
            row=sql.Identifier(row), column=sql.Identifier(column), births=projection.births
        )
        for column in projection.key
    )
    return sql.SQL(" AND ").join(conditions)


def key_pairs(projection: Projection, row: str) -> sql.Composed:
    """Return the arguments with which jsonb_build_object makes a row's key; `row` is the row's alias."""
    pairs = (
        sql.SQL("{}, {}").format(sql.Literal(name), sql.Identifier(row, name)) for name in projection.key
    )
    return sql.SQL(", ").join(pairs)


def free_name(name: str, projection: Projection) -> str:
    """Return a name that no column has: an alias that a column has means the column, not the row."""
    while name in projection.columns:
        name += "_"
    return name


def _drop_view(connection: psycopg.Connection, schema: str, name: str) -> None:
    """Drop a projection's view; fails if another object depends on it."""
    connection.execute(sql.SQL(_Q["drop_view"]).format(view=sql.Identifier(schema, name)))
    connection.execute(_Q["forget"], {"schema": schema, "name": name})


def _create(connection: psycopg.Connection, schema: str, name: str, definition: str) -> None:
    """Create or replace a view; it is dropped first only if its columns change."""
    try:
        with connection.transaction():
            connection.execute(definition.encode())
    except psycopg.errors.InvalidTableDefinition:
        pending = f"{name}_pending"
        if pending in _pending_views(connection, schema):
            _drop_pending_view(connection, schema, pending)
        connection.execute(sql.SQL(_Q["drop_view"]).format(view=sql.Identifier(schema, name)))
        connection.execute(definition.encode())

"""The views of an app's schema, which people read: they show the tables of the app's live build."""

from collections.abc import Sequence

import psycopg
from psycopg import sql

from virtualchain.store.projections import Projection
from virtualchain.store.sql import queries

_Q = queries("publish")


def unpublish(connection: psycopg.Connection, schema: str) -> None:
    """Remove an app's views, and their schema."""
    for (view,) in connection.execute(_Q["views"], {"schema": schema}).fetchall():
        connection.execute(sql.SQL(_Q["drop_view"]).format(view=sql.Identifier(schema, view)))
    connection.execute(sql.SQL(_Q["drop_schema"]).format(schema=sql.Identifier(schema)))


def publish(connection: psycopg.Connection, schema: str, projections: Sequence[Projection]) -> None:
    """Let the views of an app's schema show these projections, and nothing else."""
    for projection in projections:
        connection.execute(
            sql.SQL(_Q["publish"]).format(
                view=sql.Identifier(schema, projection.name),
                columns=sql.SQL(", ").join(map(sql.Identifier, projection.columns)),
                table=projection.table,
            )
        )
        place = {"schema": schema, "build": projection.schema, "table": projection.name}
        for (comment,) in connection.execute(_Q["copy_comment"], place).fetchall():
            connection.execute(comment.encode())

"""Alembic's entry point: runs the revisions on the connection that `virtualchain.store.migrate` passes in.

Then it updates the views of the installed apps.
"""

from alembic import context

from virtualchain.store.builds import refresh_views
from virtualchain.store.sql import queries

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table_schema="vc")
with context.begin_transaction():
    for name in ("lock", "create_schema"):
        connection.exec_driver_sql(queries("migrate")[name])
    connection.exec_driver_sql(queries("giving_way")["short_lock_timeout"])
    context.run_migrations()
    refresh_views(connection.connection.driver_connection)

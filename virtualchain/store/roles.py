"""The role that an app's reducers run under: it reaches the app's own tables, and nothing else.

A mistake in one app then cannot spoil the log or another app. It is no prison: the engine's session enters
the role and leaves it, and a reducer that says RESET ROLE leaves it, too. Apps are trusted code.
"""

from collections.abc import Sequence
from contextlib import suppress

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from virtualchain.errors import StoreError
from virtualchain.store.projections import Projection
from virtualchain.store.sql import queries

_Q = queries("roles")


def provide_role(
    connection: psycopg.Connection, schema: str, tables: str, projections: Sequence[Projection]
) -> bool:
    """See to it that an app has its role, and the role what it needs; False where we may not do that.

    `schema` is the app's, `tables` the schema of the build that `projections` lie in. Must run in a
    transaction. Raises StoreError where a role of that name is somebody else's.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(_Q["role"], {"schema": schema}).fetchone()
    assert found is not None, "the session has no user"
    if found["strange"]:
        raise StoreError(
            f"the role {found['name']} is not an app's: it may log in, or make roles or databases. "
            f"Rename or drop it, or rename the app with the schema {schema}"
        )
    if not (found["there"] or found["may_create"]):
        return False
    names = {"role": sql.Identifier(found["name"]), "tables": sql.Identifier(tables)}
    try:
        with connection.transaction():
            if not found["there"]:
                connection.execute(sql.SQL(_Q["create"]).format(**names))
            if not found["may_be"]:
                connection.execute(sql.SQL(_Q["join"]).format(**names))
    except psycopg.errors.InsufficientPrivilege:
        return False
    wanted = {"role": found["name"], "tables": tables, "projections": [item.name for item in projections]}
    lacking = connection.execute(_Q["lacking"], wanted).fetchone()
    if lacking is not None and not lacking[0]:
        return True  # a grant writes to the catalogue, also where it changes nothing
    connection.execute(sql.SQL(_Q["admit"]).format(**names))
    for projection in projections:
        connection.execute(sql.SQL(_Q["admit_to_table"]).format(table=projection.table, **names))
    return True


def drop_role(connection: psycopg.Connection, schema: str) -> None:
    """Remove an app's role with all that it was granted here, where we may."""
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(_Q["role"], {"schema": schema}).fetchone()
    if found is None or not found["there"] or found["strange"]:
        return
    role = sql.Identifier(found["name"])
    with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
        connection.execute(sql.SQL(_Q["drop"]).format(role=role))

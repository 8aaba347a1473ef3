"""Database roles: one for the reducers of each app, and roles that only read.

An app's role reaches the app's own tables and nothing else, so a mistake in one app cannot damage the log or
another app. It is not a sandbox: the engine's session enters and leaves the role, and so can a reducer that
runs RESET ROLE. Apps are trusted code.

A reader's role reads the views of a deployment and nothing else. `vc.readers` records what it may read, so
that views which are made later are granted to it as well.
"""

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from virtualchain.errors import StoreError, UsageError
from virtualchain.model import Json
from virtualchain.store.projections import Projection
from virtualchain.store.sql import queries

_APPS = queries("roles")
_READERS = queries("readers")


def provide_role(
    connection: psycopg.Connection, schema: str, tables: str, projections: Sequence[Projection]
) -> bool:
    """Make sure that an app has its role with the privileges it needs; return False if we may not do that.

    `schema` is the app's, `tables` is the schema of the build that `projections` belong to. Needs a
    transaction. Raises StoreError if another role has that name.
    """
    role = _app_role(connection, schema)
    if role["strange"]:
        raise StoreError(
            f"the role {role['name']} is not an app's: it may log in, or create roles or databases. "
            f"Rename or drop it, or rename the app with the schema {schema}"
        )
    if not (role["there"] or role["may_create"]):
        return False
    names = {"role": sql.Identifier(role["name"]), "tables": sql.Identifier(tables)}
    try:
        with connection.transaction():
            if not role["there"]:
                connection.execute(sql.SQL(_APPS["create"]).format(**names))
            if not role["may_be"]:
                connection.execute(sql.SQL(_APPS["join"]).format(**names))
    except psycopg.errors.InsufficientPrivilege:
        return False
    parameters = {"role": role["name"], "tables": tables, "projections": [item.name for item in projections]}
    is_incomplete = connection.execute(_APPS["is_incomplete"], parameters).fetchone()
    if is_incomplete is not None and not is_incomplete[0]:
        return True  # a GRANT writes to the catalog even if it changes nothing
    for query in ("admit", "admit_to_schema"):
        connection.execute(sql.SQL(_APPS[query]).format(**names))
    for projection in projections:
        connection.execute(sql.SQL(_APPS["admit_to_table"]).format(table=projection.table, **names))
    return True


def lend_to_role(
    connection: psycopg.Connection, app: str, build: str, tables: str, projections: Sequence[Projection]
) -> None:
    """Let the role under which a build's reducers run, if there is one, use other tables.

    Only the catalog's rows of these tables are written, so no other session is in the way.
    """
    row = connection.execute(_APPS["role_of_build"], {"app": app, "build": build}).fetchone()
    if row is None:
        return
    names = {"role": sql.Identifier(row[0]), "tables": sql.Identifier(tables)}
    connection.execute(sql.SQL(_APPS["admit_to_schema"]).format(**names))
    for projection in projections:
        connection.execute(sql.SQL(_APPS["admit_to_table"]).format(table=projection.table, **names))


def drop_role(connection: psycopg.Connection, schema: str) -> None:
    """Drop an app's role with all its privileges in this database, if we may."""
    role = _app_role(connection, schema)
    if not role["there"] or role["strange"]:
        return
    with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
        connection.execute(sql.SQL(_APPS["drop"]).format(role=sql.Identifier(role["name"])))


@dataclass(frozen=True, slots=True)
class Reader:
    """A role that reads: its new password, if it got one, and what else it may do besides reading."""

    role: str
    password: str | None
    logs_in: bool
    remains: tuple[str, ...]


def grant_reader(
    connection: psycopg.Connection,
    role: str,
    apps: Sequence[str] | None,
    *,
    login: bool,
    password: str | None = None,
) -> Reader:
    """Let a role read the log's views and those of `apps` (None: all, including later ones).

    The role is created if needed; with `login` it gets `password`, or else a new one. Privileges that
    PostgreSQL grants to PUBLIC are revoked if we may do that. Needs a transaction. Raises UsageError for a
    role that is more than a reader, StoreError if we may not create roles, or may not grant a function that
    the views call.
    """
    before = _reader_role(connection, role)
    if before["strange"]:
        raise UsageError(f"the role {role} {' and '.join(before['strange'])}: choose another name")
    password = (password or secrets.token_hex(24)) if login else None
    name = {"role": sql.Identifier(role)}
    try:
        if not before["there"]:
            connection.execute(sql.SQL(_READERS["create"]).format(**name))
            connection.execute(sql.SQL(_READERS["be_careful"]).format(**name))
        if password is not None:
            hashed = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
            literal = sql.Literal(hashed.decode())
            statement = sql.SQL(_READERS["let_log_in"]).format(password=literal, **name)
            connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError(
            f"the database user may not create the role {role}, or let it log in: have an administrator run "
            f"CREATE ROLE, then grant again without --login ({error.diag.message_primary})"
        ) from error
    except psycopg.errors.ReservedName as error:
        raise UsageError(f"a role cannot be named {role}: {error.diag.message_primary}") from error
    parameters = {"role": role, "apps": None if apps is None else list(apps)}
    for query in ("remember", "remember_all"):
        connection.execute(_READERS[query], parameters)
    if apps is None:
        _join(connection, name)
    harden(connection)
    admit_readers(connection)
    uncallable = sql.SQL(_READERS["uncallable"]).format(called=sql.SQL(_READERS["called"]))
    functions = [name for (name,) in connection.execute(uncallable, {"role": role}).fetchall()]
    if functions:
        raise StoreError(
            f"the views call functions that {role} may not execute, and that only their owner can grant: "
            f"have an administrator run GRANT EXECUTE ON FUNCTION {', '.join(functions)} TO {role}"
        )
    remains = connection.execute(_READERS["remains"], {"role": role}).fetchall()
    return Reader(role, password, login or before["logs_in"], tuple(what for what, _ in remains))


def reader_excess(connection: psycopg.Connection, role: str) -> list[str]:
    """Return what a reader's role may do beyond reading, as far as an administrator can prevent that."""
    known = _reader_role(connection, role)
    if not known["there"]:
        return []
    remains = connection.execute(_READERS["remains"], {"role": role}).fetchall()
    return [*known["strange"], *(what for what, is_avoidable in remains if is_avoidable)]


def missing_grants(connection: psycopg.Connection) -> int:
    """Count the privileges that readers should have and do not, as in a copy that was restored."""
    listing = sql.SQL(_READERS["missing"]).format(called=sql.SQL(_READERS["called"]))
    return len(connection.execute(listing, {}).fetchall())


def _join(connection: psycopg.Connection, name: dict[str, sql.Identifier]) -> None:
    """Let our role become a reader, unless the role is an administrator's to grant."""
    query = "join" if connection.info.server_version >= 160000 else "join_15"
    with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
        connection.execute(sql.SQL(_READERS[query]).format(**name))


def revoke_reader(connection: psycopg.Connection, role: str) -> None:
    """Revoke all that a role was granted here, but keep the role; raise UsageError if it is not a reader."""
    if not connection.execute(_READERS["forget"], {"role": role}).rowcount:
        raise UsageError(f"the role {role} is not a reader of this deployment")
    if _reader_role(connection, role)["there"]:
        _run_all(connection, "take_back", {"role": role})


def forget_app(connection: psycopg.Connection, app: str) -> None:
    """Remove an app from what readers may read, so that they cannot read a later app of the same name."""
    connection.execute(_READERS["forget_app"], {"app": app})


def admit_readers(connection: psycopg.Connection) -> None:
    """Grant readers the privileges that they should have and do not; lock nothing if there are none."""
    if connection.execute(_READERS["any"]).fetchone() is not None:
        _run_all(connection, "missing", {})


def absent_readers(connection: psycopg.Connection) -> list[str]:
    """Return the readers that this server has no role for, as after a restore without roles."""
    return [role for (role,) in connection.execute(_READERS["absent"]).fetchall()]


def harden(connection: psycopg.Connection) -> None:
    """Revoke the privileges that PostgreSQL grants to PUBLIC and that we may revoke."""
    _run_all(connection, "harden", {})


def _app_role(connection: psycopg.Connection, schema: str) -> Json:
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_APPS["role"], {"schema": schema}).fetchone()
    assert row is not None, "the session's user is a role"
    return row


def _reader_role(connection: psycopg.Connection, role: str) -> Json:
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_READERS["role"], {"role": role}).fetchone()
    assert row is not None, "the query returns one row"
    return row


def _run_all(connection: psycopg.Connection, query: str, parameters: dict[str, object]) -> None:
    """Run the statements that a query returns."""
    listing = sql.SQL(_READERS[query]).format(called=sql.SQL(_READERS["called"]))
    for (statement,) in connection.execute(listing, parameters).fetchall():
        connection.execute(statement.encode())

"""Roles that read the views of a deployment and nothing else.

What a reader may read is noted in `vc.readers`, so that views which are made later are granted to it as well.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from virtualchain.errors import StoreError, UsageError
from virtualchain.model import Json
from virtualchain.store.sql import queries

_Q = queries("readers")


@dataclass(frozen=True, slots=True)
class Reader:
    """A role that reads: its new password where it was given one, and what it may do besides reading."""

    role: str
    password: str | None
    logs_in: bool
    remains: tuple[str, ...]


def grant_reader(
    connection: psycopg.Connection, role: str, apps: Sequence[str] | None, *, login: bool
) -> Reader:
    """Let a role read the log's views and those of `apps` (None: all, also later ones); make it if need be.

    With `login` it gets a new password. What PostgreSQL leaves to everybody is taken away as far as we may.
    Must run in a transaction. Raises UsageError for a role that is more than a reader, StoreError where we
    may make no role.
    """
    found = _role(connection, role)
    if found["strange"]:
        raise UsageError(f"the role {role} {' and '.join(found['strange'])}: choose another name")
    password = secrets.token_hex(24) if login else None
    name = {"role": sql.Identifier(role)}
    try:
        if not found["there"]:
            connection.execute(sql.SQL(_Q["create"]).format(**name))
            connection.execute(sql.SQL(_Q["be_careful"]).format(**name))
        if password is not None:
            statement = sql.SQL(_Q["let_log_in"]).format(password=sql.Literal(password), **name)
            connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError(
            f"the database's user may not make the role {role}, or let it log in: have an administrator say "
            f"CREATE ROLE, and grant again without --login ({error.diag.message_primary})"
        ) from error
    except psycopg.errors.ReservedName as error:
        raise UsageError(f"no role can be named {role}: {error.diag.message_primary}") from error
    noted = {"role": role, "apps": None if apps is None else list(apps)}
    for query in ("remember", "remember_all"):
        connection.execute(_Q[query], noted)
    harden(connection)
    admit_readers(connection)
    remains = connection.execute(_Q["remains"], {"role": role}).fetchall()
    return Reader(role, password, login or found["logs_in"], tuple(what for (what,) in remains))


def revoke_reader(connection: psycopg.Connection, role: str) -> None:
    """Take from a role what it was granted here; the role itself stays. Raises UsageError for no reader."""
    if not connection.execute(_Q["forget"], {"role": role}).rowcount:
        raise UsageError(f"the role {role} is no reader of this deployment")
    if _role(connection, role)["there"]:
        _run_all(connection, "take_back", {"role": role})


def forget_app(connection: psycopg.Connection, app: str) -> None:
    """Let no reader read another app of the same name, when this one is removed."""
    connection.execute(_Q["forget_app"], {"app": app})


def admit_readers(connection: psycopg.Connection) -> None:
    """Give the readers what they lack; lock nothing where that is nothing."""
    _run_all(connection, "missing", {})


def harden(connection: psycopg.Connection) -> None:
    """Take from PUBLIC what PostgreSQL leaves to it and is ours to take."""
    _run_all(connection, "harden", {})


def _role(connection: psycopg.Connection, role: str) -> Json:
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(_Q["role"], {"role": role}).fetchone()
    assert found is not None, "the query gives one row"
    return found


def _run_all(connection: psycopg.Connection, query: str, wanted: dict[str, object]) -> None:
    """Run the statements that a query gives."""
    for (statement,) in connection.execute(_Q[query], wanted).fetchall():
        connection.execute(statement.encode())

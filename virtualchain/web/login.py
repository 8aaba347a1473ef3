"""Whose rights the server reads with: never an owner's.

Whoever asks chooses statements, so the session itself must not be able to do more than read. To become a
reader within an owner's session would not do: a statement can leave the role again.
"""

import hashlib
import hmac
import secrets

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from virtualchain.errors import StoreError, UsageError
from virtualchain.reading import views
from virtualchain.store.database import connect_migrator, redact
from virtualchain.store.roles import grant_reader
from virtualchain.store.sql import queries

_Q = queries("web")
_ROLE = "virtualchain_web"
_SINCE_INHERIT = 160000
"""The version of PostgreSQL since which a grant says whether rights are inherited."""
_LONGEST_NAME = 63
"""Bytes of a role's name: PostgreSQL would cut a longer one."""


def reader_url(url: str) -> str:
    """Return the URL with which the server logs in: as a reader of this deployment.

    A URL whose user only reads is returned as it is. For an owner's URL there is a role of this database that
    is made, and granted all apps, at the first start; its password follows from the owner's, so that several
    servers, also on standbys, can log in with it. Raises StoreError if that is not possible.
    """
    with views.snapshot(url) as connection:
        info = connection.info
        if not connection.execute(_Q["is_owner"]).fetchone():
            power = views.powers(connection)
            if power is None:
                return url
            raise _refusal(url, f"its user {info.user} {power}")
        name, owner_password = info.dbname, info.password
    role = _role_of(name)
    password = _derived(owner_password, role) if owner_password else secrets.token_hex(24)
    reader = make_conninfo(url, user=role, password=password, options=None)
    if owner_password and _logs_in(reader):
        return reader
    try:
        connection = connect_migrator(url)
        try:
            with connection.transaction():
                grant_reader(connection, role, None, login=True, password=password)
                if connection.info.server_version >= _SINCE_INHERIT:
                    connection.execute(sql.SQL(_Q["join"]).format(role=sql.Identifier(role)))
        finally:
            connection.close()
        with views.snapshot(reader):
            return reader
    except (StoreError, UsageError) as error:
        raise _refusal(url, str(error)) from error
    except psycopg.Error as error:
        raise StoreError.from_database(error, f"the database {redact(url)}") from error


def _role_of(database: str) -> str:
    """Name the role of a database: roles belong to the whole server."""
    name = f"{_ROLE}_{database}"
    if len(name.encode()) <= _LONGEST_NAME and name.isascii():
        return name
    return f"{_ROLE}_{hashlib.sha256(database.encode()).hexdigest()[:32]}"


def _derived(owner_password: str, role: str) -> str:
    return hmac.new(owner_password.encode(), role.encode(), hashlib.sha256).hexdigest()


def _logs_in(url: str) -> bool:
    """Return whether the role is there, and may read the deployment."""
    try:
        with views.snapshot(url) as connection:
            return bool(connection.execute(_Q["reads_all"]).fetchone())
    except StoreError:
        return False


def _refusal(url: str, reason: str) -> StoreError:
    user = conninfo_to_dict(url).get("user") or "the URL's user"
    return StoreError(
        f"the server reads as a mere reader, and cannot log in as one to {redact(url)}: {reason}. Run "
        f"`virtualchain db grant-reader web --login` with an owner's URL ({user} may not be one), and pass "
        "the URL that it prints with --database"
    )

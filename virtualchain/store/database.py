"""Connections to the database: the one that writes, and those that read.

A deployment is one database and has one writer. The writer's session holds an advisory lock, which PostgreSQL
frees when the session ends, however it ends; so no lock goes stale. Both kinds of session pin the settings
that shape values as text, because digests are made from that text.

Readers may come through a pooler such as pgbouncer. What looks like their session is then many, and others
use these, too: nothing may be set in them for longer than a transaction, and nothing prepared.
"""

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from virtualchain.errors import StoreError, UsageError, WriterBusy
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.sql import queries

_NAMED = queries("database")
_OLDEST_SERVER = 15
_NAME_LIMIT = 63
"""Bytes of an application name that PostgreSQL keeps."""
_CONNECT_TIMEOUT = 15
_POLL = 1.0
"""Seconds between two tries for the writer's lock."""

# What libpq says of a refused connection, and what helps. It gives no SQLSTATE to tell them apart.
_HINTS = (
    (r"authentication failed|no password supplied", "check user and password"),
    (r'database ".*" does not exist', "create it first, with createdb"),
    (r'role ".*" does not exist', "check the user"),
    (r"no pg_hba.conf entry", "the server's pg_hba.conf must let us in"),
    (r"refused|No such file or directory|timeout expired|timed out", "is the server running there?"),
    (r"could not translate host name|resolve host|Name or service not known", "check the host name"),
)


def resolve(database: str | None) -> str:
    """Give the URL to work with: the given one, or that of the embedded server, started if need be.

    Raises UsageError where the URL is none or the embedded server is not installed, StoreError where
    that server does not start.
    """
    if database is None:
        return EmbeddedServer().start()
    _parameters(database)
    return database


def redact(url: str) -> str:
    """Give the URL for people's eyes: who, where and which database, and no secret."""
    try:
        parameters = _parameters(url)
    except UsageError:
        return "postgresql://***"
    user, password, name = (str(parameters.get(key) or "") for key in ("user", "password", "dbname"))
    hosts = str(parameters.get("host") or parameters.get("hostaddr") or "").split(",")
    ports = str(parameters.get("port") or "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = [
        quote(host, safe=":[]") + (port and f":{port}") for host, port in zip(hosts, ports, strict=False)
    ]
    secret = ":***" if password else ""
    who = f"{quote(user, safe='')}{secret}@" if user else ""
    return f"postgresql://{who}{','.join(places)}/{quote(name, safe='')}"


def connect_writer(url: str, *, wait: bool = False) -> psycopg.Connection:
    """Open the deployment's one writing session: autocommit, settings pinned, lock taken until it closes.

    Connects directly: behind a pooler the lock would hold nothing. Raises WriterBusy, which names the
    holder, where another session has the lock, or waits for it with `wait`; StoreError where the database
    cannot be reached or used, or is a pooler.
    """
    connection = _connect(url, "writer")
    with _closed_on_failure(connection, url):
        _make_writing(connection, url)
        _take_lock(connection, wait=wait)
    return connection


def connect_builder(url: str, build: str) -> psycopg.Connection:
    """Open a session that makes a build beside the writer: as the writer's, with the lock of that build.

    Raises WriterBusy where another session makes it, and else as `connect_writer`.
    """
    connection = _connect(url, "builder")
    with _closed_on_failure(connection, url):
        _make_writing(connection, url)
        row = connection.execute(_NAMED["build_lock"], {"build": build}).fetchone()
        if not (row and row[0]):
            raise WriterBusy(f"another process makes {build} already: wait for it to end")
    return connection


def connect_migrator(url: str) -> psycopg.Connection:
    """Open a session that changes the schema: settings pinned as the writer's, in transactions.

    Raises StoreError where the database cannot be reached or used, or is a pooler.
    """
    connection = _connect(url, "migration")
    with _closed_on_failure(connection, url):
        _refuse_pooler(connection, url)
        _pin(connection, is_local=False)
        connection.execute(_NAMED["pin_writing"])
        connection.autocommit = False
    return connection


def connect_reader(url: str) -> psycopg.Connection:
    """Open a session whose transactions are read only: autocommit, settings pinned as the writer's.

    Behind a pooler nothing is set, as it would outlast us: whoever cares says `pin_transaction` in each
    transaction. Raises StoreError where the database cannot be reached or used.
    """
    connection = _connect(url, "reader")
    with _closed_on_failure(connection, url):
        if is_pooled(connection):
            connection.prepare_threshold = None
        else:
            _pin(connection, is_local=False)
            connection.execute(_NAMED["pin_read_only"])
    return connection


def _make_writing(connection: psycopg.Connection, url: str) -> None:
    """Prepare a session whose writing shapes digests; StoreError where it would go wrong."""
    _refuse_pooler(connection, url)
    _pin(connection, is_local=False)
    connection.execute(_NAMED["pin_keepalives"])
    connection.execute(_NAMED["pin_writing"])
    _refuse_standby(connection, url)
    _refuse_silent_triggers(connection, url)


def pin_transaction(connection: psycopg.Connection) -> None:
    """Pin the settings that shape values as text until the transaction ends."""
    _pin(connection, is_local=True)


def _pin(connection: psycopg.Connection, *, is_local: bool) -> None:
    connection.execute(_NAMED["pin_settings"], {"is_local": is_local})


def _connect(url: str, kind: str) -> psycopg.Connection:
    """Open a session, and check that the database will do."""
    given = _parameters(url)
    try:
        connection = psycopg.connect(
            url,
            autocommit=True,
            application_name=_session_name(kind),
            client_encoding="UTF8",
            connect_timeout=given.get("connect_timeout") or _CONNECT_TIMEOUT,
            keepalives=1,
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
        )
    except psycopg.Error as error:
        raise StoreError(f"the database {redact(url)} cannot be opened: {_reason(error)}") from error
    with _closed_on_failure(connection, url):
        _refuse_unfit(connection, url)
    return connection


@contextmanager
def _closed_on_failure(connection: psycopg.Connection, url: str) -> Iterator[None]:
    """Leave no session behind where preparing it fails."""
    try:
        yield
    except psycopg.Error as error:
        connection.close()
        raise StoreError(f"the database {redact(url)} cannot be used: {_reason(error)}") from error
    except BaseException:
        connection.close()
        raise


def _refuse_unfit(connection: psycopg.Connection, url: str) -> None:
    """Refuse a server that is too old, and a database whose text is not UTF-8."""
    version = connection.info.server_version // 10_000
    if version < _OLDEST_SERVER:
        raise StoreError(
            f"{redact(url)} is PostgreSQL {version}, and virtualchain needs {_OLDEST_SERVER} or later"
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreError(
            f"the database {redact(url)} is encoded in {encoding}: make one with "
            "CREATE DATABASE … ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0"
        )


def is_pooled(connection: psycopg.Connection) -> bool:
    """Whether somebody passes on what we say: then another process answers than the one that greeted us."""
    row = connection.execute(_NAMED["server_process"]).fetchone()
    return row is None or row[0] != connection.info.backend_pid


def _refuse_pooler(connection: psycopg.Connection, url: str) -> None:
    """Refuse what is no session of ours alone: the writer's lock and settings would be somebody else's."""
    if is_pooled(connection):
        raise StoreError(
            f"{redact(url)} is a connection pooler, which is fine for reading only: "
            "to write, give the address of the PostgreSQL server behind it"
        )


def _refuse_standby(connection: psycopg.Connection, url: str) -> None:
    """Refuse a server that copies another one and takes no writes."""
    if connection.info.parameter_status("in_hot_standby") == "on":
        raise StoreError(f"{redact(url)} is a standby, which can only be read: give the primary server")


def _refuse_silent_triggers(connection: psycopg.Connection, url: str) -> None:
    """Refuse a session in which the projections' triggers would not fire, and leave no history."""
    row = connection.execute(_NAMED["triggers_fire"]).fetchone()
    if not (row and row[0]):
        raise StoreError(
            f"{redact(url)} sets session_replication_role to replica, which silences the triggers that keep "
            "history: have a superuser reset it for this database and user"
        )


def _take_lock(connection: psycopg.Connection, *, wait: bool) -> None:
    """Take the writer's lock.

    Waiting is asking again and again: a statement that blocks for hours would hold back every VACUUM.
    """
    while not _try_lock(connection):
        if not wait:
            raise WriterBusy(
                f"another writer is at work on this database: {_holder(connection)}; "
                "stop it, or wait for it with --wait"
            )
        time.sleep(_POLL)


def _holder(connection: psycopg.Connection) -> str:
    """Describe the session that holds the writer's lock."""
    row = connection.execute(_NAMED["advisory_lock_holder"]).fetchone()
    if row is None:
        return "one that has ended by now"
    name, pid, address = row
    where = f" from {address}" if address else ""
    return f"{name or 'an unknown program'} (server process {pid}{where})"


def _try_lock(connection: psycopg.Connection) -> bool:
    row = connection.execute(_NAMED["advisory_lock"]).fetchone()
    return bool(row and row[0])


def _session_name(kind: str) -> str:
    """Name a session by host and process; a long host name gives way, so that the process number stays."""
    before, after = f"virtualchain {kind} ", f":{os.getpid()}"
    host = socket.gethostname().encode("ascii", "replace").decode("ascii")
    return f"{before}{host[: _NAME_LIMIT - len(before) - len(after)]}{after}"


def _parameters(url: str) -> dict[str, str | int | None]:
    """Read a URL, or libpq's `key=value` form; UsageError, which quotes none of it, for anything else."""
    if not url.strip():
        raise UsageError("the database URL is empty: give one, or none at all for the embedded server")
    if url.startswith(("postgresql://", "postgres://")):
        user_info = url.partition("://")[2].rpartition("@")[0]
        # Not encoded, they end the password early, and its rest would show up as a host in messages.
        if re.search(r"[/@?#\[\]\s]", user_info):
            raise UsageError(
                "the user or password in the database URL holds a character that must be written as %XX "
                "(@ is %40, / is %2F, # is %23, ? is %3F)"
            )
    try:
        return dict(conninfo_to_dict(url))
    except psycopg.Error:
        # Not chained: libpq's message repeats the part that it could not read, which may be the password.
        raise UsageError(
            "the database URL cannot be read: it should look like postgresql://user:password@host:5432/name"
        ) from None


def _reason(error: psycopg.Error) -> str:
    """Give libpq's first line and what helps."""
    lines = str(error).strip().splitlines() or ["no reason given"]
    said = lines[0].removeprefix("connection failed: ")
    for pattern, hint in _HINTS:
        if re.search(pattern, said):
            return f"{said} ({hint})"
    return said

"""Connections to the database: the one that writes, and those that read.

A deployment is one database with one writer. The writer's session holds an advisory lock, which PostgreSQL
releases however the session ends, so a lock never goes stale. All sessions pin the settings that could change
a result: an administrator may have set others for the server, the database or the role.

Readers may connect through a pooler such as PgBouncer. Their transactions then run in several server
sessions, which other clients share: no setting may outlive its transaction, and nothing may be prepared.
"""

import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from virtualchain.errors import DatabaseUnavailable, NotPrimary, StoreError, UsageError, WriterBusy, quoted
from virtualchain.notices import Notice
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.failures import store_error
from virtualchain.store.fitness import advice_on, refuse_unsafe
from virtualchain.store.patience import Patience, Session
from virtualchain.store.sql import queries

_Q = queries("database")
OLDEST_SERVER = 15
_NAME_LIMIT = 63
"""Maximum length of an application name in PostgreSQL, in bytes."""
_CONNECT_TIMEOUT = 15
_ASKING_TIMEOUT = 2
"""Seconds until a server is taken to be away that is only asked whether it was promoted."""
_READING = ("reader",)
"""Kinds of sessions that a standby serves as well."""
_UNACKNOWLEDGED = 60_000
"""Milliseconds until a connection over which nothing arrives any more counts as lost."""
_CREATE = "CREATE DATABASE name ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
"""How to make a database for a deployment, whatever the server's locale."""
_POLL = 1.0
"""Seconds between two attempts to take the writer's lock."""
_HIDDEN_TRIES = 20
_SHOWN_TRIES = 5
_PAUSE = 0.1
"""How often, and how many seconds apart, to try again for a lock whose holder is not shown, or is."""

# Patterns in libpq's message for a failed connection, and advice. libpq reports no SQLSTATE for these.
_HINTS = (
    (
        r"could not (access|load)( file| library) .*|access to library",
        (
            "session_preload_libraries or local_preload_libraries names it: have a superuser install it, or "
            "RESET that setting for the server, database or role"
        ),
    ),
    (
        r"too many (connections|clients)|connection slots are reserved",
        "end other sessions, or raise CONNECTION LIMIT of the role or database, or max_connections",
    ),
    (r"definition of service", "it must be in pg_service.conf, or in the file that PGSERVICEFILE names"),
    (r"does not match host name", "use a name that the certificate has"),
    (r"root certificate file", "name the file of the authority that signed it with sslrootcert"),
    (
        r"certificate verify failed",
        "sslrootcert must name the authority that signed the server's",
    ),
    (r"channel binding", "it needs TLS and SCRAM on the server, and no pooler in between"),
    (
        r"conflict with recovery",
        (
            "a standby ends what keeps it from following its primary: run it again, or set "
            "hot_standby_feedback or max_standby_streaming_delay there"
        ),
    ),
    (
        r"session is read-only|server is in hot standby",
        "it is a standby: give the primary's address, or promote it",
    ),
    (
        r"transaction blocks not allowed in statement pooling mode",
        "use a pool in transaction or session mode",
    ),
    (r"authentication failed|no password supplied", "check the user and password"),
    (r'database ".*" does not exist', "create it first, with createdb"),
    (r'role ".*" does not exist', "check the user"),
    (r"no pg_hba.conf entry|pg_hba.conf rejects", "pg_hba.conf on the server must allow this connection"),
    (r"refused|No such file or directory|timeout expired|timed out", "is the server running there?"),
    (r"could not translate host name|resolve host|Name or service not known", "check the host name"),
)

_FINAL = (
    "authentication failed|no password supplied|does not exist|pg_hba.conf|not permitted to log in"
    "|permission denied for database|not currently accepting connections|SSL error|support SSL"
    "|SSL was required|certificate verify failed|invalid response|invalid port|unsupported frontend protocol"
    "|expected authentication request|received invalid|definition of service|does not match host name"
    "|root certificate file|channel binding|could not access file|could not load library|access to library"
)
"""Failures of a connection that no waiting ends, unlike those of a server that is not up yet."""


def resolve(database: str | None) -> str:
    """Return `database`, or by default the URL of the embedded server, which is started if needed.

    Raises UsageError if the URL is invalid or the embedded server is not installed, StoreError if that server
    does not start.
    """
    if database is None:
        return EmbeddedServer().start()
    _parameters(database)
    return database


def redact(url: str) -> str:
    """Return the URL for display: user, address and database name, without the password."""
    try:
        parameters = _parameters(url)
    except UsageError:
        return "postgresql://***"
    user, password, name, service = (
        str(parameters.get(key) or "") for key in ("user", "password", "dbname", "service")
    )
    hosts = str(parameters.get("host") or parameters.get("hostaddr") or "").split(",")
    ports = str(parameters.get("port") or "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    addresses = [_host(host) + (port and f":{port}") for host, port in zip(hosts, ports, strict=False)]
    secret = ":***" if password else ""
    login = f"{quote(user, safe='')}{secret}@" if user or password else ""
    of_service = f"?service={quote(service, safe='')}" if service else ""
    return f"postgresql://{login}{','.join(addresses)}/{quote(name, safe='')}{of_service}"


def _host(name: str) -> str:
    """Write a host's name, address, or folder of its socket as in a URL."""
    return f"[{name}]" if ":" in name else quote(name, safe="")


class Lineage:
    """The server that a writer has written to: after a failover, the one left behind is refused.

    Each promotion begins a new timeline of the same cluster, so the server with the lower one has missed it.
    A writer that has just started asks the other servers of its URL: see `_refuse_left_behind`.
    """

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None
        """The cluster's identifier, and its timeline."""

    def follow(self, connection: psycopg.Connection, url: str) -> None:
        """Take note of a primary; raise NotPrimary if this writer has written to its successor."""
        try:
            row = connection.execute(_Q["timeline"]).fetchone()
        except psycopg.DatabaseError as error:
            if error.sqlstate is None:
                raise
            return  # a service that does not tell: its operators do the failovers
        assert row is not None, "a server has a timeline"
        identifier, timeline = int(row[0]), int(row[1], 16)
        if self._last is not None and self._last[0] == identifier and timeline < self._last[1]:
            raise _missed_promotion(url, timeline, f"this writer has written on {self._last[1]}")
        self._last = identifier, timeline


def _missed_promotion(url: str, timeline: int, but: str) -> NotPrimary:
    return NotPrimary(
        f"{redact(url)} has missed that a standby was promoted (its timeline is {timeline}, and {but}): stop "
        "that server, and make it a standby"
    )


def connect_writer(
    url: str, *, wait: bool = False, patience: Patience | None = None, lineage: Lineage | None = None
) -> psycopg.Connection:
    """Open the deployment's only writing session: autocommit, settings pinned, lock held until it closes.

    The connection must be direct: behind a pooler the lock would protect nothing. If another session has the
    lock, raises WriterBusy, which names the holder, or waits for the lock if `wait` is true. Raises
    DatabaseUnavailable if the database cannot be reached now, NotPrimary if it is a standby, or not what
    `lineage` goes on with, StoreError if it cannot be used, or if `url` leads to a pooler.
    """
    connection = _connect(url, "writer", patience)
    with _closed_on_failure(connection, url):
        _prepare_writing(connection, url)
        connection.execute(_Q["append_blocks"])
        if lineage is not None:
            lineage.follow(connection, url)
        _take_lock(connection, wait=wait)
    return connection


def connect_builder(url: str, build: str) -> psycopg.Connection:
    """Open a session that makes a build beside the writer: set up like the writer's, with that build's lock.

    Raises WriterBusy if another session is making this build; otherwise like `connect_writer`.
    """
    connection = _connect(url, "builder")
    with _closed_on_failure(connection, url):
        _prepare_writing(connection, url)
        connection.execute(_Q["append_blocks"])
        for pause in [*_SHOWN_TRIES * [_PAUSE], None]:  # a session that has just closed may still have it
            row = connection.execute(_Q["build_lock"], {"build": build}).fetchone()
            if row and row[0]:
                break
            if pause is None:
                raise WriterBusy(f"another process is already making {build}: wait for it to finish")
            time.sleep(pause)
    return connection


def connect_foreseer(url: str) -> psycopg.Connection:
    """Open a session that judges what is not on the tape, and commits nothing: set up like the writer's.

    Raises what `connect_writer` raises, but never waits for a writer.
    """
    connection = _connect(url, "preview")
    with _closed_on_failure(connection, url):
        _prepare_writing(connection, url)
    return connection


def connect_deliverer(url: str, patience: Patience | None = None) -> psycopg.Connection:
    """Open a session that records how far webhooks are: autocommit, set up like the writer's.

    Raises what `connect_writer` raises, but never waits for a writer.
    """
    connection = _connect(url, "webhooks", patience)
    with _closed_on_failure(connection, url):
        _prepare_writing(connection, url)
    return connection


def connect_migrator(url: str, patience: Patience | None = None) -> psycopg.Connection:
    """Open a session that changes the schema: settings pinned like the writer's, without autocommit.

    Raises StoreError if the database cannot be reached or used, or if `url` leads to a pooler.
    """
    connection = _connect(url, "migration", patience)
    with _closed_on_failure(connection, url):
        _prepare_writing(connection, url)
        connection.autocommit = False
    return connection


def connect_reader(url: str, patience: Patience | None = None) -> psycopg.Connection:
    """Open a session whose transactions are read-only: autocommit, settings pinned like the writer's.

    Behind a pooler nothing is set, because settings would outlive this connection: callers that need them use
    `pin_transaction` in each transaction. Raises StoreError if the database cannot be reached or used.
    """
    connection = _connect(url, "reader", patience)
    with _closed_on_failure(connection, url):
        if is_pooled(connection):
            connection.prepare_threshold = None
        else:
            _pin(connection, is_local=False)
            connection.execute(_Q["pin_read_only"])
    return connection


def _prepare_writing(connection: psycopg.Connection, url: str) -> None:
    """Set up a session whose writes determine digests; raise StoreError if they could go wrong."""
    _refuse_pooler(connection, url)
    _pin(connection, is_local=False)
    connection.execute(_Q["pin_keepalives"])
    connection.execute(_Q["pin_writing"])
    _refuse_standby(connection, url)
    _refuse_left_behind(connection, url)
    refuse_unsafe(connection, redact(url))


def pin_transaction(connection: psycopg.Connection) -> None:
    """Pin what `connect_reader` pins, until the transaction ends."""
    _pin(connection, is_local=True)


def _pin(connection: psycopg.Connection, *, is_local: bool) -> None:
    connection.execute(_Q["pin_settings"], {"is_local": is_local})


def _connect(url: str, kind: str, patience: Patience | None = None) -> Session:
    """Open a session, and check that the database is suitable."""
    parameters = _parameters(url)
    try:
        connection = Session.connect(
            url,
            autocommit=True,
            application_name=_session_name(kind),
            client_encoding="UTF8",
            connect_timeout=parameters.get("connect_timeout") or _CONNECT_TIMEOUT,
            keepalives=1,
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
            tcp_user_timeout=parameters.get("tcp_user_timeout") or _UNACKNOWLEDGED,
            target_session_attrs=_target(parameters, kind),
        )
    except psycopg.Error as error:
        is_final = re.search(_FINAL, str(error)) is not None
        raise (StoreError if is_final else DatabaseUnavailable)(
            f"the database {redact(url)} cannot be opened: {_reason(error)}"
        ) from error
    connection.patience, connection.database = patience, f"the database {redact(url)}"
    with _closed_on_failure(connection, url):
        _refuse_unfit(connection, url)
    return connection


def _target(parameters: Mapping[str, str | int | None], kind: str) -> str | int | None:
    """Return which of several servers is wanted: to write, the primary, unless the user says another one."""
    is_choice = "," in str(parameters.get("host") or parameters.get("hostaddr") or "")
    default = "primary" if is_choice and kind not in _READING else None
    return parameters.get("target_session_attrs") or os.environ.get("PGTARGETSESSIONATTRS") or default


@contextmanager
def _closed_on_failure(connection: psycopg.Connection, url: str) -> Iterator[None]:
    """Close the session if setting it up fails."""
    try:
        yield
    except psycopg.Error as error:
        connection.close()
        kind = type(store_error(error))
        raise kind(f"the database {redact(url)} cannot be used: {_reason(error)}") from error
    except BaseException:
        connection.close()
        raise


def _refuse_unfit(connection: psycopg.Connection, url: str) -> None:
    """Refuse a server that is too old, or a database that is not encoded in UTF-8."""
    version = connection.info.server_version // 10_000
    if version < OLDEST_SERVER:
        raise StoreError(
            f"{redact(url)} is PostgreSQL {version}, and virtualchain needs {OLDEST_SERVER} or later"
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreError(f"the database {redact(url)} is encoded in {encoding}: create one with {_CREATE}")


def other_locale(connection: psycopg.Connection) -> str | None:
    """Return the database's locale if it is not C, else None.

    In another locale the order of text and of jsonb keys, `lower()` and regular expressions may differ
    between servers.
    """
    row = connection.execute(_Q["locale"]).fetchone()
    assert row is not None, "the session has a database"
    locale, is_c = row
    return None if is_c else str(locale)


def require_c_locale(connection: psycopg.Connection, url: str) -> None:
    """Raise StoreError, which says how to make a database, if this one's locale is not C."""
    locale = other_locale(connection)
    if locale is not None:
        raise StoreError(
            f"the database {redact(url)} has another locale than C ({locale}), so its apps could differ from "
            f"those of other nodes: create one with {_CREATE}"
        )


def advice(url: str, error: psycopg.Error) -> str:
    """Return what to do about a change that the database at `url` refused; empty if that is not known."""
    if error.sqlstate is not None:
        with suppress(StoreError, psycopg.Error), closing(connect_reader(url)) as connection:
            return advice_on(connection, error)
    return ""


def require_space(connection: psycopg.Connection) -> None:
    """Raise psycopg.Error if the server's disk does not hold a few more megabytes."""
    with connection.transaction():
        connection.execute(_Q["probe_space"])


def is_pooled(connection: psycopg.Connection) -> bool:
    """Return whether a pooler is in between: then the server process is not the one that was announced."""
    row = connection.execute(_Q["server_process"]).fetchone()
    return row is None or row[0] != connection.info.backend_pid


def _refuse_pooler(connection: psycopg.Connection, url: str) -> None:
    """Refuse a pooled connection: other clients would share the writer's lock and settings."""
    if is_pooled(connection):
        raise StoreError(
            f"{redact(url)} is a connection pooler, which only readers may use: "
            "to write, give the address of the PostgreSQL server itself"
        )


def _refuse_standby(connection: psycopg.Connection, url: str) -> None:
    """Refuse a hot standby, which accepts no writes."""
    if connection.info.parameter_status("in_hot_standby") == "on":
        raise NotPrimary(
            f"{redact(url)} is a standby, which is read-only: give the primary server's URL, or promote it"
        )


def _refuse_left_behind(connection: psycopg.Connection, url: str) -> None:
    """Refuse a primary if another server that the URL names has seen a promotion which this one has missed.

    Servers that do not answer, or do not tell, are believed to have seen none.
    """
    for other in _other_servers(connection, url):
        ours = theirs = None
        with suppress(psycopg.Error, StoreError), closing(_connect(other, "reader")) as session:
            ours, theirs = (each.execute(_Q["reached"]).fetchone() for each in (connection, session))
        if ours is not None and theirs is not None and ours[0] == theirs[0] and ours[1] < theirs[1]:
            raise _missed_promotion(url, ours[1], f"{redact(other)} is on {theirs[1]}")


def _other_servers(connection: psycopg.Connection, url: str) -> Iterator[str]:
    """Yield how to connect to each server that a URL names, but for the one of a session."""
    by_name = {name: str(value).split(",") for name, value in _parameters(url).items() if value}
    lists = {name: by_name[name] for name in ("host", "hostaddr", "port") if name in by_name}
    info = connection.info
    here = {"host": info.host, "hostaddr": info.hostaddr, "port": str(info.port)}
    for place in range(max((len(each) for name, each in lists.items() if name != "port"), default=0)):
        server = {name: each[place if len(each) > 1 else 0] for name, each in lists.items()}
        if any(value and here[name] != value for name, value in server.items()):
            yield make_conninfo(url, **server, target_session_attrs="any", connect_timeout=_ASKING_TIMEOUT)


def _take_lock(connection: Session, *, wait: bool) -> None:
    """Take the writer's lock; if `wait` is true, report each holder that is waited for.

    Waiting means polling: a statement that blocks for hours would keep VACUUM from removing dead rows. A
    holder that has just closed its session may still be shown for a moment, and one that is not shown has
    most likely ended in between, so the lock is tried for a few times more.
    """
    tries, reported = 0, ""
    while not _try_lock(connection):
        holder = _holder(connection)
        tries += 1
        if tries > (_HIDDEN_TRIES if holder is None else _SHOWN_TRIES):
            busy = f"another writer is at work on this database: {holder or 'a session that is not shown'}"
            if not (wait and connection.may_continue()):
                raise WriterBusy(f"{busy}; stop it, or wait until it ends (`sync`, `run` and others: --wait)")
            if busy != reported:
                message = f"{busy}; waiting for it to end"
                connection.report(Notice(message, "waiting_for_writer"))
                reported = busy
        time.sleep(_POLL if reported else _PAUSE)


def _holder(connection: psycopg.Connection) -> str | None:
    """Describe who holds the writer's lock; None if nobody is shown."""
    row = connection.execute(_Q["advisory_lock_holder"]).fetchone()
    if row is None:
        return None
    name, pid, address, prepared = row
    if pid is None:
        return f"the prepared transaction {quoted(prepared)}, which ROLLBACK PREPARED ends"
    origin = f" from {address}" if address else ""
    return f"{name or 'an unknown program'} (server process {pid}{origin})"


def _try_lock(connection: psycopg.Connection) -> bool:
    row = connection.execute(_Q["advisory_lock"]).fetchone()
    return bool(row and row[0])


def _session_name(kind: str) -> str:
    """Name a session by host and process; a long host name is cut, so that the process number remains."""
    before, after = f"virtualchain {kind} ", f":{os.getpid()}"
    host = socket.gethostname().encode("ascii", "replace").decode("ascii")
    return f"{before}{host[: _NAME_LIMIT - len(before) - len(after)]}{after}"


def _parameters(url: str) -> dict[str, str | int | None]:
    """Parse a URL or libpq's `key=value` form.

    Raises UsageError if it is neither. The message quotes no part of it, as any part may be the password.
    """
    if not url.strip():
        raise UsageError("the database URL is empty: give one, or leave it unset to use the embedded server")
    if url.startswith(("postgresql://", "postgres://")):
        rest = url.partition("://")[2]
        authority, _, query = rest.partition("?")
        # A parameter may have an @, as the name of an abstract socket does.
        user_info = (authority if re.match("[a-z_]+=", query) else rest).rpartition("@")[0]
        # Unencoded, these characters end the password early, and messages would show the rest as a host.
        if re.search(r"[/@?#\[\]\s]", user_info):
            raise UsageError(
                "the user or password in the database URL contains a character that must be written as %XX "
                "(@ is %40, / is %2F, # is %23, ? is %3F)"
            )
    try:
        return dict(conninfo_to_dict(url))
    except psycopg.Error:
        # Not chained: libpq's message quotes the part that it could not parse, which may be the password.
        raise UsageError(
            "the database URL cannot be read: it should look like postgresql://user:password@host:5432/name"
        ) from None


def _reason(error: psycopg.Error) -> str:
    """Return the first line of libpq's message, with a hint if there is one."""
    lines = str(error).strip().splitlines() or ["no reason given"]
    message = lines[0].removeprefix("connection failed: ")
    return f"{message}{hint(message)}"


def hint(message: str) -> str:
    """Return what to do about a server's or a pooler's message, in parentheses; empty if there is nothing."""
    known = (advice for pattern, advice in _HINTS if re.search(pattern, message))
    return next((f" ({advice})" for advice in known), "")

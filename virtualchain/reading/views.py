"""Query the views of a deployment; rows are plain dicts, keyed by the views' columns.

Nothing here writes. One `snapshot` is one transaction and shows the database at one moment, whatever a writer
does.
"""

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import psycopg
from psycopg import pq, sql
from psycopg.rows import dict_row, tuple_row
from psycopg.types.json import set_json_loads
from psycopg.types.string import TextLoader

from virtualchain.errors import StoreError, UsageError
from virtualchain.model import Digests, Json
from virtualchain.store.database import connect_reader, hint, pin_transaction, redact
from virtualchain.store.failures import is_transient, store_error
from virtualchain.store.revision import refuse_other
from virtualchain.store.sql import queries

_Q = queries("views")
HIGHEST = 2**31 - 1
"""The highest block id: the database stores them as integers."""
_STATUS_KEYS = ("name", "version", "block_id", "block_hash", "consensus_hash", "state_hash")
_CHUNK = 1000
"""Rows fetched at once."""
_AS_TEXT = ("date", "time", "timetz", "timestamp", "timestamptz", "interval")
"""Types with values that Python cannot represent, such as infinity: returned as the database writes them."""

NOT_SHOWN = "VC004"
"""SQLSTATE of a view that cannot show its rows as of a block."""
OLD_SNAPSHOT = "VC007"
"""SQLSTATE of a view that shows a build which the transaction cannot see."""
_GONE = ("42P01", "3F000")
"""SQLSTATEs of tables and schemas that do not exist; those of builds have two underscores in their names."""


class BlockNotShown(UsageError):
    """The block that the views were asked to show cannot be shown; the message says which can."""


class QueryRejected(UsageError):
    """The database rejects a user's statement."""

    def __init__(self, message: str, position: int | None) -> None:
        """Keep the message, and the place of the mistake: a character of the statement, from 1."""
        super().__init__(message)
        self.position = position


class QueryTooSlow(StoreError):
    """A user's statement was canceled, because it took too long."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which ops or rejections to return; a field that is None does not limit them."""

    apps: Sequence[str] | None = None
    first: int = 0
    last: int = HIGHEST
    opcode: bytes | None = None
    only_spends: bool = False
    """Only those without a payload; of a rejection that is not known, so there it is without an opcode."""
    txid: str | None = None
    limit: int | None = None
    newest_first: bool = False


@contextmanager
def snapshot(url: str, *, of_any_revision: bool = False) -> Iterator[psycopg.Connection]:
    """Open a read-only transaction on a deployment, and end it.

    Raises StoreError if the database cannot be read or holds no deployment, or if its schema is not the one
    that this version of the code reads; `of_any_revision` leaves that to a caller who migrates it next.
    """
    connection = connect_reader(url)
    try:
        set_up(connection)
        pin_transaction(connection)
        if not _value(connection, "has_views"):
            raise StoreError(
                f"{redact(url)} holds nothing of virtualchain's yet: "
                "run `virtualchain migrate`, or `virtualchain sync` with an app"
            )
        if not of_any_revision:
            refuse_other(connection)
        yield connection
    except psycopg.Error as error:
        if error.sqlstate is None and not is_transient(error):
            raise  # the driver was misused, which is a bug
        raise failure(connection, url, error) from error
    finally:
        # A pooler discards a server connection that is returned in the middle of a transaction.
        with suppress(psycopg.Error):
            connection.rollback()
        connection.close()


def set_up(connection: psycopg.Connection) -> None:
    """Let each transaction of a reader's session see the database at one moment, and write nothing."""
    for name in _AS_TEXT:
        connection.adapters.register_loader(name, TextLoader)
    connection.autocommit = False
    connection.read_only = True
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ


def failure(connection: psycopg.Connection, url: str, error: psycopg.Error) -> StoreError:
    """Describe a failure while reading; for a right that is missing, with the command that grants it."""
    if error.sqlstate in _GONE and "__" in str(error.diag.message_primary):
        return StoreError(
            "the tables that were being read belong to a build that was replaced or dropped meanwhile: "
            "run it again"
        )
    kind = type(store_error(error))
    message = _one_line(error, is_ours=True)  # a place in our own statement helps nobody
    advice = _missing_grant(connection, error) or hint(message)
    return kind(f"the database {redact(url)} failed: {message}{advice}")


def network(connection: psycopg.Connection) -> str | None:
    """Return the name of the network that the deployment follows; None before its first start."""
    name: str | None = _value(connection, "network")
    return name


def inputs_pruned_below(connection: psycopg.Connection) -> int | None:
    """Return the block below which `prune` dropped transactions of inputs; None if it did not."""
    block_id: int | None = _value(connection, "inputs_pruned_below")
    return block_id


def pins(connection: psycopg.Connection) -> list[Json]:
    """Return the blocks that the followed chain must hold: block_id, hash."""
    return _dicts(connection, "pins", {})


def builds(connection: psycopg.Connection) -> list[Json]:
    """Return every build of every app: app, build, block_id, is_live, version, status."""
    return _dicts(connection, "builds", {})


def writer(connection: psycopg.Connection) -> str | None:
    """Name the session that writes to this deployment; None if there is none."""
    row = connection.execute(queries("database")["advisory_lock_holder"]).fetchone()
    return None if row is None else row[0] or f"server process {row[1]}"


def last_start(connection: psycopg.Connection) -> Json | None:
    """Return how the writer was started last, and what it reported last; None if it never was.

    Keys: confirmations, apps, started_at, seen_at, age, node_block_id, node_hash, waits_for, version,
    stopped_at. The times are ISO 8601; age is the seconds since seen_at.
    """
    rows = _dicts(connection, "writer", {})
    return rows[0] if rows else None


def app_status(row: Json, tip: int | None) -> Json:
    """Return what `status` says of an app, from its row of `apps` and the height of the node's tip."""
    return {
        **{key: row[key] for key in _STATUS_KEYS},
        "lag": lag(row, tip),
        "role": row["role"],
        "status": row["status"],
        "error": row["error"],
        "unexpected": row["unexpected"],
    }


def lag(row: Json, tip: int | None) -> int | None:
    """Count the blocks between an app and the node's tip, including unconfirmed ones.

    None if the tip's height is not known, or is below the app's first block.
    """
    first = int(row["first_block_id"])
    if tip is None or (row["block_id"] is None and first > tip):
        return None
    reached = first - 1 if row["block_id"] is None else int(row["block_id"])
    return max(tip - reached, 0)


def writer_report(last: Json | None) -> Json | None:
    """Return what `last_start` knows of the writer's report, as `status` has it in JSON.

    None if no writer that reports has started.
    """
    if last is None or last["seen_at"] is None:
        return None
    tip = {"block_id": last["node_block_id"], "hash": last["node_hash"]}
    return {
        **{key: last[key] for key in ("started_at", "seen_at", "age", "waits_for", "version", "stopped_at")},
        "node": None if last["node_block_id"] is None else tip,
    }


def is_standby(connection: psycopg.Connection) -> bool:
    """Return whether the server is a standby: then `writer` knows nothing, as locks are its primary's."""
    return bool(_value(connection, "is_standby"))


def last_reorg(connection: psycopg.Connection) -> Json | None:
    """Return the last rollback, with the columns of `virtualchain.reorgs`; None if there was none."""
    rows = _dicts(connection, "last_reorg", {})
    return rows[0] if rows else None


def apps(connection: psycopg.Connection, names: Sequence[str] | None = None) -> list[Json]:
    """Return all apps, or those named, by name, with their last block and status.

    Keys: name, version, schema, first_block_id, block_id, block_hash, consensus_hash, state_hash, role,
    status, error, code_changed. Those of the block are None before an app's first block; role is None if its
    reducers run as the engine's role. Raises UsageError for a name that no app has.
    """
    rows = _dicts(connection, "apps", {"apps": _list(names)})
    missing = sorted(set(names or ()) - {row["name"] for row in rows})
    if missing:
        existing = ", ".join(row["name"] for row in apps(connection)) or "no app at all"
        raise UsageError(f"this database has no app {missing[0]}; it has {existing}")
    return rows


def digests(
    connection: psycopg.Connection, block_id: int | None = None, names: Sequence[str] | None = None
) -> list[Json]:
    """Return the digests of all apps, or of those named, at a block, by default at each app's last one.

    Keys: name, block_id, block_hash, ops_hash, consensus_hash, state_hash. Apps that do not have the block
    are left out.
    """
    if block_id is None:
        return _dicts(connection, "latest_digests", {"apps": _list(names)})
    return _dicts(connection, "digests", {"apps": _list(names), "block_id": block_id})


def digests_at(connection: psycopg.Connection, app: str, blocks: Sequence[int]) -> list[Digests]:
    """Return an app's digests at those of some blocks that have them, in order."""
    rows = _dicts(connection, "digests_at", {"app": app, "blocks": list(blocks)})
    return [Digests(**row) for row in rows]


def ops(connection: psycopg.Connection, selection: Selection) -> Iterator[Json]:
    """Yield ops in chain order, with the columns of `virtualchain.ops`."""
    return _select(connection, "ops", selection)


def rejections(connection: psycopg.Connection, selection: Selection) -> Iterator[Json]:
    """Yield rejections in chain order, with the columns of `virtualchain.rejections`."""
    return _select(connection, "rejections", selection)


def search_path(connection: psycopg.Connection) -> str:
    """Resolve unqualified names to the apps' views, then to schema `virtualchain`; return that path."""
    path: str = _value(connection, "search_path")
    return path


def powers(connection: psycopg.Connection) -> str | None:
    """Describe what lets the user touch the server's files or programs, which no transaction prevents."""
    power: str | None = _value(connection, "powers")
    return power


def reader(connection: psycopg.Connection) -> str | None:
    """Return a role that the user may become and that can only read; None if there is none."""
    try:
        with connection.transaction():
            role: str | None = _value(connection, "reader")
    except psycopg.errors.InsufficientPrivilege:  # the user is a reader
        return None
    return role


def exact_json(connection: psycopg.Connection) -> None:
    """Have the session read fractions in JSON as Decimals, which keep all digits: 1.0 is not 1.00."""
    set_json_loads(partial(json.loads, parse_float=Decimal), connection)


def query(
    connection: psycopg.Connection,
    statement: str,
    *,
    as_of: str | None = None,
    timeout: float | None = None,
    role: str | None = None,
) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """Run one statement of a user; return the names of the columns, and the rows.

    Unqualified names resolve to the apps' views, then to schema `virtualchain`; `as_of` is the block, by
    height or hash, that the views show; with `role` the statement has the rights of that role. Raises
    UsageError with the database's message if it rejects the statement, StoreError if that takes more than
    `timeout` seconds (None: no limit). Fractions in JSON are Decimals.
    """
    _prepare(connection, as_of, timeout, role)
    cursor = psycopg.RawCursor(connection, row_factory=tuple_row)
    with _rejected(connection, timeout, role):
        # With a parameter, even an unused one, the server accepts only a single statement. So it does when
        # preparing one, but a prepared statement would remain in a pooler's session.
        cursor.execute(statement.encode(), [True], prepare=False)
    return _names(cursor), iter(cursor if cursor.description else ())


@contextmanager
def stream(
    connection: psycopg.Connection, statement: str, *, as_of: str | None, timeout: float
) -> Iterator[tuple[list[str], list[str], Iterator[tuple[Any, ...]]]]:
    """Run one statement of a user as `query` does, but hold no more than a few rows of its result.

    Yields the names of the columns, their types, and the rows, which are read inside of the block only.
    Raises the same errors as `query`, also while rows are read.
    """
    _prepare(connection, as_of, timeout, None)
    cursor = psycopg.RawCursor(connection, row_factory=tuple_row)
    with _rejected(connection, timeout, None):
        names, types = _describe(connection, statement.encode())
        if not names:
            cursor.execute(statement.encode(), [True], prepare=False)
    if not names:
        yield names, types, iter(())
        return
    rows: Any = cursor.stream(statement.encode(), [True])  # a generator, which cancels the rest when closed

    def explained() -> Iterator[tuple[Any, ...]]:
        with _rejected(connection, timeout, None):
            yield from rows

    with closing(rows):
        yield names, types, explained()


def _describe(connection: psycopg.Connection, statement: bytes) -> tuple[list[str], list[str]]:
    """Return the names and types of the columns of a statement, by the unnamed prepared statement."""
    protocol = connection.pgconn
    result = protocol.prepare(b"", statement)
    if result.status == pq.ExecStatus.COMMAND_OK:
        result = protocol.describe_prepared(b"")
    if result.status != pq.ExecStatus.COMMAND_OK:
        raise psycopg.errors.error_from_result(result)
    columns = [
        ((result.fname(place) or b"").decode(), result.ftype(place)) for place in range(result.nfields)
    ]
    types = [(connection.adapters.types.get(oid), oid) for _, oid in columns]
    return [name for name, _ in columns], [
        "other" if kind is None else f"{kind.name}[]" if kind.array_oid == oid else kind.name
        for kind, oid in types
    ]


def _prepare(
    connection: psycopg.Connection, as_of: str | None, timeout: float | None, role: str | None
) -> None:
    """Set what a user's statement sees, until the transaction ends."""
    search_path(connection)
    exact_json(connection)
    limit(connection, as_of, timeout)
    if role is not None:
        connection.execute(_Q["become"], {"role": role})


def _names(cursor: psycopg.RawCursor[Any]) -> list[str]:
    return [column.name for column in cursor.description or ()]


@contextmanager
def _rejected(connection: psycopg.Connection, timeout: float | None, role: str | None) -> Iterator[None]:
    """Raise what the database says of a user's statement as an error of who wrote it."""
    started = time.monotonic()
    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        if timeout is None or time.monotonic() - started < timeout:
            raise
        raise QueryTooSlow(
            f"the query was canceled because it took more than {timeout:g} seconds: narrow it, or raise "
            "--timeout SECONDS (0: no limit)"
        ) from error
    except psycopg.Error as error:
        if is_transient(error) or error.sqlstate == OLD_SNAPSHOT:
            raise
        denied = role is not None and isinstance(error, psycopg.errors.InsufficientPrivilege)
        hint = f" (it ran as the reader {role}: --own-rights runs it as the URL's user)" if denied else ""
        grant = hint or _missing_grant(connection, error)
        position = error.diag.statement_position
        raise QueryRejected(
            f"the database rejects this query: {_one_line(error)}{grant}",
            int(position) if position else None,
        ) from error
    except UnicodeEncodeError as error:
        raise UsageError("the query cannot be encoded as UTF-8") from error


def show_block(connection: psycopg.Connection, as_of: str) -> None:
    """Have the views show their rows as of a block, by height or hash, until the transaction ends."""
    connection.execute(_Q["as_of"], {"as_of": as_of})


def complaint(error: psycopg.Error) -> str:
    """Format an error of a view that cannot show a block: message and hint."""
    return _one_line(error, is_ours=True).removeprefix("virtualchain.as_of: ")


def limit(connection: psycopg.Connection, as_of: str | None, timeout: float | None) -> None:
    """Set the block that a statement sees, and how long it may take, until the transaction ends."""
    if as_of is not None:
        show_block(connection, as_of)
    if timeout is not None:
        connection.execute(_Q["timeout"], {"milliseconds": str(int(timeout * 1000))})


def _select(connection: psycopg.Connection, name: str, selection: Selection) -> Iterator[Json]:
    direction = sql.SQL("DESC" if selection.newest_first else "ASC")
    statement = sql.SQL(_Q[name]).format(direction=direction)
    parameters = {
        "apps": _list(selection.apps),
        "first": selection.first,
        "last": selection.last,
        "opcode": b"" if selection.only_spends else selection.opcode,
        "only_spends": selection.only_spends,
        "txid": selection.txid,
        "limit": selection.limit,
    }
    # A server-side cursor, because the log may not fit into memory.
    with connection.cursor("log", row_factory=dict_row) as cursor:
        cursor.itersize = _CHUNK
        yield from cursor.execute(statement, parameters)


def _dicts(connection: psycopg.Connection, name: str, parameters: Json) -> list[Json]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_Q[name], parameters).fetchall()


def _value(connection: psycopg.Connection, name: str) -> Any:  # noqa: ANN401 - whatever the query returns
    row = connection.execute(_Q[name]).fetchone()
    return None if row is None else row[0]


def _list(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)


def _missing_grant(connection: psycopg.Connection, error: psycopg.Error) -> str:
    """Name the grant that a reader is missing, if that is the error; the log itself is not granted to any."""
    message = error.diag.message_primary or ""
    if not isinstance(error, psycopg.errors.InsufficientPrivilege) or re.search(r"\bvc\b", message):
        return ""
    return f"; `virtualchain db grant-reader {connection.info.user}`, run as the database's owner, grants it"


def _one_line(error: psycopg.Error, *, is_ours: bool = False) -> str:
    """Format an error of the database in one line: message, position in the statement, and hint."""
    primary, position, hint = (
        error.diag.message_primary,
        error.diag.statement_position,
        error.diag.message_hint,
    )
    if primary is None:
        return " ".join(str(error).split())
    at = f" (at character {position})" if position and not is_ours else ""
    return f"{primary}{at}" + (f". {hint}" if hint else "")

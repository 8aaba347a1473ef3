"""What the log says, for people and programs: plain dicts, keyed by the columns of the views.

Everything here only reads. One `snapshot` is one transaction and shows the database as of one moment,
whatever a writer does meanwhile.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row, tuple_row
from psycopg.types.string import TextLoader

from virtualchain.errors import StoreError, UsageError
from virtualchain.model import Json
from virtualchain.store.database import connect_reader, pin_transaction, redact
from virtualchain.store.failures import is_passing
from virtualchain.store.sql import queries

_Q = queries("reading")
HIGHEST = 2**31 - 1
"""No block id is above this: the database keeps them as integers."""
_CHUNK = 1000
"""Rows that are fetched at once."""
_AS_TEXT = ("date", "time", "timetz", "timestamp", "timestamptz", "interval")
"""Types with values that Python cannot hold, such as infinity: given as the database writes them."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which ops or rejections to give; what is None does not narrow it."""

    apps: Sequence[str] | None = None
    first: int = 0
    last: int = HIGHEST
    opcode: bytes | None = None
    txid: str | None = None
    limit: int | None = None
    newest_first: bool = False


@contextmanager
def snapshot(url: str) -> Iterator[psycopg.Connection]:
    """Open a read-only transaction on a deployment, and end it.

    Raises StoreError where the database cannot be read or holds no deployment.
    """
    connection = connect_reader(url)
    for name in _AS_TEXT:
        connection.adapters.register_loader(name, TextLoader)
    try:
        connection.autocommit = False
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        pin_transaction(connection)
        if not _value(connection, "has_views"):
            raise StoreError(
                f"{redact(url)} holds nothing of virtualchain's yet: "
                "run `virtualchain migrate`, or `virtualchain sync` with an app"
            )
        yield connection
    except psycopg.Error as error:
        if error.sqlstate is None and not isinstance(error, psycopg.OperationalError):
            raise  # the driver's complaint about us
        raise StoreError(f"the database {redact(url)} failed: {_told(error)}") from error
    finally:
        # A pooler throws away what is left in the midst of a transaction.
        with suppress(psycopg.Error):
            connection.rollback()
        connection.close()


def network(connection: psycopg.Connection) -> str | None:
    """Give the name of the network that the deployment follows; None before its first start."""
    name: str | None = _value(connection, "network")
    return name


def pins(connection: psycopg.Connection) -> list[Json]:
    """Give the blocks that the followed chain must hold: block_id, hash."""
    return _dicts(connection, "pins", {})


def builds(connection: psycopg.Connection) -> list[Json]:
    """Give every build of every app: app, build, block_id, is_live, version, status."""
    return _dicts(connection, "builds", {})


def writer(connection: psycopg.Connection) -> str | None:
    """Name the session that writes to this deployment; None where there is none."""
    row = connection.execute(queries("database")["advisory_lock_holder"]).fetchone()
    return None if row is None else row[0] or f"server process {row[1]}"


def last_reorg(connection: psycopg.Connection) -> Json | None:
    """Give the last rollback, as `virtualchain.reorgs` has it; None where there was none."""
    found = _dicts(connection, "last_reorg", {})
    return found[0] if found else None


def apps(connection: psycopg.Connection, names: Sequence[str] | None = None) -> list[Json]:
    """Give all apps, or those named, by name: where each of them stands, how it fares, and why.

    Keys: name, version, schema, first_block_id, block_id, block_hash, consensus_hash, state_hash, role,
    status, error; those of the block are None before an app's first, role where its reducers run as the
    engine. Raises UsageError for a name that none has.
    """
    found = _dicts(connection, "apps", {"apps": _list(names)})
    missing = sorted(set(names or ()) - {row["name"] for row in found})
    if missing:
        there = ", ".join(row["name"] for row in apps(connection)) or "no app at all"
        raise UsageError(f"this database has no app {missing[0]}; it has {there}")
    return found


def digests(
    connection: psycopg.Connection, block_id: int | None = None, names: Sequence[str] | None = None
) -> list[Json]:
    """Give the digests of all apps, or of those named, at a block, or at each app's own last one.

    Keys: name, block_id, block_hash, ops_hash, consensus_hash, state_hash. Apps without it are left out.
    """
    if block_id is None:
        return _dicts(connection, "latest_digests", {"apps": _list(names)})
    return _dicts(connection, "digests", {"apps": _list(names), "block_id": block_id})


def ops(connection: psycopg.Connection, selection: Selection) -> Iterator[Json]:
    """Give accepted inputs in chain order, as `virtualchain.ops` has them."""
    return _select(connection, "ops", selection)


def rejections(connection: psycopg.Connection, selection: Selection) -> Iterator[Json]:
    """Give refused candidates in chain order, as `virtualchain.rejections` has them."""
    return _select(connection, "rejections", selection)


def search_path(connection: psycopg.Connection) -> str:
    """Let unqualified names mean the apps' views, then those of schema `virtualchain`; give that path."""
    path: str = _value(connection, "search_path")
    return path


def query(
    connection: psycopg.Connection, statement: str, *, as_of: str | None = None, timeout: float | None = None
) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """Run one statement of the user's; give the names of the columns, and the rows.

    Unqualified names mean the apps' views, then those of schema `virtualchain`; `as_of` is the block, by
    height or hash, that they show. Raises UsageError with the database's message where it refuses the
    statement, StoreError where that takes more than `timeout` seconds (None: any time).
    """
    search_path(connection)
    _limit(connection, as_of, timeout)
    started = time.monotonic()
    cursor = psycopg.RawCursor(connection, row_factory=tuple_row)
    try:
        # A parameter, though unused, has the server take one statement and no more. Preparing it would do so,
        # too, but what is prepared stays behind in a pooler's session.
        cursor.execute(statement.encode(), [True], prepare=False)
    except psycopg.errors.QueryCanceled as error:
        if timeout is None or time.monotonic() - started < timeout:
            raise
        raise StoreError(
            f"the query was ended, as it took more than {timeout:g} seconds: ask for less, or give it more "
            "time with --timeout SECONDS (0: any)"
        ) from error
    except psycopg.Error as error:
        if is_passing(error):
            raise
        raise UsageError(f"the database refuses this: {_told(error)}") from error
    except UnicodeEncodeError as error:
        raise UsageError("the query is not text that can be sent as UTF-8") from error
    if cursor.description is None:
        return [], iter(())
    return [column.name for column in cursor.description], iter(cursor)


def _limit(connection: psycopg.Connection, as_of: str | None, timeout: float | None) -> None:
    """Set what a user's statement is to see, and how long it may take, until the transaction ends."""
    if as_of is not None:
        connection.execute(_Q["as_of"], {"as_of": as_of})
    if timeout is not None:
        connection.execute(_Q["timeout"], {"milliseconds": str(int(timeout * 1000))})


def _select(connection: psycopg.Connection, name: str, selection: Selection) -> Iterator[Json]:
    direction = sql.SQL("DESC" if selection.newest_first else "ASC")
    statement = sql.SQL(_Q[name]).format(direction=direction)
    wanted = {
        "apps": _list(selection.apps),
        "first": selection.first,
        "last": selection.last,
        "opcode": selection.opcode,
        "txid": selection.txid,
        "limit": selection.limit,
    }
    # A cursor on the server: the log may be longer than memory is.
    with connection.cursor("log", row_factory=dict_row) as cursor:
        cursor.itersize = _CHUNK
        yield from cursor.execute(statement, wanted)


def _dicts(connection: psycopg.Connection, name: str, wanted: Json) -> list[Json]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_Q[name], wanted).fetchall()


def _value(connection: psycopg.Connection, name: str) -> Any:  # noqa: ANN401 - whatever the query gives
    row = connection.execute(_Q[name]).fetchone()
    return None if row is None else row[0]


def _list(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)


def _told(error: psycopg.Error) -> str:
    """Put the database's complaint into one line: what is wrong, where in the statement, and its hint."""
    primary, position, hint = (
        error.diag.message_primary,
        error.diag.statement_position,
        error.diag.message_hint,
    )
    if primary is None:
        return " ".join(str(error).split())
    place = f" (at character {position})" if position else ""
    return f"{primary}{place}" + (f". {hint}" if hint else "")

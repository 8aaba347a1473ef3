"""The server's sessions: few, read-only, and each statement of bounded time."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Self

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from virtualchain.errors import DatabaseUnavailable, StoreError
from virtualchain.reading import views
from virtualchain.store.database import connect_reader, is_pooled, pin_transaction
from virtualchain.store.failures import is_transient
from virtualchain.store.revision import refuse_other
from virtualchain.store.sql import queries
from virtualchain.web.login import reader_url

_LOG: Final = logging.getLogger(__name__)
_Q = queries("web")
SESSIONS: Final = 8
"""The most sessions for pages and API; the SQL box and each watch have their own."""
_WAITING: Final = 64
_WAIT: Final = 3.0
"""Requests that may wait for a session, and seconds for which they do."""
TIMEOUT: Final = 5.0
"""Seconds that a statement may take."""
_UNCHECKED: Final = 1.0
"""Seconds after its last use in which a session is not checked before it is used again."""
_LOST: Final = ("42501", "42P01", "3F000")
"""SQLSTATEs of rights, tables and schemas that are gone, as when a database is dropped and made again."""
_CONFLICT: Final = ("40001", "40P01")
"""SQLSTATEs of what a standby ends because it conflicts with what it replays; readers meet no others."""
_RETRY: Final = 2.0
"""Seconds after which a database that could not be reached is tried again."""


class Busy(StoreError):
    """Too many requests at once: the same request may succeed later."""


class TooSlow(StoreError):
    """A statement was canceled because it took too long."""


class Interrupted(StoreError):
    """A standby ended a statement that kept it from following its primary: the request may succeed later."""


class _Reader(psycopg.Connection[Any]):
    """How the pool connects."""

    @classmethod
    def connect(cls, conninfo: str = "", **_: object) -> Self:
        connection: Any = connect_reader(conninfo)
        connection.is_pinned = not is_pooled(connection)
        views.set_up(connection)
        views.exact_json(connection)
        connection.used_at = time.monotonic()
        connection.autocommit = True  # `snapshot` begins and ends transactions itself
        return connection  # type: ignore[no-any-return]


def _check(connection: Any) -> None:  # noqa: ANN401 - the pool's own type
    """Have the pool replace a session that has ended, unless it was used a moment ago."""
    if time.monotonic() - connection.used_at > _UNCHECKED:
        ConnectionPool.check_connection(connection)


def _begin(connection: Any, as_of: str | None, timeout: float) -> None:  # noqa: ANN401 - as above
    """Begin a transaction that shows a block, and in which no statement takes longer than `timeout`."""
    milliseconds = sql.Literal(int(timeout * 1000))
    statement = sql.SQL(_Q["begin"]).format(as_of=sql.Literal(as_of or ""), milliseconds=milliseconds)
    connection.execute(statement)
    if not connection.is_pinned:
        pin_transaction(connection)
        views.limit(connection, as_of or "", timeout)


def _passing(error: psycopg.Error, failure: StoreError) -> StoreError:
    """Return what a fault means after which the same request may succeed."""
    if error.sqlstate in _CONFLICT:
        return Interrupted("a standby ended it, to follow its primary: ask again")
    return DatabaseUnavailable(str(failure))


class Sessions:
    """The pool, which logs in when it is first used, and again after the database was out of reach."""

    def __init__(self, url: Callable[[], str], size: int = SESSIONS) -> None:
        """Take the URL, of an owner or a reader, from a function that may raise StoreError."""
        self._find_url = url
        self._size = size
        self._lock = threading.Lock()
        self._pool: ConnectionPool[Any] | None = None
        self._opened_at = 0.0
        self._url: str | None = None
        self._failure: tuple[float, type[StoreError], str] | None = None
        """The last attempt that failed: when, and how."""

    @property
    def url(self) -> str:
        """The URL of a reader; raises StoreError while there is none."""
        self._opened()
        assert self._url is not None, "the pool is open"
        return self._url

    @contextmanager
    def snapshot(
        self, as_of: str | None = None, *, timeout: float = TIMEOUT, is_foreign: bool = False
    ) -> Iterator[psycopg.Connection]:
        """Open a read-only transaction in which the views show a block (None: the last one), and end it.

        With `is_foreign`, statements of others run in it, and whatever they set is undone.

        Raises StoreError, as Busy if no session is free, as TooSlow if a statement takes too long, and
        BlockNotShown.
        """
        pool = self._opened()
        connection = self._take(pool)
        try:
            try:
                _begin(connection, as_of, timeout)
            except psycopg.Error:
                if not connection.closed:
                    raise
                pool.putconn(connection)
                pool.check()  # the others have ended, too, if the server was restarted
                connection = self._take(pool)
                _begin(connection, as_of, timeout)
            yield connection
            if not is_foreign:
                connection.commit()  # after a rollback, the driver forgets what is prepared
        except psycopg.errors.QueryCanceled as error:
            raise TooSlow(f"the query was canceled because it took more than {timeout:g} seconds") from error
        except psycopg.Error as error:
            if error.sqlstate == views.NOT_SHOWN:
                raise views.BlockNotShown(views.complaint(error)) from error
            if error.sqlstate is None and not is_transient(error):
                raise
            if error.sqlstate in _LOST:
                self._log_in_again(pool)
            if is_transient(error):
                raise _passing(error, views.failure(connection, self.url, error)) from error
            raise views.failure(connection, self.url, error) from error
        finally:
            with suppress(psycopg.Error):
                connection.rollback()
            connection.used_at = time.monotonic()
            pool.putconn(connection)

    def _take(self, pool: ConnectionPool[Any]) -> Any:  # noqa: ANN401 - with the attributes that `_Reader` sets
        """Take a session from the pool; raises Busy if none is free, StoreError if there is none."""
        try:
            return pool.getconn()
        except (TooManyRequests, PoolClosed) as error:
            raise Busy("too many requests at once") from error
        except PoolTimeout as error:
            try:
                connect_reader(self.url).close()
            except StoreError:
                self._log_in_again(pool)
                raise
            raise Busy("too many requests at once") from error

    def _log_in_again(self, pool: ConnectionPool[Any]) -> None:
        """Let the next request log in: the deployment may have been made again, or its grants changed."""
        with self._lock:
            if self._pool is pool and time.monotonic() - self._opened_at > _RETRY:
                self._pool = None
                threading.Thread(target=pool.close, daemon=True).start()

    def close(self) -> None:
        """Close all sessions."""
        with self._lock:
            if self._pool is not None:
                self._pool.close(timeout=1.0)
            self._pool = None

    def _opened(self) -> ConnectionPool[Any]:
        """Return the pool; log in if there is none yet, but not again right after a failure."""
        with self._lock:
            if self._pool is not None:
                return self._pool
            if self._failure is not None and time.monotonic() - self._failure[0] < _RETRY:
                kind, message = self._failure[1:]
                raise kind(message)
            try:
                url = reader_url(self._find_url())
                with views.snapshot(url) as connection:
                    refuse_other(connection)
            except StoreError as error:
                if self._failure is None or self._failure[2] != str(error):
                    _LOG.warning("%s", error)
                self._failure = time.monotonic(), type(error), str(error)
                raise
            if self._failure is not None:
                _LOG.warning("the database is read again")
            self._failure, self._url, self._opened_at = None, url, time.monotonic()
            self._pool = ConnectionPool(
                url,
                connection_class=_Reader,
                min_size=1,
                max_size=self._size,
                max_waiting=_WAITING,
                timeout=_WAIT,
                max_idle=60.0,
                check=_check,
                open=True,
            )
            return self._pool

"""Change what others read, without making them wait: give way if someone holds it, and try again.

A statement that waits for an exclusive lock makes every later reader queue after it. So none waits longer
than a second, and whoever holds the lock is named.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import psycopg

from virtualchain.errors import InUse
from virtualchain.notices import Notice
from virtualchain.store.sql import queries

T = TypeVar("T")

_Q = queries("giving_way")
_TRIES: Final = 20
_PAUSE: Final = 0.5
"""Seconds between two attempts, in which readers have their turn."""


@contextmanager
def short_lock_timeout(connection: psycopg.Connection) -> Iterator[None]:
    """Fail with LockNotAvailable within a second if others hold what is to be changed; for a transaction."""
    connection.execute(_Q["short_lock_timeout"])
    yield
    connection.execute(_Q["no_lock_timeout"])


def give_way(
    connection: psycopg.Connection,
    apps: Sequence[str],
    change: Callable[[], T],
    on_wait: Callable[[str], object] | None = None,
    may_continue: Callable[[], bool] = lambda: True,
) -> T:
    """Make a change to the views and tables of apps in a transaction, or a savepoint, of its own.

    If someone holds them, the change is undone and tried again, and `on_wait` is called with who it is.
    Raises InUse if they stay in use, or `may_continue` returns False.
    """
    whose = f"app {apps[0]}" if len(apps) == 1 else f"apps {', '.join(apps)}"

    def attempt() -> T:
        with connection.transaction():
            return change()

    def describe() -> str:
        return f"the views of {whose} are in use by {_holders(connection, apps)}"

    return keep_trying(attempt, describe, on_wait, may_continue)


def keep_trying(
    attempt: Callable[[], T],
    describe: Callable[[], str],
    on_wait: Callable[[str], object] | None = None,
    may_continue: Callable[[], bool] = lambda: True,
) -> T:
    """Make attempts, with pauses, until one gets its locks; `describe` says who has them.

    Raises InUse after the last attempt, or if `may_continue` returns False.
    """
    message = ""
    for number in range(_TRIES):
        try:
            return attempt()
        except psycopg.errors.LockNotAvailable:
            message = describe()
            if on_wait is not None and number == 0:
                on_wait(Notice(f"{message}: trying again", "waiting_for_readers"))
        if not may_continue():
            break
        time.sleep(_PAUSE)
    raise InUse(f"{message}, and stay so: end that session, or wait for it, and run this again")


def in_use(url: str) -> str:
    """Name the sessions that hold locks on our tables and views in the database at `url`."""
    with psycopg.connect(url, autocommit=True) as connection:
        return f"in use by {_holders(connection, None)}"


def _holders(connection: psycopg.Connection, apps: Sequence[str] | None) -> str:
    """Name the sessions that hold locks on views of apps or tables of their builds; None: on any of ours."""
    names = None if apps is None else list(apps)
    rows = connection.execute(_Q["holders"], {"apps": names}).fetchall()
    return " and ".join(name for (name,) in rows) or "a session that has since ended"

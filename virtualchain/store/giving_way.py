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
    on_wait: Callable[[str], None] | None = None,
    may_continue: Callable[[], bool] = lambda: True,
) -> T:
    """Make a change to the views and tables of apps in a transaction, or a savepoint, of its own.

    If someone holds them, the change is undone and tried again, and `on_wait` is called with who it is.
    Raises InUse if they stay in use, or `may_continue` returns False.
    """
    message, named = "", set[int]()
    for _ in range(_TRIES):
        try:
            with connection.transaction():
                return change()
        except psycopg.errors.LockNotAvailable:
            whose = f"app {apps[0]}" if len(apps) == 1 else f"apps {', '.join(apps)}"
            holders = _holders(connection, apps)
            names = " and ".join(holders.values()) or "a session that has since ended"
            message = f"the views of {whose} are in use by {names}"
            if on_wait is not None and not (holders and holders.keys() <= named):
                on_wait(f"{message}: trying again")
            named |= holders.keys()
        if not may_continue():
            break
        time.sleep(_PAUSE)
    raise InUse(f"{message}, and stay so: end that session, or wait for it, and run this again")


def _holders(connection: psycopg.Connection, apps: Sequence[str]) -> dict[int, str]:
    """Name the sessions that hold locks on views of apps or on tables of their builds, by server process."""
    return dict(connection.execute(_Q["holders"], {"apps": list(apps)}).fetchall())

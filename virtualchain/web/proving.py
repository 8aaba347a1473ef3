"""How a server makes proofs. They have a cost, so few are made at once, and each has little time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from virtualchain.errors import UsageError
from virtualchain.web.problems import NotFound
from virtualchain.web.sessions import TIMEOUT, Busy, Sessions, TooSlow

_AT_ONCE: Final = 2
_turns: Final = threading.BoundedSemaphore(_AT_ONCE)
_LOOK: Final = 0.2
"""Seconds between two attempts to cancel a proof whose time is over."""


@contextmanager
def proving(sessions: Sessions) -> Iterator[psycopg.Connection]:
    """Open a transaction for a proof, which is canceled once the time for a statement is over.

    Raises Busy if too many are being made, TooSlow, and NotFound for what cannot be proved.
    """
    if not _turns.acquire(blocking=False):
        raise Busy(f"{_AT_ONCE} proofs are being made already")
    try:
        with sessions.snapshot() as connection:
            finished, expired = threading.Event(), threading.Event()
            watchdog = threading.Thread(
                target=_cancel_later, args=(connection, finished, expired), daemon=True
            )
            watchdog.start()
            try:
                with _not_found():
                    yield connection
            finally:
                finished.set()
                watchdog.join()
            if expired.is_set():
                raise TooSlow(
                    f"the proof took more than {TIMEOUT:g} seconds: `virtualchain prove` has no limit"
                )
    finally:
        _turns.release()


def _cancel_later(
    connection: psycopg.Connection, finished: threading.Event, expired: threading.Event
) -> None:
    """Cancel what the connection does after its time, as often as it takes: it may do nothing just then."""
    if finished.wait(TIMEOUT):
        return
    expired.set()
    while not finished.is_set():
        connection.cancel_safe(timeout=_LOOK)
        finished.wait(_LOOK)


@contextmanager
def _not_found() -> Iterator[None]:
    """Raise NotFound for what cannot be proved, but not for a text that is no value of a key's column."""
    try:
        yield
    except UsageError as error:
        if isinstance(error.__cause__, psycopg.DataError):
            raise
        raise NotFound(str(error)) from error

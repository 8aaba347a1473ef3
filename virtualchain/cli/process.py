"""How a command ends: by a signal, by an error, or well; and with which exit code.

A user's mistake, or a failure of the node or the database, is reported in one line on standard error. Only a
bug in virtualchain, or --verbose, shows a traceback. The exit codes are listed in `virtualchain.errors`.
"""

import errno
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from types import FrameType, TracebackType
from typing import Final, Self

import click

from virtualchain.cli.log import write_past_streams
from virtualchain.cli.output import say
from virtualchain.errors import DeepFork, StoreError, UsageError, VirtualchainError
from virtualchain.notices import Notice

INTERRUPTED: Final = 130
"""128 plus the number of SIGINT, as in shells."""
_GRACE: Final = 8.0
"""Seconds after a signal within which a command ends; containers and service managers kill after ten."""
_BUG: Final = 70
"""EX_SOFTWARE: no error of virtualchain uses it, so no script mistakes a crash for an answer."""

_ADVICE: Final = {
    "42501": "the URL's user lacks that right: have it granted, or use the URL of the database's owner",
    "53100": "the database's disk is full: free some space there, and start again; committed blocks are kept",
    "53300": "end some of its connections, or raise the server's max_connections",
}
"""What helps, by SQLSTATE."""
_GRANT: Final = "`virtualchain db grant-reader"
"""Reading has its own advice for a right that is missing."""


class Ending:
    """Makes SIGTERM interrupt a command like Ctrl-C, and ends the process if it has not ended soon after.

    A process that runs as number 1, as in a container, ignores SIGTERM unless it has a handler. And whatever
    the main thread waits for, such as a server that hangs, must not keep the process alive: a thread of its
    own, which the signal wakes, ends it then.
    """

    exit_code = INTERRUPTED
    """What the process ends with; the command sets its own once it is known."""

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._handler = signal.signal(signal.SIGTERM, _interrupt)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        Thread(target=self._watch, name="ending", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        signal.signal(signal.SIGTERM, self._handler)
        os.close(self._writer)

    def _watch(self) -> None:
        with os.fdopen(self._reader, "rb", buffering=0) as signals:
            while number := signals.read(1):
                if number[0] in {signal.SIGINT, signal.SIGTERM}:
                    break
            else:
                return  # the command has ended without one
            time.sleep(_GRACE)  # with the pipe open, because another signal writes to it
        # Past Python's own streams: the main thread may hold their locks, and nobody may read the pipe.
        if self.exit_code == INTERRUPTED and select.select([], [2], [], 0)[1]:
            message = "ended while it waited: what was not committed is undone"
            write_past_streams(2, Notice(message, "interrupted", exit_code=self.exit_code))
        os._exit(self.exit_code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


class Signals:
    """Ends a command quietly on SIGINT or SIGTERM: through `stop` if it is set, immediately otherwise."""

    def __init__(self) -> None:
        self.stop: Callable[[], None] | None = None
        self._received = 0

    def may_continue(self) -> bool:
        """Check whether no signal has arrived; for work that checks between its steps."""
        return not self._received

    def work_in_steps(self) -> None:
        """Only record the first signal: from now on, the work checks `may_continue`."""
        self.stop = lambda: None

    def __enter__(self) -> Self:
        self._before = {
            number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        return kind is KeyboardInterrupt and self._received == 1

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._received += 1
        if self.stop is None or self._received > 1:
            raise KeyboardInterrupt
        self.stop()


def run_guarded(work: Callable[[], object], is_verbose: Callable[[], bool]) -> int:
    """Run a command, report its error if it fails, and return the exit code."""
    try:
        work()
        click.echo(nl=False)  # flushes here, so that a closed pipe is handled below
    except click.exceptions.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return 0
    except click.ClickException as error:
        say(Notice(_click_message(error), "usage_error", exit_code=error.exit_code))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last line of defense
        return _report(error, is_verbose)
    return 0


def _report(error: Exception, is_verbose: Callable[[], bool]) -> int:
    """Report an error, and return its exit code."""
    expected = (
        error if isinstance(error, VirtualchainError) else _database_error(error) or _full_disk_error(error)
    )
    if expected is None:
        message = "this is a bug: please report it, with the lines above"
        say(Notice(message, "bug", error=type(error).__name__, exit_code=_BUG), error)
        return _BUG
    fields = {"error": type(expected).__name__, "exit_code": expected.exit_code}
    message = f"{expected}{_advice(error)}"
    say(Notice(message, _event(expected), **fields), error if is_verbose() else None)
    return expected.exit_code


def _event(error: VirtualchainError) -> str:
    """Return the event that a command ends with."""
    match error:
        case UsageError():
            return "usage_error"
        case DeepFork():
            return "deep_fork_refused"
    return "failed"


def _database_error(error: Exception) -> VirtualchainError | None:
    """Convert an error of the database that no other code has handled."""
    psycopg = sys.modules.get("psycopg")
    if psycopg is None or not isinstance(error, psycopg.Error):
        return None
    if error.sqlstate is None and not isinstance(error, psycopg.OperationalError):
        return None
    return StoreError.from_database(error)


def _full_disk_error(error: Exception) -> VirtualchainError | None:
    """Convert the error of a full disk, whatever was being written."""
    if not isinstance(error, OSError) or error.errno not in {errno.ENOSPC, errno.EDQUOT}:
        return None
    _discard_output()  # if standard output is on that disk, Python would try once more at exit
    place = error.filename or "standard output or another file"
    return StoreError(f"cannot write {place}: {error.strerror}: free some space there, and start again")


def _advice(error: BaseException) -> str:
    """Return what helps against a failure of the database that the statement did not cause."""
    psycopg = sys.modules.get("psycopg")
    cause: BaseException | None = error
    while psycopg is not None and cause is not None:
        if isinstance(cause, psycopg.Error) and cause.sqlstate in _ADVICE and _GRANT not in str(error):
            return f" ({_ADVICE[cause.sqlstate]})"
        cause = cause.__cause__
    return ""


def _click_message(error: click.ClickException) -> str:
    """Put click's message on one line, and add where to find help."""
    message = error.format_message().strip().removesuffix(".")
    message = " ".join(f"{message[:1].lower()}{message[1:]}".split())
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message} (see `{context.command_path} --help`)"


def _discard_output() -> None:
    """Point standard output at the null device, because Python flushes it once more at exit."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""The processes that dev starts: forked from one that has imported virtualchain, and no app."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from typing import Any, Final

from virtualchain.dev import entry
from virtualchain.dev.messages import Load, Loaded, Problem
from virtualchain.errors import StoreError, UsageError

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_LOOK: Final = 0.05
"""Seconds between two looks at whether a process is still wanted."""
_PATIENCE: Final = 1.0
"""Seconds that every call may take, whatever has changed meanwhile."""
_GRACE: Final = 3.0
"""Seconds that a process has to end."""


def get_ready(*, pages: bool) -> None:
    """Start what processes are forked from: it imports meanwhile what they need, and what pages need."""
    shown = ["virtualchain.dev.pages"] if pages else []
    _CONTEXT.set_forkserver_preload(["virtualchain.dev.worker", *shown])
    ensure_running()


class Ended(StoreError):
    """The process that has the app has ended, or was ended, before it answered."""


def pipe() -> tuple[Connection, Connection]:
    """Return the two ends of a pipe, of which one goes to a new process."""
    return _CONTEXT.Pipe()


def start(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """Start a process that ends with this one."""
    process = _CONTEXT.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def end(process: BaseProcess) -> None:
    """End a process, and wait for that."""
    process.terminate()
    process.join(_GRACE)
    if process.is_alive():
        process.kill()
        process.join(_GRACE)


class WorkerProcess:
    """A process with one load of the app; see `worker.Worker` for what it can be asked."""

    def __init__(self, load: Load, is_wanted: Callable[[], bool]) -> None:
        """Start it; `is_wanted` is asked while it works, and False ends it."""
        self.database = load.database
        self._is_wanted = is_wanted
        self._connection, theirs = pipe()
        self._process = start(entry.work, theirs, load)
        theirs.close()

    def loaded(self) -> Loaded:
        """Wait until it has loaded the app; raises Ended."""
        loaded = self._answer()
        assert isinstance(loaded, Loaded), "it begins with this"
        return loaded

    def ask(self, method: str, *arguments: object) -> tuple[Any, list[str]]:
        """Call a method; return what it returns, and the files that were read so far.

        Raises UsageError if the request is wrong, StoreError for any other problem, Ended.
        """
        try:
            self._connection.send((method, arguments))
        except OSError as error:
            raise self._ended() from error
        answer, files = self._answer()
        if isinstance(answer, Problem):
            raise (UsageError if answer.exit_code == UsageError.exit_code else StoreError)(answer.message)
        return answer, files

    def end(self) -> None:
        """End it."""
        self._connection.close()
        end(self._process)

    def _answer(self) -> Any:  # noqa: ANN401 - whatever it sends
        began = time.monotonic()
        try:
            while not self._connection.poll(_LOOK):
                if time.monotonic() - began > _PATIENCE and not self._is_wanted():
                    self.end()
                    raise Ended("the app was still at work when a file changed: it is loaded again")
            return self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise self._ended() from error

    def _ended(self) -> Ended:
        self._process.join(_GRACE)
        code = self._process.exitcode
        return Ended(
            f"the process that runs the app has ended (exit code {code}): a callback may have ended it, or "
            "the import"
        )

"""Where a writer's time goes: seconds by stage, seconds of waiting by cause, and whether it still moves.

One thread works and its helpers fetch; another thread may read at any time. Nothing is derived from it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, perf_counter
from types import TracebackType
from typing import Final

STAGES: Final = ("fetch", "scan", "senders", "judge", "sql", "digests", "commit")
"""What is done for a block; docs/monitoring.md says what counts as which."""
CAUSES: Final = ("node", "database", "writer", "readers", "tip")
"""What is waited for between blocks."""
SILENT_AFTER: Final = 10.0
"""Seconds without an answer after which the database counts as waited for."""
STUCK_AFTER: Final = 600.0
"""Seconds after which a writer that does not move, and waits for no answer of the database, is stuck."""


class _Threads(threading.local):
    """The stage that a thread is in."""

    stage: "_Stage | None" = None


class Clock:
    """Counts seconds; one for each writer, through all of its sessions."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        """By stage, of all threads together; a stage's time excludes the stages inside of it."""
        self.waited_for = dict.fromkeys(CAUSES, 0.0)
        """By cause, without the wait that is under way."""
        self.asked: float | None = None
        """Since when the database is asked, if it is."""
        self.moved: float | None = None
        """When the work moved last; None before the first turn of the loop."""
        self.on_turn: Callable[[], object] = lambda: None
        """What is called whenever the loop turns, by its thread: for a service manager."""
        self.threads = _Threads()
        self._waits: tuple[str, float] | None = None
        self.lock = threading.Lock()

    def stage(self, name: str) -> "_Stage":
        """Count the time inside as that of a stage."""
        return _Stage(self, name)

    def asking(self) -> "_Asking":
        """Count the time inside as that of stage `sql`, or `commit` inside of that: the database is asked."""
        return _Asking(self, "sql")

    @contextmanager
    def waiting(self, cause: str) -> Iterator[None]:
        """Count the time inside as waited for a cause."""
        outer = self._waits
        self._wait_for(cause)
        try:
            yield
        finally:
            self._wait_for(None if outer is None else outer[0])

    def _wait_for(self, cause: str | None) -> None:
        now = monotonic()
        if self._waits is not None:
            self.waited_for[self._waits[0]] += now - self._waits[1]
        self._waits = None if cause is None else (cause, now)
        if self.moved is not None:
            self.moved = perf_counter()

    def waited(self) -> dict[str, float]:
        """Return the seconds of waiting by cause, including those of the wait that is under way."""
        waited, waits, asked = self.waited_for.copy(), self._waits, self.asked
        if waits is not None:
            waited[waits[0]] += max(monotonic() - waits[1], 0.0)
        if asked is not None and (silence := perf_counter() - asked) > SILENT_AFTER:
            waited["database"] += silence
        return waited

    @property
    def waits_for(self) -> str | None:
        """The cause that is waited for now; None while there is work."""
        waits, asked = self._waits, self.asked
        if asked is not None and perf_counter() - asked > SILENT_AFTER:
            return "database"
        return None if waits is None else waits[0]

    def turn(self) -> bool:
        """Note that the main loop turns, and return True, for conditions of the loop.

        From the first turn on, `is_moving` means something.
        """
        self.moved = perf_counter()
        self.on_turn()
        return True

    def is_moving(self) -> bool:
        """Return whether the work moves, or waits for an answer of the database.

        It moves if within ten minutes the loop has turned, or a stage or a wait has ended; and until the loop
        turns for the first time.
        """
        moved = self.moved
        return moved is None or self.asked is not None or perf_counter() - moved < STUCK_AFTER


class _Stage:
    """A stretch of time in a stage; the thread's enclosing stage, if any, does not count it."""

    __slots__ = ("clock", "inner", "name", "outer", "started")

    def __init__(self, clock: Clock, name: str) -> None:
        self.clock = clock
        self.name = name

    def __enter__(self) -> None:
        there = self.clock.threads
        self.outer, there.stage = there.stage, self
        self.inner = 0.0
        self.started = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        clock, outer = self.clock, self.outer
        now = perf_counter()
        whole = now - self.started
        clock.threads.stage = outer
        if outer is not None:
            outer.inner += whole
        with clock.lock:
            clock.seconds[self.name] += whole - self.inner
        if clock.moved is not None:
            clock.moved = now


class _Asking(_Stage):
    """A stretch of time in which the database is asked."""

    __slots__ = ()

    def __enter__(self) -> None:
        super().__enter__()
        if self.outer is not None and self.outer.name == "commit":
            self.name = "commit"
        self.clock.asked = self.started

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clock.asked = None
        super().__exit__(kind, error, trace)
        whole = perf_counter() - self.started
        if whole > SILENT_AFTER:
            self.clock.waited_for["database"] += whole

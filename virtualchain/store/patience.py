"""Sessions that notice when the server is silent: they report it, and can be ended meanwhile.

A server whose process is stopped, or that a network no longer reaches, answers nothing at all. libpq then
waits without end. A slow statement looks the same from here, so silence is reported, and ends nothing unless
the work is to stop in any case.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import psycopg
from psycopg.rows import TupleRow

from virtualchain.clock import SILENT_AFTER, Clock
from virtualchain.notices import Notice

REPORT_AFTER: Final = SILENT_AFTER
"""Seconds of silence until the first report; each further one comes after twice as many."""
STOP_AFTER: Final = 5.0
"""Seconds that a silent server still has to answer once the work is to stop."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Patience:
    """Who is notified of what a session waits for, and whether the work still goes on."""

    report: Callable[[str], object] = str
    may_continue: Callable[[], bool] = lambda: True
    clock: Clock = field(default_factory=Clock)
    """What counts the seconds."""


class _Default:
    patience = Patience()


def report_waiting(report: Callable[[str], object]) -> None:
    """Report what sessions without a `Patience` of their own wait for: a silent server, another writer."""
    _Default.patience = Patience(report)


class ServerSilent(psycopg.OperationalError):
    """The server did not answer, and the work was to stop: the session is closed."""


class Session(psycopg.Connection[TupleRow]):
    """A connection that follows `patience` while it waits for the server; None is what the program chose."""

    patience: Patience | None = None
    database = "the database"
    """How reports refer to it."""
    ahead: object = None
    """What sends statements ahead over it, see `pipeline_of`."""
    before_use: Callable[[], None] | None = None
    """What is called before anything else uses it, by whoever has its lock."""

    @property
    def clock(self) -> Clock:
        """What counts the seconds that are spent on the work, and on the server's answers."""
        return (self.patience or _Default.patience).clock

    def report(self, message: str) -> None:
        """Report something that the session waits for."""
        (self.patience or _Default.patience).report(message)

    def may_continue(self) -> bool:
        """Return whether the work that the session is for still goes on."""
        return (self.patience or _Default.patience).may_continue()

    def cursor(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - psycopg's own
        """Make a cursor; `Cursor.stream` looks at the session before it waits."""
        if self.before_use is not None:
            with self.lock:
                self.before_use()
        return super().cursor(*arguments, **options)

    def wait(self, gen: Generator[Any, Any, _T], *arguments: Any, **options: Any) -> _T:  # noqa: ANN401 - psycopg's own
        """Wait for an answer; raises ServerSilent if the work is to stop and none comes."""
        if self.before_use is not None:
            self.before_use()
        try:
            state = next(gen)
        except StopIteration as done:  # it is here already, as most rows of a COPY are
            at_once: _T = done.value
            return at_once
        with self.clock.asking():
            return super().wait(self._watched(gen, state), *arguments, **options)

    def exchange(self, gen: Generator[Any, Any, _T]) -> _T:
        """Wait as `wait` does, for what was sent ahead."""
        with self.clock.asking():
            try:
                state = next(gen)
            except StopIteration as done:
                soon: _T = done.value
                return soon
            return super().wait(self._watched(gen, state))

    def _watched(self, gen: Generator[Any, Any, _T], state: object) -> Generator[Any, Any, _T]:
        """Pass on what psycopg and its generator exchange, whose first `state` is given.

        No readiness is a tenth of a second of silence.
        """
        patience = self.patience or _Default.patience
        silent_since: float | None = None
        stops_at: float | None = None
        report_at = REPORT_AFTER
        try:
            while True:
                ready = yield state
                if ready:
                    if report_at > REPORT_AFTER:
                        patience.report(Notice(f"{self.database} answers again", "database_connected"))
                    silent_since, report_at = None, REPORT_AFTER
                else:
                    now = time.monotonic()
                    silent_since = silent_since or now
                    if now - silent_since >= report_at:
                        silence = f"has not answered for {report_at:.0f} s: it is busy, or it hangs"
                        message = f"{self.database} {silence}"
                        patience.report(Notice(message, "waiting_for_database", seconds=report_at))
                        report_at *= 2
                    if not patience.may_continue():
                        stops_at = stops_at or now + STOP_AFTER
                        if now >= stops_at:
                            self._give_up()
                state = gen.send(ready)
        except StopIteration as done:
            result: _T = done.value
            return result

    def _give_up(self) -> None:
        """Close the session at once: anything else would wait for the server, too."""
        self.pgconn.finish()
        raise ServerSilent(
            f"no answer for {STOP_AFTER:.0f} s after the request to stop; what was not committed is undone"
        )


def clock_of(connection: psycopg.Connection) -> Clock:
    """Return what counts the seconds of a session of ours."""
    assert isinstance(connection, Session), "a session of `database`"
    return connection.clock

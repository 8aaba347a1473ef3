"""`Worker`: delivers one webhook, in a thread of its own, so that a slow receiver holds up nobody else.

Nothing is queued: what comes next is read from the log when it can be delivered, so a receiver may be away
for as long as it likes.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import psycopg

from virtualchain.notices import Notice
from virtualchain.reading.resume import NotReached, NotThere
from virtualchain.reading.views import OLD_SNAPSHOT
from virtualchain.store.failures import is_transient, store_error
from virtualchain.webhooks.cursors import Cursors
from virtualchain.webhooks.messages import Message, Webhook
from virtualchain.webhooks.receiver import NotDelivered, Receiver

_FIRST_PAUSE: Final = 0.02
"""Seconds after the first failure; each further one waits twice as long."""
_LONGEST_PAUSE: Final = 300.0
_REPORTED_PAUSE: Final = 1.0
"""A webhook that waits for so long is reported to the operator."""
_REST: Final = 10.0
"""Seconds between two records of a cursor that passes blocks without anything to deliver."""


def pause_after(failures: int) -> float:
    """Return for how many seconds to wait after so many failures in a row."""
    return min(_FIRST_PAUSE * 2.0 ** min(failures - 1, 30), _LONGEST_PAUSE)


class Worker(threading.Thread):
    """Delivers one webhook, one message after another."""

    def __init__(self, webhook: Webhook, cursors: Cursors, report: Callable[[str], object]) -> None:
        super().__init__(name=f"webhook {webhook.name}", daemon=True)
        self.receiver = Receiver(webhook.setting.url)
        self.failure: Exception | None = None
        """What ended it: a failure of the database."""
        self._webhook = webhook
        self._cursors = cursors
        self._report = report
        self._is_reported = False
        """Whether the operator knows that it fails."""
        self._wake = threading.Event()
        self._stopping = False
        self._version: int | None = None
        self._is_replayed = False
        self._failures = 0
        self._due = 0.0
        """When the next attempt is due, by the monotonic clock: the other one may jump."""

    def stop(self) -> None:
        """End after the message that is under way."""
        self._stopping = True
        self._wake.set()

    def notice(self, version: int | None) -> None:
        """Look at the log again; and at the cursor, if its version is another one, as after a replay."""
        self._is_replayed = self._is_replayed or self._version not in {None, version}
        self._wake.set()

    def run(self) -> None:
        """Deliver until `stop`, or until the database fails."""
        try:
            self._load()
            while not self._stopping:
                self._step()
        except Exception as error:  # noqa: BLE001 - the deliverer's own thread handles it
            self.failure = error
        finally:
            self.receiver.close()

    def _load(self) -> None:
        """Read how far the webhook is."""
        state = self._cursors.state(self._webhook.name)
        self._is_replayed = False
        self._cursor = self._recorded = state.cursor
        self._recorded_at = time.monotonic()
        self._version = state.cursor.version
        self._failures = state.failures
        self._due = time.monotonic() + state.wait

    def _step(self) -> None:
        """Wait for the next attempt, or deliver what comes next, or wait for it."""
        self._wake.clear()
        if self._is_replayed:
            self._load()
        left = self._due - time.monotonic()
        if left > 0:
            self._wake.wait(left)
        else:
            self._look()

    def _look(self) -> None:
        """Deliver what comes next, or wait for it."""
        before = self._cursor
        try:
            self._cursor, messages = self._cursors.look(self._webhook, before)
        except NotReached as error:
            self._fail(str(error))
        except NotThere as error:
            self._fail(f"{error}, with `virtualchain webhooks replay`")
        except psycopg.Error as error:
            if is_transient(error):
                raise
            if error.sqlstate != OLD_SNAPSHOT:  # otherwise it is enough to look again
                self._fail(str(store_error(error)))
        else:
            if messages:
                self._deliver(messages)
            elif self._cursor != self._recorded and time.monotonic() - self._recorded_at >= _REST:
                self._record(deliveries=0)
            elif self._cursor == before:
                self._wake.wait()

    def _deliver(self, messages: Sequence[Message]) -> None:
        """Deliver the rest of an event: up to the first failure, or until the webhook is replayed."""
        for message in messages:
            if self._stopping or (self._cursor != self._recorded and not self._record(deliveries=0)):
                return
            try:
                self.receiver.post(message.headers(self._webhook.key, int(time.time())), message.body)
            except NotDelivered as error:
                if not self._stopping:
                    self._fail(str(error), error.pause)
                return
            part = (self._cursor.part or 0) + 1
            self._cursor = replace(self._cursor, part=None if message is messages[-1] else part)
            if not self._record(deliveries=1):
                return
            self._failures = 0
            if self._is_reported:
                name = self._webhook.name
                self._report(Notice(f"webhook {name}: delivered again", "webhook_recovered", webhook=name))
                self._is_reported = False

    def _record(self, *, deliveries: int) -> bool:
        """Record the cursor; return False if it does not count any more."""
        if not self._cursors.move(self._webhook, self._cursor, deliveries=deliveries):
            self._is_replayed = True
            return False
        self._recorded, self._recorded_at = self._cursor, time.monotonic()
        return True

    def _fail(self, error: str, requested_pause: float | None = None) -> None:
        """Note a failure, and when to try again."""
        self._failures += 1
        pause = max(pause_after(self._failures), requested_pause or 0.0)
        self._due = time.monotonic() + pause
        self._cursors.fail(self._webhook, self._cursor, error, pause)
        if pause >= _REPORTED_PAUSE and not self._is_reported:
            name = self._webhook.name
            message = f"webhook {name}: not delivered: {error}; trying again"
            self._report(Notice(message, "webhook_failed", webhook=name, reason=error))
            self._is_reported = True

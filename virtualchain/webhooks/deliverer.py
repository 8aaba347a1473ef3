"""`Deliverer`: delivers the webhooks of the settings while the log grows, and while no other process does."""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from typing import Final, Self

import psycopg

from virtualchain.errors import DatabaseUnavailable, StoreError
from virtualchain.notices import Notice
from virtualchain.reading.events import Session
from virtualchain.store.failures import describe_error, store_error
from virtualchain.store.patience import Patience
from virtualchain.webhooks.cursors import Cursors
from virtualchain.webhooks.messages import Webhook
from virtualchain.webhooks.worker import Worker

POLL: Final = 3.0
"""Seconds after which it looks at the database even without a notification."""
_SLICE: Final = 0.5
"""Seconds after which it checks, while waiting, whether it is to end."""
_ENDING: Final = 3.0
"""Seconds that threads have to end: they are interrupted, but a host name may still be looked up."""
_PAUSES: Final = (1.0, 3.0, 10.0, 30.0)
"""Seconds before each further attempt to open the database."""


class Deliverer:
    """Delivers webhooks from a thread, as a context manager, or with `run` from the caller's.

    Any number of processes may have one on the same database: each webhook is delivered by one of them, and
    by another once that one ends. `report` is called with what the operator should know.
    """

    def __init__(self, url: str, webhooks: Sequence[Webhook], report: Callable[[str], object]) -> None:
        self._url = url
        self._webhooks = webhooks
        self._report = report
        self._trouble: str | None = None
        """Why nothing is delivered, as it was reported last."""
        self._elsewhere: Sequence[str] = ()
        """The webhooks that another process delivers, as they were reported last."""
        self._awaited: set[str] = set()
        """The apps that are not installed, as they were reported."""
        self._stopping = threading.Event()
        self._patience = Patience(report, lambda: not self._stopping.is_set())
        self._cursors: Cursors | None = None
        self._thread = threading.Thread(target=self._follow, name="webhooks", daemon=True)

    def __enter__(self) -> Self:
        """Begin; webhooks that are new are noted before it returns, if the database can be used."""
        if self._webhooks:
            try:
                self._cursors = self._open()
            except StoreError as error:
                self._say(error)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._webhooks:
            self._thread.join(2 * _ENDING)

    def run(self) -> None:
        """Deliver until `stop`; raises StoreError if the database cannot be used from here at all."""
        try:
            self._cursors = self._open()
        except DatabaseUnavailable as error:
            self._say(error)
        self._follow()

    def stop(self) -> None:
        """End soon, from any thread or signal handler; a delivery that takes long is interrupted."""
        self._stopping.set()

    def _open(self) -> Cursors:
        cursors = Cursors(self._url, self._patience)
        try:
            cursors.add(self._webhooks)
            missing = {webhook.setting.app for webhook in cursors.without_app(self._webhooks)} - self._awaited
        except psycopg.Error as error:
            cursors.close()
            raise store_error(error, cursors.database) from error
        except BaseException:
            cursors.close()
            raise
        for app in sorted(missing):
            message = f"webhooks wait for app {app}, which is not installed"
            self._report(Notice(message, "webhook_waits", app=app))
        self._awaited |= missing
        return cursors

    def _follow(self) -> None:
        """Deliver in one session after another."""
        attempt = 0
        while not self._stopping.is_set():
            try:
                if self._cursors is None:
                    self._cursors = self._open()
                attempt = 0
                with closing(self._cursors) as cursors:
                    self._deliver(cursors)
            except Exception as error:  # noqa: BLE001 - whatever it is, deliveries must not end with it
                if not self._stopping.is_set():
                    self._say(error)
            self._cursors = None
            self._stopping.wait(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1

    def _say(self, error: Exception) -> None:
        """Report why nothing is delivered, unless that is known."""
        if isinstance(error, psycopg.Error):
            error = store_error(error)
        reason = str(error) if isinstance(error, StoreError) else f"a bug: {describe_error(error)}"
        if reason != self._trouble:
            message = f"webhooks are not delivered: {reason}; trying again"
            self._report(Notice(message, "webhook_failed", reason=reason))
        self._trouble = reason

    def _deliver(self, cursors: Cursors) -> None:
        """Run the webhooks that no other process delivers, until the end or a failure of the database."""
        workers: dict[str, Worker] = {}
        session = Session(self._url, self._patience)
        try:
            while not self._stopping.is_set():
                for webhook in self._webhooks:
                    if webhook.name not in workers and cursors.take(webhook.name):
                        workers[webhook.name] = Worker(webhook, cursors, self._report)
                        workers[webhook.name].start()
                self._say_what_runs(workers)
                versions = cursors.versions(list(workers))
                for name, worker in workers.items():
                    worker.notice(versions.get(name))
                self._wait(session, list(workers.values()))
        finally:
            session.connection.close()
            _end(workers.values())

    def _say_what_runs(self, workers: Mapping[str, Worker]) -> None:
        """Report that webhooks are delivered again, and which other processes deliver, if that is news."""
        if self._trouble is not None:
            self._report(Notice("webhooks are delivered again", "webhook_recovered"))
            self._trouble = None
        elsewhere = [webhook.name for webhook in self._webhooks if webhook.name not in workers]
        if elsewhere and elsewhere != self._elsewhere:
            message = f"delivered by another process, until it ends: {', '.join(elsewhere)}"
            self._report(Notice(message, "webhook_elsewhere", webhooks=elsewhere))
        self._elsewhere = elsewhere

    def _wait(self, session: Session, workers: Sequence[Worker]) -> None:
        """Wait for a notification, at most for the polling interval; raise what a thread has failed with."""
        until = time.monotonic() + POLL
        while not self._stopping.is_set() and (left := until - time.monotonic()) > 0:
            for worker in workers:
                if worker.failure is not None:
                    raise worker.failure
            if not session.listens:
                self._stopping.wait(min(left, _SLICE))
            elif session.wait(min(left, _SLICE)):
                return


def _end(workers: Collection[Worker]) -> None:
    """End all threads: after the delivery that is under way, or without it if that takes long."""
    for worker in workers:
        worker.stop()
    for interrupt in (False, True):
        until = time.monotonic() + _ENDING / 2
        for worker in workers:
            if interrupt:
                worker.receiver.abort()
            worker.join(max(0.0, until - time.monotonic()))

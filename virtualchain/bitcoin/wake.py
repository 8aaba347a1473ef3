"""Waiting that can be ended from elsewhere."""

import queue
from contextlib import suppress


class Wake:
    """Lets one thread sleep until another, or a signal handler, ends it."""

    def __init__(self) -> None:
        # Unlike an Event, it can be put to from a signal handler that interrupts the very wait.
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def wait(self, timeout: float) -> None:
        """Sleep for `timeout` seconds, or until `call`; a call that came before counts, too."""
        with suppress(queue.Empty):
            self._calls.get(timeout=max(timeout, 0.0))
            while True:  # one look answers every call that came before it
                self._calls.get_nowait()

    def call(self) -> None:
        """End the present or the next wait."""
        self._calls.put(None)

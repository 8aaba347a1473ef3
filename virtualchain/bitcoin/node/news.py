"""Notices, while a follower waits, that the node's mempool may have changed, and ends that wait."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from virtualchain.errors import NodeError

_PAUSE: Final = 0.03
"""Seconds between two looks, while nothing changes."""
_SHARE: Final = 20
"""Looks take at most one part in so many of the time, unless a pause would be longer than `_LONGEST`."""
_LONGEST: Final = 0.5
_FAILED: Final = 1.0
"""Seconds to the next look after one that failed."""
_CLOSING: Final = 1.0
"""Seconds that closing waits for the thread."""


class News:
    """Looks for changes in a thread of its own, during waits only."""

    def __init__(self, look: Callable[[], object], wake: Callable[[], None]) -> None:
        """Prepare to call `look`, which returns what any change changes, and then `wake`."""
        self._look = look
        self._wake = wake
        self._wait_began = threading.Event()
        self._is_closed = threading.Event()
        self._has_come = False
        self._seen: object = None
        self._deadline = 0.0
        self._thread = threading.Thread(target=self._run, name="mempool", daemon=True)

    def expect(self, seconds: float, seen: object) -> None:
        """Look during a wait of so many seconds that begins now for anything else than was `seen`."""
        if self._is_closed.is_set():
            return
        self._has_come = False
        self._seen, self._deadline = seen, time.monotonic() + seconds
        self._wait_began.set()
        if self._thread.ident is None:
            self._thread.start()

    def has_come(self) -> bool:
        """Return whether there was a change during the wait; ends it."""
        self._wait_began.clear()
        return self._has_come

    def close(self) -> None:
        """End the thread."""
        self._is_closed.set()
        self._wait_began.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSING)

    def _run(self) -> None:
        while True:
            self._wait_began.wait()
            if self._is_closed.is_set():
                return
            began = time.monotonic()
            pause = _FAILED
            with suppress(NodeError):
                if self._look() != self._seen:
                    self._has_come = True
                    self._wait_began.clear()
                    self._wake()
                    continue
                pause = min(max(_PAUSE, _SHARE * (time.monotonic() - began)), _LONGEST)
            if time.monotonic() > self._deadline:
                self._wait_began.clear()
            self._is_closed.wait(pause)

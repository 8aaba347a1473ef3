"""Notices, while a follower waits, that the node's mempool may have changed, and ends that wait.

With the node's publisher (`zmqpubsequence`), changes are received, each with its number, so that whoever has
the mempool before them has it after them. Without it, and as long as it publishes nothing, a question that
costs next to nothing is asked again and again.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from virtualchain.bitcoin.node.publisher import Subscription
from virtualchain.errors import NodeError

_PAUSE: Final = 0.03
"""Seconds between two looks, if nothing is published."""
_SHARE: Final = 20
"""Looks take at most one part in so many of the time, unless the pause would be longer than `_LONGEST`."""
_LONGEST: Final = 1.0
"""Seconds between two looks while changes are published, or if a look takes long or fails."""
_CLOSING: Final = 1.0
"""Seconds that closing waits for the thread."""
_MOST_KEPT: Final = 100_000
"""Changes that are kept until they are taken; if earlier ones are dropped, their numbers are missing."""
_QUEUE: Final = 10_000
"""Messages of ZMQ that are kept."""
_UNPUBLISHED: Final = 3
"""Changes without a message in between, after which the publisher is reported to be silent."""


class Change(NamedTuple):
    """A transaction that has come into the mempool, or left it for another reason than a block."""

    number: int
    """Every change has the next one, also if a block is the reason, which is not published."""
    txid: str
    has_come: bool


def read_change(body: bytes) -> Change | None:
    """Read a message of the topic `sequence`; None if it is about a block, or anything else.

    It is a transaction's id in display order, `A` (added) or `R` (removed), and the number in 8 bytes, with
    the least significant first.
    """
    if len(body) != 41 or body[32:33] not in {b"A", b"R"}:
        return None
    return Change(int.from_bytes(body[33:], "little"), body[:32].hex(), body[32:33] == b"A")


class News:
    """Receives changes, and looks for signs of them during waits, in a thread of its own."""

    def __init__(self, look: Callable[[], object], wake: Callable[[], None], zmq: str | None) -> None:
        """Prepare to call `look`, which returns what changes change, and `wake` to end a wait.

        `zmq` is the publisher's address; raises UsageError if it cannot be used.
        """
        self._look = look
        self._wake = wake
        self._subscription = None if zmq is None else Subscription(zmq, b"sequence", _QUEUE)
        self._changes: deque[bytes] = deque(maxlen=_MOST_KEPT)
        self._wait_began = threading.Event()
        self._is_closed = threading.Event()
        self._has_come = False
        self._seen: object = None
        self._look_due = 0.0
        self._has_heard = False
        self._unpublished = 0
        self._thread = threading.Thread(target=self._run, name="mempool", daemon=True)

    def start(self) -> None:
        """Receive from now on."""
        if self._thread.ident is None and not self._is_closed.is_set():
            self._thread.start()

    def changes(self) -> Iterator[Change]:
        """Yield the changes that were published since the last call."""
        while self._changes:
            change = read_change(self._changes.popleft())
            if change is not None:
                yield change

    def expect(self, seen: object, pause: float) -> None:
        """Look for anything else than was `seen` during a wait that begins now, but not in the first seconds.

        `pause` is the number of those seconds.
        """
        if self._is_closed.is_set():
            return
        self.start()
        self._has_come = False
        self._seen, self._look_due = seen, time.monotonic() + pause
        self._wait_began.set()
        if self._changes:
            self._end_wait()

    def has_come(self) -> bool:
        """Return whether there was something during the wait, which is over."""
        self._wait_began.clear()
        return self._has_come

    def silence(self) -> str | None:
        """Return what an operator should know of the publisher; once, until it publishes something."""
        if self._subscription is None or self._unpublished < _UNPUBLISHED:
            return None
        self._unpublished = -(2**63)
        return (
            f"{self._subscription} publishes no changes of unconfirmed transactions, so the node is asked "
            "for them: set zmqpubsequence to this address in its bitcoin.conf"
        )

    def close(self) -> None:
        """End the thread."""
        self._is_closed.set()
        self._wait_began.set()
        if self._subscription is not None:
            self._subscription.cut()
        if self._thread.ident is not None:
            self._thread.join(_CLOSING)

    def _run(self) -> None:
        try:
            while self._receive() and not self._is_closed.is_set():
                if self._wait_began.is_set() and time.monotonic() >= self._look_due:
                    self._look_due = time.monotonic() + self._look_once()
        finally:
            if self._subscription is not None:
                self._subscription.close()

    def _receive(self) -> bool:
        """Wait until it is time to look, and for messages meanwhile; return whether there may be more."""
        if self._subscription is None:
            self._wait_began.wait()
            self._is_closed.wait(self._look_due - time.monotonic())
            return True
        pause = self._look_due - time.monotonic() if self._wait_began.is_set() else self._pause
        bodies = self._subscription.receive(min(self._pause, max(0.0, pause)))
        if bodies:
            self._has_heard, self._unpublished = True, 0
            self._changes += bodies
            if self._wait_began.is_set():
                self._end_wait()
        return bodies is not None

    @property
    def _pause(self) -> float:
        is_published = self._has_heard and self._unpublished < _UNPUBLISHED
        return _LONGEST if is_published else _PAUSE

    def _look_once(self) -> float:
        """Look, and return the pause until the next time."""
        began = time.monotonic()
        try:
            signs = self._look()
        except NodeError:  # whoever asks the node next sees it, too
            return _LONGEST
        if signs != self._seen and self._wait_began.is_set():
            self._unpublished += 1
            self._end_wait()
        return min(max(self._pause, _SHARE * (time.monotonic() - began)), _LONGEST)

    def _end_wait(self) -> None:
        self._has_come = True
        self._wait_began.clear()
        self._wake()

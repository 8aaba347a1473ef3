"""A node's announcements of blocks, which end a follower's sleep early: long polls over RPC, or ZMQ.

An announcement is only a reason to look. What it says is not used, and the follower also looks without one,
at its usual times: a message that is lost costs at most one such pause, a forged one costs one look.
"""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from virtualchain.bitcoin.node import answers
from virtualchain.bitcoin.node.answers import well_formed
from virtualchain.bitcoin.node.client import READ_TIMEOUT, NotOffered, Rpc
from virtualchain.bitcoin.node.login import Login, NodeUrl
from virtualchain.bitcoin.node.publisher import Subscription
from virtualchain.bitcoin.source import Tip
from virtualchain.errors import MissingData, NodeError

_IN_VAIN: Final = 0.05
"""Seconds before the next question after announcements without news; doubled each time, up to `_LONGEST`."""
_LONGEST: Final = 3.0
_FAILED: Final = (0.0, 3.0, 9.0, 27.0, 57.0)
"""Seconds from the next wait to the next question after failures in a row: a restarted node may offer it."""
_CLOSING: Final = 1.0
"""Seconds that closing waits for the thread."""
_QUEUE: Final = 100
"""Messages of ZMQ that are kept."""
_BETWEEN_MESSAGES: Final = 0.01
"""Seconds before messages are read again if those before held no news."""


class Channel(Protocol):
    """A way in which a node announces blocks. Its `str` is how messages refer to it."""

    def listen(self, tip: Tip, seconds: float) -> bool:
        """Wait until the node announces another tip, for so long; return whether it has. Raises NodeError."""
        ...

    def cut(self) -> None:
        """End `listen` in another thread, for good."""
        ...

    def close(self) -> None:
        """Close it; called by the thread that listened, or if there was none."""
        ...


class Announcements:
    """Listens to a channel, in a thread of its own, while a follower waits, and ends that wait.

    The thread asks once for each wait, so that the node is never asked more often than the follower looks,
    and a follower that finds nothing new after an announcement makes the thread pause.
    """

    def __init__(self, channel: Channel, wake: Callable[[], None]) -> None:
        self._channel = channel
        self._wake = wake
        self._thread = threading.Thread(target=self._run, name="announcements", daemon=True)
        self._wait_began = threading.Event()
        self._is_closed = threading.Event()
        self._tip: Tip | None = None
        self._seconds = 0.0
        self._had_news = True
        self._has_announced = False
        self._messages: list[str] = []
        self._has_failed = False

    def expect(self, tip: Tip, seconds: float, *, had_news: bool, ran_out: bool) -> None:
        """Listen during a wait of so many seconds that begins now.

        `tip` is the last one that the follower has seen, and `had_news` says whether it has fetched anything
        since the wait before. `ran_out`: nothing ended that wait early.
        """
        if self._is_closed.is_set():
            return
        if self._tip is not None and tip != self._tip and ran_out and not self._has_announced:
            self._note(f"{self._channel} did not announce block {tip.block_id}: the next look showed it")
        self._tip, self._seconds, self._had_news = tip, seconds, had_news
        self._has_announced = False
        self._wait_began.set()
        if self._thread.ident is None:
            self._thread.start()

    def messages(self) -> Iterator[str]:
        """Yield what an operator should know since the last call; a fault is named once until it passes."""
        while self._messages:
            yield self._messages.pop(0)

    def close(self) -> None:
        """End the thread."""
        self._is_closed.set()
        self._wait_began.set()
        self._channel.cut()
        if self._thread.ident is None:
            self._channel.close()
        else:
            self._thread.join(_CLOSING)

    def _run(self) -> None:
        try:
            self._listen()
        finally:
            self._channel.close()

    def _listen(self) -> None:
        pace = _Pace()
        while True:
            self._wait_began.wait()
            self._wait_began.clear()
            # Cleared first: whoever closes has set both.
            if self._is_closed.wait(pace.pause(had_news=self._had_news)):
                return
            assert self._tip is not None, "a wait has begun"
            seconds, began = self._seconds, time.monotonic()
            try:
                has_announced = self._channel.listen(self._tip, seconds)
            except NodeError as error:
                if not self._is_closed.is_set():
                    self._note(f"{self._channel} announces no blocks: {error}")
                pace.failed()
                continue
            # An answer that comes early without another tip is in vain, too.
            pace.answered(for_nothing=has_announced or time.monotonic() - began < seconds / 2)
            if has_announced:
                self._has_failed = False
                self._wait_began.clear()  # the next wait begins after the look that this announcement causes
                if self._is_closed.is_set():
                    return
                self._has_announced = True
                self._wake()

    def _note(self, message: str) -> None:
        if not self._has_failed:
            self._messages.append(message)
        self._has_failed = True


class _Pace:
    """How long to pause before the node is asked again."""

    def __init__(self) -> None:
        self._failures = 0
        self._in_vain = 0
        self._last = float("-inf")

    def failed(self) -> None:
        """Count a question that was not answered."""
        self._failures += 1

    def answered(self, *, for_nothing: bool) -> None:
        """Count an answer; `for_nothing` unless the next look shows news."""
        self._failures = 0
        if for_nothing:
            self._in_vain += 1
            self._last = time.monotonic()

    def pause(self, *, had_news: bool) -> float:
        """Return the seconds before the next question, from whether the last look showed news."""
        if self._failures:
            return _FAILED[min(self._failures, len(_FAILED)) - 1]
        if had_news or time.monotonic() - self._last > 2 * _LONGEST:
            self._in_vain = 0
        # The first one is free: a look may have shown two blocks, of which the second is announced then.
        return min(_IN_VAIN * 2 ** (self._in_vain - 2), _LONGEST) if self._in_vain > 1 else 0.0


class LongPolls:
    """JSON-RPC questions that the node answers once its tip changes, on a connection of their own.

    `waitfornewblock` compares with a tip since Bitcoin Core 29, so no block is missed between two questions.
    Earlier, it knows only later blocks, and `waitforblockheight` is asked.
    """

    def __init__(self, url: NodeUrl, login: Login, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._rpc = Rpc(url, login, tls)
        self._compares = True

    def __str__(self) -> str:
        return str(self._url)

    def listen(self, tip: Tip, seconds: float) -> bool:
        """Ask once; see `Channel`."""
        timeout = max(1, round(min(seconds, READ_TIMEOUT / 2) * 1000))  # 0 would be without end
        if self._compares:
            try:
                return self._ask(tip, "waitfornewblock", timeout, tip.hash)
            except (MissingData, NotOffered):  # the first is how a node refuses a parameter
                answer = self._ask(tip, "waitforblockheight", tip.block_id + 1, timeout)
                self._compares = False
                return answer
        try:
            return self._ask(tip, "waitforblockheight", tip.block_id + 1, timeout)
        except NotOffered:
            self._compares = True  # the next node may be another version
            raise

    def _ask(self, tip: Tip, method: str, *parameters: object) -> bool:
        with well_formed(self._url, method):
            answer = self._rpc.call_once(method, *parameters)
            return Tip(answers.height(answer["height"]), answers.block_hash(answer["hash"])) != tip

    def cut(self) -> None:
        """Cut the connection."""
        self._rpc.cut()

    def close(self) -> None:
        """Close the connection."""
        self._rpc.cut()
        self._rpc.close()


class Zmq:
    """The node's ZMQ publisher of block hashes, `zmqpubhashblock` in bitcoin.conf."""

    def __init__(self, url: str) -> None:
        """Check the URL; raises UsageError if it cannot be used, or pyzmq is missing."""
        self._subscription = Subscription(url, b"hashblock", _QUEUE)

    def __str__(self) -> str:
        return str(self._subscription)

    def listen(self, tip: Tip, seconds: float) -> bool:
        """Read messages; see `Channel`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            messages = self._subscription.receive(left)
            if messages is None:
                return False
            hashes = [message.hex() for message in messages if len(message) == 32]
            if hashes and hashes[-1] != tip.hash:
                return True
            if messages:
                time.sleep(_BETWEEN_MESSAGES)
        return False

    def cut(self) -> None:
        """Fail what `listen` waits for, and wait until the socket is closed."""
        self._subscription.cut()

    def close(self) -> None:
        """Close the socket."""
        self._subscription.close()

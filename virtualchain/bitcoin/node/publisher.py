"""What a node publishes over ZMQ."""

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from virtualchain.errors import UsageError, quoted

if TYPE_CHECKING:
    import zmq

_SCHEMES: Final = ("tcp://", "ipc://")
_LONGEST_PART: Final = 1000
"""Bytes; a part of a message about a block or a transaction has at most 41."""


class Subscription:
    """One topic of a node's ZMQ publisher. Its `str` is the publisher's address."""

    def __init__(self, url: str, topic: bytes, queue: int) -> None:
        """Check the URL; `queue` messages are kept until they are received.

        Raises UsageError if the URL cannot be used, or pyzmq is missing.
        """
        try:
            import zmq  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise UsageError("--zmq needs pyzmq: pip install 'virtualchain[zmq]'") from error
        if not url.startswith(_SCHEMES):
            raise UsageError(f"{quoted(url)} is not an address of ZMQ: write tcp://host:port or ipc://path")
        self._zmq = zmq
        self._url = url
        self._topic = topic
        self._queue = queue
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        try:
            self._connect().close()
        except zmq.ZMQError as error:
            self._context.term()
            raise UsageError(
                f"{quoted(url)} cannot be used as an address of ZMQ: {error.strerror}"
            ) from error

    def __str__(self) -> str:
        return self._url

    def _connect(self) -> "zmq.Socket[bytes]":
        """Connect, now or once somebody listens there, and again whenever the connection is lost."""
        zmq = self._zmq
        connected = self._context.socket(zmq.SUB)
        try:
            connected.setsockopt(zmq.IPV6, 1)
            connected.setsockopt(zmq.LINGER, 0)
            connected.setsockopt(zmq.MAXMSGSIZE, _LONGEST_PART)
            connected.setsockopt(zmq.RCVHWM, self._queue)
            connected.setsockopt(zmq.SUBSCRIBE, self._topic)
            connected.connect(self._url)
        except BaseException:
            connected.close()
            raise
        return connected

    def receive(self, seconds: float) -> list[bytes] | None:
        """Wait for messages, at most so long, and return the second part of each that has come.

        That is what a message is about; the first part is the topic. Returns None once it is cut. All calls
        are made by one thread.
        """
        bodies: list[bytes] = []
        with suppress(self._zmq.ContextTerminated):
            self._socket = self._socket or self._connect()
            self._socket.poll(max(1, round(seconds * 1000)))
            with suppress(self._zmq.Again):
                for _ in range(self._queue):
                    match self._socket.recv_multipart(self._zmq.NOBLOCK):
                        case [topic, body, *_] if topic == self._topic:
                            bodies.append(body)
            return bodies
        return None

    def cut(self) -> None:
        """End `receive` in another thread, for good, and wait until that has closed the socket."""
        self._context.term()

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

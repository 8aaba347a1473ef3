"""Connections to a node: http or https, kept open between questions, and never at a stranger's mercy.

Whoever answers chooses how much and how slowly. So an answer is read in pieces up to a limit, and there are
two clocks: one for silence, one for the whole answer, which a byte now and then cannot stop.
"""

import io
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection, IncompleteRead
from pathlib import Path
from typing import Final

from virtualchain.bitcoin.node.login import NodeUrl
from virtualchain.errors import UsageError

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for connecting, and as many for agreeing on encryption."""
_PIECE: Final = 1 << 22
"""Bytes: a block, which is read into one value and not copied again."""
_Selector: Final = getattr(selectors, "PollSelector", selectors.SelectSelector)
"""The one that needs no descriptor of its own, if the system has it."""


class TooLong(Exception):
    """An answer has more bytes than the question allows; its argument is how many it does."""


def tls_for(url: NodeUrl, cacert: Path | None) -> ssl.SSLContext | None:
    """Prepare encryption for an https URL; `cacert` is a file with the authorities to trust, PEM.

    None trusts the system's. Raises UsageError if the file cannot be used, or the URL is not https.
    """
    if url.scheme != "https":
        if cacert is not None:
            raise UsageError(f"{url} is not encrypted, so that {cacert} is of no use: write https")
        return None
    try:
        return ssl.create_default_context(cafile=cacert)
    except OSError as error:
        reason = "it holds no certificate (PEM)" if isinstance(error, ssl.SSLError) else error.strerror
        raise UsageError(f"the certificates in {cacert} cannot be used: {reason}") from error


class Connection:
    """One connection to a node; it connects again if the node has closed it."""

    def __init__(self, url: NodeUrl, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._http = (
            HTTPConnection(url.host, url.port, timeout=CONNECT_TIMEOUT)
            if tls is None
            else HTTPSConnection(url.host, url.port, timeout=CONNECT_TIMEOUT, context=tls)
        )

    @property
    def sock(self) -> socket.socket | None:
        """The connected socket, if any."""
        return self._http.sock

    def send(
        self,
        method: str,
        path: str,
        *,
        silence: float,
        total: float,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a question; its answer may pause for `silence` seconds, and must be complete after `total`."""
        if self.sock is None or _is_readable(self.sock):
            self.close()  # the next request connects
        deadline = time.monotonic() + total
        # Called like the class that belongs there.
        self._http.response_class = partial(_Response, silence=silence, deadline=deadline)  # type: ignore[assignment]
        # Our own header: a zone, as in fe80::1%eth0, means nothing to anyone else.
        host = {"Host": self._url.host_header}
        self._http.request(method, self._url.path + path, body, {**host, **(headers or {})})

    @contextmanager
    def answer(self) -> Iterator[HTTPResponse]:
        """Return the answer of the last question; the connection is kept if it was read to its end."""
        with self._http.getresponse() as response:
            try:
                yield response
            finally:
                if response.length or not response.isclosed():
                    self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def pieces(response: HTTPResponse, limit: int) -> Generator[bytes, None, None]:
    """Yield an answer's body in pieces; raises TooLong after `limit` bytes, and IncompleteRead."""
    size = 0
    while piece := response.read(min(_PIECE, limit + 1 - size)):
        size += len(piece)
        if size > limit:
            raise TooLong(limit)
        yield piece
    if response.length:
        raise IncompleteRead(b"", response.length)


def _is_readable(sock: socket.socket) -> bool:
    """Check whether an idle connection has bytes, or its end: either way nothing can be asked over it."""
    with _Selector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(0))


class Pool:
    """The connections that no question uses now."""

    def __init__(self, url: NodeUrl, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._tls = tls
        self._idle: deque[Connection] = deque()
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection; whatever interrupts its use closes it, as an answer may be half read."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = Connection(self._url, self._tls)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        if self._closed:
            self.close()

    def close(self) -> None:
        """Close the connections; one that is in use is closed when its question is answered."""
        self._closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


class _Response(HTTPResponse):
    """An answer that is read under two clocks, its headers included."""

    def __init__(self, sock: socket.socket, *, method: str, silence: float, deadline: float) -> None:
        super().__init__(sock, method=method)
        self.fp.close()
        self.fp = io.BufferedReader(_TimedReader(sock, silence, deadline))

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]  # it has no types
        if size < 0:  # the class would read up to the end, however far that is
            raise ValueError("a chunk has a negative size")
        return size


class _TimedReader(io.RawIOBase):
    """Reads from a socket until a deadline."""

    def __init__(self, sock: socket.socket, silence: float, deadline: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)  # counts as a user of the socket until it is closed
        self._silence = silence
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]  # as its callers call it
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out: the answer comes too slowly")
        self._sock.settimeout(min(left, self._silence))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()

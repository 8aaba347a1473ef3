"""Connections to a node: http or https, kept open between questions, and never at a stranger's mercy.

Whoever answers chooses how much and how slowly. So an answer is read in pieces up to a limit, and there are
two clocks: one for silence, one for the whole answer, which a byte now and then cannot stop.
"""

import errno
import io
import re
import selectors
import socket
import ssl
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection, IncompleteRead
from pathlib import Path
from typing import Final, Protocol

from virtualchain.bitcoin.node.login import NodeUrl
from virtualchain.errors import NodeError, UsageError

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for connecting, and as many for agreeing on encryption."""
_PIECE: Final = 1 << 22
"""Bytes: a block, which is read into one value and not copied again."""
_HEAD_SIZE: Final = 2048
"""Bytes: a node's has about 120."""
_PLAIN_HEAD: Final = re.compile(rb"HTTP/1\.1 ((?!204|304)[2-5]\d\d) [ -~]*(\r\n(?:[!-~][ -~]*\r\n)*)\r\n")
_FIELDS_THAT_COUNT: Final = re.compile(
    rb"\r\n(content-length(?=: *(\d{1,15})\r\n)|content-length|transfer-encoding|connection)[ :]",
    re.IGNORECASE,
)
"""Those that say where a body ends. Only one length, and nothing else of these, is a plain head."""
_SLICE: Final = struct.pack("@ll", 0, 250_000)
"""A quarter of a second, as the system takes it: how exactly the clocks are kept."""
_SENDING: Final = struct.pack("@ll", int(CONNECT_TIMEOUT), 0)
"""As much for questions, which are short, as for connecting."""
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


class Response(Protocol):
    """An answer of which the head has been read."""

    status: int
    length: int | None
    """Bytes of the body that have not been read; None if the answer does not say."""

    def read(self, size: int, /) -> bytes:
        """Read some of the body; at its end, and if the connection ends, there are no bytes."""
        ...


class Connection:
    """One connection to a node; it connects again if the node has closed it."""

    def __init__(self, url: NodeUrl, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._http = (
            HTTPConnection(url.host, url.port, timeout=CONNECT_TIMEOUT)
            if tls is None
            else HTTPSConnection(url.host, url.port, timeout=CONNECT_TIMEOUT, context=tls)
        )
        self._may_be_plain = tls is None and sys.platform == "linux"  # elsewhere waits are not as exact
        self._method = ""
        self._silence = self._deadline = 0.0
        self._is_cut = False

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
        # Our own host header: a zone, as in fe80::1%eth0, means nothing to anyone else.
        lines = {"Host": self._url.host_header, "Accept-Encoding": "identity", **(headers or {})}
        content = b"" if body is None else body.encode()
        if body is not None:
            lines["Content-Length"] = str(len(content))
        fields = [f"{name}: {value}" for name, value in lines.items()]
        head = "\r\n".join([f"{method} {self._url.path}{path} HTTP/1.1", *fields, "\r\n"]).encode("ascii")
        sock = self.sock
        if sock is None or not self._is_idle(sock):
            self.close()
            sock = self._connect()
        self._method, self._silence, self._deadline = method, silence, time.monotonic() + total
        sock.sendall(head + content)

    def _connect(self) -> socket.socket:
        self._http.connect()
        sock = self._http.sock
        assert sock is not None, "it has connected"
        if self._is_cut:
            raise ConnectionAbortedError(errno.ECONNABORTED, "it was cut")
        if self._may_be_plain:
            sock.settimeout(None)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SLICE)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SENDING)
        return sock

    def _is_idle(self, sock: socket.socket) -> bool:
        """Check that no bytes have come, nor the end: otherwise nothing can be asked over a connection."""
        if not self._may_be_plain:
            return not _is_readable(sock)
        if sock.gettimeout() is not None:  # the RPC library has set it, or an answer of another form
            sock.settimeout(None)
        try:
            sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @contextmanager
    def answer(self) -> Iterator[Response]:
        """Return the answer of the last question; the connection is kept if it was read to its end."""
        plain = self._plain_answer() if self._may_be_plain else None
        if plain is not None:
            try:
                yield plain
            finally:
                if plain.length:
                    self.close()
            return
        assert self.sock is not None, "a question has been sent"
        with TimedResponse(self.sock, self._method, self._silence, self._deadline) as response:
            response.begin()
            try:
                yield response
            finally:
                if response.length or not response.isclosed() or response.will_close:
                    self.close()

    def _plain_answer(self) -> "_PlainAnswer | None":
        """Read the head of an answer; None, with nothing read, if it is of any other form than a node's."""
        assert self.sock is not None, "a question has been sent"
        if self.sock.gettimeout() is not None:  # the RPC library has set it
            self.sock.settimeout(None)
        receive = partial(_receive, self.sock, silence=self._silence, deadline=self._deadline)
        head = _PLAIN_HEAD.match(receive(_HEAD_SIZE, socket.MSG_PEEK))
        fields = () if head is None else _FIELDS_THAT_COUNT.findall(head[2])
        if head is None or len(fields) != 1 or not fields[0][1]:
            return None
        receive(head.end(), socket.MSG_WAITALL)
        return _PlainAnswer(int(head[1]), int(fields[0][1]), receive)

    def cut(self) -> None:
        """Have the question that waits for its answer fail; for another thread."""
        self._is_cut = True
        sock = self.sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def pieces(response: Response, limit: int) -> Generator[bytes, None, None]:
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
    """The connections to a node: each is used by one question at a time."""

    def __init__(self, url: NodeUrl, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._tls = tls
        self._idle: deque[Connection] = deque()
        self._used: set[Connection] = set()
        self._closed = self._is_cut = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection; whatever interrupts its use closes it, as an answer may be half read.

        Raises NodeError after `cut`.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = Connection(self._url, self._tls)
        self._used.add(connection)
        try:
            if self._is_cut:
                raise NodeError(f"{self._url} is not asked any more, because this process ends")
            yield connection
        except BaseException:
            connection.close()
            raise
        finally:
            self._used.discard(connection)
        self._idle.append(connection)
        if self._closed:
            self.close()

    def cut(self) -> None:
        """Have all questions fail, those that wait for their answers, too; for another thread."""
        self._is_cut = True
        for connection in self._used.copy():
            connection.cut()

    def close(self) -> None:
        """Close the connections; one that is in use is closed when its question is answered."""
        self._closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


class _PlainAnswer:
    """An answer whose head was read in one piece, and whose body is read with one call for each piece.

    This is the form of a node's answers. Waiting and reading are one system call then, in which other threads
    may run, where `HTTPResponse` takes some ten, and reads heads with the parser of e-mails.
    """

    def __init__(self, status: int, length: int, receive: Callable[[int, int], bytes]) -> None:
        self.status = status
        self.length: int | None = length
        self._left = length
        self._receive = receive

    def read(self, size: int, /) -> bytes:
        """Read so many bytes, fewer if they come slowly or at the end."""
        if not self._left:
            return b""
        piece = self._receive(min(size, self._left), socket.MSG_WAITALL)
        self._left -= len(piece)
        self.length = self._left
        return piece


def _receive(sock: socket.socket, size: int, flags: int, *, silence: float, deadline: float) -> bytes:
    """Receive bytes from a socket that waits for `_SLICE` at most, under both clocks."""
    began = time.monotonic()
    while True:
        now = time.monotonic()
        if now >= deadline:
            raise TimeoutError("timed out: the answer comes too slowly")
        if now >= began + silence:
            raise TimeoutError("timed out")
        with suppress(BlockingIOError):
            return sock.recv(size, flags)


class TimedResponse(HTTPResponse):
    """An answer that is read under two clocks, its headers included."""

    def __init__(self, sock: socket.socket, method: str, silence: float, deadline: float) -> None:
        super().__init__(sock, method=method)
        self.fp.close()
        self._timed = _TimedReader(sock, silence, deadline)
        self._lines = self.fp = _Lines(self._timed)

    def begin(self) -> None:
        """Read the head; raises IncompleteRead if the connection ends in it."""
        super().begin()
        self._lines.are_of_head = False

    def _read_status(self) -> tuple[str, int, str]:
        status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # it has no types
        self._lines.are_of_head = True  # the class takes an end for the empty line that ends a head
        return status

    def hurry(self, seconds: float) -> None:
        """Let whatever is still to come take so long at most."""
        self._timed.deadline = min(self._timed.deadline, time.monotonic() + seconds)

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]  # it has no types
        if size < 0:  # the class would read up to the end, however far that is
            raise ValueError("a chunk has a negative size")
        return size


class _Lines(io.BufferedReader):
    """Reads an answer, and refuses an end in its head."""

    are_of_head = False

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if self.are_of_head and not line:
            raise IncompleteRead(line)
        return line


class _TimedReader(io.RawIOBase):
    """Reads from a socket until a deadline."""

    def __init__(self, sock: socket.socket, silence: float, deadline: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)  # counts as a user of the socket until it is closed
        self._silence = silence
        self.deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]  # as its callers call it
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out: the answer comes too slowly")
        self._sock.settimeout(min(left, self._silence))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()

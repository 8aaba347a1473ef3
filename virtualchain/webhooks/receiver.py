"""A receiver, to which messages are posted over HTTP: whatever it does, an attempt ends within a minute."""

import selectors
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

from virtualchain.app.fields import legible
from virtualchain.bitcoin.node.transport import TimedResponse

CONNECT: Final = 5.0
"""Seconds for connecting to one of its addresses."""
SILENCE: Final = 20.0
"""Seconds without a byte of its answer."""
TOTAL: Final = 30.0
"""Seconds for the whole attempt after connecting."""
_KEPT: Final = 64 * 1024
"""Bytes of an answer's body that are read, so that the connection can be used again."""
_READING: Final = 2.0
"""Seconds for that: the delivery has been accepted already."""
_LONGEST_PAUSE: Final = 24 * 3600.0
"""Seconds that a receiver may ask for."""
_LONGEST_REASON: Final = 200
_ADVICE: Final = {
    3: ": redirects are not followed, so write the address that it leads to",
    410: ": the receiver wants no more deliveries",
}
"""What is added to the status of an answer, by its number or first digit."""

_REASONS: Final[Mapping[type[Exception], str]] = {
    socket.gaierror: "its host name cannot be resolved",
    TimeoutError: "it did not answer in time",
    ConnectionRefusedError: "the connection was refused",
    ConnectionError: "it closed the connection without an answer",
}
"""What errors of the connection mean, the narrower ones first."""


class NotDelivered(Exception):
    """An attempt failed; the text says why, and nothing of the address or of what was sent."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(legible(reason, _LONGEST_REASON))
        self.pause = pause
        """For how many seconds the receiver asks to be left alone."""


class Receiver:
    """One address; the connection stays open between deliveries if the receiver agrees."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None, "settings check it"
        self._path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        self._host = parts.netloc
        self._http = (
            HTTPSConnection(parts.hostname, parts.port, timeout=CONNECT, context=ssl.create_default_context())
            if parts.scheme == "https"
            else HTTPConnection(parts.hostname, parts.port, timeout=CONNECT)
        )
        self._aborted = False

    def post(self, headers: Mapping[str, str], body: bytes) -> None:
        """Deliver a message; raises NotDelivered unless the answer's status is one of success."""
        was_open = self._is_idle()
        try:
            try:
                response = self._exchange(headers, body)
            except ConnectionError:
                if not was_open or self._aborted:
                    raise
                response = self._exchange(headers, body)  # it had closed the connection just then
        except (OSError, HTTPException, ValueError) as error:
            self.close()
            raise NotDelivered(_describe(error)) from error
        try:
            self._finish(response)
        finally:
            response.close()

    def abort(self) -> None:
        """End an attempt that another thread makes, and let no other begin."""
        self._aborted = True
        sock = self._http.sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _is_idle(self) -> bool:
        """Return whether a connection is open over which nothing has come; close any other."""
        sock = self._http.sock
        if sock is not None:
            with selectors.DefaultSelector() as selector:
                selector.register(sock, selectors.EVENT_READ)
                if not selector.select(0):
                    return True
        self.close()
        return False

    def _exchange(self, headers: Mapping[str, str], body: bytes) -> TimedResponse:
        """Send the message, and read the head of the answer."""
        if self._http.sock is None:
            self._http.connect()
        sock: socket.socket = self._http.sock
        if self._aborted:
            raise ConnectionAbortedError
        deadline = time.monotonic() + TOTAL
        lines = {
            "Host": self._host,
            "User-Agent": f"virtualchain/{version('virtualchain')}",
            "Accept-Encoding": "identity",
            "Content-Length": str(len(body)),
            **headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        try:
            _send(sock, f"POST {self._path} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body, deadline)
            response = TimedResponse(sock, "POST", SILENCE, deadline)
            try:
                response.begin()
            except BaseException:
                response.close()  # it holds the socket open
                raise
        except BaseException:
            self.close()
            raise
        return response

    def _finish(self, response: TimedResponse) -> None:
        """Read the rest of the answer if it is short, and judge its status."""
        with suppress(OSError, HTTPException, ValueError):
            response.hurry(_READING)
            response.read(_KEPT)
        if response.will_close or not response.isclosed():
            self.close()
        if 200 <= response.status < 300:
            return
        advice = _ADVICE.get(response.status) or _ADVICE.get(response.status // 100, "")
        raise NotDelivered(
            f"it answered {response.status} {response.reason}".rstrip() + advice,
            _pause(response.headers.get("Retry-After")),
        )


def _send(sock: socket.socket, data: bytes, deadline: float) -> None:
    """Send everything until a deadline, however slowly it is read."""
    rest = memoryview(data)
    while rest:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)
        rest = rest[sock.send(rest) :]


def _pause(retry_after: str | None) -> float | None:
    """Read the header Retry-After, seconds or a date; None if it is neither."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        seconds = float(retry_after[:10])
    else:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), _LONGEST_PAUSE)


def _describe(error: Exception) -> str:
    """Describe why an attempt failed, without address and content, which may be secret."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no encrypted connection: {error.reason or 'the handshake failed'}"
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    if isinstance(error, OSError):
        return f"the connection failed: {error.strerror or type(error).__name__}"
    return "its answer is not HTTP"

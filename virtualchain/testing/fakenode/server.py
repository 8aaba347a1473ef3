"""HTTP: answers in bitcoind's forms, and a threaded server on the loopback interface that sends them."""

import contextlib
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from virtualchain.testing.fakenode.results import dumps

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.02
_JOIN_SECONDS = 5.0
_ONE_PIECE_BYTES = 1 << 16
"""A body of at most this size is sent together with its head."""

_DEFAULT_TYPE: Final = "text/html; charset=ISO-8859-1"
"""The content type that bitcoind's HTTP library adds if bitcoind sets none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    content_type: str
    body: bytes
    challenge: bool = False
    """Whether it asks for a user and password."""
    breaks_off: bool = False
    """Whether the connection ends in the middle of the body."""


NOT_FOUND: Final = Answer(404, _DEFAULT_TYPE, b"")
UNAUTHORIZED: Final = Answer(401, _DEFAULT_TYPE, b"", challenge=True)
ONLY_POST: Final = Answer(405, _DEFAULT_TYPE, b"JSONRPC server handles only POST requests")
BUSY: Final = Answer(503, _DEFAULT_TYPE, b"Work queue depth exceeded")
NO_CONTENT: Final = Answer(204, _DEFAULT_TYPE, b"")


def json_answer(value: object, status: int = 200) -> Answer:
    """Answer with JSON and a newline."""
    return Answer(status, "application/json", dumps(value) + b"\n")


def binary_answer(body: bytes) -> Answer:
    """Answer with bytes."""
    return Answer(200, "application/octet-stream", body)


def hex_answer(body: bytes) -> Answer:
    """Answer with bytes as hex and a newline."""
    return Answer(200, "text/plain", body.hex().encode() + b"\n")


def rest_error(status: int, message: str) -> Answer:
    """Answer a REST request with an error."""
    return Answer(status, "text/plain", f"{message}\r\n".encode())


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request."""

    method: str
    target: str
    """Path and query."""
    authorization: str | None
    body: bytes


Respond = Callable[[Request], Answer | None]
"""Answers a request; None closes the connection without an answer."""


class LoopbackServer:
    """Serves in its own threads until it is closed; `port` 0 takes a free port."""

    def __init__(self, respond: Respond, port: int = 0) -> None:
        self._server = _Server((_HOST, port), respond)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="fake node", daemon=True
        )
        self._thread.start()

    def drop_connections(self) -> None:
        """Close every open connection; new ones are accepted."""
        self._server.drop_connections()

    def close(self) -> None:
        """Close port and connections, and wait for the threads to end."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.drop_connections()
        self._server.join()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    # A test that forgets to close its node must not keep the process from ending.
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], respond: Respond) -> None:
        self.respond = respond
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._serving: list[threading.Thread] = []
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as inherited
        """Serve a connection in a thread for which `join` waits."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=self.daemon_threads
        )
        with self._lock:
            self._open.add(request)
            self._serving = [*(serving for serving in self._serving if serving.is_alive()), thread]
            thread.start()

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - as inherited
        super().shutdown_request(request)
        with self._lock:
            self._open.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as inherited
        """Ignore clients that disconnect."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def drop_connections(self) -> None:
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        for thread in self._serving:
            thread.join(_JOIN_SECONDS)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        request = Request(
            self.command,
            self.path,
            self.headers.get("Authorization"),
            self.rfile.read(int(self.headers.get("Content-Length", 0))),
        )
        answer = self.server.respond(request)
        if answer is None:
            self.close_connection = True
        else:
            self._write(answer)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names that the base class calls

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - as inherited
        """Log nothing."""

    def _write(self, answer: Answer) -> None:
        head = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        if answer.challenge:
            head.append('WWW-Authenticate: Basic realm="jsonrpc"')
        kind, date = f"Content-Type: {answer.content_type}", f"Date: {self.date_time_string()}"
        length = f"Content-Length: {len(answer.body)}"
        bodiless = self.command == "HEAD" or answer.status == HTTPStatus.NO_CONTENT
        # The type that bitcoind's HTTP library adds comes last, and only with a body.
        if answer.content_type == _DEFAULT_TYPE:
            head += [date] if bodiless else [date, length, kind]
        else:
            head += [kind, date] if bodiless else [kind, date, length]
        if self.close_connection:
            head.append("Connection: close")
        lines = "\r\n".join([*head, "", ""]).encode()
        body = b"" if self.command == "HEAD" else answer.body
        if answer.breaks_off:
            body = body[: len(body) // 2]
            self.close_connection = True
        if len(body) <= _ONE_PIECE_BYTES:
            self.wfile.write(lines + body)
        else:
            self.wfile.write(lines)
            self.wfile.write(body)

"""A threaded HTTP server on the loopback interface: it reads requests and writes answers, no more."""

import contextlib
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from virtualchain.testing.answers import HTML, Answer

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.02
_JOIN_SECONDS = 5.0
_SMALL = 1 << 16
"""Bytes up to which head and body go out in one piece."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request."""

    method: str
    target: str
    """Path and query."""
    authorization: str | None
    body: bytes


Respond = Callable[[Request], Answer | None]
"""Answers a request; None closes the connection without a word."""


class LoopbackServer:
    """Serves in threads of its own until it is closed; `port` 0 takes a free one."""

    def __init__(self, respond: Respond, port: int = 0) -> None:
        self._server = _Server((_HOST, port), respond)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="fake node", daemon=True
        )
        self._thread.start()

    def drop_connections(self) -> None:
        """Close every open connection; new ones are taken."""
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
        """Serve a connection in a thread that `join` knows of."""
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
        """Say nothing of clients that go away."""
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
        """Keep quiet."""

    def _write(self, answer: Answer) -> None:
        head = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        if answer.challenge:
            head.append('WWW-Authenticate: Basic realm="jsonrpc"')
        kind, date = f"Content-Type: {answer.content_type}", f"Date: {self.date_time_string()}"
        length = f"Content-Length: {len(answer.body)}"
        bodiless = self.command == "HEAD" or answer.status == HTTPStatus.NO_CONTENT
        # The type that bitcoind's HTTP library fills in by itself comes last, and only with a body.
        if answer.content_type == HTML:
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
        if len(body) <= _SMALL:
            self.wfile.write(lines + body)
        else:
            self.wfile.write(lines)
            self.wfile.write(body)

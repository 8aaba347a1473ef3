"""A web server that says what a test tells it to, word for word or broken off: a node gone wrong."""

import base64
import json
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """One answer: its status, body and type, and what becomes of the connection."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    missing: int = 0
    """Bytes that are announced and do not come."""
    hang_up: bool = False
    """Whether the connection is closed behind the answer, without a word in it."""
    say_nothing: bool = False
    """Whether the connection is closed in place of an answer."""
    wait_for: threading.Event | None = None
    """What must happen before the answer comes."""


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    path: str
    authorization: str
    body: Any
    connection: int
    """A number for each connection, the same for its requests."""


def result(value: object, **options: Any) -> Reply:
    """Answer as JSON-RPC does; `value` may be JSON text, so that numbers stay as they are written."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Reply(body=b'{"result": %b, "error": null, "id": 1}' % text, **options)


def error(code: int, message: str = "so it is", status: int = 500) -> Reply:
    """Answer with a JSON-RPC error."""
    return Reply(
        status, json.dumps({"result": None, "error": {"code": code, "message": message}, "id": 1}).encode()
    )


@dataclass
class Scripted:
    """The server: gives the planned replies in their order, then what `always` makes of each request."""

    replies: deque[Reply] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)
    always: Callable[[Request], Reply] = lambda _: Reply(500, b"nothing planned", "text/plain")

    def __post_init__(self) -> None:
        scripted, connections = self, iter(range(1_000_000))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else the body waits 40 ms for the headers to be acknowledged

            def setup(self) -> None:
                super().setup()
                self.number = next(connections)

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                request = Request(self.path, self.headers.get("Authorization", ""), body, self.number)
                scripted.requests.append(request)
                reply = scripted.replies.popleft() if scripted.replies else scripted.always(request)
                self.close_connection |= reply.hang_up or reply.say_nothing or reply.missing > 0
                if reply.wait_for is not None:
                    reply.wait_for.wait(10)
                if reply.say_nothing:
                    return
                with suppress(ConnectionError):  # the client may have given up
                    self.send_response(reply.status)
                    self.send_header("Content-Type", reply.content_type)
                    self.send_header("Content-Length", str(len(reply.body) + reply.missing))
                    self.end_headers()
                    self.wfile.write(reply.body)

            do_POST = do_GET  # noqa: N815  the name that the library calls

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._server.server_port}"

    def will(self, *replies: Reply) -> None:
        """Plan these replies, one for each request."""
        self.replies.extend(replies)

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def basic(credentials: str) -> str:
    """Give the header that proves these credentials, `user:password`."""
    return "Basic " + base64.b64encode(credentials.encode()).decode()

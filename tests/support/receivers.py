"""Receivers of webhooks: real servers on the loopback that fail as the test says."""

import json
import random
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from virtualchain.settings import WebhookSetting
from virtualchain.webhooks.messages import Webhook

KEY = "a secret"


PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"


def documented() -> dict[str, Any]:
    """Run the Python of the page, and return what it defines."""
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(code, names)
    return names


verify: Callable[[str, Any, bytes, float], bool] = documented()["verify"]


class Receiver:
    """Keeps the events that it is sent, each once, as a program would that follows docs/webhooks.md.

    `decide` is called with the number of each request and returns a status, or None to close the connection.
    `keeps` is called, too, and returns whether the event is kept in any case; by default it is if the status
    is 204.
    """

    def __init__(
        self,
        decide: Callable[[int], int | None] = lambda number: 204,
        keeps: Callable[[int], bool] | None = None,
    ) -> None:
        self.events: list[dict[str, Any]] = []
        """Those that were kept, in their order."""
        self.attempts: list[str] = []
        """The ids of all requests."""
        self.complaints: list[str] = []
        self.headers: dict[str, str] = {}
        """What is answered besides the status."""
        self.body = b""
        self._decide = decide
        self._keeps = keeps
        self._ids: set[str] = set()
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        """Where it listens, from its first start on."""
        self._connections: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/hook"

    def start(self) -> None:
        """Listen, on the same port as before."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                receiver._connections.add(self.connection)

            def finish(self) -> None:
                receiver._connections.discard(self.connection)
                with suppress(OSError):
                    super().finish()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver._take(self.headers, body)
                if status is None:
                    self.close_connection = True
                    return
                with suppress(OSError):
                    self.send_response(status)
                    for name, value in {
                        "Content-Length": str(len(receiver.body)),
                        **receiver.headers,
                    }.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(receiver.body)

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                pass  # a connection that was cut by `stop`

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """End, and cut all connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            for connection in list(self._connections):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._server = None

    def _take(self, headers: Any, body: bytes) -> int | None:
        with self._lock:
            number = len(self.attempts)
            self.attempts.append(headers["Virtualchain-Id"])
            status = self._decide(number)
            is_kept = (
                status is not None and 200 <= status < 300 if self._keeps is None else self._keeps(number)
            )
            if not verify(KEY, headers, body, time.time()):
                self.complaints.append("the signature is wrong")
            event = json.loads(body)
            if (event["id"], event["event"]) != (headers["Virtualchain-Id"], headers["Virtualchain-Event"]):
                self.complaints.append("headers and body differ")
            if is_kept and event["id"] not in self._ids:
                self._ids.add(event["id"])
                self.events.append(event)
            return status

    def wait(self, holds: Callable[["Receiver"], bool], seconds: float = 30.0) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + seconds
        while not holds(self):
            assert time.monotonic() < deadline, (len(self.events), self.attempts[-3:], self.complaints)
            time.sleep(0.01)

    @property
    def blocks(self) -> list[int]:
        """The blocks of the events that were kept; those of rollbacks are negative."""
        sign = {"block": 1, "rollback": -1}
        return [event["block_id"] * sign[event["event"]] for event in self.events]


def unreliable(seed: int) -> Receiver:
    """Make a receiver that fails a third of the time, with an answer or without, and may keep the event."""
    dice = random.Random(seed)
    fates: dict[int, tuple[int | None, bool]] = {}

    def fate(number: int) -> tuple[int | None, bool]:
        if number not in fates:
            fails = dice.random() < 1 / 3
            fates[number] = (
                (dice.choice([500, 503, 404, None]), dice.random() < 0.5) if fails else (200, True)
            )
        return fates[number]

    return Receiver(lambda number: fate(number)[0], lambda number: fate(number)[1])


def webhook(receiver: Receiver, app: str = "plain", **fields: Any) -> Webhook:
    """Return the setting of a webhook for a receiver."""
    name = fields.pop("name", app)
    url = fields.pop("url", receiver.url)
    return Webhook(WebhookSetting(name=name, app=app, url=url, secret=KEY, **fields), KEY.encode())

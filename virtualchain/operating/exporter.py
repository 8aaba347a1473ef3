"""What `run --metrics` answers: /metrics, /health and /ready, from threads that the writer never waits for.

Nobody is logged in, so it listens on this machine unless another address is chosen. A connection has seconds,
and if there are many, the oldest is closed for the newest: a client that is slow, or means harm, keeps nobody
else from an answer.
"""

import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

import psycopg

from virtualchain.engine.measures import Measures
from virtualchain.errors import StoreError, UsageError
from virtualchain.metrics import READY_LAG, Sample, unready
from virtualchain.model import Json
from virtualchain.operating.exposition import Exposition
from virtualchain.reading.reported import size
from virtualchain.store.database import connect_reader
from virtualchain.store.patience import Patience

_MOST: Final = 64
"""Connections that are open at once."""
_PATIENCE: Final = 5.0
"""Seconds for which a connection may be silent."""
_POLL: Final = 0.2
"""Seconds until the server notices that it is to end."""
_SIZED_EVERY: Final = 60.0
"""Seconds between two looks at the database's size."""
_SIZE_KEEPS: Final = 180.0
"""Seconds after which a size is too old to be reported."""
_JSON: Final = "application/json"


class Exporter:
    """A server of a writer's measures, and of the size of its database."""

    def __init__(
        self, measures: Measures, database: str, host: str, port: int, *, ready_lag: int = READY_LAG
    ) -> None:
        """Listen; port 0 is any free one. Raises UsageError if that is not possible."""
        self._measures = measures
        self._ready_lag = ready_lag
        self._size = _Size(database)
        self._exposition = Exposition(self._samples, process=True)
        self._server = _listen(host, port, self._answer)
        shown, number = self._server.server_address[:2]
        shown = shown if isinstance(shown, str) else shown.decode()
        self.url: Final = f"http://{f'[{shown}]' if ':' in shown else shown}:{number}/metrics"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Answer meanwhile."""
        threads = [
            threading.Thread(target=self._server.serve_forever, args=(_POLL,), name="metrics", daemon=True),
            threading.Thread(target=self._size.keep, name="database size", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._size.end()
            self._server.shutdown()
            self._server.server_close()

    def _samples(self) -> list[Sample]:
        samples, known = self._measures.samples(), self._size.bytes
        return (
            samples if known is None else [*samples, Sample("virtualchain_database_size_bytes", float(known))]
        )

    def _answer(self, path: str, accept: str | None) -> tuple[HTTPStatus, bytes, str]:
        """Return the status, body and media type for a path."""
        match path:
            case "/metrics":
                return HTTPStatus.OK, *self._exposition.write(accept)
            case "/health":
                is_alive = self._measures.is_alive()
                waits_for = self._measures.clock.waits_for
                return _json({"alive": is_alive, "waits_for": waits_for}, is_good=is_alive)
            case "/ready":
                reasons = unready(self._measures.samples(), self._ready_lag)
                return _json({"ready": not reasons, "reasons": reasons}, is_good=not reasons)
            case _:
                return HTTPStatus.NOT_FOUND, b"there are /metrics, /health and /ready\n", "text/plain"


def _json(value: Json, *, is_good: bool) -> tuple[HTTPStatus, bytes, str]:
    status = HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
    return status, json.dumps(value).encode() + b"\n", _JSON


class _Size:
    """The database's size, from short sessions of a reader's own; what the database does delays nobody."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ended = threading.Event()
        self._known: tuple[int, float] | None = None

    @property
    def bytes(self) -> int | None:
        """The size in bytes; None if it is not known, or was learned too long ago."""
        known = self._known
        return None if known is None or time.monotonic() - known[1] > _SIZE_KEEPS else known[0]

    def keep(self) -> None:
        """Look again and again, until `end`."""
        patience = Patience(may_continue=lambda: not self._ended.is_set())
        while not self._ended.is_set():
            with suppress(StoreError, psycopg.Error), closing(connect_reader(self._url, patience)) as session:
                self._known = size(session), time.monotonic()
            self._ended.wait(_SIZED_EVERY)

    def end(self) -> None:
        """Look no more."""
        self._ended.set()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, family: socket.AddressFamily, address: Any, handler: type["_Handler"]) -> None:  # noqa: ANN401 - of any family
        self.address_family = family
        self._connections: dict[Any, None] = {}
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's own
        """Answer in a thread; if too many are open, close the oldest connection."""
        with self._lock:
            self._connections[request] = None
            oldest = next(iter(self._connections)) if len(self._connections) > _MOST else None
            if oldest is not None:
                del self._connections[oldest]
        if oldest is not None:
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)  # its thread closes it
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - socketserver's own
        """Forget a connection that has ended."""
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's own
        """Ignore it: the client is gone, or was sent away."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE
    server_version, sys_version = "virtualchain", ""
    answer: Any
    """`Exporter._answer` of the server's exporter."""

    def do_GET(self) -> None:
        """Answer with the body."""
        self.wfile.write(self._head())

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self._head()

    def _head(self) -> bytes:
        path = self.path.partition("?")[0]
        status, body, media_type = self.answer(path, self.headers.get("Accept"))
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        return bytes(body)

    def log_message(self, *_: object) -> None:
        """Log nothing: probes come every few seconds."""


def _listen(host: str, port: int, answer: Any) -> _Server:  # noqa: ANN401 - see `_Handler`
    handler = type("_AnsweringHandler", (_Handler,), {"answer": staticmethod(answer)})
    try:
        [(family, _, _, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return _Server(family, address, handler)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"--metrics: {host} port {port} cannot be used: {why}; choose another one"
        ) from error

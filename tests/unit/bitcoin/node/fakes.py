"""Stand-ins for a node: a JSON-RPC client with fixed answers, and a web server that follows a script."""

import base64
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.node.client import NotOffered
from virtualchain.bitcoin.node.login import read_url
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.bitcoin.payload import watch
from virtualchain.bitcoin.prefetch import fetch
from virtualchain.errors import MissingData, VirtualchainError
from virtualchain.testing import FakeNode

REGTEST = network("regtest")
A, B, C = "aa" * 32, "bb" * 32, "cc" * 32


class StubRpc:
    """A JSON-RPC client whose methods are functions or fixed answers."""

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.calls: list[tuple[object, ...]] = []

    def call(self, method: str, *parameters: object) -> Any:
        """Return the method's answer, or raise it if it is an error; any other method is not offered."""
        self.calls.append((method, *parameters))
        answer = self.answers.get(method, NotOffered("no such method"))
        if callable(answer):
            answer = answer(*parameters)
        if isinstance(answer, VirtualchainError):
            raise answer
        return answer

    def call_each(self, method: str, questions: Iterable[Sequence[object]]) -> Iterator[Any]:
        """Call a method with each of these parameters."""
        return (self.call(method, *parameters) for parameters in questions)

    def find_each(self, method: str, questions: Iterable[Sequence[object]]) -> Iterator[Any]:
        """Call a method with each of these parameters; None if the data is missing."""
        for parameters in questions:
            try:
                yield self.call(method, *parameters)
            except MissingData:
                yield None

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def source(self) -> NodeSource:
        """Make a source that asks only this client."""
        return NodeSource(read_url("http://u:p@h:1"), REGTEST, self, None, spent_by_rest=False)  # type: ignore[arg-type]


def scan_tip(source: Any, node: FakeNode) -> tuple[Any, ...]:
    """Fetch the inputs of the node's last block, with what they spend."""
    headers = source.headers_after(node.height - 1, node.chain.tree.chain[-2].block.hash)
    return fetch(source, Scanner([watch(b"id", None, "test")], REGTEST), headers[0]).inputs


def transaction(txid: str, *values: str | None) -> dict[str, Any]:
    """Make a transaction as the node prints it; None stands for an input without its prevout."""
    return {
        "txid": txid,
        "vin": [
            {} if value is None else {"prevout": {"value": Decimal(value), "scriptPubKey": {"hex": "51"}}}
            for value in values
        ],
    }


NO_INDEX = MissingData("Use -txindex or provide a block hash")
"""How a node without an index of transactions answers."""


def only_in_block(answer: object) -> Callable[..., object]:
    """Answer `getrawtransaction` as a node without an index of transactions does."""
    return lambda _, verbosity, block_hash=None: answer if block_hash and verbosity == 2 else NO_INDEX


@dataclass(frozen=True)
class Reply:
    """One answer: its status, body and type, and what happens to the connection."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    missing: int = 0
    """Bytes that are announced but not sent."""
    hang_up: bool = False
    """Whether the connection is closed after the answer, without announcing it."""
    cuts_head: bool = False
    """Whether the connection ends in front of the empty line that ends the head."""
    no_answer: bool = False
    """Whether the connection is closed instead of an answer."""
    wait_for: threading.Event | None = None
    """An event that must be set before the answer is sent."""


@dataclass(frozen=True)
class Request:
    """A client's request."""

    path: str
    authorization: str
    body: Any
    connection: int
    """The connection's number, the same for all of its requests."""


def result(value: object, **options: Any) -> Reply:
    """Answer with a JSON-RPC result; in JSON text as `value`, numbers stay as they are written."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Reply(body=b'{"result": %b, "error": null, "id": 1}' % text, **options)


def error(code: int, message: str = "failed", status: int = 500) -> Reply:
    """Answer with a JSON-RPC error."""
    return Reply(
        status, json.dumps({"result": None, "error": {"code": code, "message": message}, "id": 1}).encode()
    )


@dataclass
class ScriptedServer:
    """A server that sends the planned replies in order, then what `always` makes of each request."""

    replies: deque[Reply] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)
    always: Callable[[Request], Reply] = lambda _: Reply(500, b"nothing planned", "text/plain")

    def __post_init__(self) -> None:
        server, connections = self, iter(range(1_000_000))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else the body waits 40 ms for the acknowledgment of the headers

            def setup(self) -> None:
                super().setup()
                self.number = next(connections)

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                request = Request(self.path, self.headers.get("Authorization", ""), body, self.number)
                server.requests.append(request)
                reply = server.replies.popleft() if server.replies else server.always(request)
                is_cut = reply.no_answer or reply.missing > 0 or reply.cuts_head
                self.close_connection |= reply.hang_up or is_cut
                if reply.wait_for is not None:
                    reply.wait_for.wait(10)
                if reply.no_answer:
                    return
                with suppress(ConnectionError):  # the client may have given up
                    self.send_response(reply.status)
                    self.send_header("Content-Type", reply.content_type)
                    if reply.cuts_head:
                        self.flush_headers()
                        return
                    self.send_header("Content-Length", str(len(reply.body) + reply.missing))
                    self.end_headers()
                    self.wfile.write(reply.body)

            do_POST = do_GET  # noqa: N815  the name that the library calls

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._server.server_port}"

    def plan(self, *replies: Reply) -> None:
        """Plan these replies, one for each request."""
        self.replies.extend(replies)

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def basic(credentials: str) -> str:
    """Write the Authorization header for these credentials, `user:password`."""
    return "Basic " + base64.b64encode(credentials.encode()).decode()

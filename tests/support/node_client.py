"""A plain HTTP client for tests that check every header and byte of a node's replies."""

import http.client
import json
from base64 import b64encode
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply; `headers` are in order and leave out the date."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def json(self) -> Any:
        """Parse the body."""
        return json.loads(self.body)


class NodeClient:
    """A keep-alive connection to a node; `url` contains user and password."""

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        parts = urlsplit(url)
        credentials = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
        self.authorization = {"Authorization": f"Basic {b64encode(credentials).decode()}"}
        assert parts.hostname is not None
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def request(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> Reply:
        """Send one request; after an error, the next request opens a new connection."""
        try:
            self._connection.request(method, path, body, headers or {})
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        kept = tuple((name, value) for name, value in answer.getheaders() if name != "Date")
        return Reply(answer.status, kept, content)

    def post(self, body: str) -> Reply:
        """Post a body to the JSON-RPC interface, with the password."""
        return self.request("POST", "/", body, self.authorization)

    def call(self, method: str, *params: object) -> Reply:
        """Call a JSON-RPC method."""
        return self.post(json.dumps({"method": method, "params": params, "id": 1}))

    def result(self, method: str, *params: object) -> Any:
        """Call a JSON-RPC method that must succeed."""
        reply = self.call(method, *params)
        assert reply.status == 200, reply
        return reply.json()["result"]

    def get(self, path: str) -> Reply:
        """Request a path of the REST interface, without a password."""
        return self.request("GET", f"/rest/{path}")

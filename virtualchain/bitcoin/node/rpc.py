"""JSON-RPC: single questions to a node through python-bitcoinrpc, which nothing else here knows of.

What the library leaves to its caller is done in this one place. It never reconnects, sends passwords as
they are encoded in the URL, dumps each result once more for a debug log (longer than the rest takes, for a
block) and makes every answer that is no JSON look alike. So it gets a connection of ours, that carries our
login, and an answer of ours, that is read once and has every fault told apart.
"""

import json
from collections import deque
from contextlib import suppress
from decimal import Decimal
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Final

from bitcoinrpc.authproxy import AuthServiceProxy, JSONRPCException
from urllib3.util import wait_for_read

from virtualchain.bitcoin.node.login import Login, NodeUrl
from virtualchain.bitcoin.node.retry import patiently
from virtualchain.errors import MissingData, NodeError, NodeUnavailable

TIMEOUT: Final = 30.0
"""Seconds without a byte from the node; a large flush of its database takes many of them."""
_CONNECT_TIMEOUT: Final = 5.0

Answer = Any
"""A method's result: JSON of whatever form, its fractions as Decimal. Whoever takes it apart checks it."""

_MISSING: Final = {-1, -5, -8, -32603}
"""Codes for a block or transaction that is pruned, unknown, above the tip, or without its undo data."""
_WARMING_UP: Final = -28
_NO_SUCH_METHOD: Final = -32601


class NotOffered(NodeError):
    """The node does not have a method, or does not let us call it."""


class Rpc:
    """Asks a node; safe to use from several threads at once, each call on a connection of its own.

    A connection is kept for the next call of whatever thread: threads come and go and leave none behind.
    """

    def __init__(self, where: NodeUrl, login: Login) -> None:
        self._where = where
        self._login = login
        self._idle: deque[_Connection] = deque()
        self._closed = False

    def call(self, method: str, *parameters: object) -> Answer:
        """Ask and give the result.

        A passing fault is retried for a few seconds. Raises NodeUnavailable; MissingData where the node
        does not have what was asked for; NotOffered; NodeError for everything else.
        """
        return patiently(lambda: self._ask_as_known(method, parameters))

    def close(self) -> None:
        """Close the connections; one that is in use is closed at the end of its call."""
        self._closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _ask_as_known(self, method: str, parameters: tuple[object, ...]) -> Answer:
        authorization = self._login.authorization()
        try:
            return self._ask(method, parameters, authorization)
        except _Unauthorized:
            self._login.refused(authorization)
        authorization = self._login.authorization()
        try:
            return self._ask(method, parameters, authorization)
        except _Unauthorized as error:
            raise NodeUnavailable(f"{self._where} refuses a login that it has just renewed") from error

    def _ask(self, method: str, parameters: tuple[object, ...], authorization: str) -> Answer:
        connection = self._connection()
        connection.authorization = authorization
        try:
            result = _Question(self._where, method, connection)(*parameters)
        except JSONRPCException as error:
            self._keep(connection)
            raise self._fault(method, parameters, error) from error
        except (OSError, HTTPException) as error:
            connection.close()
            reason = getattr(error, "strerror", None) or repr(error)
            raise NodeUnavailable(
                f"{self._where} does not answer {method} ({reason}): is it running?"
            ) from error
        except BaseException:  # the connection may stand in the middle of an answer, whatever came between
            connection.close()
            raise
        self._keep(connection)
        return result

    def _keep(self, connection: "_Connection") -> None:
        self._idle.append(connection)
        if self._closed:
            self.close()

    def _connection(self) -> "_Connection":
        """Take a connection that is not in use; one that the node has closed connects anew by itself."""
        try:
            connection = self._idle.pop()
        except IndexError:
            return _Connection(self._where.host, self._where.port, timeout=_CONNECT_TIMEOUT)
        if connection.sock is None or wait_for_read(connection.sock, timeout=0.0):
            connection.close()
        return connection

    def _fault(self, method: str, parameters: tuple[object, ...], error: JSONRPCException) -> NodeError:
        question = " ".join([method, *map(str, parameters)])
        said = f"{self._where} answers {question!r} with {error.message!r} (code {error.code})"
        if error.code == _WARMING_UP:
            return NodeUnavailable(f"{said}: it is starting, try again in a while")
        if error.code == _NO_SUCH_METHOD:
            return NotOffered(f"{said}: virtualchain needs Bitcoin Core 25 or later, or Knots")
        if error.code in _MISSING:
            return MissingData(said)
        return NodeError(said)


class _Unauthorized(Exception):
    """The node wants another login."""


class _Connection(HTTPConnection):
    """A connection whose requests carry our login in place of the library's."""

    authorization = ""

    def request(  # type: ignore[override]  # only what the library passes
        self, method: str, url: str, body: str, headers: dict[str, str]
    ) -> None:
        super().request(method, url, body, {**headers, "Authorization": self.authorization})


class _Question(AuthServiceProxy):  # type: ignore[misc]  # the library has no types
    """One call by the library, on our connection and with our reading of the answer."""

    def __init__(self, where: NodeUrl, method: str, connection: _Connection) -> None:
        # The library wants a login in its URL; what it makes of it is replaced by the connection.
        url = str(where).replace("http://", "http://user:password@") + "/"
        super().__init__(url, method, TIMEOUT, connection)
        self._where = where
        self._connection = connection

    def _get_response(self) -> dict[str, Any]:
        response: HTTPResponse = self._connection.getresponse()
        body = response.read()
        if response.status == 401:
            raise _Unauthorized
        if response.status == 403:
            raise NotOffered(f"{self._where} forbids it: look at rpcallowip and rpcwhitelist in bitcoin.conf")
        if response.status == 503:
            raise NodeUnavailable(
                f"{self._where} has no time now: {body[:200].decode(errors='replace').strip()}"
            )
        try:
            answer = json.loads(body, parse_float=Decimal)
        except ValueError as error:
            raise self._nonsense(response, body) from error
        if not isinstance(answer, dict) or not (answer.get("error") is None or _is_error(answer["error"])):
            raise self._nonsense(response, body)
        return answer

    def _nonsense(self, response: HTTPResponse, body: bytes) -> NodeError:
        return NodeError(
            f"what answers at {self._where} is no Bitcoin node: HTTP status {response.status}, {body[:80]!r}"
        )


def _is_error(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("code"), int)

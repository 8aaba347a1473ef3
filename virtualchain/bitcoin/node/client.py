"""Asking a node: JSON-RPC for single values, REST for bytes, and patience with both.

JSON-RPC goes through python-bitcoinrpc, which is used nowhere else; everything that it leaves to its caller
is done here. The library never reconnects, sends a password as it is encoded in the URL, dumps each result a
second time for a debug log (which takes longer than everything else, for a block), and makes all answers that
are not JSON look alike. So it is given a connection of our own, which carries our login, and the answer is
read here, once, with a different error for each fault.

REST answers are binary and cost the node and us a tenth of the same answer as JSON.
"""

import json
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from decimal import Decimal
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Final, TypeVar

import urllib3
from bitcoinrpc.authproxy import AuthServiceProxy, JSONRPCException
from urllib3.exceptions import HTTPError
from urllib3.util import wait_for_read

from virtualchain.bitcoin.node.login import Login, NodeUrl
from virtualchain.errors import MissingData, NodeError, NodeUnavailable, quoted

T = TypeVar("T")

RETRY_PAUSES: Final = (0.0, 0.1, 0.3, 1.0)
"""Seconds before each retry. The first is immediate: it recovers from a connection dropped while idle."""
RETRY_TIME: Final = 5.0
"""Seconds after which an error is raised, whatever retries are left: a timeout has used them up."""
CONNECT_TIMEOUT: Final = 5.0
READ_TIMEOUT: Final = 30.0
"""Seconds without a byte from the node; a large flush of its database takes many of them."""

Answer = Any
"""A method's result: JSON of any form, fractions as Decimal. The caller that takes it apart checks it."""

_MISSING: Final = {-1, -5, -8, -32603}
"""Codes for a block or transaction that is pruned, unknown, above the tip, or without its undo data."""
_WARMING_UP: Final = -28
_NO_SUCH_METHOD: Final = -32601
_REST_CONNECTIONS: Final = 16
_REASON_SIZE: Final = 500
"""Bytes that are read of an error's text."""


class NotOffered(NodeError):
    """The node does not have a method or a path, or does not let us use it."""


def with_retries(ask: Callable[[], T]) -> T:
    """Call `ask`, and again if the node is unavailable; raises the NodeUnavailable of the last attempt.

    Only for queries: asking twice must have the same effect as asking once.
    """
    deadline = time.monotonic() + RETRY_TIME
    for pause in RETRY_PAUSES:
        try:
            return ask()
        except NodeUnavailable:
            if time.monotonic() > deadline:
                raise
        time.sleep(pause)
    return ask()


class Rpc:
    """A node's JSON-RPC interface; safe to use from several threads at once, each call on its own connection.

    A connection is kept for the next call of any thread, so threads that end leave none behind.
    """

    def __init__(self, url: NodeUrl, login: Login) -> None:
        self._url = url
        self._login = login
        self._idle: deque[_Connection] = deque()
        self._closed = False

    def call(self, method: str, *parameters: object) -> Answer:
        """Call a method and return its result.

        Temporary faults are retried for a few seconds. Raises NodeUnavailable; MissingData if the node does
        not have the data; NotOffered; NodeError for everything else.
        """
        return with_retries(lambda: self._ask_logged_in(method, parameters))

    def close(self) -> None:
        """Close the connections; one that is in use is closed when its call ends."""
        self._closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _ask_logged_in(self, method: str, parameters: tuple[object, ...]) -> Answer:
        authorization = self._login.authorization()
        try:
            return self._ask(method, parameters, authorization)
        except _Unauthorized:
            self._login.renew(authorization)
        authorization = self._login.authorization()
        try:
            return self._ask(method, parameters, authorization)
        except _Unauthorized as error:
            raise NodeUnavailable(f"{self._url} refuses a login that was just renewed") from error

    def _ask(self, method: str, parameters: tuple[object, ...], authorization: str) -> Answer:
        connection = self._connection()
        connection.authorization = authorization
        try:
            result = _Call(self._url, method, connection)(*parameters)
        except JSONRPCException as error:
            self._keep(connection)
            raise self._fault(method, parameters, error) from error
        except (OSError, HTTPException) as error:
            connection.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NodeUnavailable(
                f"{self._url} does not answer {method} ({reason}): is it running?"
            ) from error
        except BaseException:  # whatever interrupted the call, an answer may be half read
            connection.close()
            raise
        self._keep(connection)
        return result

    def _keep(self, connection: "_Connection") -> None:
        self._idle.append(connection)
        if self._closed:
            self.close()

    def _connection(self) -> "_Connection":
        """Take a connection that is not in use; if the node has closed it, the next request reconnects."""
        try:
            connection = self._idle.pop()
        except IndexError:
            return _Connection(self._url.host, self._url.port, timeout=CONNECT_TIMEOUT)
        if connection.sock is None or wait_for_read(connection.sock, timeout=0.0):
            connection.close()
        return connection

    def _fault(self, method: str, parameters: tuple[object, ...], error: JSONRPCException) -> NodeError:
        call = " ".join([method, *map(str, parameters)])
        message = f"{self._url} answers {quoted(call)} with {quoted(error.message)} (code {error.code})"
        if error.code == _WARMING_UP:
            return NodeUnavailable(f"{message}: it is starting, try again in a while")
        if error.code == _NO_SUCH_METHOD:
            return NotOffered(f"{message}: virtualchain needs Bitcoin Core 25 or later, or Knots")
        if error.code in _MISSING:
            return MissingData(message)
        return NodeError(message)


class _Unauthorized(Exception):
    """The node rejected the login."""


class _Connection(HTTPConnection):
    """A connection whose requests carry our login instead of the library's."""

    authorization = ""

    def request(  # type: ignore[override]  # only what the library passes
        self, method: str, url: str, body: str, headers: dict[str, str]
    ) -> None:
        super().request(method, url, body, {**headers, "Authorization": self.authorization})


class _Call(AuthServiceProxy):  # type: ignore[misc]  # the library has no types
    """One call through the library, on our connection and with our own reading of the answer."""

    def __init__(self, url: NodeUrl, method: str, connection: _Connection) -> None:
        # The library requires a login in its URL; `_Connection` replaces the header that it makes from it.
        login_url = str(url).replace("http://", "http://user:password@") + "/"
        super().__init__(login_url, method, READ_TIMEOUT, connection)
        self._url = url
        self._connection = connection

    def _get_response(self) -> dict[str, Any]:
        response: HTTPResponse = self._connection.getresponse()
        body = response.read()
        if response.status == 401:
            raise _Unauthorized
        if response.status == 403:
            raise NotOffered(f"{self._url} forbids it: check rpcallowip and rpcwhitelist in bitcoin.conf")
        if response.status == 503:
            raise NodeUnavailable(f"{self._url} is busy: {body[:200].decode(errors='replace').strip()}")
        try:
            answer = json.loads(body, parse_float=Decimal)
        except ValueError as error:
            raise self._nonsense(response, body) from error
        if not isinstance(answer, dict) or not (answer.get("error") is None or _is_error(answer["error"])):
            raise self._nonsense(response, body)
        return answer

    def _nonsense(self, response: HTTPResponse, body: bytes) -> NodeError:
        return NodeError(
            f"{self._url} is not a Bitcoin node: it answers with HTTP status {response.status}, "
            f"{quoted(body)}"
        )


def _is_error(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("code"), int)


class Rest:
    """A node's REST interface, over connections that stay open; safe to use from several threads."""

    def __init__(self, url: NodeUrl) -> None:
        self._url = url
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT)
        self._pool = urllib3.HTTPConnectionPool(
            url.host, url.port, timeout=timeout, maxsize=_REST_CONNECTIONS
        )

    def get(self, path: str, limit: int) -> bytes:
        """Fetch what is at `path`, at most `limit` bytes.

        Temporary faults are retried for a few seconds. Raises NodeUnavailable; MissingData if the node does
        not have the data; NotOffered if it does not know the path, like a node restarted without REST;
        NodeError for everything else.
        """
        status, body = with_retries(lambda: self._get(path, limit))
        if status == HTTPStatus.OK:
            return body
        reason = body.decode(errors="replace").strip()
        message = f"{self._url} answers {path} with {quoted(reason or 'no reason')} (status {status})"
        if status == HTTPStatus.NOT_FOUND and reason:
            raise MissingData(message)
        if status == HTTPStatus.NOT_FOUND:
            raise NotOffered(message)
        raise NodeError(message)

    def offers(self, path: str) -> bool:
        """Check whether the node has anything at `path`; raises NodeUnavailable."""
        status, _ = with_retries(lambda: self._get(path, limit=1 << 16))
        return status == HTTPStatus.OK

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _get(self, path: str, limit: int) -> tuple[int, bytes]:
        try:
            response = self._pool.request("GET", path, retries=False, redirect=False, preload_content=False)
            with closing(response):  # the connection is kept if the whole answer was read
                body = response.read((limit if response.status == HTTPStatus.OK else _REASON_SIZE) + 1)
        except HTTPError as error:
            raise NodeUnavailable(f"{self._url} does not answer {path} ({error}): is it running?") from error
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise NodeUnavailable(f"{self._url} is busy: {body.decode(errors='replace').strip()}")
        if response.status == HTTPStatus.OK and len(body) > limit:
            raise NodeError(
                f"{self._url} answers {path} with more than {limit} bytes: no Bitcoin node does that"
            )
        return response.status, body

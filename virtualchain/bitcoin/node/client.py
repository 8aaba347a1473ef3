"""Asking a node: JSON-RPC for single values, REST for bytes, and patience with both.

JSON-RPC goes through python-bitcoinrpc, which is used nowhere else; everything that it leaves to its caller
is done here. The library never reconnects, sends a password as it is encoded in the URL, dumps each result a
second time for a debug log (which takes longer than everything else, for a block), and makes all answers that
are not JSON look alike. So it is given a connection of our own, which carries our login, and the answer is
read here, once, with a different error for each fault. Batches are written here, too: the library's end at
the first error, and do not look at which answer belongs to which question.

REST answers are binary and cost the node and us a tenth of the same answer as JSON.
"""

import json
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from http import HTTPStatus
from http.client import HTTPException
from itertools import islice
from typing import Any, Final, TypeVar

from bitcoinrpc.authproxy import AuthServiceProxy, JSONRPCException

from virtualchain.bitcoin.node.login import Login, NodeUrl
from virtualchain.bitcoin.node.slimming import slim
from virtualchain.bitcoin.node.transport import Connection, Pool, Response, TooLong, pieces
from virtualchain.errors import MissingData, NodeError, NodeUnavailable, quoted

T = TypeVar("T")

RETRY_PAUSES: Final = (0.0, 0.1, 0.3, 1.0)
"""Seconds before each retry. The first is immediate: it recovers from a connection dropped while idle."""
RETRY_TIME: Final = 5.0
"""Seconds after which an error is raised, whatever retries are left: a timeout has used them up."""
READ_TIMEOUT: Final = 30.0
"""Seconds without a byte from the node; a large flush of its database takes many of them."""
ANSWER_TIME: Final = 180.0
"""Seconds for a whole answer, however busily it comes: a block takes milliseconds, on a slow line seconds."""
MOST_IN_BATCH: Final = 50
"""Questions that are asked together: a node keeps all answers until the last one is there."""
REFUSAL_TIME: Final = 60.0
"""Seconds in which a node is not asked again for something that it does not offer."""
LARGEST_ANSWER: Final = 16_000_000
"""Bytes of JSON, once `slim` has shortened its scripts: a block in hex has half as many."""
LARGEST_PRINTED: Final = 300_000_000
"""As many for what prints the scripts that a block spends: at most 24,390 of 10,000 bytes in hex."""
LARGEST_STREAM: Final = 4_000_000_000
"""Bytes of JSON before its scripts are shortened: prevouts with 10,000-byte scripts have some 60,000 each."""
LARGEST_LIST: Final = 150_000_000
"""As many for the ids of all unconfirmed transactions: 67 each, of which 1 GB of them has some millions."""
MOST_VALUES: Final = 4_000_000
"""Values in an answer, each of which takes up to fifty times as much memory as text: a block that has nothing
but outputs, 111,000 of them, has 1,200,000."""
_PRINTS_SCRIPTS: Final = {"getblock", "getrawtransaction"}

Answer = Any
"""A method's result: JSON of any form, fractions as Decimal. The caller that takes it apart checks it."""

_MISSING: Final = {-1, -5, -8, -32603}
"""Codes for a block or transaction that is pruned, unknown, above the tip, or without its undo data."""
_WARMING_UP: Final = -28
_NO_SUCH_METHOD: Final = -32601
_REASON_SIZE: Final = 500
"""Bytes that are kept of an error's text."""
_BUSY: Final = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
"""Statuses after which the same question may be answered: a node's, and those of what is in front of it."""


class NotOffered(NodeError):
    """The node does not have a method or a path, or does not let us use it."""


def node_answer(error: NodeError) -> tuple[int, str] | None:
    """Return the code and the text of the answer that an error reports; None if there was no answer."""
    cause = error.__cause__
    return (cause.code, str(cause.message)) if isinstance(cause, JSONRPCException) else None


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


class Offer:
    """Something that not every node offers: after a refusal, it is not asked for again for a while."""

    def __init__(self) -> None:
        self._refused_until = 0.0

    def is_due(self) -> bool:
        """Return whether to ask for it."""
        return time.monotonic() >= self._refused_until

    def refuse(self) -> None:
        """Record that it was refused."""
        self._refused_until = time.monotonic() + REFUSAL_TIME


class Rpc:
    """A node's JSON-RPC interface; safe to use from several threads at once, each call on its own connection.

    A connection is kept for the next call of any thread, so threads that end leave none behind.
    """

    def __init__(self, url: NodeUrl, login: Login, tls: ssl.SSLContext | None = None) -> None:
        self._url = url
        self._login = login
        self._tls = tls
        self._pool = Pool(url, tls)
        self._batches = Offer()

    def at(self, path: str) -> "Rpc":
        """Return the interface at a path below this one, such as a wallet's, with the same login."""
        return Rpc(replace(self._url, path=f"{self._url.path}{path}"), self._login, self._tls)

    def call(self, method: str, *parameters: object) -> Answer:
        """Call a method and return its result, with scripts shortened by `slim`.

        Temporary faults are retried for a few seconds. Raises NodeUnavailable; MissingData if the node does
        not have the data; NotOffered; NodeError for everything else.
        """
        return with_retries(lambda: self.call_once(method, *parameters))

    def call_once(self, method: str, *parameters: object) -> Answer:
        """Call a method as `call` does, without retries."""
        return self._with_login(lambda authorization: self._ask(method, parameters, authorization))

    def call_each(self, method: str, questions: Iterable[Sequence[object]]) -> Iterator[Answer]:
        """Call a method with each of these parameters, in batches, and yield the results in their order.

        Raises what `call` raises, when it is the turn of the first call that failed. What is in front of a
        node may not know batches, and refuse them in any way: then the calls are made one by one.
        """
        for result in self._results(method, questions):
            if isinstance(result, NodeError):
                raise result
            yield result

    def find_each(self, method: str, questions: Iterable[Sequence[object]]) -> Iterator[Answer | None]:
        """Call a method as `call_each` does, and yield None if the node does not have what was asked for."""
        for result in self._results(method, questions):
            if isinstance(result, NodeError) and not isinstance(result, MissingData):
                raise result
            yield None if isinstance(result, MissingData) else result

    def _results(self, method: str, questions: Iterable[Sequence[object]]) -> Iterator[Answer | NodeError]:
        remaining = iter(questions)
        while batch := list(islice(remaining, MOST_IN_BATCH)):
            yield from self._call_together(method, batch)

    def _call_or_error(self, method: str, parameters: Sequence[object]) -> Answer | NodeError:
        try:
            return self.call(method, *parameters)
        except MissingData as error:
            return error

    def _call_together(self, method: str, batch: list[Sequence[object]]) -> Iterator[Answer | NodeError]:
        if len(batch) == 1 or not self._batches.is_due():
            yield from (self._call_or_error(method, parameters) for parameters in batch)
            return
        results: list[Answer | NodeError] | None = None
        try:
            results = with_retries(
                lambda: self._with_login(lambda authorization: self._ask_batch(method, batch, authorization))
            )
        except _TooLarge:
            half = len(batch) // 2
            yield from self._call_together(method, batch[:half])
            yield from self._call_together(method, batch[half:])
            return
        except NodeError:
            pass  # a single call shows whether the node or the batch is at fault
        if results is None:
            for parameters in batch:
                answer = self._call_or_error(method, parameters)
                if not isinstance(answer, NodeError):
                    self._batches.refuse()
                yield answer
            return
        yield from results

    def cut(self) -> None:
        """Have all calls fail, those that wait for their answers, too; for another thread."""
        self._pool.cut()

    def close(self) -> None:
        """Close the connections; one that is in use is closed when its call ends."""
        self._pool.close()

    def _with_login(self, ask: Callable[[str], T]) -> T:
        """Call `ask` with the login, and again with a renewed one if the node refuses it."""
        authorization = self._login.authorization()
        try:
            return ask(authorization)
        except _Unauthorized:
            self._login.renew(authorization)
        authorization = self._login.authorization()
        try:
            return ask(authorization)
        except _Unauthorized as error:
            raise NodeUnavailable(f"{self._url} refuses a login that was just renewed") from error

    def _ask_batch(
        self, method: str, batch: list[Sequence[object]], authorization: str
    ) -> list[Answer | NodeError]:
        """Ask several questions at once; return results and errors in their order."""
        with _naming_faults(self._url, method), self._pool.connection() as connection:
            exchange = _Exchange(self._url, connection, authorization, _limit(method, batch[0]))
            questions = [
                {"jsonrpc": "2.0", "method": method, "params": parameters, "id": number}
                for number, parameters in enumerate(batch, 1)
            ]
            exchange.request("POST", "", json.dumps(questions), {"Content-Type": "application/json"})
            replies = {reply["id"]: reply for reply in exchange.read_batch(len(batch))}
        results: list[Answer | NodeError] = []
        for number, parameters in enumerate(batch, 1):
            reply = replies.pop(number)
            if reply.get("error") is not None:
                fault = self._fault(method, parameters, JSONRPCException(reply["error"]))
                if isinstance(fault, NodeUnavailable):
                    raise fault
                results.append(fault)
            else:
                results.append(reply["result"])
        return results

    def _ask(self, method: str, parameters: tuple[object, ...], authorization: str) -> Answer:
        failure: JSONRPCException | None = None
        with _naming_faults(self._url, method), self._pool.connection() as connection:
            exchange = _Exchange(self._url, connection, authorization, _limit(method, parameters))
            try:
                return _Call(method, exchange)(*parameters)
            except JSONRPCException as error:  # an answer like any other: the connection is kept
                failure = error
        raise self._fault(method, parameters, failure) from failure

    def _fault(self, method: str, parameters: Sequence[object], error: JSONRPCException) -> NodeError:
        call = " ".join([method, *map(str, parameters)])
        reason = str(error.message)[:_REASON_SIZE]
        message = f"{self._url} answers {quoted(call)} with {quoted(reason)} (code {error.code})"
        if error.code == _WARMING_UP:
            return NodeUnavailable(f"{message}: it is starting, try again in a while")
        if error.code == _NO_SUCH_METHOD:
            return NotOffered(f"{message}: virtualchain needs Bitcoin Core 25 or later, or Knots")
        if error.code in _MISSING:
            return MissingData(message)
        return NodeError(message)


def _limit(method: str, parameters: Sequence[object]) -> int:
    """Return how many bytes an answer may have, or those to a batch together."""
    if method == "getrawmempool":
        return LARGEST_LIST
    is_hex = 0 in parameters[1:2]
    return LARGEST_PRINTED if method in _PRINTS_SCRIPTS and not is_hex else LARGEST_ANSWER


class _Unauthorized(Exception):
    """The node rejected the login."""


class _TooLarge(NodeError):
    """An answer is larger than any that a node gives to such a question."""


@contextmanager
def _naming_faults(url: NodeUrl, question: str) -> Iterator[None]:
    """Turn the errors of a connection and of an answer's size into errors of the node."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise NodeError(
            f"the certificate of {url} is not accepted ({error.verify_message}): if an authority of your own "
            "has signed it, name that with --cacert"
        ) from error
    except ssl.SSLError as error:
        raise NodeError(
            f"{url} cannot be spoken to over https ({error.reason or error}): does it speak http?"
        ) from error
    except TooLong as error:
        raise _TooLarge(
            f"{url} answers {question} with more than {error} bytes: no Bitcoin node does that"
        ) from error
    except (OSError, HTTPException) as error:
        text = quoted(str(error)) if isinstance(error, HTTPException) else str(error)  # quotes the answer
        reason = getattr(error, "strerror", None) or text or type(error).__name__
        raise NodeUnavailable(f"{url} does not answer {question} ({reason}): is it running?") from error


class _Exchange:
    """What the library takes for its connection: sends our login, and reads the answer within its limits."""

    def __init__(self, url: NodeUrl, connection: Connection, authorization: str, limit: int) -> None:
        self._url = url
        self._connection = connection
        self._authorization = authorization
        self._limit = limit

    @property
    def sock(self) -> object:
        """The socket, whose timeout the library sets."""
        return self._connection.sock

    def request(self, method: str, _path: str, body: str, headers: dict[str, str]) -> None:
        """Send what the library has written, with our login instead of its own."""
        ours = {"Authorization": self._authorization} if self._authorization else {}
        kept = {name: value for name, value in headers.items() if name not in {"Authorization", "Host"}}
        self._connection.send(
            method,
            "" if self._url.path else "/",
            silence=READ_TIMEOUT,
            total=ANSWER_TIME,
            body=body,
            headers=kept | ours,
        )

    def read(self) -> dict[str, Any]:
        """Read the answer."""
        answer: dict[str, Any] = self._read(_is_answer)
        return answer

    def read_batch(self, size: int) -> list[dict[str, Any]]:
        """Read the answers to a batch whose questions have the numbers from 1 to `size`, in any order."""
        numbers = set(range(1, size + 1))

        def is_complete(answer: object) -> bool:
            return (
                isinstance(answer, list)
                and len(answer) == size
                and all(_is_answer(reply) and ("result" in reply or reply.get("error")) for reply in answer)
                and {reply.get("id") for reply in answer if type(reply.get("id")) is int} == numbers
            )

        replies: list[dict[str, Any]] = self._read(is_complete)
        return replies

    def _read(self, is_answer: Callable[[object], bool]) -> Answer:
        with self._connection.answer() as response:
            body = bytearray()
            try:
                for piece in slim(pieces(response, LARGEST_STREAM), self._limit):
                    body += piece
            except ValueError as error:
                raise self._nonsense(response, bytes(body[:_REASON_SIZE])) from error
        if response.status == HTTPStatus.UNAUTHORIZED:
            raise _Unauthorized
        if response.status == HTTPStatus.FORBIDDEN:
            raise NotOffered(f"{self._url} forbids it: check rpcallowip and rpcwhitelist in bitcoin.conf")
        if response.status in _BUSY:
            raise NodeUnavailable(f"{self._url} is busy: {_reason(body) or response.status}")
        start = bytes(body[:_REASON_SIZE])
        try:
            text = body.decode()
            del body  # it may have hundreds of megabytes
            if len(text) > MOST_VALUES and sum(map(text.count, ",[{")) > MOST_VALUES:
                raise _TooLarge(
                    f"{self._url} answers with more than {MOST_VALUES} values: no Bitcoin node does that"
                )
            answer = json.loads(text, parse_float=Decimal)
        except (ArithmeticError, ValueError, RecursionError) as error:
            raise self._nonsense(response, start) from error
        if not is_answer(answer):
            raise self._nonsense(response, start)
        return answer

    def _nonsense(self, response: Response, body: bytes) -> NodeError:
        return NodeError(
            f"{self._url} is not a Bitcoin node: it answers with HTTP status {response.status}, "
            f"{quoted(body)}"
        )


class _Call(AuthServiceProxy):  # type: ignore[misc]  # the library has no types
    """One call through the library, on our connection and with our own reading of the answer."""

    def __init__(self, method: str, exchange: _Exchange) -> None:
        # The library requires a login in a URL; neither is used, as the exchange has its own.
        super().__init__("http://user:password@node/", method, READ_TIMEOUT, exchange)
        self._exchange = exchange

    def _get_response(self) -> dict[str, Any]:
        return self._exchange.read()


def _is_answer(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    error = value.get("error")
    return error is None or (isinstance(error, dict) and isinstance(error.get("code"), int))


def _reason(body: bytes | bytearray) -> str:
    return body[:_REASON_SIZE].decode(errors="replace").strip()


class Rest:
    """A node's REST interface, over connections that stay open; safe to use from several threads."""

    def __init__(self, url: NodeUrl, tls: ssl.SSLContext | None = None) -> None:
        self._url = url
        self._pool = Pool(url, tls)

    def get(self, path: str, limit: int) -> bytes:
        """Fetch what is at `path`, at most `limit` bytes; raises what `read` raises."""
        return self.read(path, limit, b"".join)

    def read(self, path: str, limit: int, parse: Callable[[Iterator[bytes]], T]) -> T:
        """Parse what is at `path` while it arrives, in pieces of at most `limit` bytes in all.

        Temporary faults are retried for a few seconds, from the start. Raises NodeUnavailable; MissingData if
        the node does not have the data; NotOffered if it does not know the path, like a node restarted
        without REST; NodeError for everything else, and what `parse` raises.
        """
        status, parsed = with_retries(lambda: self._get(path, limit, parse))
        if not isinstance(parsed, _Refused):
            return parsed
        reason = quoted(parsed.reason or "no reason")
        message = f"{self._url} answers {path} with {reason} (status {status})"
        if status == HTTPStatus.NOT_FOUND and parsed.reason:
            raise MissingData(message)
        if status == HTTPStatus.NOT_FOUND:
            raise NotOffered(message)
        raise NodeError(message)

    def offers(self, path: str) -> bool:
        """Check whether the node has anything at `path`; raises NodeUnavailable."""
        status, _ = with_retries(lambda: self._get(path, 1 << 16, b"".join))
        return status == HTTPStatus.OK

    def cut(self) -> None:
        """Have all questions fail, those that wait for their answers, too; for another thread."""
        self._pool.cut()

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _get(
        self, path: str, limit: int, parse: Callable[[Iterator[bytes]], T]
    ) -> "tuple[int, T | _Refused]":
        with _naming_faults(self._url, path), self._pool.connection() as connection:
            connection.send("GET", path, silence=READ_TIMEOUT, total=ANSWER_TIME)
            with connection.answer() as response:
                if response.status == HTTPStatus.OK:
                    return response.status, parse(pieces(response, limit))
                reason = _reason(b"".join(pieces(response, 1 << 16)))
        if response.status in _BUSY:
            raise NodeUnavailable(f"{self._url} is busy: {reason or response.status}")
        return response.status, _Refused(reason)


class _Refused:
    """An answer that is not what was asked for, with the node's reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

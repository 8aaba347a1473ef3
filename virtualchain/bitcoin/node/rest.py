"""REST: a node's binary answers, which cost it and us a tenth of what the same costs as JSON."""

from contextlib import closing
from http import HTTPStatus
from typing import Final

import urllib3
from urllib3.exceptions import HTTPError

from virtualchain.bitcoin.node.login import NodeUrl
from virtualchain.bitcoin.node.retry import patiently
from virtualchain.bitcoin.node.rpc import NotOffered
from virtualchain.errors import MissingData, NodeError, NodeUnavailable

_TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=30.0)
_CONNECTIONS: Final = 16
_REASON_SIZE: Final = 500


class Rest:
    """Asks a node's REST interface over connections that stay open; safe to use from several threads."""

    def __init__(self, where: NodeUrl) -> None:
        self._where = where
        self._pool = urllib3.HTTPConnectionPool(
            where.host, where.port, timeout=_TIMEOUT, maxsize=_CONNECTIONS
        )

    def get(self, path: str, limit: int) -> bytes:
        """Fetch what stands at `path`, at most `limit` bytes.

        A passing fault is retried for a few seconds. Raises NodeUnavailable; MissingData where the node does
        not have it; NotOffered where it knows no such path, as one that was started anew without REST;
        NodeError for everything else.
        """
        status, body = patiently(lambda: self._get(path, limit))
        if status == HTTPStatus.OK:
            return body
        reason = body.decode(errors="replace").strip()
        said = f"{self._where} answers {path} with {reason or 'no reason'!r} (status {status})"
        if status == HTTPStatus.NOT_FOUND and reason:
            raise MissingData(said)
        if status == HTTPStatus.NOT_FOUND:
            raise NotOffered(said)
        raise NodeError(said)

    def offers(self, path: str) -> bool:
        """Probe whether the node has anything at `path`; raises NodeUnavailable."""
        status, _ = patiently(lambda: self._get(path, limit=1 << 16))
        return status == HTTPStatus.OK

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _get(self, path: str, limit: int) -> tuple[int, bytes]:
        try:
            response = self._pool.request("GET", path, retries=False, redirect=False, preload_content=False)
            with closing(response):  # the connection is kept where all of the answer was read
                body = response.read((limit if response.status == HTTPStatus.OK else _REASON_SIZE) + 1)
        except HTTPError as error:
            raise NodeUnavailable(
                f"{self._where} does not answer {path} ({error}): is it running?"
            ) from error
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise NodeUnavailable(f"{self._where} has no time now: {body.decode(errors='replace').strip()}")
        if response.status == HTTPStatus.OK and len(body) > limit:
            raise NodeError(f"{self._where} answers {path} with more than {limit} bytes: no node does that")
        return response.status, body

"""Read files of a published folder over HTTP, from a server that is not trusted.

Each file has a limit in bytes and in seconds, an answer that breaks off is asked for again, and nothing but
https is followed unless the caller allows it. The environment's proxies are used.
"""

import ipaddress
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from http.client import HTTPException, HTTPMessage
from threading import Event
from time import monotonic
from typing import IO, Final
from urllib.parse import urlsplit

from virtualchain.background import begin
from virtualchain.errors import DownloadFailed, InvalidCheckpoint, UsageError

_PAUSES: Final = (1.0, 3.0, 10.0)
_SILENCE: Final = 30.0
"""Seconds without a byte after which a connection counts as broken."""
_COMPLETE: Final = 120.0
"""Seconds within which a file must be complete."""
_TURN: Final = 0.5
"""Seconds after which a wait sees that the download has ended."""
_MISSING: Final = frozenset({404, 410})
_TRY_AGAIN: Final = frozenset({408, 425, 429})
_FIRST_OF_SERVER: Final = 500


class Folder:
    """A folder on a web server."""

    def __init__(
        self,
        url: str,
        *,
        allows_http: bool,
        pauses: Sequence[float] = _PAUSES,
        complete: float = _COMPLETE,
    ) -> None:
        """Read from `url`, with or without its `index.json`; raises UsageError if that is not allowed.

        `allows_http`: also over http from other machines, where anybody on the way may change the answers.
        A file must arrive within `complete` seconds; after each of `pauses`, in seconds, it is asked for
        again.
        """
        self.url = url.removesuffix("index.json").rstrip("/")
        self._allows_http = allows_http
        self._pauses, self._complete = pauses, complete
        self._ended = Event()
        parts = urlsplit(self.url)
        if parts.query or parts.fragment:
            raise UsageError(f"{self.name}: name the folder of the checkpoints, without ? and #")
        self._check(self.url)
        self._opener = urllib.request.build_opener(_Redirects(self._check))

    @property
    def name(self) -> str:
        """The URL without login."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def read(self, path: str, limit: int, *, size: int | None = None, fresh: bool = False) -> bytes:
        """Return a file of at most `limit` bytes, and of exactly `size` if that is known.

        `fresh`: caches on the way must ask the server again. Raises DownloadFailed if it does not arrive, or
        is not there, and InvalidCheckpoint if it is too long.
        """
        error: Exception | None = None
        for pause in (0.0, *self._pauses):
            self._ended.wait(pause)
            try:
                content = self._wait(begin(partial(self._get, path, limit, fresh)))
            except urllib.error.HTTPError as answer:
                error = answer
                if answer.code < _FIRST_OF_SERVER and answer.code not in _TRY_AGAIN:
                    break
                continue
            except TimeoutError:
                error = TimeoutError(f"it was not complete within {self._complete:.0f} seconds")
                continue
            except (OSError, HTTPException) as broken:
                error = broken
                continue
            if len(content) > limit:
                raise InvalidCheckpoint(f"its {path} has more than {limit:,} bytes")
            if size is None or len(content) >= size:
                return content
            error = ConnectionError(f"it broke off after {len(content)} of {size} bytes")
        raise DownloadFailed(f"{self.name}/{path} cannot be downloaded: {_reason(error)}") from error

    def end(self) -> None:
        """Let all reads fail at once; for the threads of whoever has given up."""
        self._ended.set()

    def _wait(self, answer: Future[bytes]) -> bytes:
        """Wait for an answer; it may drip, so nothing waits for its end once the time is up."""
        until = monotonic() + self._complete
        while not self._ended.is_set():
            done, _ = wait([answer], timeout=min(_TURN, max(0.0, until - monotonic())))
            if done:
                return answer.result()
            if monotonic() >= until:
                raise TimeoutError
        raise DownloadFailed(f"{self.name}: the download has ended")

    def _get(self, path: str, limit: int, fresh: bool) -> bytes:
        headers = {"Accept-Encoding": "identity", "User-Agent": "virtualchain"}
        if fresh:
            headers["Cache-Control"] = "no-cache"
        request = urllib.request.Request(f"{self.url}/{path}", headers=headers)  # noqa: S310 - checked
        try:
            with self._opener.open(request, timeout=_SILENCE) as answer:
                announced = answer.headers.get("Content-Length")
                content: bytes = answer.read(limit + 1)
        except urllib.error.HTTPError as error:
            error.close()  # it is the answer, too
            raise
        if announced is not None and announced.isdecimal() and len(content) < min(int(announced), limit + 1):
            raise ConnectionError(f"it broke off after {len(content)} of {announced} bytes")
        return content

    def _check(self, url: str) -> None:
        """Raise UsageError for a URL that may not be read."""
        parts = urlsplit(url)
        if parts.scheme == "https" and parts.hostname:
            return
        if parts.scheme != "http" or not parts.hostname:
            raise UsageError(f"{parts.scheme}: checkpoints are read over https only")
        if not (self._allows_http or _is_here(parts.hostname)):
            raise UsageError(
                f"http://{parts.hostname}: anybody on the way can change what http brings: use https, or "
                "name the key that must have signed with --trust"
            )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows what `check` allows, and never from https to http."""

    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        fp.close()  # nothing else does if this raises
        self._check(newurl)
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise UsageError(f"{req.host} leads from https to {newurl}: it is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_here(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _reason(error: Exception | None) -> str:
    if isinstance(error, urllib.error.HTTPError):
        hint = " (the folder has changed meanwhile, or is another one)" if error.code in _MISSING else ""
        return f"the server answers {error.code} {error.reason}{hint}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(reason.strerror if isinstance(reason, OSError) and reason.strerror else reason)

"""Answers that are kept while the deployment does not change, and the ETags that say so."""

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from virtualchain.web.version import Versions

_MOST: Final = 2048
_LARGEST: Final = 256 * 1024
"""How many answers are kept, and up to how many bytes."""
_TOTAL: Final = 64 * 1024 * 1024
"""How many bytes they may have together."""
NEVER: Final = ("/static/", "/live", "/api/v1/watch")
"""Beginnings of paths whose answers do not depend on the deployment's version, or never end."""

_Key = tuple[str, bytes, str | None, str]
"""Path, query, what the client accepts, and the minute if the answer tells how long ago something was."""


@dataclass(frozen=True, slots=True)
class _Answer:
    start: Message
    body: bytes


class Cache:
    """Middleware for GET: answers with status 200 are kept until the version changes, but for `no-store`.

    Each such answer has an ETag, by which a client that has it already is answered without a query. HEAD is
    answered as GET is, without the body.
    """

    def __init__(self, app: ASGIApp, versions: Versions, salt: str) -> None:
        """Take what is wrapped; `salt` makes ETags of other programs and settings differ."""
        self._app = app
        self._versions = versions
        self._salt = salt
        self._answers: OrderedDict[_Key, _Answer] = OrderedDict()
        self._size = 0
        self._digest: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from what is kept, or have the application answer."""
        if (
            scope["type"] != "http"
            or scope["method"] not in {"GET", "HEAD"}
            or scope["path"].startswith(NEVER)
        ):
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope, send = {**scope, "method": "GET"}, _without_body(send)
        version = await self._versions.current()
        if version is None:
            await self._app(scope, receive, send)
            return
        if version.digest != self._digest:
            self._answers.clear()
            self._size, self._digest = 0, version.digest
        headers = Headers(scope=scope)
        key = (scope["path"], scope["query_string"], headers.get("accept"), _minute(scope["path"]))
        etag = self._etag(key, version.digest)
        if etag in [tag.strip() for tag in headers.get("if-none-match", "").split(",")]:
            unchanged = [(b"etag", etag.encode()), (b"cache-control", b"no-cache")]
            await send({"type": "http.response.start", "status": 304, "headers": unchanged})
            await send({"type": "http.response.body", "body": b""})
            return
        kept = self._answers.get(key)
        if kept is None:
            await self._app(scope, receive, _Recorder(self, key, version.digest, etag, send))
            return
        self._answers.move_to_end(key)
        await send({**kept.start, "headers": list(kept.start["headers"])})
        await send({"type": "http.response.body", "body": kept.body})

    def _etag(self, key: _Key, digest: str) -> str:
        """Return the ETag of an answer: no other resource has it, not even one that must not be kept."""
        mark = hashlib.blake2b(repr(key).encode(), digest_size=6).hexdigest()
        return f'W/"{digest[:20]}{self._salt}{mark}"'

    def keep(self, key: _Key, digest: str, start: Message, body: bytes) -> None:
        """Keep an answer, if it still shows the present version."""
        if digest != self._digest or key in self._answers:
            return
        self._answers[key] = _Answer(start, body)
        self._size += len(body)
        while len(self._answers) > _MOST or self._size > _TOTAL:
            _, oldest = self._answers.popitem(last=False)
            self._size -= len(oldest.body)


def _minute(path: str) -> str:
    """Return the minute for what people read, which says how long ago things were; nothing for the API."""
    return "" if path.startswith("/api/") else f"-{int(time.time() // 60):x}"


class _Recorder:
    """Passes an answer on, and keeps it if it may be kept and is small."""

    def __init__(self, cache: Cache, key: _Key, digest: str, etag: str, send: Send) -> None:
        self._cache, self._key, self._digest, self._etag, self._send = cache, key, digest, etag, send
        self._start: Message | None = None
        self._parts: list[bytes] = []
        self._length = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            headers = MutableHeaders(raw=list(message["headers"]))
            if "no-store" not in headers.get("cache-control", ""):
                headers["etag"] = self._etag
                headers.setdefault("cache-control", "no-cache")
                message = {**message, "headers": headers.raw}
                self._start = message
        elif message["type"] == "http.response.body" and self._start is not None:
            self._length += len(message.get("body", b""))
            if self._length > _LARGEST:
                self._start, self._parts = None, []
            else:
                self._parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    self._cache.keep(self._key, self._digest, self._start, b"".join(self._parts))
        await self._send(message)


def _without_body(send: Send) -> Send:
    """Pass on an answer's headers only; its length stays that of the body."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return sending

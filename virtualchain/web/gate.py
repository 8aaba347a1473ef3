"""What every request passes first: hosts, rates, how many wait; and the headers that every answer carries."""

import ipaddress
from collections.abc import Collection
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from virtualchain.errors import UsageError
from virtualchain.web.probing import PATHS
from virtualchain.web.problems import Problem

_MOST_WAITING: Final = 256
"""Requests that are answered at once, but for streams."""
_MOST_STREAMS: Final = 2000
STREAMS: Final = ("/live", "/api/v1/watch")
_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST",
    "Access-Control-Allow-Headers": "Content-Type, If-None-Match, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}
"""What a page of an allowed origin may send, and for how many seconds a browser remembers that."""


def parse_rate(text: str) -> RateLimitItem:
    """Read a rate such as `1000/second` or `100 per minute`; raises UsageError."""
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a rate: write one such as 1000/second") from error


def hosts_of(address: str) -> frozenset[str] | None:
    """Return the names by which a server on a loopback address is reached; None for any name.

    A page elsewhere could otherwise have a browser on this machine read for it, under a name of its own that
    leads here.
    """
    try:
        is_loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        is_loopback = address == "localhost"
    return frozenset(_LOOPBACK_NAMES) if is_loopback else None


class Gate:
    """Middleware around everything else."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str] | None,
        rate: RateLimitItem | None,
        origins: Collection[str] = (),
        probes: ASGIApp | None = None,
    ) -> None:
        """Wrap `app`; `hosts` are the names it is reached by (None: any), `rate` is that of one address.

        Pages of `origins` (all, if `*` is among them) may read the API. `probes` answers the paths of
        monitors, for which nothing but the name counts.
        """
        self._app = app
        self._hosts = hosts
        self._rate = rate
        self._origins = origins
        self._probes = probes
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._waiting = 0
        self._streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that may not pass; let the others pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        probes = self._probes if scope["path"] in PATHS else None
        refusal = self._refuse_name(scope, headers) or (None if probes else self._refuse(scope))
        is_stream = scope["path"].startswith(STREAMS)
        sending = self._with_headers(send, self._allowed_origin(scope, headers))
        if refusal is not None:
            await refusal(scope, receive, sending)
            return
        if probes is not None:
            await probes(scope, receive, sending)
            return
        if self._is_preflight(scope, headers):
            await Response(status_code=HTTPStatus.NO_CONTENT, headers=_PREFLIGHT)(scope, receive, sending)
            return
        self._count(is_stream=is_stream, by=1)
        try:
            await self._app(scope, receive, sending)
        finally:
            self._count(is_stream=is_stream, by=-1)

    def _count(self, *, is_stream: bool, by: int) -> None:
        if is_stream:
            self._streams += by
        else:
            self._waiting += by

    def _refuse_name(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return _refusal(
                scope,
                HTTPStatus.MISDIRECTED_REQUEST,
                "Misdirected request",
                f"this server is not known as {host!r}",
            )
        return None

    def _refuse(self, scope: Scope) -> Response | None:
        if any(character in scope["path"] for character in "\0\r\n"):  # which routes do not match
            return _refusal(scope, HTTPStatus.NOT_FOUND, "Not found", "no path has a line break or NUL")
        is_stream = scope["path"].startswith(STREAMS)
        if self._streams >= _MOST_STREAMS if is_stream else self._waiting >= _MOST_WAITING:
            return _refusal(
                scope,
                HTTPStatus.SERVICE_UNAVAILABLE,
                "Too many requests",
                "the server answers too many others just now",
            )
        client = scope.get("client")
        if (
            self._rate is not None
            and client is not None
            and not self._limiter.hit(self._rate, _asker(client[0]))
        ):
            return _refusal(
                scope,
                HTTPStatus.TOO_MANY_REQUESTS,
                "Too many requests",
                f"at most {self._rate} are answered for an address",
            )
        return None

    def _is_preflight(self, scope: Scope, headers: Headers) -> bool:
        """Return whether a browser asks if a page of an allowed origin may send a request."""
        return (
            scope["method"] == "OPTIONS"
            and "access-control-request-method" in headers
            and self._allowed_origin(scope, headers) is not None
        )

    def _allowed_origin(self, scope: Scope, headers: Headers) -> str | None:
        origin = headers.get("origin")
        if origin is None or not self._origins or not scope["path"].startswith("/api/"):
            return None
        return "*" if "*" in self._origins else origin if origin in self._origins else None

    def _with_headers(self, send: Send, origin: str | None) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message["headers"]))
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if origin is not None:
                    headers["Access-Control-Allow-Origin"] = origin
                    headers["Access-Control-Expose-Headers"] = "ETag, Link, Retry-After"
                if self._origins:
                    headers.add_vary_header("Origin")
                message = {**message, "headers": headers.raw}
            await send(message)

        return sending


def _asker(address: str) -> str:
    """Return whom a rate is counted for: an address, or the network of an IPv6 address: it has many."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address


def _name(host: str) -> str:
    """Return a Host header without the port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
    return f"[{name}]" if ":" in name else name


def _refusal(scope: Scope, status: HTTPStatus, title: str, detail: str) -> Response:
    problem = Problem(status, title, detail)
    if scope["path"].startswith("/api/"):
        return JSONResponse(problem.as_json(), status, problem.headers, media_type="application/problem+json")
    return PlainTextResponse(f"{title}: {detail}\n", status, problem.headers)

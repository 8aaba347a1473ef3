"""What monitors and load balancers ask for: /health, /ready and /metrics, from the database alone.

They have a session and a thread of their own, and no limit of rates: a monitor that is refused would report
that the server is down. An answer serves all who ask within a second.
"""

import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router

from virtualchain.errors import StoreError
from virtualchain.metrics import READY_LAG, Sample, unready
from virtualchain.reading import reported
from virtualchain.web.sessions import Sessions

PATHS: Final = ("/health", "/ready", "/metrics")
_KEEPS: Final = 1.0
"""Seconds for which an answer of the database is used."""
_NOT_KEPT: Final = {"Cache-Control": "no-store"}

Expose = Callable[[Sequence[Sample], str | None], tuple[bytes, str]]
"""Writes samples as an Accept header asks; returns the text and its media type."""


class Probes:
    """The application for these paths."""

    def __init__(self, url: Callable[[], str], expose: Expose | None, ready_lag: int = READY_LAG) -> None:
        """Take the URL as `Sessions` does; without `expose`, there is no /metrics."""
        self._sessions = Sessions(url, size=1)
        self._expose = expose
        self._ready_lag = ready_lag
        self._lock = threading.Lock()
        self._limiter = anyio.CapacityLimiter(1)
        self._kept: tuple[float, list[Sample] | StoreError] | None = None
        self.router: Final = Router(
            [
                Route("/health", self._health),
                Route("/ready", self._ready),
                Route("/metrics", self._metrics),
            ]
        )

    def close(self) -> None:
        """Close the session."""
        self._sessions.close()

    async def _health(self, request: Request) -> Response:
        """Answer: that is what was asked."""
        del request
        return JSONResponse({"alive": True}, headers=_NOT_KEPT)

    async def _ready(self, request: Request) -> Response:
        del request
        samples = await self._ask()
        reasons = [str(samples)] if isinstance(samples, StoreError) else unready(samples, self._ready_lag)
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        return JSONResponse({"ready": not reasons, "reasons": reasons}, status, headers=_NOT_KEPT)

    async def _metrics(self, request: Request) -> Response:
        if self._expose is None:
            return PlainTextResponse(
                "this needs the extra metrics: pip install 'virtualchain[metrics]'\n", HTTPStatus.NOT_FOUND
            )
        samples = await self._ask()
        if isinstance(samples, StoreError):
            return PlainTextResponse(f"{samples}\n", HTTPStatus.SERVICE_UNAVAILABLE, headers=_NOT_KEPT)
        text, media_type = self._expose(samples, request.headers.get("accept"))
        return Response(text, headers={**_NOT_KEPT, "Content-Type": media_type})

    async def _ask(self) -> list[Sample] | StoreError:
        """Return the samples, or why they cannot be read."""
        return await anyio.to_thread.run_sync(self._read, limiter=self._limiter)

    def _read(self) -> list[Sample] | StoreError:
        with self._lock:
            if self._kept is not None and time.monotonic() - self._kept[0] < _KEEPS:
                return self._kept[1]
            answer: list[Sample] | StoreError
            try:
                with self._sessions.snapshot() as connection:
                    answer = reported.samples(connection)
            except StoreError as error:
                answer = error
            self._kept = time.monotonic(), answer
            return answer

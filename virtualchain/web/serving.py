"""Runs the application: its socket, its priority, and its end."""

import asyncio
import logging
import os
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import LOGGING_CONFIG

from virtualchain.errors import UsageError
from virtualchain.web.connections import Connection

_NICE: Final = 10
"""By how much a writer on the same machine goes first."""
_BACKLOG: Final = 2048
_GRACE: Final = 1
"""Seconds that open connections have at the end."""
_ORPHANED: Final = 1.0
"""Seconds after which a server notices that the process which started it is gone."""


def listen(host: str, port: int) -> socket.socket:
    """Open the socket; port 0 is any free one. Raises UsageError if that is not possible."""
    try:
        [(family, _, _, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # asyncio sends small packets at once only if the protocol is named: otherwise an answer takes 40 ms.
        opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)
        opened.listen(_BACKLOG)
    except OSError as error:
        raise UsageError(
            f"{host} port {port} cannot be used: {error.strerror or error}; choose another (--host, --port)"
        ) from error
    return opened


def serve(
    application: ASGIApp,
    opened: socket.socket,
    *,
    proxies: str | None = None,
    parent: int | None = None,
    on_start: Callable[[], None] = lambda: None,
) -> None:
    """Answer requests until SIGINT or SIGTERM, or until the process `parent` is gone.

    Headers of `proxies`, addresses separated by commas, say who asked. `on_start` is called once it answers.
    What goes wrong is logged as the program has set up Python's logging, or else on standard error.
    """
    with suppress(OSError):
        os.nice(_NICE)
    with suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    config = uvicorn.Config(
        application,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None if logging.getLogger().handlers else LOGGING_CONFIG,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=proxies is not None,
        forwarded_allow_ips=proxies or "",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_GRACE,
    )
    _Server(config, parent, on_start).run(sockets=[opened])


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out of the log that streams, which never end, were cut off at the server's end.

    Or everything was, at a second signal: uvicorn then logs a traceback as its message.
    """
    error = record.exc_info[1] if record.exc_info else None
    message = record.getMessage()
    return not (
        isinstance(error, asyncio.CancelledError)
        or "timeout graceful shutdown" in message
        or "asyncio.exceptions.CancelledError" in message
    )


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it answers, and ends with its parent."""

    def __init__(self, config: uvicorn.Config, parent: int | None, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._parent = parent
        self._on_start = on_start
        self._watching: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets=sockets)
        self._on_start()
        if self._parent is not None:
            self._watching = asyncio.create_task(self._end_with(self._parent))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in order, at a second signal at once; uvicorn's own would raise the signal again at the end."""
        del sig, frame
        self.force_exit = self.should_exit
        self.should_exit = True

    async def _end_with(self, parent: int) -> None:
        while os.getppid() == parent:
            await asyncio.sleep(_ORPHANED)
        self.should_exit = True

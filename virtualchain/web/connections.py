"""Connections whose clients are slow, on purpose or not: how long they have, and how much they may hold."""

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LONGEST_HEAD: Final = 64 * 1024
"""Bytes of a request's line and headers."""
_HEAD_TIME: Final = 20.0
"""Seconds that a connection has to send them."""
_STALL_TIME: Final = 30.0
"""Seconds that a client may leave an answer waiting, and more by `_SLOWEST` for a long one."""
_SLOWEST: Final = 16 * 1024
"""Bytes a second that a client takes at least."""


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which ends if its client sends its request, or takes the answer, too slowly.

    What waits for a client is memory that it holds: an answer, or a stream's next events.
    """

    _head: int | None = None
    """Bytes of the head that is being received; None between heads."""
    _late: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        _cancel(self._late)
        _cancel(self._stalled)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Receive a part of a request."""
        if self._head is not None:
            self._head += len(data)
        elif self._late is None and self._is_idle:
            self._await_head()
        super().data_received(data)
        if self._head is not None and self._head > _LONGEST_HEAD:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Count the bytes of a head."""
        super().on_message_begin()
        self._head = 0
        if self._late is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """Stop waiting: the request is here, but for its body."""
        _cancel(self._late)
        self._late = self._head = None
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Begin to wait for a client that is to take what has been written."""
        super().pause_writing()
        waiting = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(_STALL_TIME + waiting / _SLOWEST, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop waiting: most of it has been taken."""
        _cancel(self._stalled)
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection without requests, even if its client has not taken the last answer."""
        if not self.transport.is_closing():
            self.transport.abort() if self.transport.get_write_buffer_size() else self.transport.close()

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _await_head(self) -> None:
        self._late = self.loop.call_later(_HEAD_TIME, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()

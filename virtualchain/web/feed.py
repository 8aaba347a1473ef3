"""A feed: one session that follows an app, and a ring of its last events for all clients."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from virtualchain.errors import DatabaseUnavailable, UsageError
from virtualchain.reading import views
from virtualchain.reading.event_json import event_json
from virtualchain.reading.events import PendingEvent, PendingInput, Reader
from virtualchain.reading.json_text import json_text
from virtualchain.reading.position import Position
from virtualchain.reading.resume import present
from virtualchain.reading.watch import AnyEvent, Watch, watch
from virtualchain.web.problems import NotFound, problem_of
from virtualchain.web.sessions import Busy, Sessions

_RING: Final = 1000
_RING_BYTES: Final = 16 * 1024 * 1024
"""How many events a ring has, and how large they may be together; one at least."""
_PAUSE: Final = 1.0
"""Seconds after which a session that could not be opened is tried again."""
_K = TypeVar("_K")
_LOG: Final = logging.getLogger(__name__)


class Behind(Exception):
    """The ring no longer has the event that a client needs next."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of a ring, as server-sent events write it."""

    number: int
    position: Position | None
    """None for pending inputs."""
    data: bytes


def encode(event: AnyEvent) -> bytes:
    """Return an event as server-sent events write it; its JSON is ASCII, on one line."""
    value = event_json(event)
    place = b"" if isinstance(event, PendingEvent) else f"id: {event.position}\n".encode()
    return b"%sevent: %s\ndata: %s\n\n" % (place, value["event"].encode(), json_text(value).encode())


def problem_event(error: Exception) -> bytes:
    """Return the last event of a stream that cannot go on."""
    return b"event: problem\ndata: %s\n\n" % json_text(problem_of(error).as_json()).encode()


def read_present(sessions: Sessions, app: str | None) -> Position:
    """Return the position after the last block of an app, or of the first of all; raises NotFound."""
    apps = None if app is None else [app]
    with sessions.snapshot() as connection:
        try:
            views.apps(connection, apps)
        except UsageError as error:
            raise NotFound(str(error)) from error
        reader = Reader(connection)
        if apps is not None and reader.unreadable(apps):
            raise NotFound(f"this server may not read the tables of {app}")
        return present(reader, apps)


def _from(lowest: int, numbers: dict[_K, int]) -> dict[_K, int]:
    """Return those that are not lower."""
    return {key: number for key, number in numbers.items() if number >= lowest}


class Feed:
    """Follows an app (None: all) in a thread; everything but that is used in the event loop."""

    def __init__(
        self,
        sessions: Sessions,
        on_event: Callable[[], None],
        app: str | None,
        position: Position | None,
        *,
        pending: bool,
    ) -> None:
        """Follow from a position on, None: from that which the thread reads; `on_event` is called first."""
        self.app = app
        self.shows_pending = pending
        self.clients = 0
        self.failure: Exception | None = None
        """Why it has ended, if it has not been closed."""
        self.position = position
        """What the last event of the ring leads to; None until that is known."""
        self.number = 0
        """That of the last event."""
        self._sessions = sessions
        self._on_event = on_event
        self._ring: deque[Entry] = deque()
        self._size = 0
        self._lost = 0
        """The number of the last event with a position that is no longer in the ring."""
        self._numbers: dict[str, int] = {}
        self._numbers_by_block: dict[tuple[int, str | None], int] = {}
        """Where the ring's positions are; those of lost events are removed now and then."""
        self._inputs: dict[tuple[str, str, int], PendingInput] = {}
        self._changed = asyncio.Event()
        self._closed = threading.Event()
        self._watch: Watch[Any] | None = None
        self._loop = asyncio.get_running_loop()
        if position is not None:
            self._note(position)
        threading.Thread(target=self._follow, name=f"watch {app or 'all apps'}", daemon=True).start()

    def close(self) -> None:
        """End the thread, within a second."""
        self._closed.set()
        if self._watch is not None:
            self._watch.close()

    def find(self, position: Position) -> int | None:
        """Return the number after which a client at a position continues; None if the ring cannot tell.

        What an app's state is after a block follows from the block's hash, whichever rollbacks there were.
        """
        number = self._numbers.get(str(position))
        if number is None and position.block_hash is not None:
            number = self._numbers_by_block.get((position.block_id, position.block_hash))
        if number is None or number < self._lost:
            return None
        return max(number, self._ring[0].number - 1) if self._ring else number

    def following(self, number: int) -> Entry | None:
        """Return the event after a number, None if there is none yet; raises Behind."""
        if number >= self.number:
            return None
        place = number + 1 - self._ring[0].number
        if place < 0:
            raise Behind
        return self._ring[place]

    def pending(self) -> bytes:
        """Return the event that has all pending inputs as of the last event; empty if there are none."""
        return encode(PendingEvent(tuple(self._inputs.values()), ())) if self._inputs else b""

    async def changed(self, seconds: float) -> bool:
        """Wait for the next event, or the end; return False if there was neither in time."""
        event = self._changed
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        return True

    def _follow(self) -> None:
        """Follow the app until it is closed; runs in the thread."""
        position = self.position
        while not self._closed.is_set():
            try:
                if position is None:
                    position = read_present(self._sessions, self.app)
                    self._tell(self._begin, position)
                url = self._sessions.url
                with watch(url, self.app, after=position, pending=self.shows_pending) as events:
                    self._watch = events
                    for event in events:
                        self._tell(self._publish, event, encode(event))
                        if self._closed.is_set():
                            return
            except (DatabaseUnavailable, Busy):
                self._closed.wait(_PAUSE)
            except Exception as error:  # noqa: BLE001 - all clients must learn of it
                _LOG.warning("the watch of %s has ended: %s", self.app or "all apps", error)
                self._tell(self._fail, error)
                return

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function in the event loop, unless that has ended."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            self._closed.set()

    def _begin(self, position: Position) -> None:
        self.position = position
        self._note(position)
        self._wake()

    def _publish(self, event: AnyEvent, data: bytes) -> None:
        self._on_event()
        self.number += 1
        if isinstance(event, PendingEvent):
            for item in event.gone:
                self._inputs.pop(item.key, None)
            self._inputs |= {item.key: item for item in event.inputs}
            entry = Entry(self.number, None, data)
        else:
            self.position = event.position
            self._note(event.position)
            entry = Entry(self.number, event.position, data)
        self._ring.append(entry)
        self._size += len(data)
        while len(self._ring) > 1 and (len(self._ring) > _RING or self._size > _RING_BYTES):
            self._lose(self._ring.popleft())
        self._wake()

    def _note(self, position: Position) -> None:
        self._numbers[str(position)] = self.number
        self._numbers_by_block[position.block_id, position.block_hash] = self.number

    def _lose(self, entry: Entry) -> None:
        self._size -= len(entry.data)
        if entry.position is None:
            return
        self._lost = entry.number
        if len(self._numbers) > 2 * _RING:
            self._numbers = _from(self._lost, self._numbers)
            self._numbers_by_block = _from(self._lost, self._numbers_by_block)

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

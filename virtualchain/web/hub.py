"""What `/api/v1/watch` sends: one session follows an app, however many clients do.

A feed has the last events in a ring, each encoded once. A client whose position is in the ring continues
there. Another one is brought up to it by reads of its own, in small batches: an event of the ring and one
that was read have the same position, so there is neither a gap nor a doubling where they meet. A client that
is so slow that the ring leaves it behind is cut off; it resumes with its last position.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import anyio.to_thread

from virtualchain.errors import DatabaseUnavailable, VirtualchainError
from virtualchain.reading.events import Reader
from virtualchain.reading.position import Position
from virtualchain.reading.resume import NotReached, NotThere, read_after
from virtualchain.web.feed import Behind, Entry, Feed, encode, problem_event, read_present
from virtualchain.web.problems import NotFound
from virtualchain.web.sessions import Busy, Sessions
from virtualchain.web.version import Versions

KEEP_ALIVE: Final = 15.0
"""Seconds after which a comment shows that the connection is alive."""
_COMMENT: Final = b": still here\n\n"
_RETRY: Final = 3000
"""Milliseconds after which a browser connects again."""
_MOST_FEEDS: Final = 16
"""Each has a session of its own."""
_LINGER: Final = 5.0
"""Seconds for which a feed without clients goes on: they may only be reconnecting."""
_PAUSE: Final = 1.0
"""Seconds after which a client that waits for the ring or the database looks again."""
_MOST_BLOCKS: Final = 50
_LARGE: Final = 256 * 1024
"""Blocks that are read at once to bring up a client; fewer if they are larger than this together."""
_READERS: Final = 2
"""Clients for which there is a read at once, of the sessions for all requests."""
_NOT_YET: Final = (DatabaseUnavailable, NotReached, Busy)
"""Errors after which a stream waits: browsers do not repeat a request that was answered with an error."""

_Batch = tuple[list[Entry], Position]
"""Events that follow a position, and the position that they lead to."""


@dataclass(slots=True)
class _Client:
    """Who is being brought up to a feed's ring."""

    feed: Feed
    after: Position | None
    """Where it is; None if it wants what comes from now on."""
    batch: list[Entry]
    """What it receives next."""
    most: int = 1
    """How many blocks are read at once."""

    @property
    def number(self) -> int | None:
        """After which number of the ring it continues; None if it is not there yet."""
        if self.feed.position is None:
            return None
        return self.feed.number if self.after is None else self.feed.find(self.after)

    @property
    def has_to_read(self) -> bool:
        """Whether there may be something to read: not before a height that it named is reached."""
        reached = self.feed.position
        if self.after is None:
            return False
        return self.after.block_hash is not None or reached is None or self.after.block_id <= reached.block_id


class Hub:
    """The feeds, by app and whether they show pending inputs; each lives as long as it has clients."""

    def __init__(self, sessions: Sessions, versions: Versions) -> None:
        """Take what is read, and what must know of each event before a client does."""
        self._sessions = sessions
        self._versions = versions
        self._feeds: dict[tuple[str | None, bool], Feed] = {}
        self._turns = asyncio.Semaphore(_READERS)
        self._reads: dict[tuple[str | None, str, int], asyncio.Task[_Batch]] = {}

    async def follow(self, app: str | None, after: Position | None, *, pending: bool) -> AsyncIterator[bytes]:
        """Return the stream of events after a position, None: from now on.

        Raises NotFound if there is no such app, or what follows the position cannot be read, and Busy if
        too many apps are watched.
        """
        feed = await self._feed(app, pending=pending)
        batch: list[Entry] = []
        if after is not None and feed.find(after) is None:
            with suppress(*_NOT_YET):
                batch, after = await self._read(app, after, 1)
        return self._stream(_Client(feed, after, batch))

    def close(self) -> None:
        """End all feeds."""
        for feed in self._feeds.values():
            feed.close()
        self._feeds.clear()

    async def _feed(self, app: str | None, *, pending: bool) -> Feed:
        """Return the feed of an app; begin it if there is none."""
        key = app, pending
        if key not in self._feeds or self._feeds[key].failure is not None:
            position = None
            with suppress(DatabaseUnavailable, Busy):
                position = await anyio.to_thread.run_sync(read_present, self._sessions, app)
            if key not in self._feeds or self._feeds[key].failure is not None:
                if len(self._feeds) >= _MOST_FEEDS:
                    raise Busy("too many apps are being watched at once")
                self._feeds[key] = Feed(self._sessions, self._versions.expire, app, position, pending=pending)
                self._end_later(self._feeds[key])
        return self._feeds[key]

    def _end_later(self, feed: Feed) -> None:
        asyncio.get_running_loop().call_later(_LINGER, self._end_idle, feed)

    def _end_idle(self, feed: Feed) -> None:
        if feed.clients:
            return
        feed.close()
        key = feed.app, feed.shows_pending
        if self._feeds.get(key) is feed:
            del self._feeds[key]

    async def _stream(self, client: _Client) -> AsyncIterator[bytes]:
        """Yield what a client receives, until it or the feed ends."""
        feed = client.feed
        feed.clients += 1
        try:
            yield b"retry: %d\n\n" % _RETRY
            async for data in self._bring_up(client):
                yield data
            async for data in _from_ring(feed, client.number or 0):
                yield data
        except Behind:
            return
        except VirtualchainError as error:
            yield problem_event(error)
        finally:
            feed.clients -= 1
            if not feed.clients:
                self._end_later(feed)

    async def _bring_up(self, client: _Client) -> AsyncIterator[bytes]:
        """Yield what a client receives until the ring has its position."""
        waited = 0.0
        while True:
            for entry in client.batch:
                yield entry.data
            client.batch = []
            if client.number is not None:
                break
            if client.feed.failure is not None:
                raise client.feed.failure
            await self._advance(client)
            if client.batch or client.number is not None:
                continue
            waited = 0.0 if await client.feed.changed(_PAUSE) else waited + _PAUSE
            if waited >= KEEP_ALIVE:
                waited = 0.0
                yield _COMMENT
        if client.after is None:  # so that it resumes here if it is cut off before the first event
            yield b"id: %s\n\n" % str(client.feed.position).encode()

    async def _advance(self, client: _Client) -> None:
        """Read what a client receives next, if there is something."""
        if client.after is None or not client.has_to_read:
            return
        with suppress(*_NOT_YET):
            client.batch, client.after = await self._read(client.feed.app, client.after, client.most)
            size = sum(len(entry.data) for entry in client.batch)
            client.most = max(1, client.most // 2) if size > _LARGE else min(2 * client.most, _MOST_BLOCKS)

    async def _read(self, app: str | None, after: Position, most: int) -> _Batch:
        """Read the events after a position; clients that ask for the same share the read."""
        key = app, str(after), most
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = asyncio.create_task(self._read_in_turn(app, after, most))
            task.add_done_callback(lambda done: (self._reads.pop(key), done.cancelled() or done.exception()))
        return await asyncio.shield(task)

    async def _read_in_turn(self, app: str | None, after: Position, most: int) -> _Batch:
        async with self._turns:
            return await anyio.to_thread.run_sync(self._read_now, app, after, most)

    def _read_now(self, app: str | None, after: Position, most: int) -> _Batch:
        apps = None if app is None else [app]
        with self._sessions.snapshot() as connection:
            reader = Reader(connection)
            try:
                events = read_after(reader, apps, after, most)
            except NotThere as error:
                raise NotFound(str(error)) from error
            if not events and after.block_hash is None:
                after = reader.place(after.block_id)
        entries = [Entry(0, event.position, encode(event)) for event in events]
        return entries, events[-1].position if events else after


async def _from_ring(feed: Feed, number: int) -> AsyncIterator[bytes]:
    """Yield the events after a number of the ring, for ever; raises Behind."""
    known, inputs = feed.number, feed.pending() if feed.shows_pending else b""
    while True:
        if number >= known and inputs:
            yield inputs  # all as of that event, and from then on what changes
            inputs = b""
        entry = feed.following(number)
        if entry is not None:
            number = entry.number
            if entry.position is not None or number > known:
                yield entry.data
        elif feed.failure is not None:
            raise feed.failure
        elif not await feed.changed(KEEP_ALIVE):
            yield _COMMENT

"""`watch`: hear of each block that a deployment takes, and of each rollback, as it happens.

Notifications only wake it. What counts is what the database says: it compares the hashes of the blocks that
it gave with those that are there, so it misses neither a block nor a rollback, whatever got lost on the way.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import psycopg

from virtualchain.errors import StoreError, UsageError
from virtualchain.reading import views
from virtualchain.reading.events import BlockEvent, Live, RollbackEvent
from virtualchain.store.database import redact, resolve
from virtualchain.store.failures import is_passing

POLL = 3.0
"""Seconds between two looks at the database where no notification comes."""
_STRETCH = 50
"""Blocks that are read at once."""
_KNOWN_BEFORE = 1000
"""Blocks before the first one given whose hashes are known, so that a fork below it is found."""
_KNOWN = 10_000
"""Blocks whose hashes are known, at most."""
_SLICE = 0.5
"""Seconds after which waiting looks whether it was closed meanwhile."""
_PATIENCE = (0.2, 1.0, 3.0, 10.0, 30.0)
"""Seconds before each further attempt to connect again; the last one stands for all that follow."""

Event = BlockEvent | RollbackEvent


def watch(
    url: str | None = None,
    app: str | Sequence[str] | None = None,
    from_block: int | None = None,
    *,
    poll: float = POLL,
    on_wait: Callable[[str], None] | None = None,
) -> "Watch":
    """Give an endless iterator of BlockEvent and RollbackEvent, in the order in which they hold.

    ::

        with virtualchain.watch(url, "names") as events:
            for event in events:
                ...

    `url` is any database of a deployment, also a standby, or one behind a pooler; None: the embedded server.
    With `app`, one or several names, a block comes once all of these have taken it; without, once the first
    app has. It begins with `from_block`, or with the next block that comes. Behind a RollbackEvent the blocks
    above its block come again, as they are now. `poll` is how often it looks, in seconds, where no
    notification comes. A lost connection is opened again, as often as it takes; `on_wait` is told why.

    Raises UsageError for an app that is not there, or a `from_block` whose changes are no longer kept;
    StoreError where the database cannot be read at first, or later for another reason than a lost connection,
    or where blocks were pruned before they could be given.
    """
    apps = [app] if isinstance(app, str) else None if app is None else list(app)
    return Watch(resolve(url), apps, from_block, poll=poll, on_wait=on_wait)


class Watch:
    """The iterator that `watch` gives; `close` ends it, from any thread or signal handler."""

    def __init__(
        self,
        url: str,
        apps: Sequence[str] | None,
        from_block: int | None,
        *,
        poll: float,
        on_wait: Callable[[str], None] | None,
    ) -> None:
        self._url = url
        self._apps = apps
        self._poll = poll
        self._on_wait = on_wait
        self._closed = threading.Event()
        self._at_work = threading.Lock()
        self._pending: deque[Event] = deque()
        self._known: deque[tuple[int, str]] = deque(maxlen=_KNOWN)
        with views.snapshot(url) as connection:  # what is wrong at the start is told at once
            views.apps(connection, apps)
        self._live: Live | None = Live(url)
        try:
            self._begin(self._live, from_block)
        except BaseException:
            self._live.connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """Wait for the next event; StopIteration behind `close`."""
        with self._at_work:
            while not self._closed.is_set():
                if self._pending:
                    return self._pending.popleft()
                try:
                    if not self._look():
                        self._wait()
                except psycopg.Error as error:
                    told = f"the database {redact(self._url)} failed: {' '.join(str(error).split())}"
                    if not is_passing(error):
                        raise StoreError(told) from error
                    self._reconnect(told)
            self._disconnect()
        raise StopIteration

    def close(self) -> None:
        """End the iteration; whoever waits in it is let go within a second."""
        self._closed.set()
        if self._at_work.acquire(blocking=False):
            try:
                self._disconnect()
            finally:
                self._at_work.release()

    def _begin(self, live: Live, from_block: int | None) -> None:
        """Find the first block to give, and learn what is below it."""
        with live.moment():
            place = live.place(self._apps)
            self._next = place.last + 1 if from_block is None else from_block
            if self._next <= place.pruned:
                raise UsageError(
                    f"what blocks did is kept from block {place.pruned + 1} on: "
                    f"begin there, not with {self._next}"
                )
            before = range(max(0, self._next - _KNOWN_BEFORE), self._next)
            self._known.extend(live.hashes(before).items())
            self._rollbacks, _ = live.rollbacks(0)

    def _look(self) -> bool:
        """See what came and what went since the last look; False where nothing did."""
        live = self._live
        assert live is not None, "a session is open while somebody waits"
        with live.moment():
            rollbacks, deepest = live.rollbacks(self._rollbacks)
            rollback = self._compare(live, deepest)
            found = self._stretch(live) if rollback is None else []
        # Only now is it certain that all was read: what a lost connection broke off is looked at again.
        self._rollbacks = rollbacks
        if rollback is not None:
            while self._known and self._known[-1][0] > rollback.block_id:
                self._known.pop()
            self._pending.append(rollback)
            self._next = rollback.block_id + 1
            return True
        for event in found:
            self._known.append((event.block_id, event.block_hash))
            self._pending.append(event)
            self._next = event.block_id + 1
        return bool(found)

    def _compare(self, live: Live, deepest: int | None) -> RollbackEvent | None:
        """Hold the blocks that are known against those that are here; `deepest` is the lowest new fork."""
        if not self._known:
            return None
        top, top_hash = self._known[-1]
        if live.hashes([top]).get(top) == top_hash:
            return None
        here = live.hashes([block_id for block_id, _ in self._known])
        shared = [block_id for block_id, block_hash in self._known if here.get(block_id) == block_hash]
        fork = max(shared, default=min(self._known[0][0] - 1, top if deepest is None else deepest))
        return RollbackEvent(fork, live.hashes([fork]).get(fork))

    def _stretch(self, live: Live) -> list[BlockEvent]:
        """Read the next blocks that the apps have taken."""
        place = live.place(self._apps)
        last = min(place.last, self._next + _STRETCH - 1)
        if last < self._next:
            return []
        if self._next <= place.pruned:
            raise StoreError(
                f"what block {self._next} did is forgotten: this watch fell too far behind, and history is "
                f"kept from block {place.pruned + 1} on. Read the tables anew, and watch from there"
            )
        return live.blocks(self._next, last, self._apps)

    def _wait(self) -> None:
        """Wait for a notification, or until it is time to look anyway."""
        assert self._live is not None, "a session is open while somebody waits"
        until = time.monotonic() + self._poll
        while not self._closed.is_set() and (left := until - time.monotonic()) > 0:
            if not self._live.listens:
                self._closed.wait(min(left, _SLICE))
            elif self._live.wait(min(left, _SLICE)):
                return

    def _reconnect(self, told: str) -> None:
        """Open another session, as often as it takes, unless closed meanwhile."""
        attempt = 0
        self._disconnect()
        while not self._closed.is_set():
            if self._on_wait is not None:
                self._on_wait(f"{told}; trying again")
            if self._closed.wait(_PATIENCE[min(attempt, len(_PATIENCE) - 1)]):
                return
            try:
                self._live = Live(self._url)
            except (StoreError, psycopg.Error) as error:
                told = str(error)
                attempt += 1
            else:
                return

    def _disconnect(self) -> None:
        if self._live is not None:
            self._live.connection.close()
            self._live = None

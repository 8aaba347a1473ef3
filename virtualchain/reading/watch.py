"""`watch`: an iterator of the blocks that a deployment takes and of its rollbacks, as they happen.

Notifications only wake it up. It compares the hashes of the blocks that it has returned with those in the
database, so it misses neither a block nor a rollback, even if notifications are lost.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

import psycopg

from virtualchain.errors import StoreError, UsageError
from virtualchain.notices import Notice
from virtualchain.reading import views
from virtualchain.reading.events import BlockEvent, PendingEvent, PendingInput, RollbackEvent, Session
from virtualchain.reading.position import Position
from virtualchain.reading.resume import NotReached, find_undone, refuse_pruned
from virtualchain.store.database import redact, resolve
from virtualchain.store.failures import PAUSES, is_transient
from virtualchain.store.patience import Patience

POLL = 3.0
"""Seconds after which it looks at the database even without a notification."""
_BATCH = 50
"""Blocks read at once."""
_KNOWN_BEFORE = 1000
"""Blocks before the first event whose hashes are remembered, so that a fork below it is noticed."""
_KNOWN = 10_000
"""The most blocks whose hashes are remembered."""
_SLICE = 0.5
"""Seconds after which it checks, while waiting, whether it was closed."""

Event = BlockEvent | RollbackEvent
AnyEvent = BlockEvent | RollbackEvent | PendingEvent
_E = TypeVar("_E", bound=AnyEvent)


@overload
def watch(
    url: str | None = ...,
    app: str | Sequence[str] | None = ...,
    from_block: int | None = ...,
    *,
    after: Position | str | None = ...,
    pending: Literal[False] = ...,
    poll: float = ...,
    on_wait: Callable[[str], None] | None = ...,
) -> "Watch[Event]": ...


@overload
def watch(
    url: str | None = ...,
    app: str | Sequence[str] | None = ...,
    from_block: int | None = ...,
    *,
    after: Position | str | None = ...,
    pending: bool,
    poll: float = ...,
    on_wait: Callable[[str], None] | None = ...,
) -> "Watch[AnyEvent]": ...


def watch(
    url: str | None = None,
    app: str | Sequence[str] | None = None,
    from_block: int | None = None,
    *,
    after: Position | str | None = None,
    pending: bool = False,
    poll: float = POLL,
    on_wait: Callable[[str], None] | None = None,
) -> "Watch[Any]":
    """Return an endless iterator of BlockEvent and RollbackEvent, to be applied in that order.

    ::

        with virtualchain.watch(url, "names") as events:
            for event in events:
                ...

    `url` is any database of a deployment, including a standby or one behind a pooler; None is the embedded
    server. With `app`, one or several names, a block is returned once all of these have taken it; without,
    once the first app has. The first event is that of `from_block`, by default that of the next new block.
    After a RollbackEvent the blocks above its block are returned again, as they are now. With `after`, the
    `position` of an event or its text, it continues there, also in another process or on another server of
    the deployment: if that block was undone since, the first event is the RollbackEvent. `poll` is the
    interval, in seconds, at which it looks even without a notification. A lost connection is reopened, with
    any number of attempts; `on_wait` is called with the reason before each, and once it is open. It is also
    called if the server is silent, and if the user may read some apps only: the others' changes are left out.
    With `pending`, there is a PendingEvent, too, whenever `virtualchain.pending` shows other inputs or
    verdicts than before; the first one has all that are pending at the start, if there are any.

    Raises UsageError for an app that does not exist, a `from_block` whose changes have been pruned, or a
    position that the deployment never had; StoreError if the database, or a named app, cannot be read at the
    start, if it later fails for any other reason than a lost connection, or if blocks were pruned before they
    could be returned.
    """
    apps = [app] if isinstance(app, str) else None if app is None else list(app)
    if after is not None and from_block is not None:
        raise UsageError("use either from_block or after: both say where to begin")
    position = Position.parse(after) if isinstance(after, str) else after
    return Watch(resolve(url), apps, from_block, position, pending=pending, poll=poll, on_wait=on_wait)


class Watch(Generic[_E]):
    """The iterator that `watch` returns; `close` ends it, from any thread or signal handler."""

    def __init__(
        self,
        url: str,
        apps: list[str] | None,
        from_block: int | None,
        after: Position | None,
        *,
        pending: bool,
        poll: float,
        on_wait: Callable[[str], None] | None,
    ) -> None:
        self._url = url
        self._shows_pending = pending
        self._inputs: dict[tuple[str, str, int], PendingInput] = {}
        """The pending inputs as they were returned last."""
        self._apps = apps
        self._poll = poll
        self._on_wait = on_wait
        self._after = after
        """What the caller knows, until the tape was compared with it."""
        self._closed = threading.Event()
        self._iterating = threading.Lock()
        self._events: deque[Any] = deque()
        """Those that are to be returned."""
        self._reads_again = False
        """Whether the last look was at a build that was replaced meanwhile."""
        self._known: deque[tuple[int, str]] = deque(maxlen=_KNOWN)
        with views.snapshot(url) as connection:  # report mistakes before the first event is awaited
            views.apps(connection, apps)
        self._patience = Patience(on_wait or str, lambda: not self._closed.is_set())
        self._session: Session | None = self._open()
        try:
            self._check_grants(self._session)
            self._begin(self._session, from_block)
        except psycopg.Error as error:
            failure = views.failure(self._session.connection, url, error)
            self._session.connection.close()
            raise failure from error
        except BaseException:
            self._session.connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _E:
        """Wait for the next event; raises StopIteration after `close`."""
        with self._iterating:
            while not self._closed.is_set():
                if self._events:
                    event: _E = self._events.popleft()
                    return event
                try:
                    is_new = self._look()
                    self._reads_again = False
                    if not is_new:
                        self._wait()
                except psycopg.Error as error:
                    if error.sqlstate == views.OLD_SNAPSHOT and not self._reads_again:
                        self._reads_again = True
                        continue
                    if not is_transient(error):
                        assert self._session is not None, "a session is open during the iteration"
                        raise views.failure(self._session.connection, self._url, error) from error
                    self._reconnect(str(StoreError.from_database(error, f"the database {redact(self._url)}")))
            self._disconnect()
        raise StopIteration

    def close(self) -> None:
        """End the iteration; a thread that waits for an event returns within a second."""
        self._closed.set()
        if self._iterating.acquire(blocking=False):
            try:
                self._disconnect()
            finally:
                self._iterating.release()

    def _check_grants(self, session: Session) -> None:
        """Raise StoreError for a named app that the user may not read; without names, report such apps."""
        with session.transaction():
            unreadable = session.unreadable(self._apps)
        if not unreadable:
            return
        user, names = session.connection.info.user, ", ".join(unreadable)
        options = " ".join(f"--app {name}" for name in unreadable)
        message = (
            f"user {user} may not read the tables of {names}, so their changes are missing; "
            f"`virtualchain db grant-reader {user} {options}`, run as the database's owner, grants it"
        )
        if self._apps is not None:
            raise StoreError(message)
        if self._on_wait is not None:
            self._on_wait(message)

    def _begin(self, session: Session, from_block: int | None) -> None:
        """Determine the first block to return, and remember the hashes below it."""
        with session.transaction():
            available = session.available(self._apps)
            self._next = available.last + 1 if from_block is None else from_block
            if self._after is not None:
                self._next = self._after.block_id + 1
            refuse_pruned(available, self._next)
            self._rollbacks, _ = session.rollbacks(0)
            if self._after is None:
                self._remember(session, self._next)
            elif not self._resume(session, self._after) and self._on_wait is not None:
                message = f"the tape ends below block {self._after.block_id}: waiting for it"
                self._on_wait(Notice(message, "waiting_for_block", block_id=self._after.block_id))

    def _remember(self, session: Session, first: int) -> None:
        """Remember the hashes of the blocks before the first one to return."""
        before = range(max(0, first - _KNOWN_BEFORE), first)
        self._known.extend(session.hashes(before).items())

    def _resume(self, session: Session, after: Position) -> bool:
        """Continue after what the caller knows, with a rollback if that was undone.

        Returns False if the tape does not reach that block yet. Raises UsageError if the tape has another
        block there, and no rollback explains it.
        """
        try:
            rollback = find_undone(session, after)
        except NotReached:
            return False
        self._remember(session, (after if rollback is None else rollback).block_id + 1)
        self._rollbacks, _ = session.rollbacks(0)
        self._after = None
        if rollback is not None:
            self._events.append(rollback)
            self._next = rollback.block_id + 1
        return True

    def _look(self) -> bool:
        """Read what has changed since the last look; return False if nothing has."""
        session = self._session
        assert session is not None, "a session is open during the iteration"
        with session.transaction():
            if self._after is not None and not self._resume(session, self._after):
                return False
            rollbacks, deepest = session.rollbacks(self._rollbacks)
            rollback = self._find_rollback(session, rollbacks, deepest)
            blocks = self._read_blocks(session) if rollback is None else []
            reads_pending = self._shows_pending and rollback is None and len(blocks) < _BATCH
            inputs = session.pending(self._apps) if reads_pending else None
        # Record progress only after the transaction, so that a lost connection makes it read all of it again.
        self._rollbacks = rollbacks
        if rollback is not None:
            while self._known and self._known[-1][0] > rollback.block_id:
                self._known.pop()
            self._events.append(rollback)
            self._next = rollback.block_id + 1
            return True
        for event in blocks:
            self._known.append((event.block_id, event.block_hash))
            self._events.append(event)
            self._next = event.block_id + 1
        return self._note_pending(inputs) or bool(blocks)

    def _note_pending(self, inputs: Sequence[PendingInput] | None) -> bool:
        """Return whether the pending inputs are others than before, after adding the event that says so."""
        if inputs is None:
            return False
        now = {item.key: item for item in inputs}
        changed = tuple(item for key, item in now.items() if self._inputs.get(key) != item)
        gone = tuple(item for key, item in self._inputs.items() if key not in now)
        self._inputs = now
        if changed or gone:
            self._events.append(PendingEvent(changed, gone))
        return bool(changed or gone)

    def _find_rollback(self, session: Session, rollbacks: int, deepest: int | None) -> RollbackEvent | None:
        """Return the rollback that the known blocks show; `deepest` is the lowest fork recorded."""
        if not self._known:
            return None
        top, top_hash = self._known[-1]
        if session.hashes([top]).get(top) == top_hash:
            return None
        current = session.hashes([block_id for block_id, _ in self._known])
        shared = [block_id for block_id, block_hash in self._known if current.get(block_id) == block_hash]
        fork = max(shared, default=min(self._known[0][0] - 1, top if deepest is None else deepest))
        return RollbackEvent(fork, session.hashes([fork]).get(fork), rollbacks)

    def _read_blocks(self, session: Session) -> list[BlockEvent]:
        """Read the next blocks that the apps have taken."""
        available = session.available(self._apps)
        last = min(available.last, self._next + _BATCH - 1)
        if last < self._next:
            return []
        if self._next <= available.pruned:
            raise StoreError(
                f"the changes of block {self._next} have been pruned: this watch fell too far behind, and "
                f"history is kept from block {available.pruned + 1} on. Read the tables again, and watch "
                "from there"
            )
        return session.blocks(self._next, last, self._apps)

    def _wait(self) -> None:
        """Wait for a notification, at most for the polling interval."""
        assert self._session is not None, "a session is open during the iteration"
        until = time.monotonic() + self._poll
        while not self._closed.is_set() and (left := until - time.monotonic()) > 0:
            if not self._session.listens:
                self._closed.wait(min(left, _SLICE))
            elif self._session.wait(min(left, _SLICE)):
                return

    def _reconnect(self, message: str) -> None:
        """Open another session, retrying until that succeeds or the watch is closed."""
        attempt = 0
        self._disconnect()
        while not self._closed.is_set():
            if self._on_wait is not None:
                self._on_wait(Notice(f"{message}; trying again", "waiting_for_database"))
            if self._closed.wait(PAUSES[min(attempt, len(PAUSES) - 1)]):
                return
            try:
                self._session = self._open()
            except (StoreError, psycopg.Error) as error:
                message = str(error)
                attempt += 1
            else:
                if self._on_wait is not None:
                    message = f"connected again to the database {redact(self._url)}"
                    self._on_wait(Notice(message, "database_connected"))
                return

    def _open(self) -> Session:
        return Session(self._url, self._patience, pending=self._shows_pending)

    def _disconnect(self) -> None:
        if self._session is not None:
            self._session.connection.close()
            self._session = None

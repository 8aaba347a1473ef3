"""The cursors of webhooks, which the database keeps, and what comes after them in the log."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from virtualchain.errors import StoreError, UsageError
from virtualchain.reading import views
from virtualchain.reading.events import Reader, RollbackEvent
from virtualchain.reading.position import Position
from virtualchain.reading.resume import find_undone
from virtualchain.reading.views import exact_json
from virtualchain.store.database import connect_deliverer, redact
from virtualchain.store.patience import Patience
from virtualchain.store.revision import refuse_other
from virtualchain.store.sql import queries
from virtualchain.webhooks.messages import Message, Webhook, block_messages, rollback_message

_Q = queries("webhooks")
_AT_ONCE: Final = 50
"""How many blocks without anything to deliver one transaction looks at."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last event of which a delivery was begun, and how much of it was delivered.

    It is recorded before a delivery begins. If that event is undone meanwhile, the receiver is sent the
    rollback even if nobody knows whether it got the event.
    """

    position: Position
    event: str
    """block or rollback."""
    part: int | None
    """How many parts were delivered; None: all."""
    version: int
    """How often it was replayed: what was begun with another version is not recorded."""


@dataclass(frozen=True, slots=True)
class State:
    """A cursor, and the failures since the last delivery."""

    cursor: Cursor
    failures: int
    wait: float
    """Seconds until the next attempt."""


class Cursors:
    """A session that reads what is to be delivered, and records what was. Threads share it.

    Its locks see to it that one process delivers a webhook. They end with the session, without which nothing
    can be recorded either.
    """

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        """Connect; raises StoreError if the database cannot be written, or is of another revision."""
        self._connection = connect_deliverer(url, patience)
        self._lock = threading.Lock()
        try:
            refuse_other(self._connection)
            exact_json(self._connection)
            self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            self._events = Reader(self._connection)
        except BaseException:
            self._connection.close()
            raise
        self.database = f"the database {redact(url)}"

    def close(self) -> None:
        """Close the session, and so give up the locks."""
        self._connection.close()

    def take(self, name: str) -> bool:
        """Take the lock of a webhook; return False if another process delivers it."""
        with self._lock:
            [row] = self._rows("lock", name=name)
        return bool(row["is_ours"])

    def add(self, webhooks: Sequence[Webhook]) -> None:
        """Note webhooks that are new: they begin with the next block, or with the one that they name."""
        with self._lock:
            names = [webhook.name for webhook in webhooks]
            known = {row["name"]: row["app"] for row in self._rows("known", names=names)}
            for webhook in webhooks:
                app, first = webhook.setting.app, webhook.setting.from_block
                if known.get(webhook.name) == app:
                    continue
                with self._events.transaction():
                    last = self._events.available([app]).last if first is None else first - 1
                    position = self._position(last)
                self._execute("add", webhook.name, position, app=app)

    def without_app(self, webhooks: Sequence[Webhook]) -> list[Webhook]:
        """Return the webhooks whose apps are not installed."""
        with self._lock:
            installed = {row["name"] for row in views.apps(self._connection)}
        return [webhook for webhook in webhooks if webhook.setting.app not in installed]

    def replay(self, name: str, first: int) -> int | None:
        """Let a webhook begin again with a block; raises UsageError if it is not known.

        Returns the last block whose changes have been pruned, if the block is not above it.
        """
        with self._lock:
            known = self._rows("known", names=[name])
            if not known:
                raise UsageError(f"this database has no webhook {name} (see `virtualchain webhooks list`)")
            with self._events.transaction():
                position = self._position(first - 1)
                pruned = self._events.available([known[0]["app"]]).pruned
            self._execute("replay", name, position)
        return pruned if first <= pruned else None

    def _position(self, block_id: int) -> Position:
        block_hash = self._events.hashes([block_id]).get(block_id)
        return Position(block_id, block_hash, None if block_hash is None else self._events.rollbacks(0)[0])

    def state(self, name: str) -> State:
        """Return how far a webhook is."""
        with self._lock:
            rows = self._rows("cursor", name=name)
        if not rows:
            raise StoreError(f"the row of webhook {name} was removed from {self.database}")
        [row] = rows
        position = Position(row["block_id"], row["block_hash"], row["rollbacks"])
        cursor = Cursor(position, row["event"], row["part"], row["version"])
        return State(cursor, row["failures"], row["wait"] or 0.0)

    def versions(self, names: Sequence[str]) -> Mapping[str, int]:
        """Return the versions of the cursors of these webhooks."""
        with self._lock:
            return {row["name"]: row["version"] for row in self._rows("versions", names=list(names))}

    def move(self, webhook: Webhook, cursor: Cursor, *, deliveries: int) -> bool:
        """Record a cursor; return False, and record nothing, if the webhook was replayed meanwhile."""
        with self._lock:
            fields = {"event": cursor.event, "part": cursor.part, "version": cursor.version}
            return self._execute("move", webhook.name, cursor.position, **fields, deliveries=deliveries)

    def fail(self, webhook: Webhook, cursor: Cursor, error: str, pause: float) -> None:
        """Record that an attempt failed, and when the next one is due."""
        with self._lock:
            fields = {"name": webhook.name, "version": cursor.version, "error": error, "pause": pause}
            self._connection.execute(_Q["fail"], fields)

    def _execute(self, query: str, name: str, position: Position, **fields: object) -> bool:
        place = {
            "block_id": position.block_id,
            "block_hash": position.block_hash,
            "rollbacks": position.rollbacks,
        }
        return self._connection.execute(_Q[query], {"name": name, **place, **fields}).rowcount > 0

    # What comes next

    def look(self, webhook: Webhook, cursor: Cursor) -> tuple[Cursor, Sequence[Message]]:
        """Return what is to be delivered next, and the cursor to record before; or how far there is nothing.

        Raises NotThere if the cursor is not of this deployment, NotReached if the tape ends below it.
        """
        with self._lock, self._events.transaction():
            rollback = find_undone(self._events, cursor.position)
            if rollback is None and cursor.event == "rollback" and cursor.part is not None:
                position = cursor.position
                rollback = RollbackEvent(position.block_id, position.block_hash, position.rollbacks)
            if rollback is not None:
                cursor = replace(cursor, position=rollback.position, event="rollback", part=0)
                return cursor, [rollback_message(webhook, rollback)]
            if cursor.part is not None:
                if self._events.available([webhook.setting.app]).last < cursor.position.block_id:
                    return cursor, ()  # the app was installed again, and comes to it
                _, messages = self._read(webhook, cursor.position.block_id)
                if len(messages) > cursor.part:
                    return cursor, messages[cursor.part :]
                cursor = replace(cursor, part=None)
            return self._next(webhook, cursor)

    def _next(self, webhook: Webhook, cursor: Cursor) -> tuple[Cursor, Sequence[Message]]:
        app = webhook.setting.app
        messages: Sequence[Message] = ()
        for _ in range(_AT_ONCE):
            [row] = self._rows(
                "next",
                app=app,
                after=cursor.position.block_id,
                opcodes=webhook.opcodes,
                wants_ops=webhook.wants_ops,
                wants_changes=webhook.wants_changes,
            )
            if row["block_id"] is None:
                last = self._events.available([app]).last
                if last > cursor.position.block_id:
                    cursor = replace(cursor, position=self._position(last), event="block", part=None)
                break
            position, messages = self._read(webhook, row["block_id"])
            cursor = replace(cursor, position=position, event="block", part=0 if messages else None)
            if messages:
                break
        return cursor, messages

    def _read(self, webhook: Webhook, block_id: int) -> tuple[Position, list[Message]]:
        """Return the position of a block of the tape, and the messages that it makes."""
        apps = [webhook.setting.app]
        [event] = self._events.blocks(block_id, block_id, apps, with_changes=webhook.wants_changes)
        is_pruned = webhook.wants_changes and block_id <= self._events.available(apps).pruned
        return event.position, block_messages(webhook, event, changes_pruned=is_pruned)

    def _rows(self, query: str, **parameters: object) -> list[dict[str, Any]]:
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(_Q[query], parameters).fetchall()

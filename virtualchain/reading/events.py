"""The events of a deployment, blocks and rollbacks, and what reads them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.datetime import TimestamptzLoader

from virtualchain.model import Json
from virtualchain.reading.position import Position
from virtualchain.reading.views import exact_json
from virtualchain.store.database import connect_reader, is_pooled, pin_transaction
from virtualchain.store.patience import Patience
from virtualchain.store.sql import queries

_Q = queries("events")


@dataclass(frozen=True, slots=True)
class Change:
    """What a block did to a row of an app's projection; `old` and `new` are the row's columns.

    Values are as PostgreSQL writes them in JSON: bytes are text, a backslash, x, and hex.
    """

    app: str
    table: str
    action: str
    """insert, update or delete."""
    key: Json
    old: Json | None
    new: Json | None


@dataclass(frozen=True, slots=True)
class AcceptedOp:
    """An op that an app accepted; `fields` is a list if its commit returned several ops."""

    app: str
    vtxindex: int
    txindex: int
    txid: str
    opcode: bytes
    """Empty if the app has no opcodes, or there is no payload."""
    payload: bytes | None
    """None if the transaction only spends outputs that the app tracks."""
    fields: Json | list[Json]
    payload_index: int
    """Which of the transaction's payloads it is, from 0."""


@dataclass(frozen=True, slots=True)
class BlockEvent:
    """A block was taken. Its hash, its ops and its changes to projections were read in one transaction."""

    block_id: int
    block_hash: str
    time: datetime
    ops: tuple[AcceptedOp, ...]
    changes: tuple[Change, ...]
    rollbacks: int | None = field(default=None, compare=False)
    """Number of the last rollback that undid a block of this height, 0 without one."""

    @property
    def position(self) -> Position:
        """Where a program is that has applied the event: what `watch` continues after."""
        return Position(self.block_id, self.block_hash, self.rollbacks)


@dataclass(frozen=True, slots=True)
class RollbackEvent:
    """Every block above `block_id` was undone; `block_hash` is None if no block is left."""

    block_id: int
    block_hash: str | None
    rollbacks: int | None = field(default=None, compare=False)
    """Number of the rollback, the last one if there were several."""

    @property
    def position(self) -> Position:
        """Where a program is that has applied the event: what `watch` continues after."""
        return Position(self.block_id, self.block_hash, self.rollbacks)


@dataclass(frozen=True, slots=True)
class PendingInput:
    """An input that is not in the log yet, and what would come of it; see `virtualchain.pending`."""

    app: str
    txid: str
    payload_index: int
    block_id: int | None
    """The block that holds it, with too few confirmations; None while it is unconfirmed."""
    opcode: bytes | None
    payload: bytes | None
    fields: Json | list[Json] | None
    verdict: str
    """accepted, refused, halts or unjudged."""
    step: str | None
    reason: str | None
    changes: Sequence[Json] | None
    """Objects with table, action, key, old and new; None if the user may not read the app's views."""
    fee: int | None
    vsize: int | None
    seen_at: datetime | None

    @property
    def key(self) -> tuple[str, str, int]:
        """App, transaction and payload: there is one input of each."""
        return self.app, self.txid, self.payload_index


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """Pending inputs that are new, or that are judged or placed differently now; and those that are gone.

    One that is gone is in the log, which an event before has shown, or was replaced, evicted or expired.
    """

    inputs: tuple[PendingInput, ...]
    gone: tuple[PendingInput, ...]


@dataclass(frozen=True, slots=True)
class Available:
    """The blocks whose events can be read: those above `pruned`, up to `last`; each is -1 if unset."""

    last: int
    pruned: int


class Reader:
    """Reads events in the transaction of a connection."""

    def __init__(self, connection: psycopg.Connection) -> None:
        """Take a connection whose JSON is exact (`views.exact_json`)."""
        self.connection = connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Read everything inside at one moment, as of the current block; for a connection in autocommit."""
        with self.connection.transaction():
            pin_transaction(self.connection)
            self.connection.execute(_Q["now"])
            yield

    def available(self, apps: list[str] | None) -> Available:
        """Return the blocks that all of the named apps have taken; without names, those that any app has."""
        [row] = self._rows("available", apps=apps)
        return Available(**row)

    def unreadable(self, apps: list[str] | None) -> list[str]:
        """Return those of the named apps, or of all, whose tables the user may not read."""
        return [row["name"] for row in self._rows("unreadable", apps=apps)]

    def rollbacks(self, seen: int) -> tuple[int, int | None]:
        """Return the number of the last rollback, and the lowest fork of those after number `seen`."""
        [row] = self._rows("rollbacks", seen=seen)
        return row["last"], row["deepest"]

    def tip(self) -> int:
        """Return the last block of the tape, -1 if it is empty."""
        [row] = self._rows("tip")
        block_id: int = row["block_id"]
        return block_id

    def place(self, block_id: int) -> Position:
        """Return the position after a block that is on the tape, as its BlockEvent would have it."""
        rows = self._rows("place", block_id=block_id)
        return Position(**rows[0]) if rows else Position(block_id)

    def hashes(self, block_ids: Sequence[int]) -> dict[int, str]:
        """Return the hashes of those of the blocks that are on the tape."""
        return {row["block_id"]: row["hash"] for row in self._rows("hashes", block_ids=list(block_ids))}

    def blocks(
        self, first: int, last: int, apps: list[str] | None, *, with_changes: bool = True
    ) -> list[BlockEvent]:
        """Return the events of a range of blocks; without changes, which take longest, if nobody asks."""
        limits = {"first": first, "last": last, "apps": apps}
        ops = _by_block(self._rows("ops", **limits))
        changes = _by_block(self._rows("changes", **limits)) if with_changes else {}
        return [
            BlockEvent(
                row["block_id"],
                row["hash"],
                row["time"],
                tuple(AcceptedOp(**op) for op in ops.get(row["block_id"], ())),
                tuple(Change(**change) for change in changes.get(row["block_id"], ())),
                row["rollbacks"],
            )
            for row in self._rows("blocks", first=first, last=last)
        ]

    def pending(self, apps: list[str] | None) -> list[PendingInput]:
        """Return the pending inputs of the named apps, or of all."""
        return [PendingInput(**row) for row in self._rows("pending", apps=apps)]

    def _rows(self, query: str, **parameters: object) -> list[dict[str, Any]]:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            cursor.adapters.register_loader("timestamptz", TimestamptzLoader)  # `views` has it as text
            return cursor.execute(_Q[query], parameters).fetchall()


class Session(Reader):
    """A database session that polls a deployment, and receives notifications if the server allows it."""

    def __init__(self, url: str, patience: Patience | None = None, *, pending: bool = False) -> None:
        """Open the session, and listen for notifications unless it is on a standby or behind a pooler.

        With `pending`, those about pending inputs are among them.
        """
        super().__init__(connect_reader(url, patience))
        exact_json(self.connection)
        self.connection.read_only = True
        self.connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        try:
            self.listens = not is_pooled(self.connection)
            if self.listens:
                self.connection.execute(_Q["listen"])
                if pending:
                    self.connection.execute(_Q["listen_for_pending"])
        except psycopg.errors.ReadOnlySqlTransaction:
            self.listens = False
        except BaseException:
            self.connection.close()
            raise

    def wait(self, seconds: float) -> bool:
        """Wait for a notification; return False if none came in time."""
        return any(True for _ in self.connection.notifies(timeout=seconds, stop_after=1))


def _by_block(rows: Sequence[Mapping[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    grouped: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        values = {key: value for key, value in row.items() if key != "block_id"}
        grouped.setdefault(row["block_id"], []).append(values)
    return grouped

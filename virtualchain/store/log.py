"""The part of the log that one build of an app writes: its status, ops, rejections and snapshots.

Everything here runs in the caller's transaction.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from json import JSONEncoder
from typing import Final, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Json as Jsonb

from virtualchain.consensus.hashing import sha256d
from virtualchain.errors import BuildChanged
from virtualchain.model import Digests, Json
from virtualchain.store.pipeline import Answer, pipeline_of
from virtualchain.store.sql import queries, statement

_Q = queries("log")
_ENTER, _LEAVE = (
    statement(sql.SQL(_Q[name]).format(pins=sql.SQL(_Q["pins"])).as_string()) for name in ("enter", "leave")
)
_HOLD, _KEEP, _SET_HISTORY_FROM, _HANDLE_ROWS, _DEFER, _CHECK = (
    statement(_Q[name])
    for name in ("hold", "keep", "set_history_from", "handle_rows", "defer_constraints", "check_constraints")
)
_CURSOR, _CONSENSUS_AT, _CONSENSUS_HASH, _IS_FRESH, _NEWEST_BLOCKS = (
    statement(_Q[name]) for name in ("cursor", "consensus_at", "consensus_hash", "is_fresh", "newest_blocks")
)
_HASH: Final = re.compile(r"[0-9a-f]{32}")
CHUNK: Final = 25
"""Rows that are turned into JSON together, in a third of the time."""

as_json: Final = JSONEncoder(separators=(",", ":")).encode


class Op(NamedTuple):
    """An accepted input, as it goes into the log."""

    vtxindex: int
    txindex: int
    opcode: bytes
    payload: bytes | None
    """None: the transaction only spends outputs that the app tracks."""
    fields: Json | list[Json]
    canonical: tuple[bytes, ...]
    payload_index: int = 0
    """Which of the transaction's payloads it is."""


class Rejection(NamedTuple):
    """A refused candidate; `step` is parse, check or commit."""

    txindex: int
    opcode: bytes
    step: str
    reason: str
    payload_index: int = 0
    """As in `Op`."""


class LogRows:
    """The rows that a block adds to a table of the log, as the text in which they are sent.

    Text takes a fifth of the memory of the values that it is made from.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._rows: list[list[object]] = []
        """Those that are not text yet."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def texts(self) -> list[str]:
        """Return the rows as JSON: several arrays in each text, with commas between them."""
        self._write()
        return self._texts

    def _add(self, row: list[object]) -> None:
        self._count += 1
        self._rows.append(row)
        if len(self._rows) == CHUNK:
            self._write()

    def _write(self) -> None:
        if self._rows:
            self._texts.append(as_json(self._rows)[1:-1])
            self._rows = []


class OpRows(LogRows):
    """The ops that an app accepted in a block, and the digests that enter its ops hash."""

    def __init__(self) -> None:
        super().__init__()
        self._digests = bytearray()

    def add(self, op: Op) -> None:
        """Add an op; what is done to its fields later does not count."""
        self._digests += b"".join(map(sha256d, op.canonical))
        canonical = [serialized.hex() for serialized in op.canonical]
        payload = None if op.payload is None else op.payload.hex()
        place = (op.vtxindex, op.txindex, op.opcode.hex(), payload)
        self._add([*place, op.fields, canonical, op.payload_index])

    def digests(self) -> Iterator[bytes]:
        """Yield the digests of the serialized ops."""
        digests = bytes(self._digests)
        return (digests[at : at + 32] for at in range(0, len(digests), 32))


class RejectionRows(LogRows):
    """The candidates that an app rejected in a block."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[str, int] = {}
        """How many were rejected at each step, in the order of the first ones."""
        self.last_reason = ""

    def add(self, item: Rejection) -> None:
        """Add a rejection."""
        self.steps[item.step] = self.steps.get(item.step, 0) + 1
        self.last_reason = item.reason
        self._add([item.txindex, item.opcode.hex(), item.step, item.reason, item.payload_index])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An app's digests at a block; `state_number` is None if the block left it unchanged."""

    block_id: int
    ops_hash: str | None
    consensus_hash: str
    state_hash: str | None
    state_number: bytes | None = None


class AppLog:
    """Reads and appends to the log of one build of an app."""

    def __init__(self, connection: psycopg.Connection, app: str, build: str) -> None:
        self._connection = connection
        self._pipeline = pipeline_of(connection)
        self.app = app
        self.build = build
        self.serial: int | None = None
        """That of the build, once this process has joined it."""
        self.epoch = 0
        """That of the build, as this process has joined it; none is 0."""
        self._is_live = False
        self._place = {"app": app, "build": build}

    def set_status(
        self, status: str, error: Mapping[str, object] | None = None, *, if_live: bool = False
    ) -> None:
        """Set the build's status; `error` records why it is halted.

        With `if_live`, a build that was swapped out meanwhile keeps its own.
        """
        record = None if error is None else Jsonb(dict(error))
        state = {"status": status, "error": record, "if_live": if_live}
        self._connection.execute(_Q["set_status"], {**self._place, **state})

    def status(self) -> str:
        """Return the app's status."""
        return str(self._row()["status"])

    def error(self) -> Json | None:
        """Return the record of why the app is halted; None if it is not."""
        error: Json | None = self._row()["error"]
        return error

    def _row(self) -> Json:
        with self._connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(_Q["build"], self._place).fetchone()
        if row is None:
            raise BuildChanged(f"build {self.build} of app {self.app} was dropped")
        return row

    def join(self, *, is_live: bool) -> None:
        """Have what is written from now on require that nobody swaps or drops the build, `is_live` or not.

        If somebody already has, or has made another build of that name since the first call, nothing can be
        written, and `hold` says why.
        """
        self._is_live = is_live
        row = self._connection.execute(_Q["epoch"], {**self._place, "is_live": is_live}).fetchone()
        serial, self.epoch = row or (None, 0)
        if self.serial is None:
            self.serial = serial
        elif self.serial != serial:
            self.epoch = 0

    def hold(self) -> None:
        """Keep others from swapping or dropping the build until the transaction ends.

        Raises BuildChanged if somebody has since `join`: it is gone, or the views show another build, or show
        this one, or somebody swapped it and back, so that its log may lack blocks.
        """
        answer = self.ask_hold()
        self._pipeline.wait()
        self.check_hold(answer)

    def ask_hold(self) -> Answer:
        """Send the question of `hold`; the answer is for `check_hold`."""
        return self._pipeline.run(_HOLD, self._place)

    def check_hold(self, answer: Answer) -> None:
        """Raise what `hold` raises, from the answer to `ask_hold`."""
        row = next(iter(answer.rows()), None)
        if row is None:
            raise BuildChanged(f"build {self.build} of app {self.app} was dropped by another process")
        is_live, epoch = row
        if is_live != self._is_live:
            now = f"show build {self.build} now" if is_live else "show another build now"
            raise BuildChanged(f"the views of app {self.app} {now}: run it with that build's code")
        if epoch != self.epoch:
            raise BuildChanged(
                f"another process swapped build {self.build} of app {self.app}, and back, or made it again"
            )

    def keep(self) -> None:
        """Send what `hold` does, without asking: everything that follows fails if the build has changed."""
        self._pipeline.run(_KEEP, {**self._place, "epoch": self.epoch, "is_live": self._is_live})

    def set_history_from(self, block_id: int) -> None:
        """Send that history before a block is no longer kept; it only ever moves up."""
        self._pipeline.run(_SET_HISTORY_FROM, {**self._place, "history_from": block_id})

    def cursor(self) -> int | None:
        """Return the app's last block; None before its first, unless an initial snapshot stands for one."""
        row = self._connection.execute(_Q["cursor"], self._place).fetchone()
        return None if row is None else int(row[0])

    def ask_cursor(self) -> Answer:
        """Ask for the app's last block; the answer has no row before its first."""
        return self._pipeline.run(_CURSOR, self._place)

    def state_number(self) -> bytes | None:
        """Return the number under the state hash; None if no block has changed it yet."""
        row = self._connection.execute(_Q["state_number"], self._place).fetchone()
        return None if row is None else bytes(row[0])

    def consensus_at(self, block_ids: Sequence[int]) -> dict[int, str]:
        """Return the consensus hashes of those of `block_ids` that have one."""
        answer = self._pipeline.run(_CONSENSUS_AT, {**self._place, "block_ids": list(block_ids)})
        self._pipeline.wait()
        return dict(answer.rows())

    def consensus_between(self, first: int, last: int) -> list[str]:
        """Return the consensus hashes of blocks `first` to `last`, both included, in order."""
        stretch = {**self._place, "first": first, "last": last}
        return [row[0] for row in self._connection.execute(_Q["consensus_between"], stretch)]

    def consensus_hash(self, block_id: int) -> str | None:
        """Return the consensus hash (32 hex digits) of one block; the app's own role may ask, too."""
        answer = self._pipeline.run(_CONSENSUS_HASH, {**self._place, "block_id": block_id})
        self._pipeline.wait()
        consensus_hash: str | None = answer.rows()[0][0]
        return consensus_hash

    def consensus_hashes(self, first: int, last: int) -> list[str]:
        """Return what `consensus_between` returns; the app's own role may ask, too."""
        stretch = {**self._place, "first": first, "last": last}
        return [row[0] for row in self._connection.execute(_Q["consensus_hashes"], stretch)]

    def is_fresh(self, consensus_hash: str, first: int, last: int) -> bool:
        """Return whether one of blocks `first` to `last` has this hash; the app's own role may ask, too.

        Anything but 32 hex digits is not a hash.
        """
        if not isinstance(consensus_hash, str) or not _HASH.fullmatch(consensus_hash):
            return False
        stretch = {**self._place, "first": first, "last": last, "consensus_hash": consensus_hash}
        answer = self._pipeline.run(_IS_FRESH, stretch)
        self._pipeline.wait()
        return bool(answer.rows()[0][0])

    def newest_blocks(self, hashes: Sequence[str], last: int) -> dict[str, int]:
        """Return the newest block up to `last` that has each of these consensus hashes, if any has.

        The time grows with the number of hashes, not with that of blocks; the app's own role may ask, too.
        """
        answer = self._pipeline.run(_NEWEST_BLOCKS, {**self._place, "hashes": list(hashes), "last": last})
        self._pipeline.wait()
        return dict(answer.rows())

    def snapshot(self, block_id: int) -> Snapshot:
        """Return the app's digests at a block that has them."""
        row = self._connection.execute(_Q["snapshot"], {**self._place, "block_id": block_id}).fetchone()
        assert row is not None, f"app {self.app} has no snapshot at block {block_id}"
        return Snapshot(block_id, *row)

    def digests(self, block_ids: Sequence[int]) -> list[Digests]:
        """Return the app's digests at those of `block_ids` that have them, in order."""
        rows = self._connection.execute(_Q["digests_at"], {**self._place, "block_ids": list(block_ids)})
        return [Digests(*row) for row in rows]

    def set_unexpected(self, mismatch: Json | None) -> None:
        """Record what differs from the digests that are expected of the app, if something does."""
        record = None if mismatch is None else Jsonb(mismatch)
        self._connection.execute(_Q["set_unexpected"], {**self._place, "unexpected": record})

    def add_initial(self, block_id: int, consensus_hash: str) -> None:
        """Record the consensus hash that the app begins with, at a block before its first."""
        place = {**self._place, "block_id": block_id, "consensus_hash": consensus_hash}
        self._connection.execute(_Q["add_initial"], place)

    def enter(self, block_id: int, tables: str) -> None:
        """Open the app's tables, in the schema `tables`, to its callbacks for one block; enter its role."""
        place = {**self._place, "tables": tables, "block_id": block_id}
        self._pipeline.run(_ENTER, place)

    def leave(self, *, keeps_history: bool = True) -> None:
        """Leave the app's role, and close its tables again.

        Without `keeps_history` they stay open, and the triggers that keep history are silent.
        """
        self._pipeline.run(_LEAVE, {"block_id": "" if keeps_history else "undo"})

    def handle_rows(self) -> None:
        """Have the engine read and write rows; `enter` comes before a statement of a callback."""
        self._pipeline.run(_HANDLE_ROWS)

    def has_deferrable_constraints(self, tables: str) -> bool:
        """Return whether a table in the schema `tables` has a constraint that may be checked at the end."""
        row = self._connection.execute(_Q["deferrable"], {"tables": tables}).fetchone()
        return row is not None

    def may_refuse_rows(self, tables: str) -> bool:
        """Return whether a table in the schema `tables` may refuse a row whose values fit its columns."""
        return self._connection.execute(_Q["refusing"], {"tables": tables}).fetchone() is not None

    def defer_constraints(self) -> None:
        """Allow states within a block that must not remain at its end."""
        self._pipeline.run(_DEFER)

    def check_constraints(self) -> None:
        """Check what was deferred; raise psycopg.Error if a constraint does not hold."""
        self._pipeline.run(_CHECK)

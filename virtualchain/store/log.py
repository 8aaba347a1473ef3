"""The part of the log that one build of an app writes: its status, ops, rejections and snapshots.

Everything here runs in the caller's transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Json as Jsonb

from virtualchain.model import Json
from virtualchain.store.sql import queries

_Q = queries("log")


@dataclass(frozen=True, slots=True)
class Op:
    """An accepted input, as it goes into the log."""

    vtxindex: int
    txindex: int
    opcode: bytes
    payload: bytes
    fields: Json | list[Json]
    canonical: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Rejection:
    """A refused candidate; `step` is parse, check or commit."""

    txindex: int
    opcode: bytes
    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An app's digests at a block; `state_number` is None where the block left it as it was."""

    block_id: int
    ops_hash: str | None
    consensus_hash: str
    state_hash: str | None
    state_number: bytes | None = None


class AppLog:
    """Reads and appends to the log of one build of an app."""

    def __init__(self, connection: psycopg.Connection, app: str, build: str) -> None:
        self._connection = connection
        self.app = app
        self.build = build
        self._place = {"app": app, "build": build}

    def set_status(self, status: str, error: Mapping[str, object] | None = None) -> None:
        """Say how the app fares; `error` says why it is halted."""
        told = None if error is None else Jsonb(dict(error))
        self._connection.execute(_Q["set_status"], {**self._place, "status": status, "error": told})

    def status(self) -> str:
        """Give the app's status."""
        return str(self._row()["status"])

    def error(self) -> Json | None:
        """Give why the app is halted; None where it is not."""
        error: Json | None = self._row()["error"]
        return error

    def _row(self) -> Json:
        with self._connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(_Q["build"], self._place).fetchone()
        assert row is not None, f"build {self.build} of app {self.app} is not installed"
        return row

    def history_from(self) -> int:
        """Give the block from which on history is kept."""
        return int(self._row()["history_from"])

    def set_history_from(self, block_id: int) -> None:
        """Say that history is no longer kept before a block, where it was up to now."""
        self._connection.execute(_Q["set_history_from"], {**self._place, "history_from": block_id})

    def cursor(self) -> int | None:
        """Give the app's last block; None before its first, where no initial snapshot stands for one."""
        row = self._connection.execute(_Q["cursor"], self._place).fetchone()
        return None if row is None else int(row[0])

    def state_number(self) -> bytes | None:
        """Give the number under the state hash; None where no block changed it yet."""
        row = self._connection.execute(_Q["state_number"], self._place).fetchone()
        return None if row is None else bytes(row[0])

    def consensus_at(self, block_ids: Sequence[int]) -> dict[int, str]:
        """Give the consensus hashes of those of `block_ids` that have one."""
        wanted = {**self._place, "block_ids": list(block_ids)}
        return dict(self._connection.execute(_Q["consensus_at"], wanted).fetchall())

    def consensus_between(self, first: int, last: int) -> list[str]:
        """Give the consensus hashes of a stretch of blocks, both ends included, in order."""
        wanted = {**self._place, "first": first, "last": last}
        return [row[0] for row in self._connection.execute(_Q["consensus_between"], wanted)]

    def consensus_hash(self, block_id: int) -> str | None:
        """Give the consensus hash (32 hex digits) of one block; also for the app's own role to ask."""
        row = self._connection.execute(_Q["consensus_hash"], {**self._place, "block_id": block_id}).fetchone()
        return None if row is None else row[0]

    def is_fresh(self, consensus_hash: str, first: int, last: int) -> bool:
        """Tell whether a hash (32 hex digits) is one of a stretch of blocks; also for the app's own role."""
        wanted = {**self._place, "first": first, "last": last, "consensus_hash": consensus_hash}
        row = self._connection.execute(_Q["is_fresh"], wanted).fetchone()
        return bool(row and row[0])

    def snapshot(self, block_id: int) -> Snapshot:
        """Give the app's digests at a block that has them."""
        row = self._connection.execute(_Q["snapshot"], {**self._place, "block_id": block_id}).fetchone()
        assert row is not None, f"app {self.app} has no snapshot at block {block_id}"
        return Snapshot(block_id, *row)

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Append an app's digests at a block: from then on the app stands there."""
        self._connection.execute(
            _Q["add_snapshot"],
            {
                **self._place,
                "block_id": snapshot.block_id,
                "ops_hash": snapshot.ops_hash,
                "consensus_hash": snapshot.consensus_hash,
                "state_hash": snapshot.state_hash,
                "state_number": snapshot.state_number,
            },
        )

    def add(self, block_id: int, ops: Iterable[Op], rejections: Iterable[Rejection]) -> None:
        """Append a block's ops and rejections."""
        place = {**self._place, "block_id": block_id}
        accepted = [
            {
                **place,
                "vtxindex": op.vtxindex,
                "txindex": op.txindex,
                "opcode": op.opcode,
                "payload": op.payload,
                "fields": Jsonb(op.fields),
                "canonical": list(op.canonical),
            }
            for op in ops
        ]
        refused = [
            {**place, "txindex": r.txindex, "opcode": r.opcode, "step": r.step, "reason": r.reason}
            for r in rejections
        ]
        with self._connection.cursor() as cursor:
            if accepted:
                cursor.executemany(_Q["add_op"], accepted)
            if refused:
                cursor.executemany(_Q["add_rejection"], refused)

    def enter(self, block_id: int, tables: str) -> None:
        """Open the app's tables, in the schema `tables`, to its callbacks for one block; take on its role."""
        wanted = {**self._place, "tables": tables, "block_id": block_id}
        self._connection.execute(_Q["enter"], wanted)
        self._connection.execute(_Q["defer_constraints"])

    def leave(self) -> None:
        """Judge deferred constraints, close the app's tables again, and put off its role."""
        self._connection.execute(_Q["check_constraints"])
        self._connection.execute(_Q["leave"])

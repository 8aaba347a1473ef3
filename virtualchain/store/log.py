"""One app's part of the log: its registration, ops, rejections and snapshots.

Everything here runs in the caller's transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Json as Jsonb

from virtualchain.contract import Contract
from virtualchain.errors import InvalidApp, UsageError
from virtualchain.model import Json
from virtualchain.store.projections import build_schema, install, projections
from virtualchain.store.roles import provide_role
from virtualchain.store.sql import queries

_Q = queries("log")
FIRST_BUILD = "1"


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
    """Reads and appends to the log of one app."""

    def __init__(self, connection: psycopg.Connection, app: str) -> None:
        self._connection = connection
        self.app = app

    def register(self, contract: Contract, rule: str) -> str:
        """Install the app, or check that it is the one that was installed; give its build's schema.

        Must run in a transaction of its own. Raises InvalidApp for projections that cannot be kept,
        UsageError where the installed app declared something else.
        """
        with self._connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(_Q["app"], {"name": self.app}).fetchone()
        if row is None:
            return self._add(contract, rule)
        if row["fingerprint"] != contract.fingerprint():
            raise UsageError(
                f"app {self.app} was installed as version {row['version']} and now declares other rules or "
                f"projections (version {contract.version}): go on with the old ones, or start a new database"
            )
        tables = build_schema(row["schema"], row["build"])
        # Asked each time: the database may have come from another server, or have another name by now.
        own_role = self._provide_role(row["schema"], tables)
        self._connection.execute(_Q["set_own_role"], {"name": self.app, "own_role": own_role})
        return tables

    def _provide_role(self, schema: str, tables: str) -> bool:
        return provide_role(self._connection, schema, tables, projections(self._connection, tables))

    def _add(self, contract: Contract, rule: str) -> str:
        owner = self._connection.execute(_Q["schema_owner"], {"schema": contract.schema}).fetchone()
        if owner is not None:
            raise InvalidApp(f"app {self.app} would have the schema {contract.schema}, as app {owner[0]} has")
        tables = build_schema(contract.schema, FIRST_BUILD)
        install(self._connection, self.app, contract.schema, FIRST_BUILD, contract.projections)
        self._connection.execute(
            _Q["add_app"],
            {
                "name": self.app,
                "version": contract.version,
                "fingerprint": contract.fingerprint(),
                "schema": contract.schema,
                "build": FIRST_BUILD,
                "magics": list(contract.magics),
                "rule": rule,
                "first_block_id": contract.first_block_id,
                "valid_window": contract.window,
                "confirmations": contract.confirmations,
                "own_role": self._provide_role(contract.schema, tables),
            },
        )
        for block_id, consensus_hash in contract.initial_snapshots.items():
            self.add_snapshot(Snapshot(block_id, None, consensus_hash, None))
        return tables

    def set_status(self, status: str, error: Mapping[str, object] | None = None) -> None:
        """Say how the app fares; `error` says why it is halted."""
        told = None if error is None else Jsonb(dict(error))
        self._connection.execute(_Q["set_status"], {"name": self.app, "status": status, "error": told})

    def status(self) -> str:
        """Give the app's status."""
        return str(self._row()["status"])

    def error(self) -> Json | None:
        """Give why the app is halted; None where it is not."""
        error: Json | None = self._row()["error"]
        return error

    def _row(self) -> Json:
        with self._connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(_Q["app"], {"name": self.app}).fetchone()
        assert row is not None, f"app {self.app} is not installed"
        return row

    def cursor(self) -> int | None:
        """Give the app's last block; None before its first, where no initial snapshot stands for one."""
        row = self._connection.execute(_Q["cursor"], {"app": self.app}).fetchone()
        return None if row is None else int(row[0])

    def state_number(self) -> bytes | None:
        """Give the number under the state hash; None where no block changed it yet."""
        row = self._connection.execute(_Q["state_number"], {"app": self.app}).fetchone()
        return None if row is None else bytes(row[0])

    def consensus_at(self, block_ids: Sequence[int]) -> dict[int, str]:
        """Give the consensus hashes of those of `block_ids` that have one."""
        wanted = {"app": self.app, "block_ids": list(block_ids)}
        return dict(self._connection.execute(_Q["consensus_at"], wanted).fetchall())

    def consensus_between(self, first: int, last: int) -> list[str]:
        """Give the consensus hashes of a stretch of blocks, both ends included, in order."""
        wanted = {"app": self.app, "first": first, "last": last}
        return [row[0] for row in self._connection.execute(_Q["consensus_between"], wanted)]

    def consensus_hash(self, block_id: int) -> str | None:
        """Give the consensus hash (32 hex digits) of one block; also for the app's own role to ask."""
        row = self._connection.execute(
            _Q["consensus_hash"], {"app": self.app, "block_id": block_id}
        ).fetchone()
        return None if row is None else row[0]

    def is_fresh(self, consensus_hash: str, first: int, last: int) -> bool:
        """Tell whether a hash (32 hex digits) is one of a stretch of blocks; also for the app's own role."""
        wanted = {"app": self.app, "first": first, "last": last, "consensus_hash": consensus_hash}
        row = self._connection.execute(_Q["is_fresh"], wanted).fetchone()
        return bool(row and row[0])

    def snapshot(self, block_id: int) -> Snapshot:
        """Give the app's digests at a block that has them."""
        row = self._connection.execute(_Q["snapshot"], {"app": self.app, "block_id": block_id}).fetchone()
        assert row is not None, f"app {self.app} has no snapshot at block {block_id}"
        return Snapshot(block_id, *row)

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Append an app's digests at a block: from then on the app stands there."""
        self._connection.execute(
            _Q["add_snapshot"],
            {
                "app": self.app,
                "block_id": snapshot.block_id,
                "ops_hash": snapshot.ops_hash,
                "consensus_hash": snapshot.consensus_hash,
                "state_hash": snapshot.state_hash,
                "state_number": snapshot.state_number,
            },
        )

    def add(self, block_id: int, ops: Iterable[Op], rejections: Iterable[Rejection]) -> None:
        """Append a block's ops and rejections."""
        place = {"app": self.app, "block_id": block_id}
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

    def enter(self, block_id: int, build: str) -> None:
        """Open the app's tables to its callbacks for one block, and take on the app's role."""
        wanted = {"app": self.app, "build": build, "block_id": block_id}
        self._connection.execute(_Q["enter"], wanted)
        self._connection.execute(_Q["defer_constraints"])

    def leave(self) -> None:
        """Judge deferred constraints, close the app's tables again, and put off its role."""
        self._connection.execute(_Q["check_constraints"])
        self._connection.execute(_Q["leave"])

"""Make op proofs from a deployment: everything is read through the views, as a reader may."""

from dataclasses import dataclass
from itertools import count

import psycopg
from psycopg.rows import dict_row

from virtualchain.consensus import make_op_proof, prior_block_ids
from virtualchain.errors import DamagedTables, InvalidProof, UsageError
from virtualchain.model import Json
from virtualchain.reading import views
from virtualchain.store.sql import queries

_Q = queries("proof")


@dataclass(frozen=True, slots=True)
class MadeProof:
    """A proof, and what its receiver must trust."""

    proof: Json
    trusted_block_id: int
    trusted_hash: str
    place: "Place | None"
    """Where the op's transaction is; None if the proof is of a whole list."""


@dataclass(frozen=True, slots=True)
class Place:
    """A transaction on the tape; its id is in display order."""

    block_id: int
    txindex: int
    txid: str


def prove(
    connection: psycopg.Connection,
    app: str,
    block_id: int,
    vtxindex: int | None = None,
    *,
    part: int = 0,
    trusted_block_id: int | None = None,
) -> MadeProof:
    """Prove an op of a block, or all of them, to whoever trusts a consensus hash of the app.

    `connection` is a `snapshot` of views. The op is the row of `virtualchain.ops` with this vtxindex; `part`
    says which, from 0, if its commit made several. Without vtxindex the proof shows all ops of the block. The
    trusted hash is that of `trusted_block_id`, by default the app's last block. Raises UsageError if the
    database has no such app, block or op, and DamagedTables if the log does not fit its digests.
    """
    [row] = views.apps(connection, [app])
    trusted_block_id = row["block_id"] if trusted_block_id is None else trusted_block_id
    _check_range(connection, row, block_id, trusted_block_id)
    log = _dicts(connection, "ops", app=app, block_id=block_id)
    ops = [canonical for op in log for canonical in op["canonical"]]
    index, place = None, None
    if vtxindex is not None:
        index, place = _find(connection, app, block_id, log, vtxindex, part)
    elif part:
        raise UsageError("a part is one of an op: name the op by its vtxindex")
    digests = _Digests(connection, app)
    try:
        proof = make_op_proof(
            app=app,
            first_block_id=row["first_block_id"],
            trusted_block_id=trusted_block_id,
            block_id=block_id,
            index=index,
            ops_hash_at=digests.ops_hash,
            consensus_hash_at=digests.consensus_hash,
            ops_at=lambda _: ops,
        )
    except InvalidProof as error:
        raise DamagedTables(
            f"{app}: the log does not fit its digests, so nothing can be proved ({error}): "
            "`virtualchain verify` finds what is wrong"
        ) from error
    return MadeProof(proof, trusted_block_id, digests.consensus_hash(trusted_block_id), place)


def _check_range(
    connection: psycopg.Connection, row: Json, block_id: int, trusted_block_id: int | None
) -> None:
    app, first, last = row["name"], row["first_block_id"], row["block_id"]
    [(base,)] = connection.execute(_Q["base"], {"app": app}).fetchall()
    if last is None or last <= base:
        raise UsageError(f"{app} has not processed any block yet")
    assert trusted_block_id is not None
    if not first <= block_id <= last:
        raise UsageError(f"{app} has no block {block_id}: its blocks are {first} to {last}")
    if block_id <= base:
        raise UsageError(
            f"{app} began after block {base}, with a checkpoint or with initial snapshots: this database "
            f"does not have its ops in block {block_id}; one that processed that block can prove them"
        )
    if not block_id <= trusted_block_id <= last:
        raise UsageError(
            f"{app}: the proof of an op in block {block_id} starts at that block or above it, and not above "
            f"the app's last one, {last}: not at block {trusted_block_id}"
        )


def _find(
    connection: psycopg.Connection, app: str, block_id: int, log: list[Json], vtxindex: int, part: int
) -> tuple[int, Place]:
    """Find an op among all that the block's ops hash covers, and its transaction."""
    before = 0
    for op in log:
        parts = len(op["canonical"])
        if op["vtxindex"] < vtxindex:
            before += parts
        elif op["vtxindex"] == vtxindex:
            if not parts:
                raise UsageError(
                    f"{app}: op {vtxindex} of block {block_id} was accepted, but its commit returned an "
                    "empty list, so nothing of it entered the ops hash, and nothing can prove it"
                )
            if not 0 <= part < parts:
                raise UsageError(
                    f"{app}: op {vtxindex} of block {block_id} has the parts 0 to {parts - 1}, "
                    f"which its commit made; there is no part {part}"
                )
            return before + part, Place(block_id, op["txindex"], op["txid"])
    raise UsageError(_absence(connection, app, block_id, log, vtxindex))


def _absence(connection: psycopg.Connection, app: str, block_id: int, log: list[Json], vtxindex: int) -> str:
    """Describe why a block has no op at a place: the candidate with that place may have been rejected."""
    accepted = {op["vtxindex"] for op in log}
    free = (place for place in count() if place not in accepted)
    rejected = dict(zip(free, _dicts(connection, "rejected", app=app, block_id=block_id), strict=False))
    if vtxindex in rejected:
        row = rejected[vtxindex]
        return (
            f"{app}: candidate {vtxindex} of block {block_id}, in transaction {row['txid']}, is not an op: "
            f"it was rejected at {row['step']}: {row['reason']}"
        )
    places = ", ".join(map(str, sorted(accepted))) or "none"
    return f"{app}: block {block_id} has no op with the vtxindex {vtxindex}; those of its ops: {places}"


class _Digests:
    """The digests of an app's blocks, read when they are asked for."""

    def __init__(self, connection: psycopg.Connection, app: str) -> None:
        self._connection = connection
        self._app = app
        self._rows: dict[int, Json] = {}

    def ops_hash(self, block_id: int) -> str:
        """Return a block's ops hash; and read those of its prior blocks, which are asked for next."""
        return str(self._at(block_id)["ops_hash"])

    def consensus_hash(self, block_id: int) -> str:
        """Return a block's consensus hash."""
        return str(self._at(block_id)["consensus_hash"])

    def _at(self, block_id: int) -> Json:
        if block_id not in self._rows:
            ids = [block_id, *prior_block_ids(block_id, 0)]
            rows = _dicts(self._connection, "digests", app=self._app, block_ids=ids)
            self._rows |= {row["block_id"]: row for row in rows}
        try:
            return self._rows[block_id]
        except KeyError as error:
            raise UsageError(
                f"{self._app} has no consensus hash of block {block_id}, which is in a gap between its "
                "initial snapshots: a proof that would need it cannot be made"
            ) from error


def _dicts(connection: psycopg.Connection, name: str, **parameters: object) -> list[Json]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_Q[name], parameters).fetchall()

"""Proofs of an op, or of all ops of a block, for whoever trusts one later consensus hash.

A proof walks down the skip list that consensus hashes form (`docs/protocol/consensus.md`). Each hop shows
what its block's hash was computed from and continues at the lowest prior hash that is not below the op's
block; the last hop shows that block's ops. `docs/protocol/proofs.md` defines the format, and what is the
prover's word: heights and the app's name are not hashed.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from virtualchain.consensus.digests import consensus_hash, ops_hash_of_digests, prior_block_ids
from virtualchain.consensus.hashing import sha256d
from virtualchain.consensus.merkle import shortest_length
from virtualchain.consensus.proof_file import hexadecimal, items, record, text, whole
from virtualchain.errors import InvalidProof, UsageError, quoted
from virtualchain.model import Json

FORMAT: Final = "virtualchain-proof-1"
SPV: Final = "spv"
"""The key of what shows the op's transaction: an object that `virtualchain/bitcoin/spv.py` reads."""
_KEYS = {"format", "app", "first_block_id", "hops", "ops", "index"}
_HOP_KEYS = {"block_id", "ops_hash", "prior"}


@dataclass(frozen=True, slots=True)
class ProvenOps:
    """What a proof shows: these ops are hashed into the trusted consensus hash, as all of one block's.

    The rest is the prover's word, unless the checker knew it.
    """

    app: str
    first_block_id: int
    trusted_block_id: int
    block_id: int
    ops: tuple[bytes, ...]
    index: int | None
    """The place of the proved op in `ops`; None: the proof is about the whole list."""
    hops: int
    spv: object = None
    """What the proof shows of the op's transaction, not checked yet; None if it does not."""


class _Hop(NamedTuple):
    block_id: int
    ops_hash: str
    prior: dict[int, str]


def make_op_proof(
    *,
    app: str,
    first_block_id: int,
    trusted_block_id: int,
    block_id: int,
    index: int | None,
    ops_hash_at: Callable[[int], str],
    consensus_hash_at: Callable[[int], str],
    ops_at: Callable[[int], Sequence[bytes]],
) -> Json:
    """Prove an op of `block_id` to whoever trusts the hash of `trusted_block_id`.

    `index` is its place among that block's ops; with None, the proof shows all of them. The three functions
    look up, by block, the ops hash, the consensus hash (or initial snapshot) and the serialized ops. Raises
    UsageError if there is no such op up to the trusted block, and InvalidProof if the digests that were
    looked up do not agree.
    """
    if not first_block_id <= block_id <= trusted_block_id:
        raise UsageError(
            f"{app}: block {block_id} is not between the first block, {first_block_id},"
            f" and the trusted one, {trusted_block_id}"
        )
    ops = ops_at(block_id)
    if index is not None and not 0 <= index < len(ops):
        raise UsageError(f"{app}: block {block_id} has {len(ops)} ops, none at index {index}")
    shown = _without_repeated(ops)
    if index is not None and index not in shown:
        index = ops.index(ops[index])  # the first of those that are equal is always shown
    hops = [
        {
            "block_id": hop_id,
            "ops_hash": ops_hash_at(hop_id),
            "prior": {
                str(prior_id): consensus_hash_at(prior_id)
                for prior_id in prior_block_ids(hop_id, first_block_id)
            },
        }
        for hop_id in _route(trusted_block_id, block_id, first_block_id)
    ]
    proof = {
        "format": FORMAT,
        "app": app,
        "first_block_id": first_block_id,
        "hops": hops,
        "ops": [ops[place].hex() for place in shown],
        "index": None if index is None else shown.index(index),
    }
    check_ops(proof, consensus_hash_at(trusted_block_id))
    return proof


def _without_repeated(ops: Sequence[bytes]) -> list[int]:
    """Return the places of the ops in the shortest list with the same hash."""
    digests = [sha256d(op) for op in ops]
    kept = Counter(sorted(digests)[: shortest_length(sorted(digests))])
    places = []
    for place, digest in enumerate(digests):
        if kept[digest]:
            kept[digest] -= 1
            places.append(place)
    return places


def _route(block_id: int, target: int, first_block_id: int) -> Iterator[int]:
    yield block_id
    while block_id != target:
        block_id = min(prior for prior in prior_block_ids(block_id, first_block_id) if prior >= target)
        yield block_id


def check_op_proof(
    proof: object, trusted_hash: str, *, app: str | None = None, block_id: int | None = None
) -> bytes:
    """Check the proof of an op against a trusted consensus hash; return the op's bytes.

    `app` and `block_id` are as in `check_ops`. Raises InvalidProof for any flaw, for a proof that names no
    op, and for one that also shows a transaction, which only `virtualchain/proof/checking.py` checks.
    """
    proven = _only_ops(check_ops(proof, trusted_hash, app=app, block_id=block_id))
    if proven.index is None:
        raise InvalidProof("the proof shows the ops of a block, and does not name one of them")
    return proven.ops[proven.index]


def check_ops_proof(
    proof: object, trusted_hash: str, *, app: str | None = None, block_id: int | None = None
) -> list[bytes]:
    """Check a proof against a trusted consensus hash; return the bytes of all ops of its last block.

    The block has no other op; how often each occurs is not proven. Everything else is as in
    `check_op_proof`.
    """
    return list(_only_ops(check_ops(proof, trusted_hash, app=app, block_id=block_id)).ops)


def _only_ops(proven: ProvenOps) -> ProvenOps:
    if proven.spv is not None:
        raise InvalidProof("the proof also shows a transaction, which this function does not check")
    return proven


def check_ops(
    proof: object, trusted_hash: str, *, app: str | None = None, block_id: int | None = None
) -> ProvenOps:
    """Check a proof (as `read_proof` returns it) against a trusted consensus hash, but for its `spv`.

    `app` and `block_id` are what the caller knows of the trusted hash: whose it is, and of which block. A
    proof that says anything else is refused. Raises InvalidProof for any flaw.
    """
    parts = record(proof, _KEYS, "the proof", optional={SPV})
    if parts["format"] != FORMAT:
        raise InvalidProof(
            f"the proof's format is not {quoted(FORMAT)}, the only one that this version reads"
        )
    of = text(parts["app"], "the app's name")
    if app is not None and of != app:
        raise InvalidProof(f"the proof is of the app {quoted(of)}, not of {quoted(app)}")
    first_block_id = whole(parts["first_block_id"], "first_block_id")
    hops = [_read_hop(hop, first_block_id) for hop in items(parts["hops"], "hops")]
    if not hops:
        raise InvalidProof("the proof has no hops")
    start, last = hops[0].block_id, hops[-1]
    if block_id is not None and start != block_id:
        raise InvalidProof(f"the proof starts at block {start}, but the trusted hash is that of {block_id}")
    _check_hops(hops, hexadecimal(trusted_hash, 32, "the trusted hash"))
    ops = _read_ops(parts["ops"], last)
    index = None if parts["index"] is None else whole(parts["index"], "index")
    if index is not None and index >= len(ops):
        raise InvalidProof(f"block {last.block_id} has {len(ops)} ops, none at index {index}")
    spv = parts.get(SPV)
    if SPV in parts and (index is None or not isinstance(spv, dict)):
        raise InvalidProof("spv must be an object that shows the transaction of an op, which index names")
    return ProvenOps(of, first_block_id, start, last.block_id, ops, index, len(hops), spv)


def _check_hops(hops: Sequence[_Hop], trusted_hash: str) -> None:
    trusted = {hops[0].block_id: trusted_hash}
    for hop in hops:
        if hop.block_id not in trusted:
            raise InvalidProof(f"the hop to block {hop.block_id} does not follow from the previous one")
        if consensus_hash(hop.ops_hash, hop.prior.values()) != trusted[hop.block_id]:
            raise InvalidProof(
                f"block {hop.block_id}: its ops hash and prior hashes do not produce the trusted hash"
            )
        trusted = hop.prior


def _read_ops(value: object, hop: _Hop) -> tuple[bytes, ...]:
    ops = tuple(bytes.fromhex(hexadecimal(op, None, "an op")) for op in items(value, "ops"))
    # An empty string has the hash of a block without ops: it must not pass for an op.
    if any(b":" not in op[:2] for op in ops):
        raise InvalidProof(f"block {hop.block_id}: an op must start with its opcode, if any, and a colon")
    digests = sorted(map(sha256d, ops))
    if ops_hash_of_digests(digests) != hop.ops_hash:
        raise InvalidProof(f"block {hop.block_id}: the ops shown do not produce its ops hash")
    if shortest_length(digests) < len(digests):
        raise InvalidProof(f"block {hop.block_id}: a shorter list of ops has the same ops hash")
    return ops


def _read_hop(hop: object, first_block_id: int) -> _Hop:
    parts = record(hop, _HOP_KEYS, "a hop")
    block_id = whole(parts["block_id"], "block_id")
    if block_id < first_block_id:
        raise InvalidProof(f"block {block_id} is below the first block, {first_block_id}")
    ids = prior_block_ids(block_id, first_block_id)
    prior = record(parts["prior"], {str(prior_id) for prior_id in ids}, f"prior of block {block_id}")
    hashes = {prior_id: hexadecimal(prior[str(prior_id)], 32, f"prior hash {prior_id}") for prior_id in ids}
    # A row of the tree repeats its last node, so a repeated hash could add priors that do not exist.
    if len(set(hashes.values())) != len(ids):
        raise InvalidProof(f"prior of block {block_id} has a hash twice")
    return _Hop(block_id, hexadecimal(parts["ops_hash"], 64, f"ops_hash of block {block_id}"), hashes)

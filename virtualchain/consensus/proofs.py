"""Proofs that an op was accepted, for whoever trusts one later consensus hash.

A proof walks down the skip list that consensus hashes form (`docs/protocol/consensus.md`). Each hop shows
what its block's hash was computed from and continues at the lowest prior hash that is not below the op's
block; the last hop shows that block's ops. `docs/protocol/proofs.md` defines the format.

A proof shows that the op's bytes are hashed into the history that ends in the trusted hash. The heights, the
app's name and the op's position among its block's ops are not hashed: for these the prover must be trusted.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from virtualchain.consensus.digests import consensus_hash, ops_hash, prior_block_ids
from virtualchain.consensus.proof_file import hexadecimal, items, record, text, whole
from virtualchain.errors import InvalidProof, UsageError, quoted
from virtualchain.model import Json

FORMAT = "virtualchain-proof-1"
_KEYS = {"format", "app", "first_block_id", "hops", "ops", "index"}
_HOP_KEYS = {"block_id", "ops_hash", "prior"}


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
    index: int,
    ops_hash_at: Callable[[int], str],
    consensus_hash_at: Callable[[int], str],
    ops_at: Callable[[int], Sequence[bytes]],
) -> Json:
    """Prove the op at `index` among those of `block_id` to whoever trusts the hash of `trusted_block_id`.

    The three functions look up, by block, the ops hash, the consensus hash (or initial snapshot) and the
    serialized ops. Raises UsageError if there is no such op up to the trusted block, and InvalidProof if the
    digests that were looked up do not agree.
    """
    if not first_block_id <= block_id <= trusted_block_id:
        raise UsageError(
            f"{app}: block {block_id} is not between the first block, {first_block_id},"
            f" and the trusted one, {trusted_block_id}"
        )
    ops = ops_at(block_id)
    if not 0 <= index < len(ops):
        raise UsageError(f"{app}: block {block_id} has {len(ops)} ops, none at index {index}")
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
        "ops": [op.hex() for op in ops],
        "index": index,
    }
    check_op_proof(proof, consensus_hash_at(trusted_block_id))
    return proof


def _route(block_id: int, target: int, first_block_id: int) -> Iterator[int]:
    yield block_id
    while block_id != target:
        block_id = min(prior for prior in prior_block_ids(block_id, first_block_id) if prior >= target)
        yield block_id


def check_op_proof(proof: object, trusted_hash: str) -> bytes:
    """Check a proof (as `json.loads` returns it) against a trusted consensus hash; return the op's bytes.

    Raises InvalidProof for any flaw.
    """
    parts = record(proof, _KEYS, "the proof")
    if parts["format"] != FORMAT:
        raise InvalidProof(
            f"the proof's format is not {quoted(FORMAT)}, the only one that this version reads"
        )
    text(parts["app"], "the app's name")
    first_block_id = whole(parts["first_block_id"], "first_block_id")
    hops = [_read_hop(hop, first_block_id) for hop in items(parts["hops"], "hops")]
    if not hops:
        raise InvalidProof("the proof has no hops")
    trusted = {hops[0].block_id: hexadecimal(trusted_hash, 32, "the trusted hash")}
    for hop in hops:
        if hop.block_id not in trusted:
            raise InvalidProof(f"the hop to block {hop.block_id} does not follow from the previous one")
        if consensus_hash(hop.ops_hash, hop.prior.values()) != trusted[hop.block_id]:
            raise InvalidProof(
                f"block {hop.block_id}: its ops hash and prior hashes do not produce the trusted hash"
            )
        trusted = hop.prior
    return _find_op(parts["ops"], parts["index"], hops[-1])


def _find_op(proof_ops: object, index: object, hop: _Hop) -> bytes:
    ops = [bytes.fromhex(hexadecimal(op, None, "an op")) for op in items(proof_ops, "ops")]
    # An empty string has the hash of a block without ops: it must not pass for an op.
    if any(op[1:2] != b":" for op in ops):
        raise InvalidProof(f"block {hop.block_id}: an op must start with its opcode and a colon")
    if ops_hash(ops) != hop.ops_hash:
        raise InvalidProof(f"block {hop.block_id}: the ops shown do not produce its ops hash")
    place = whole(index, "index")
    if place >= len(ops):
        raise InvalidProof(f"block {hop.block_id} has {len(ops)} ops, none at index {place}")
    return ops[place]


def _read_hop(hop: object, first_block_id: int) -> _Hop:
    parts = record(hop, _HOP_KEYS, "a hop")
    block_id = whole(parts["block_id"], "block_id")
    if block_id < first_block_id:
        raise InvalidProof(f"block {block_id} is below the first block, {first_block_id}")
    ids = prior_block_ids(block_id, first_block_id)
    prior = record(parts["prior"], {str(prior_id) for prior_id in ids}, f"prior of block {block_id}")
    return _Hop(
        block_id,
        hexadecimal(parts["ops_hash"], 64, f"ops_hash of block {block_id}"),
        {prior_id: hexadecimal(prior[str(prior_id)], 32, f"prior hash {prior_id}") for prior_id in ids},
    )

"""The digests that every block of an app gets, bit for bit those of the reference network.

They are a wire format (`docs/protocol/consensus.md`). An op is serialized, a block's ops are hashed together
and mixed with earlier consensus hashes (`digests`), both through a Merkle tree (`merkle`), so that whoever
trusts one consensus hash can check any older op (`proofs`). A state root fixes the rows of an app, so that
each can be proved (`row_proofs`). Hashes are lower-case hex; nothing here does I/O.
"""

from virtualchain.consensus.digests import (
    consensus_hash,
    ops_hash,
    prior_block_ids,
    serialize_op,
    text_of,
)
from virtualchain.consensus.merkle import merkle_path, merkle_root, verify_merkle_path
from virtualchain.consensus.proof_file import read_proof
from virtualchain.consensus.proofs import check_op_proof, check_ops_proof, make_op_proof
from virtualchain.consensus.row_proofs import RowClaim, check_row_proof, state_root

__all__ = [
    "RowClaim",
    "check_op_proof",
    "check_ops_proof",
    "check_row_proof",
    "consensus_hash",
    "make_op_proof",
    "merkle_path",
    "merkle_root",
    "ops_hash",
    "prior_block_ids",
    "read_proof",
    "serialize_op",
    "state_root",
    "text_of",
    "verify_merkle_path",
]

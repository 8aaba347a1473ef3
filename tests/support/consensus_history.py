"""A history of ops and digests in memory, for tests of proofs."""

from collections.abc import Sequence

from virtualchain import consensus
from virtualchain.model import Json


class History:
    """The blocks of one app from `first_block_id` on, with the ops of each."""

    def __init__(self, first_block_id: int, blocks: Sequence[Sequence[bytes]]) -> None:
        self.first_block_id = first_block_id
        self.ops = {first_block_id + n: list(ops) for n, ops in enumerate(blocks)}
        self.ops_hashes = {block_id: consensus.ops_hash(ops) for block_id, ops in self.ops.items()}
        self.hashes: dict[int, str] = {}
        for block_id, ops_hash in self.ops_hashes.items():
            prior = consensus.prior_block_ids(block_id, first_block_id)
            self.hashes[block_id] = consensus.consensus_hash(ops_hash, [self.hashes[p] for p in prior])

    @property
    def tip(self) -> int:
        """The last block."""
        return self.first_block_id + len(self.ops) - 1

    def prove(self, block_id: int, index: int | None, trusted: int | None = None) -> Json:
        """Prove one op, or with None all of a block, from block `trusted` (by default the last one)."""
        return consensus.make_op_proof(
            app="notary",
            first_block_id=self.first_block_id,
            trusted_block_id=self.tip if trusted is None else trusted,
            block_id=block_id,
            index=index,
            ops_hash_at=self.ops_hashes.__getitem__,
            consensus_hash_at=self.hashes.__getitem__,
            ops_at=self.ops.__getitem__,
        )

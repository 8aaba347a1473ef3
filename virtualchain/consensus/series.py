"""The series of an app's consensus hashes: each follows from earlier ones and from its block's ops."""

from typing import Final

from virtualchain.consensus.digests import consensus_hash, prior_block_ids

_HASH_SIZE: Final = 16


class Series:
    """An app's consensus hashes, in the order of blocks (`docs/protocol/consensus.md`).

    The first ones may be initial: they are taken as given, at any blocks. After the last of them, starting no
    lower than `first_block_id`, every block has a hash.
    """

    def __init__(self, first_block_id: int) -> None:
        self.initial: dict[int, str] = {}
        self._first = first_block_id
        self._start: int | None = None
        self._hashes = bytearray()  # 16 bytes a block: a chain has a million of them

    @property
    def has_begun(self) -> bool:
        """Whether it holds the hash of a block, besides initial ones."""
        return bool(self._hashes)

    @property
    def following(self) -> int:
        """The block whose hash is the next one."""
        start = self._start
        if start is None:
            start = max(self._first, max(self.initial, default=-1) + 1, 0)
        return start + len(self._hashes) // _HASH_SIZE

    @property
    def last(self) -> tuple[int, str] | None:
        """The last block and its consensus hash; None if none was added yet."""
        if self._hashes:
            return self.following - 1, self._hashes[-_HASH_SIZE:].hex()
        return max(self.initial.items(), default=None)

    def compute(self, ops_hash: str) -> str:
        """Compute the hash of the block `following` from its ops hash and the earlier hashes."""
        block_id = self.following
        start = block_id - len(self._hashes) // _HASH_SIZE
        priors = []
        for prior in prior_block_ids(block_id, self._first):
            offset = (prior - start) * _HASH_SIZE
            if offset >= 0:
                priors.append(self._hashes[offset : offset + _HASH_SIZE].hex())
            elif prior in self.initial:
                priors.append(self.initial[prior])
        return consensus_hash(ops_hash, priors)

    def append(self, block_hash: str) -> None:
        """Add the hash of the block `following`."""
        self._start = self.following - len(self._hashes) // _HASH_SIZE
        self._hashes += bytes.fromhex(block_hash)

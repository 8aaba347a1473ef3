"""An app's series of consensus hashes, computed again block by block."""

from typing import Final

from virtualchain import consensus
from virtualchain.errors import InvalidCheckpoint

_SIZE: Final = 16


class Series:
    """Takes in the digests of an app in the order of blocks; each must follow from those before it.

    The first ones may be initial: they have no ops hash and are taken as they stand (consensus.md). Behind
    the last of them, and not below `first_block_id`, block follows block.
    """

    def __init__(self, first_block_id: int) -> None:
        self.initial: dict[int, str] = {}
        self._first = first_block_id
        self._start: int | None = None
        self._hashes = bytearray()  # 16 bytes a block: a chain has a million

    @property
    def last(self) -> tuple[int, str] | None:
        """The last block and its consensus hash; None at first."""
        if self._hashes:
            assert self._start is not None, "there are hashes"
            block_id = self._start + len(self._hashes) // _SIZE - 1
            return block_id, self._hashes[-_SIZE:].hex()
        return max(self.initial.items(), default=None)

    def add(self, block_id: int, ops_hash: str | None, consensus_hash: str) -> None:
        """Take in a block's digests; InvalidCheckpoint where they do not follow from those before."""
        before = self.last
        if before is not None and block_id <= before[0]:
            raise InvalidCheckpoint(
                f"its digests of block {block_id} stand behind those of block {before[0]}"
            )
        if ops_hash is None:
            if self._hashes:
                raise InvalidCheckpoint(f"it has no ops hash of block {block_id}")
            self.initial[block_id] = consensus_hash
            return
        if self._start is None:
            self._start = max(self._first, max(self.initial, default=-1) + 1, 0)
        following = self._start + len(self._hashes) // _SIZE
        if block_id != following:
            raise InvalidCheckpoint(
                f"it has digests of block {block_id} where those of block {following} are due"
            )
        found = consensus.consensus_hash(ops_hash, self._prior(block_id, self._start))
        if found != consensus_hash:
            raise InvalidCheckpoint(
                f"the consensus hash of block {block_id} is {found} by its ops and those before, and it says "
                f"{consensus_hash}"
            )
        self._hashes += bytes.fromhex(consensus_hash)

    def _prior(self, block_id: int, start: int) -> list[str]:
        wanted = consensus.prior_block_ids(block_id, self._first)
        places = [(item, (item - start) * _SIZE) for item in wanted]
        return [
            self.initial[item] if place < 0 else self._hashes[place : place + _SIZE].hex()
            for item, place in places
            if place >= 0 or item in self.initial
        ]

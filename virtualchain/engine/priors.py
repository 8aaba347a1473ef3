"""The earlier consensus hashes that the next blocks' hashes are computed from."""

from typing import Final

from virtualchain.app.contract import Contract
from virtualchain.consensus import prior_block_ids
from virtualchain.errors import StoreError
from virtualchain.store.log import AppLog

_AT_ONCE: Final = 100
"""For how many blocks they are read together."""
_KEPT: Final = 4_000
"""Hashes of how many blocks are kept: of the priors of a block on a chain of a million, 12 of 19."""


class Priors:
    """The prior hashes of one build's next blocks; most are read from its log long before they are needed."""

    def __init__(self, log: AppLog, contract: Contract) -> None:
        self._log = log
        self._first = contract.first_block_id
        self._start = contract.start
        self._hashes: dict[int, str] = {}
        self._until = -1

    def of(self, block_id: int) -> list[str]:
        """Return the hashes that go into that of a block; raise StoreError if the log lacks one."""
        if block_id > self._until:
            self._read(block_id)
        ids = prior_block_ids(block_id, self._first)
        missing = [item for item in ids if item >= self._start and item not in self._hashes]
        if missing:
            raise StoreError(
                f"app {self._log.app}: the snapshots of blocks {missing} are missing; restore the database"
            )
        return [self._hashes[item] for item in ids if item in self._hashes]

    def add(self, block_id: int, consensus_hash: str) -> None:
        """Keep the hash of a block that was just taken."""
        self._hashes[block_id] = consensus_hash

    def forget(self) -> None:
        """Read all again, because the log may have changed."""
        self._hashes.clear()
        self._until = -1

    def _read(self, block_id: int) -> None:
        self._until = block_id + _AT_ONCE - 1
        ids = {
            prior
            for item in range(block_id, self._until + 1)
            for prior in prior_block_ids(item, self._first)
            if prior < block_id
        }
        oldest = block_id - _KEPT
        self._hashes = {item: known for item, known in self._hashes.items() if item >= oldest}
        self._hashes |= self._log.consensus_at(sorted(ids - self._hashes.keys()))

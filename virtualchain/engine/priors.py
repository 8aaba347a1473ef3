"""The earlier consensus hashes that the next blocks' hashes are computed from."""

from functools import lru_cache
from typing import Final

from virtualchain.app.contract import Contract
from virtualchain.bitcoin.compiled import consensus_hash
from virtualchain.consensus import prior_block_ids
from virtualchain.errors import StoreError
from virtualchain.store.log import AppLog

_AT_ONCE: Final = 500
"""For how many blocks they are read together."""
_KEPT: Final = 4_000
"""Hashes of how many blocks are kept: of the priors of a block on a chain of a million, 12 of 19."""

_ids: Final = lru_cache(maxsize=16)(prior_block_ids)
"""Several apps ask for the same ones."""


class Priors:
    """The prior hashes of one build's next blocks; most are read from its log long before they are needed."""

    def __init__(self, log: AppLog, contract: Contract) -> None:
        self._log = log
        self._first = contract.first_block_id
        self._start = contract.start
        self._hashes: dict[int, str] = {}
        self._oldest = -1
        """From here on, all hashes are kept; -1: none is yet."""
        self._until = -1

    def consensus_hash(self, block_id: int, ops_hash: str) -> str:
        """Compute the hash of the next block, and keep it; raise StoreError if an earlier one is missing."""
        if block_id > self._until:
            self._read(block_id)
        hashes, ids = self._hashes, _ids(block_id, self._first)
        try:
            priors = [hashes[item] for item in ids]
        except KeyError:
            priors = self._from_the_start(ids)
        computed: str = consensus_hash(ops_hash, priors)
        hashes[block_id] = computed
        return computed

    def forget(self) -> None:
        """Read all again, because the log may have changed."""
        self._hashes.clear()
        self._oldest = self._until = -1

    def _from_the_start(self, ids: list[int]) -> list[str]:
        """Return the priors of a block near the app's first one, below which only initial hashes are."""
        missing = [item for item in ids if item >= self._start and item not in self._hashes]
        if missing:
            raise StoreError(
                f"app {self._log.app}: the snapshots of blocks {missing} are missing; restore the database"
            )
        return [self._hashes[item] for item in ids if item in self._hashes]

    def _read(self, block_id: int) -> None:
        last = self._until = block_id + _AT_ONCE - 1
        oldest = block_id - _KEPT
        kept = {item: known for item, known in self._hashes.items() if item >= oldest}
        complete_from = block_id if self._oldest < 0 else max(self._oldest, oldest)
        unknown: set[int] = set()
        for prior in prior_block_ids(last, 0):
            lowest = prior - (last - block_id)  # that of `block_id`, as far below it
            if lowest < complete_from:
                unknown.update(range(max(self._first, lowest), min(prior + 1, block_id)))
        kept |= self._log.consensus_at(sorted(unknown - kept.keys()))
        self._hashes, self._oldest = kept, complete_from

"""What an app's own callbacks may ask of its log: the consensus hashes before the block in progress.

The methods of `StateEngine` that look up consensus hashes may be called by a callback, as the published
documentation does. The answer then comes from the build that runs the callback, through functions that the
app's own role may call, and never includes the block in progress. So the answers are the same with and
without such a role, in a replay, and in every process that runs the app.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from virtualchain.errors import UsageError
from virtualchain.store.log import AppLog

_LOWEST: Final = -1
"""The lowest block with a consensus hash: an initial snapshot may stand for the place before the first."""


@dataclass(frozen=True, slots=True)
class Lookups:
    """The log of the build whose callback runs, up to the block that the build was advanced to."""

    log: AppLog
    window: int
    last: int

    def consensus_at(self, block_id: int) -> str | None:
        """Return the consensus hash at a block; None if there is none, or not yet."""
        return self.log.consensus_hash(block_id) if _LOWEST <= block_id <= self.last else None

    def valid_hashes(self, block_id: int) -> list[str]:
        """Return the hashes that are fresh at a block, oldest first."""
        first, last = self._stretch(block_id)
        return self.log.consensus_hashes(first, last) if first <= last else []

    def is_valid(self, block_id: int, consensus_hash: str) -> bool:
        """Return whether a hash is fresh at a block."""
        first, last = self._stretch(block_id)
        return first <= last and self.log.is_fresh(consensus_hash, first, last)

    def newest_blocks(self, hashes: Sequence[str]) -> dict[str, int]:
        """Return, for those of these hashes that a block has, the newest such block."""
        return self.log.newest_blocks(hashes, self.last)

    def _stretch(self, block_id: int) -> tuple[int, int]:
        return max(block_id - self.window, _LOWEST), min(block_id, self.last)


_RUNNING: Final[ContextVar[Lookups | None]] = ContextVar("_RUNNING", default=None)


@contextmanager
def answering(lookups: Lookups) -> Iterator[None]:
    """Have what callbacks ask inside this block answered from a build's log."""
    token = _RUNNING.set(lookups)
    try:
        yield
    finally:
        _RUNNING.reset(token)


def lookups_of_callback(app: str | None) -> Lookups | None:
    """Return what the running callback may ask; None if none runs.

    Raises UsageError if it asks about another app: how far that has come is no function of the chain.
    """
    lookups = _RUNNING.get()
    if lookups is not None and app not in {None, lookups.log.app}:
        raise UsageError(f"a callback of app {lookups.log.app} cannot ask for consensus hashes of app {app}")
    return lookups

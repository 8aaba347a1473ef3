"""The engine's own check: ops that must have a fresh consensus hash, and do not, are rejected.

The answer comes from the log of the build that judges, as those of the app's own lookups do, and the log has
the whole series of the app on its chain: so verdict and reason are the same on every node.
"""

from collections.abc import Iterable

from virtualchain.app.contract import Contract
from virtualchain.app.freshness import is_hash, malformed, staleness
from virtualchain.app.handlers import Rejected
from virtualchain.engine.candidates import Candidate
from virtualchain.engine.lookups import Lookups


class FreshHashes:
    """The consensus hashes in one block's ops, and the blocks that they are of."""

    def __init__(self, contract: Contract, lookups: Lookups, block_id: int) -> None:
        self._contract = contract
        self._lookups = lookups
        self._block_id = block_id
        self._known_at: dict[str, int | None] = {}

    def read_ahead(self, candidates: Iterable[Candidate]) -> None:
        """Look up the hashes of many ops together."""
        fields = ((each, self._field(each)) for each in candidates)
        values = (each.op.get(field) for each, field in fields if field is not None)
        self._look_up({value for value in values if is_hash(value)})

    def rejection(self, candidate: Candidate) -> Rejected | None:
        """Return why an op is rejected at its turn; None if it has the fresh hash that it must have."""
        field = self._field(candidate)
        if field is None:
            return None
        reason = malformed(field, candidate.op)
        if reason is None:
            value = candidate.op[field]
            self._look_up({value} - self._known_at.keys())  # a callback may have changed the op
            reason = staleness(value, self._known_at[value], self._block_id, self._contract.window)
        return None if reason is None else Rejected(reason)

    def _field(self, candidate: Candidate) -> str | None:
        if not self._contract.fresh_fields:
            return None
        return self._contract.fresh_field(self._block_id, candidate.code)

    def _look_up(self, hashes: set[str]) -> None:
        if hashes:
            self._known_at |= dict.fromkeys(hashes) | self._lookups.newest_blocks(sorted(hashes))

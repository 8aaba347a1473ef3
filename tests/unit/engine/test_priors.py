"""The earlier hashes from which the next ones are computed, read from the log long before."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from virtualchain.consensus.hashing import sha256d
from virtualchain.consensus.series import Series
from virtualchain.engine import priors
from virtualchain.engine.priors import Priors
from virtualchain.errors import StoreError


class Log:
    """A log in memory, as far as priors read it."""

    app = "hashes"

    def __init__(self, hashes: dict[int, str]) -> None:
        self.hashes = hashes
        self.reads = 0

    def consensus_at(self, block_ids: Sequence[int]) -> dict[int, str]:
        """Return the hashes that are there."""
        self.reads += 1
        return {item: self.hashes[item] for item in block_ids if item in self.hashes}


@pytest.mark.parametrize(("first", "initial"), [(0, {}), (7, {}), (3, {3: "ab" * 16, 9: "cd" * 16})])
@pytest.mark.parametrize("at_once", [1, 5, 64])
def test_hashes_are_those_of_the_whole_series(
    monkeypatch: pytest.MonkeyPatch, first: int, initial: dict[int, str], at_once: int
) -> None:
    """Whatever is kept, forgotten and read again, a hash is what all earlier ones make it."""
    monkeypatch.setattr(priors, "_AT_ONCE", at_once)
    monkeypatch.setattr(priors, "_KEPT", 20)
    series = Series(first)
    series.initial = initial
    log: Any = Log(dict(initial))
    contract: Any = SimpleNamespace(first_block_id=first, start=series.following)
    tried = Priors(log, contract)
    for number in range(400):
        block_id, ops_hash = series.following, sha256d(bytes([number % 7])).hex()
        expected = series.compute(ops_hash)
        if number % 90 == 89:  # after a rollback
            tried.forget()
        assert tried.consensus_hash(block_id, ops_hash) == expected, block_id
        series.append(expected)
        log.hashes[block_id] = expected
    assert log.reads <= 400 // at_once + 6
    del log.hashes[series.following - 3]
    tried.forget()
    with pytest.raises(StoreError, match="are missing"):
        tried.consensus_hash(series.following, "0" * 64)

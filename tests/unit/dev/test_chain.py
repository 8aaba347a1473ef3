"""The chain of dev: what is mined is in its file, or was never mined."""

from functools import partial
from pathlib import Path

import pytest

from virtualchain.dev.chain import Chain
from virtualchain.errors import StoreError, UsageError
from virtualchain.testing import key

SCRIPT = bytes.fromhex("6a0461626364")


def test_what_cannot_be_saved_was_not_mined(tmp_path: Path) -> None:
    """If the file cannot be written, chain and held inputs stay as they are, also for a fork."""
    file = tmp_path / "chain"
    chain = Chain(file, fresh=False)
    try:
        chain.mine(2)
        tip, height = chain.node.tip, chain.height
        held = chain.hold(SCRIPT, key("alice"), [])
        obstacle = tmp_path / "chain.new"  # fails as a full disk does
        obstacle.mkdir()
        for refused in (partial(chain.mine, 1), partial(chain.fork, 2, None)):
            with pytest.raises(StoreError, match="nothing was mined, what was held still is"):
                refused()
            assert (chain.node.tip, chain.height, chain.held) == (tip, height, [held])
            with pytest.raises(StoreError):
                chain.send(chain.hold(SCRIPT, key("alice"), []), 1)
            assert {end.status for end in chain.node.chain.tree.tips()} == {"active"}
        obstacle.rmdir()
        assert chain.mine(1) == [held.tx]
        assert chain.held == []
        tip = chain.node.tip
    finally:
        chain.close()
    again = Chain(file, fresh=False)
    try:
        assert (again.node.tip, again.height) == (tip, height + 1)
    finally:
        again.close()


def test_an_input_that_cannot_be_mined_is_not_held(tmp_path: Path) -> None:
    """One that is too large for a block leaves what was held before it, which is mined next."""
    chain = Chain(tmp_path / "chain", fresh=False)
    try:
        held = chain.hold(SCRIPT, key("alice"), [])
        large = chain.hold(
            bytes([0x6A, 0x4E]) + (4_000_000).to_bytes(4, "little") + bytes(4_000_000), key("bob"), []
        )
        with pytest.raises(UsageError, match="weigh"):
            chain.send(large, 1)
        assert chain.held == [held]
        assert chain.mine(1) == [held.tx]
    finally:
        chain.close()

"""The chain of dev: what is mined is in its file, or was never mined."""

from pathlib import Path

import pytest

from virtualchain.dev.chain import Chain
from virtualchain.errors import StoreError
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
        for refused in (lambda: chain.mine(1), lambda: chain.fork(2, None)):
            with pytest.raises(StoreError, match="nothing was mined, and what is held"):
                refused()
            assert (chain.node.tip, chain.height, chain.held) == (tip, height, [held])
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

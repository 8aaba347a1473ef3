"""A fake node's chain in a file: it continues as if the node had never stopped, or is refused."""

from pathlib import Path

import pytest

from virtualchain.errors import UsageError
from virtualchain.testing import FakeNode


def story(node: FakeNode) -> None:
    """Mine inputs, and a fork that leaves a side branch."""
    node.mine([node.send(b"one", "alice"), node.send(b"two", "bob", to=[("carol", 5_000)])], 3)
    node.reorg(2, txs=[node.send(b"three", "carol")])


def test_a_loaded_chain_goes_on(tmp_path: Path) -> None:
    """It has the same tips, and its senders their coins; what is mined then differs from all before."""
    file = tmp_path / "chain"
    with FakeNode() as node:
        story(node)
        node.save(file)
        tips = [(tip.stored.block.hash, tip.status) for tip in node.chain.tree.tips()]
        assert len(tips) == 2
        with FakeNode.load(file) as loaded:
            assert (loaded.tip, loaded.height, loaded.chain.network.name) == (
                node.tip,
                node.height,
                "regtest",
            )
            assert [(tip.stored.block.hash, tip.status) for tip in loaded.chain.tree.tips()] == tips
            known = {stored.block.hash for stored in loaded.chain.tree.blocks}
            for name in ("alice", "bob", "carol", "dave"):
                assert loaded.mine([loaded.send(b"more", name)])[0] not in known
            loaded.reorg(5)  # undo data of blocks that were loaded is found
            loaded.save(file)
            with FakeNode.load(file) as again:
                assert again.tip == loaded.tip


def test_equal_blocks_stay_apart(tmp_path: Path) -> None:
    """After a fork that is undone in the file's time, an empty block is not one that was mined before."""
    file = tmp_path / "chain"
    with FakeNode(premine=1) as node:
        first = node.mine()
        node.save(file)
        with FakeNode.load(file) as loaded:
            assert loaded.reorg(1, 2)[0] != first[0]


def test_lag_and_invalid_blocks_are_kept(tmp_path: Path) -> None:
    """A node that fell behind is saved caught up; a block that it holds invalid stays that."""
    file = tmp_path / "chain"
    with FakeNode(premine=5) as node:
        node.invalidate(4)
        node.mine(n=3)
        tip = node.tip
        node.fall_behind(2)
        node.save(file)
        with FakeNode.load(file) as loaded:
            assert loaded.tip == tip
            assert [tip.status for tip in loaded.chain.tree.tips()] == ["active", "invalid"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A torn file, one with a flipped bit, and one of something else are each refused, with the reason."""
    file = tmp_path / "chain"
    with FakeNode(premine=3) as node:
        node.save(file)
    whole = file.read_bytes()
    for content, reason in (
        (b"", "is not the saved chain"),
        (b"SQLite format 3\0", "is not the saved chain"),
        (whole[:-1], "is damaged"),
        (whole[: len(whole) // 2], "is damaged"),
        (whole[:300] + bytes([whole[300] ^ 1]) + whole[301:], "is damaged"),
        (whole[:21], "is damaged"),
    ):
        file.write_bytes(content)
        with pytest.raises(UsageError, match=reason):
            FakeNode.load(file)
    file.unlink()
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        FakeNode.load(file)
    assert not list(tmp_path.iterdir())

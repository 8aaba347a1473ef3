"""Blocks that a node has refused, or has forgotten and written over."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.bitcoin.files.writing import (
    BLOCKS,
    KEY,
    UNDO,
    obfuscate,
    tip_of,
    undo_bytes,
    write_blocks,
    write_node,
    write_undo,
)
from virtualchain.bitcoin.block import txids
from virtualchain.bitcoin.files import framing as framing_module
from virtualchain.bitcoin.source import BlockSource, Tip
from virtualchain.errors import MalformedBlock, MissingData
from virtualchain.testing import ChainBuilder
from virtualchain.testing.tree import StoredBlock
from virtualchain.testing.undo import read_undo

Open = Callable[..., BlockSource]


# Blocks with one parent


def twins(folder: Path, connected: str, children: int) -> tuple[StoredBlock, StoredBlock]:
    """Write two blocks with one parent that spend the same, undo data of some, and blocks on the second."""
    chain = ChainBuilder(premine=105)
    first = chain.tree.tip
    chain.reorg(1, 1)
    second = chain.tree.tip
    if children:
        chain.mine(n=children)
    above = chain.tree.chain[106:]
    write_blocks(folder / BLOCKS, chain, [*chain.tree.chain[:105], first, second, *above])
    with_undo = {"first": [first], "second": [second], "both": [first, second]}[connected]
    write_undo(folder / UNDO, chain, [*chain.tree.chain[:105], *with_undo, *above])
    return first, second


@pytest.mark.parametrize("connected", ["first", "second"])
def test_one_undo_record_serves_one_of_two_blocks_that_spend_the_same(
    opened: Open, tmp_path: Path, connected: str
) -> None:
    """Which of two empty blocks was refused is not to be seen, so neither counts as connected yet."""
    first, _ = twins(tmp_path, connected, 0)
    assert opened(tmp_path).tip() == Tip(104, first.block.prev_hash)


def test_two_undo_records_serve_two_such_blocks(opened: Open, tmp_path: Path) -> None:
    """The node has connected both, one after the other."""
    first, _ = twins(tmp_path, "both", 0)
    assert opened(tmp_path).tip() == Tip(105, first.block.hash)


def test_a_connected_child_shows_which_of_them_was_connected(opened: Open, tmp_path: Path) -> None:
    """A node connects no block on top of one that it has refused."""
    _, second = twins(tmp_path, "second", 1)
    source = opened(tmp_path)
    assert source.tip().block_id == 106
    assert source.block_hash(105) == second.block.hash


# Nodes that forget


@pytest.mark.parametrize("undo", [True, False])
@pytest.mark.parametrize("key", [b"", KEY])
def test_a_node_that_forgets_blocks_and_writes_over_them(
    opened: Open, tmp_path: Path, key: bytes, undo: bool
) -> None:
    """It writes below where the reader stood, and the file is as long as before: the reader notices."""
    chain = ChainBuilder(premine=101)
    for number in range(6):
        chain.mine([chain.send(b"x" * 20 * number)])
    write_node(tmp_path, chain, key=key, undo=undo)
    sizes = {name: (tmp_path / name).stat().st_size for name in (BLOCKS, UNDO) if (tmp_path / name).exists()}
    for name in sizes:  # a node reserves space
        with (tmp_path / name).open("ab") as file:
            file.write(bytes(1000))
    source = opened(tmp_path)
    assert source.tip() == tip_of(chain)
    gone = chain.tree.chain[103:]
    starts = {name: _start_of(chain, name, 103) for name in sizes}
    chain.reorg(5, 1, [chain.send(b"y", sender="bob")])
    for name, start in starts.items():
        record = tmp_path / "record"
        record.unlink(missing_ok=True)
        if name == BLOCKS:
            write_blocks(record, chain, [chain.tree.tip])
        else:
            write_undo(record, chain, [chain.tree.tip])
        with (tmp_path / name).open("r+b") as file:
            file.seek(start)
            file.write(obfuscate(record.read_bytes(), key, start))
    # Of the blocks that are gone, the last ones are still in the file, but nothing connects them.
    assert source.tip() == tip_of(chain)
    assert source.headers_after(103, chain.tip) == []
    assert source.headers_after(105, gone[2].block.hash) is None
    with pytest.raises((MissingData, MalformedBlock)):
        source.raw_block(gone[0].block.hash)
    assert source.raw_block(chain.tip) == chain.tree.tip.raw
    transactions = dict(enumerate(txids(chain.tree.tip.raw)[1:], 1))
    assert source.spent_outputs(chain.tip, transactions)


def _start_of(chain: ChainBuilder, name: str, height: int) -> int:
    """Find where a block's record begins in one of the node's files."""
    if name == BLOCKS:
        return sum(8 + len(raw) for raw in chain.raw_blocks()[:height])
    undo = [chain.undo(stored) for stored in chain.tree.chain[1:height]]
    return sum(8 + 32 + len(undo_bytes(read_undo(each)[1:])) for each in undo if each is not None)


def test_forgotten_blocks_come_back(opened: Open, tmp_path: Path) -> None:
    """The node downloads them again, to another place, in another order."""
    chain = ChainBuilder(premine=110)
    path = tmp_path / BLOCKS
    write_blocks(path, chain, chain.tree.chain)
    source = opened(tmp_path)
    whole = path.read_bytes()
    kept = _start_of(chain, BLOCKS, 105)
    path.write_bytes(whole[:kept] + bytes(len(whole) - kept))
    assert source.tip() == Tip(104, chain.tree.chain[104].block.hash)
    with pytest.raises(MissingData, match="the node forgot it"):
        source.raw_block(chain.tip)
    path.write_bytes(whole[:kept])
    write_blocks(path, chain, chain.tree.chain[:103:-1])
    assert source.tip() == tip_of(chain)
    assert [source.raw_block(each.block.hash) for each in chain.tree.chain] == chain.raw_blocks()


def test_a_forgotten_block_with_a_second_place_stays(opened: Open, tmp_path: Path) -> None:
    """Another file may hold it as well."""
    chain = ChainBuilder(premine=110)
    write_blocks(tmp_path / BLOCKS, chain, chain.tree.chain)
    write_blocks(tmp_path / "blk00001.dat", chain, chain.tree.chain[-3:])
    source = opened(tmp_path)
    whole = (tmp_path / BLOCKS).read_bytes()
    (tmp_path / BLOCKS).write_bytes(whole[: _start_of(chain, BLOCKS, 109)])
    assert source.tip() == tip_of(chain)
    assert source.raw_block(chain.tip) == chain.tree.tip.raw


def test_a_file_at_rest_is_not_read_again(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a file whose times or size have changed is."""
    chain = ChainBuilder(premine=103)
    write_node(tmp_path, chain)
    monkeypatch.setattr(framing_module, "_SETTLING", 0)
    source = opened(tmp_path)
    read: list[object] = []
    frames = framing_module.FramedFile._frames

    def spy(self: framing_module.FramedFile, *arguments: int) -> object:
        read.append(self)
        return frames(self, *arguments)

    monkeypatch.setattr(framing_module.FramedFile, "_frames", spy)
    source.tip()
    assert read == []
    (tmp_path / BLOCKS).touch()
    source.tip()
    assert len(read) == 1

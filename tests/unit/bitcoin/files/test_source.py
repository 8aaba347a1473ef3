"""Files of blocks as a source: which chain is in them, and how it is followed as they grow."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.bitcoin.files.checking import all_headers, check_whole, tip_of
from tests.unit.bitcoin.files.writing import KEY, append, frame, write_blocks, write_undo
from virtualchain.bitcoin.block import txids
from virtualchain.bitcoin.files import source as blockfiles
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.source import BlockSource, Tip
from virtualchain.errors import MalformedBlock, MissingData, NodeError
from virtualchain.testing import ChainBuilder
from virtualchain.testing.tree import StoredBlock

REGTEST = network("regtest")
Open = Callable[..., BlockSource]


@pytest.fixture(scope="module")
def chain() -> ChainBuilder:
    """Make a chain of 110 blocks; tests that grow one make their own."""
    return ChainBuilder(premine=110)


# Which chain is in them


def test_blocks_may_lie_in_any_order(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """A node writes them as they arrive."""
    write_blocks(tmp_path / "blk00000.dat", chain, chain.tree.chain[::-1])
    check_whole(opened(tmp_path), chain)


def test_stale_blocks_are_known_and_not_active(opened: Open, tmp_path: Path) -> None:
    """They can be read, have no followers, and no height."""
    chain = ChainBuilder(premine=105)
    stale = chain.tree.chain[-3:]
    chain.reorg(3)
    write_blocks(tmp_path / "blk00000.dat", chain, [*chain.tree.chain[:100], *stale, *chain.tree.chain[100:]])
    source = opened(tmp_path)
    check_whole(source, chain)
    for stored in stale:
        assert source.raw_block(stored.block.hash) == stored.raw
        assert source.headers_after(stored.height, stored.block.hash) is None
        assert source.block_hash(stored.height) != stored.block.hash
        assert not source.is_invalid(stored.height, stored.block.hash)


def test_what_is_not_there_is_missing(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """Unknown hashes, heights outside, a block asked for at another height."""
    chain.save(tmp_path / "chain")
    source = opened(tmp_path / "chain")
    for unknown in ("11" * 32, "no hash", ""):
        assert source.headers_after(5, unknown) is None
        with pytest.raises(MissingData, match="does not hold block"):
            source.raw_block(unknown)
        with pytest.raises(MissingData):
            source.spent_outputs(unknown, {})
    for height in (-1, 111):
        with pytest.raises(MissingData, match="holds blocks 0 to 110 of the chain"):
            source.block_hash(height)
    assert source.headers_after(7, source.block_hash(8)) is None


def test_headers_come_in_pages(
    chain: ChainBuilder, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many at once as from a node, then the next."""
    monkeypatch.setattr(blockfiles, "MOST_HEADERS", 40)
    chain.save(tmp_path / "chain")
    source = opened(tmp_path / "chain")
    genesis = chain.tree.chain[0].block
    page = source.headers_after(0, genesis.hash)
    assert page == [stored.block for stored in chain.tree.chain[1:41]]
    assert all_headers(source, genesis) == [stored.block for stored in chain.tree.chain[1:]]


# Files that grow, and change


def test_the_tip_follows_files_that_grow(opened: Open, tmp_path: Path) -> None:
    """Blocks appended, a new file, a reorganisation: what was read before is not read again."""
    chain = ChainBuilder(premine=101)
    (tmp_path / "xor.dat").write_bytes(KEY)
    first, second = tmp_path / "blk00000.dat", tmp_path / "blk00001.dat"
    write_blocks(first, chain, chain.tree.chain, KEY)
    source = opened(tmp_path)
    assert source.tip() == tip_of(chain)
    chain.mine(n=2)
    write_blocks(first, chain, chain.tree.chain[-2:], KEY)
    assert source.tip() == tip_of(chain)
    with first.open("r+b") as file:  # nobody looks there again
        file.write(bytes(8))
    chain.mine()
    write_blocks(second, chain, chain.tree.chain[-1:], KEY)
    assert source.tip() == tip_of(chain)
    chain.reorg(2)
    write_blocks(second, chain, chain.tree.chain[-3:-1], KEY)
    assert source.tip().block_id == chain.height - 1
    write_blocks(second, chain, chain.tree.chain[-1:], KEY)
    check_whole(source, chain)


def test_a_block_cut_in_the_middle_is_ignored(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """Until the rest of it is written."""
    whole = b"".join(frame(REGTEST, raw) for raw in chain.raw_blocks())
    path = tmp_path / "chain"
    path.write_bytes(whole[:-1])
    source = opened(path)
    assert source.tip() == Tip(109, chain.tree.chain[109].block.hash)
    path.write_bytes(whole)
    check_whole(source, chain)


@pytest.mark.parametrize("key", [b"", KEY])
@pytest.mark.parametrize("undo", [True, False])
def test_a_node_that_crashed_writes_over_its_last_blocks(
    opened: Open, tmp_path: Path, key: bytes, undo: bool
) -> None:
    """It fetches them again, in another order, and goes on behind them: none is missed, none is misread."""
    chain = ChainBuilder(premine=101)
    for number in range(4):
        chain.mine([chain.send(b"x" * 20 * number)])
    if key:
        (tmp_path / "xor.dat").write_bytes(key)
    blocks, undone = tmp_path / "blk00000.dat", tmp_path / "rev00000.dat"

    def write(order: list[StoredBlock]) -> None:
        for path in (blocks, undone):
            path.unlink(missing_ok=True)
        write_blocks(blocks, chain, order, key)
        if undo:
            write_undo(undone, chain, order, key)

    write(chain.tree.chain)
    source = opened(tmp_path)
    check_whole(source, chain)
    chain.mine([chain.send(b"y" * 33)])
    chain.mine(n=2)
    old, new = chain.tree.chain[:102], chain.tree.chain[102:]
    write([*old, *new[1::-1], *new[2:]])
    check_whole(source, chain)
    for stored in new:
        wanted = dict(enumerate(txids(stored.raw)[1:], 1))
        assert len(source.spent_outputs(stored.block.hash, wanted)) == len(wanted)
    write([*old, new[3], *new[:3], *new[4:], *old])
    check_whole(source, chain)


def test_a_block_that_was_replaced_is_not_given_out(
    chain: ChainBuilder, opened: Open, tmp_path: Path
) -> None:
    """Neither as a block nor as a header; one that is gone is missing."""
    path = tmp_path / "chain"
    chain.save(path)
    source = opened(path)
    block_hash = chain.tree.chain[7].block.hash
    at = path.read_bytes().index(chain.tree.chain[7].raw)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"?")
    with pytest.raises(MalformedBlock, match=f"chain has no more block {block_hash} at byte {at}"):
        source.raw_block(block_hash)
    with pytest.raises(MalformedBlock, match=block_hash):
        source.headers_after(5, chain.tree.chain[5].block.hash)
    path.unlink()
    with pytest.raises(MissingData, match="is gone"):
        source.raw_block(block_hash)
    with pytest.raises(NodeError, match="cannot be read"):
        source.tip()


def test_a_folder_that_is_pruned_meanwhile(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """The chain stays known, its oldest blocks are missing."""
    write_blocks(tmp_path / "blk00000.dat", chain, chain.tree.chain[:50])
    write_blocks(tmp_path / "blk00001.dat", chain, chain.tree.chain[50:])
    source = opened(tmp_path)
    (tmp_path / "blk00000.dat").unlink()
    assert source.tip() == tip_of(chain)
    with pytest.raises(MissingData, match=r"blk00000.dat is gone: pruned by the node"):
        source.raw_block(chain.tree.chain[7].block.hash)
    assert source.raw_block(chain.tip) == chain.raw_blocks()[-1]


# Chains that do not start with the genesis block


@pytest.mark.parametrize("first", [1, 2, 17, 105])
def test_a_chain_that_starts_above_genesis(
    chain: ChainBuilder, opened: Open, tmp_path: Path, first: int
) -> None:
    """Heights are what the coinbases state; below there is nothing."""
    write_blocks(tmp_path / "blk00003.dat", chain, chain.tree.chain[first:])
    source = opened(tmp_path)
    assert source.tip() == tip_of(chain)
    start = chain.tree.chain[first]
    assert source.block_hash(first) == start.block.hash
    assert all_headers(source, start.block) == [stored.block for stored in chain.tree.chain[first + 1 :]]
    with pytest.raises(MissingData, match=f"holds blocks {first} to 110"):
        source.block_hash(first - 1)


def test_a_gap_ends_the_chain_above_it(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """What cannot be reached from the genesis block does not count, however much it is."""
    write_blocks(tmp_path / "blk00000.dat", chain, [*chain.tree.chain[:30], *chain.tree.chain[31:]])
    source = opened(tmp_path)
    assert source.tip() == Tip(29, chain.tree.chain[29].block.hash)
    write_blocks(tmp_path / "blk00000.dat", chain, chain.tree.chain[30:31])
    check_whole(source, chain)


def test_without_genesis_the_longest_stretch_counts(
    chain: ChainBuilder, opened: Open, tmp_path: Path
) -> None:
    """As a pruned node leaves it: its first files are gone, with a few blocks of the next ones."""
    write_blocks(tmp_path / "blk00001.dat", chain, [*chain.tree.chain[30:34], *chain.tree.chain[35:]])
    source = opened(tmp_path)
    assert source.tip() == tip_of(chain)
    with pytest.raises(MissingData, match="holds blocks 35 to 110"):
        source.block_hash(33)


def test_heights_that_nobody_states(opened: Open, tmp_path: Path) -> None:
    """Before BIP 34 a coinbase may state anything, so nothing is believed."""
    chain = ChainBuilder("mainnet", premine=20)
    path = tmp_path / "cut"
    write_blocks(path, chain, chain.tree.chain[5:])
    with pytest.raises(
        NodeError, match=r"cut does not start with the genesis block, and its block .* height"
    ):
        opened(path)


def test_heights_that_contradict_each_other(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """A block that stands one higher than it says is no block of such a chain."""
    middle = chain.tree.chain[50]
    lying = chain.tree.chain[52].raw[80:]
    rival = chain.tree.chain[51].raw[:4] + bytes.fromhex(middle.block.hash)[::-1]
    forged = rival + chain.tree.chain[51].raw[36:80] + lying
    append(tmp_path / "cut", frame(REGTEST, middle.raw) + frame(REGTEST, forged))
    with pytest.raises(NodeError, match="stands 1 blocks below one that states height 52"):
        opened(tmp_path / "cut")


# Only what the node has connected


def connected(folder: Path, chain: ChainBuilder, undone: list[StoredBlock]) -> None:
    """Write a folder with the chain's blocks, and the undo data of some."""
    write_blocks(folder / "blk00000.dat", chain, chain.tree.chain)
    write_undo(folder / "rev00000.dat", chain, undone)


def test_blocks_without_undo_data_do_not_count_yet(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """The node has them, and has not yet checked them; once it has, the tip moves."""
    connected(tmp_path, chain, chain.tree.chain[:100])
    source = opened(tmp_path)
    assert source.tip() == Tip(99, chain.tree.chain[99].block.hash)
    write_undo(tmp_path / "rev00000.dat", chain, chain.tree.chain[100:])
    check_whole(source, chain)


def test_a_branch_that_was_refused_does_not_count(opened: Open, tmp_path: Path) -> None:
    """It has more work, came first, and no undo data: the other one is the chain."""
    chain = ChainBuilder(premine=103)
    refused = [chain.tree.tip]
    chain.reorg(1, 2)
    chain.mine()
    best = chain.tree.chain[-1]
    rival = ChainBuilder.from_blocks("regtest", chain.raw_blocks())
    rival.mine(n=2)
    refused += rival.tree.chain[-2:]
    write_blocks(
        tmp_path / "blk00000.dat", chain, [*chain.tree.chain[:103], *refused, *chain.tree.chain[103:]]
    )
    write_undo(tmp_path / "rev00000.dat", chain, chain.tree.chain)
    source = opened(tmp_path)
    assert source.tip() == Tip(best.height, best.block.hash)
    check_whole(source, chain)


# Waiting


def test_a_wait_is_ended_from_elsewhere(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """And by closing; without a word it takes its time."""
    chain.save(tmp_path / "chain")
    source = opened(tmp_path / "chain")
    started = time.monotonic()
    source.wait(0.05)
    assert time.monotonic() - started >= 0.05
    threading.Timer(0.02, source.wake).start()
    source.wait(10)
    source.close()
    source.wait(10)
    assert time.monotonic() - started < 5
    assert str(source) == str(tmp_path / "chain")

"""Block files as a source: finding them, the chain that is in them, and following it as they grow."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.shared_data import shared
from tests.unit.bitcoin.files.writing import KEY, append, frame, tip_of, write_blocks, write_undo
from virtualchain.bitcoin.block import txids
from virtualchain.bitcoin.files import source as files_source
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.source import BlockSource, Tip
from virtualchain.errors import MalformedBlock, MissingData, NodeError, NodeUnavailable, UsageError
from virtualchain.model import Block
from virtualchain.testing import ChainBuilder
from virtualchain.testing.tree import StoredBlock

REGTEST = network("regtest")
Open = Callable[..., BlockSource]


@pytest.fixture(scope="module")
def chain() -> ChainBuilder:
    """Make a chain of 110 blocks; tests that grow one make their own."""
    return ChainBuilder(premine=110)


def all_headers(source: BlockSource, start: Block) -> list[Block]:
    """Read every header after a block."""
    headers: list[Block] = []
    last = start
    while page := source.headers_after(last.block_id, last.hash):
        headers += page
        last = page[-1]
    return headers


def check_whole(source: BlockSource, chain: ChainBuilder) -> None:
    """Compare everything that a source says about a chain."""
    blocks = [stored.block for stored in chain.tree.chain]
    assert source.network == chain.network
    assert source.tip() == tip_of(chain)
    assert [source.block_hash(block.block_id) for block in blocks] == [block.hash for block in blocks]
    assert all_headers(source, blocks[0]) == blocks[1:]
    assert [source.raw_block(stored.block.hash) for stored in chain.tree.chain] == chain.raw_blocks()


# Where files are found


def test_one_file_of_any_name(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """`ChainBuilder.save` writes such a file, and bitcoind's -loadblock reads one."""
    chain.save(tmp_path / "my chain")
    check_whole(opened(tmp_path / "my chain"), chain)
    check_whole(opened(tmp_path / "my chain", "regtest"), chain)


@pytest.mark.parametrize("key", [b"", bytes(8), KEY], ids=["no key", "key of zeros", "key"])
@pytest.mark.parametrize("name", ["blocks", "blocks/blk00000.dat", "", "mixed"])
def test_folders_of_a_node(chain: ChainBuilder, opened: Open, tmp_path: Path, key: bytes, name: str) -> None:
    """They may be its data folder, its blocks folder or one file; of two networks, the named one is used."""
    node = tmp_path / "node"
    blocks = node / "regtest" / "blocks"
    blocks.mkdir(parents=True)
    if key:
        (blocks / "xor.dat").write_bytes(key)
    used = key if any(key) else b""
    numbers = (0, 0) if name.endswith(".dat") else (0, 1)
    write_blocks(blocks / f"blk{numbers[0]:05}.dat", chain, chain.tree.chain[:70], used)
    write_blocks(blocks / f"blk{numbers[1]:05}.dat", chain, chain.tree.chain[70:], used)
    (blocks / "blk00001.dat.bak").write_bytes(b"another file")
    if name == "mixed":
        (node / "signet" / "blocks").mkdir(parents=True)
        append(node / "signet" / "blocks" / "blk00000.dat", frame(network("signet"), bytes(100)))
        with pytest.raises(UsageError, match="several networks: choose one with --network"):
            opened(node)
        check_whole(opened(node, "regtest"), chain)
    else:
        check_whole(opened(node / "regtest" / name if name else node), chain)


def test_a_plain_file_beside_another_nodes_key(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """The key is only used if it fits."""
    (tmp_path / "xor.dat").write_bytes(KEY)
    chain.save(tmp_path / "blocks.dat")
    check_whole(opened(tmp_path / "blocks.dat"), chain)


def test_paths_without_blocks(opened: Open, tmp_path: Path) -> None:
    """Each mistake has its message, which names the path."""
    with pytest.raises(UsageError, match=r"there is no .*/gone: give bitcoind's `blocks` folder"):
        opened(tmp_path / "gone")
    with pytest.raises(UsageError, match="holds no blocks: there is no blk00000"):
        opened(tmp_path)
    with pytest.raises(UsageError, match="holds no blocks of signet"):
        opened(tmp_path, "signet")
    (tmp_path / "notes").write_text("nothing of the sort")
    with pytest.raises(UsageError, match="notes begins with 6e6f7468, not with the message start"):
        opened(tmp_path / "notes")


@pytest.mark.parametrize("content", [b"", bytes(1000), REGTEST.message_start])
def test_files_without_a_block_yet(opened: Open, tmp_path: Path, content: bytes) -> None:
    """A node that has only just started leaves such files: trying again helps."""
    (tmp_path / "blk00000.dat").write_bytes(content)
    with pytest.raises(NodeUnavailable, match=r"holds no (complete )?block yet"):
        opened(tmp_path)


def test_an_invalid_key(opened: Open, tmp_path: Path) -> None:
    """A key of the wrong size is an error."""
    (tmp_path / "blk00000.dat").write_bytes(bytes(10))
    (tmp_path / "xor.dat").write_bytes(b"short")
    with pytest.raises(NodeError, match=r"xor.dat has 5 bytes, but a key has 8"):
        opened(tmp_path)


def test_another_network_is_rejected(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """The error names both, whether they differ at the start, further on, or in the genesis block."""
    chain.save(tmp_path / "regtest")
    with pytest.raises(NodeError, match=r"regtest is of regtest, but mainnet was asked for"):
        opened(tmp_path / "regtest", "mainnet")
    append(tmp_path / "regtest", frame(network("testnet4"), bytes(100)))
    with pytest.raises(NodeError, match="holds blocks of testnet4 among those of regtest"):
        opened(tmp_path / "regtest")
    append(tmp_path / "posing", frame(network("signet"), chain.raw_blocks()[0]))
    with pytest.raises(NodeError, match=rf"should be of signet, whose first block .*{REGTEST.genesis_hash}"):
        opened(tmp_path / "posing")


# Which chain is in the files


def test_blocks_may_be_in_any_order(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """A node writes them as they arrive."""
    write_blocks(tmp_path / "blk00000.dat", chain, chain.tree.chain[::-1])
    check_whole(opened(tmp_path), chain)


def test_stale_blocks_are_known_but_not_active(opened: Open, tmp_path: Path) -> None:
    """They can be read, but have no followers and are active at no height."""
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


def test_unknown_blocks_are_missing(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """The cases are unknown hashes, heights outside the chain, and a block at another height."""
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
    """A page has as many headers as one from a node."""
    monkeypatch.setattr(files_source, "MOST_HEADERS", 40)
    chain.save(tmp_path / "chain")
    source = opened(tmp_path / "chain")
    genesis = chain.tree.chain[0].block
    page = source.headers_after(0, genesis.hash)
    assert page == [stored.block for stored in chain.tree.chain[1:41]]
    assert all_headers(source, genesis) == [stored.block for stored in chain.tree.chain[1:]]


# Files that grow and change


def test_the_tip_follows_files_that_grow(opened: Open, tmp_path: Path) -> None:
    """Appended blocks, a new file and a reorg are followed, and nothing is read twice."""
    chain = ChainBuilder(premine=101)
    (tmp_path / "xor.dat").write_bytes(KEY)
    first, second = tmp_path / "blk00000.dat", tmp_path / "blk00001.dat"
    write_blocks(first, chain, chain.tree.chain, KEY)
    source = opened(tmp_path)
    assert source.tip() == tip_of(chain)
    chain.mine(n=2)
    write_blocks(first, chain, chain.tree.chain[-2:], KEY)
    assert source.tip() == tip_of(chain)
    with first.open("r+b") as file:  # not read again
        file.write(bytes(8))
    chain.mine()
    write_blocks(second, chain, chain.tree.chain[-1:], KEY)
    assert source.tip() == tip_of(chain)
    chain.reorg(2)
    write_blocks(second, chain, chain.tree.chain[-3:-1], KEY)
    assert source.tip().block_id == chain.height - 1
    write_blocks(second, chain, chain.tree.chain[-1:], KEY)
    check_whole(source, chain)


def test_a_partly_written_block_is_ignored(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """It counts once the rest of it is written."""
    whole = b"".join(frame(REGTEST, raw) for raw in chain.raw_blocks())
    path = tmp_path / "chain"
    path.write_bytes(whole[:-1])
    source = opened(path)
    assert source.tip() == Tip(109, chain.tree.chain[109].block.hash)
    path.write_bytes(whole)
    check_whole(source, chain)


@pytest.mark.parametrize("key", [b"", KEY])
@pytest.mark.parametrize("undo", [True, False])
def test_a_node_that_crashed_overwrites_its_last_blocks(
    opened: Open, tmp_path: Path, key: bytes, undo: bool
) -> None:
    """It fetches them again in another order and continues: no block is missed or misread."""
    chain = ChainBuilder(premine=101)
    for number in range(4):
        chain.mine([chain.send(b"x" * 20 * number)])
    if key:
        (tmp_path / "xor.dat").write_bytes(key)
    blocks, undo_file = tmp_path / "blk00000.dat", tmp_path / "rev00000.dat"

    def write(order: list[StoredBlock]) -> None:
        for path in (blocks, undo_file):
            path.unlink(missing_ok=True)
        write_blocks(blocks, chain, order, key)
        if undo:
            write_undo(undo_file, chain, order, key)

    write(chain.tree.chain)
    source = opened(tmp_path)
    check_whole(source, chain)
    chain.mine([chain.send(b"y" * 33)])
    chain.mine(n=2)
    old, new = chain.tree.chain[:102], chain.tree.chain[102:]
    write([*old, *new[1::-1], *new[2:]])
    check_whole(source, chain)
    for stored in new:
        transactions = dict(enumerate(txids(stored.raw)[1:], 1))
        assert len(source.spent_outputs(stored.block.hash, transactions)) == len(transactions)
    write([*old, new[3], *new[:3], *new[4:], *old])
    check_whole(source, chain)


def test_a_replaced_block_is_not_returned(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """Neither its bytes nor its header are returned; if the file is gone, the block is missing."""
    path = tmp_path / "chain"
    chain.save(path)
    source = opened(path)
    block_hash = chain.tree.chain[7].block.hash
    at = path.read_bytes().index(chain.tree.chain[7].raw)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"?")
    with pytest.raises(MalformedBlock, match=f"chain no longer has block {block_hash} at byte {at}"):
        source.raw_block(block_hash)
    with pytest.raises(MalformedBlock, match=block_hash):
        source.headers_after(5, chain.tree.chain[5].block.hash)
    path.unlink()
    with pytest.raises(MissingData, match="is gone"):
        source.raw_block(block_hash)
    with pytest.raises(NodeError, match="cannot be read"):
        source.tip()


def test_a_folder_that_is_pruned_while_open(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """The chain is still known, but its oldest blocks are missing."""
    write_blocks(tmp_path / "blk00000.dat", chain, chain.tree.chain[:50])
    write_blocks(tmp_path / "blk00001.dat", chain, chain.tree.chain[50:])
    source = opened(tmp_path)
    (tmp_path / "blk00000.dat").unlink()
    assert source.tip() == tip_of(chain)
    with pytest.raises(MissingData, match=r"blk00000.dat is gone: the node pruned it"):
        source.raw_block(chain.tree.chain[7].block.hash)
    assert source.raw_block(chain.tip) == chain.raw_blocks()[-1]


# Chains that do not start with the genesis block


@pytest.mark.parametrize("first", [1, 2, 17, 105])
def test_a_chain_that_starts_above_genesis(
    chain: ChainBuilder, opened: Open, tmp_path: Path, first: int
) -> None:
    """Heights are what the coinbases state, and there is nothing below the first block."""
    write_blocks(tmp_path / "blk00003.dat", chain, chain.tree.chain[first:])
    source = opened(tmp_path)
    assert source.tip() == tip_of(chain)
    start = chain.tree.chain[first]
    assert source.block_hash(first) == start.block.hash
    assert all_headers(source, start.block) == [stored.block for stored in chain.tree.chain[first + 1 :]]
    with pytest.raises(MissingData, match=f"holds blocks {first} to 110"):
        source.block_hash(first - 1)


def test_the_chain_ends_at_a_gap(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """Blocks that do not descend from the genesis block do not count, however many they are."""
    write_blocks(tmp_path / "blk00000.dat", chain, [*chain.tree.chain[:30], *chain.tree.chain[31:]])
    source = opened(tmp_path)
    assert source.tip() == Tip(29, chain.tree.chain[29].block.hash)
    write_blocks(tmp_path / "blk00000.dat", chain, chain.tree.chain[30:31])
    check_whole(source, chain)


def test_without_genesis_the_branch_with_most_work_counts(
    chain: ChainBuilder, opened: Open, tmp_path: Path
) -> None:
    """A pruned node leaves such files: the first ones are gone, with a few later blocks in them."""
    write_blocks(tmp_path / "blk00001.dat", chain, [*chain.tree.chain[30:34], *chain.tree.chain[35:]])
    source = opened(tmp_path)
    assert source.tip() == tip_of(chain)
    with pytest.raises(MissingData, match="holds blocks 35 to 110"):
        source.block_hash(33)


def test_heights_that_are_not_stated(opened: Open, tmp_path: Path) -> None:
    """Before BIP 34 a coinbase may state anything, so its height is not trusted."""
    path = tmp_path / "part"
    path.write_bytes(shared("mainnet/blocks-0-599.dat").read_bytes()[739:5000])
    with pytest.raises(
        NodeError, match=r"part does not start with the genesis block, and its block .* height"
    ):
        opened(path)


def test_heights_that_contradict_each_other(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """A block that is one higher than it states cannot be on the chain."""
    middle = chain.tree.chain[50]
    lying = chain.tree.chain[52].raw[80:]
    rival = chain.tree.chain[51].raw[:4] + bytes.fromhex(middle.block.hash)[::-1]
    forged = rival + chain.tree.chain[51].raw[36:80] + lying
    append(tmp_path / "part", frame(REGTEST, middle.raw) + frame(REGTEST, forged))
    with pytest.raises(NodeError, match="is 1 blocks below one that states height 52"):
        opened(tmp_path / "part")


# Only blocks that the node has connected count


def write_connected(folder: Path, chain: ChainBuilder, with_undo: list[StoredBlock]) -> None:
    """Write a folder with the chain's blocks, and the undo data of some."""
    write_blocks(folder / "blk00000.dat", chain, chain.tree.chain)
    write_undo(folder / "rev00000.dat", chain, with_undo)


def test_blocks_without_undo_data_do_not_count_yet(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """The node has them but has not checked them yet; once it has, the tip moves."""
    write_connected(tmp_path, chain, chain.tree.chain[:100])
    source = opened(tmp_path)
    assert source.tip() == Tip(99, chain.tree.chain[99].block.hash)
    write_undo(tmp_path / "rev00000.dat", chain, chain.tree.chain[100:])
    check_whole(source, chain)


def test_a_rejected_branch_does_not_count(opened: Open, tmp_path: Path) -> None:
    """It has more work and came first, but without undo data it is not the active chain."""
    chain = ChainBuilder(premine=103)
    rejected = [chain.tree.tip]
    chain.reorg(1, 2)
    chain.mine()
    best = chain.tree.chain[-1]
    rival = ChainBuilder.from_blocks("regtest", chain.raw_blocks())
    rival.mine(n=2)
    rejected += rival.tree.chain[-2:]
    write_blocks(
        tmp_path / "blk00000.dat", chain, [*chain.tree.chain[:103], *rejected, *chain.tree.chain[103:]]
    )
    write_undo(tmp_path / "rev00000.dat", chain, chain.tree.chain)
    source = opened(tmp_path)
    assert source.tip() == Tip(best.height, best.block.hash)
    check_whole(source, chain)


# Waiting


def test_a_wait_is_ended_by_wake_and_close(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """Without either, it lasts for its timeout."""
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

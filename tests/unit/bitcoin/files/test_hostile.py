"""Files in which a stranger has written what looks like a block or undo data: nothing is moved."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.hostile_files import forged_block, forged_undo, node_block
from tests.unit.bitcoin.building import P2PKH, mined, transaction
from tests.unit.bitcoin.files.writing import (
    BLOCKS,
    KEY,
    UNDO,
    append,
    frame,
    tip_of,
    write_blocks,
    write_node,
    write_undo,
)
from virtualchain.bitcoin.block import txids
from virtualchain.bitcoin.files import store as store_module
from virtualchain.bitcoin.files.index import BlockIndex, Place
from virtualchain.bitcoin.header import HEADER_SIZE, sha256d
from virtualchain.bitcoin.networks import network, with_easy_work
from virtualchain.bitcoin.source import BlockSource, Tip
from virtualchain.errors import MalformedBlock, MissingData, NodeError
from virtualchain.testing import ChainBuilder
from virtualchain.testing.tree import StoredBlock

Open = Callable[..., BlockSource]
REGTEST = network("regtest")
PERIOD = REGTEST.period


def with_hidden(*records: bytes) -> tuple[ChainBuilder, StoredBlock]:
    """Make a chain whose last block's transaction holds these records; return the block below it, too."""
    chain = ChainBuilder(premine=101)
    chain.mine([chain.send(b"id!honest")])
    target = chain.tree.tip
    filled = [record or forged_block(target.raw[:HEADER_SIZE]) for record in records]
    chain.mine([chain.send(b"id!" + b"".join(frame(REGTEST, record) for record in filled))])
    return chain, target


# What is found by searching


@pytest.mark.parametrize("cut", [1, 5, 60])
@pytest.mark.parametrize("undo", [True, False])
@pytest.mark.parametrize("key", [b"", KEY])
def test_a_forged_block_inside_a_transaction_replaces_none(
    opened: Open, tmp_path: Path, key: bytes, undo: bool, cut: int
) -> None:
    """The record that holds it is incomplete, so it is found, but the honest block is still in its place."""
    chain, target = with_hidden(b"")
    write_node(tmp_path, chain, key=key, undo=undo)
    path = tmp_path / BLOCKS
    path.write_bytes(path.read_bytes()[:-cut])
    source = opened(tmp_path)
    assert source.tip() == Tip(target.height, target.block.hash)
    assert source.raw_block(target.block.hash) == target.raw


@pytest.mark.parametrize("forge", [forged_block, node_block])
def test_a_forged_block_is_none_even_if_the_honest_one_is_gone(
    opened: Open, tmp_path: Path, forge: Callable[[bytes], bytes]
) -> None:
    """It does not pass the gate; a whole copy of the honest block does."""
    for hidden, is_whole in ((forge, False), (lambda header: header, True)):
        chain = ChainBuilder(premine=101)
        chain.mine([chain.send(b"id!honest")])
        target = chain.tree.tip
        record = target.raw if is_whole else hidden(target.raw[:HEADER_SIZE])
        chain.mine([chain.send(b"id!" + frame(REGTEST, record))])
        path = tmp_path / f"chain {is_whole}"
        write_blocks(path, chain, [*chain.tree.chain[:102], chain.tree.tip])
        path.write_bytes(path.read_bytes()[:-5])
        source = opened(path)
        assert source.tip().block_id == (102 if is_whole else 101)
        if is_whole:
            assert source.raw_block(target.block.hash) == target.raw


def test_what_follows_a_found_block_is_searched_as_well(opened: Open, tmp_path: Path) -> None:
    """A stranger may put a whole copy of a real block before the forged one."""
    chain = ChainBuilder(premine=102)
    tip = chain.tree.tip
    header = mined(tip.raw[:4] + bytes.fromhex(tip.block.hash)[::-1] + tip.raw[36:HEADER_SIZE])
    records = frame(REGTEST, chain.tree.chain[50].raw) + frame(REGTEST, forged_block(header))
    chain.mine([chain.send(b"id!" + records)])
    path = tmp_path / "chain"
    write_blocks(path, chain, [*chain.tree.chain[:50], *chain.tree.chain[51:]])
    path.write_bytes(path.read_bytes()[:-5])
    source = opened(path)
    assert source.tip() == Tip(102, tip.block.hash)
    with pytest.raises(MissingData):
        source.raw_block(sha256d(header)[::-1].hex())


def test_honest_blocks_after_damage_are_found(opened: Open, tmp_path: Path) -> None:
    """A file with a hole, or with the remains of a crash in it, is read to its end."""
    chain = ChainBuilder(premine=110)
    path = tmp_path / "chain"
    write_blocks(path, chain, chain.tree.chain[:40])
    append(path, b"remains" + frame(REGTEST, chain.tree.chain[60].raw)[:90])
    write_blocks(path, chain, chain.tree.chain[40:80])
    append(path, bytes(3000))
    write_blocks(path, chain, chain.tree.chain[80:])
    source = opened(path)
    assert source.tip() == tip_of(chain)
    assert [source.raw_block(each.block.hash) for each in chain.tree.chain] == chain.raw_blocks()


def test_a_place_that_holds_is_not_given_up(opened: Open, tmp_path: Path) -> None:
    """Not even for a record in its regular place, as a second one of the same block is."""
    chain, target = with_hidden(b"")
    write_node(tmp_path, chain, undo=False)
    append(tmp_path / BLOCKS, frame(REGTEST, forged_block(target.raw[:HEADER_SIZE])))
    assert opened(tmp_path).raw_block(target.block.hash) == target.raw


def test_of_two_places_the_one_with_the_whole_block_counts(opened: Open, tmp_path: Path) -> None:
    """A forged record that came first does not hide the honest one."""
    chain, target = with_hidden(b"")
    path = tmp_path / "chain"
    append(path, frame(REGTEST, forged_block(target.raw[:HEADER_SIZE])))
    write_blocks(path, chain, chain.tree.chain)
    source = opened(path)
    assert source.raw_block(target.block.hash) == target.raw
    following = dict(enumerate(txids(chain.tree.tip.raw)[1:], 1))
    assert len(source.spent_outputs(chain.tip, following)[1]) == 1


def test_the_search_has_a_budget(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block full of headers, each with a length of megabytes, does not keep the reader busy."""
    chain = ChainBuilder(premine=101)
    tip, headers = chain.tree.tip.raw, []
    for number in range(60):
        parent = bytes.fromhex(chain.tip)[::-1]
        header = mined(tip[:4] + parent + number.to_bytes(32, "little") + tip[68:HEADER_SIZE])
        headers.append(REGTEST.message_start + (6_000 - 88 * number).to_bytes(4, "little") + header)
    chain.mine([chain.send(b"id!" + b"".join(headers) + bytes(2_000))])
    chain.save(tmp_path / "chain")
    path = tmp_path / "chain"
    path.write_bytes(path.read_bytes()[:-5])
    checked = []

    def count(*arguments: object) -> None:
        checked.append(arguments)
        raise MalformedBlock("no block")

    monkeypatch.setattr(store_module, "CheckedBlock", count)
    monkeypatch.setattr(store_module, "_SEARCH_BUDGET", 20_000)
    assert opened(path).tip() == Tip(101, chain.tree.chain[101].block.hash)
    assert 1 < len(checked) < 30  # in several passes


def test_cheap_blocks_do_not_extend_an_expensive_chain() -> None:
    """On mainnet, difficulty one is easily met today; the period's target is not."""
    main = network("mainnet")
    parent = bytes(32)
    headers = []
    for block_id in range(5):
        bits = 0x1D00FFFF if block_id == 3 else 0x1B04864C
        headers.append(bytes(4) + parent + bytes(36) + bits.to_bytes(4, "little") + bytes(4))
        parent = sha256d(headers[-1])
    index = BlockIndex(main)
    for number, header in enumerate(headers):
        index.add(header, Place(0, number, 100))
    index.set_anchor(0, PERIOD + 10)
    assert [index.height(number) for number in range(5)] == [PERIOD + 10, PERIOD + 11, PERIOD + 12, -1, -1]
    easy = BlockIndex(with_easy_work(main))
    for number, header in enumerate(headers):
        easy.add(header, Place(0, number, 100))
    easy.set_anchor(0, PERIOD + 10)
    assert easy.height(4) == PERIOD + 14


def test_blocks_without_work_are_none(opened: Open, tmp_path: Path) -> None:
    """The error says why a file holds no block."""
    chain = ChainBuilder("testnet4", premine=5)
    write_blocks(tmp_path / "chain", chain, chain.tree.chain[1:])
    with pytest.raises(NodeError, match=r"holds no block of testnet4: header .* has no proof of work"):
        opened(tmp_path / "chain")


# Undo data


@pytest.mark.parametrize("cut", [0, 5])
def test_forged_undo_data_inside_a_script_are_not_used(opened: Open, tmp_path: Path, cut: int) -> None:
    """A spent script holds them, and the record of which it is a part is incomplete."""
    chain = ChainBuilder(premine=101)
    chain.mine([chain.send(b"id!honest")])
    target = chain.tree.tip
    carrier = chain.send(to=[(b"\x51" + forged_undo(chain, target), 20_000)])
    chain.mine([carrier])
    outpoint = bytes.fromhex(carrier.txid)[::-1] + b"\0\0\0\0"
    chain.mine([transaction(P2PKH).replace(b"\1" * 32 + b"\1\0\0\0", outpoint)])
    for holds_target in (True, False):
        folder = tmp_path / str(holds_target)
        folder.mkdir()
        write_blocks(folder / BLOCKS, chain, chain.tree.chain)
        blocks = [each for each in chain.tree.chain if holds_target or each is not target]
        write_undo(folder / UNDO, chain, blocks)
        path = folder / UNDO
        path.write_bytes(path.read_bytes()[: len(path.read_bytes()) - cut])
        source = opened(folder)
        transactions = dict(enumerate(txids(target.raw)[1:], 1))
        if holds_target:
            [coin] = source.spent_outputs(target.block.hash, transactions)[1]
            assert coin.script_pubkey != P2PKH
        else:
            with pytest.raises(MissingData, match="no undo data"):
                source.spent_outputs(target.block.hash, transactions)


def test_honest_undo_data_after_damage_are_used(opened: Open, tmp_path: Path) -> None:
    """They are found by searching, and what they say is what the blocks created."""
    chain = ChainBuilder(premine=101)
    for _ in range(3):
        chain.mine([chain.send(b"id!honest")])
    write_node(tmp_path, chain)
    path = tmp_path / UNDO
    content = path.read_bytes()
    at = content.index(REGTEST.message_start, len(content) // 2)
    path.write_bytes(content[:at] + b"junk" + content[at:])
    source = opened(tmp_path)
    assert source.tip() == tip_of(chain)
    for stored in chain.tree.chain[-3:]:
        transactions = dict(enumerate(txids(stored.raw)[1:], 1))
        assert all(source.spent_outputs(stored.block.hash, transactions).values())


# Where a chain without its first blocks starts


def without_first_blocks(path: Path, chain: ChainBuilder) -> None:
    """Write blocks 50 and up, the last of them five bytes short."""
    write_blocks(path, chain, chain.tree.chain[50:])
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_early_block_inside_a_transaction_is_not_where_the_chain_starts(
    opened: Open, tmp_path: Path, number: int
) -> None:
    """Anyone can hide a whole copy of the first blocks in a pruned node's last, incomplete one."""
    chain = ChainBuilder(premine=101)
    early = chain.tree.chain[number]
    chain.mine([chain.send(b"id!" + frame(REGTEST, early.raw))])
    path = tmp_path / "chain"
    without_first_blocks(path, chain)
    source = opened(path)
    assert source.tip() == Tip(101, chain.tree.chain[101].block.hash)
    assert source.block_hash(50) == chain.tree.chain[50].block.hash


def test_another_first_block_inside_a_transaction_is_not_reported(opened: Open, tmp_path: Path) -> None:
    """It must not look as if the files were of another network."""
    chain = ChainBuilder(premine=101)
    genesis = chain.tree.chain[0].raw
    other = mined(genesis[:68] + (1).to_bytes(4, "little") + genesis[72:])
    chain.mine([chain.send(b"id!" + frame(REGTEST, other))])
    path = tmp_path / "chain"
    without_first_blocks(path, chain)
    assert opened(path).tip() == Tip(101, chain.tree.chain[101].block.hash)

"""Files in which a stranger has written what looks like a block, and nodes that forget: nothing is moved."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.hostile_files import forged_block, forged_undo, node_block
from tests.unit.bitcoin.building import P2PKH, mined, transaction
from tests.unit.bitcoin.files.writing import (
    KEY,
    append,
    frame,
    obfuscate,
    undo_bytes,
    write_blocks,
    write_undo,
)
from virtualchain.bitcoin.block import txids
from virtualchain.bitcoin.difficulty import PERIOD
from virtualchain.bitcoin.files import framing as framing_module
from virtualchain.bitcoin.files import store as store_module
from virtualchain.bitcoin.files.index import BlockIndex, Place
from virtualchain.bitcoin.header import HEADER_SIZE, sha256d
from virtualchain.bitcoin.networks import network, signet_of, with_easy_work
from virtualchain.bitcoin.source import BlockSource, Tip
from virtualchain.errors import MalformedBlock, MissingData, NodeError, UsageError
from virtualchain.testing import ChainBuilder
from virtualchain.testing.tree import StoredBlock
from virtualchain.testing.undo import read_undo

Open = Callable[..., BlockSource]
REGTEST = network("regtest")
BLOCKS, UNDO = "blk00000.dat", "rev00000.dat"
CHALLENGE = "51"
"""A custom signet's challenge, whose message start and first bytes a real node wrote as below."""
CUSTOM = "signet-54d26fbd"


def tip_of(chain: ChainBuilder) -> Tip:
    """Return what the source should say."""
    return Tip(chain.height, chain.tip)


def with_hidden(*records: bytes) -> tuple[ChainBuilder, StoredBlock]:
    """Make a chain whose last block's transaction holds these records; return the block below it, too."""
    chain = ChainBuilder(premine=101)
    chain.mine([chain.send(b"id!honest")])
    target = chain.tree.tip
    filled = [record or forged_block(target.raw[:HEADER_SIZE]) for record in records]
    chain.mine([chain.send(b"id!" + b"".join(frame(REGTEST, record) for record in filled))])
    return chain, target


def write_node(folder: Path, chain: ChainBuilder, *, key: bytes = b"", undo: bool = True) -> None:
    """Write a node's files."""
    if key:
        (folder / "xor.dat").write_bytes(key)
    write_blocks(folder / BLOCKS, chain, chain.tree.chain, key)
    if undo:
        write_undo(folder / UNDO, chain, chain.tree.chain, key)


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


# Keys and networks


@pytest.mark.parametrize("zeros", range(8))
def test_a_key_that_begins_with_zeros(opened: Open, tmp_path: Path, zeros: int) -> None:
    """The message start is the same with it and without it."""
    key = bytes(zeros) + KEY[zeros:]
    chain = ChainBuilder(premine=104)
    write_node(tmp_path, chain, key=key)
    source = opened(tmp_path)
    assert source.tip() == tip_of(chain)
    assert source.raw_block(chain.tip) == chain.tree.tip.raw
    plain = tmp_path / "plain"
    chain.save(plain)
    assert opened(plain).tip() == tip_of(chain)


def test_a_key_that_begins_with_the_message_start(opened: Open, tmp_path: Path) -> None:
    """The file then begins with zeros, as reserved space does."""
    key = REGTEST.message_start + KEY[4:]
    chain = ChainBuilder(premine=104)
    write_node(tmp_path, chain, key=key)
    assert (tmp_path / BLOCKS).read_bytes().startswith(bytes(4))
    assert opened(tmp_path).tip() == tip_of(chain)


def test_a_custom_signet_is_recognized_by_its_genesis_block(opened: Open, tmp_path: Path) -> None:
    """Its message start is nobody's else; without the genesis block it must be named."""
    custom = signet_of(bytes.fromhex(CHALLENGE))
    assert (custom.name, custom.message_start.hex()) == (CUSTOM, "54d26fbd")
    genesis = ChainBuilder("signet", premine=0).raw_blocks()[0]
    folder = tmp_path / "node" / "signet_54d26fbd" / "blocks"
    folder.mkdir(parents=True)
    (folder / "xor.dat").write_bytes(bytes.fromhex("16b64da4c5cac40b"))
    append(folder / BLOCKS, frame(custom, genesis), bytes.fromhex("16b64da4c5cac40b"))
    assert (folder / BLOCKS).read_bytes().startswith(bytes.fromhex("42642219d8cbc40b17b64da4"))
    for path in (folder, folder / BLOCKS, tmp_path / "node"):
        for name in (None, CUSTOM):
            source = opened(path, name)
            assert (source.network, source.tip()) == (custom, Tip(0, custom.genesis_hash))
    for name in ("signet", "signet-00000000", "regtest"):
        with pytest.raises(NodeError, match=f"is of {CUSTOM}, but {name} was asked for"):
            opened(folder, name)
    other = tmp_path / "later"
    append(other, frame(custom, ChainBuilder().raw_blocks()[1]))
    with pytest.raises(UsageError, match="begins with 54d26fbd, not with the message start"):
        opened(other)
    with pytest.raises(NodeError, match=f"holds no block of {CUSTOM}"):
        opened(other, CUSTOM)
    public = frame(network("signet"), genesis)
    append(tmp_path / "public", public)
    assert opened(tmp_path / "public").network == network("signet")
    with pytest.raises(NodeError, match=f"is of signet, but {CUSTOM} was asked for"):
        opened(tmp_path / "public", CUSTOM)


def test_a_custom_signet_in_the_folder_of_all(opened: Open, tmp_path: Path) -> None:
    """Nodes before Bitcoin Core 31 keep every signet in `signet`."""
    custom = signet_of(bytes.fromhex(CHALLENGE))
    folder = tmp_path / "signet" / "blocks"
    folder.mkdir(parents=True)
    append(folder / BLOCKS, frame(custom, ChainBuilder("signet", premine=0).raw_blocks()[0]))
    assert opened(tmp_path).network == custom
    assert opened(tmp_path, CUSTOM).network == custom
    with pytest.raises(NodeError, match="but signet was asked for"):
        opened(tmp_path, "signet")


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

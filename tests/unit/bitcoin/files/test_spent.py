"""What blocks spend, from undo data or from the blocks themselves: right or missing, never a guess."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.bitcoin.files.writing import KEY, append, frame, write_blocks, write_undo
from virtualchain.bitcoin.block import txids
from virtualchain.bitcoin.files import spent as spent_module
from virtualchain.bitcoin.header import HEADER_SIZE, display_hash, sha256d
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.source import BlockSource
from virtualchain.errors import MalformedBlock, MissingData, NodeError
from virtualchain.model import SpentOutput, SpentOutputs
from virtualchain.testing import ChainBuilder
from virtualchain.testing.tree import StoredBlock
from virtualchain.testing.undo import read_undo

Open = Callable[[Path], BlockSource]
Spent = Mapping[int, Sequence[SpentOutput]]

NAMES = ("alice", "bob", "carol")


def grow(chain: ChainBuilder, blocks: int) -> None:
    """Mine blocks in which some coins move, one of them twice in the same block."""
    for number in range(blocks):
        txs = [chain.send(b"id?%d" % number, sender=name, to=[("dave", 5000)]) for name in NAMES]
        txs.append(chain.send(b"id!", sender="alice"))
        chain.mine(txs)


@pytest.fixture(scope="module")
def chain() -> ChainBuilder:
    """Make a chain of 121 blocks, with coins moving in the last 11."""
    made = ChainBuilder(premine=110)
    grow(made, 11)
    return made


def truth(chain: ChainBuilder, stored: StoredBlock) -> Spent:
    """Return what a block spends, from the builder's undo data."""
    undo = chain.undo(stored)
    assert undo is not None
    rows = enumerate(read_undo(undo))
    return {n: tuple(SpentOutput(coin.value, coin.script) for coin in coins) for n, coins in rows if n}


def spent(source: BlockSource, stored: StoredBlock) -> Spent:
    """Ask the source for everything that a block spends."""
    return source.spent_outputs(stored.block.hash, dict(enumerate(txids(stored.raw)[1:], 1)))


def check_all(source: BlockSource, chain: ChainBuilder, blocks: Sequence[StoredBlock]) -> None:
    """Compare what blocks spend with the builder's undo data."""
    for stored in blocks:
        if stored.parent is not None:
            assert spent(source, stored) == truth(chain, stored)


def write_folder(folder: Path, chain: ChainBuilder, *, key: bytes = KEY, undo: bool = True) -> None:
    """Write a node's folder with two block files, the undo data of the second in reverse order."""
    if key:
        (folder / "xor.dat").write_bytes(key)
    for number, blocks in ((0, chain.tree.chain[:115]), (1, chain.tree.chain[115:])):
        write_blocks(folder / f"blk{number:05}.dat", chain, blocks, key)
        if undo:
            write_undo(folder / f"rev{number:05}.dat", chain, blocks[:: -1 if number else 1], key)
            append(folder / f"rev{number:05}.dat", bytes(1000))


@pytest.mark.parametrize("undo", [True, False])
@pytest.mark.parametrize("key", [b"", KEY])
def test_a_folder_has_what_blocks_spend(
    chain: ChainBuilder, opened: Open, tmp_path: Path, key: bytes, undo: bool
) -> None:
    """It comes from undo data in any order, and without them from the blocks."""
    write_folder(tmp_path, chain, key=key, undo=undo)
    source = opened(tmp_path)
    check_all(source, chain, chain.tree.chain)
    check_all(source, chain, chain.tree.chain[::-1])
    few = {2: txids(chain.tree.tip.raw)[2]}
    spent = source.spent_outputs(chain.tip, few)
    assert spent == {2: truth(chain, chain.tree.tip)[2]}
    assert isinstance(spent, SpentOutputs)
    assert spent.evidence == ("undo" if undo else "transaction")
    assert (spent.counts is not None) is undo
    assert source.spent_outputs(chain.tip, {}) == {}


def test_one_file_has_what_its_blocks_spend(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """It contains the transactions that created the coins."""
    chain.save(tmp_path / "chain")
    check_all(opened(tmp_path / "chain"), chain, chain.tree.chain)


def test_one_file_of_a_node_uses_its_undo_data(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """The undo file with the same number is used, so the coins need not be in the block file."""
    write_folder(tmp_path, chain)
    source = opened(tmp_path / "blk00001.dat")
    check_all(source, chain, chain.tree.chain[115:])


@pytest.mark.parametrize("undo", [True, False])
def test_appended_blocks_are_known_as_well(opened: Open, tmp_path: Path, undo: bool) -> None:
    """They are known after the first query and after a reorg, and so is the stale branch."""
    chain = ChainBuilder(premine=105)
    grow(chain, 2)
    blocks, undo_file = tmp_path / "blk00000.dat", tmp_path / "rev00000.dat"
    write_blocks(blocks, chain, chain.tree.chain)
    if undo:
        write_undo(undo_file, chain, chain.tree.chain)
    source = opened(tmp_path)
    check_all(source, chain, chain.tree.chain)
    stale = chain.tree.chain[-1:]
    chain.reorg(1, 1, [chain.send(b"id?other", sender="bob")])
    grow(chain, 2)
    write_blocks(blocks, chain, chain.tree.chain[-3:])
    if undo:
        write_undo(undo_file, chain, chain.tree.chain[-3:])
    assert source.tip().hash == chain.tip
    check_all(source, chain, [*chain.tree.chain, *stale])


def siblings(folder: Path, undo: str) -> tuple[ChainBuilder, StoredBlock, StoredBlock]:
    """Write a folder in which two blocks of the same shape have one parent and spend different coins.

    `undo` says which of them have undo data: "first", "second" or "both"; the second one is the chain's.
    """
    chain = ChainBuilder(premine=105)
    chain.mine([chain.send(to=[(name, 10_000_000 * n) for n, name in enumerate(NAMES, 1)])])
    chain.mine([chain.send(b"id?1", sender="bob")])
    first = chain.tree.tip
    chain.reorg(1, 1, [chain.send(b"id?1", sender="carol")])
    second = chain.tree.tip
    chain.mine()
    write_blocks(folder / "blk00000.dat", chain, [*chain.tree.chain[:-2], first, second, chain.tree.tip])
    tip = chain.tree.tip
    with_undo = {"first": [first], "second": [second, tip], "both": [first, second, tip]}[undo]
    write_undo(folder / "rev00000.dat", chain, [*chain.tree.chain[:-2], *with_undo])
    assert truth(chain, first) != truth(chain, second)
    return chain, first, second


def test_siblings_are_distinguished_by_what_they_spend(opened: Open, tmp_path: Path) -> None:
    """Both were connected once, and the checksums of their undo data match the same parent."""
    chain, first, second = siblings(tmp_path, "both")
    source = opened(tmp_path)
    assert source.tip().hash == chain.tip
    check_all(source, chain, [second, first, second])


def test_a_sibling_that_was_never_connected_gets_nothing(opened: Open, tmp_path: Path) -> None:
    """The other block's undo data match in every other way, but are not used for it."""
    chain, first, second = siblings(tmp_path, "second")
    source = opened(tmp_path)
    check_all(source, chain, [second])
    with pytest.raises(MissingData, match=f"no undo data of block {first.block.hash}"):
        spent(source, first)
    with pytest.raises(MalformedBlock, match="without number 99"):
        source.spent_outputs(second.block.hash, {99: "11" * 32})


def test_a_damaged_sibling_is_not_the_tip(opened: Open, tmp_path: Path) -> None:
    """It was seen first and looks right as far as it can be read, but the node could not connect it."""
    chain, first, second = siblings(tmp_path, "second")
    path = tmp_path / "blk00000.dat"
    path.write_bytes(path.read_bytes().replace(first.raw, first.raw[:-20] + b"\xff" * 20))
    path.write_bytes(path.read_bytes()[: -(8 + len(chain.tree.tip.raw))])
    assert opened(tmp_path).tip().hash == second.block.hash


def test_the_tip_is_the_sibling_that_was_connected(opened: Open, tmp_path: Path) -> None:
    """The order in which they were seen does not matter."""
    _, first, second = siblings(tmp_path, "first")
    source = opened(tmp_path)
    assert source.tip().hash == first.block.hash
    path = tmp_path / "rev00000.dat"
    path.unlink()
    _, _, second = siblings(tmp_path, "second")
    path.write_bytes(path.read_bytes()[: -(8 + 1 + 32)])  # without the record of the tip
    assert opened(tmp_path).tip().hash == second.block.hash


def test_siblings_of_a_pruned_node(opened: Open, tmp_path: Path) -> None:
    """The coins cannot be looked up, but if there is only one record, it belongs to the connected block."""
    for undo in ("second", "both"):
        folder = tmp_path / undo
        folder.mkdir()
        chain, first, second = siblings(folder, undo)
        (folder / "blk00000.dat").unlink()
        write_blocks(folder / "blk00000.dat", chain, [first, second, chain.tree.tip])
        source = opened(folder)
        assert source.tip().hash == chain.tip
        if undo == "second":
            check_all(source, chain, [second])
        else:
            with pytest.raises(MissingData, match="no undo data"):
                spent(source, second)
        with pytest.raises(MissingData, match="no undo data"):
            spent(source, first)


def test_the_lowest_block_is_not_assumed_to_be_connected(opened: Open, tmp_path: Path) -> None:
    """The chain starts with it, whether or not the node has connected it."""
    chain, first, second = siblings(tmp_path, "second")
    (tmp_path / "blk00000.dat").unlink()
    write_blocks(tmp_path / "blk00000.dat", chain, [first, second])
    source = opened(tmp_path)
    assert source.tip().hash == first.block.hash
    with pytest.raises(MissingData, match="no undo data"):
        spent(source, first)


def test_undo_data_that_are_damaged_or_gone(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """The checksum detects a single wrong byte, and no other record is used instead."""
    write_folder(tmp_path, chain, key=b"")
    source = opened(tmp_path)
    tip, path = chain.tree.tip, tmp_path / "rev00001.dat"
    check_all(source, chain, [tip])
    whole = path.read_bytes()
    value = truth(chain, tip)[1][0].script_pubkey
    at = whole.index(value)
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(MissingData, match="node never connected it, or its rev"):
        spent(opened(tmp_path), tip)
    path.unlink()
    with pytest.raises(MissingData, match=tip.block.hash):
        spent(opened(tmp_path), tip)


def test_coins_that_are_not_in_the_files(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """The error names the coin and the files that are needed."""
    write_blocks(tmp_path / "part", chain, chain.tree.chain[115:])
    source = opened(tmp_path / "part")
    with pytest.raises(MissingData, match=r"spends [0-9a-f]{64}:\d+, and .*part holds neither that nor rev"):
        spent(source, chain.tree.chain[116])


def test_transactions_that_are_not_in_the_block(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """Nothing is made up for them."""
    chain.save(tmp_path / "chain")
    (tmp_path / "node").mkdir()
    write_folder(tmp_path / "node", chain)
    for transactions in ({1: "11" * 32}, {99: "11" * 32}):
        with pytest.raises(MalformedBlock, match=r"1{64}"):
            opened(tmp_path / "chain").spent_outputs(chain.tip, transactions)
    with pytest.raises(MalformedBlock, match="without number 99"):
        opened(tmp_path / "node").spent_outputs(chain.tip, {99: "11" * 32})


def test_a_damaged_block_hides_no_other(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """The outputs of the other blocks are found."""
    chain.save(tmp_path / "chain")
    genesis = chain.raw_blocks()[0]
    stray = genesis[: HEADER_SIZE - 4] + b"junk" + b"\xff" * 50
    append(tmp_path / "chain", frame(network("regtest"), stray))
    source = opened(tmp_path / "chain")
    check_all(source, chain, chain.tree.chain)
    assert source.raw_block(display_hash(sha256d(stray[:HEADER_SIZE]))) == stray


def test_many_threads_at_once(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """Each thread gets its own answer, even while the first query reads every block."""
    chain.save(tmp_path / "chain")
    (tmp_path / "node").mkdir()
    write_folder(tmp_path / "node", chain)
    for path in (tmp_path / "chain", tmp_path / "node"):
        source = opened(path)

        def ask(stored: StoredBlock, source: BlockSource = source) -> bool:
            source.tip()
            return spent(source, stored) == truth(chain, stored)

        truth(chain, chain.tree.tip)
        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(ask, chain.tree.chain[-10:] * 4))


def test_a_temporary_index_that_fails(
    chain: ChainBuilder, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says where space is needed."""
    chain.save(tmp_path / "chain")
    source = opened(tmp_path / "chain")
    monkeypatch.setattr(spent_module, "_INSERT", "INSERT INTO nowhere VALUES (?, ?, ?, ?)")
    with pytest.raises(NodeError, match=r"no such table.*TMPDIR"):
        spent(source, chain.tree.tip)


def test_ids_with_the_same_prefix(
    chain: ChainBuilder, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is only a hint: an output is taken from the transaction with the full id."""
    monkeypatch.setattr(spent_module, "_prefix", lambda txid: 7)
    chain.save(tmp_path / "chain")
    check_all(opened(tmp_path / "chain"), chain, chain.tree.chain[-1:])

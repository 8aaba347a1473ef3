"""Nodes that lack some data: pruned, syncing, started from a snapshot of the UTXO set, or damaged."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Query
from tests.support.text_app import text_app
from virtualchain import StateEngine
from virtualchain.bitcoin.block import Scanner, txids
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.bitcoin.node.node import NodeSource, open_source
from virtualchain.bitcoin.payload import watch
from virtualchain.bitcoin.prefetch import prefetch
from virtualchain.bitcoin.source import BlockSource, Tip
from virtualchain.errors import MissingData, NodeError
from virtualchain.model import Block, ScannedBlock
from virtualchain.testing import ChainBuilder, FakeNode
from virtualchain.testing.bitcoind import Bitcoind

Start = Callable[..., Bitcoind]
WAYS = ("rpc", "rest", "rest with spenttxouts")

PUBLIC_KEY = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
"""The key of private key 1. Bitcoin Core's own tests mine a chain to it whose snapshot every node accepts."""
PRIVATE_KEY = "cMahea7zqjxrtgAbB7LSGbcQUr1uX1ojuat9jZodMN87JcbXMTcA"
START_TIME = 1_598_887_952
SNAPSHOT = (110, "696e92821f65549c7ee134edceeeeaaa4105647a3c4fd9f298c0aec0ab50425c")


def open_node(node: Bitcoind, way: str) -> BlockSource:
    """Open a real node as a source, in one of the three ways."""
    source = open_source(node.url, node.cookie, rest=way != "rpc")
    assert isinstance(source, NodeSource)
    if way == "rest":
        source._spent_by_rest = False
    return source


def inputs_of(source: BlockSource, first: int) -> list[ScannedBlock]:
    """Scan the chain after a block and return the blocks that have inputs."""
    headers: list[Block] = []
    last = Tip(first, source.block_hash(first))
    while page := source.headers_after(last.block_id, last.hash):
        headers += page
        last = Tip(page[-1].block_id, page[-1].hash)
    scanner = Scanner([watch(b"st", None, "test")], source.network)
    return [scanned for scanned in prefetch(source, scanner, headers) if scanned.inputs]


def without_evidence(scanned: ScannedBlock) -> ScannedBlock:
    """Leave out how senders are known, which depends on the source."""
    return replace(scanned, inputs=tuple(replace(item, evidence=None) for item in scanned.inputs))


# A pruned node


@pytest.fixture(scope="module")
def long_chain() -> ChainBuilder:
    """Return a chain of 703 blocks with ops in an early block and two late ones."""
    chain = ChainBuilder()
    chain.mine([chain.send(b"stoearly")])
    chain.mine([chain.send(to=[("bob", 100_000)])], n=598)
    chain.mine([chain.send(b"stobob", sender="bob")])
    chain.mine([chain.send(b"stolate"), chain.send(b"stoagain")])
    return chain


@pytest.fixture
def pruned_node(long_chain: ChainBuilder, bitcoind_factory: Start, tmp_path: Path) -> tuple[Bitcoind, int]:
    """Return a real node that pruned the chain's first blocks, and the height of the first one it has."""
    long_chain.save(tmp_path / "chain")
    node = bitcoind_factory("-prune=1", "-fastprune", f"-loadblock={tmp_path / 'chain'}")
    node.wait_for_height(long_chain.height)
    node.rpc("pruneblockchain", 400)
    first = node.rpc("getblockchaininfo")["pruneheight"]
    assert 100 < first <= 400
    return node, first


@pytest.mark.node
def test_a_pruned_node_serves_what_it_has(
    pruned_node: tuple[Bitcoind, int], long_chain: ChainBuilder
) -> None:
    """All ways and the node's files return the same inputs; for pruned blocks, the error gives advice."""
    node, first = pruned_node
    results = []
    for way in WAYS:
        with closing(open_node(node, way)) as source:
            results.append(inputs_of(source, first))
            with pytest.raises(MissingData, match=r"A pruned node does.*use a node with the whole chain"):
                source.raw_block(source.block_hash(102))
            with pytest.raises(MissingData, match="pruned"):
                source.spent_outputs(source.block_hash(102), {1: "11" * 32})
    with closing(open_blocks(node.datadir)) as source:
        assert source.tip() == Tip(long_chain.height, long_chain.tip)
        assert source.block_hash(first) == long_chain.tree.chain[first].block.hash
        results.append(inputs_of(source, first))
        with pytest.raises(MissingData, match="blocks holds blocks"):
            source.block_hash(102)
    same = [[without_evidence(scanned) for scanned in result] for result in results]
    assert same[1:] == same[:1] * 3
    assert results[0][0].inputs[0].senders[0].value == 100_000
    assert [len(scanned.inputs) for scanned in results[0]] == [1, 2]


@pytest.mark.node
def test_an_app_on_a_pruned_node(
    pruned_node: tuple[Bitcoind, int], long_chain: ChainBuilder, database_url: str, query: Query
) -> None:
    """An app runs if its first block is not pruned."""
    node, first = pruned_node
    with closing(open_node(node, "rest")) as source:
        options: dict[str, Any] = {"database": database_url, "source": source, "confirmations": 0}
        with StateEngine(text_app(first_block_id=first), **options) as engine:
            assert engine.build() == long_chain.height
    texts = query("SELECT fields ->> 'text' AS text FROM virtualchain.ops ORDER BY block_id, vtxindex")
    assert [row["text"] for row in texts] == ["bob", "late", "again"]


@pytest.mark.parametrize("rest", [True, False])
def test_an_app_that_starts_too_early_on_a_pruned_node(database_url: str, query: Query, rest: bool) -> None:
    """The error says what is missing and what to do, and the database stays empty."""
    with FakeNode(rest=rest) as node:
        node.mine([node.send(b"stoone")])
        node.prune(50)
        options: dict[str, Any] = {"database": database_url, "source": node.url, "confirmations": 0}
        with (
            StateEngine(text_app(first_block_id=20), **options) as engine,
            pytest.raises(MissingData, match="use a node with the whole chain"),
        ):
            engine.build()
        assert query("SELECT * FROM vc.blocks") == []
        node.prune(0)
        with StateEngine(text_app(first_block_id=20), **options) as engine:
            assert engine.build() == node.height


# A node in its initial download


def test_a_syncing_node_is_followed(database_url: str, fake_node: FakeNode) -> None:
    """The blocks of a node in its initial download are processed as they come."""
    fake_node.syncing = True
    fake_node.mine([fake_node.send(b"stoone")])
    options: dict[str, Any] = {"database": database_url, "source": fake_node.url, "confirmations": 0}
    with StateEngine(text_app(), **options) as engine:
        assert engine.build() == 102
        fake_node.mine([fake_node.send(b"stotwo")])
        assert engine.build() == 103


# A node that was started from a snapshot of the UTXO set


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """Return the snapshot of block 110 that Bitcoin Core has built in, and the blocks of a chain with it."""
    from virtualchain.testing.bitcoind import find_bitcoind

    program = find_bitcoind()
    if program is None:
        pytest.skip("no bitcoind: set BITCOIND to its path, or put it on PATH")
    file = tmp_path_factory.mktemp("snapshot") / "utxo.dat"
    node = Bitcoind(program)
    try:
        descriptor = node.rpc("getdescriptorinfo", f"pk({PUBLIC_KEY})")["descriptor"]

        def mine(*transactions: str) -> None:
            node.rpc("setmocktime", START_TIME + node.rpc("getblockcount"))
            node.rpc("generateblock", descriptor, transactions)

        for _ in range(SNAPSHOT[0]):
            mine()
        if node.rpc("getbestblockhash") != SNAPSHOT[1]:
            pytest.skip("this version does not mine the chain whose snapshot is built in")
        node.rpc("dumptxoutset", str(file), "latest")
        for number in (1, 2):
            coinbase = node.rpc("getblock", node.rpc("getblockhash", number))["tx"][0]
            raw = node.rpc(
                "createrawtransaction", [{"txid": coinbase, "vout": 0}], [{"data": (b"sto%d" % number).hex()}]
            )
            mine(node.rpc("signrawtransactionwithkey", raw, [PRIVATE_KEY])["hex"])
        heights = range(1, SNAPSHOT[0] + 3)
        yield file, [node.rpc("getblock", node.rpc("getblockhash", height), 0) for height in heights]
    finally:
        node.stop()


@pytest.fixture
def snapshot_node(snapshot: tuple[Path, list[str]], bitcoind_factory: Start) -> Bitcoind:
    """Return a real node that has the blocks above the snapshot, and one below it."""
    file, blocks = snapshot
    node = bitcoind_factory()
    for block in blocks:
        node.rpc("submitheader", block[:160])
    node.rpc("loadtxoutset", str(file))
    for block in blocks[SNAPSHOT[0] :]:
        node.rpc("submitblock", block)
    node.wait_for_height(len(blocks))
    node.rpc("submitblock", blocks[59])  # the node stores it, but cannot connect it
    return node


@pytest.mark.node
@pytest.mark.parametrize("way", WAYS)
def test_a_node_that_started_from_a_snapshot(
    snapshot_node: Bitcoind, snapshot: tuple[Path, list[str]], way: str
) -> None:
    """It knows senders for the blocks it connected; below the snapshot, they and most blocks are missing."""
    raw = bytes.fromhex(snapshot[1][59])
    with closing(open_node(snapshot_node, way)) as source:
        blocks = inputs_of(source, SNAPSHOT[0])
        assert [scanned.block.block_id for scanned in blocks] == [111, 112]
        assert all(scanned.inputs[0].senders[0].value == 50 * 10**8 for scanned in blocks)
        with pytest.raises(MissingData, match="snapshot of the UTXO set"):
            source.raw_block(source.block_hash(59))
        assert source.raw_block(source.block_hash(60)) == raw
        with pytest.raises(MissingData, match="snapshot of the UTXO set"):
            source.spent_outputs(source.block_hash(60), {0: txids(raw)[0]})


@pytest.mark.node
def test_an_app_above_a_snapshot(snapshot_node: Bitcoind, database_url: str, query: Query) -> None:
    """An app that starts above the snapshot runs."""
    with closing(open_node(snapshot_node, "rest")) as source:
        options: dict[str, Any] = {"source": source, "confirmations": 0, "database": database_url}
        with StateEngine(text_app(first_block_id=111), **options) as engine:
            assert engine.build() == 112
    texts = query("SELECT fields ->> 'text' AS text FROM virtualchain.ops ORDER BY block_id")
    assert [row["text"] for row in texts] == ["1", "2"]


@pytest.mark.node
def test_the_files_of_a_node_that_started_from_a_snapshot(
    snapshot_node: Bitcoind, snapshot: tuple[Path, list[str]]
) -> None:
    """The files are a chain as far as the node has validated it from the genesis block on."""
    with closing(open_blocks(snapshot_node.datadir)) as source:
        assert source.tip() == Tip(0, source.network.genesis_hash)
        for block in snapshot[1][:30]:
            snapshot_node.rpc("submitblock", block)
        assert source.tip().block_id == 30


# A node that loses data or restarts


@pytest.fixture
def small_chain(tmp_path: Path) -> ChainBuilder:
    """Return a chain of 103 blocks with ops in the last two, and save it."""
    chain = ChainBuilder()
    for text in (b"one", b"two"):
        chain.mine([chain.send(b"sto" + text)])
    chain.save(tmp_path / "chain")
    return chain


@pytest.fixture
def node(small_chain: ChainBuilder, bitcoind_factory: Start, tmp_path: Path) -> Bitcoind:
    """Return a real node with that chain."""
    started = bitcoind_factory(f"-loadblock={tmp_path / 'chain'}")
    started.wait_for_height(small_chain.height)
    return started


@pytest.mark.node
def test_undo_data_that_cannot_be_read(node: Bitcoind, small_chain: ChainBuilder) -> None:
    """If its undo or block files are gone, the node lacks spent outputs or blocks, in every way of access."""
    blocks = node.datadir / "regtest" / "blocks"
    ids = txids(small_chain.tree.tip.raw)
    (blocks / "rev00000.dat").rename(blocks / "gone")
    for way in WAYS:
        with closing(open_node(node, way)) as source:
            for transactions in ({1: ids[1]}, {1: ids[1], **dict.fromkeys(range(2, 20), ids[1])}):
                with pytest.raises(MissingData, match=f"lacks block {small_chain.tip} or what it spends"):
                    source.spent_outputs(small_chain.tip, transactions)
    (blocks / "blk00000.dat").unlink()
    for way in WAYS:
        with closing(open_node(node, way)) as source, pytest.raises(MissingData, match=small_chain.tip):
            source.raw_block(small_chain.tip)


@pytest.mark.node
def test_a_new_cookie_and_rest_turned_off(node: Bitcoind, small_chain: ChainBuilder) -> None:
    """If the node restarts, an open source picks up the new cookie, and works without REST."""
    with (
        closing(open_node(node, "rest with spenttxouts")) as source,
        closing(open_node(node, "rpc")) as by_rpc,
    ):
        expected = inputs_of(source, 0)
        assert len(expected) == 2
        cookie = node.cookie.read_bytes()
        node.restart()
        assert node.cookie.read_bytes() != cookie
        assert inputs_of(source, 0) == inputs_of(by_rpc, 0) == expected
        node.restart("-rest=0")
        assert inputs_of(source, 0) == inputs_of(by_rpc, 0) == expected
        assert source.tip() == Tip(small_chain.height, small_chain.tip)
        with pytest.raises(NodeError, match="REST is off"):
            open_source(node.url, node.cookie, rest=True)


@pytest.mark.node
def test_files_beside_a_node_that_grows(
    node: Bitcoind, small_chain: ChainBuilder, bitcoind_factory: Start, tmp_path: Path
) -> None:
    """The files follow the node's blocks, also in a reorg, and a copy of them serves without the node."""
    with closing(open_blocks(node.datadir)) as source:
        first = inputs_of(source, 0)
        small_chain.mine([small_chain.send(b"stothree")])
        node.rpc("submitblock", small_chain.raw_blocks()[-1].hex())
        assert source.tip() == Tip(104, small_chain.tip)
        small_chain.reorg(2, 3, [small_chain.send(b"stofour", sender="bob")])
        for raw in small_chain.raw_blocks()[-3:]:
            node.rpc("submitblock", raw.hex())
        assert source.tip() == Tip(105, small_chain.tip)
        blocks = inputs_of(source, 0)
        assert blocks[:1] == first[:1]
        assert [scanned.block.block_id for scanned in blocks] == [102, 103]
        with closing(open_node(node, "rest")) as by_rest:
            same = [without_evidence(scanned) for scanned in inputs_of(by_rest, 0)]
            assert same == [without_evidence(scanned) for scanned in blocks]
        shutil.copytree(node.datadir / "regtest" / "blocks", tmp_path / "copy")
    with closing(open_blocks(tmp_path / "copy")) as copied:
        assert inputs_of(copied, 0) == blocks

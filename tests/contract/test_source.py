"""One contract for all sources: a real node, a fake one and files give the same answers.

Each test runs over JSON-RPC only, with an index of transactions and without, over REST as older nodes have
it, over REST with /rest/spenttxouts, with two nodes of which the first is down, on the real node's own files
and on one file, with the generated chain, for which the generator recorded the truth.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.generated import GeneratedChain
from virtualchain.bitcoin.block import Scanner, inputs, split_transactions, txids
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.node import client
from virtualchain.bitcoin.node.node import NodeSource, open_source
from virtualchain.bitcoin.node.several import open_nodes
from virtualchain.bitcoin.payload import watch
from virtualchain.bitcoin.prefetch import fetch, prefetch
from virtualchain.bitcoin.source import BlockSource, HeightSource, Tip
from virtualchain.bitcoin.transaction import read_inputs, read_outputs
from virtualchain.errors import MissingData
from virtualchain.model import Block, Watch
from virtualchain.testing import FakeNode

if TYPE_CHECKING:
    from virtualchain.testing.bitcoind import Bitcoind

WAYS = ("rpc", "rpc with txindex", "rest", "rest with spenttxouts")
REST = WAYS[2:]
REGTEST = network("regtest")
UNKNOWN = "11" * 32
SUBSIDY = 50 * 100_000_000


@dataclass
class Subject:
    """A source on the generated chain, and how to invalidate a block of its node during the test."""

    source: BlockSource
    invalidate: Callable[[int], object] | None = None


NODES = [
    pytest.param((node, way), id=f"{node}: {way}", marks=[pytest.mark.node] if node == "bitcoind" else [])
    for node in ("bitcoind", "fake node")
    for way in WAYS
]
FILES = [
    pytest.param(("files", "blk*.dat"), id="blk*.dat of bitcoind", marks=pytest.mark.node),
    pytest.param(("files", "one file"), id="one file"),
]


SEVERAL = [pytest.param(("several", "first down"), id="several nodes, first down")]


@pytest.fixture(params=[*NODES, *FILES, *SEVERAL])
def subject(request: pytest.FixtureRequest, generated: GeneratedChain) -> Iterator[Subject]:
    """Open the source under test."""
    kind, way = request.param
    openers = {
        "bitcoind": _on_bitcoind,
        "fake node": _on_fake_node,
        "files": _on_files,
        "several": _on_several,
    }
    yield from openers[kind](request, generated, way)


@pytest.fixture(params=[*NODES, *SEVERAL])
def node_subject(request: pytest.FixtureRequest, generated: GeneratedChain) -> Iterator[Subject]:
    """Open a source that can say which blocks are invalid."""
    kind, way = request.param
    openers = {"bitcoind": _on_bitcoind, "fake node": _on_fake_node, "several": _on_several}
    yield from openers[kind](request, generated, way)


def _on_files(request: pytest.FixtureRequest, generated: GeneratedChain, way: str) -> Iterator[Subject]:
    path = generated.file
    if way == "blk*.dat":
        path = request.getfixturevalue("loaded_bitcoind").datadir
        assert any((path / "regtest" / "blocks" / "xor.dat").read_bytes())
        assert (path / "regtest" / "blocks" / "rev00000.dat").exists()
    source = open_blocks(path)
    yield Subject(source)
    source.close()


def _on_bitcoind(request: pytest.FixtureRequest, generated: GeneratedChain, way: str) -> Iterator[Subject]:
    bitcoind: Bitcoind = request.getfixturevalue("loaded_bitcoind")
    source = open_source(bitcoind.url, bitcoind.cookie, rest=way in REST)
    assert isinstance(source, NodeSource)
    if way == "rest":
        source._spent_by_rest = False
    if way != "rpc with txindex":
        source._index.refuse()
    assert source._spent_by_rest == (way == "rest with spenttxouts")
    invalidated: list[str] = []

    def invalidate(block_id: int) -> None:
        invalidated.append(generated.hash(block_id))
        bitcoind.rpc("invalidateblock", invalidated[-1])

    yield Subject(source, invalidate)
    for block_hash in invalidated:
        bitcoind.rpc("reconsiderblock", block_hash)
        bitcoind.wait_for_height(generated.tip)
    source.close()


def _on_fake_node(request: pytest.FixtureRequest, generated: GeneratedChain, way: str) -> Iterator[Subject]:
    fakes: Fakes = request.getfixturevalue("fakes")
    (node,) = fakes.get(way)
    source = open_source(node.url)
    yield Subject(source, lambda block_id: fakes.invalidate(way, block_id))
    source.close()


def _on_several(request: pytest.FixtureRequest, generated: GeneratedChain, way: str) -> Iterator[Subject]:
    request.getfixturevalue("monkeypatch").setattr(client, "RETRY_PAUSES", ())
    fakes: Fakes = request.getfixturevalue("fakes")
    nodes = fakes.get(way)
    source = open_nodes([node.url for node in nodes])
    assert way == "first down"
    nodes[0].stop()
    yield Subject(source, lambda block_id: fakes.invalidate(way, block_id))
    source.close()
    nodes[0].start()


class Fakes:
    """Fake nodes on the generated chain; those of one way serve all tests until one changes them."""

    def __init__(self, chain: list[bytes]) -> None:
        self._chain = chain
        self._nodes: dict[str, list[FakeNode]] = {}
        self._changed: list[FakeNode] = []

    def get(self, way: str) -> list[FakeNode]:
        """Return the nodes of a way: two if the first is to be down, else one."""
        if way not in self._nodes:
            options: dict[str, bool] = {}
            if way in WAYS:
                options = {
                    "rest": way in REST,
                    "spent_outputs": way == "rest with spenttxouts",
                    "txindex": way == "rpc with txindex",
                }
            count = 1 if way in WAYS else 2
            self._nodes[way] = [FakeNode.from_blocks("regtest", self._chain, **options) for _ in range(count)]
        return self._nodes[way]

    def invalidate(self, way: str, block_id: int) -> None:
        """Invalidate a block of the nodes of a way, which only the test that does so sees."""
        changed = self._nodes.pop(way)
        self._changed += changed
        for node in changed:
            node.invalidate(block_id)

    def close(self) -> None:
        """Close every node."""
        for node in [*self._changed, *(node for nodes in self._nodes.values() for node in nodes)]:
            node.close()


@pytest.fixture(scope="module")
def fakes(generated: GeneratedChain) -> Iterator[Fakes]:
    """Serve the chain's blocks, without the genesis block."""
    fakes = Fakes([generated.raw(block_id) for block_id in range(1, generated.tip + 1)])
    yield fakes
    fakes.close()


def all_headers(source: BlockSource) -> list[Block]:
    """Read every header after the genesis block, page by page."""
    headers: list[Block] = []
    last = Tip(0, REGTEST.genesis_hash)
    while page := source.headers_after(last.block_id, last.hash):
        headers += page
        last = Tip(page[-1].block_id, page[-1].hash)
    assert page == []
    return headers


def test_network_and_tip(subject: Subject, generated: GeneratedChain) -> None:
    """The source knows its network and the last block."""
    assert subject.source.network == REGTEST
    assert subject.source.tip() == Tip(generated.tip, generated.hash(generated.tip))


def test_block_hash(subject: Subject, generated: GeneratedChain) -> None:
    """A height has its block's hash, from the genesis block to the tip; no other height has one."""
    for block_id in (0, 1, 77, generated.tip):
        assert subject.source.block_hash(block_id) == generated.hash(block_id)
    for block_id in (-1, generated.tip + 1, 10_000_000):
        with pytest.raises(MissingData):
            subject.source.block_hash(block_id)


def test_headers_of_the_whole_chain(subject: Subject, generated: GeneratedChain) -> None:
    """The pages contain every header once, numbered and in order, and end with an empty page."""
    headers = all_headers(subject.source)
    assert [(block.block_id, block.hash) for block in headers] == [
        (row[0], row[1]) for row in generated.index[1:]
    ]
    assert [block.prev_hash for block in headers] == [row[1] for row in generated.index[:-1]]
    assert headers[99].header == generated.raw(100)[:80]


def test_headers_of_an_unknown_block(subject: Subject) -> None:
    """A block that the source does not know is on no chain."""
    assert subject.source.headers_after(7, UNKNOWN) is None


def test_raw_block(subject: Subject, generated: GeneratedChain) -> None:
    """A block is returned byte for byte, including the genesis block and the largest."""
    for block_id in (0, 1, generated.tip - 2, generated.tip):
        assert subject.source.raw_block(generated.hash(block_id)) == generated.raw(block_id)


def test_unknown_block_is_missing(subject: Subject) -> None:
    """A block that the source does not have is an error, and so are its spent outputs."""
    with pytest.raises(MissingData):
        subject.source.raw_block(UNKNOWN)
    with pytest.raises(MissingData):
        subject.source.spent_outputs(UNKNOWN, {1: UNKNOWN})


def test_inputs_are_what_the_generator_recorded(subject: Subject, generated: GeneratedChain) -> None:
    """All payload transactions of the chain have the right fees, senders and outputs, to the satoshi."""
    scanner = Scanner([watch(b"id", None, "test")], REGTEST)
    actual = {
        scanned.block.block_id: [
            {
                "txid": each.txid,
                "txpos": each.txindex,
                "fee": each.fee,
                "senders": [[sender.script_pubkey, sender.value] for sender in each.senders],
                "outputs": [[output.script_pubkey, output.value] for output in each.outputs],
            }
            for each in scanned.inputs
        ]
        for scanned in prefetch(subject.source, scanner, all_headers(subject.source))
    }
    columns = ("txid", "txpos", "fee", "senders", "outputs")
    assert actual == {
        block_id: [{name: each[name] for name in columns} for each in generated.truth.get(str(block_id), [])]
        for block_id in range(1, generated.tip + 1)
    }
    assert sum(map(len, actual.values())) > 20


def test_spent_outputs_of_every_transaction(subject: Subject, generated: GeneratedChain) -> None:
    """Over a whole block, what is spent minus what is created is what the miner took."""
    raw = generated.raw(generated.tip)
    everything = Scanner([Watch(b"", "all", lambda _: b"payload", prefilter=False)], REGTEST)
    header = read_header(generated.tip, raw[:HEADER_SIZE])
    scan = everything.scan(CheckedBlock(header, raw, REGTEST, "merkle"))
    transactions = {each.txindex: each.transaction.txid for each in scan.candidates}
    assert list(transactions.values()) == txids(raw)[1:]
    spent = subject.source.spent_outputs(generated.hash(generated.tip), transactions)
    assert set(spent) == set(transactions)
    fees = sum(each.fee for each in inputs(scan, spent))
    created = int.from_bytes(raw[raw.index(b"\xff\xff\xff\xff\x02") + 5 :][:8], "little")
    assert created == SUBSIDY + fees


def test_ways_of_asking_agree_on_few_and_many(subject: Subject, generated: GeneratedChain) -> None:
    """The outputs are the same for one, fifteen and sixteen transactions, in the order of their inputs."""
    block_id = generated.tip
    ids = txids(generated.raw(block_id))
    many = subject.source.spent_outputs(generated.hash(block_id), {n: ids[n] for n in range(1, 17)})
    for count in (1, 15):
        few = subject.source.spent_outputs(generated.hash(block_id), {n: ids[n] for n in range(1, count + 1)})
        assert few == {n: many[n] for n in few}
        assert len(few) == count


@pytest.fixture(scope="session")
def origins(generated: GeneratedChain) -> dict[tuple[str, int], int]:
    """Find where every output of the chain was made, as `SpentOutput` has it."""
    made_at = {}
    for block_id in range(1, generated.tip + 1):
        raw = generated.raw(block_id)
        for txindex, (txid, transaction) in enumerate(zip(txids(raw), split_transactions(raw), strict=True)):
            for vout in range(len(read_outputs(transaction)[1])):
                made_at[txid, vout] = 2 * block_id + (txindex == 0)
    return made_at


def test_heights_of_spent_outputs(
    subject: Subject, generated: GeneratedChain, origins: dict[tuple[str, int], int]
) -> None:
    """Every source knows in which block each spent output was made, and whether by a coinbase."""
    assert isinstance(subject.source, HeightSource)
    spends_coinbase = next(
        (block_id, txindex)
        for block_id in range(generated.tip, 0, -1)
        for txindex, raw in enumerate(split_transactions(generated.raw(block_id)))
        if txindex and any(origins[each.txid, each.vout] % 2 for each in read_inputs(raw))
    )
    for block_id, txindexes in (
        (generated.tip, range(1, 21)),
        (generated.tip - 1, range(1, 6)),
        (spends_coinbase[0], [spends_coinbase[1]]),
    ):
        raw = generated.raw(block_id)
        transactions, ids = split_transactions(raw), txids(raw)
        requested = {n: ids[n] for n in txindexes if n < len(ids)}
        spent = subject.source.spent_outputs_with_heights(generated.hash(block_id), requested)
        plain = subject.source.spent_outputs(generated.hash(block_id), requested)
        for txindex in requested:
            spendings = read_inputs(transactions[txindex])
            assert [each.made_at for each in spent[txindex]] == [
                origins[spending.txid, spending.vout] for spending in spendings
            ]
            assert [each._replace(made_at=None) for each in spent[txindex]] == list(plain[txindex])


def test_the_rest_of_a_block(subject: Subject, generated: GeneratedChain) -> None:
    """For apps that track outputs, every transaction of a block can be taken, with what it spends."""
    scanner = Scanner([watch(b"no", None, "test")], REGTEST, keeps_blocks=True)
    header = read_header(generated.tip, generated.raw(generated.tip)[:HEADER_SIZE])
    scanned = fetch(subject.source, scanner, header)
    assert scanned.inputs == ()
    assert scanned.rest is not None
    ids = txids(generated.raw(generated.tip))
    assert [scanned.rest.txid(txindex).hex() for txindex in range(len(ids))] == ids
    taken = scanned.rest.take({txindex: txindex == 2 for txindex in range(1, min(len(ids), 20))})
    assert [item.txid for item in taken] == ids[1:20]
    assert scanned.rest.spends[0] == b""
    for item in taken:
        spends = [bytes.fromhex(each.txid) + each.vout.to_bytes(4) for each in read_inputs(item.raw)]
        assert scanned.rest.spends[item.txindex] == b"".join(spends)
        assert (item.spent_at is not None) == (item.txindex == 2)
        assert item.magics == ()
    assert scanned.rest.take({1: False})[0].spent_at is None


def test_an_invalidated_branch(node_subject: Subject, generated: GeneratedChain) -> None:
    """Blocks that left the chain have no followers, are known to be invalid, and can still be read."""
    source, tip = node_subject.source, generated.tip
    assert not source.is_invalid(tip, generated.hash(tip))
    assert node_subject.invalidate is not None
    node_subject.invalidate(tip - 1)
    assert source.tip() == Tip(tip - 2, generated.hash(tip - 2))
    assert source.headers_after(tip - 2, generated.hash(tip - 2)) == []
    for block_id in (tip - 1, tip):
        assert source.headers_after(block_id, generated.hash(block_id)) is None
        assert source.is_invalid(block_id, generated.hash(block_id))
    assert not source.is_invalid(tip - 2, generated.hash(tip - 2))
    assert not source.is_invalid(tip, UNKNOWN)
    with pytest.raises(MissingData):
        source.block_hash(tip - 1)
    assert source.raw_block(generated.hash(tip)) == generated.raw(tip)
    parent = source.headers_after(tip - 3, generated.hash(tip - 3))
    assert parent is not None
    assert [block.hash for block in parent] == [generated.hash(tip - 2)]

"""The node source: what it asks, in which order it falls back, and what it makes of strange answers."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.unit.bitcoin_source.scripted import Reply, Request, Scripted, error, result
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.login import read_url
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.node import FEW_TRANSACTIONS, HEADER_PAGE, NodeSource, open_source
from virtualchain.bitcoin.payload import watch
from virtualchain.bitcoin.prefetch import fetch
from virtualchain.bitcoin.rpc import NotOffered
from virtualchain.bitcoin.source import Tip
from virtualchain.errors import MalformedBlock, MissingData, NodeError, NodeUnavailable, VirtualchainError
from virtualchain.model import SpentOutput
from virtualchain.testing import FakeNode

REGTEST = network("regtest")
ALWAYS_THERE = {"getblockchaininfo", "getblockhash", "getblockheader", "getblock"}
A, B, C = "aa" * 32, "bb" * 32, "cc" * 32


class Stub:
    """Stands in for JSON-RPC: each method is a function, or what it always answers."""

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.calls: list[tuple[object, ...]] = []

    def call(self, method: str, *parameters: object) -> Any:  # noqa: ANN401 - JSON
        """Answer as planned; a method without a plan is not offered, an error is raised."""
        self.calls.append((method, *parameters))
        answer = self.answers.get(method, NotOffered("no such method"))
        if callable(answer):
            answer = answer(*parameters)
        if isinstance(answer, VirtualchainError):
            raise answer
        return answer

    def close(self) -> None:
        """Nothing is open."""

    def source(self) -> NodeSource:
        """Make a source that asks this stub alone."""
        return NodeSource(read_url("http://u:p@h:1"), REGTEST, self, None, spent_by_rest=False)  # type: ignore[arg-type]


@pytest.fixture
def node() -> Iterator[FakeNode]:
    """Give a node with 150 blocks, the last of them with some inputs."""
    with FakeNode(premine=149) as running:
        running.mine([running.send(b"id?%d" % number) for number in range(3)])
        yield running


# Opening


@pytest.mark.parametrize("spent_outputs", [True, False])
def test_open_asks_for_nothing_unproved(spent_outputs: bool) -> None:
    """Without REST the source lives on the four methods that every node has; the rest it tries once."""
    with FakeNode(rest=False, spent_outputs=spent_outputs) as node:
        source = open_source(node.url)
        assert source.network == REGTEST
        source.tip()
        source.headers_after(0, REGTEST.genesis_hash)
        source.raw_block(source.block_hash(5))
        source.close()
        assert {call for call in node.calls if not call.startswith("/rest")} <= ALWAYS_THERE
        assert {call for call in node.calls if call.startswith("/rest")} == {"/rest/chaininfo.json"}


def test_open_uses_rest_where_it_is_on(node: FakeNode) -> None:
    """With REST, blocks, headers and spent outputs come from there, and nothing of it as JSON."""
    source = open_source(node.url)
    node.calls.clear()
    scan_tip(source, node)
    source.close()
    assert dict(node.calls) == {"/rest/headers": 1, "/rest/block": 1, "/rest/spenttxouts": 1}


def test_open_without_spenttxouts_asks_for_each_transaction() -> None:
    """An older node is asked for the few transactions, or for the whole block where they are many."""
    with FakeNode(premine=149, spent_outputs=False) as node:
        node.mine([node.send(b"id?%d" % number) for number in range(FEW_TRANSACTIONS)])
        source = open_source(node.url)
        node.calls.clear()
        assert len(scan_tip(source, node)) == FEW_TRANSACTIONS
        assert node.calls["getrawtransaction"] == FEW_TRANSACTIONS
        assert node.calls["getblock"] == 0
        node.mine([node.send(b"id?%d" % number) for number in range(FEW_TRANSACTIONS + 1)])
        node.calls.clear()
        assert len(scan_tip(source, node)) == FEW_TRANSACTIONS + 1
        assert node.calls["getrawtransaction"] == 0
        assert node.calls["getblock"] == 1
        source.close()


def scan_tip(source: Any, node: FakeNode) -> tuple[Any, ...]:  # noqa: ANN401 - the protocol, and a tuple of inputs
    """Fetch the node's last block with all that it spends."""
    headers = source.headers_after(node.height - 1, node.chain.tree.chain[-2].block.hash)
    return fetch(source, Scanner([watch(b"id", None, "test")], REGTEST), headers[0]).inputs


def test_open_can_be_kept_from_rest(node: FakeNode) -> None:
    """`rest=False` asks over JSON-RPC alone, and does not even look for REST."""
    source = open_source(node.url, rest=False)
    scan_tip(source, node)
    source.close()
    assert not [call for call in node.calls if call.startswith("/rest")]


def test_open_can_insist_on_rest() -> None:
    """`rest=True` is an error where REST is off, and the message says how to turn it on."""
    with FakeNode(rest=False) as node, pytest.raises(NodeError, match="rest=1"):
        open_source(node.url, rest=True)


def test_open_on_another_network(node: FakeNode) -> None:
    """A node on another network than the one asked for is refused, both named."""
    with pytest.raises(NodeError, match="on regtest, but signet was asked for"):
        open_source(node.url, network=network("signet"))
    source = open_source(node.url, network=REGTEST)
    assert source.network == REGTEST
    source.close()


@pytest.mark.parametrize(
    ("info", "genesis", "words"),
    [
        ({"chain": "regtest"}, A, f"{REGTEST.genesis_hash}.*{A}"),
        ({"chain": "litecoin"}, A, "litecoin"),
        ({"chain": ["regtest"]}, A, "no node does"),
        ({}, A, "no node does"),
        ([], A, "no node does"),
    ],
)
def test_open_refuses_what_is_no_network_of_ours(
    scripted: Scripted, info: object, genesis: str, words: str
) -> None:
    """Another genesis block, an unknown network and an answer without one are refused with what was said."""
    scripted.will(result(info), result(genesis))
    with pytest.raises(NodeError, match=words):
        open_source(f"http://u:p@{scripted.address}")


def test_open_closes_what_it_opened(scripted: Scripted) -> None:
    """A probe that fails leaves no connection behind (an open one is a warning, and so an error here)."""
    scripted.will(result({"chain": "regtest"}), result(REGTEST.genesis_hash), Reply(200, b"{}"))
    scripted.always = lambda _: Reply(503, b"Work queue depth exceeded")
    with pytest.raises(NodeUnavailable):
        open_source(f"http://u:p@{scripted.address}")


def test_open_a_syncing_node(node: FakeNode) -> None:
    """A node in its initial download is as good as another: what it has can be processed."""
    node.syncing = True
    source = open_source(node.url)
    assert source.tip() == Tip(150, node.tip)
    source.close()


def test_open_reads_the_named_cookie(node: FakeNode, tmp_path: Path) -> None:
    """The cookie file logs in where the URL has no password."""
    (tmp_path / "cookie").write_text("user:password")
    source = open_source(node.url.replace("user:password@", ""), tmp_path / "cookie")
    assert source.tip().block_id == 150
    source.close()


# Faults of a node that is otherwise well


@pytest.mark.parametrize("rest", [True, False])
@pytest.mark.parametrize("kind", ["refuse", "cut", "busy", "warming_up"])
def test_passing_faults_are_got_over(node: FakeNode, kind: str, rest: bool) -> None:
    """Two of a kind in the middle of the work change nothing of what comes out."""
    source = open_source(node.url, rest=rest)
    expected = scan_tip(source, node)
    node.fail(kind, 2)
    assert scan_tip(source, node) == expected
    node.fail(kind, None)
    with pytest.raises(NodeUnavailable):
        source.raw_block(node.tip)
    node.heal()
    assert scan_tip(source, node) == expected
    source.close()


@pytest.mark.parametrize("rest", [True, False])
@pytest.mark.parametrize("kind", ["garbage", "wrong_block"])
def test_bytes_of_another_block_are_refused(node: FakeNode, kind: str, rest: bool) -> None:
    """What is not the block that was asked for is never given out."""
    source = open_source(node.url, rest=rest)
    node.fail(kind, on="block")
    with pytest.raises(NodeError) as caught:
        source.raw_block(node.tip)
    assert not isinstance(caught.value, NodeUnavailable)
    source.close()


@pytest.mark.parametrize("kind", ["garbage", "truncate"])
def test_spent_outputs_cut_short_are_refused(node: FakeNode, kind: str) -> None:
    """Half of an answer gives no outputs, and the message names the block."""
    source = open_source(node.url)
    node.fail(kind, on="spenttxouts")
    with pytest.raises(MalformedBlock, match=node.tip):
        source.spent_outputs(node.tip, {3: A})
    source.close()


def test_idle_connections_may_be_dropped(node: FakeNode) -> None:
    """A node closes what is idle for 30 seconds: the next question does not notice."""
    for rest in (True, False):
        source = open_source(node.url, rest=rest)
        expected = scan_tip(source, node)
        node.drop_connections()
        assert scan_tip(source, node) == expected
        source.close()


@pytest.mark.parametrize("spent_outputs", [True, False])
@pytest.mark.parametrize("rest", [True, False])
def test_pruned_block(node: FakeNode, rest: bool, spent_outputs: bool) -> None:
    """A pruned block, and what it spends, is missing; the message says what kind of node is needed."""
    source = open_source(node.url, rest=rest)
    assert isinstance(source, NodeSource)
    source._spent_by_rest = source._spent_by_rest and spent_outputs
    pruned = source.block_hash(149)
    node.prune(150)
    with pytest.raises(MissingData, match=r"whole chain"):
        source.raw_block(pruned)
    with pytest.raises(MissingData, match=r"whole chain"):
        source.spent_outputs(pruned, {0: A})
    source.close()


def test_rest_that_was_turned_off_meanwhile(node: FakeNode) -> None:
    """A node that comes back without REST is no node that lacks the block."""
    source = open_source(node.url)
    node._service.rest = False
    with pytest.raises(NodeError, match="anew") as caught:
        source.raw_block(node.tip)
    assert not isinstance(caught.value, MissingData)
    source.close()


# Headers over JSON-RPC, which takes many calls for what REST reads at once


def test_headers_come_in_pages(node: FakeNode) -> None:
    """So many headers are asked for at a time that the first blocks need not wait for all of them."""
    source = open_source(node.url, rest=False)
    page = source.headers_after(0, REGTEST.genesis_hash)
    assert page is not None
    assert [block.block_id for block in page] == list(range(1, HEADER_PAGE + 1))
    following = source.headers_after(page[-1].block_id, page[-1].hash)
    assert following is not None
    assert [block.block_id for block in following] == list(range(HEADER_PAGE + 1, 151))
    source.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda node: node.reorg(3, 4),
        lambda node: node.fall_behind(2),
        lambda node: node.reorg(8, 9),
    ],
    ids=["reorg above", "tip sinks", "reorg below"],
)
def test_headers_are_read_again_when_the_tip_moves(
    node: FakeNode, change: Callable[[FakeNode], object]
) -> None:
    """A chain that changes between two calls gives the headers of the new one, and no mixture."""
    source = open_source(node.url, rest=False)
    assert isinstance(source, NodeSource)
    start = node.chain.tree.chain[145].block
    call, heights = source._rpc.call, []

    def call_and_change(method: str, *parameters: object) -> Any:  # noqa: ANN401 - JSON
        if method == "getblockhash":
            heights.append(parameters[0])
            if len(heights) == 4:
                change(node)
        return call(method, *parameters)

    source._rpc.call = call_and_change  # type: ignore[method-assign]
    headers = source.headers_after(145, start.hash)
    chain = [stored.block for stored in node.chain.tree.chain]
    assert headers == (chain[146:] if start in chain else None)
    assert len(heights) > 4
    source.close()


def test_headers_of_a_chain_that_never_rests() -> None:
    """Where each look meets another chain the node is unavailable; nothing of it is given out."""
    stub = Stub(
        getblockheader=lambda _, verbose=True: {"confirmations": 9} if verbose else bytes(80).hex(),
        getblockhash=MissingData("above the tip"),
    )
    with pytest.raises(NodeUnavailable, match="faster"):
        stub.source().headers_after(0, read_header(0, bytes(80)).hash)


def test_header_of_another_block() -> None:
    """A header whose hash is not the one that was asked for is an error."""
    stub = Stub(getblockheader=lambda _, verbose=True: {"confirmations": 1} if verbose else "00" * 80)
    with pytest.raises(NodeError, match=A):
        stub.source().headers_after(0, A)


@pytest.mark.parametrize("answer", [b"\0" * 80, b"\0" * 81, b"\0" * 40])
def test_rest_headers_of_another_block(scripted: Scripted, answer: bytes) -> None:
    """Headers that do not start with the block asked for, or are cut, are an error."""
    scripted.will(result({"chain": "regtest"}), result(REGTEST.genesis_hash))
    scripted.always = lambda _: Reply(200, answer)
    source = open_source(f"http://u:p@{scripted.address}")
    with pytest.raises(NodeError):
        source.headers_after(0, A)
    source.close()


# Whether our branch is invalid


def parents(chain: Mapping[str, str]) -> Callable[..., object]:
    """Answer getblockheader with the parents of some blocks."""
    return lambda block_hash: {"previousblockhash": chain[block_hash]}


TIPS = [
    {"height": 9, "hash": "active", "branchlen": 0, "status": "active"},
    {"height": 8, "hash": "fork", "branchlen": 2, "status": "valid-fork"},
    {"height": 12, "hash": C, "branchlen": 5, "status": "invalid"},
]


@pytest.mark.parametrize(
    ("block_id", "block_hash", "expected"),
    [
        (12, C, True),
        (11, B, True),
        (10, A, True),
        (10, B, False),
        (12, A, False),
        (7, A, False),
        (13, C, False),
    ],
)
def test_is_invalid(block_id: int, block_hash: str, expected: bool) -> None:
    """Invalid is the tip of such a branch and what is below it, down to the fork and no further."""
    stub = Stub(getchaintips=TIPS, getblockheader=parents({C: B, B: A}))
    assert stub.source().is_invalid(block_id, block_hash) is expected


def test_is_invalid_where_the_node_cannot_say() -> None:
    """Without getchaintips no branch is called invalid."""
    assert Stub().source().is_invalid(10, A) is False


def test_is_invalid_of_a_fake_branch(node: FakeNode) -> None:
    """After invalidateblock the blocks above it are on an invalid branch, and those below are not."""
    source = open_source(node.url)
    chain = [stored.block.hash for stored in node.chain.tree.chain]
    assert not source.is_invalid(150, chain[150])
    node.invalidate(148)
    assert [source.is_invalid(height, chain[height]) for height in (147, 148, 149, 150)] == [
        False,
        True,
        True,
        True,
    ]
    source.close()


# Prevouts over JSON-RPC


def transaction(txid: str, *values: str | None) -> dict[str, Any]:
    """Make a transaction as the node prints it; None is an input without its prevout."""
    return {
        "txid": txid,
        "vin": [
            {} if value is None else {"prevout": {"value": Decimal(value), "scriptPubKey": {"hex": "51"}}}
            for value in values
        ],
    }


def test_spent_outputs_of_a_node_before_core_25() -> None:
    """Where single transactions come without prevouts the block has them, and is asked first from then on."""
    stub = Stub(
        getrawtransaction=transaction(A, None),
        getblock={"tx": [transaction(B, None), transaction(A, "0.00000007")]},
    )
    source = stub.source()
    for _ in range(2):
        assert source.spent_outputs(C, {1: A}) == {1: (SpentOutput(7, b"\x51"),)}
    assert [call[0] for call in stub.calls] == ["getrawtransaction", "getblock", "getblock"]
    assert stub.calls[1] == ("getblock", C, 3)


def test_spent_outputs_of_a_node_without_getrawtransaction() -> None:
    """A method that the node does not offer is done without."""
    stub = Stub(getblock={"tx": [transaction(B), transaction(A, "1")]})
    assert stub.source().spent_outputs(C, {1: A}) == {1: (SpentOutput(100_000_000, b"\x51"),)}


def test_spent_outputs_without_undo_data() -> None:
    """What neither way tells is missing; a later block is again asked for one by one."""
    stub = Stub(getrawtransaction=transaction(A, "1", None), getblock={"tx": [{}, transaction(A, "1", None)]})
    source = stub.source()
    for _ in range(2):
        with pytest.raises(MissingData, match="whole chain"):
            source.spent_outputs(C, {1: A})
    assert [call[0] for call in stub.calls] == ["getrawtransaction", "getblock"] * 2


@pytest.mark.parametrize(
    "answer",
    [
        transaction(B, "1"),
        {"txid": A, "vin": [{"prevout": {"value": 0.1, "scriptPubKey": {"hex": "51"}}}]},
        {"txid": A, "vin": [{"prevout": {"value": Decimal(1), "scriptPubKey": {"hex": "5"}}}]},
        {"txid": A, "vin": [{"prevout": {"value": Decimal(1)}}]},
        {"txid": A},
        [],
        None,
    ],
)
def test_spent_outputs_of_a_strange_answer(answer: object) -> None:
    """Another transaction, an inexact amount or a form that no node gives is an error, either way."""
    for stub in (Stub(getrawtransaction=answer), Stub(getblock={"tx": [{}, answer]})):
        with pytest.raises(NodeError, match="no node does"):
            stub.source().spent_outputs(C, {1: A})


def test_spent_outputs_of_nothing() -> None:
    """Without candidates nothing is asked."""
    stub = Stub()
    assert stub.source().spent_outputs(C, {}) == {}
    assert stub.calls == []


# Small answers


@pytest.mark.parametrize(
    "info", [{}, [], None, {"blocks": "7", "bestblockhash": A}, {"blocks": 7, "bestblockhash": "aa"}]
)
def test_tip_of_a_strange_answer(info: object) -> None:
    """A tip that is not one is an error."""
    with pytest.raises(NodeError, match="getblockchaininfo"):
        Stub(getblockchaininfo=info).source().tip()


@pytest.mark.parametrize("answer", [None, 7, "zz" * 32, "", "aa" * 31])
def test_block_hash_of_a_strange_answer(answer: object) -> None:
    """A hash that is not one is an error."""
    with pytest.raises(NodeError, match="getblockhash"):
        Stub(getblockhash=answer).source().block_hash(7)


@pytest.mark.parametrize("answer", [None, "zz", {"tx": []}])
def test_raw_block_of_a_strange_answer(answer: object) -> None:
    """A block that is no hex is an error."""
    with pytest.raises(NodeError, match="getblock"):
        Stub(getblock=answer).source().raw_block(A)


def test_getchaintips_forbidden_by_a_whitelist(scripted: Scripted) -> None:
    """A node whose whitelist forbids what is not needed is worked with all the same."""

    def reply(request: Request) -> Reply:
        match request.body and request.body["method"]:
            case "getblockchaininfo":
                return result({"chain": "regtest", "blocks": 0, "bestblockhash": REGTEST.genesis_hash})
            case "getblockhash":
                return result(REGTEST.genesis_hash)
            case None:
                return Reply(404)
        return Reply(403) if request.body["method"] == "getchaintips" else error(-32601)

    scripted.always = reply
    source = open_source(f"http://u:p@{scripted.address}")
    assert source.tip() == Tip(0, REGTEST.genesis_hash)
    assert source.is_invalid(0, A) is False
    source.close()


# Waiting


def test_wait_sleeps() -> None:
    """Without a word the wait takes its time."""
    started = time.monotonic()
    Stub().source().wait(0.05)
    assert time.monotonic() - started >= 0.05


def test_wake_from_another_thread() -> None:
    """A wait is ended from elsewhere."""
    source = Stub().source()
    threading.Timer(0.02, source.wake).start()
    started = time.monotonic()
    source.wait(10)
    assert time.monotonic() - started < 5


def test_wake_from_a_signal_handler() -> None:
    """A handler that runs in the middle of the wait, in its own thread, ends it."""
    source = Stub().source()
    before = signal.signal(signal.SIGALRM, lambda *_: source.wake())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        started = time.monotonic()
        source.wait(10)
        assert time.monotonic() - started < 5
    finally:
        signal.signal(signal.SIGALRM, before)


def test_wake_before_wait() -> None:
    """A wake that comes too early counts for the next wait, and many count as one."""
    source = Stub().source()
    source.wake()
    source.wake()
    started = time.monotonic()
    source.wait(10)
    assert time.monotonic() - started < 5
    source.wait(0.05)
    assert time.monotonic() - started >= 0.05


def test_close_ends_a_wait() -> None:
    """Who waits on a source that is closed does not wait for long."""
    source = Stub().source()
    source.close()
    started = time.monotonic()
    source.wait(10)
    assert time.monotonic() - started < 5

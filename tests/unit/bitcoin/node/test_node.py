"""The node source: what is probed when it opens, and how it reads answers that change or are malformed."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.shared_data import shared
from tests.unit.bitcoin.node.fakes import (
    REGTEST,
    A,
    B,
    C,
    Reply,
    Request,
    ScriptedServer,
    StubRpc,
    error,
    only_in_block,
    result,
    scan_tip,
    transaction,
)
from virtualchain.bitcoin.header import headers_from, read_header
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.node.node import FEW_TRANSACTIONS, HEADER_PAGE, NodeSource, open_source
from virtualchain.bitcoin.source import Tip
from virtualchain.errors import MissingData, NodeError, NodeUnavailable
from virtualchain.model import SpentOutput
from virtualchain.testing import FakeNode

ALWAYS_THERE = {"getblockchaininfo", "getblockhash", "getblockheader", "getblock"}


# Opening


@pytest.mark.parametrize("spent_outputs", [True, False])
def test_open_needs_only_four_methods(spent_outputs: bool) -> None:
    """Without REST the source uses only the four methods that every node has, and probes REST once."""
    with FakeNode(rest=False, spent_outputs=spent_outputs) as node:
        source = open_source(node.url)
        assert source.network == REGTEST
        source.tip()
        source.headers_after(0, REGTEST.genesis_hash)
        source.raw_block(source.block_hash(5))
        source.close()
        assert {call for call in node.calls if not call.startswith("/rest")} <= ALWAYS_THERE
        assert {call for call in node.calls if call.startswith("/rest")} == {"/rest/chaininfo.json"}


def test_open_uses_rest_if_it_is_on(node: FakeNode) -> None:
    """With REST, blocks, headers and spent outputs come from there, and none of them as JSON."""
    source = open_source(node.url)
    node.calls.clear()
    scan_tip(source, node)
    source.close()
    assert dict(node.calls) == {"/rest/headers": 1, "/rest/block": 1, "/rest/spenttxouts": 1}


def test_open_without_spenttxouts_requests_each_transaction() -> None:
    """An older node is asked for a few transactions, and for the whole block if they are many."""
    with FakeNode(premine=149, spent_outputs=False) as node:
        node.mine([node.send(b"id?%d" % number) for number in range(FEW_TRANSACTIONS)])
        source = open_source(node.url)
        node.calls.clear()
        assert len(scan_tip(source, node)) == FEW_TRANSACTIONS
        assert node.calls["getrawtransaction"] == 2 * FEW_TRANSACTIONS  # once in vain, without the block
        assert node.calls["getblock"] == 0
        node.mine([node.send(b"id?%d" % number) for number in range(FEW_TRANSACTIONS + 1)])
        node.calls.clear()
        assert len(scan_tip(source, node)) == FEW_TRANSACTIONS + 1
        assert node.calls["getrawtransaction"] == 0
        assert node.calls["getblock"] == 1
        source.close()


def test_open_can_be_kept_from_rest(node: FakeNode) -> None:
    """`rest=False` uses JSON-RPC only, and does not even probe REST."""
    source = open_source(node.url, rest=False)
    scan_tip(source, node)
    source.close()
    assert not [call for call in node.calls if call.startswith("/rest")]


def test_open_can_insist_on_rest() -> None:
    """`rest=True` is an error if REST is off, and the message says how to turn it on."""
    with FakeNode(rest=False) as node, pytest.raises(NodeError, match="rest=1"):
        open_source(node.url, rest=True)


def test_open_on_another_network(node: FakeNode) -> None:
    """A node on another network than the one asked for is rejected with the names of both."""
    with pytest.raises(NodeError, match="on regtest, but signet was asked for"):
        open_source(node.url, network=network("signet"))
    source = open_source(node.url, network=REGTEST)
    assert source.network == REGTEST
    source.close()


@pytest.mark.parametrize(
    ("info", "genesis", "message"),
    [
        ({"chain": "regtest"}, A, f"{REGTEST.genesis_hash}.*{A}"),
        ({"chain": "litecoin"}, A, "litecoin"),
        ({"chain": ["regtest"]}, A, "no Bitcoin node does"),
        ({}, A, "no Bitcoin node does"),
        ([], A, "no Bitcoin node does"),
    ],
)
def test_open_rejects_unknown_networks(
    scripted: ScriptedServer, info: object, genesis: str, message: str
) -> None:
    """Another genesis block, an unknown network and an answer without one are rejected with the answer."""
    scripted.plan(result(info), result(genesis))
    with pytest.raises(NodeError, match=message):
        open_source(f"http://u:p@{scripted.address}")


CHALLENGE = "512103b3b3721560a0d98a211a4bf38b910c4a0c97f435861e65e136c9993cd99fb34151ae"
SIGNET = network("signet")


def answer_signet(info: object, second: str = A) -> Callable[[Request], Reply]:
    """Answer as a node on a signet without REST, whose block 1 has this hash."""

    def reply(request: Request) -> Reply:
        if request.body is None:
            return Reply(404)
        hashes = {(0,): SIGNET.genesis_hash, (1,): second}
        if request.body["method"] == "getblockhash":
            return result(hashes[tuple(request.body["params"])])
        return result(info)

    return reply


def test_custom_signets_are_told_apart_by_their_challenge(scripted: ScriptedServer) -> None:
    """All signets have the same genesis block; only the public one is called signet."""
    url = f"http://u:p@{scripted.address}"
    scripted.always = answer_signet({"chain": "signet", "blocks": 9, "signet_challenge": CHALLENGE})
    source = open_source(url)
    assert (source.network.name, source.network.message_start.hex()) == ("signet-8de45da0", "8de45da0")
    source.close()
    open_source(url, network=network("signet-8de45da0")).close()
    for name in ("signet", "signet-4605eff3", "regtest"):
        with pytest.raises(NodeError, match=f"on signet-8de45da0, but {name} was asked for"):
            open_source(url, network=network(name))
    for challenge in ("zz", 5, "5", None):
        scripted.always = answer_signet({"chain": "signet", "blocks": 9, "signet_challenge": challenge})
        with pytest.raises(NodeError, match=r"no Bitcoin node does|custom signet"):
            open_source(url)


def test_a_node_that_does_not_state_its_challenge(scripted: ScriptedServer) -> None:
    """Its block 1 shows whether it is on the public signet."""
    url = f"http://u:p@{scripted.address}"
    second = headers_from(0, shared("headers/signet_0_2015.bin").read_bytes()[:160])[1].hash
    for blocks, hash_ in ((9, second), (0, A)):
        scripted.always = answer_signet({"chain": "signet", "blocks": blocks}, hash_)
        source = open_source(url)
        assert source.network == SIGNET
        source.close()
    scripted.always = answer_signet({"chain": "signet", "blocks": 9}, A)
    with pytest.raises(NodeError, match="on a custom signet and does not state which"):
        open_source(url)


def test_open_closes_what_it_opened(scripted: ScriptedServer) -> None:
    """A probe that fails leaves no connection open (an open one is a warning, and so an error here)."""
    scripted.plan(result({"chain": "regtest"}), result(REGTEST.genesis_hash), Reply(200, b"{}"))
    scripted.always = lambda _: Reply(503, b"Work queue depth exceeded")
    with pytest.raises(NodeUnavailable):
        open_source(f"http://u:p@{scripted.address}")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"<html>welcome</html>" * 10_000),
        Reply(200, b"welcome"),
        Reply(200, b'{"error": "no such method"}'),
        Reply(405, b"POST only"),
    ],
    ids=["long", "short", "JSON", "refused"],
)
def test_open_what_answers_anything(scripted: ScriptedServer, reply: Reply) -> None:
    """What is in front of a node may answer any path: that does not make it REST."""
    scripted.plan(result({"chain": "regtest"}), result(REGTEST.genesis_hash), reply)
    source = open_source(f"http://u:p@{scripted.address}")
    assert isinstance(source, NodeSource)
    assert not source.over_rest
    source.close()


def test_open_a_syncing_node(node: FakeNode) -> None:
    """A node in its initial block download is accepted: the blocks that it has can be processed."""
    node.syncing = True
    source = open_source(node.url)
    assert source.tip() == Tip(150, node.tip)
    source.close()


def test_open_reads_the_named_cookie(node: FakeNode, tmp_path: Path) -> None:
    """The cookie file is the login if the URL has no password."""
    (tmp_path / "cookie").write_text("user:password")
    source = open_source(node.url.replace("user:password@", ""), tmp_path / "cookie")
    assert source.tip().block_id == 150
    source.close()


# Headers over JSON-RPC, which needs many calls for what REST reads at once


def test_headers_come_in_pages(node: FakeNode) -> None:
    """Headers are requested in pages, so that the first blocks need not wait for all of them."""
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
    ids=["reorg above", "tip falls", "reorg below"],
)
def test_headers_are_read_again_when_the_tip_moves(
    node: FakeNode, change: Callable[[FakeNode], object]
) -> None:
    """If the chain changes between two calls, the headers are those of the new chain and not a mixture."""
    source = open_source(node.url, rest=False)
    assert isinstance(source, NodeSource)
    start = node.chain.tree.chain[145].block
    call, heights = source._rpc.call, []

    def call_and_change(method: str, *parameters: object) -> Any:
        if method == "getblockhash":
            heights.append(parameters[0])
            if len(heights) == 4:
                change(node)
        return call(method, *parameters)

    source._rpc.call = call_and_change  # type: ignore[method-assign]
    source._rpc.call_each = lambda method, questions: (  # type: ignore[method-assign]
        call_and_change(method, *parameters) for parameters in questions
    )
    headers = source.headers_after(145, start.hash)
    chain = [stored.block for stored in node.chain.tree.chain]
    assert headers == (chain[146:] if start in chain else None)
    assert len(heights) >= 4
    source.close()


def test_headers_of_a_chain_that_keeps_changing() -> None:
    """If each attempt sees another chain, the node is unavailable and no headers are returned."""
    stub = StubRpc(
        getblockheader=lambda _, verbose=True: (
            {"confirmations": 9, "nextblockhash": A} if verbose else "00" * 80
        ),
        getblockhash=MissingData("above the tip"),
    )
    with pytest.raises(NodeUnavailable, match="faster"):
        stub.source().headers_after(0, read_header(0, bytes(80)).hash)


def test_header_of_another_block() -> None:
    """A header whose hash is not the requested one is an error."""
    stub = StubRpc(
        getblockheader=lambda _, verbose=True: (
            {"confirmations": 2, "nextblockhash": A} if verbose else "00" * 80
        )
    )
    with pytest.raises(NodeError, match=A):
        stub.source().headers_after(0, B)


@pytest.mark.parametrize("answer", [b"\0" * 80, b"\0" * 81, b"\0" * 40])
def test_rest_headers_of_another_block(scripted: ScriptedServer, answer: bytes) -> None:
    """Headers that do not start with the requested block, or are truncated, are an error."""
    scripted.plan(result({"chain": "regtest"}), result(REGTEST.genesis_hash))
    scripted.always = lambda _: Reply(200, answer)
    source = open_source(f"http://u:p@{scripted.address}")
    with pytest.raises(NodeError):
        source.headers_after(0, A)
    source.close()


# Invalid branches


def parents(chain: Mapping[str, str]) -> Callable[..., object]:
    """Make a getblockheader that knows the parents of some blocks."""
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
    """The tip of an invalid branch is invalid, and all blocks below it down to the fork."""
    stub = StubRpc(getchaintips=TIPS, getblockheader=parents({C: B, B: A}))
    assert stub.source().is_invalid(block_id, block_hash) is expected


def test_many_invalid_branches_have_an_end() -> None:
    """Whoever lists a hundred thousand of them keeps nobody busy for days; a near one is found."""
    far = {"hash": C, "height": 4010, "branchlen": 4500, "status": "invalid"}
    near = {"hash": B, "height": 11, "branchlen": 2, "status": "invalid"}

    def parent(block_hash: str) -> dict[str, str]:
        return {"previousblockhash": A if block_hash == B else C}

    stub = StubRpc(getchaintips=[far] * 100_000, getblockheader=parent)
    assert stub.source().is_invalid(10, A) is False
    assert len(stub.calls) == 1 + 4000
    stub = StubRpc(getchaintips=[*[far] * 1000, near], getblockheader=parent)
    assert stub.source().is_invalid(10, A) is True
    assert len(stub.calls) == 2


def test_is_invalid_if_the_node_cannot_say() -> None:
    """Without getchaintips, no branch is called invalid."""
    assert StubRpc().source().is_invalid(10, A) is False


def test_is_invalid_after_invalidateblock(node: FakeNode) -> None:
    """The invalidated block and those above it are on an invalid branch, and those below are not."""
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


def test_spent_outputs_of_a_node_before_core_25() -> None:
    """If single transactions have no prevouts, the block has them and is requested first from then on."""
    stub = StubRpc(
        getrawtransaction=only_in_block(transaction(A, None)),
        getblock={"tx": [transaction(B, None), transaction(A, "0.00000007")]},
    )
    source = stub.source()
    for _ in range(2):
        assert source.spent_outputs(C, {1: A}) == {1: (SpentOutput(7, b"\x51"),)}
    assert stub.calls == [
        ("getrawtransaction", A, 0),
        ("getrawtransaction", A, 2, C),
        ("getblock", C, 3),
        ("getblock", C, 3),
    ]


def test_spent_outputs_of_a_node_without_getrawtransaction() -> None:
    """A method that the node does not offer is not needed."""
    stub = StubRpc(getblock={"tx": [transaction(B), transaction(A, "1")]})
    assert stub.source().spent_outputs(C, {1: A}) == {1: (SpentOutput(100_000_000, b"\x51"),)}


def test_spent_outputs_without_undo_data() -> None:
    """Outputs that neither call returns are missing; of a later block, transactions are again requested."""
    stub = StubRpc(
        getrawtransaction=only_in_block(transaction(A, "1", None)),
        getblock={"tx": [{}, transaction(A, "1", None)]},
    )
    source = stub.source()
    for _ in range(2):
        with pytest.raises(MissingData, match="whole chain"):
            source.spent_outputs(C, {1: A})
    assert [call[0] for call in stub.calls[1:]] == ["getrawtransaction", "getblock"] * 2


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
def test_spent_outputs_of_a_malformed_answer(answer: object) -> None:
    """Another transaction, an inexact amount or a malformed answer is an error from either call."""
    for stub in (StubRpc(getrawtransaction=only_in_block(answer)), StubRpc(getblock={"tx": [{}, answer]})):
        with pytest.raises(NodeError, match="no Bitcoin node does"):
            stub.source().spent_outputs(C, {1: A})


@pytest.mark.parametrize("rest", [True, False])
def test_spent_outputs_of_nothing(node: FakeNode, rest: bool) -> None:
    """Without candidates, nothing is requested."""
    source = open_source(node.url, rest=rest)
    node.calls.clear()
    assert source.spent_outputs(node.tip, {}) == {}
    assert not node.calls
    source.close()


# Small answers


@pytest.mark.parametrize(
    "info",
    [
        {},
        [],
        None,
        {"blocks": "7", "bestblockhash": A},
        {"blocks": True, "bestblockhash": A},
        {"blocks": -5, "bestblockhash": A},
        {"blocks": 10**30, "bestblockhash": A},
        {"blocks": 2**31, "bestblockhash": A},
        {"blocks": 7.0, "bestblockhash": A},
        {"blocks": 7, "bestblockhash": "aa"},
        {"blocks": 7, "bestblockhash": A.upper()},
        {"blocks": 7, "bestblockhash": "aa " * 32},
    ],
)
def test_tip_of_a_malformed_answer(info: object) -> None:
    """A malformed tip is an error."""
    with pytest.raises(NodeError, match="getblockchaininfo"):
        StubRpc(getblockchaininfo=info).source().tip()


@pytest.mark.parametrize("lowest", [-5, 10**30, True, "7", 7.0])
def test_pruned_below_of_a_malformed_answer(lowest: object) -> None:
    """A malformed height is an error."""
    with pytest.raises(NodeError, match="getblockchaininfo"):
        StubRpc(getblockchaininfo={"pruned": True, "pruneheight": lowest}).source().pruned_below()


@pytest.mark.parametrize("answer", [None, 7, "zz" * 32, "", "aa" * 31])
def test_block_hash_of_a_malformed_answer(answer: object) -> None:
    """A malformed hash is an error."""
    with pytest.raises(NodeError, match="getblockhash"):
        StubRpc(getblockhash=answer).source().block_hash(7)


@pytest.mark.parametrize("answer", [None, "zz", {"tx": []}])
def test_raw_block_of_a_malformed_answer(answer: object) -> None:
    """A block that is not hex is an error."""
    with pytest.raises(NodeError, match="getblock"):
        StubRpc(getblock=answer).source().raw_block(A)


def test_getchaintips_forbidden_by_a_whitelist(scripted: ScriptedServer) -> None:
    """A node whose whitelist forbids an optional method can still be used."""

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

"""What the node source makes of answers: chains that change while they are read, and strange forms."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest

from tests.unit.bitcoin.node.scripted import Reply, Request, Scripted, error, result
from tests.unit.bitcoin.node.stub import REGTEST, A, B, C, Stub
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.node.node import HEADER_PAGE, NodeSource, open_source
from virtualchain.bitcoin.source import Tip
from virtualchain.errors import MissingData, NodeError, NodeUnavailable
from virtualchain.model import SpentOutput
from virtualchain.testing import FakeNode

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

    def call_and_change(method: str, *parameters: object) -> Any:
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


@pytest.mark.parametrize("rest", [True, False])
def test_spent_outputs_of_nothing(node: FakeNode, rest: bool) -> None:
    """Without candidates nothing is asked."""
    source = open_source(node.url, rest=rest)
    node.calls.clear()
    assert source.spent_outputs(node.tip, {}) == {}
    assert not node.calls
    source.close()


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

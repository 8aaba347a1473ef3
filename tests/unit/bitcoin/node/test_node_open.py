"""Opening a node: what is probed, which ways are taken, and which nodes are refused."""

from pathlib import Path

import pytest

from tests.unit.bitcoin.node.scripted import Reply, Scripted, result
from tests.unit.bitcoin.node.stub import REGTEST, A, scan_tip
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.node.node import FEW_TRANSACTIONS, open_source
from virtualchain.bitcoin.source import Tip
from virtualchain.errors import NodeError, NodeUnavailable
from virtualchain.testing import FakeNode

ALWAYS_THERE = {"getblockchaininfo", "getblockhash", "getblockheader", "getblock"}


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

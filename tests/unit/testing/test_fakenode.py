"""The fake node's methods, and their effects as seen through its interfaces."""

import http.client
import sys
import threading
from time import perf_counter

import pytest
from bitcoinrpc.authproxy import AuthServiceProxy

from tests.support.node_client import NodeClient
from tests.support.shared_data import shared
from virtualchain.errors import UsageError
from virtualchain.testing import ChainBuilder, FakeNode


def test_a_node_starts_and_stops_fast() -> None:
    """It takes less than 0.3 seconds, as many tests start one, and leaves no thread running."""
    before = set(threading.enumerate())
    started = perf_counter()
    with FakeNode() as node, NodeClient(node.url) as client:
        assert client.result("getblockcount") == node.height == 101
    assert perf_counter() - started < 0.3
    assert set(threading.enumerate()) <= before


def test_the_url_holds_user_and_password() -> None:
    """They are quoted, and a client that unquotes them can log in."""
    with FakeNode(user="me@home", password="p:w/d") as node:
        assert node.url.startswith("http://me%40home:p%3Aw%2Fd@127.0.0.1:")
        with NodeClient(node.url) as client:
            assert client.result("getbestblockhash") == node.tip


def test_bitcoinrpc_talks_to_it(node: FakeNode) -> None:
    """This is the library with which the engine calls nodes."""
    proxy = AuthServiceProxy(node.url)
    assert proxy.getblockhash(101) == node.tip
    assert str(proxy.getblock(node.tip, 2)["tx"][0]["vout"][0]["value"]) == "50.00000000"
    proxy._AuthServiceProxy__conn.close()


def test_mined_blocks_are_served_over_both_interfaces(node: FakeNode, client: NodeClient) -> None:
    """Both serve the same bytes, with the transaction in the first block."""
    tx = node.send(b"hello", to=[("bob", 10_000)])
    first, second = node.mine([tx], n=2)
    assert node.tip == second
    raw = client.get(f"block/{first}.bin").body
    assert tx.raw in raw
    assert client.result("getblock", first, 0) == raw.hex()
    assert client.result("getblockhash", 102) == first
    served = client.result("getblock", first, 3)["tx"][-1]
    assert served["txid"] == tx.txid
    assert served["fee"] == 0.00001
    assert served["vin"][0]["prevout"]["height"] == 102


def test_a_reorg_moves_blocks_off_the_chain(node: FakeNode, client: NodeClient) -> None:
    """They stay known with confirmations -1, and getchaintips reports the fork."""
    old = node.mine(n=3)
    new = node.reorg(2)
    assert client.result("getblockheader", old[2])["confirmations"] == -1
    assert client.result("getblockheader", old[0])["nextblockhash"] == new[0]
    assert client.get(f"headers/2000/{old[2]}.bin").body == b""
    assert len(client.get(f"headers/2000/{old[0]}.bin").body) == 80 * 4
    assert client.result("getchaintips") == [
        {"height": 105, "hash": new[-1], "branchlen": 0, "status": "active"},
        {"height": 104, "hash": old[-1], "branchlen": 2, "status": "valid-fork"},
    ]


def test_a_node_that_fell_behind_knows_nothing_of_what_came_later(node: FakeNode, client: NodeClient) -> None:
    """Neither blocks nor headers are there until it catches up."""
    hashes = node.mine(n=5)
    node.fall_behind(2)
    node.fall_behind(1)
    assert client.result("getbestblockhash") == hashes[1]
    assert client.call("getblockheader", hashes[2]).json()["error"]["code"] == -5
    assert client.result("getchaintips") == [
        {"height": 103, "hash": hashes[1], "branchlen": 0, "status": "active"}
    ]
    node.catch_up()
    assert client.result("getbestblockhash") == hashes[4]
    node.catch_up()
    assert node.height == 106


def test_mining_ends_the_lag(node: FakeNode) -> None:
    """New blocks follow the former tip, not the one to which the node fell back."""
    node.mine(n=3)
    node.fall_behind(3)
    assert node.height == 101
    node.mine()
    assert node.height == 105


def test_falling_behind_undoes_a_later_reorg(node: FakeNode, client: NodeClient) -> None:
    """A lagging node does not know about the fork either."""
    node.mine(n=2)
    node.reorg(1)
    node.fall_behind(2)
    assert node.height == 102
    assert len(client.result("getchaintips")) == 1
    node.reorg(1)
    assert node.height == 105


def test_an_invalid_branch_is_reported_as_such(node: FakeNode, client: NodeClient) -> None:
    """The chain ends below it, and mining continues there."""
    hashes = node.mine(n=3)
    node.invalidate(103)
    assert node.tip == hashes[0]
    assert client.result("getchaintips") == [
        {"height": 104, "hash": hashes[2], "branchlen": 2, "status": "invalid"},
        {"height": 102, "hash": hashes[0], "branchlen": 0, "status": "active"},
    ]
    assert client.result("getblockheader", hashes[2])["confirmations"] == -1
    node.mine()
    assert node.height == 103


def test_the_best_other_branch_takes_over_from_an_invalid_one(node: FakeNode) -> None:
    """The branch that a reorg left becomes active again; of equal ones, the first."""
    old = node.mine(n=2)
    node.reorg(2)
    node.invalidate(102)
    assert node.tip == old[1]
    node.reorg(2, 2)
    node.reorg(2, 2)
    node.invalidate(102)
    assert node.tip == old[1]


def test_a_pruned_node_has_headers_and_no_blocks(node: FakeNode, client: NodeClient) -> None:
    """Requests below the prune height fail as with bitcoind, others succeed."""
    node.prune(50)
    gone, there = (client.result("getblockhash", height) for height in (49, 50))
    assert client.call("getblock", gone, 0).json()["error"] == {
        "code": -1,
        "message": "Block not available (pruned data)",
    }
    assert client.get(f"block/{gone}.bin").body == f"{gone} not available (pruned data)\r\n".encode()
    assert client.get(f"spenttxouts/{gone}.bin").body == f"{gone} undo not available\r\n".encode()
    assert client.result("getblockheader", gone)["height"] == 49
    assert client.result("getblockchaininfo")["pruneheight"] == 50
    assert client.get(f"block/{there}.bin").status == 200


def test_impossible_heights_are_usage_errors(node: FakeNode) -> None:
    """They are outside of the chain."""
    for wrong in (0, 102):
        with pytest.raises(UsageError):
            node.fall_behind(wrong)
        with pytest.raises(UsageError):
            node.invalidate(wrong)
    with pytest.raises(UsageError):
        node.prune(102)
    with pytest.raises(UsageError):
        node.reorg(102)


def test_a_node_without_rest_or_without_spent_outputs(node: FakeNode) -> None:
    """Their missing paths look like unknown ones."""
    with FakeNode(rest=False) as bare, NodeClient(bare.url) as client:
        assert client.get("chaininfo.json").status == 404
        assert client.result("getblockcount") == 101
    with FakeNode(spent_outputs=False) as old, NodeClient(old.url) as client:
        assert client.get(f"block/{old.tip}.bin").status == 200
        reply = client.get(f"spenttxouts/{old.tip}.bin")
        assert (reply.status, reply.body) == (404, b"")


def test_a_node_can_report_that_it_is_syncing(node: FakeNode, client: NodeClient) -> None:
    """Initial block download is a flag of the node, independent of its blocks."""
    assert client.result("getblockchaininfo")["initialblockdownload"] is False
    node.syncing = True
    info = client.result("getblockchaininfo")
    assert info["initialblockdownload"] is True
    assert info["verificationprogress"] < 1
    assert node.syncing


def test_a_stopped_node_refuses_connections_until_it_starts(node: FakeNode, client: NodeClient) -> None:
    """It then serves the same chain on the same port."""
    url = node.url
    assert client.result("getblockcount") == 101
    node.stop()
    with pytest.raises(ConnectionError):
        client.call("getblockcount")
    with pytest.raises(ConnectionRefusedError):
        client.call("getblockcount")
    node.start()
    node.start()
    assert node.url == url
    assert client.result("getbestblockhash") == node.tip


def test_dropped_connections_can_be_opened_again(node: FakeNode, client: NodeClient) -> None:
    """A request on a dropped connection fails, and the next one succeeds."""
    assert client.result("getblockcount") == 101
    node.drop_connections()
    with pytest.raises((OSError, http.client.HTTPException)):
        client.call("getblockcount")
    assert client.result("getblockcount") == 101


def test_requests_are_counted(node: FakeNode, client: NodeClient) -> None:
    """They are counted by method and endpoint, so a test can check what a source requests."""
    client.call("getblockcount")
    client.get(f"block/{node.tip}.bin")
    client.get(f"block/{node.tip}.hex")
    client.post('[{"method":"uptime"},{"method":"getblockcount"}]')
    assert node.calls == {"getblockcount": 2, "/rest/block": 2, "uptime": 1}


def test_any_blocks_can_be_served() -> None:
    """Here they are mainnet's first 600 blocks."""
    file = shared("mainnet/blocks-0-599.dat").read_bytes()
    blocks, at = [], 0
    while at < len(file):
        length = int.from_bytes(file[at + 4 : at + 8], "little")
        blocks.append(file[at + 8 : at + 8 + length])
        at += 8 + length
    with FakeNode.from_blocks("mainnet", blocks, password="x") as node, NodeClient(node.url) as client:
        assert ":x@" in node.url
        info = client.result("getblockchaininfo")
        assert (info["chain"], info["blocks"], info["difficulty"]) == ("main", 599, 1.0)
        payment = client.result("getblock", client.result("getblockhash", 170), 3)["tx"][1]
        assert payment["txid"] == "f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16"
        assert payment["vin"][0]["prevout"]["value"] == 50
        assert payment["vin"][0]["prevout"]["scriptPubKey"]["type"] == "pubkey"


def test_an_existing_chain_can_be_served() -> None:
    """The node continues the chain of a builder."""
    chain = ChainBuilder(premine=3)
    with FakeNode(chain=chain) as node:
        assert node.tip == chain.tip
        node.mine()
        assert chain.height == 4


def test_clients_see_a_consistent_chain_while_it_changes(node: FakeNode) -> None:
    """No answer shows a reorg that is only half done."""
    seen: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        with NodeClient(node.url) as client:
            while not stop.is_set():
                seen.append(client.result("getblockcount"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        node.mine(n=20)
        for _ in range(20):
            node.reorg(20, 20)
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        for thread in threads:
            thread.join()
    assert seen
    assert set(seen) <= {101, 121}

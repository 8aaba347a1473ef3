"""Faults of the fake node: what a client sees, and for how long."""

import http.client
import json
import threading
from time import perf_counter

import pytest

from tests.support.node_client import NodeClient, Reply
from virtualchain.errors import UsageError
from virtualchain.testing import FakeNode
from virtualchain.testing.fakenode import FAULT_KINDS


def _ask(client: NodeClient, how: str) -> Reply:
    return client.call("getblockcount") if how == "rpc" else client.get("chaininfo.json")


@pytest.mark.parametrize("how", ["rpc", "rest"])
@pytest.mark.parametrize("kind", [kind for kind in FAULT_KINDS if kind not in {"unauthorized", "hang"}])
def test_a_fault_lasts_for_one_request(node: FakeNode, client: NodeClient, kind: str, how: str) -> None:
    """The next request is answered, whatever the fault; faults of blocks wait for a block."""
    node.fail(kind, seconds=0.01)
    try:
        _ask(client, how)
    except (OSError, http.client.HTTPException):
        assert kind in {"refuse", "cut"}
    assert _ask(client, how).status == 200


def test_faults_take_effect_in_their_order(node: FakeNode, client: NodeClient) -> None:
    """Here two of one kind are followed by one of another, then by none."""
    node.fail("busy", times=2)
    node.fail("garbage")
    replies = [client.call("getblockcount") for _ in range(4)]
    assert [reply.status for reply in replies] == [503, 503, 200, 200]
    with pytest.raises(json.JSONDecodeError):
        json.loads(replies[2].body.decode(errors="replace"))
    assert replies[3].json()["result"] == 101


def test_a_fault_without_an_end_lasts_until_it_is_healed(node: FakeNode, client: NodeClient) -> None:
    """A fault after it never takes effect."""
    node.fail("busy", times=None)
    node.fail("garbage")
    assert [client.call("uptime").status for _ in range(5)] == [503] * 5
    node.heal()
    assert client.result("getblockcount") == 101


def test_a_fault_can_be_limited_to_certain_requests(node: FakeNode, client: NodeClient) -> None:
    """They are selected by a part of the method's name or of the path."""
    node.fail("busy", on="spenttxouts")
    node.fail("busy", on="getblockhash")
    assert client.call("getblockcount").status == 200
    assert client.get(f"block/{node.tip}.bin").status == 200
    assert client.get(f"spenttxouts/{node.tip}.bin").status == 503
    assert client.call("getblockhash", 1).status == 503
    assert client.call("getblockhash", 1).status == 200


def test_a_refused_request_gets_no_answer(node: FakeNode, client: NodeClient) -> None:
    """The connection is closed."""
    node.fail("refuse")
    with pytest.raises(http.client.RemoteDisconnected):
        client.call("getblockcount")


def test_a_busy_node_answers_like_bitcoind_with_a_full_queue(node: FakeNode, client: NodeClient) -> None:
    """JSON-RPC and REST answer 503 with bitcoind's text."""
    node.fail("busy", times=2)
    for reply in (client.call("uptime"), client.get("chaininfo.json")):
        assert reply.status == 503
        assert reply.body == b"Work queue depth exceeded"
        assert ("Content-Type", "text/html; charset=ISO-8859-1") in reply.headers


def test_a_node_that_is_starting_answers_like_bitcoind(node: FakeNode, client: NodeClient) -> None:
    """JSON-RPC answers error -28 with status 500, REST answers 503."""
    node.fail("warming_up", times=2)
    reply = client.call("getblockcount")
    assert reply.status == 500
    assert reply.json() == {
        "result": None,
        "error": {"code": -28, "message": "Loading block index…"},
        "id": 1,
    }
    reply = client.get("chaininfo.json")
    assert (reply.status, reply.body.decode()) == (
        503,
        "Service temporarily unavailable: Loading block index…\r\n",
    )


def test_a_password_can_stop_working(node: FakeNode, client: NodeClient) -> None:
    """JSON-RPC answers 401; REST requires no password, so it still works."""
    node.fail("unauthorized")
    assert client.get("chaininfo.json").status == 200
    reply = client.call("getblockcount")
    assert (reply.status, reply.body) == (401, b"")
    assert ("WWW-Authenticate", 'Basic realm="jsonrpc"') in reply.headers
    assert client.call("getblockcount").status == 200


def test_half_a_block_is_a_complete_http_answer(node: FakeNode, client: NodeClient) -> None:
    """This holds for REST, hex and JSON-RPC, and other requests do not use up the fault."""
    raw = client.get(f"block/{node.tip}.bin").body
    node.fail("truncate", times=5)
    assert client.result("getblockcount") == 101
    assert client.get(f"block/{node.tip}.bin").body == raw[: len(raw) // 4 * 2]
    half = client.get(f"block/{node.tip}.hex").body.decode()
    assert raw.hex().startswith(half)
    assert 0 < len(half) < len(raw) + 2
    half = client.result("getblock", node.tip, 0)
    assert raw.hex().startswith(half)
    assert 0 < len(half) < len(raw) + 2
    with pytest.raises(json.JSONDecodeError):
        client.call("getblock", node.tip, 2).json()
    assert client.get(f"spenttxouts/{node.tip}.bin").body == b""
    assert client.get(f"block/{node.tip}.bin").body == raw


def test_a_wrong_block_is_complete(node: FakeNode, client: NodeClient) -> None:
    """Both interfaces serve the parent's bytes; for the genesis block, they serve the tip."""
    parent = client.result("getblockhash", 100)
    genesis = client.result("getblockhash", 0)
    raw = client.get(f"block/{parent}.bin").body
    node.fail("wrong_block", times=3)
    assert len(client.get(f"headers/1/{node.tip}.bin").body) == 80
    assert client.get(f"block/{node.tip}.bin").body == raw
    assert client.result("getblock", node.tip)["hash"] == parent
    assert client.result("getblock", genesis)["hash"] == node.tip
    assert client.result("getblock", node.tip)["hash"] == node.tip


def test_a_connection_can_break_in_the_middle_of_an_answer(node: FakeNode, client: NodeClient) -> None:
    """Fewer bytes arrive than the header announces."""
    node.fail("cut")
    with pytest.raises(http.client.IncompleteRead):
        client.get(f"block/{node.tip}.bin")
    assert client.get(f"block/{node.tip}.bin").status == 200


def test_a_slow_answer_comes_late(node: FakeNode, client: NodeClient) -> None:
    """It takes the requested time."""
    node.fail("slow", seconds=0.1)
    started = perf_counter()
    assert client.result("getblockcount") == 101
    assert perf_counter() - started >= 0.1


def test_healing_ends_a_hanging_request(node: FakeNode, client: NodeClient) -> None:
    """There is no answer before, and the right one after."""
    node.fail("hang")
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(client.result("getblockcount")))
    thread.start()
    thread.join(0.1)
    assert answers == []
    node.heal()
    thread.join(5)
    assert answers == [101]


def test_a_client_can_time_out() -> None:
    """Closing the node does not wait for hanging requests."""
    started = perf_counter()
    with FakeNode() as node, NodeClient(node.url, timeout=0.1) as client:
        node.fail("hang", times=None)
        with pytest.raises(TimeoutError):
            client.call("getblockcount")
    assert perf_counter() - started < 2


def test_unknown_faults_are_usage_errors(node: FakeNode) -> None:
    """The message lists the valid kinds."""
    with pytest.raises(UsageError, match="wrong_block"):
        node.fail("explode")
    with pytest.raises(UsageError, match="at least one request"):
        node.fail("busy", times=0)

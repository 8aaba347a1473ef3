"""Faults of the fake node: what a client meets, and for how long."""

import http.client
import json
import threading
from collections.abc import Iterator
from time import perf_counter

import pytest

from tests.support.node_client import NodeClient, Reply
from virtualchain.errors import UsageError
from virtualchain.testing import FakeNode
from virtualchain.testing.faults import KINDS


@pytest.fixture
def node() -> Iterator[FakeNode]:
    """Give a fake node."""
    with FakeNode() as started:
        yield started


@pytest.fixture
def client(node: FakeNode) -> Iterator[NodeClient]:
    """Give a connection to it."""
    with NodeClient(node.url) as connected:
        yield connected


def _ask(client: NodeClient, how: str) -> Reply:
    return client.call("getblockcount") if how == "rpc" else client.get("chaininfo.json")


@pytest.mark.parametrize("how", ["rpc", "rest"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"unauthorized", "hang"}])
def test_a_fault_lasts_for_one_request(node: FakeNode, client: NodeClient, kind: str, how: str) -> None:
    """Whatever it does, the request after it is answered; faults of blocks wait for one."""
    node.fail(kind, seconds=0.01)
    try:
        _ask(client, how)
    except (OSError, http.client.HTTPException):
        assert kind in {"refuse", "cut"}
    assert _ask(client, how).status == 200


def test_faults_come_in_the_order_of_their_asking(node: FakeNode, client: NodeClient) -> None:
    """Two of one kind, then one of another, then none."""
    node.fail("busy", times=2)
    node.fail("garbage")
    replies = [client.call("getblockcount") for _ in range(4)]
    assert [reply.status for reply in replies] == [503, 503, 200, 200]
    with pytest.raises(json.JSONDecodeError):
        json.loads(replies[2].body.decode(errors="replace"))
    assert replies[3].json()["result"] == 101


def test_a_fault_without_an_end_lasts_until_it_is_healed(node: FakeNode, client: NodeClient) -> None:
    """And a fault behind it never comes."""
    node.fail("busy", times=None)
    node.fail("garbage")
    assert [client.call("uptime").status for _ in range(5)] == [503] * 5
    node.heal()
    assert client.result("getblockcount") == 101


def test_a_fault_can_be_kept_for_certain_requests(node: FakeNode, client: NodeClient) -> None:
    """By a part of the method's name or the path."""
    node.fail("busy", on="spenttxouts")
    node.fail("busy", on="getblockhash")
    assert client.call("getblockcount").status == 200
    assert client.get(f"block/{node.tip}.bin").status == 200
    assert client.get(f"spenttxouts/{node.tip}.bin").status == 503
    assert client.call("getblockhash", 1).status == 503
    assert client.call("getblockhash", 1).status == 200


def test_a_refused_request_gets_no_answer(node: FakeNode, client: NodeClient) -> None:
    """The connection is closed without a word."""
    node.fail("refuse")
    with pytest.raises(http.client.RemoteDisconnected):
        client.call("getblockcount")


def test_a_busy_node_answers_as_bitcoind_with_a_full_queue(node: FakeNode, client: NodeClient) -> None:
    """Status 503 and these words, for JSON-RPC and REST."""
    node.fail("busy", times=2)
    for reply in (client.call("uptime"), client.get("chaininfo.json")):
        assert reply.status == 503
        assert reply.body == b"Work queue depth exceeded"
        assert ("Content-Type", "text/html; charset=ISO-8859-1") in reply.headers


def test_a_node_that_warms_up_answers_as_bitcoind_does(node: FakeNode, client: NodeClient) -> None:
    """Error -28 under status 500, and 503 over REST."""
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
    """Status 401 on JSON-RPC; REST asks for none, so it cannot refuse it."""
    node.fail("unauthorized")
    assert client.get("chaininfo.json").status == 200
    reply = client.call("getblockcount")
    assert (reply.status, reply.body) == (401, b"")
    assert ("WWW-Authenticate", 'Basic realm="jsonrpc"') in reply.headers
    assert client.call("getblockcount").status == 200


def test_half_a_block_looks_whole_to_http(node: FakeNode, client: NodeClient) -> None:
    """REST, hex and JSON-RPC; requests for other things do not use the fault up."""
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


def test_another_block_than_asked_for_is_a_whole_one(node: FakeNode, client: NodeClient) -> None:
    """The parent's bytes, over both interfaces; the genesis block's place takes the tip."""
    parent = client.result("getblockhash", 100)
    genesis = client.result("getblockhash", 0)
    raw = client.get(f"block/{parent}.bin").body
    node.fail("wrong_block", times=3)
    assert len(client.get(f"headers/1/{node.tip}.bin").body) == 80
    assert client.get(f"block/{node.tip}.bin").body == raw
    assert client.result("getblock", node.tip)["hash"] == parent
    assert client.result("getblock", genesis)["hash"] == node.tip
    assert client.result("getblock", node.tip)["hash"] == node.tip


def test_a_connection_breaks_in_the_middle_of_the_answer(node: FakeNode, client: NodeClient) -> None:
    """Fewer bytes than the header promises."""
    node.fail("cut")
    with pytest.raises(http.client.IncompleteRead):
        client.get(f"block/{node.tip}.bin")
    assert client.get(f"block/{node.tip}.bin").status == 200


def test_a_slow_answer_comes_late(node: FakeNode, client: NodeClient) -> None:
    """After the time that was asked for."""
    node.fail("slow", seconds=0.1)
    started = perf_counter()
    assert client.result("getblockcount") == 101
    assert perf_counter() - started >= 0.1


def test_a_hanging_request_ends_with_healing(node: FakeNode, client: NodeClient) -> None:
    """No answer before, the right one after."""
    node.fail("hang")
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(client.result("getblockcount")))
    thread.start()
    thread.join(0.1)
    assert answers == []
    node.heal()
    thread.join(5)
    assert answers == [101]


def test_a_client_that_gives_up_meets_its_own_timeout() -> None:
    """And closing a node does not wait for the requests that hang."""
    started = perf_counter()
    with FakeNode() as node, NodeClient(node.url, timeout=0.1) as client:
        node.fail("hang", times=None)
        with pytest.raises(TimeoutError):
            client.call("getblockcount")
    assert perf_counter() - started < 2


def test_unknown_faults_are_mistakes_of_the_user(node: FakeNode) -> None:
    """The message names the kinds there are."""
    with pytest.raises(UsageError, match="wrong_block"):
        node.fail("explode")
    with pytest.raises(UsageError, match="at least one request"):
        node.fail("busy", times=0)

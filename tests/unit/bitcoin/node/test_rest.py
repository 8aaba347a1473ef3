"""REST: whole answers only, each fault with its own error, connections that are used again."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3

from tests.unit.bitcoin.node.scripted import Reply, Scripted
from virtualchain.bitcoin.node import rest as rest_module
from virtualchain.bitcoin.node import retry
from virtualchain.bitcoin.node.login import NodeUrl
from virtualchain.bitcoin.node.rest import Rest
from virtualchain.bitcoin.node.rpc import NotOffered
from virtualchain.errors import MissingData, NodeError, NodeUnavailable

BLOCK = Reply(200, bytes(range(256)) * 40, "application/octet-stream")
SIZE = len(BLOCK.body)


def test_get_gives_the_body(scripted: Scripted, rest: Rest) -> None:
    """The bytes come as they are, also where they fill the limit; the password stays here."""
    scripted.will(BLOCK)
    assert rest.get("/rest/block/00ff.bin", SIZE) == BLOCK.body
    assert scripted.requests[0].path == "/rest/block/00ff.bin"
    assert scripted.requests[0].authorization == ""


def test_get_keeps_its_connection(scripted: Scripted, rest: Rest) -> None:
    """Requests one after the other go over one connection, whatever their status."""
    scripted.will(BLOCK, Reply(404, b"nothing here", "text/plain"), Reply(200, b""), BLOCK)
    rest.get("/1", SIZE)
    with pytest.raises(MissingData):
        rest.get("/2", SIZE)
    assert rest.get("/3", SIZE) == b""
    rest.get("/4", SIZE)
    assert {request.connection for request in scripted.requests} == {0}


@pytest.mark.parametrize(
    "fault",
    [
        Reply(503, b"Work queue depth exceeded", "text/html"),
        Reply(503, b"Service temporarily unavailable: Loading block index", "text/plain"),
        Reply(say_nothing=True),
        Reply(200, BLOCK.body[:100], missing=SIZE - 100),
        Reply(404, b"not", "text/plain", missing=10),
    ],
    ids=["busy", "starting", "hangs up", "cut", "cut error"],
)
def test_get_tries_again_what_passes(scripted: Scripted, rest: Rest, fault: Reply) -> None:
    """Two such faults are got over without a word; a third is NodeUnavailable."""
    scripted.will(fault, fault, BLOCK)
    assert rest.get("/rest/block/00ff.bin", SIZE) == BLOCK.body
    scripted.will(fault, fault, fault, BLOCK)
    with pytest.raises(NodeUnavailable, match=scripted.address):
        rest.get("/rest/block/00ff.bin", SIZE)
    assert len(scripted.requests) == 6


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(404, b"00ff not available (pruned data)", "text/plain"), MissingData, "pruned data"),
        (Reply(404, b"", "text/html"), NotOffered, "no reason"),
        (Reply(400, b"Invalid hash: 00ff", "text/plain"), NodeError, "Invalid hash"),
        (Reply(403, b"", "text/html"), NodeError, "403"),
        (Reply(500, b"oh", "text/plain"), NodeError, "oh"),
        (Reply(302, b"elsewhere", "text/plain"), NodeError, "elsewhere"),
    ],
)
def test_get_names_what_stays_wrong(
    scripted: Scripted, rest: Rest, reply: Reply, kind: type[NodeError], words: str
) -> None:
    """What another attempt would not change is raised after one, with the node's own words."""
    scripted.will(reply)
    with pytest.raises(NodeError, match=words) as caught:
        rest.get("/rest/block/00ff.bin", SIZE)
    assert type(caught.value) is kind
    assert len(scripted.requests) == 1


def test_get_reads_no_more_than_the_limit(scripted: Scripted, rest: Rest) -> None:
    """An answer longer than what was asked for can be is an error, and its rest is not taken for the next."""
    scripted.will(BLOCK, Reply(200, b"next"))
    with pytest.raises(NodeError, match=f"more than {SIZE - 1} bytes"):
        rest.get("/rest/block/00ff.bin", SIZE - 1)
    assert rest.get("/next", SIZE) == b"next"


def test_get_times_out(where: NodeUrl, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that says nothing is given up, once, and asked over another connection later."""
    monkeypatch.setattr(rest_module, "_TIMEOUT", urllib3.Timeout(connect=1, read=0.3))
    monkeypatch.setattr(retry, "LONGEST", 0.01)
    rest = Rest(where)
    late = threading.Event()
    scripted.will(Reply(200, b"late", wait_for=late), Reply(200, b"in time"))
    with pytest.raises(NodeUnavailable, match="timed out"):
        rest.get("/1", SIZE)
    assert rest.get("/2", SIZE) == b"in time"
    late.set()
    rest.close()


def test_get_refused_connection() -> None:
    """Where nobody listens the node is unavailable, and the message asks whether it runs."""
    with pytest.raises(NodeUnavailable, match="running"):
        Rest(NodeUrl("127.0.0.1", 1, None, "")).get("/", 1)


def test_gets_of_many_threads_do_not_mix(scripted: Scripted, rest: Rest) -> None:
    """Each request gets its own answer, however many run at once."""
    scripted.always = lambda request: Reply(200, request.path.encode())
    paths = [f"/{number}" for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda path: rest.get(path, 100), paths))
    assert answers == [path.encode() for path in paths]


@pytest.mark.parametrize(("status", "offered"), [(200, True), (404, False), (400, False), (403, False)])
def test_offers(scripted: Scripted, rest: Rest, status: int, offered: bool) -> None:
    """Only a 200 says that something is there."""
    scripted.will(Reply(status, b"x"))
    assert rest.offers("/rest/chaininfo.json") is offered


def test_offers_does_not_take_busy_for_no(scripted: Scripted, rest: Rest) -> None:
    """A node without time now must not lose its fast ways for good."""
    busy = Reply(503, b"Work queue depth exceeded")
    scripted.will(busy, Reply(200, b"{}"))
    assert rest.offers("/rest/chaininfo.json")
    scripted.will(busy, busy, busy)
    with pytest.raises(NodeUnavailable):
        rest.offers("/rest/chaininfo.json")

"""What ends a wait early: long polls and ZMQ, from a node that announces blocks, lies, floods or fails."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from tests.unit.bitcoin.node.fakes import Request, ScriptedServer, error, result
from virtualchain.bitcoin.node import announcements
from virtualchain.bitcoin.node.announcements import LongPolls
from virtualchain.bitcoin.node.login import NodeUrl, find_login
from virtualchain.bitcoin.node.node import NodeSource, open_source
from virtualchain.bitcoin.source import Tip
from virtualchain.errors import NodeError, NodeUnavailable, UsageError
from virtualchain.testing import FakeNode

A, B = "aa" * 32, "bb" * 32
TIP = Tip(7, A)
LONG = 20.0
"""A wait that only an announcement ends within the test's patience."""
SOON = 5.0


@pytest.fixture
def polls(scripted: ScriptedServer, url: NodeUrl) -> Iterator[LongPolls]:
    """Make a channel to the scripted server."""
    channel = LongPolls(url, find_login(url, None, None), None)
    yield channel
    channel.close()


@pytest.fixture
def open_at_tip() -> Iterator[Callable[..., NodeSource]]:
    """Open sources that have seen the node's tip, and close them."""
    opened = []

    def open_it(node: FakeNode, **options: Any) -> NodeSource:
        source = open_source(node.url, **options)
        assert isinstance(source, NodeSource)
        opened.append(source)
        source.tip()
        return source

    yield open_it
    for source in opened:
        source.close()


@pytest.fixture
def publisher() -> Iterator[tuple[str, "zmq.Socket[bytes]"]]:
    """Publish over ZMQ, as a node does; yields the address, too."""
    with zmq.Context() as context, context.socket(zmq.PUB) as published:
        published.setsockopt(zmq.LINGER, 0)
        port = published.bind_to_random_port("tcp://127.0.0.1")
        yield f"tcp://127.0.0.1:{port}", published


def announced(block_hash: str, height: int = 8) -> dict[str, object]:
    """Return the node's answer to a long poll."""
    return {"hash": block_hash, "height": height}


def seconds_of(source: NodeSource, timeout: float = LONG) -> float:
    """Wait, and return how long that took."""
    started = time.monotonic()
    source.wait(timeout)
    return time.monotonic() - started


def later(act: Callable[[], object], seconds: float = 0.2) -> None:
    """Do something in a moment."""
    threading.Timer(seconds, act).start()


# Long polls


def test_a_new_block_ends_a_wait(node: FakeNode, open_at_tip: Callable[..., NodeSource]) -> None:
    """A block mined during a wait ends it, over REST and over RPC alone."""
    for rest in (True, False):
        source = open_at_tip(node, rest=rest)
        later(node.mine)
        assert 0.1 < seconds_of(source) < SOON


def test_a_block_between_look_and_wait_ends_the_wait(
    node: FakeNode, open_at_tip: Callable[..., NodeSource]
) -> None:
    """A block that comes before the wait begins is not missed, since the tip that was seen is compared."""
    source = open_at_tip(node)
    node.mine()
    assert seconds_of(source) < SOON


def test_a_reorg_ends_a_wait(node: FakeNode, open_at_tip: Callable[..., NodeSource]) -> None:
    """A tip at the same height but with another hash is news."""
    source = open_at_tip(node)
    later(lambda: node.reorg(1, 1, bits=0x200FFFFF))
    assert seconds_of(source) < SOON


def test_the_tip_that_headers_show_is_compared(
    node: FakeNode, open_at_tip: Callable[..., NodeSource]
) -> None:
    """A look that reads only headers has seen the tip: what it saw is not announced again."""
    source = open_at_tip(node)
    node.mine()
    assert source.headers_after(node.height, node.tip) == []
    assert seconds_of(source, 0.5) >= 0.5


def test_a_block_between_headers_and_tip_ends_the_wait(
    node: FakeNode, open_at_tip: Callable[..., NodeSource]
) -> None:
    """If a look reads headers up to a block, and then sees a later tip, that tip is announced."""
    source = open_at_tip(node)
    assert source.headers_after(node.height, node.tip) == []
    node.mine()
    source.tip()
    assert seconds_of(source) < SOON


def test_every_wait_is_announced(node: FakeNode, open_at_tip: Callable[..., NodeSource]) -> None:
    """Blocks in a row, each fetched, are each announced without a pause."""
    source = open_at_tip(node)
    began = time.monotonic()
    for _ in range(20):
        later(node.mine, 0.01)
        assert seconds_of(source) < SOON
        source.raw_block(source.tip().hash)
    assert time.monotonic() - began < 10


def test_a_node_without_long_polls_is_polled(
    node: FakeNode, open_at_tip: Callable[..., NodeSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the node does not offer them, waits have their usual length, and an operator learns of it once."""
    from virtualchain.testing.fakenode import rpc

    known = {name: method for name, method in rpc.METHODS.items() if not name.startswith("waitfor")}
    monkeypatch.setattr(rpc, "METHODS", known)
    notices: list[str] = []
    source = open_at_tip(node, notice=notices.append)
    for _ in range(8):
        assert seconds_of(source, 0.1) >= 0.1
    assert len(notices) == 1
    assert "announces no blocks" in notices[0]
    assert node.calls["waitfornewblock"] + node.calls["waitforblockheight"] <= 4


def test_older_nodes_are_asked_for_the_next_height(scripted: ScriptedServer, polls: LongPolls) -> None:
    """A node whose `waitfornewblock` takes no tip is asked with `waitforblockheight`."""
    scripted.plan(error(-1, "waitfornewblock ( timeout )"), result(announced(B)), result(announced(A, 7)))
    assert polls.listen(TIP, 2.0)
    assert not polls.listen(TIP, 2.0)
    asked = [(request.body["method"], request.body["params"]) for request in scripted.requests]
    assert asked == [
        ("waitfornewblock", [2000, A]),
        ("waitforblockheight", [8, 2000]),
        ("waitforblockheight", [8, 2000]),
    ]


@pytest.mark.parametrize("answer", [None, 7, [], {}, {"hash": 5, "height": 1}, {"hash": B, "height": "8"}])
def test_malformed_announcements(scripted: ScriptedServer, polls: LongPolls, answer: object) -> None:
    """An answer of another form is an error of the node."""
    scripted.plan(result(answer))
    with pytest.raises(NodeError):
        polls.listen(TIP, 2.0)


def test_a_question_has_an_end(scripted: ScriptedServer, polls: LongPolls) -> None:
    """The node is asked to answer within the wait, at least a millisecond: 0 would be without end."""
    scripted.plan(result(announced(B)), result(announced(B)))
    polls.listen(TIP, 0.0)
    polls.listen(TIP, 1000.0)
    asked = [request.body["params"][0] for request in scripted.requests]
    assert asked == [1, 15_000]


def serve_instantly(scripted: ScriptedServer, answer: Callable[[], object]) -> None:
    """Answer all questions at once, also those of a source that opens."""
    answers = {
        "getblockchaininfo": lambda: {"chain": "regtest", "blocks": 7, "bestblockhash": A},
        "getblockhash": lambda: "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
        "waitfornewblock": answer,
    }

    def reply(request: Request) -> Any:
        return result(answers[request.body["method"]]())

    scripted.always = reply


@pytest.mark.parametrize("kind", ["the same tip", "another tip each time"])
def test_a_node_that_answers_at_once_forever(
    scripted: ScriptedServer, url: NodeUrl, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Whatever it says, it is asked a few times at first, and seldom later; waits still end in time."""
    number = iter(range(10**9))
    lie = announced(A, 7) if kind == "the same tip" else None
    serve_instantly(scripted, lambda: lie or announced(f"{next(number):064x}"))
    source = open_source(f"http://alice:secret@{scripted.address}", rest=False)
    ends = time.monotonic() + 3.0
    looks = 0
    while time.monotonic() < ends:
        source.tip()
        source.wait(0.5)
        looks += 1
    source.close()
    asked = [request.body["method"] for request in scripted.requests].count("waitfornewblock")
    assert 1 <= asked <= 12
    assert looks <= 20


def test_pauses_end_with_news() -> None:
    """Questions in vain make longer pauses, up to a limit, and a look with news ends them."""
    pace = announcements._Pace()
    pauses = []
    for _ in range(12):
        pauses.append(pace.pause(had_news=False))
        pace.answered(for_nothing=True)
    assert pauses[:4] == [0.0, 0.0, 0.05, 0.1]
    assert max(pauses) == announcements._LONGEST
    assert pace.pause(had_news=True) == 0.0
    pace.answered(for_nothing=True)
    assert pace.pause(had_news=False) == 0.0
    for _ in range(12):
        pace.failed()
    assert pace.pause(had_news=True) == announcements._FAILED[-1]
    pace.answered(for_nothing=False)
    assert pace.pause(had_news=False) == 0.0


def test_a_node_that_restarts_announces_again(node: FakeNode, open_at_tip: Callable[..., NodeSource]) -> None:
    """After an outage, blocks are announced again; the outage is named once."""
    notices: list[str] = []
    source = open_at_tip(node, notice=notices.append)
    node.stop()
    for _ in range(4):
        source.wait(0.1)
    node.start()
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        source.tip()
        later(node.mine)
        if seconds_of(source, 1.0) < 0.9:
            break
        source.raw_block(source.tip().hash)
    else:
        pytest.fail("no block was announced after the restart")
    assert len(notices) == 1


@pytest.mark.parametrize("fault", ["hang", "refuse", "cut", "garbage", "busy", "warming_up", "unauthorized"])
def test_faults_of_long_polls_cost_no_wait(
    node: FakeNode, open_at_tip: Callable[..., NodeSource], fault: str
) -> None:
    """Whatever happens to the long poll, a wait ends after its time, raises nothing, and closing is quick."""
    source = open_at_tip(node)
    node.fail(fault, None, on="waitfor")
    for _ in range(3):
        assert 0.1 <= seconds_of(source, 0.1) < SOON
    started = time.monotonic()
    source.close()
    assert time.monotonic() - started < 2
    node.heal()


def test_wake_and_close_end_a_wait_with_a_long_poll(
    node: FakeNode, open_at_tip: Callable[..., NodeSource]
) -> None:
    """Neither waits for the node's answer, and no thread is left."""
    source = open_at_tip(node)
    later(source.wake)
    assert seconds_of(source) < SOON
    later(source.close)
    assert seconds_of(source) < SOON
    started = time.monotonic()
    source.close()
    assert time.monotonic() - started < 2
    assert not any(thread.name == "announcements" for thread in threading.enumerate())


def test_a_question_that_is_cut_is_an_error(node: FakeNode) -> None:
    """Cutting the connection ends the question in another thread at once."""
    from virtualchain.bitcoin.node.login import read_url

    url = read_url(node.url)
    channel = LongPolls(url, find_login(url, None, None), None)
    later(channel.cut)
    started = time.monotonic()
    with pytest.raises(NodeUnavailable):
        channel.listen(Tip(node.height, node.tip), 10.0)
    assert time.monotonic() - started < SOON


def test_a_block_that_was_not_announced_is_noticed(
    node: FakeNode, open_at_tip: Callable[..., NodeSource]
) -> None:
    """If a look shows a block that no announcement came for, an operator learns of it once."""
    notices: list[str] = []
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        source = open_at_tip(node, zmq=f"tcp://127.0.0.1:{unused.getsockname()[1]}", notice=notices.append)
        for _ in range(4):
            source.wait(0.05)
            node.mine()
            source.tip()
        source.wait(0.05)
    assert len(notices) == 1
    assert "did not announce block" in notices[0]


# ZMQ


def publish(published: "zmq.Socket[bytes]", *parts: bytes) -> Callable[[], object]:
    """Return what sends a message."""
    return lambda: published.send_multipart(parts)


def subscribed(source: NodeSource, published: "zmq.Socket[bytes]") -> NodeSource:
    """Wait until the source's subscription has arrived."""
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        published.send_multipart((b"hashblock", bytes.fromhex(B), bytes(4)))
        if seconds_of(source, 0.3) < 0.25:
            source.raw_block(source.tip().hash)
            return source
    raise AssertionError("the source does not subscribe")


def test_a_message_ends_a_wait(
    node: FakeNode, open_at_tip: Callable[..., NodeSource], publisher: tuple[str, "zmq.Socket[bytes]"]
) -> None:
    """A message of another block ends a wait; no long poll is asked beside it."""
    address, published = publisher
    source = subscribed(open_at_tip(node, zmq=address), published)
    later(publish(published, b"hashblock", bytes.fromhex(B), bytes(4)))
    assert seconds_of(source) < SOON
    assert not node.calls["waitfornewblock"]


@pytest.mark.parametrize(
    "parts",
    [
        (b"hashtx", bytes(32), bytes(4)),
        (b"hashblock",),
        (b"hashblock", bytes(31), bytes(4)),
        (b"hashblock", bytes(33), bytes(4)),
        (b"hashblocks", bytes(32), bytes(4)),
        (b"hashblock", b"the tip", bytes(4)),
    ],
)
def test_messages_of_something_else(
    node: FakeNode,
    open_at_tip: Callable[..., NodeSource],
    publisher: tuple[str, "zmq.Socket[bytes]"],
    parts: tuple[bytes, ...],
) -> None:
    """Other topics, other lengths, and the block that was seen already end no wait."""
    address, published = publisher
    source = subscribed(open_at_tip(node, zmq=address), published)
    seen = bytes.fromhex(node.tip)
    sent = publish(published, *(seen if part == b"the tip" else part for part in parts))
    later(sent, 0.1)
    assert seconds_of(source, 0.6) >= 0.55


def test_a_flood_of_messages(
    node: FakeNode, open_at_tip: Callable[..., NodeSource], publisher: tuple[str, "zmq.Socket[bytes]"]
) -> None:
    """Messages without end cause a few looks only, and the source can be closed meanwhile."""
    address, published = publisher
    source = subscribed(open_at_tip(node, zmq=address), published)
    is_over = threading.Event()

    def flood() -> None:
        while not is_over.wait(0.0005):
            published.send_multipart((b"hashblock", bytes.fromhex(B), bytes(4)))

    flooding = threading.Thread(target=flood)
    flooding.start()
    ends, looks = time.monotonic() + 2.0, 0
    used = time.thread_time()
    while time.monotonic() < ends:
        source.wait(0.5)
        looks += 1
    assert looks <= 14
    assert time.thread_time() - used < 1.0
    source.close()
    is_over.set()
    flooding.join()


def test_a_publisher_that_restarts(node: FakeNode, open_at_tip: Callable[..., NodeSource]) -> None:
    """The subscription is made again if the publisher was away, or comes later than the source."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    source = open_at_tip(node, zmq=address)
    for _ in range(2):
        with zmq.Context() as context, context.socket(zmq.PUB) as published:
            published.setsockopt(zmq.LINGER, 0)
            published.bind(address)
            subscribed(source, published)


@pytest.mark.parametrize(
    "address", ["", "http://127.0.0.1:1", "tcp://localhost", "127.0.0.1:28332", "inproc://a"]
)
def test_addresses_that_zmq_cannot_use(node: FakeNode, address: str) -> None:
    """A mistake in the address is the user's, and named."""
    with pytest.raises(UsageError, match="ZMQ"):
        open_source(node.url, zmq=address)


def test_without_pyzmq(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra."""
    monkeypatch.setitem(__import__("sys").modules, "zmq", None)
    with pytest.raises(UsageError, match=r"virtualchain\[zmq\]"):
        open_source(node.url, zmq="tcp://127.0.0.1:1")

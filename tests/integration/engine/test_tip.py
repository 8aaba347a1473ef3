"""A follower takes a block when the node announces it, and at its next look if no announcement comes."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from virtualchain import StateEngine
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.source import BlockSource
from virtualchain.engine import engine as indexer
from virtualchain.examples import notary
from virtualchain.testing import FakeNode
from virtualchain.testing.bitcoind import Bitcoind

NEVER = 60.0
"""A poll that does not come within a test's patience."""
PATIENCE = 20.0


@contextmanager
def following(database_url: str, source: BlockSource, confirmations: int = 0) -> Iterator[list[int]]:
    """Follow a node in a thread; yields the list of the blocks taken, which grows."""
    taken: list[int] = []
    with StateEngine(
        notary.app,
        database=database_url,
        source=source,
        confirmations=confirmations,
        on_block=lambda progress: taken.append(progress.block.block_id),
    ) as engine:
        thread = threading.Thread(target=engine.follow)
        thread.start()
        try:
            yield taken
        finally:
            engine.stop()
            started = time.monotonic()
            thread.join(PATIENCE)
            assert time.monotonic() - started < 5, "stopping waits for nothing"
    assert not is_listening()


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def is_listening() -> bool:
    """Check whether there is a thread that listens to the node."""
    return any(thread.name == "announcements" for thread in threading.enumerate())


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only announcements end a wait."""
    monkeypatch.setattr(indexer, "POLL", NEVER)


@pytest.fixture
def publishing(bitcoind_factory: Callable[..., Bitcoind]) -> tuple[Bitcoind, str]:
    """Run a real node that publishes over ZMQ; returns the address, too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    node = bitcoind_factory(f"-zmqpubhashblock={address}")
    node.mine(3)
    return node, address


@pytest.mark.node
@pytest.mark.usefixtures("seldom")
@pytest.mark.parametrize(("way", "confirmations"), [("rest", 0), ("rest", 2), ("rpc", 0), ("zmq", 0)])
def test_blocks_are_taken_when_a_real_node_announces_them(
    publishing: tuple[Bitcoind, str], database_url: str, way: str, confirmations: int
) -> None:
    """Each of several blocks, one by one and three at once, is taken long before the next poll."""
    node, address = publishing
    source = open_source(node.url, rest=way != "rpc", zmq=address if way == "zmq" else None)
    with following(database_url, source, confirmations) as taken:
        wait_until(is_listening)
        if way == "zmq":
            time.sleep(0.5)  # a subscription takes a moment
        for count in (1, 1, 3, 1):
            node.mine(count)
            height = node.rpc("getblockcount")
            wait_until(lambda height=height: taken[-1] == height - confirmations)  # type: ignore[misc]


@pytest.mark.node
def test_a_real_node_that_restarts(
    publishing: tuple[Bitcoind, str], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outage is waited for, and blocks are announced again after it."""
    node, address = publishing
    monkeypatch.setattr(indexer, "POLL", 0.2)
    source = open_source(node.url, node.cookie)
    with following(database_url, source) as taken:
        wait_until(lambda: taken[-1:] == [node.rpc("getblockcount")])
        node.restart(f"-zmqpubhashblock={address}")
        node.mine()
        wait_until(lambda: taken[-1] == node.rpc("getblockcount"))
        announcements = source._announcements  # type: ignore[attr-defined]
        time.sleep(4)  # the pause after failures in a row
        monkeypatch.setattr(indexer, "POLL", NEVER)
        wait_until(lambda: announcements._seconds == NEVER)
        for _ in range(2):
            node.mine()
            wait_until(lambda: taken[-1] == node.rpc("getblockcount"))


@pytest.mark.parametrize("fault", ["hang", "refuse", "busy", "garbage"])
def test_without_announcements_blocks_are_taken_at_the_next_look(
    fake_node: FakeNode, database_url: str, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """If long polls fail in any way, the poll still finds each block."""
    monkeypatch.setattr(indexer, "POLL", 0.2)
    fake_node.fail(fault, None, on="waitfor")
    with following(database_url, open_source(fake_node.url)) as taken:
        for _ in range(3):
            fake_node.mine()
            wait_until(lambda: taken[-1:] == [fake_node.height])
    fake_node.heal()


@pytest.mark.usefixtures("seldom")
def test_near_the_tip_a_look_asks_little(fake_node: FakeNode, database_url: str) -> None:
    """A block costs its headers and its bytes; then one more look, and the next long poll."""
    with following(database_url, open_source(fake_node.url)) as taken:
        wait_until(lambda: taken[-1:] == [fake_node.height])
        wait_until(lambda: fake_node.calls["waitfornewblock"] == 1)
        before = fake_node.calls.copy()
        fake_node.mine()
        wait_until(lambda: fake_node.calls["waitfornewblock"] == 2)
        calls = fake_node.calls - before
        assert calls == {"/rest/headers": 2, "/rest/block": 1, "getblockchaininfo": 1, "waitfornewblock": 1}

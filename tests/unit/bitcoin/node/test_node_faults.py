"""Faults of a node, and waiting for it: what passes is got over, what is wrong is never given out."""

import signal
import threading
import time

import pytest

from tests.unit.bitcoin.node.stub import A, Stub, scan_tip
from virtualchain.bitcoin.node.node import NodeSource, open_source
from virtualchain.errors import MalformedBlock, MissingData, NodeError, NodeUnavailable
from virtualchain.testing import FakeNode

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
    """A node that comes back without REST is asked over JSON-RPC from then on."""
    source = open_source(node.url)
    expected = scan_tip(source, node)
    node._service.rest = False
    assert scan_tip(source, node) == expected
    node.calls.clear()
    assert scan_tip(source, node) == expected
    assert not [call for call in node.calls if call.startswith("/rest")]
    source.close()


def test_spenttxouts_that_are_gone_meanwhile(node: FakeNode) -> None:
    """A node that comes back as an older version keeps REST for what that has."""
    source = open_source(node.url)
    expected = scan_tip(source, node)
    node._service.spent_outputs = False
    assert scan_tip(source, node) == expected
    node.calls.clear()
    assert scan_tip(source, node) == expected
    assert dict(node.calls) == {"/rest/headers": 1, "/rest/block": 1, "getrawtransaction": 3}
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

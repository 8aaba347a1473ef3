"""Faults of a node, and waiting for it: temporary ones are recovered from, and no wrong data is returned."""

import signal
import threading
import time

import pytest

from tests.unit.bitcoin.node.fakes import A, StubRpc, scan_tip
from virtualchain.bitcoin.node.node import NodeSource, open_source
from virtualchain.errors import MalformedBlock, MissingData, NodeError, NodeUnavailable
from virtualchain.testing import FakeNode

# Faults of a node that otherwise works


@pytest.mark.parametrize("rest", [True, False])
@pytest.mark.parametrize("kind", ["refuse", "cut", "busy", "warming_up"])
def test_temporary_faults_are_recovered_from(node: FakeNode, kind: str, rest: bool) -> None:
    """Two faults of a kind during the work do not change the result."""
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
def test_bytes_of_another_block_are_rejected(node: FakeNode, kind: str, rest: bool) -> None:
    """Anything but the requested block is an error."""
    source = open_source(node.url, rest=rest)
    node.fail(kind, on="block")
    with pytest.raises(NodeError) as caught:
        source.raw_block(node.tip)
    assert not isinstance(caught.value, NodeUnavailable)
    source.close()


@pytest.mark.parametrize("kind", ["garbage", "truncate"])
def test_truncated_spent_outputs_are_rejected(node: FakeNode, kind: str) -> None:
    """Half an answer yields no outputs, and the message names the block."""
    source = open_source(node.url)
    node.fail(kind, on="spenttxouts")
    with pytest.raises(MalformedBlock, match=node.tip):
        source.spent_outputs(node.tip, {3: A})
    source.close()


def test_idle_connections_may_be_dropped(node: FakeNode) -> None:
    """A node closes connections that are idle for 30 seconds, without any effect on the next request."""
    for rest in (True, False):
        source = open_source(node.url, rest=rest)
        expected = scan_tip(source, node)
        node.drop_connections()
        assert scan_tip(source, node) == expected
        source.close()


@pytest.mark.parametrize("spent_outputs", [True, False])
@pytest.mark.parametrize("rest", [True, False])
def test_pruned_block(node: FakeNode, rest: bool, spent_outputs: bool) -> None:
    """A pruned block and its spent outputs are missing; the message says what kind of node is needed."""
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


def test_rest_that_has_been_turned_off(node: FakeNode) -> None:
    """A node that restarts without REST is asked over JSON-RPC from then on."""
    source = open_source(node.url)
    expected = scan_tip(source, node)
    node._service.rest = False
    assert scan_tip(source, node) == expected
    node.calls.clear()
    assert scan_tip(source, node) == expected
    assert not [call for call in node.calls if call.startswith("/rest")]
    source.close()


def test_spenttxouts_that_are_no_longer_offered(node: FakeNode) -> None:
    """A node that restarts as an older version is still asked over REST for what that version offers."""
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
    """A wait that nothing ends lasts for its timeout."""
    started = time.monotonic()
    StubRpc().source().wait(0.05)
    assert time.monotonic() - started >= 0.05


def test_wake_from_another_thread() -> None:
    """Another thread can end a wait."""
    source = StubRpc().source()
    threading.Timer(0.02, source.wake).start()
    started = time.monotonic()
    source.wait(10)
    assert time.monotonic() - started < 5


def test_wake_from_a_signal_handler() -> None:
    """A handler that interrupts the wait in the same thread can end it."""
    source = StubRpc().source()
    before = signal.signal(signal.SIGALRM, lambda *_: source.wake())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        started = time.monotonic()
        source.wait(10)
        assert time.monotonic() - started < 5
    finally:
        signal.signal(signal.SIGALRM, before)


def test_wake_before_wait() -> None:
    """A wake before the wait ends the next wait, and several count as one."""
    source = StubRpc().source()
    source.wake()
    source.wake()
    started = time.monotonic()
    source.wait(10)
    assert time.monotonic() - started < 5
    source.wait(0.05)
    assert time.monotonic() - started >= 0.05


def test_close_ends_a_wait() -> None:
    """A wait on a closed source ends immediately."""
    source = StubRpc().source()
    source.close()
    started = time.monotonic()
    source.wait(10)
    assert time.monotonic() - started < 5

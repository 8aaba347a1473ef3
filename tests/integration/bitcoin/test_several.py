"""Several nodes: one fails, hangs, lags, lies or is on another chain, and another one takes over."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.moving import an_app, story
from tests.support.tables import deployment
from virtualchain import StateEngine
from virtualchain.bitcoin.node import client, several
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.bitcoin.node.several import SeveralNodes, open_nodes, standing_of
from virtualchain.bitcoin.source import Tip
from virtualchain.engine import engine as indexer
from virtualchain.errors import DeepFork, MissingData, NodeError, NodeUnavailable, UsageError
from virtualchain.testing import FakeNode
from virtualchain.testing.bitcoind import Bitcoind

Several = Callable[..., SeveralNodes]


@pytest.fixture(scope="module")
def blocks() -> list[bytes]:
    """Make the blocks that all nodes begin with."""
    node = FakeNode()
    story(node, 1, 12)
    node.close()
    return node.chain.raw_blocks()[1:]


@pytest.fixture
def start(blocks: list[bytes]) -> Iterator[Callable[[], FakeNode]]:
    """Return a function that starts a node with these blocks."""
    nodes: list[FakeNode] = []

    def started() -> FakeNode:
        nodes.append(FakeNode.from_blocks("regtest", blocks))
        return nodes[-1]

    yield started
    for node in nodes:
        node.close()


@pytest.fixture
def first(start: Callable[[], FakeNode]) -> FakeNode:
    """Start the node that is named first."""
    return start()


@pytest.fixture
def second(start: Callable[[], FakeNode]) -> FakeNode:
    """Start the node that is named second."""
    return start()


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at other nodes all the time, and forgive failures at once."""
    for name, seconds in (("LOOK", 0.0), ("PATIENCE", 0.0), ("HELD_OFF", 0.0)):
        monkeypatch.setattr(several, name, seconds)
    monkeypatch.setattr(client, "RETRY_PAUSES", (0.0,))


@pytest.fixture
def messages() -> list[str]:
    """Return the list that reports go to."""
    return []


@pytest.fixture
def open_all(messages: list[str]) -> Iterator[Several]:
    """Return a function that opens nodes as one source."""
    sources: list[SeveralNodes] = []

    def opened(*nodes: FakeNode) -> SeveralNodes:
        source = open_nodes([node.url for node in nodes], report=messages.append)
        assert isinstance(source, SeveralNodes)
        sources.append(source)
        return source

    yield opened
    for source in sources:
        source.close()


def until(source: SeveralNodes, is_so: Callable[[], object]) -> None:
    """Look at the tip, as a follower does, until something is so."""
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline, "it did not come true"
        source.tip()


def asks(source: SeveralNodes, node: FakeNode) -> bool:
    """Check which node is asked."""
    return str(source.current.url.port) == node.url.rpartition(":")[2]


def turn(messages: list[str]) -> list[str]:
    """Return the reports that another node is asked."""
    return [message for message in messages if "is asked from now on" in message]


def test_one_node_is_asked_as_long_as_it_is_well(
    first: FakeNode, second: FakeNode, open_all: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are looked at now and then, and asked for nothing but their tip."""
    monkeypatch.setattr(several, "LOOK", 3600.0)
    source = open_all(first, second)
    until(source, lambda: second.calls["getblockchaininfo"])
    for block_id in range(5):
        assert source.raw_block(source.block_hash(block_id))
    assert source.tip() == Tip(first.height, first.tip)
    assert not any("block/" in call or call == "getblock" for call in second.calls)


@pytest.mark.parametrize("fault", ["stop", "hang", "garbage", "busy", "warming_up"])
def test_another_node_takes_over_and_gives_back(
    first: FakeNode,
    second: FakeNode,
    open_all: Several,
    messages: list[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    """When the first fails, the next is asked, which is reported once; when it is well, the first again."""
    monkeypatch.setattr(client, "READ_TIMEOUT", 0.2)
    monkeypatch.setattr(client, "RETRY_TIME", 0.1)
    source = open_all(first, second)
    first.stop() if fault == "stop" else first.fail(fault, times=None)
    for block_id in range(5):
        assert source.block_hash(block_id) == second.chain.tree.chain[block_id].block.hash
    assert asks(source, second)
    until(source, lambda: second.calls["getblockchaininfo"] > 5)
    assert asks(source, second)
    [taken] = turn(messages)
    assert "is not asked any more" in taken
    first.start() if fault == "stop" else first.heal()
    until(source, lambda: asks(source, first))
    assert "was named first" in turn(messages)[-1]
    assert len(turn(messages)) == 2


def test_a_slow_node_is_left(
    first: FakeNode, second: FakeNode, open_all: Several, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that answers, but takes too long for a small question, counts as not well."""
    monkeypatch.setattr(several, "SLOW", 0.1)
    source = open_all(first, second)
    first.fail("slow", times=None, on="getblockchaininfo", seconds=0.2)
    until(source, lambda: asks(source, second))
    assert "seconds for its last block's hash" in turn(messages)[0]


def test_a_failed_node_is_held_off(
    first: FakeNode, second: FakeNode, open_all: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not asked again at once, so that one that fails now and then is not turned to in between."""
    monkeypatch.setattr(several, "HELD_OFF", 3600.0)
    source = open_all(first, second)
    first.fail("refuse", times=None)
    source.tip()
    assert asks(source, second)
    first.heal()

    def asked_meanwhile() -> int:
        before, goal = first.calls.total(), second.calls["getblockchaininfo"] + 10
        until(source, lambda: second.calls["getblockchaininfo"] > goal)
        return first.calls.total() - before

    until(source, lambda: asked_meanwhile() == 0)  # what was under way has ended
    assert (asked_meanwhile(), asks(source, second)) == (0, True)
    second.stop()
    assert source.tip().block_id == first.height
    assert asks(source, first)


def test_what_a_pruned_node_lacks_comes_from_another(
    first: FakeNode, second: FakeNode, open_all: Several, messages: list[str]
) -> None:
    """The pruned node is asked again once it has what is needed; what no node has is missing."""
    first.prune(first.height - 2)
    source = open_all(first, second)
    old, last = source.block_hash(5), source.block_hash(first.height)
    assert source.raw_block(old) == second.chain.tree.chain[5].raw
    assert asks(source, second)
    before = first.calls["getblockchaininfo"]
    until(source, lambda: first.calls["getblockchaininfo"] > before + 6)
    assert asks(source, second)
    source.raw_block(last)
    until(source, lambda: asks(source, first))
    assert len(turn(messages)) == 2
    with pytest.raises(MissingData):
        source.raw_block("11" * 32)
    assert len(turn(messages)) == 2


@pytest.mark.parametrize("is_syncing", [False, True])
def test_a_node_that_lags_is_left(
    first: FakeNode,
    second: FakeNode,
    open_all: Several,
    messages: list[str],
    monkeypatch: pytest.MonkeyPatch,
    is_syncing: bool,
) -> None:
    """A few blocks do not matter; more do if they last, or if the node says that it is syncing."""
    if is_syncing:
        monkeypatch.setattr(several, "PATIENCE", 3600.0)
        first.syncing = True
    source = open_all(first, second)
    first.fall_behind(2)
    until(source, lambda: second.calls["getblockchaininfo"] > 5)
    assert asks(source, first)
    first.fall_behind(1)
    until(source, lambda: asks(source, second))
    assert f"it is more than 2 blocks behind{' and syncing' if is_syncing else ''}" in turn(messages)[0]
    until(source, lambda: first.calls["getblockchaininfo"] > 20)
    assert not [message for message in messages if "well again" in message]
    first.catch_up()
    until(source, lambda: asks(source, first))


def test_a_lag_must_last(
    first: FakeNode, second: FakeNode, open_all: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that is behind for a moment stays the one that is asked."""
    monkeypatch.setattr(several, "PATIENCE", 3600.0)
    source = open_all(first, second)
    first.fall_behind(5)
    until(source, lambda: second.calls["getblockchaininfo"] > 5)
    assert asks(source, first)


def test_a_node_of_another_network_is_never_asked(
    first: FakeNode, open_all: Several, messages: list[str]
) -> None:
    """It is named in one line when it first answers, and does not even replace the last one."""
    with FakeNode("testnet4", premine=0) as other:
        source = open_all(first, other)
        until(source, lambda: messages)
        assert "is on testnet4, but regtest was asked for" in messages[0]
        first.stop()
        with pytest.raises(NodeUnavailable, match="no other node can be asked"):
            source.tip()
        assert (asks(source, first), len(messages)) == (True, 1)


def test_a_branch_with_less_work_is_not_turned_to(
    first: FakeNode, second: FakeNode, open_all: Several, messages: list[str]
) -> None:
    """The node on it is named, with the block from which on the two disagree."""
    second.reorg(3, 3)
    first.mine()
    source = open_all(first, second)
    assert standing_of(source) == (1, False)
    until(source, lambda: messages)
    assert standing_of(source) == (1, True)
    assert f"the nodes disagree from block {first.height - 3} on" in messages[0]
    until(source, lambda: second.calls["getblockchaininfo"] > 10)
    assert (asks(source, first), len(messages)) == (True, 1)


def test_a_branch_with_more_work_is_turned_to(
    first: FakeNode, second: FakeNode, open_all: Several, messages: list[str]
) -> None:
    """And the first node is not asked again before its branch has more, however long it is well."""
    source = open_all(first, second)
    second.reorg(2, 4)
    until(source, lambda: asks(source, second))
    until(source, lambda: first.calls["getblockchaininfo"] > 20)
    assert asks(source, second)
    assert "the branch with less work" in " ".join(messages)
    first.mine(n=5)
    until(source, lambda: asks(source, first))
    assert len(turn(messages)) == 2


def test_two_nodes_that_disagree_about_validity_are_never_mixed(
    first: FakeNode, second: FakeNode, open_all: Several, messages: list[str]
) -> None:
    """Whichever node is asked stays it, even alone: the other one would have its blocks undone."""
    second.invalidate(second.height - 3)
    source = open_all(first, second)
    until(source, lambda: messages)
    assert f"the nodes disagree from block {first.height - 3} on" in messages[0]
    assert "invalid; find out which of the two is right" in messages[0]
    assert standing_of(source) == (1, True)
    first.stop()
    with pytest.raises(NodeUnavailable):
        source.tip()
    assert asks(source, first)
    first.start()
    second.mine(n=9)
    until(source, lambda: second.calls["getblockchaininfo"] > 20)
    assert (asks(source, first), len(messages)) == (True, 1)


def test_an_invalid_block_that_shows_when_a_node_fails(
    first: FakeNode, second: FakeNode, open_all: Several, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that calls the failed one's last block invalid does not take over, without a look before."""
    monkeypatch.setattr(several, "LOOK", 3600.0)
    source = open_all(first, second)
    source.tip()
    second.invalidate(second.height)
    first.stop()
    with pytest.raises(NodeUnavailable):
        source.tip()
    assert "invalid" in messages[0]


@pytest.mark.parametrize("is_first", [False, True])
def test_a_claimed_tip_alone_does_not_count(
    first: FakeNode,
    second: FakeNode,
    open_all: Several,
    monkeypatch: pytest.MonkeyPatch,
    is_first: bool,
) -> None:
    """A node that claims a high last block and has no headers up to it is not ahead, and cannot keep us."""
    honest, liar = (second, first) if is_first else (first, second)
    source = open_all(first, second)
    liar.fall_behind(4)
    true_tip = NodeSource.tip

    def tip(node: NodeSource) -> Tip:
        lies = str(node.url.port) == liar.url.rpartition(":")[2]
        return Tip(10_000_000, "ab" * 32) if lies else true_tip(node)

    monkeypatch.setattr(NodeSource, "tip", tip)
    until(source, lambda: honest.calls["/rest/headers"] > 5)
    until(source, lambda: asks(source, honest))
    assert source.tip().block_id == honest.height


def test_all_down_at_the_start(first: FakeNode, second: FakeNode, open_all: Several) -> None:
    """The error says why of each, and that waiting may help; a mistake in a URL is one at once."""
    first.stop()
    assert asks(open_all(first, second), second)
    second.stop()
    with pytest.raises(NodeUnavailable, match="none of 2 nodes can be used"):
        open_all(first, second)
    with pytest.raises(UsageError, match="named twice"):
        open_nodes([first.url, first.url])
    with pytest.raises(NodeError, match="none of 2 nodes") as caught:
        open_nodes([first.url.replace("password", "secret"), second.url])
    assert "secret" not in str(caught.value)


# The engine on several nodes


def engine(url: str, *nodes: FakeNode, **options: Any) -> StateEngine:
    """Open an engine that takes every block."""
    sources = [node.url for node in nodes]
    return StateEngine(an_app(), **{"database": url, "source": sources, "confirmations": 0, **options})


def build_until(running: StateEngine, block_id: int) -> None:
    """Build again and again, as a follower does, until a block is reached."""
    deadline = time.monotonic() + 20
    while running.build() != block_id:
        assert time.monotonic() < deadline, "it was not reached"


@pytest.mark.parametrize("fault", ["stop", "truncate", "wrong_block", "cut"])
def test_a_node_that_fails_in_the_middle_of_a_sync(
    first: FakeNode,
    second: FakeNode,
    database_url: str,
    fresh_index: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    """The sync ends with what a sync from one good node has: which node served a block is nowhere."""
    monkeypatch.setattr(several, "HELD_OFF", 3600.0)
    messages: list[str] = []

    def at(progress: Any) -> None:
        if progress.block.block_id == 60:
            first.stop() if fault == "stop" else first.fail(fault, times=None)

    with engine(database_url, first, second, on_block=at, on_wait=messages.append) as running:
        assert running.build() == second.height
        assert running.measures.node_place == 2
    assert len(turn(messages)) == 1
    assert deployment(database_url) == deployment(fresh_index(an_app(), source=second.url))


def test_a_liar_about_every_block_ends_a_sync_only_if_alone(
    first: FakeNode, second: FakeNode, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no node gives right answers, it is an error as with one node."""
    monkeypatch.setattr(several, "HELD_OFF", 3600.0)
    for node in (first, second):
        node.fail("truncate", times=None, on="block/")
    with engine(database_url, first, second) as running, pytest.raises(NodeError, match="block"):
        running.build()
    second.heal()
    with engine(database_url, first, second) as running:
        assert running.build() == second.height


def test_a_deep_fork_on_the_other_node_meets_the_policy(
    first: FakeNode, second: FakeNode, database_url: str
) -> None:
    """A branch with more work is followed as that of one node would be; back again only for more work."""
    story(first, 3, 4)
    with engine(database_url, first, second, on_deep_fork="halt") as running:
        last = running.build()
        second.reorg(2, 9)
        with pytest.raises(DeepFork, match="on_deep_fork of plain is halt"):
            build_until(running, -1)
    assert last == first.height
    with engine(database_url, first, second, on_deep_fork="rollback") as running:
        build_until(running, second.height)
        for _ in range(20):
            assert running.build() == second.height


def test_all_down_is_waited_for(
    first: FakeNode, second: FakeNode, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower waits for any of the nodes, and continues with the one that comes back."""
    monkeypatch.setattr(indexer, "POLL", 0.05)
    waits: list[str] = []

    def note(message: str) -> None:
        waits.append(message)
        if "no other node can be asked" in message:
            second.start()
        elif "connected again" in message:
            running.stop()
        elif message.startswith("waiting for block") and len(waits) == 1:
            first.stop()
            second.stop()

    with engine(database_url, first, second, on_wait=note) as running:
        running.follow()
        assert str(running._source).rpartition(":")[2] == second.url.rpartition(":")[2]
    assert "connected again" in waits[-1]


@pytest.mark.node
def test_a_real_node_is_one_of_two(
    blocks: list[bytes],
    first: FakeNode,
    bitcoind: Bitcoind,
    database_url: str,
    fresh_index: Callable[..., str],
) -> None:
    """A real node takes over in the middle, by its cookie, and the result is that of the real one alone."""
    for raw in blocks:
        assert bitcoind.rpc("submitblock", raw.hex()) is None
    options: dict[str, Any] = {"cookie": bitcoind.cookie, "confirmations": 0}

    def at(progress: Any) -> None:
        if progress.block.block_id == 60:
            first.stop()

    nodes = [first.url, bitcoind.url]
    with StateEngine(an_app(), database=database_url, source=nodes, on_block=at, **options) as running:
        assert running.build() == len(blocks)
        bitcoind.rpc("generatetodescriptor", 2, "raw(51)")
        assert running.build() == len(blocks) + 2
    assert deployment(database_url) == deployment(fresh_index(an_app(), source=bitcoind.url, **options))

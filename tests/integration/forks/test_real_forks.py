"""Forks on real nodes: two of them, two miners who do not agree, and the engine on one of the nodes."""

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.integration.conftest import Rows
from tests.support.moving import an_app
from tests.support.tables import deployment
from virtualchain import StateEngine
from virtualchain.bitcoin.node.node import open_source
from virtualchain.testing import ChainBuilder
from virtualchain.testing.bitcoind import Bitcoind
from virtualchain.testing.database import DatabaseServer

pytestmark = pytest.mark.node

Query = Callable[..., Rows]
_PATIENCE = 30.0
_VERBS = ("add", "swap", "again", "drop", "flash", "add")


@dataclass
class Miner:
    """Builds a chain of its own and gives its blocks to one node."""

    name: str
    node: Bitcoind
    chain: ChainBuilder = field(default_factory=ChainBuilder)
    given: int = 0

    def mine(self, blocks: int) -> None:
        """Mine blocks of ops that the other miner does not mine."""
        for _ in range(blocks):
            number = self.chain.height
            ops = [f"{_VERBS[(number + place) % len(_VERBS)]} {self.name}{number % 3}" for place in range(3)]
            self.chain.mine([self.chain.send(b"mvo" + op.encode(), self.name) for op in ops])
        self.give()

    def give(self) -> None:
        """Return the node what it does not have yet."""
        for stored in self.chain.tree.chain[self.given + 1 :]:
            assert self.node.rpc("submitblock", stored.raw.hex()) in {None, "inconclusive", "duplicate"}
        self.given = self.chain.height


@dataclass
class Pair:
    """Two nodes, a miner at each, and databases for engines on the first node."""

    ours: Miner
    theirs: Miner
    peer: str
    """Where the second node listens."""
    server: DatabaseServer
    url: str

    def connect(self) -> None:
        """Let the nodes talk until they agree, or know all of each other's blocks."""
        self.ours.node.rpc("addnode", self.peer, "onetry")
        wait_until(lambda: self.ours.node.rpc("getconnectioncount") > 0)

    def disconnect(self) -> None:
        """Let each node be alone."""
        for peer in self.ours.node.rpc("getpeerinfo"):
            self.ours.node.rpc("disconnectnode", "", peer["id"])
        wait_until(lambda: self.theirs.node.rpc("getconnectioncount") == 0)

    def meet(self) -> None:
        """Let both nodes come to the same tip, and part again."""
        self.connect()
        wait_until(lambda: self.ours.node.rpc("getbestblockhash") == self.theirs.node.rpc("getbestblockhash"))
        self.disconnect()

    def build(
        self, url: str | None = None, first: int = 101, node: Bitcoind | None = None, **options: Any
    ) -> StateEngine:
        """Run the app on the first node to its tip; the engine is closed, its `waits_for` can be read."""
        node = node or self.ours.node
        source = open_source(node.url, node.cookie)
        settings = {"database": url or self.url, "source": source, "confirmations": 0, **options}
        with StateEngine(an_app(first_block_id=first), **settings) as engine:
            engine.build()
        return engine

    def is_fresh(self, **options: Any) -> bool:
        """Return whether the database is what a fresh index of the first node's chain is."""
        other = self.server.clone()
        try:
            self.build(other, **options)
            return deployment(self.url) == deployment(other)
        finally:
            self.server.drop(other)


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for real nodes to get somewhere."""
    deadline = time.monotonic() + _PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "the nodes do not get there"
        time.sleep(0.05)


@pytest.fixture
def pair(
    bitcoind_factory: Callable[..., Bitcoind], database_server: DatabaseServer, database_url: str
) -> Pair:
    """Return two nodes with the same 101 blocks, not connected yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        peer = f"127.0.0.1:{probe.getsockname()[1]}"
    apart = ("-maxtipage=1000000000", "-listenonion=0", "-connect=0")
    ours = Miner("ours", bitcoind_factory(*apart))
    theirs = Miner("theirs", bitcoind_factory(*apart, "-listen=1", f"-bind={peer}"))
    for miner in (ours, theirs):
        miner.give()
    return Pair(ours, theirs, peer, database_server, database_url)


def test_the_branch_with_more_work_wins(pair: Pair, query: Query) -> None:
    """Ours is three blocks long and theirs five, when the nodes meet."""
    pair.ours.mine(3)
    pair.theirs.mine(5)
    pair.build()
    old = pair.ours.chain.tip
    pair.meet()
    pair.build()
    [reorg] = query("SELECT * FROM virtualchain.reorgs")
    assert (reorg["fork_block_id"], reorg["depth"], reorg["old_hash"]) == (101, 3, old)
    assert (reorg["new_hash"], reorg["cause"]) == (pair.theirs.chain.tip, "work")
    assert pair.is_fresh()


def test_equal_work_changes_nothing(pair: Pair, query: Query) -> None:
    """The node stays with what it saw first, and so do we; one block more, and both leave."""
    pair.ours.mine(4)
    pair.build()
    pair.theirs.mine(4)
    pair.connect()
    tips = pair.ours.node.rpc
    wait_until(lambda: any(tip["hash"] == pair.theirs.chain.tip for tip in tips("getchaintips")))
    pair.build()
    assert query("SELECT * FROM vc.reorgs") == []
    pair.theirs.mine(1)
    wait_until(lambda: bool(tips("getbestblockhash") == pair.theirs.chain.tip))
    pair.build()
    assert len(query("SELECT * FROM vc.reorgs")) == 1
    assert pair.is_fresh()


def test_miners_who_overtake_each_other(pair: Pair, query: Query) -> None:
    """Each in turn finds more, and each time all that was taken from the other is undone, ever deeper."""
    pair.ours.mine(1)
    for miner, blocks in ((pair.theirs, 2), (pair.ours, 3), (pair.theirs, 4), (pair.ours, 5)):
        pair.build()
        miner.mine(blocks)
        pair.meet()
    pair.build()
    depths = query("SELECT depth FROM vc.reorgs ORDER BY reorg_id")
    assert [row["depth"] for row in depths] == [1, 2, 4, 6]
    assert pair.is_fresh()


def test_invalidated_and_considered_again(pair: Pair, query: Query) -> None:
    """A bare invalidateblock undoes blocks, with none to take; reconsiderblock brings the same ones back."""
    pair.ours.mine(8)
    pair.build()
    before = deployment(pair.url)
    bad = pair.ours.chain.tree.chain[-5].block.hash
    pair.ours.node.rpc("invalidateblock", bad)
    pair.build()
    assert query("SELECT max(block_id) AS tip FROM vc.blocks") == [{"tip": pair.ours.chain.height - 5}]
    assert query("SELECT cause, new_hash FROM vc.reorgs") == [{"cause": "invalid", "new_hash": None}]
    pair.ours.node.rpc("reconsiderblock", bad)
    pair.build()
    assert deployment(pair.url) == before


@pytest.mark.parametrize("first", [101, 103])
def test_deeper_than_the_history(pair: Pair, query: Query, first: int) -> None:
    """A history of five blocks, and a fork of twenty: to where the app was already, and below its first."""
    pair.ours.mine(20)
    pair.build(history=5, first=first)
    pair.theirs.mine(23)
    pair.meet()
    pair.build(history=5, first=first)
    assert [row["blocks_undone"] for row in query("SELECT * FROM vc.reorgs")] == [121 - max(first - 1, 101)]
    assert pair.is_fresh(history=5, first=first)


def test_a_node_that_lags_is_waited_for(pair: Pair, query: Query) -> None:
    """Asked the other node, which does not have our last blocks yet: nothing is undone."""
    pair.ours.mine(3)
    pair.meet()
    pair.ours.mine(3)
    pair.build()
    before = deployment(pair.url)
    engine = pair.build(node=pair.theirs.node)
    height = pair.ours.chain.height
    assert engine.waits_for == f"waiting for the node: it is at block {height - 3}, we are at block {height}"
    assert deployment(pair.url) == before
    assert query("SELECT * FROM vc.reorgs") == []

"""Forks between two real nodes whose miners disagree, with the engine on one of the nodes."""

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.integration.conftest import Query
from tests.support.moving import an_app
from tests.support.tables import deployment
from virtualchain import StateEngine
from virtualchain.bitcoin.node.node import open_source
from virtualchain.testing import ChainBuilder
from virtualchain.testing.bitcoind import Bitcoind
from virtualchain.testing.database import DatabaseServer

pytestmark = pytest.mark.node

_TIMEOUT = 30.0
_VERBS = ("add", "swap", "again", "drop", "flash", "add")


@dataclass
class Miner:
    """Mines a chain of its own and submits its blocks to one node."""

    name: str
    node: Bitcoind
    chain: ChainBuilder = field(default_factory=ChainBuilder)
    submitted: int = 0  # the height up to which the node has the chain

    def mine(self, blocks: int) -> None:
        """Mine and submit blocks of ops that the other miner does not mine."""
        for _ in range(blocks):
            number = self.chain.height
            ops = [f"{_VERBS[(number + place) % len(_VERBS)]} {self.name}{number % 3}" for place in range(3)]
            self.chain.mine([self.chain.send(b"mvo" + op.encode(), self.name) for op in ops])
        self.submit()

    def submit(self) -> None:
        """Submit the blocks that the node does not have yet."""
        for stored in self.chain.tree.chain[self.submitted + 1 :]:
            assert self.node.rpc("submitblock", stored.raw.hex()) in {None, "inconclusive", "duplicate"}
        self.submitted = self.chain.height


@dataclass
class Pair:
    """Two nodes, a miner at each, and databases for engines on the first node."""

    ours: Miner
    theirs: Miner
    peer: str
    """The address on which the second node listens."""
    server: DatabaseServer
    url: str

    def connect(self) -> None:
        """Connect the nodes."""
        self.ours.node.rpc("addnode", self.peer, "onetry")
        wait_until(lambda: self.ours.node.rpc("getconnectioncount") > 0)

    def disconnect(self) -> None:
        """Disconnect the nodes."""
        for peer in self.ours.node.rpc("getpeerinfo"):
            self.ours.node.rpc("disconnectnode", "", peer["id"])
        wait_until(lambda: self.theirs.node.rpc("getconnectioncount") == 0)

    def synchronize(self) -> None:
        """Connect the nodes until they have the same tip, then disconnect them."""
        self.connect()
        wait_until(lambda: self.ours.node.rpc("getbestblockhash") == self.theirs.node.rpc("getbestblockhash"))
        self.disconnect()

    def build(
        self, url: str | None = None, first: int = 101, node: Bitcoind | None = None, **options: Any
    ) -> StateEngine:
        """Run the app to the tip of a node (the first one by default); return the closed engine."""
        node = node or self.ours.node
        source = open_source(node.url, node.cookie)
        settings = {"database": url or self.url, "source": source, "confirmations": 0, **options}
        with StateEngine(an_app(first_block_id=first), **settings) as engine:
            engine.build()
        return engine

    def equals_fresh_index(self, **options: Any) -> bool:
        """Check whether the database equals a fresh index of the first node's chain."""
        other = self.server.clone()
        try:
            self.build(other, **options)
            return deployment(self.url) == deployment(other)
        finally:
            self.server.drop(other)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition on real nodes holds."""
    deadline = time.monotonic() + _TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "the nodes did not reach the expected state"
        time.sleep(0.05)


@pytest.fixture
def pair(
    bitcoind_factory: Callable[..., Bitcoind], database_server: DatabaseServer, database_url: str
) -> Pair:
    """Return two nodes with the same 101 blocks, not connected to each other."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        peer = f"127.0.0.1:{listener.getsockname()[1]}"
    apart = ("-maxtipage=1000000000", "-listenonion=0", "-connect=0")
    ours = Miner("ours", bitcoind_factory(*apart))
    theirs = Miner("theirs", bitcoind_factory(*apart, "-listen=1", f"-bind={peer}"))
    for miner in (ours, theirs):
        miner.submit()
    return Pair(ours, theirs, peer, database_server, database_url)


def test_the_branch_with_more_work_wins(pair: Pair, query: Query) -> None:
    """A branch of five blocks replaces ours of three once the nodes are connected."""
    pair.ours.mine(3)
    pair.theirs.mine(5)
    pair.build()
    old = pair.ours.chain.tip
    pair.synchronize()
    pair.build()
    [reorg] = query("SELECT * FROM virtualchain.reorgs")
    assert (reorg["fork_block_id"], reorg["depth"], reorg["old_hash"]) == (101, 3, old)
    assert (reorg["new_hash"], reorg["cause"]) == (pair.theirs.chain.tip, "work")
    assert pair.equals_fresh_index()


def test_equal_work_changes_nothing(pair: Pair, query: Query) -> None:
    """Like the node, we stay on the branch seen first, until the other one has one block more."""
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
    assert pair.equals_fresh_index()


def test_miners_who_overtake_each_other(pair: Pair, query: Query) -> None:
    """When miners overtake each other in turn, ever deeper reorgs undo the other's blocks each time."""
    pair.ours.mine(1)
    for miner, blocks in ((pair.theirs, 2), (pair.ours, 3), (pair.theirs, 4), (pair.ours, 5)):
        pair.build()
        miner.mine(blocks)
        pair.synchronize()
    pair.build()
    depths = query("SELECT depth FROM vc.reorgs ORDER BY reorg_id")
    assert [row["depth"] for row in depths] == [1, 2, 4, 6]
    assert pair.equals_fresh_index()


def test_invalidated_and_considered_again(pair: Pair, query: Query) -> None:
    """A mere invalidateblock undoes blocks without a replacement; reconsiderblock brings them back."""
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
    """A fork of twenty blocks is undone with a history of five, also below the app's first block."""
    pair.ours.mine(20)
    pair.build(history=5, first=first)
    pair.theirs.mine(23)
    pair.synchronize()
    pair.build(history=5, first=first)
    assert [row["blocks_undone"] for row in query("SELECT * FROM vc.reorgs")] == [121 - max(first - 1, 101)]
    assert pair.equals_fresh_index(history=5, first=first)


def test_a_node_that_lags_is_waited_for(pair: Pair, query: Query) -> None:
    """Nothing is undone for a node that does not have our last blocks yet."""
    pair.ours.mine(3)
    pair.synchronize()
    pair.ours.mine(3)
    pair.build()
    before = deployment(pair.url)
    engine = pair.build(node=pair.theirs.node)
    height = pair.ours.chain.height
    assert engine.waits_for == f"waiting for the node: it is at block {height - 3}, we are at block {height}"
    assert deployment(pair.url) == before
    assert query("SELECT * FROM vc.reorgs") == []

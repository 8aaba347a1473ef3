"""Split: two deployments continue on the two sides of a fork, each pinned to its own, and share no input."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.checkpoints import content, say, words, words_in
from virtualchain import StateEngine
from virtualchain.store.database import connect_migrator
from virtualchain.store.tape import Tape
from virtualchain.testing import ChainBuilder
from virtualchain.testing.bitcoind import Bitcoind
from virtualchain.testing.database import DatabaseServer
from virtualchain.testing.tree import StoredBlock

pytestmark = pytest.mark.node


class Side:
    """A node, the branch that is mined on it, and a deployment that follows it."""

    def __init__(self, chain: ChainBuilder, node: Bitcoind, url: str) -> None:
        self._chain = chain
        self.node = node
        self.url = url
        self.tip = chain.tree.tip
        self._known: set[str] = set()

    def mine(self, *texts: str) -> None:
        """Mine blocks of texts on this side's branch."""
        self._chain.tree.activate(self.tip)
        say(self._chain, *texts)
        self.tip = self._chain.tree.tip

    def submit(self, tip: StoredBlock) -> None:
        """Submit a branch to the node, this side's or the other's."""
        self._chain.tree.activate(tip)
        for stored in self._chain.tree.chain[1:]:
            if stored.block.hash not in self._known:
                self._known.add(stored.block.hash)
                assert self.node.rpc("submitblock", stored.raw.hex()) in {None, "inconclusive"}

    def follow(self) -> str | None:
        """Run the deployment and return what it waits for."""
        with StateEngine(words(), database=self.url, source=self.node.url, confirmations=0) as engine:
            engine.build()
            return engine.waits_for

    def pin(self, block_id: int, block_hash: str) -> None:
        """Pin a block."""
        with connect_migrator(self.url) as connection:
            Tape(connection).pin(block_id, block_hash)

    def words(self) -> set[str]:
        """Return the deployment's words."""
        return words_in(self.url)

    def hashes(self) -> dict[int, str]:
        """Return the deployment's consensus hashes by block."""
        return {row[1]: row[4] for row in content(self.url)["virtualchain.snapshots"]}


@pytest.fixture
def sides(
    bitcoind_factory: Callable[..., Bitcoind], database_server: DatabaseServer
) -> Iterator[tuple[Side, Side]]:
    """Return two nodes with a common past, each with a deployment that follows it."""
    chain = ChainBuilder()
    say(chain, "common", "past")
    pair = tuple(Side(chain, bitcoind_factory(), database_server.clone()) for _ in range(2))
    for side in pair:
        side.submit(side.tip)
        side.follow()
    yield pair[0], pair[1]
    for side in pair:
        database_server.drop(side.url)


def test_two_sides_of_a_fork_continue(sides: tuple[Side, Side]) -> None:
    """Neither side accepts ops that embed a consensus hash of the other, as theirs differ from the fork on.

    The shorter side waits while its node is on the longer one, and continues once it is back.
    """
    left, right = sides
    fork = left.tip.height
    left.mine("left", "left2")
    right.mine("right", "right2", "right3")
    for side in sides:
        side.submit(side.tip)
        side.follow()
        first = side.node.rpc("getblockhash", fork + 1)
        side.pin(fork + 1, first)
    before = content(left.url)

    left.submit(right.tip)
    assert left.node.rpc("getbestblockhash") == right.tip.block.hash
    waits_for = left.follow()
    assert waits_for is not None
    assert f"does not hold the pinned block {fork + 1}" in waits_for
    assert content(left.url) == before

    left.node.rpc("invalidateblock", right.node.rpc("getblockhash", fork + 1))
    right.submit(left.tip)
    ours, theirs = left.hashes(), right.hashes()
    assert ours[fork] == theirs[fork]
    assert ours[fork + 1] != theirs[fork + 1]
    for side, own, foreign in ((left, ours, theirs), (right, theirs, ours)):
        side.mine(f"{own[fork + 2]}:own {foreign[fork + 2]}:foreign {own[fork]}:both")
        side.submit(side.tip)
        side.follow()
    assert left.words() == {"common", "past", "left", "left2", "own", "both"}
    assert right.words() == {"common", "past", "right", "right2", "right3", "own", "both"}
    assert left.hashes()[fork + 3] != right.hashes()[fork + 3]


def test_a_side_changes_branches_with_its_pin(sides: tuple[Side, Side]) -> None:
    """Pinned to the other side's block, a deployment leaves its branch and ends with the same tables."""
    left, right = sides
    fork = left.tip.height
    left.mine("left", "left2", "left3")
    right.mine("right")
    for side in sides:
        side.submit(side.tip)
        side.follow()
    theirs = right.node.rpc("getblockhash", fork + 1)
    left.pin(fork + 1, theirs)
    waits_for = left.follow()
    assert waits_for is not None
    assert f"pinned block {fork + 1}" in waits_for
    left.submit(right.tip)
    left.node.rpc("invalidateblock", left.node.rpc("getblockhash", fork + 1))
    left.follow()
    assert content(left.url) == content(right.url)

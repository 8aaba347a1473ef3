"""Fork*-consistency on two real nodes that are cut apart: what docs/consistency.md says, query by query.

All hashes on that page follow from heights and texts, so they are the same on every run.
"""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.forks.test_real_forks import wait_until
from virtualchain import App, StateEngine
from virtualchain.bitcoin.node.node import open_source
from virtualchain.loading import load_app
from virtualchain.testing.bitcoind import Bitcoind
from virtualchain.testing.database import DatabaseServer

pytestmark = pytest.mark.node

PAGE = Path(__file__).parents[3] / "docs" / "consistency.md"
S = 4
BASE = 116
"""The height up to which the chain holds coins for the authors."""
FORK = 120


def blocks_of(language: str) -> list[str]:
    """Return the page's blocks in a language."""
    text = PAGE.read_text(encoding="utf-8")
    return [match[1] for match in re.finditer(rf"```{language}\n(.*?)```", text, re.DOTALL)]


class Side:
    """A node with an author's wallet, and a deployment that follows it."""

    def __init__(self, node: Bitcoind, url: str, app: App) -> None:
        self.node = node
        self.url = url
        self.app = app
        self._coins: list[Any] = []

    def mine(self, n: int = 1) -> None:
        """Mine blocks, and have the deployment take what it can."""
        self.node.mine(n)
        self.follow()

    def follow(self) -> None:
        """Have the deployment take what it can."""
        with closing(open_source(self.node.url, self.node.cookie)) as source:  # noqa: SIM117 - one is the other's
            with StateEngine(self.app, database=self.url, source=source, confirmations=1) as engine:
                engine.build()

    def ask(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return what a query returns."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement.encode(), parameters or None).fetchall()

    def hash_of(self, block_id: int) -> str:
        """Return the deployment's consensus hash at a block."""
        statement = "SELECT consensus_hash FROM virtualchain.snapshots WHERE block_id = %s"
        [(text,)] = self.ask(statement, block_id)
        return str(text)

    def newest(self) -> str:
        """Return the deployment's newest consensus hash."""
        [(block_id,)] = self.ask("SELECT max(block_id) FROM virtualchain.snapshots")
        return self.hash_of(block_id)

    def write(self, text: str, consensus_hash: str | None = None) -> str:
        """Send an input with the newest hash, or another one, from a coin of the common past; return it."""
        if not self._coins:
            listed = self.node.rpc("listunspent", 100, wallet="virtualchain")
            self._coins = sorted(listed, key=lambda coin: -int(coin["confirmations"]))
        coin = self._coins.pop()
        payload = self.app.build_input("write", text=text, consensus_hash=consensus_hash or self.newest())
        options = {"inputs": [{"txid": coin["txid"], "vout": coin["vout"]}], "add_inputs": False}
        output = [{"data": payload.hex()}]
        sent = self.node.rpc("send", output, None, "unset", 2, options, wallet="virtualchain")
        return str(self.node.rpc("getrawtransaction", sent["txid"]))

    def relay(self, *raws: str) -> None:
        """Hand inputs of the other side to this node."""
        for raw in raws:
            self.node.rpc("sendrawtransaction", raw)

    def ops(self) -> dict[str, int]:
        """Return the block of each accepted text."""
        return dict(self.ask("SELECT fields ->> 'text', block_id FROM virtualchain.ops"))

    def reasons(self, block_id: int) -> list[str]:
        """Return why inputs of a block were rejected, all by the engine's check."""
        rows = self.ask("SELECT reason, step FROM virtualchain.rejections WHERE block_id = %s", block_id)
        assert {step for _, step in rows} <= {"check"}
        return sorted(reason for reason, _ in rows)

    def everything(self) -> list[list[tuple[Any, ...]]]:
        """Return tape and log."""
        return [
            self.ask(f"SELECT * FROM virtualchain.{view} ORDER BY block_id, {order}")
            for view, order in (
                ("blocks", "hash"),
                ("ops", "txindex"),
                ("rejections", "txindex"),
                ("snapshots", "app"),
            )
        ]


def table(side: Side, statement: str) -> str:
    """Return what a query of the page prints there."""
    with psycopg.connect(side.url) as connection:
        cursor = connection.execute(statement.encode())
        names = [column.name for column in cursor.description or ()]
        rows = [["" if value is None else str(value) for value in row] for row in cursor]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in [names, *rows]
    ]
    lines.insert(1, "-+-".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines) + "\n"


@pytest.fixture
def peer() -> str:
    """Return an address for Bob's node to listen on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def sides(
    bitcoind_factory: Callable[..., Bitcoind], database_server: DatabaseServer, tmp_path: Path, peer: str
) -> Iterator[tuple[Side, Side]]:
    """Return Alice's and Bob's sides, connected, with a common past."""
    (tmp_path / "letters.py").write_text(blocks_of("python")[0])
    app = load_app(str(tmp_path / "letters.py"))
    assert isinstance(app, App)
    with ExitStack() as stack:
        urls = [database_server.clone() for _ in range(2)]
        for url in urls:
            stack.callback(database_server.drop, url)
        alice = Side(bitcoind_factory("-listenonion=0", "-connect=0"), urls[0], app)
        bob = Side(
            bitcoind_factory("-listenonion=0", "-connect=0", "-listen=1", f"-bind={peer}"), urls[1], app
        )
        meet(alice, bob, peer)
        bob.node.mine(10)
        agree(alice, bob)
        alice.node.mine(BASE - 10)
        agree(alice, bob)
        yield alice, bob


def meet(alice: Side, bob: Side, peer: str) -> None:
    """Connect the nodes."""
    for side in (alice, bob):
        side.node.rpc("setnetworkactive", True)
    alice.node.rpc("addnode", peer, "onetry")
    wait_until(lambda: alice.node.rpc("getconnectioncount") > 0)


def cut(alice: Side, bob: Side) -> None:
    """Cut the nodes apart."""
    for side in (alice, bob):
        side.node.rpc("setnetworkactive", False)
    wait_until(lambda: not alice.node.rpc("getconnectioncount") and not bob.node.rpc("getconnectioncount"))


def agree(alice: Side, bob: Side) -> None:
    """Wait until the nodes have one tip."""
    wait_until(lambda: alice.node.rpc("getbestblockhash") == bob.node.rpc("getbestblockhash"))


def together(alice: Side, bob: Side, miner: Side, blocks: int) -> None:
    """Mine blocks that both nodes get, and have both deployments take them."""
    miner.node.mine(blocks)
    agree(alice, bob)
    for side in (alice, bob):
        side.follow()


def test_two_sides_of_a_cut(sides: tuple[Side, Side], peer: str) -> None:
    """They join at most once, and when they meet again, there is one history, for both the same."""
    alice, bob = sides

    # Together, both accept what either author writes with the newest hash of a deployment of their own.
    together(alice, bob, alice, 2)
    alice.relay(bob.write("bob 1"), alice.write("alice 1"))
    together(alice, bob, alice, FORK - BASE - 2)
    assert alice.ops() == bob.ops() == {"alice 1": 119, "bob 1": 119}
    assert alice.everything() == bob.everything()

    # Cut apart: a hash from before is fresh on both sides, so what Alice writes at once is accepted on both.
    cut(alice, bob)
    common = alice.newest()
    assert common == bob.newest() == alice.hash_of(119)
    bob.relay(alice.write("alice 2"))
    bob_2 = bob.write("bob 2")
    for side in sides:
        side.mine(2)
    # From then on their hashes differ: neither accepts what the other's author writes.
    ours, theirs = alice.newest(), bob.newest()
    assert ours != theirs
    bob.relay(alice.write("alice 3"))
    alice.relay(bob.write("bob 3"))
    for side in sides:
        side.mine(2)
    # Nor is a hash from before fresh any more.
    bob.relay(alice.write("alice, late", common))
    alice.write("alice 4")
    bob_4 = bob.write("bob 4")
    alice.mine(3)
    bob.mine(2)
    unknown = "unknown: no block before this one has the consensus hash {}"
    assert alice.reasons(123) == [unknown.format(theirs)]
    assert bob.reasons(123) == [unknown.format(ours)]
    late = f"stale: {common} is the consensus hash of block 119, 6 blocks ago; the window is {S}"
    assert alice.reasons(125) == bob.reasons(125) == [late]
    past = {"alice 1": 119, "bob 1": 119, "alice 2": 121}
    assert alice.ops() == {**past, "alice 3": 123, "alice 4": 125}
    assert bob.ops() == {**past, "bob 2": 121, "bob 3": 123, "bob 4": 125}
    self_consistency(alice, bob)
    legitimate_request(alice, bob)
    join_at_most_once(alice, bob)
    printed = [table(side, blocks_of("sql")[query]) for query in (0, 2, 3) for side in sides]

    # They meet again, and Bob's side rolls back.
    before = alice.everything()
    meet(alice, bob, peer)
    agree(alice, bob)
    for side in sides:
        side.follow()
    [(fork, undone)] = bob.ask("SELECT fork_block_id, ops_undone FROM virtualchain.reorgs")
    assert (fork, undone) == (FORK, 4)
    assert alice.ask("SELECT * FROM virtualchain.reorgs") == []
    assert bob.everything() == alice.everything() == before
    # What was in Bob's blocks alone returns to his node, is mined, and is accepted by nobody.
    bob.relay(*(raw for raw in (bob_2, bob_4) if not is_in_mempool(bob, raw)))
    together(alice, bob, bob, 1)
    bob.write("bob 5")
    together(alice, bob, bob, 2)
    assert bob.everything() == alice.everything()
    assert [reason.split(":")[0] for reason in bob.reasons(128)] == ["stale", "unknown"]
    assert bob.ops() == {**past, "alice 3": 123, "alice 4": 125, "bob 5": 129}
    self_consistency(alice, bob)
    legitimate_request(alice, bob)
    printed += [table(bob, blocks_of("sql")[query]) for query in (0, 3)]
    assert blocks_of("text") == printed


def is_in_mempool(side: Side, raw: str) -> bool:
    """Check whether a node has a transaction in its mempool."""
    return side.node.rpc("decoderawtransaction", raw)["txid"] in side.node.rpc("getrawmempool")


def legitimate_request(*sides: Side) -> None:
    """Check that every op names one of the last S blocks of the side's own history."""
    for side in sides:
        rows = side.ask(blocks_of("sql")[0])
        assert len(rows) == len(side.ops())
        assert all(block_id - S <= seen < block_id for block_id, _, seen in rows)


def self_consistency(*sides: Side) -> None:
    """Check that every op names a history that has all earlier ops of its author."""
    for side in sides:
        assert side.ask(blocks_of("sql")[1]) == []


def join_at_most_once(alice: Side, bob: Side) -> None:
    """Check that ops of both sides name a block before the cut, and that no author has two after it."""
    seen = [
        {text: (block_id, at) for block_id, text, at in side.ask(blocks_of("sql")[0])}
        for side in (alice, bob)
    ]
    shared = {text: places for text, places in seen[0].items() if seen[1].get(text) == places}
    assert shared.keys() == seen[0].keys() & seen[1].keys()
    assert all(at <= FORK for _, at in shared.values())
    joined = [text for text, (block_id, _) in shared.items() if block_id > FORK]
    assert joined == ["alice 2"]
    assert all(at > FORK for own in seen for text, (block_id, at) in own.items() if block_id > FORK + 1)

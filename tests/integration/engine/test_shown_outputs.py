"""A node that lies about outputs in ways that look shown: a short script's digest, two blocks at a height."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.conftest import Query
from tests.support.lying_node import intercept, spend_otherwise
from tests.support.text_app import text_app
from virtualchain import App, StateEngine
from virtualchain.bitcoin.block import txids
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.spending import substitute
from virtualchain.errors import MalformedBlock
from virtualchain.testing import FakeNode, key

Build = Callable[..., None]


@pytest.fixture
def build(database_url: str) -> Build:
    """Return a function that runs apps on a node."""

    def run(node: FakeNode, *apps: App, **options: Any) -> None:
        settings: dict[str, Any] = {"database": database_url, "confirmations": 0, **options}
        with StateEngine(*apps, source=open_source(node.url), **settings) as engine:
            engine.build()

    return run


@pytest.mark.parametrize("txindex", [False, True])
@pytest.mark.parametrize("kind", ["p2wpkh", "p2pkh", "p2tr"])
@pytest.mark.parametrize("senders", ["bound", "proved"])
def test_a_digest_does_not_stand_for_a_short_script(
    build: Build, query: Query, senders: str, kind: str, txindex: bool
) -> None:
    """Only a long script is kept as its digest; with that of a short one, a sender would lose its address."""
    with FakeNode(txindex=txindex) as node:
        bob = key("bob", kind)
        node.mine([node.send(to=[(bob, 100_000)])])
        node.mine([node.send(b"sto1", sender=bob)])

        def hide(coin: Any) -> Any:
            return coin._replace(script=substitute(len(coin.script), hashlib.sha256(coin.script).digest()))

        spend_otherwise(node, node.height, hide)
        build(node, text_app(first_block_id=node.height), senders=senders)
        [row] = query("SELECT senders -> 0 -> 'addresses' AS addresses FROM virtualchain.inputs")
        assert row == {"addresses": [bob.address()]}


@pytest.mark.parametrize(("senders", "kind"), [("proved", "p2wpkh"), ("bound", "p2tr")])
def test_a_height_has_one_block(build: Build, senders: str, kind: str) -> None:
    """A block that never was in the chain is not hidden by the tape's, shown at the same height."""
    bob, carol = key("bob", kind), key("carol", kind)
    with FakeNode() as node:
        first, second = (node.send(to=[(who, 100_000)], sender="dave") for who in (bob, carol))
        node.mine()
        [foreign] = node.mine([first])
        height = node.height
        node.invalidate(height - 1)
        node.mine([first])
        [ours] = node.mine([second])
        assert node.height == height
        node.mine(n=2)
        node.mine([node.send(b"sto1", sender=[bob, carol])])
        answers = iter([foreign])
        raise_height(node, first.txid, height, lambda result: next(answers, result))
        with pytest.raises(MalformedBlock, match=f"two blocks were shown at height {height}"):
            build(node, text_app(first_block_id=height - 3, needs=("height",)), senders=senders)
        assert ours != foreign


def raise_height(node: FakeNode, txid: str, height: int, block_at: Callable[[str], str]) -> None:
    """Have the node place a transaction at a height, and then change which block is there."""
    lied: list[int] = []

    def change(_: list[Any], result: Any) -> Any:
        for spending in result.get("vin", ()):
            if spending.get("txid") == txid and "prevout" in spending:
                spending["prevout"]["height"] = height
                lied.append(height)
        return result

    intercept(node, "getrawtransaction", answer=change)
    intercept(
        node,
        "getblockhash",
        answer=lambda parameters, result: block_at(result) if lied and parameters[0] == height else result,
    )


@pytest.mark.parametrize("is_in_front", [False, True])
def test_a_block_in_front_of_the_tape_is_the_one_that_was_shown(
    build: Build, query: Query, is_in_front: bool
) -> None:
    """Blocks in front come from the top down: the one below is on the tape only after the proof."""
    with FakeNode() as node:
        funding = node.send(to=[("bob", 100_000)], sender="dave")
        node.mine(n=5)
        first = node.height - 2
        node.mine()
        [foreign] = node.mine([funding])
        height = node.height
        node.invalidate(height - 1)
        node.mine([funding])
        node.mine()
        node.mine([node.send(b"sto1", sender="bob")])
        node.mine(n=10)
        late = text_app("late", first_block_id=node.height - 2, needs=("height",))
        app = text_app(first_block_id=first, needs=("height",))
        raise_height(node, funding.txid, height, lambda _: foreign)
        if is_in_front:
            build(node, late, senders="proved")
        with pytest.raises(MalformedBlock, match=f"was shown with block {foreign} at height {height}"):
            build(node, *([late] if is_in_front else []), app, senders="proved")
        assert query("SELECT count(*) AS n FROM vc.inputs") == [{"n": 0}]


@pytest.mark.parametrize("height", [105, 999_999, 2**31 - 1])
def test_no_output_was_made_later(build: Build, query: Query, height: int) -> None:
    """Of a node that is believed, too: the tape would hold what no chain can."""
    with FakeNode() as node:
        node.mine([node.send(to=[("bob", 100_000)])])
        node.mine([node.send(b"sto1", sender="bob")])
        raise_height(node, spent_by(node), height, lambda result: result)
        assert node.height < 105
        with pytest.raises(MalformedBlock, match="outputs that were made later"):
            build(node, text_app(first_block_id=node.height, needs=("height",)))
        assert query("SELECT count(*) AS n FROM vc.inputs") == [{"n": 0}]


def spent_by(node: FakeNode) -> str:
    """Return the transaction whose output the tip's last one spends."""
    [before] = node.chain.tree.chain[-2:-1]
    return txids(before.raw)[-1]

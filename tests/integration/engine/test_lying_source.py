"""A source that lies: its data is refused with a clean error and never reaches a table."""

import random
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query
from tests.support.recorded_source import RecordedSource
from virtualchain import App, StateEngine
from virtualchain.bitcoin.curve import tagged_hash, tweak
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.script import op_return
from virtualchain.bitcoin.source import BlockSource
from virtualchain.errors import MalformedBlock, NodeError
from virtualchain.model import SpentOutput, SpentOutputs
from virtualchain.testing import FakeNode, key
from virtualchain.testing.hostile import Spending, unsigned_transaction

EVERYTHING = """
    SELECT block_id, ops_hash, consensus_hash, state_hash,
        ARRAY(SELECT to_jsonb(o) FROM vc.ops AS o WHERE o.block_id = s.block_id ORDER BY vtxindex) AS ops,
        ARRAY(SELECT to_jsonb(i) FROM vc.inputs AS i WHERE i.block_id = s.block_id ORDER BY txindex) AS inputs
    FROM vc.snapshots AS s ORDER BY block_id
"""


def an_app(**options: Any) -> App:
    """Make an app that keeps each text, and its sender in the op."""
    app = App(
        "kept",
        magic=b"ly",
        projections="CREATE TABLE texts (place text PRIMARY KEY, text text NOT NULL)",
        **options,
    )
    app.add(
        b"o",
        parse=lambda payload, senders: {"text": payload.decode(), "sender": senders[0]["script_pubkey"]},
        commit=lambda op, state, block_id, vtxindex: (
            state.execute("INSERT INTO texts VALUES (%s, %s)", [f"{block_id}-{vtxindex}", op["text"]])
            and None
        ),
    )
    return app


def blocks_of(url: str) -> list[tuple[Any, ...]]:
    """Read digests, ops and inputs of every block; the digests cover the projections."""
    with psycopg.connect(url) as connection:
        return connection.execute(EVERYTHING).fetchall()


LIES = {
    "REST": [
        ("garbage", "/rest/headers"),
        ("garbage", "/rest/block/"),
        ("garbage", "spenttxouts"),
        ("truncate", "/rest/block/"),
        ("truncate", "spenttxouts"),
        ("wrong_block", "/rest/block/"),
    ],
    "RPC": [
        ("garbage", "getblock"),
        ("garbage", "getrawtransaction"),
        ("truncate", "getblock"),
        ("wrong_block", "getblock"),
    ],
}


@pytest.mark.parametrize("way", ["REST", "RPC"])
def test_garbled_replies_never_reach_a_table(
    fake_node: FakeNode, database_url: str, fresh_index: Callable[..., str], way: str
) -> None:
    """Garbage, truncated replies and other blocks raise NodeError, and later the honest rows are taken."""
    app = an_app(first_block_id=100)
    seen = []
    source = open_source(fake_node.url, rest=way == "REST")
    with StateEngine(app, database=database_url, source=source, confirmations=0) as engine:
        for number, (kind, part) in enumerate(LIES[way]):
            fake_node.mine([fake_node.send(b"lyo%d-%d" % (number, place)) for place in range(3)])
            fake_node.fail(kind, None, on=part)
            with pytest.raises(NodeError):
                engine.build()
            seen.append(blocks_of(database_url))
            fake_node.heal()
            engine.build()
    honest = blocks_of(fresh_index(app))
    assert blocks_of(database_url) == honest
    assert all(rows == honest[: len(rows)] for rows in seen)


class Impostor:
    """A source that answers like another, but lies about what transactions spend."""

    def __init__(self, source: BlockSource, lie: Callable[[SpentOutputs], Mapping[int, Any]]) -> None:
        self._source = source
        self._lie = lie

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def spent_outputs(self, block_hash: str, transactions: Mapping[int, str]) -> Mapping[int, Any]:
        """Return the lie."""
        spent = self._source.spent_outputs(block_hash, transactions)
        assert isinstance(spent, SpentOutputs)
        return self._lie(spent)


def claiming(script: bytes) -> Callable[[SpentOutputs], Mapping[int, Any]]:
    """Lie that everything was spent from one script."""
    return lambda spent: {
        txindex: [SpentOutput(output.value, script) for output in outputs]
        for txindex, outputs in spent.items()
    }


FALSE_SCRIPTS = {
    kind: claiming(key("victim", kind).script_pubkey) for kind in ("p2pkh", "p2wpkh", "p2sh-p2wpkh")
} | {
    "p2wsh": claiming(b"\x00\x20" + bytes(32)),
    "alice's key in another form": claiming(key("alice", "p2pkh").script_pubkey),
    "in another order": lambda spent: dict(zip(spent, list(spent.values())[::-1], strict=True)),
    "another count": lambda spent: SpentOutputs(spent, "node", [*(spent.counts or ()), 1]),
    "a coinbase that spends": lambda spent: SpentOutputs(spent, "node", [1, *(spent.counts or ())[1:]]),
}


@pytest.mark.parametrize("rest", [True, False])
@pytest.mark.parametrize("lie", FALSE_SCRIPTS.values(), ids=FALSE_SCRIPTS.keys())
def test_false_senders_never_reach_a_table(
    fake_node: FakeNode, database_url: str, query: Query, lie: Any, rest: bool
) -> None:
    """A script whose key or script the input does not reveal is a lie: no op is recorded for its owner."""
    senders = ("alice", "bob") * 8  # so many that RPC asks for the block
    fake_node.mine([fake_node.send(b"lyo%d" % n, sender=who) for n, who in enumerate(senders)])
    honest = open_source(fake_node.url, rest=rest)
    app = an_app(first_block_id=fake_node.height)
    options: Any = {"database": database_url, "confirmations": 0}
    with StateEngine(app, source=Impostor(honest, lie), **options) as engine, pytest.raises(MalformedBlock):
        engine.build()
    assert query("SELECT * FROM vc.inputs") == []
    with StateEngine(app, source=open_source(fake_node.url, rest=rest), **options) as engine:
        engine.build()
    assert len(query("SELECT * FROM vc.ops")) == len(senders)


def test_a_taproot_script_that_was_not_committed_to_is_a_lie(fake_node: FakeNode, database_url: str) -> None:
    """The control block of a script path must lead to the output that was spent."""
    leaf = b"\x51"
    tree = tagged_hash("TapLeaf", b"\xc0\x01" + leaf)
    internal = key("alice", "p2tr").script_pubkey[2:]
    output_key, is_odd = tweak(internal, tree)
    script = b"\x51\x20" + output_key
    spending = Spending(SpentOutput(1000, script), witness=(leaf, bytes([0xC0 + is_odd]) + internal))
    fake_node.mine([unsigned_transaction(1, [spending], [(0, op_return(b"lyohonest"))])])
    source = open_source(fake_node.url)
    app = an_app(first_block_id=fake_node.height)
    options: Any = {"database": database_url, "confirmations": 0}
    lie = claiming(key("victim", "p2tr").script_pubkey)
    with (
        StateEngine(app, source=Impostor(source, lie), **options) as engine,
        pytest.raises(MalformedBlock, match="does not commit"),
    ):
        engine.build()
    with StateEngine(app, source=open_source(fake_node.url), **options) as engine:
        assert engine.build() == fake_node.height


class Liar(RecordedSource):
    """Damages every block at a random place: flips a bit, cuts the rest off, removes a part or adds noise."""

    damage = ""
    dice = random.Random(0)

    def raw_block(self, block_hash: str) -> bytes:
        """Return a block's bytes, damaged after the header."""
        raw = bytearray(super().raw_block(block_hash))
        place = self.dice.randrange(80, len(raw))
        if self.damage == "bit":
            raw[place] ^= 1 << self.dice.randrange(8)
        elif self.damage == "cut":
            del raw[place:]
        elif self.damage == "hole":
            del raw[place : place + 1 + self.dice.randrange(40)]
        elif self.damage == "noise":
            raw[place:] = self.dice.randbytes(len(raw) - place)
        return bytes(raw)


@pytest.mark.parametrize("verify", ["merkle", None])
def test_damaged_blocks_are_refused(database_url: str, query: Query, verify: Any) -> None:
    """A truncated block is always refused, and with the Merkle check so is any flipped bit."""
    txs = [
        {"txindex": place, "txid": f"{place:064x}", "nulldata": (b"lyo" + b"x" * place).hex()}
        for place in (1, 3, 4)
    ]
    source = Liar([{"height": height, "txs": txs} for height in range(5, 9)])
    app = an_app(first_block_id=5)
    with StateEngine(app, database=database_url, source=source, confirmations=0, verify=verify) as engine:
        for damage in ("cut", "hole", "noise", "bit") if verify else ("cut",):
            for _ in range(40):
                source.damage = damage
                with pytest.raises(NodeError):
                    engine.build()
        assert query("SELECT * FROM vc.snapshots") == []
        source.damage = ""
        assert engine.build() == 8
    assert len(query("SELECT * FROM vc.ops")) == 12

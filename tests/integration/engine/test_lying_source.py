"""A source that lies: what it gives is refused in one clean error, and never reaches a table."""

import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Rows
from tests.support.recorded_source import RecordedSource
from virtualchain import App, StateEngine
from virtualchain.bitcoin.node.node import open_source
from virtualchain.errors import NodeError
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Query = Callable[..., Rows]

EVERYTHING = """
    SELECT block_id, ops_hash, consensus_hash, state_hash,
        ARRAY(SELECT to_jsonb(o) FROM vc.ops AS o WHERE o.block_id = s.block_id ORDER BY vtxindex) AS ops,
        ARRAY(SELECT to_jsonb(i) FROM vc.inputs AS i WHERE i.block_id = s.block_id ORDER BY txindex) AS inputs
    FROM vc.snapshots AS s ORDER BY block_id
"""


def an_app(**options: Any) -> App:
    """Make an app that keeps who sent what."""
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


def rows_of(url: str) -> list[tuple[Any, ...]]:
    """Read what a database holds, but for the projections, whose hash is among it."""
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
def test_whatever_a_node_spoils_never_reaches_a_table(
    fake_node: FakeNode, database_server: DatabaseServer, database_url: str, way: str
) -> None:
    """Garbage, halves and other blocks while a block comes in: a NodeError, and later the honest rows."""
    app = an_app(first_block_id=100)
    seen = []
    source = open_source(fake_node.url, rest=way == "REST")
    with StateEngine(app, database=database_url, source=source, confirmations=0) as engine:
        for number, (kind, part) in enumerate(LIES[way]):
            fake_node.mine([fake_node.send(b"lyo%d-%d" % (number, place)) for place in range(3)])
            fake_node.fail(kind, None, on=part)
            with pytest.raises(NodeError):
                engine.build()
            seen.append(rows_of(database_url))
            fake_node.heal()
            engine.build()
    url = database_server.clone()
    with StateEngine(app, database=url, source=fake_node.url, confirmations=0) as engine:
        engine.build()
    honest = rows_of(url)
    database_server.drop(url)
    assert rows_of(database_url) == honest
    assert all(rows == honest[: len(rows)] for rows in seen)


class Liar(RecordedSource):
    """Spoils every block at one place: a bit, the bytes from there on, or a part that is missing."""

    how = ""
    dice = random.Random(0)

    def raw_block(self, block_hash: str) -> bytes:
        """Return a block's bytes, spoilt behind the header."""
        raw = bytearray(super().raw_block(block_hash))
        place = self.dice.randrange(80, len(raw))
        if self.how == "bit":
            raw[place] ^= 1 << self.dice.randrange(8)
        elif self.how == "cut":
            del raw[place:]
        elif self.how == "hole":
            del raw[place : place + 1 + self.dice.randrange(40)]
        elif self.how == "noise":
            raw[place:] = self.dice.randbytes(len(raw) - place)
        return bytes(raw)


@pytest.mark.parametrize("verify", ["merkle", None])
def test_mutated_blocks_are_refused(database_url: str, query: Query, verify: Any) -> None:
    """One that is cut off in any case; with the Merkle root compared a single bit, wherever it is."""
    txs = [
        {"txindex": place, "txid": f"{place:064x}", "nulldata": (b"lyo" + b"x" * place).hex()}
        for place in (1, 3, 4)
    ]
    source = Liar([{"height": height, "txs": txs} for height in range(5, 9)])
    app = an_app(first_block_id=5)
    with StateEngine(app, database=database_url, source=source, confirmations=0, verify=verify) as engine:
        for how in ("cut", "hole", "noise", "bit") if verify else ("cut",):
            for _ in range(40):
                source.how = how
                with pytest.raises(NodeError):
                    engine.build()
        assert query("SELECT * FROM vc.snapshots") == []
        source.how = ""
        assert engine.build() == 8
    assert len(query("SELECT * FROM vc.ops")) == 12

"""Histories of inscriptions, compared with a model that lays out every satoshi, and with fresh indexes."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.support.inscriptions import Coin, envelope, fund, leaf, spend
from tests.support.tables import deployment
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.script import classify
from virtualchain.examples.inscriptions import app
from virtualchain.testing import FakeNode
from virtualchain.testing.transactions import Tx
from virtualchain.testing.wire import read_transaction

PLACES = "SELECT inscription, txid, vout, position, owner FROM inscriptions.locations"
ENDS = """SELECT inscription, status FROM inscriptions.moves AS m WHERE status <> 'held' AND NOT EXISTS (
    SELECT FROM inscriptions.moves AS n WHERE n.inscription = m.inscription AND n.block_id > m.block_id)"""
OP_RETURN = b"\x6a"


@dataclass
class Model:
    """All coins that can be spent, each satoshi with what is inscribed on it, and what became of the rest."""

    coins: dict[Coin, list[list[str]]] = field(default_factory=dict)
    lost: set[tuple[str, str]] = field(default_factory=set)

    def copy(self) -> "Model":
        """Copy what changes."""
        copies = {coin: [list(satoshi) for satoshi in satoshis] for coin, satoshis in self.coins.items()}
        return Model(copies, set(self.lost))

    def apply(
        self, spent: list[Coin], envelopes: list[list[int | None]], tx: Tx, scripts: list[bytes]
    ) -> None:
        """Apply a transaction: its envelopes are, by input, their pointers; its outputs have leaf scripts."""
        paid = read_transaction(tx.raw).outputs
        flow = [self.coins.pop(each) for each in spent]
        starts = [sum(map(len, flow[:n])) for n in range(len(flow))]
        satoshis = [satoshi for satoshis in flow for satoshi in satoshis]
        total = sum(value for value, _ in paid)
        number = 0
        for n, pointers in enumerate(envelopes):
            for pointer in pointers:
                inscription, number = f"{tx.txid}i{number}", number + 1
                if not flow[n]:
                    self.lost.add((inscription, "unbound"))
                else:
                    at = starts[n] if pointer is None or pointer >= total else pointer
                    satoshis[at].append(inscription)
        at = 0
        for vout, ((value, script), leaf_script) in enumerate(zip(paid, scripts, strict=True)):
            part, at = satoshis[at : at + value], at + value
            if script.startswith(OP_RETURN):
                self.lost |= {(each, "burned") for satoshi in part for each in satoshi}
            else:
                self.coins[Coin(tx.txid, vout, value, leaf_script)] = part
        self.lost |= {(each, "fees") for satoshi in satoshis[at:] for each in satoshi}

    def places(self) -> set[tuple[object, ...]]:
        """List where each inscription is, as the table does."""
        return {
            (each, coin.txid, coin.vout, at, classify(coin.pays, network("regtest"))[1][0])
            for coin, satoshis in self.coins.items()
            for at, satoshi in enumerate(satoshis)
            for each in satoshi
        }


class History:
    """Makes blocks at random, and applies them to a model."""

    def __init__(self, node: FakeNode, seed: int) -> None:
        self.node, self.random = node, random.Random(seed)
        self.envelopes: dict[bytes, list[int | None]] = {}
        """By leaf script, the pointers of its envelopes."""
        scripts = [self.script() for _ in range(40)]
        coins = fund(node, *((script, self.random.choice([0, 1, 5, 40, 100])) for script in scripts))
        self.model = Model({coin: [[] for _ in range(coin.value)] for coin in coins})
        self.before: list[Model] = []

    def script(self) -> bytes:
        """Make a leaf script, often with envelopes."""
        pointers = [
            self.random.choice([None, None, self.random.randrange(60)])
            for _ in range(self.random.choice([0, 0, 1, 1, 2, 5]))
        ]
        made = leaf(*map(_pointing, pointers), name=f"{self.random.getrandbits(64):x}")
        self.envelopes[made] = pointers
        return made

    def block(self) -> list[Tx]:
        """Make the transactions of a block; some spend what the block makes."""
        self.before.append(self.model.copy())
        return list(self.transactions())

    def transactions(self) -> Iterator[Tx]:
        """Make some transactions."""
        for _ in range(self.random.randrange(1, 6)):
            known = sorted(self.model.coins)
            spent = self.random.sample(known, min(len(known), self.random.randrange(1, 5)))
            left, scripts, outputs = sum(coin.value for coin in spent), [], []
            sizes = self.random.choices([0, 1, 3, 20, left, left // 2], k=self.random.randrange(1, 5))
            if self.random.random() < 0.8:
                sizes.append(left)  # whatever is left, so that not all goes to fees
            for size in sizes:
                value = min(left, size)
                left -= value
                scripts.append(self.script())
                is_burned = self.random.random() < 0.1
                outputs.append((OP_RETURN if is_burned else Coin("", 0, 0, scripts[-1]).pays, value))
            tx = spend(spent, *outputs)
            self.model.apply(spent, [self.envelopes[coin.script] for coin in spent], tx, scripts)
            yield tx

    def mine(self, blocks: int) -> None:
        """Mine blocks."""
        for _ in range(blocks):
            self.node.mine(self.block())

    def reorg(self, depth: int, blocks: int) -> None:
        """Replace the last blocks by others."""
        self.model = self.before[-depth]
        del self.before[-depth:]
        self.node.reorg(depth, 1, self.block())
        self.mine(blocks - 1)


def _pointing(pointer: int | None) -> bytes:
    return envelope(
        b"\1", b"text/plain", *((b"\2", bytes([pointer])) if pointer is not None else ()), b"", b"x"
    )


@pytest.mark.parametrize("seed", range(2))
def test_every_inscription_is_where_its_satoshi_is(
    fake_node: FakeNode,
    run: Run,
    query: Query,
    fresh_index: Callable[..., str],
    database_url: str,
    seed: int,
) -> None:
    """After each run, also after forks between reveals and moves; and a fresh index has the same rows."""
    history = History(fake_node, seed)

    def check() -> None:
        run(app)
        assert {tuple(row.values()) for row in query(PLACES)} == history.model.places()
        assert {tuple(row.values()) for row in query(ENDS)} == history.model.lost
        assert history.model.places()

    history.mine(8)
    check()
    for depth, blocks in ((1, 2), (4, 6), (9, 10)):
        history.reorg(depth, blocks)
        check()
        history.mine(3)
        check()
    assert query("SELECT count(*) FROM virtualchain.rejections") == [{"count": 0}]
    fresh = fresh_index(app)
    assert deployment(fresh) == deployment(database_url)
    with psycopg.connect(fresh) as connection:
        assert set(connection.execute(PLACES.encode()).fetchall()) == history.model.places()

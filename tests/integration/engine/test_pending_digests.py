"""What the writer derives is the same with and without pending inputs, whatever the node does."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from tests.support.rides import rides_app
from tests.support.tables import tables
from tests.support.traffic import Coin, Made, fund, make, mine, send
from tests.support.zoo import zoo
from virtualchain import StateEngine
from virtualchain.errors import NodeError
from virtualchain.testing.bitcoind import Bitcoind
from virtualchain.testing.database import DatabaseServer


@contextmanager
def following(url: str, node: Bitcoind, k: int, folder: Path, *, pending: bool) -> Iterator[None]:
    """Follow a node in a thread."""
    apps = zoo(hooks=True), rides_app()
    settings: dict[str, Any] = {"confirmations": k, "state_folder": folder, "pending": pending}
    with StateEngine(*apps, database=url, source=node.url, **settings) as engine:
        errors: list[BaseException] = []

        def follow() -> None:
            try:
                engine.follow()
            except BaseException as raised:  # noqa: BLE001 - raised in the test's thread
                errors.append(raised)

        thread = threading.Thread(target=follow)
        thread.start()
        try:
            yield
        finally:
            engine.stop()
            thread.join()
            if errors:
                raise errors[0]


def last_block(url: str) -> tuple[int, str] | None:
    """Return the last block that all apps have taken."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            """SELECT block_id, hash FROM virtualchain.blocks
            WHERE block_id = (SELECT min(block_id) FROM virtualchain.apps) ORDER BY 1 DESC LIMIT 1"""
        ).fetchone()


class Traffic:
    """Random transactions, blocks and reorganizations of one node."""

    def __init__(self, node: Bitcoind, dice: Random) -> None:
        self.node = node
        self.dice = dice
        self.stock: list[Coin] = fund(node, 200)
        self.sent: dict[str, Made] = {}

    def step(self) -> None:
        """Do one thing."""
        free = [self.sent[txid] for txid in self.node.rpc("getrawmempool") if txid in self.sent]
        match self.dice.randrange(10):
            case 9:
                self.reorganize(self.dice.randrange(2))
            case 8:
                mine(self.node, self.dice.randrange(1, 3))
            case 7 if free:
                old = self.dice.choice(free)
                self.send(list(old.spends), old.fee * 3 + 5_000)
            case _:
                is_chained = free and self.dice.random() < 0.4
                spends = self.dice.choice(free).coins[0] if is_chained else self.stock.pop()
                self.send([spends], self.dice.randrange(300, 5000))

    def send(self, spends: list[Coin], fee: int) -> None:
        """Send a transaction, if the node takes it."""
        payloads = [b"zos%d" % self.dice.randrange(10**6), b"rim%d" % self.dice.randrange(9), None]
        made = make(spends, fee, payload=self.dice.choice(payloads))
        with contextlib.suppress(NodeError):
            self.sent[made.txid] = send(self.node, made)

    def reorganize(self, depth: int) -> None:
        """Replace the last block and so many before it by one more."""
        tip = self.node.rpc("getblockcount")
        self.node.rpc("invalidateblock", self.node.rpc("getblockhash", tip - depth))
        other = f"raw(02{self.dice.randbytes(2).hex()}7551)"  # the same block again would be refused
        self.node.rpc("generatetodescriptor", depth + 2, other)


def catch_up(node: Bitcoind, k: int, urls: list[str]) -> None:
    """Wait until the writers have all that they take."""
    height = node.rpc("getblockcount") - k
    expected = (height, node.rpc("getblockhash", height))
    until = time.monotonic() + 40
    while any(last_block(url) != expected for url in urls):
        assert time.monotonic() < until, [last_block(url) for url in urls]
        time.sleep(0.05)


@pytest.mark.parametrize("k", [1, 3])
def test_digests_are_the_same(
    k: int, bitcoind_factory: Callable[..., Bitcoind], database_server: DatabaseServer, tmp_path: Path
) -> None:
    """Tape, log, history and hashes, through random traffic, reorganizations and a deep fork."""
    node = bitcoind_factory()
    traffic = Traffic(node, Random(k))
    urls = [database_server.clone() for _ in range(2)]
    with ExitStack() as stack:
        for url, pending in zip(urls, (True, False), strict=True):
            stack.enter_context(following(url, node, k, tmp_path / str(pending), pending=pending))
        for number in range(60):
            traffic.step()
            if number % 12 == 11:
                catch_up(node, k, urls)
            if number == 40:
                catch_up(node, k, urls)
                traffic.reorganize(k + 2)  # deeper than the writers wait for
        mine(node, k + 1)
        catch_up(node, k, urls)
    shown = [
        {name: rows for name, rows in tables(url).items() if not name.startswith(("vc.pending", "vc.reorgs"))}
        for url in urls
    ]
    assert all(shown[0][f"vc.{name}"] for name in ("ops", "rejections", "snapshots"))
    assert any(rows for name, rows in shown[0].items() if name.endswith("_history"))
    assert shown[0] == shown[1]

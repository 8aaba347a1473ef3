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


@pytest.mark.parametrize("k", [1, 3])
def test_digests_are_the_same(
    k: int, bitcoind_factory: Callable[..., Bitcoind], database_server: DatabaseServer, tmp_path: Path
) -> None:
    """Tape, log, history and hashes, through random traffic, reorganizations and a deep fork."""
    node, dice = bitcoind_factory(), Random(k)
    stock: list[Coin] = fund(node, 200)
    sent: dict[str, Made] = {}
    urls = [database_server.clone() for _ in range(2)]

    def payload() -> bytes | None:
        return dice.choice([b"zos%d" % dice.randrange(10**6), b"rim%d" % dice.randrange(9), b"rimno", None])

    def step() -> None:
        free = [sent[txid] for txid in node.rpc("getrawmempool") if txid in sent]
        kind = dice.randrange(10)
        if kind < 7:
            chained = dice.choice(free).coins[0] if free and dice.random() < 0.4 else stock.pop()
            made = make([chained], dice.randrange(300, 5000), payload=payload())
        elif kind == 7 and free:
            old = dice.choice(free)
            made = make(list(old.spends), old.fee * 3 + 5_000, payload=payload())
        else:
            if kind == 9:
                depth = dice.randrange(2)
                tip = node.rpc("getblockcount")
                node.rpc("invalidateblock", node.rpc("getblockhash", tip - depth))
                other = f"raw(02{dice.randbytes(2).hex()}7551)"
                node.rpc("generatetodescriptor", depth + 2, other)
            else:
                mine(node, dice.randrange(1, 3))
            return
        with contextlib.suppress(NodeError):
            sent[made.txid] = send(node, made)

    def catch_up() -> None:
        height = node.rpc("getblockcount") - k
        expected = (height, node.rpc("getblockhash", height))
        until = time.monotonic() + 40
        while any(last_block(url) != expected for url in urls):
            assert time.monotonic() < until, [last_block(url) for url in urls]
            time.sleep(0.05)

    with ExitStack() as stack:
        for url, pending in zip(urls, (True, False), strict=True):
            stack.enter_context(following(url, node, k, tmp_path / str(pending), pending=pending))
        for number in range(60):
            step()
            if number % 12 == 11:
                catch_up()
            if number == 40:  # deeper than the writers wait for
                tip = node.rpc("getblockcount")
                catch_up()
                node.rpc("invalidateblock", node.rpc("getblockhash", tip - k - 2))
                node.rpc("generatetodescriptor", k + 5, "raw(02aaaa7551)")
        mine(node, k + 1)
        catch_up()
    shown = [
        {name: rows for name, rows in tables(url).items() if not name.startswith(("vc.pending", "vc.reorgs"))}
        for url in urls
    ]
    assert [len(shown[0][f"vc.{name}"]) > 10 for name in ("ops", "rejections", "snapshots")] == 3 * [True]
    assert any(rows for name, rows in shown[0].items() if name.endswith("_history"))
    assert shown[0] == shown[1]

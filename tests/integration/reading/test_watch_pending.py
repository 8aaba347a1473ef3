"""`watch` with pending inputs: each change is an event, in order, whatever happens to blocks and writer."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from tests.integration.engine.test_pending import Reader, following, tokens
from tests.integration.engine.test_pending_traffic import PAYLOADS
from tests.support.traffic import Coin, fund, make, mine, send
from virtualchain import watch
from virtualchain.errors import NodeError
from virtualchain.reading.events import BlockEvent, PendingEvent, RollbackEvent
from virtualchain.testing.bitcoind import Bitcoind


class Follower:
    """Applies the events of a watch as they come."""

    def __init__(self, url: str) -> None:
        self.pending: dict[Any, str] = {}
        self.blocks: dict[int, set[str]] = {}
        self.complaints: list[str] = []
        self._events = watch(url, pending=True)
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        for event in self._events:
            if isinstance(event, PendingEvent):
                for item in event.gone:
                    if self.pending.pop(item.key, None) is None:
                        self.complaints.append(f"{item.key} was not pending")
                self.pending |= {item.key: item.verdict for item in event.inputs}
            elif isinstance(event, RollbackEvent):
                self.blocks = {n: txids for n, txids in self.blocks.items() if n <= event.block_id}
            else:
                assert isinstance(event, BlockEvent)
                if self.blocks and event.block_id != max(self.blocks) + 1:
                    self.complaints.append(f"block {event.block_id} after {max(self.blocks)}")
                self.blocks[event.block_id] = {op.txid for op in event.ops}

    def close(self) -> None:
        """End it."""
        self._events.close()
        self._thread.join()


def step(node: Bitcoind, dice: Random, coins: list[Coin]) -> None:
    """Send, mine or reorganize something."""
    kind = dice.randrange(8)
    if kind < 6:
        spends = [coins.pop() if dice.random() < 0.8 else dice.choice(coins)]
        with suppress(NodeError):
            send(node, make(spends, dice.randrange(300, 9000), payload=dice.choice(PAYLOADS)))
    elif kind == 6:
        mine(node, dice.randrange(1, 3))
    else:
        tip = node.rpc("getblockcount")
        node.rpc("invalidateblock", node.rpc("getblockhash", tip - dice.randrange(3)))
        node.rpc("generatetodescriptor", 4, f"raw(02{dice.randbytes(2).hex()}7551)")


def has_all(follower: Follower, reader: Reader) -> bool:
    """Return whether a follower has what the views have."""
    rows = reader.rows("SELECT app, txid, payload_index, verdict FROM virtualchain.pending")
    blocks: dict[int, set[str]] = {n: set() for n in follower.blocks}
    for op in reader.rows("SELECT block_id, txid FROM virtualchain.ops"):
        blocks.get(op["block_id"], set()).add(op["txid"])
    pending = {(row["app"], row["txid"], row["payload_index"]): row["verdict"] for row in rows}
    return (follower.pending, follower.blocks) == (pending, blocks)


def test_events_are_complete_and_in_order(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str
) -> None:
    """Through blocks, reorganizations, and a writer that ends and starts again."""
    node, dice = bitcoind_factory(), Random(11)
    coins = fund(node, 120)
    app = tokens(by_statements=True)
    with following(app, database_url, node) as reader:
        reader.wait(lambda: len(reader.rows("SELECT FROM virtualchain.snapshots LIMIT 1")) == 1)
    follower = Follower(database_url)

    def follow() -> None:
        with following(app, database_url, node) as reader:
            for _ in range(25):
                step(node, dice, coins)
            last = [{"hash": node.rpc("getblockhash", node.rpc("getblockcount") - 1)}]
            newest = "SELECT hash FROM virtualchain.blocks ORDER BY block_id DESC LIMIT 1"
            reader.wait(lambda: reader.rows(newest) == last)
            reader.wait(lambda: has_all(follower, reader), 10)
            assert follower.complaints == []

    try:
        for _ in range(3):
            follow()
            until = time.monotonic() + 10
            while follower.pending:  # without a writer nothing is pending
                assert time.monotonic() < until
                time.sleep(0.05)
        assert len(follower.blocks) > 10
    finally:
        follower.close()


def test_the_command_writes_json(bitcoind_factory: Callable[..., Bitcoind], database_url: str) -> None:
    """Each event is one object on its own line, and the words say what is pending."""
    node = bitcoind_factory()
    coins = fund(node, 4)
    command = [sys.executable, "-m", "virtualchain", "--database", database_url]
    with following(tokens(), database_url, node) as reader:
        send(node, make([coins.pop()], 1000, payload=b"leax"))
        reader.wait(lambda: len(reader.pending()) == 1)
        with (
            subprocess.Popen([*command, "--json", "watch", "--pending"], stdout=subprocess.PIPE) as machine,
            subprocess.Popen([*command, "watch", "--pending"], stdout=subprocess.PIPE, text=True) as human,
        ):
            try:
                assert machine.stdout is not None
                assert human.stdout is not None
                event = json.loads(machine.stdout.readline())
                assert event["event"] == "pending"
                assert [item["verdict"] for item in event["inputs"]] == ["accepted"]
                assert "(unconfirmed): accepted" in human.stdout.readline()
                mine(node, 2)
                kinds = [json.loads(machine.stdout.readline())["event"] for _ in range(2)]
                assert kinds in (["pending", "block"], ["block", "pending"], ["block", "block"])
            finally:
                machine.terminate()
                human.terminate()

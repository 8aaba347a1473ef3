"""Random traffic in a mempool leaves no stale row, and what is foreseen is what a block does."""

import os
from collections.abc import Callable
from random import Random
from typing import Any

from tests.integration.engine.test_pending import Reader, following, tokens
from tests.support.traffic import Coin, Made, fund, make, mine, send
from virtualchain.errors import NodeError
from virtualchain.testing.bitcoind import Bitcoind

STEPS = int(os.environ.get("VIRTUALCHAIN_TRAFFIC", "40"))
"""Steps of the story; thousands are an hour of a busy app."""
PENDING = "SELECT txid, block_id, verdict, step, reason, changes FROM virtualchain.pending ORDER BY place"
LETTERS = [b"lea" + bytes([letter]) for letter in b"0123456789abcdef"]
PAYLOADS = [*LETTERS, b"lea", b"lez", b"lea\xff", b"other"]


class Traffic:
    """Sends, replaces and mines transactions at random."""

    def __init__(self, node: Bitcoind, seed: int) -> None:
        self.node = node
        self.dice = Random(seed)
        self.coins: list[Coin] = fund(node, 3 * STEPS)
        self.sent: dict[str, Made] = {}

    def step(self) -> None:
        """Do one thing."""
        mempool = set(self.node.rpc("getrawmempool"))
        unconfirmed = [item for txid, item in self.sent.items() if txid in mempool]
        match self.dice.randrange(12):
            case 0 | 1 | 2 | 3 | 4:
                self.try_to_send([self.coins.pop()])
            case 5 | 6 if unconfirmed:
                self.try_to_send([self.dice.choice(unconfirmed).coins[0]])
            case 7 | 8 if unconfirmed:
                spent = self.dice.choice(unconfirmed)
                self.try_to_send(list(spent.spends), fee=spent.fee * 3 + 5_000)
            case 9:
                mine(self.node, self.dice.randrange(1, 3))
            case 10 if unconfirmed:
                chosen = self.dice.choice(unconfirmed)
                alone = self.make(list(chosen.spends), chosen.fee)
                self.try_to_mine([alone.raw.hex()])
            case 11:
                tip = self.node.rpc("getblockcount")
                self.node.rpc("invalidateblock", self.node.rpc("getblockhash", tip - self.dice.randrange(2)))
                other = f"raw(02{self.dice.randbytes(2).hex()}7551)"  # the same block again would be refused
                self.node.rpc("generatetodescriptor", 3, other)

    def make(self, spends: list[Coin], fee: int) -> Made:
        """Make a transaction that carries an input, or nothing."""
        payload = self.dice.choice([*PAYLOADS, None])
        return make(spends, fee, payload=payload)

    def try_to_send(self, spends: list[Coin], fee: int | None = None) -> None:
        """Send a transaction, unless the node refuses it."""
        made = self.make(spends, self.dice.randrange(300, 5_000) if fee is None else fee)
        try:
            send(self.node, made)
        except (NodeError, AssertionError):
            return
        self.sent[made.txid] = made

    def try_to_mine(self, transactions: list[str]) -> None:
        """Mine a block with these alone, if they are valid."""
        try:
            self.node.rpc("generateblock", "raw(51)", transactions)
        except NodeError:
            return


def inputs_of(node: Bitcoind, reader: Reader) -> set[str] | None:
    """Find by the node alone which inputs of the app are in no block that the writer has taken.

    None: the writer has not caught up with the node.
    """
    tip = node.rpc("getblockcount")
    last = reader.rows("SELECT block_id, hash FROM virtualchain.blocks ORDER BY block_id DESC LIMIT 1")
    if last != [{"block_id": tip - 1, "hash": node.rpc("getblockhash", tip - 1)}]:
        return None
    transactions = [node.rpc("getrawtransaction", txid, True) for txid in node.rpc("getrawmempool")]
    transactions += node.rpc("getblock", node.rpc("getblockhash", tip), 2)["tx"][1:]
    return {tx["txid"] for tx in transactions if _has_input(tx)}


def _has_input(tx: dict[str, Any]) -> bool:
    scripts = [output["scriptPubKey"]["hex"] for output in tx["vout"]]
    last = [script for script in scripts if script.startswith("6a")][-1]
    return bytes.fromhex(last)[2:].startswith(b"lea")


def test_traffic_leaves_no_stale_row(bitcoind_factory: Callable[..., Bitcoind], database_url: str) -> None:
    """The views have what the node has, whatever happened; a writer that starts now sees the same."""
    node = bitcoind_factory()
    traffic = Traffic(node, seed=7)
    app = tokens(by_statements=True)
    with following(app, database_url, node) as reader:

        def is_right() -> bool:
            rows = reader.rows(PENDING)
            return {row["txid"] for row in rows} == inputs_of(node, reader) and len(
                {row["txid"] for row in rows}
            ) == len(rows)

        for number in range(STEPS):
            traffic.step()
            if number % 5 == 4:
                reader.wait(is_right)
        reader.wait(is_right)
        before, letters = reader.rows(PENDING), reader.letters()
    with following(app, database_url, node) as reader:
        reader.wait(lambda: reader.rows(PENDING) == before and reader.letters() == letters)
        mine(node, 2)
        reader.wait(lambda: reader.letters("letters") == letters and reader.pending() == {})

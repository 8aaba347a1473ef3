"""The outputs that can be spent behind a block: a node's coin database.

Kept only once somebody asks: a benchmark that brings its blocks together with their undo data never pays
for reading them.
"""

import struct
from collections import defaultdict

from virtualchain.testing.tree import StoredBlock
from virtualchain.testing.undo import Coin, created, make_undo, read_undo
from virtualchain.testing.wire import RawTx, read_block


class Coins:
    """The coins as they are behind one block; `move` brings them to another.

    A coinbase's outputs can be spent at once here. Scripts and signatures are nobody's business.
    """

    def __init__(self) -> None:
        self.at: StoredBlock | None = None
        """The block that they stand behind; None before the first move."""
        self._coins: dict[bytes, Coin] = {}
        self._owned: defaultdict[bytes, dict[bytes, Coin]] = defaultdict(dict)
        self._confirmed: dict[bytes, int] = {}

    def get(self, outpoint: bytes) -> Coin | None:
        """Give the coin at an outpoint (36 bytes), None where there is none or it is spent."""
        return self._coins.get(outpoint)

    def owned(self, script: bytes) -> dict[bytes, Coin]:
        """Give the coins that an output script holds, by outpoint."""
        return self._owned.get(script, {})

    def confirmed(self, txid: bytes) -> int | None:
        """Give the height at which a transaction (its id as computed) stands, None where it does not."""
        return self._confirmed.get(txid)

    def move(self, to: StoredBlock) -> None:
        """Undo and apply blocks until the coins are those behind `to`; fills in the blocks' undo data."""
        coming = []
        at: StoredBlock | None = to
        while at is not self.at:
            assert at is not None, "both blocks stand on the genesis block"
            if self.at is not None and self.at.height >= at.height:
                self._disconnect(self.at)
                self.at = self.at.parent
            else:
                coming.append(at)
                at = at.parent
        for stored in reversed(coming):
            self._connect(stored)
            self.at = stored

    def _connect(self, stored: StoredBlock) -> None:
        spent = []
        for index, tx in enumerate(read_block(stored.raw)):
            spent.append([self._remove(outpoint) for outpoint in tx.outpoints] if index else [])
            self._confirmed[tx.txid] = stored.height
            # The genesis coinbase cannot be spent: no node has it among its coins.
            if stored.parent is not None:
                self._create(tx, stored.height, generated=index == 0)
        known = [[coin for coin in coins if coin is not None] for coins in spent]
        if stored.undo is None and known == spent:
            stored.undo = make_undo(known)

    def _disconnect(self, stored: StoredBlock) -> None:
        transactions = read_block(stored.raw)
        spent = read_undo(stored.undo) if stored.undo is not None else [[] for _ in transactions]
        for tx, coins in zip(reversed(transactions), reversed(spent), strict=True):
            del self._confirmed[tx.txid]
            for place in range(len(tx.outputs)):
                self._remove(tx.txid + struct.pack("<I", place))
            for outpoint, coin in zip(tx.outpoints, coins, strict=False):
                self._add(outpoint, coin)

    def _create(self, tx: RawTx, height: int, *, generated: bool) -> None:
        for outpoint, coin in created(tx, height, generated=generated):
            self._add(outpoint, coin)

    def _add(self, outpoint: bytes, coin: Coin) -> None:
        self._coins[outpoint] = self._owned[coin.script][outpoint] = coin

    def _remove(self, outpoint: bytes) -> Coin | None:
        coin = self._coins.pop(outpoint, None)
        if coin is not None:
            del self._owned[coin.script][outpoint]
        return coin

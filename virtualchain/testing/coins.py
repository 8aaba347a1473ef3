"""The outputs that can be spent, and what every block spent: a node's coin database and its undo data.

Kept only once somebody asks: a benchmark that brings its blocks together with their undo data never pays
for reading them.
"""

import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from virtualchain.testing.wire import RawTx, compact_size, read_block, read_compact_size, serialise_output

if TYPE_CHECKING:
    from virtualchain.testing.tree import StoredBlock


class Coin(NamedTuple):
    """An output, and where it was created."""

    value: int
    script: bytes
    height: int
    generated: bool
    """Whether a coinbase created it."""


@dataclass(frozen=True, slots=True)
class Undo:
    """What the transactions of a block spend."""

    outputs: bytes
    """As `/rest/spenttxouts` serialises it: per transaction its spent outputs, none for the coinbase."""
    origins: bytes
    """Per spent output 4 bytes, little-endian: twice the height of its creation, plus 1 for a coinbase's."""


def make_undo(spent: Sequence[Sequence[Coin]]) -> Undo:
    """Serialise what each transaction of a block spends; the coinbase comes first and spends nothing."""
    outputs = [compact_size(len(spent))]
    origins = []
    for coins in spent:
        outputs.append(compact_size(len(coins)))
        for coin in coins:
            outputs.append(serialise_output(coin.value, coin.script))
            origins.append(coin.height << 1 | coin.generated)
    return Undo(b"".join(outputs), struct.pack(f"<{len(origins)}I", *origins))


def read_undo(undo: Undo) -> list[list[Coin]]:
    """Give what each transaction of a block spends."""
    origins = iter(struct.unpack(f"<{len(undo.origins) // 4}I", undo.origins))
    raw, spent = undo.outputs, []
    transactions, at = read_compact_size(raw, 0)
    for _ in range(transactions):
        count, at = read_compact_size(raw, at)
        coins = []
        for _ in range(count):
            (value,) = struct.unpack_from("<q", raw, at)
            length, at = read_compact_size(raw, at + 8)
            origin = next(origins)
            coins.append(Coin(value, raw[at : at + length], origin >> 1, bool(origin & 1)))
            at += length
        spent.append(coins)
    return spent


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

    def move(self, to: "StoredBlock") -> None:
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

    def _connect(self, stored: "StoredBlock") -> None:
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

    def _disconnect(self, stored: "StoredBlock") -> None:
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


def created(tx: RawTx, height: int, *, generated: bool) -> Iterator[tuple[bytes, Coin]]:
    """Give the coins that a transaction at `height` creates, by outpoint; an OP_RETURN creates none."""
    for place, (value, script) in enumerate(tx.outputs):
        if not script.startswith(b"\x6a"):
            yield tx.txid + struct.pack("<I", place), Coin(value, script, height, generated)

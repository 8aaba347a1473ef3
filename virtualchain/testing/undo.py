"""Coins, and undo data: what the transactions of a block spend, as nodes store and serve it."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from virtualchain.testing.wire import RawTx, compact_size, read_compact_size, serialize_output


class Coin(NamedTuple):
    """An output, the height at which it was created, and whether a coinbase created it."""

    value: int
    script: bytes
    height: int
    generated: bool


@dataclass(frozen=True, slots=True)
class Undo:
    """What the transactions of a block spend."""

    outputs: bytes
    """Serialized as by `/rest/spenttxouts`: the outputs that each transaction spends, the coinbase none."""
    origins: bytes
    """4 bytes for each spent output, little-endian: twice its height, plus 1 if a coinbase created it."""


def make_undo(spent: Sequence[Sequence[Coin]]) -> Undo:
    """Serialize what each transaction of a block spends; the coinbase comes first and spends nothing."""
    outputs = [compact_size(len(spent))]
    origins = []
    for coins in spent:
        outputs.append(compact_size(len(coins)))
        for coin in coins:
            outputs.append(serialize_output(coin.value, coin.script))
            origins.append(coin.height << 1 | coin.generated)
    return Undo(b"".join(outputs), struct.pack(f"<{len(origins)}I", *origins))


def read_undo(undo: Undo) -> list[list[Coin]]:
    """Return what each transaction of a block spends."""
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


def created_coins(tx: RawTx, height: int, *, generated: bool) -> Iterator[tuple[bytes, Coin]]:
    """Yield the outpoints and coins that a transaction at `height` creates; an OP_RETURN creates none."""
    for vout, (value, script) in enumerate(tx.outputs):
        if not script.startswith(b"\x6a"):
            yield tx.txid + struct.pack("<I", vout), Coin(value, script, height, generated)

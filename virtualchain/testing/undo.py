"""What the transactions of a block spend: coins, and undo data as nodes write and serve it."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from virtualchain.testing.wire import RawTx, compact_size, read_compact_size, serialise_output


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


def created(tx: RawTx, height: int, *, generated: bool) -> Iterator[tuple[bytes, Coin]]:
    """Give the coins that a transaction at `height` creates, by outpoint; an OP_RETURN creates none."""
    for place, (value, script) in enumerate(tx.outputs):
        if not script.startswith(b"\x6a"):
            yield tx.txid + struct.pack("<I", place), Coin(value, script, height, generated)

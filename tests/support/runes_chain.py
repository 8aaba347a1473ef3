"""Transactions and messages of Runes for tests, unsigned; what they spend is recorded beside them."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from virtualchain.bitcoin.script import push
from virtualchain.bitcoin.transaction import read_outputs
from virtualchain.consensus.hashing import sha256d
from virtualchain.testing.wire import compact_size, outpoint, serialize_output

OP_RETURN = b"\x6a"
P2WPKH = b"\x00\x14"
TAPROOT = b"\x51\x20" + b"\x07" * 32
_NUMBERS = count()

TAGS = {
    "divisibility": 1,
    "flags": 2,
    "spacers": 3,
    "rune": 4,
    "symbol": 5,
    "premine": 6,
    "cap": 8,
    "amount": 10,
    "height_start": 12,
    "height_end": 14,
    "offset_start": 16,
    "offset_end": 18,
    "mint": 20,
    "pointer": 22,
}
ETCHING, TERMS, TURBO = 1, 2, 4


def leb128(value: int) -> bytes:
    """Write an integer of a message."""
    groups = [value >> at & 127 for at in range(0, max(value.bit_length(), 1), 7)]
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def runestone(
    edicts: Iterable[tuple[int, int, int, int]] = (),
    extra: Iterable[int] = (),
    **fields: int | tuple[int, ...],
) -> bytes:
    """Write the script of a message: fields by the names in TAGS, other integers, then edicts."""
    integers: list[int] = []
    for name, value in fields.items():
        for each in value if isinstance(value, tuple) else (value,):
            integers += [TAGS[name], each]
    integers += extra
    body = [number for edict in edicts for number in edict]
    return script_of([*integers, *([0, *body] if body else [])])


def script_of(integers: Iterable[int]) -> bytes:
    """Write the script of a message from its integers, in pushes of at most 520 bytes."""
    payload = b"".join(map(leb128, integers))
    pushes = [push(payload[at : at + 520]) for at in range(0, len(payload), 520)]
    return b"\x6a\x5d" + b"".join(pushes)


def owner(name: str) -> bytes:
    """Return a p2wpkh script of somebody."""
    return P2WPKH + sha256d(name.encode())[:20]


@dataclass(frozen=True)
class Coin:
    """An output that can be spent, and the height of its block."""

    txid: str
    vout: int
    script: bytes
    height: int

    @property
    def key(self) -> str:
        """How a scenario names it."""
        return f"{self.txid}:{self.vout}"


@dataclass(frozen=True)
class Spent:
    """An input."""

    coin: Coin
    witness: tuple[bytes, ...] = ()


def commit(
    number: int, coin: Coin, prefix: bytes = b"", suffix: Sequence[bytes] = (b"\xc0" + bytes(32),)
) -> Spent:
    """Spend a coin with a witness that commits to a name."""
    data = number.to_bytes(16, "little").rstrip(b"\0")
    return Spent(coin, (prefix + (push(data) if data else b"\0"), *suffix))


def fresh_coin(height: int, script: bytes = TAPROOT, name: str | None = None) -> Coin:
    """Return a coin that no transaction of the test has made; with a name, always the same."""
    return Coin(sha256d((name or f"coin {next(_NUMBERS)}").encode()).hex(), 0, script, height)


def transaction(
    inputs: Sequence[Spent], outputs: Sequence[bytes], locktime: int = 0, value: int = 1000
) -> bytes:
    """Serialize a transaction whose outputs have so many satoshi each."""
    body = b"".join(
        [
            compact_size(len(inputs)),
            *(outpoint(item.coin.txid, item.coin.vout) + b"\0" + b"\xff" * 4 for item in inputs),
            compact_size(len(outputs)),
            *(serialize_output(value, script) for script in outputs),
        ]
    )
    witness = b""
    if any(item.witness for item in inputs):
        for item in inputs:
            witness += compact_size(len(item.witness))
            witness += b"".join(compact_size(len(part)) + part for part in item.witness)
    marker = b"\0\1" if witness else b""
    return struct.pack("<i", 2) + marker + body + witness + struct.pack("<I", locktime)


def coinbase(height: int, outputs: Sequence[bytes], salt: int = 0) -> bytes:
    """Serialize a coinbase."""
    script = push(struct.pack("<II", height, salt))
    spending = bytes(32) + b"\xff" * 4 + compact_size(len(script)) + script + b"\xff" * 4
    made = b"".join(serialize_output(0, each) for each in outputs)
    return struct.pack("<i", 2) + b"\1" + spending + compact_size(len(outputs)) + made + bytes(4)


def txid_of(raw: bytes) -> str:
    """Return a transaction's id."""
    return read_outputs(raw)[0]


def coins_of(raw: bytes, height: int) -> list[Coin]:
    """Return the outputs of a transaction in a block at a height."""
    txid, outputs = read_outputs(raw)
    return [Coin(txid, vout, output.script_pubkey, height) for vout, output in enumerate(outputs)]


def prevouts_of(inputs: Iterable[Spent]) -> dict[str, list[Any]]:
    """Return what inputs spend, as a scenario has it."""
    return {item.coin.key: [1000, item.coin.script.hex(), item.coin.height] for item in inputs}

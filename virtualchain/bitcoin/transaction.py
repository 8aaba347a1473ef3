"""Decode transactions from their serialized form (BIP 144)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from virtualchain.bitcoin.header import display_hash, sha256d
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.script import classify
from virtualchain.bitcoin.walk import long_count
from virtualchain.errors import MalformedBlock
from virtualchain.model import Lazy, Output, SpentOutput, TxIn

MAX_MONEY: Final = 21_000_000 * 100_000_000
"""Satoshi: Bitcoin Core's upper limit for any amount."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """A decoded transaction."""

    txid: str
    inputs: tuple[TxIn, ...]
    paid: tuple[SpentOutput, ...]
    """The values and scripts of its outputs."""
    outputs: Sequence[Output]
    """Its outputs with types and addresses, which take longer than everything else: made when looked at."""


def read_transaction(raw: bytes, network: Network) -> Transaction:
    """Decode one serialized transaction, with or without witness; raises MalformedBlock for anything else."""
    inputs, paid, txid = _decode(raw)

    def describe() -> tuple[Output, ...]:
        return tuple(
            Output(n, output.value, output.script_pubkey.hex(), *classify(output.script_pubkey, network))
            for n, output in enumerate(paid)
        )

    return Transaction(txid, inputs, paid, Lazy(describe))


def read_inputs(raw: bytes) -> tuple[TxIn, ...]:
    """Decode only the inputs of one serialized transaction; raises MalformedBlock like `read_transaction`."""
    return _decode(raw)[0]


def read_outputs(raw: bytes) -> tuple[str, tuple[SpentOutput, ...]]:
    """Decode only the id and the outputs of one serialized transaction; raises MalformedBlock likewise."""
    _, paid, txid = _decode(raw)
    return txid, paid


def hash_transaction(raw: bytes, outputs_end: int) -> bytes:
    """Compute the id of a serialized transaction, as it is hashed: without the witness (BIP 141)."""
    if raw[4]:
        return sha256d(raw)
    return sha256d(raw[:4] + raw[6:outputs_end] + raw[-4:])


def read_count(raw: bytes, at: int) -> tuple[int, int]:
    """Read the count or length at `at` (Bitcoin Core's compact size); returns it and where it ends."""
    first = raw[at]
    return (first, at + 1) if first < 0xFD else long_count(raw, at)


def read_number(raw: bytes, at: int) -> tuple[int, int]:
    """Read a count or length like `read_count`, of data of which more is to come: it may be any number."""
    first = raw[at]
    if first < 0xFD:
        return first, at + 1
    end = at + 1 + (2 << (first - 0xFD))
    if end > len(raw):
        raise IndexError("the data end in a count")
    value = int.from_bytes(raw[at + 1 : end], "little")
    if value < (0xFD, 1 << 16, 1 << 32)[first - 0xFD]:
        raise MalformedBlock(f"a count of {value} is written in {end - at} bytes, more than it needs")
    return value, end


class _Reader:
    """Takes the fields of one serialized transaction, in order."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.at = 0

    def take(self, size: int) -> bytes:
        """Take the next `size` bytes."""
        end = self.at + size
        if end > len(self._raw):
            raise MalformedBlock(f"a transaction ends {end - len(self._raw)} bytes too early")
        taken = self._raw[self.at : end]
        self.at = end
        return taken

    def number(self, size: int, *, signed: bool = False) -> int:
        """Take a little-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def count(self) -> int:
        """Take a count or length of variable size."""
        first = self.number(1)
        if first < 0xFD:
            return first
        value, self.at = long_count(self._raw, self.at - 1)
        return value

    def script(self) -> bytes:
        """Take a length, then that many bytes."""
        return self.take(self.count())


def _decode(raw: bytes) -> tuple[tuple[TxIn, ...], tuple[SpentOutput, ...], str]:
    """Decode a transaction to its inputs, its outputs, and its id."""
    reader = _Reader(raw)
    reader.take(4)
    has_witness = raw[4:5] == b"\0"
    if has_witness and reader.take(2) != b"\0\1":
        raise MalformedBlock("a transaction has no input")
    spendings = [
        (display_hash(reader.take(32)), reader.number(4), reader.script(), reader.number(4))
        for _ in range(reader.count())
    ]
    paid = tuple(SpentOutput(reader.number(8, signed=True), reader.script()) for _ in range(reader.count()))
    outputs_end = reader.at
    witnesses: list[tuple[bytes, ...]] = [
        tuple(reader.script() for _ in range(reader.count())) if has_witness else () for _ in spendings
    ]
    if has_witness and not any(witnesses):  # the network rejects it too: a transaction has only one form
        raise MalformedBlock("a transaction announces a witness but has none")
    reader.take(4)
    if reader.at != len(raw):
        raise MalformedBlock(f"{len(raw) - reader.at} bytes follow a transaction's end")
    inputs = tuple(TxIn(*spending, witness) for spending, witness in zip(spendings, witnesses, strict=True))
    return inputs, paid, display_hash(hash_transaction(raw, outputs_end))

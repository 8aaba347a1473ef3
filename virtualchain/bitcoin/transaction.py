"""Decode transactions from their serialized form (BIP 144)."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from virtualchain.bitcoin.compiled import show_outputs
from virtualchain.bitcoin.header import display_hash, sha256d
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.script import classify
from virtualchain.bitcoin.walk import long_count
from virtualchain.errors import MalformedBlock
from virtualchain.model import OUTPOINT, Lazy, Output, SpentOutput, TxIn

MAX_MONEY: Final = 21_000_000 * 100_000_000
"""Satoshi: Bitcoin Core's upper limit for any amount."""
NO_TXID: Final = "00" * 32
"""What the input of a coinbase names in place of a transaction."""

_OUTPOINT: Final = struct.Struct("<32sI")
_SEQUENCE: Final = struct.Struct("<I")
_AMOUNT: Final = struct.Struct("<q")


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
    inputs, paid, outputs_end = _decode(raw)
    return Transaction(_txid(raw, outputs_end), inputs, paid, Lazy(_describe, (raw, paid, network)))


def _describe(transaction: tuple[bytes, Sequence[SpentOutput], Network]) -> tuple[Output, ...]:
    raw, outputs, network = transaction
    shown = show_outputs(raw, network.forms)
    if shown is not None:
        return tuple(map(Output._make, shown))
    return tuple(
        Output(n, output.value, output.script_pubkey.hex(), *classify(output.script_pubkey, network))
        for n, output in enumerate(outputs)
    )


def read_inputs(raw: bytes) -> tuple[TxIn, ...]:
    """Decode only the inputs of one serialized transaction; raises MalformedBlock like `read_transaction`."""
    return _decode(raw)[0]


def read_outputs(raw: bytes) -> tuple[str, tuple[SpentOutput, ...]]:
    """Decode only the id and the outputs of one serialized transaction; raises MalformedBlock likewise."""
    _, paid, outputs_end = _decode(raw)
    return _txid(raw, outputs_end), paid


def write_transaction(inputs: Sequence[TxIn], outputs: Iterable[SpentOutput]) -> bytes:
    """Serialize a transaction of version 2 without a lock time, with a witness if there is one (BIP 144)."""
    paid = list(outputs)
    has_witness = any(item.witness for item in inputs)
    parts = [b"\x02\0\0\0", b"\0\x01" if has_witness else b"", write_count(len(inputs))]
    for item in inputs:
        parts += [bytes.fromhex(item.txid)[::-1], item.vout.to_bytes(4, "little")]
        parts += [write_count(len(item.script_sig)), item.script_sig, _SEQUENCE.pack(item.sequence)]
    parts += [write_count(len(paid)), pack_outputs(paid)]
    for item in inputs if has_witness else ():
        parts.append(write_count(len(item.witness)))
        parts += [write_count(len(element)) + element for element in item.witness]
    return b"".join([*parts, bytes(4)])


def pack_outputs(outputs: Iterable[SpentOutput]) -> bytes:
    """Serialize values and scripts one after the other, each as in a transaction."""
    return b"".join(
        _AMOUNT.pack(output.value) + write_count(len(output.script_pubkey)) + output.script_pubkey
        for output in outputs
    )


def unpack_outputs(packed: bytes) -> tuple[SpentOutput, ...]:
    """Read what `pack_outputs` wrote; raises MalformedBlock for anything else."""
    outputs, at = [], 0
    try:
        while at < len(packed):
            (value,) = _AMOUNT.unpack_from(packed, at)
            start, at = _read_script(packed, at + 8)
            outputs.append(SpentOutput(value, packed[start:at]))
    except (IndexError, struct.error) as error:
        raise MalformedBlock("the outputs that a transaction spends end too early") from error
    if at != len(packed):
        raise MalformedBlock("the outputs that a transaction spends end too early")
    return tuple(outputs)


def split_outpoints(packed: bytes) -> list[bytes]:
    """Split outpoints that are one after the other, see `OUTPOINT`."""
    return [packed[at : at + OUTPOINT] for at in range(0, len(packed), OUTPOINT)]


def hash_transaction(raw: bytes, outputs_end: int) -> bytes:
    """Compute the id of a serialized transaction, as it is hashed: without the witness (BIP 141)."""
    if raw[4]:
        return sha256d(raw)
    return sha256d(raw[:4] + raw[6:outputs_end] + raw[-4:])


def without_witness(raw: bytes) -> bytes:
    """Return a serialized transaction as its id hashes it; raises MalformedBlock if it is not one."""
    outputs_end = _decode(raw)[2]
    return raw if raw[4] else raw[:4] + raw[6:outputs_end] + raw[-4:]


def read_count(raw: bytes, at: int) -> tuple[int, int]:
    """Read the count or length at `at` (Bitcoin Core's compact size); returns it and where it ends."""
    first = raw[at]
    return (first, at + 1) if first < 0xFD else long_count(raw, at)


def write_count(number: int) -> bytes:
    """Write a count or length of at most four bytes as `read_count` reads it."""
    if number < 0xFD:
        return bytes([number])
    size, prefix = (2, b"\xfd") if number < 1 << 16 else (4, b"\xfe")
    return prefix + number.to_bytes(size, "little")


def skip_body(raw: bytes, at: int) -> tuple[int, int]:
    """Return how many inputs a transaction has whose count of them is at `at`, and where its outputs end.

    That may be past the end of the bytes; raises IndexError if a count is.
    """
    inputs, at = read_count(raw, at)
    for _ in range(inputs):
        length, at = read_count(raw, at + 36)
        at += length + 4
    outputs, at = read_count(raw, at)
    for _ in range(outputs):
        length, at = read_count(raw, at + 8)
        at += length
    return inputs, at


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


def _txid(raw: bytes, outputs_end: int) -> str:
    return display_hash(hash_transaction(raw, outputs_end))


def _decode(raw: bytes) -> tuple[tuple[TxIn, ...], tuple[SpentOutput, ...], int]:
    """Decode a transaction to its inputs, its outputs, and where these end.

    A slice of bytes that end too early is too short, which is noticed after it, or at the end.
    """
    try:
        return _read_fields(raw)
    except (IndexError, struct.error) as error:
        raise MalformedBlock("a transaction ends too early") from error


def _read_fields(raw: bytes) -> tuple[tuple[TxIn, ...], tuple[SpentOutput, ...], int]:
    at = 4
    has_witness = not raw[at]
    if has_witness:
        if raw[at + 1] != 1:
            raise MalformedBlock("a transaction has no input")
        at += 2
    count, at = read_count(raw, at)
    spendings: list[tuple[str, int, bytes, int]] = []
    for _ in range(count):
        txid, vout = _OUTPOINT.unpack_from(raw, at)
        start, at = _read_script(raw, at + 36)
        (sequence,) = _SEQUENCE.unpack_from(raw, at)
        spendings.append((display_hash(txid), vout, raw[start:at], sequence))
        at += 4
    count, at = read_count(raw, at)
    paid = []
    for _ in range(count):
        (value,) = _AMOUNT.unpack_from(raw, at)
        start, at = _read_script(raw, at + 8)
        paid.append(SpentOutput(value, raw[start:at]))
    outputs_end = at
    witnesses: Sequence[tuple[bytes, ...]] = [()] * len(spendings)
    if has_witness:
        witnesses, at = _read_witnesses(raw, at, len(spendings))
    at += 4
    if at > len(raw):
        raise MalformedBlock(f"a transaction ends {at - len(raw)} bytes too early")
    if at < len(raw):
        raise MalformedBlock(f"{len(raw) - at} bytes follow a transaction's end")
    inputs = tuple(TxIn(*spending, witness) for spending, witness in zip(spendings, witnesses, strict=True))
    return inputs, tuple(paid), outputs_end


def _read_witnesses(raw: bytes, at: int, inputs: int) -> tuple[list[tuple[bytes, ...]], int]:
    """Read the witnesses of all inputs; returns them and where they end."""
    witnesses = []
    for _ in range(inputs):
        count, at = read_count(raw, at)
        items = []
        for _ in range(count):
            start, at = _read_script(raw, at)
            items.append(raw[start:at])
        witnesses.append(tuple(items))
    if not any(witnesses):  # the network rejects it too: a transaction has only one form
        raise MalformedBlock("a transaction announces a witness but has none")
    return witnesses, at


def _read_script(raw: bytes, at: int) -> tuple[int, int]:
    """Read a length; returns where what is so long starts and ends."""
    length = raw[at]
    if length < 0xFD:
        return at + 1, at + 1 + length
    length, start = long_count(raw, at)
    return start, start + length

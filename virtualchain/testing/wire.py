"""Serialized transactions as the chain builder needs them: what they spend, what they create, and their ids.

This code deliberately shares nothing with `virtualchain.bitcoin.block`: the fake node's view of a block must
not repeat a mistake of the code that is tested against it.
"""

import struct
from dataclasses import dataclass
from typing import Final

from virtualchain.consensus.hashing import sha256d
from virtualchain.errors import MalformedBlock

HEADER_SIZE: Final = 80
_SIZES: Final = {0xFD: 2, 0xFE: 4, 0xFF: 8}


@dataclass(frozen=True, slots=True)
class RawTx:
    """A transaction cut out of its block's bytes; hashes are in internal byte order."""

    raw: bytes
    txid: bytes
    outpoints: tuple[bytes, ...]
    """36 bytes for each input: txid and index (4 bytes, little-endian) of the output that it spends."""
    outputs: tuple[tuple[int, bytes], ...]
    """Satoshi and script of each output."""
    stripped_size: int
    """Bytes without the witness."""

    @property
    def weight(self) -> int:
        """Return the weight (BIP 141)."""
        return 3 * self.stripped_size + len(self.raw)


def compact_size(number: int) -> bytes:
    """Serialize a count or length as Bitcoin does."""
    if number < 0xFD:
        return bytes([number])
    for marker, size in _SIZES.items():
        if number < 1 << 8 * size:
            return bytes([marker]) + number.to_bytes(size, "little")
    raise OverflowError(f"{number} does not fit into a compact size of Bitcoin's wire format")


def read_compact_size(raw: bytes, at: int) -> tuple[int, int]:
    """Read a count or length at offset `at`; return it and the offset after it. IndexError at the end."""
    first = raw[at]
    if first < 0xFD:
        return first, at + 1
    end = at + 1 + _SIZES[first]
    return int.from_bytes(raw[at + 1 : end], "little"), end


def outpoint(txid: str, vout: int) -> bytes:
    """Serialize a reference to an output; `txid` is in display order."""
    return bytes.fromhex(txid)[::-1] + struct.pack("<I", vout)


def serialize_output(value: int, script: bytes) -> bytes:
    """Serialize an output: 8 bytes of satoshi, the script's length, the script."""
    return struct.pack("<q", value) + compact_size(len(script)) + script


def read_transaction(raw: bytes) -> RawTx:
    """Read one serialized transaction; raises MalformedBlock for anything else."""
    tx, end = _read(raw, 0)
    if end != len(raw):
        raise MalformedBlock(f"{len(raw) - end} bytes follow the transaction {tx.txid[::-1].hex()}")
    return tx


def read_block(raw: bytes) -> list[RawTx]:
    """Read all transactions of a serialized block; raises MalformedBlock if they do not fill it exactly."""
    try:
        count, at = read_compact_size(raw, HEADER_SIZE)
    except IndexError as error:
        raise MalformedBlock("the block ends within its header") from error
    transactions = []
    for _ in range(count):
        tx, at = _read(raw, at)
        transactions.append(tx)
    if at != len(raw):
        raise MalformedBlock(f"{len(raw) - at} bytes follow the block's last transaction")
    return transactions


def cut_transaction(raw: bytes, start: int) -> RawTx:
    """Read the transaction that starts at an offset of a block; raises MalformedBlock if it ends early."""
    return _read(raw, start)[0]


def _read(raw: bytes, start: int) -> tuple[RawTx, int]:
    try:
        tx, end = _cut(raw, start)
    except (IndexError, struct.error) as error:
        raise MalformedBlock(f"the transaction at byte {start} is cut off") from error
    if end > len(raw):
        raise MalformedBlock(f"the transaction at byte {start} is cut off")
    return tx, end


def _cut(raw: bytes, start: int) -> tuple[RawTx, int]:
    # A zero in place of the input count marks a transaction with a witness (BIP 144).
    has_witness = raw[start + 4] == 0
    body = at = start + (6 if has_witness else 4)
    inputs, at = read_compact_size(raw, at)
    outpoints = []
    for _ in range(inputs):
        outpoints.append(raw[at : at + 36])
        length, at = read_compact_size(raw, at + 36)
        at += length + 4
    count, at = read_compact_size(raw, at)
    outputs = []
    for _ in range(count):
        (value,) = struct.unpack_from("<q", raw, at)
        length, at = read_compact_size(raw, at + 8)
        outputs.append((value, raw[at : at + length]))
        at += length
    witness = at
    if has_witness:
        for _ in range(inputs):
            items, at = read_compact_size(raw, at)
            for _ in range(items):
                length, at = read_compact_size(raw, at)
                at += length
    end = at + 4
    stripped = raw[start : start + 4] + raw[body:witness] + raw[at:end]
    tx = RawTx(raw[start:end], sha256d(stripped), tuple(outpoints), tuple(outputs), len(stripped))
    return tx, end

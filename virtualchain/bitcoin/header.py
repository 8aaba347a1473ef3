"""Block headers: the 80 bytes that identify a block, its parent and its transactions, and their work."""

import struct
from collections.abc import Iterable
from typing import Final

from virtualchain.consensus.hashing import sha256d
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block

__all__ = [
    "HEADER_SIZE",
    "branch_work",
    "display_hash",
    "headers_from",
    "read_header",
    "sha256d",
    "target",
    "work",
]

HEADER_SIZE: Final = 80
_FIELDS = struct.Struct("<i32s32sIII")


def display_hash(digest: bytes) -> str:
    """Write a hash in display order, as block explorers do: hex, the bytes reversed."""
    return digest[::-1].hex()


def read_header(block_id: int, header: bytes, auxpow: bytes = b"") -> Block:
    """Read an 80-byte header as the block at height `block_id`; an AuxPoW is only kept with it.

    Raises MalformedBlock unless there are exactly 80 bytes.
    """
    if len(header) != HEADER_SIZE:
        raise MalformedBlock(f"block {block_id}: a header has {HEADER_SIZE} bytes, not {len(header)}")
    _version, parent, merkle_root, time, bits, _nonce = _FIELDS.unpack(header)
    return Block(
        block_id=block_id,
        hash=display_hash(sha256d(header)),
        prev_hash=display_hash(parent),
        merkle_root=display_hash(merkle_root),
        time=time,
        bits=bits,
        header=bytes(header),
        auxpow=auxpow,
    )


def headers_from(block_id: int, blob: bytes) -> list[Block]:
    """Read concatenated headers, the first of them at height `block_id`.

    Does not check that they form a chain. Raises MalformedBlock if the last one is truncated.
    """
    starts = range(0, len(blob), HEADER_SIZE)
    return [
        read_header(block_id + place, blob[start : start + HEADER_SIZE]) for place, start in enumerate(starts)
    ]


def branch_work(blocks: Iterable[Block]) -> int:
    """Sum the work of these blocks."""
    return sum(work(block.bits) for block in blocks)


def work(bits: int) -> int:
    """Compute the expected number of hashes for a block with this compact target: 2^256 // (target + 1).

    Raises MalformedBlock as `target` does.
    """
    return 2**256 // (target(bits) + 1)


def target(bits: int) -> int:
    """Expand a compact target, a header's `nBits`: the largest number that the block's hash may be.

    Raises MalformedBlock for a target that is negative, zero or larger than 256 bits: no node accepts such a
    header.
    """
    exponent, mantissa = bits >> 24 & 0xFF, bits & 0x7FFFFF
    expanded = mantissa << 8 * (exponent - 3) if exponent > 3 else mantissa >> 8 * (3 - exponent)
    if not 0 <= bits < 2**32 or bits & 0x800000 or not 0 < expanded < 2**256:
        raise MalformedBlock(f"bits {bits:#x} are not a valid target")
    return expanded

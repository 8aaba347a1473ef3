"""Block headers: the 80 bytes that name a block, its parent and its transactions."""

import struct
from collections.abc import Iterable
from typing import Final

from virtualchain.consensus.hashing import sha256d
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block

__all__ = ["HEADER_SIZE", "branch_work", "display", "headers_from", "read_header", "sha256d", "work"]

HEADER_SIZE: Final = 80
_FIELDS = struct.Struct("<i32s32sIII")


def display(digest: bytes) -> str:
    """Write a hash as people read it: hex, the bytes in reverse order."""
    return digest[::-1].hex()


def read_header(block_id: int, header: bytes) -> Block:
    """Read an 80-byte header as the block at height `block_id`.

    Raises MalformedBlock where there are not exactly 80 bytes.
    """
    if len(header) != HEADER_SIZE:
        raise MalformedBlock(f"block {block_id}: a header has {HEADER_SIZE} bytes, here are {len(header)}")
    _version, parent, merkle_root, time, bits, _nonce = _FIELDS.unpack(header)
    return Block(
        block_id=block_id,
        hash=display(sha256d(header)),
        prev_hash=display(parent),
        merkle_root=display(merkle_root),
        time=time,
        bits=bits,
        header=bytes(header),
    )


def headers_from(block_id: int, blob: bytes) -> list[Block]:
    """Read headers that stand one behind the other, the first of them at height `block_id`.

    Says nothing about whether they form a chain. Raises MalformedBlock where the last one is cut short.
    """
    starts = range(0, len(blob), HEADER_SIZE)
    return [
        read_header(block_id + place, blob[start : start + HEADER_SIZE]) for place, start in enumerate(starts)
    ]


def branch_work(blocks: Iterable[Block]) -> int:
    """Sum the work of some blocks' headers."""
    return sum(work(block.bits) for block in blocks)


def work(bits: int) -> int:
    """Compute the hashes that a block with this compact target takes on average: 2^256 // (target + 1).

    Raises MalformedBlock for a target that is negative, zero or over 256 bits: no node accepts such a
    header (Bitcoin's consensus field `nBits`).
    """
    exponent, mantissa = bits >> 24 & 0xFF, bits & 0x7FFFFF
    target = mantissa << 8 * (exponent - 3) if exponent > 3 else mantissa >> 8 * (3 - exponent)
    if not 0 <= bits < 2**32 or bits & 0x800000 or not 0 < target < 2**256:
        raise MalformedBlock(f"bits {bits:#x} are no target that a block can have")
    return 2**256 // (target + 1)

"""Block headers: the 80 bytes that name a block, its parent and its transactions."""

import struct
from typing import Final

from virtualchain._digest import sha256d
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block

__all__ = ["HEADER_SIZE", "display", "headers_from", "read_header", "sha256d"]

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

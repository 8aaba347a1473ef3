"""Chains of made-up headers, for tests that use only their links and bits."""

import hashlib

from virtualchain.model import Block

EASY = 0x207FFFFF
"""The bits of regtest, for a work of 2 per block."""
HARD = 0x2000FFFF
"""Bits for a work of 256 per block, as much as 128 easy ones."""


def grow(parent: Block | None, n: int, *, bits: int = EASY, name: str = "", first: int = 0) -> list[Block]:
    """Make `n` headers on top of `parent`, or if it is None, a chain of its own from height `first` on.

    `name` distinguishes branches at the same heights.
    """
    blocks: list[Block] = []
    for _ in range(n):
        block_id = first if parent is None else parent.block_id + 1
        prev_hash = "00" * 32 if parent is None else parent.hash
        block_hash = hashlib.sha256(f"{prev_hash} {block_id} {bits} {name}".encode()).hexdigest()
        parent = Block(block_id, block_hash, prev_hash, "11" * 32, 0, bits, b"")
        blocks.append(parent)
    return blocks

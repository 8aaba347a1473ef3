"""Chains of made-up headers, for tests that look at their links and bits only."""

import hashlib

from virtualchain.model import Block

EASY = 0x207FFFFF
"""The bits of regtest: a block has work 2."""
HARD = 0x2000FFFF
"""A block has work 256: as much as 128 easy ones."""


def grow(parent: Block | None, n: int, *, bits: int = EASY, name: str = "", first: int = 0) -> list[Block]:
    """Make `n` headers on top of `parent` (None: on top of nothing, from height `first` on).

    `name` tells branches of the same height apart.
    """
    blocks: list[Block] = []
    for _ in range(n):
        block_id = first if parent is None else parent.block_id + 1
        prev_hash = "00" * 32 if parent is None else parent.hash
        block_hash = hashlib.sha256(f"{prev_hash} {block_id} {bits} {name}".encode()).hexdigest()
        parent = Block(block_id, block_hash, prev_hash, "11" * 32, 0, bits, b"")
        blocks.append(parent)
    return blocks

"""Cut a member into chunks whose borders depend on the rows around them alone.

A row that changes, comes or goes therefore changes only the chunk that holds it, and the others are shared by
checkpoints of different blocks. `docs/protocol/digests.md` defines the rule.
"""

from hashlib import sha256
from typing import Final

from virtualchain.checkpoint.manifest import LARGEST_CHUNK, Chunk

_SMALLEST: Final = 2**18
"""Bytes: no border is sought before that."""
_SPACING: Final = 2**20
"""Bytes between two rows that may end a chunk, on average."""


class Cutter:
    """Takes in the rows of a member, and finds its chunks."""

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []
        self._digest = sha256()
        self._size = 0

    def add(self, row: bytes) -> None:
        """Take in the next row, with its newline; a state file counts as one row."""
        if self._size + len(row) > LARGEST_CHUNK:
            self._end()
        for start in range(0, len(row), LARGEST_CHUNK):
            if start:
                self._end()
            piece = row[start : start + LARGEST_CHUNK]
            self._digest.update(piece)
            self._size += len(piece)
        if self._size >= _SMALLEST and _may_end_with(row):
            self._end()

    def chunks(self) -> tuple[Chunk, ...]:
        """End the last chunk; return all of them."""
        self._end()
        return tuple(self._chunks)

    def _end(self) -> None:
        if self._size:
            self._chunks.append(Chunk(self._size, self._digest.hexdigest()))
            self._digest, self._size = sha256(), 0


def _may_end_with(row: bytes) -> bool:
    """Whether a chunk may end after a row: the longer the row, the more of its digests say so."""
    return int.from_bytes(sha256(row).digest()[:4], "big") * _SPACING < len(row) * 2**32

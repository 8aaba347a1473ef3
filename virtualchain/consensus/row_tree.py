"""The Merkle tree over the rows of a table: its root, and the paths of chosen rows, in one pass.

It is the tree of RFC 6962, as `docs/protocol/proofs.md` applies it. Memory grows with the logarithm of the
number of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

NO_ROWS: Final = sha256().digest()
"""The root of a tree without rows."""


@dataclass(frozen=True, slots=True)
class Path:
    """A row whose way up is followed while the tree grows."""

    index: int
    """Its place among the rows, from 0."""
    siblings: list[bytes]
    """Its siblings within the largest complete subtree that has the row."""


class RowTree:
    """A tree that grows by one row at a time.

    It consists of complete subtrees, the largest first: their sizes are the powers of two of which the number
    of rows is the sum.
    """

    def __init__(self) -> None:
        self.size = 0
        self.followed: list[Path] = []
        """Rows whose paths are kept."""
        self._subtrees: list[bytes] = []
        self._last: list[bytes] = []

    def add(self, row: bytes) -> None:
        """Add a row after all others."""
        self.add_subtree(0, _leaf(row))

    def add_subtree(self, level: int, node: bytes) -> None:
        """Add a complete subtree of 2^`level` rows after all others, whose number is a multiple of that."""
        place, rows, self._last = self.size, 1 << level, []
        while place >> level & 1:
            left = self._subtrees.pop()
            for path in self.followed:
                if path.index >> level + 1 == place >> level + 1:
                    path.siblings.append(left if path.index >> level & 1 else node)
            self._last.append(left)
            node = _inner(left, node)
            level += 1
        self._subtrees.append(node)
        self.size += rows

    def last(self) -> Path:
        """Return the row that was just added, to be followed."""
        return Path(self.size - 1, list(self._last))

    @property
    def root(self) -> bytes:
        """The root over all rows so far."""
        node = NO_ROWS
        for number, subtree in enumerate(reversed(self._subtrees)):
            node = _inner(subtree, node) if number else subtree
        return node

    def siblings(self, path: Path) -> list[bytes]:
        """Return the siblings on the way from a followed row to the root, from the bottom up."""
        siblings, node, start = list(path.siblings), b"", self.size
        for subtree in reversed(self._subtrees):
            end, start = start, start & (start - 1)  # less the smallest of the powers of two
            if path.index >= end:
                siblings.append(subtree)
            elif path.index >= start and node:
                siblings.append(node)
            node = _inner(subtree, node) if node else subtree
        return siblings


def subtrees(first: int, rows: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """Return what consecutive rows add to a tree that has `first` rows: levels and roots of subtrees."""
    nodes = [sha256(b"\x00" + row).digest() for row in rows]
    ends: list[tuple[int, bytes]] = []
    begins: list[tuple[int, bytes]] = []
    level = 0
    while nodes:
        if first & 1:  # its sibling came before
            begins.append((level, nodes.pop(0)))
            first += 1
        if len(nodes) & 1:  # its sibling comes after
            ends.append((level, nodes.pop()))
        pairs = zip(nodes[::2], nodes[1::2], strict=True)
        nodes = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
        first, level = first >> 1, level + 1
    return begins + ends[::-1]


def root_of_path(row: bytes, index: int, size: int, siblings: Sequence[bytes]) -> bytes | None:
    """Return the root to which a row's siblings lead, from the bottom up.

    Index and size determine how many there are, and which of them are left ones. Returns None if there are
    more or fewer.
    """
    if not 0 <= index < size:
        return None
    node, last = _leaf(row), size - 1
    for sibling in siblings:
        if last == 0:
            return None
        # The last node of a row without a sibling moves up until it has one, which is then the left one.
        while index == last and index & 1 == 0:
            index, last = index >> 1, last >> 1
        node = _inner(sibling, node) if index & 1 else _inner(node, sibling)
        index, last = index >> 1, last >> 1
    return node if last == 0 else None


def _leaf(row: bytes) -> bytes:
    return sha256(b"\x00" + row).digest()


def _inner(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()

"""`KeptRows`: the rows of a table that a session knows when a block begins, so that it need not read them."""

from sys import getsizeof
from typing import Final, NamedTuple

from virtualchain.consensus.state_hash import NUMBER_SIZE
from virtualchain.store.columns import Shape, Values

MOST_KEPT: Final = 16_000_000
"""Bytes that the kept rows of one app take, about."""
_ROW: Final = 300 + NUMBER_SIZE
"""Bytes that a row takes beside its texts and data: for its key, its numbers, its element, its place here."""


class Kept(NamedTuple):
    """A row as the last blocks have left it, None if there is none, and its element in the state hash."""

    row: Values | None
    element: int | None
    """None: it was not computed yet."""


class KeptRows:
    """Rows of one table by their keys. That nobody else writes the table is for others to see to.

    `most` is about how many bytes they may take: those that were touched last stay. There are two
    generations, and when the new one has its half, it becomes the old one, which is dropped.
    """

    def __init__(self, shape: Shape, most: int) -> None:
        self._texts = shape.of_varying_size
        self._half = most // 2
        self._new: dict[Values, Kept] = {}
        self._old: dict[Values, Kept] = {}
        self._size = 0
        """Bytes of the new generation."""

    def __contains__(self, key: Values) -> bool:
        return key in self._new or key in self._old

    def __getitem__(self, key: Values) -> Kept:
        return self._new[key] if key in self._new else self._old[key]

    def keep(self, key: Values, row: Values | None, element: int | None) -> None:
        """Keep a row as a block has left it."""
        if key not in self._new:
            self._size += self.size_of(row)
        elif self._texts:
            self._size += self.size_of(row) - self.size_of(self._new[key].row)
        self._new[key] = Kept(row, element)
        if self._size > self._half:
            self._old, self._new, self._size = self._new, {}, 0

    def clear(self) -> None:
        """Keep nothing."""
        self._old, self._new, self._size = {}, {}, 0

    def size_of(self, row: Values | None) -> int:
        """Estimate the bytes that a row takes."""
        return _ROW if row is None else _ROW + sum([getsizeof(row[place]) for place in self._texts])

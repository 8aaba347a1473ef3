"""The index of the blocks in a node's files: how they are linked, and which of them form the active chain.

A chain has a million blocks, so each is a row in arrays, about 120 bytes in all. A block's number is its row:
blocks are numbered in the order in which they were first seen. Hashes are 32 bytes in computed order.
"""

from array import array
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from virtualchain.bitcoin.difficulty import follows
from virtualchain.bitcoin.header import sha256d, work
from virtualchain.bitcoin.networks import Network
from virtualchain.errors import MalformedBlock

NONE: Final = -1
"""No block, no height."""
_HASH: Final = 32
"""Bytes of a hash."""
_WORK: Final = 36
"""Bytes of a sum of work: a block has at most 2^256, and there are fewer than 2^32 blocks."""

_work = lru_cache(1024)(work)


class Place(NamedTuple):
    """Where a block's bytes are: the number of its file, and the offset and length in it."""

    file: int
    offset: int
    length: int


class Branch(NamedTuple):
    """A block whose parent is unknown, and the best of the chains that start with it."""

    root: int
    tip: int
    """The block with the most work up to it."""
    work: int
    depth: int
    """How many blocks the tip is above the root."""


class BlockIndex:
    """All blocks seen so far, and the active chain: the one last activated, which starts with the anchor.

    A block has a height once it is known to descend from the anchor, by targets that the network allows. A
    block that is dropped has no place and no height until it is seen again.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._hashes = bytearray()
        self._bits = array("I")
        self._files, self._offsets, self._lengths = array("I"), array("Q"), array("I")
        self._parents, self._first_children, self._next_siblings = array("i"), array("i"), array("i")
        self._heights = array("i")
        self._works = bytearray()
        self._orphans: dict[bytes, list[int]] = {}
        """The blocks whose parent has not been seen, by the parent's hash."""
        self._slots = array("i", [NONE]) * 1024
        """An open-addressing hash table with linear probing, from a block's hash to its number."""
        self._active = array("i")
        self._base = 0
        """The height of the first active block."""
        self._best = NONE

    def __len__(self) -> int:
        return len(self._bits)

    def add(self, header: bytes, place: Place) -> None:
        """Add a block by its header; one that was seen before is now found at the new place.

        Bytes that cannot be a block's header are ignored: something else looked like a record.
        """
        block_hash, parent_hash = sha256d(header), header[4:36]
        bits = int.from_bytes(header[72:76], "little")
        slot = self._slot(block_hash)
        known = self._slots[slot]
        if known != NONE:
            self._move(known, place)
            return
        try:
            _work(bits)
        except MalformedBlock:
            return
        number = len(self)
        self._slots[slot] = number
        self._append(block_hash, bits, place)
        if 2 * number > len(self._slots):
            self._grow()
        parent = self.find(parent_hash)
        if parent is None:
            self._orphans.setdefault(parent_hash, []).append(number)
        else:
            self._join(number, parent)
        for child in self._orphans.pop(block_hash, ()):
            self._join(child, number)

    def drop(self, number: int) -> None:
        """Forget where a block is, as the node has forgotten it; the chain then ends below it.

        The anchor stays: without it there is no chain.
        """
        if number == self._active[0]:
            return
        self._lengths[number] = 0
        if self._heights[number] == NONE:
            return
        if self.is_active(number):
            del self._active[self._heights[number] - self._base :]
        pending = [number]
        while pending:
            below = pending.pop()
            self._heights[below] = NONE
            self._works[_WORK * below : _WORK * (below + 1)] = bytes(_WORK)
            pending.extend(child for child in self._children(below) if self._heights[child] != NONE)
        self._best = max(
            (each for each, height in enumerate(self._heights) if height != NONE),
            key=lambda each: (self.work(each), -each),
        )

    def is_dropped(self, number: int) -> bool:
        """Check whether a block was dropped and has not been seen again."""
        return not self._lengths[number]

    def in_file(self, file: int) -> list[int]:
        """Return the blocks whose place is in a file."""
        return [
            number for number, each in enumerate(self._files) if each == file and not self.is_dropped(number)
        ]

    def find(self, block_hash: bytes) -> int | None:
        """Find a block by its hash."""
        number = self._slots[self._slot(block_hash)]
        return None if number == NONE else number

    def hash(self, number: int) -> bytes:
        """Return a block's hash."""
        return bytes(self._hashes[_HASH * number : _HASH * (number + 1)])

    def place(self, number: int) -> Place:
        """Return where a block's bytes are."""
        return Place(self._files[number], self._offsets[number], self._lengths[number])

    def height(self, number: int) -> int:
        """Return a block's height, or `NONE` for a block that does not descend from the anchor."""
        return self._heights[number]

    def work(self, number: int) -> int:
        """Return the work from the anchor to a block that descends from it, both included."""
        return int.from_bytes(self._works[_WORK * number : _WORK * (number + 1)], "big")

    def siblings(self, number: int) -> list[int]:
        """Return the other blocks with the same parent."""
        parent = self._parents[number]
        if parent == NONE:
            orphans = next((each for each in self._orphans.values() if number in each), [])
            return [each for each in orphans if each != number]
        return [each for each in self._children(parent) if each != number]

    def children(self, number: int) -> list[int]:
        """Return the blocks on top of a block."""
        return list(self._children(number))

    def ancestor(self, number: int, height: int) -> int | None:
        """Find the block at a height on the path from the anchor to this block."""
        while self._heights[number] > height and not self.is_active(number):
            number = self._parents[number]
        if self._heights[number] > height:
            return self.active(height)
        return number if self._heights[number] == height else None

    def branches(self) -> Iterator[Branch]:
        """Yield a branch for each block whose parent has not been seen, ordered by the blocks' numbers."""
        for root in sorted(number for orphans in self._orphans.values() for number in orphans):
            best = Branch(root, root, 0, 0)
            pending = [(root, 0, 0)]
            while pending:
                number, work, depth = pending.pop()
                work += _work(self._bits[number])
                if (work, -number) > (best.work, -best.tip):
                    best = Branch(root, number, work, depth)
                pending.extend((child, work, depth + 1) for child in self._children(number))
            yield best

    def set_anchor(self, number: int, height: int) -> None:
        """Make a block the lowest one of the chain; can be called only once."""
        assert not self._active, "the anchor is already set"
        self._base = height
        self._link(number, height, 0)
        self._active.append(number)

    @property
    def base(self) -> int:
        """The height of the lowest block."""
        return self._base

    @property
    def tip(self) -> int:
        """The last active block."""
        return self._active[-1]

    def active(self, height: int) -> int | None:
        """Find the active block at a height."""
        return self._active[height - self._base] if 0 <= height - self._base < len(self._active) else None

    def is_active(self, number: int) -> bool:
        """Check whether a block is on the active chain."""
        return self.active(self._heights[number]) == number

    def better_tips(self) -> Iterator[int]:
        """Yield the blocks with more work than the tip, best first; of equal ones the first seen."""
        tip_work = self.work(self.tip)
        if self.work(self._best) <= tip_work:
            return
        yield self._best
        # The work of a block that does not descend from the anchor is zero here.
        ranked = [(-work, number) for number in range(len(self)) if (work := self.work(number)) > tip_work]
        yield from (number for _, number in sorted(ranked)[1:])

    def activate(self, tip: int) -> None:
        """Make the chain from the anchor to this block the active one."""
        path = []
        while not self.is_active(tip):
            path.append(tip)
            tip = self._parents[tip]
        del self._active[self._heights[tip] - self._base + 1 :]
        self._active.extend(reversed(path))

    def _append(self, block_hash: bytes, bits: int, place: Place) -> None:
        self._hashes += block_hash
        self._bits.append(bits)
        self._files.append(place.file)
        self._offsets.append(place.offset)
        self._lengths.append(place.length)
        for empty in (self._parents, self._first_children, self._next_siblings, self._heights):
            empty.append(NONE)
        self._works += bytes(_WORK)

    def _slot(self, block_hash: bytes) -> int:
        mask = len(self._slots) - 1
        slot = int.from_bytes(block_hash[:8], "little") & mask
        while (number := self._slots[slot]) != NONE and self.hash(number) != block_hash:
            slot = slot + 1 & mask
        return slot

    def _grow(self) -> None:
        self._slots = array("i", [NONE]) * (2 * len(self._slots))
        for number in range(len(self)):
            self._slots[self._slot(self.hash(number))] = number

    def _children(self, number: int) -> Iterator[int]:
        child = self._first_children[number]
        while child != NONE:
            yield child
            child = self._next_siblings[child]

    def _join(self, number: int, parent: int) -> None:
        self._parents[number] = parent
        self._next_siblings[number] = self._first_children[parent]
        self._first_children[parent] = number
        if self._extends(number, parent):
            self._link(number, self._heights[parent] + 1, self.work(parent))

    def _move(self, number: int, place: Place) -> None:
        was_dropped = self.is_dropped(number)
        self._files[number], self._offsets[number], self._lengths[number] = place
        parent = self._parents[number]
        if was_dropped and parent != NONE and self._extends(number, parent):
            self._link(number, self._heights[parent] + 1, self.work(parent))

    def _extends(self, number: int, parent: int) -> bool:
        """Check whether a block belongs to the chain of its parent, if that has one."""
        height, bits = self._heights[parent], self._bits
        return (
            height != NONE
            and not self.is_dropped(number)
            and follows(bits[number], bits[parent], height + 1, self._network)
        )

    def _link(self, top: int, height: int, work: int) -> None:
        """Set height and work of a block and all its descendants; `work` is the sum up to its parent."""
        pending = [(top, height, work)]
        while pending:
            number, height, work = pending.pop()
            work += _work(self._bits[number])
            self._heights[number] = height
            self._works[_WORK * number : _WORK * (number + 1)] = work.to_bytes(_WORK, "big")
            best = self._best
            if best == NONE or (work, -number) > (self.work(best), -best):
                self._best = number
            extending = (child for child in self._children(number) if self._extends(child, number))
            pending.extend((child, height + 1, work) for child in extending)

"""The digests of an app's rows, computed batch by batch, also by several processes.

A batch of consecutive rows adds subtrees to the tree of its table and a factor to the number under the state
hash. Neither needs what comes before, but for how many rows that are.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Final

from virtualchain.checkpoint.digests import check_block, read_row
from virtualchain.checkpoint.manifest import Table
from virtualchain.consensus.row_proofs import table_summary
from virtualchain.consensus.row_tree import RowTree, subtrees
from virtualchain.consensus.state_hash import EMPTY, NumberUpdate, product, row_json
from virtualchain.errors import InvalidCheckpoint
from virtualchain.model import Json

Key = tuple[bytes, ...]
"""The texts of a row's key, in UTF-8, which sorts as their characters do."""

_SPECIAL: Final = re.compile(rb'["\\\x00-\x08\x0a-\x1f]')
"""What is written with an escape, by COPY or in JSON; a tab is between columns."""
_BATCH: Final = 2**20
"""Bytes of a batch, or a longer row."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive rows of a table, as lines that each end with a newline."""

    table: Table
    first: int
    """How many rows come before."""
    blocks: range
    """The blocks that may have written them."""
    lines: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """What a batch adds to the digests."""

    first: int
    """How many rows come before."""
    keys: tuple[Key, Key]
    """Of its first and its last row."""
    factor: int
    """The product of its rows' elements."""
    subtrees: list[tuple[int, bytes]]
    """The levels and roots of what its rows add to the tree of their table."""


Digest = Callable[[Iterable[Batch]], Iterator[Part]]
"""Applies `digest_batch` to batches and returns the results in order, such as `Crew.in_order`."""


def digest_batch(batch: Batch) -> Part:
    """Compute what a batch adds to the digests.

    Raises InvalidCheckpoint, which names table and row, for a line that is not a row of the table and of one
    of the blocks, or that is not in the order of keys.
    """
    read, rows = _Lines(batch), list[bytes]()
    first: Key | None = None
    last: Key = ()
    for number, line in enumerate(batch.lines[:-1].split(b"\n"), batch.first + 1):
        try:
            key, row = read(line)
            if first is None:
                first = key
            elif key <= last:
                raise ValueError("its key does not come after that of the row before")
        except ValueError as error:
            raise _invalid(batch.table, number, error) from error
        last = key
        rows.append(row)
    assert first is not None, "a batch has rows"
    return Part(batch.first, (first, last), product(rows), subtrees(batch.first, rows))


class _Lines:
    """Reads the lines of a batch: their keys, and the rows as `row_json` writes them."""

    def __init__(self, batch: Batch) -> None:
        self._table = batch.table
        self._blocks = batch.blocks
        self._places = [batch.table.columns.index(column) for column in batch.table.key]
        self._begin = f'[{encode_basestring(batch.table.name)},"'.encode()
        self._known = set[bytes]()
        """Blocks that were checked."""
        try:
            batch.lines.decode()
        except UnicodeDecodeError:
            self._is_text = False
        else:
            self._is_text = True

    def __call__(self, line: bytes) -> tuple[Key, bytes]:
        """Read a line; raises ValueError."""
        values, _, block = line.rpartition(b"\t")
        if not self._is_text or _SPECIAL.search(line):
            return self._read_slowly(line)
        if block not in self._known:
            check_block(block.decode(), self._blocks)
            self._known.add(block)
        columns = values.split(b"\t")
        self._check_count(len(columns))
        return tuple([columns[place] for place in self._places]), self._begin + b'","'.join(columns) + b'"]'

    def _read_slowly(self, line: bytes) -> tuple[Key, bytes]:
        """Read any line."""
        *values, block = read_row(line)
        check_block(block, self._blocks)
        self._check_count(len(values))
        key = tuple(text.encode() for place in self._places if (text := values[place]) is not None)
        if len(key) < len(self._places):
            raise ValueError("its key has a null")
        return key, row_json(self._table.name, values)

    def _check_count(self, columns: int) -> None:
        if columns != len(self._table.columns):
            raise ValueError(f"it has {columns} columns, not {len(self._table.columns)}")


class RowDigest:
    """The digests of an app's tables: the number under their state hash, and what the state says of each."""

    def __init__(self, blocks: range, digest: Digest = lambda batches: map(digest_batch, batches)) -> None:
        """Begin without tables; `blocks` are those that may have written a row."""
        self._tables = list[Json]()
        self._blocks = blocks
        self._digest = digest
        self._update = NumberUpdate()

    @property
    def tables(self) -> list[Json]:
        """What the state says of each table."""
        return self._tables

    @property
    def number(self) -> bytes:
        """The number that the state hash is the digest of."""
        return self._update.after(EMPTY)

    def add(
        self, table: Table, pieces: Iterable[bytes], write: Callable[[bytes], object] = lambda _lines: None
    ) -> int:
        """Add a table, and return its number of rows; `pieces` are whole lines.

        Each line has one column more than the table, the block that wrote the row. Lines are handed to
        `write`, perhaps before they are checked. Raises InvalidCheckpoint as `digest_batch` does.
        """
        tree, last = RowTree(), None
        for part in self._digest(self._batches(table, pieces, write)):
            if last is not None and part.keys[0] <= last:
                error = ValueError("its key does not come after that of the row before")
                raise _invalid(table, part.first + 1, error)
            last = part.keys[1]
            self._update.add(part.factor)
            for level, node in part.subtrees:
                tree.add_subtree(level, node)
        self._tables.append(table_summary(table.name, table.columns, table.key, tree))
        return tree.size

    def _batches(
        self, table: Table, pieces: Iterable[bytes], write: Callable[[bytes], object]
    ) -> Iterator[Batch]:
        first = 0
        for lines in _joined(pieces):
            write(lines)
            yield Batch(table, first, self._blocks, lines)
            first += lines.count(b"\n")


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines until they make a batch."""
    waiting, size = list[bytes](), 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _BATCH:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _invalid(table: Table, number: int, error: ValueError) -> InvalidCheckpoint:
    return InvalidCheckpoint(f"row {number} of table {table.name} is invalid: {error}")

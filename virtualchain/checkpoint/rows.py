"""The digests of an app's rows, computed batch by batch, also by several processes.

A batch of consecutive rows adds subtrees to the tree of its table and a factor to the number under the state
hash. Neither needs what comes before, but for how many rows that are.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Final

from virtualchain.checkpoint.digests import check_block, is_block, read_row
from virtualchain.checkpoint.manifest import Table
from virtualchain.consensus.row_proofs import table_summary
from virtualchain.consensus.row_tree import RowTree, subtrees
from virtualchain.consensus.state_hash import EMPTY, NumberUpdate, product, row_json
from virtualchain.errors import InvalidCheckpoint
from virtualchain.model import Json

Key = tuple[bytes, ...]
"""The texts of a row's key, in UTF-8, which sorts as their characters do."""

_NULL: Final = rb"\N"
_SPECIAL: Final = bytes({*range(0x20), ord('"')} - {ord("\t"), ord("\n")})
"""What is escaped by COPY or in JSON; tabs and newlines are between columns and lines."""
_ESCAPE: Final = re.compile(rb"\\(?:(?<=[^\t\n]\\)|(?!N[\t\n]))")
"""A backslash that does not stand for a null."""
_OUT_OF_ORDER: Final = "its key does not come after that of the row before"
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
    keys, rows = _read_plain(batch) or _read(batch)
    return Part(batch.first, (keys[0], keys[-1]), product(rows), subtrees(batch.first, rows))


def _read_plain(batch: Batch) -> tuple[list[Key], list[bytes]] | None:
    """Read a batch of plain text at once: its keys, and its rows as `row_json` writes them.

    Returns None if there is anything special or wrong about a line.
    """
    table, lines = batch.table, batch.lines
    has_nulls = b"\\" in lines
    if (
        lines.translate(None, _SPECIAL) != lines
        or (has_nulls and _ESCAPE.search(lines))
        or not _is_text(lines)
    ):
        return None
    columns = [line.split(b"\t") for line in lines[:-1].split(b"\n")]
    if {len(values) for values in columns} != {len(table.columns) + 1}:
        return None
    if not all(is_block(block.decode(), batch.blocks) for block in {values.pop() for values in columns}):
        return None
    parts = [[values[place] for values in columns] for place in _places(table)]
    keys: list[Key] = list(zip(*parts, strict=True))
    if keys != sorted(keys) or len(set(keys)) < len(keys):
        return None
    begin = f'[{encode_basestring(table.name)},"'.encode()
    rows = [begin + b'","'.join(values) + b'"]' for values in columns]
    if has_nulls:
        if any(_NULL in part for part in parts):
            return None
        rows = [row.replace(b'"\\N"', b"null") for row in rows]
    return keys, rows


def _read(batch: Batch) -> tuple[list[Key], list[bytes]]:
    """Read a batch line by line; raises InvalidCheckpoint."""
    table, places, keys, rows = batch.table, _places(batch.table), list[Key](), list[bytes]()
    for number, line in enumerate(batch.lines[:-1].split(b"\n"), batch.first + 1):
        try:
            *values, block = read_row(line)
            check_block(block, batch.blocks)
            if len(values) != len(table.columns):
                raise ValueError(f"it has {len(values)} columns, not {len(table.columns)}")
            key = tuple(text.encode() for place in places if (text := values[place]) is not None)
            if len(key) < len(places):
                raise ValueError("its key has a null")
            if keys and key <= keys[-1]:
                raise ValueError(_OUT_OF_ORDER)
        except ValueError as error:
            raise _invalid(table, number, str(error)) from error
        keys.append(key)
        rows.append(row_json(table.name, values))
    return keys, rows


def _places(table: Table) -> list[int]:
    return [table.columns.index(column) for column in table.key]


def _is_text(lines: bytes) -> bool:
    try:
        lines.decode()
    except UnicodeDecodeError:
        return False
    return True


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
                raise _invalid(table, part.first + 1, _OUT_OF_ORDER)
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


def _invalid(table: Table, number: int, what: str) -> InvalidCheckpoint:
    return InvalidCheckpoint(f"row {number} of table {table.name} is invalid: {what}")

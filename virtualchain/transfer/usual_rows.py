"""The rows of an export's inputs as they are read: those of the usual forms many at once, others one by one.

Compiled code (`rows.c` in `virtualchain/bitcoin`) reads the columns of a Parquet file as Arrow has them. It
checks rows in which everything has a usual form, and writes them as COPY takes them. It leaves alone
whatever else there is, right or wrong, so that what an import refuses, and how, does not depend on it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from virtualchain.bitcoin import compiled
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.spending import UNCHECKED_BLOCKS
from virtualchain.model import Block
from virtualchain.transfer.files import (
    FORMER_INPUT_COLUMNS,
    INPUT_COLUMNS,
    UNREADABLE,
    Row,
    parquet_batches,
    read_rows,
    require_count,
    require_values,
    rows_of,
    unreadable,
)
from virtualchain.transfer.manifest import File

_MAY_BE_NULL: Final = "spent_at"


class Usual(NamedTuple):
    """Rows that were found to be right, in the binary format of COPY."""

    counts: Counter[int]
    """How many there are of each block."""
    data: bytes
    """Those that are new."""


class InputRows:
    """The rows of inputs, which must be in chain order, with a look ahead of one row."""

    def __init__(self, path: Path, file: File, network: Network) -> None:
        self._rows = _open(path, file, network)
        self._rows.peek()
        self._last = (-1, 0)

    @property
    def are_left(self) -> bool:
        """Whether there are rows that were not yielded yet."""
        return self._rows.peek() is not None

    def of(self, blocks: Sequence[Block], start: int) -> Iterator[Usual | Row]:
        """Yield the rows up to the last of some blocks; those below `start` are not new.

        Raises ValueError if one is out of order, and what reading raises.
        """
        is_usual = not any(block.hash in UNCHECKED_BLOCKS for block in blocks)
        heights = range(blocks[0].block_id, blocks[-1].block_id + 1)
        while True:
            while is_usual and (taken := self._rows.take_usual(self._last, heights, start)) is not None:
                self._last, usual = taken
                yield usual
            row = self._rows.peek()
            if row is None or row[0] >= heights.stop:
                return
            self._rows.advance()
            self._rows.peek()  # what cannot be read is reported before what is wrong in front of it
            if row[:2] <= self._last:
                raise ValueError(f"transaction {row[1]} of block {row[0]} is out of order")
            self._last = row[:2]
            yield row


class _Rows:
    """The rows of any file, one by one."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def peek(self) -> Row | None:
        """Return the next row; None at the end."""
        return self._next

    def advance(self) -> None:
        """Go on to the row after the next one."""
        self._next = next(self._rows, None)

    def take_usual(
        self, last: tuple[int, int], heights: range, start: int
    ) -> tuple[tuple[int, int], Usual] | None:
        """Take rows of usual forms, if those come next: the place of the last one, and the rows.

        `last` is the place of the row before, and `heights` are those that they may have.
        """
        del last, heights, start
        return None


class _ParquetRows(_Rows):
    """The rows of a Parquet file, in batches that are made rows only if they must be."""

    def __init__(self, path: Path, file: File, network: Network) -> None:
        self._path = path
        self._file = file
        self._network = network.forms
        self._batches = parquet_batches(path, INPUT_COLUMNS)
        self._size = 0
        self._before = 0
        """How many rows come before this batch."""
        self._at = 0
        self._batch: Any = None
        self._made: list[Row] | None = None
        self._columns: _Columns | None = None

    def peek(self) -> Row | None:
        if not self._is_inside():
            return None
        count = self._before
        try:
            if self._made is None:
                self._made = rows_of(self._batch)
            count += self._at
            row = self._made[self._at]
            require_values(row, INPUT_COLUMNS)
        except UNREADABLE as error:
            raise unreadable(self._path, count, error) from error
        return row

    def advance(self) -> None:
        self._at += 1

    def take_usual(
        self, last: tuple[int, int], heights: range, start: int
    ) -> tuple[tuple[int, int], Usual] | None:
        if compiled.check_rows is None or not self._is_inside() or self._columns is None:
            return None
        columns, spent_at = self._columns
        bounds = heights[0], heights[-1], start
        end, data = compiled.check_rows(columns, spent_at, self._at, self._size, last, *bounds, self._network)
        if end == self._at:
            return None
        block_ids, txindexes = (memoryview(columns[n][2]).cast("i") for n in (0, 1))
        counts = Counter(block_ids[self._at : end])
        self._at = end
        return (block_ids[end - 1], txindexes[end - 1]), Usual(counts, data)

    def _is_inside(self) -> bool:
        """Read the next batch if this one is at its end; return False if there is none."""
        while self._at == self._size:
            self._before += self._size
            self._at = self._size = 0
            try:
                self._batch = next(self._batches, None)
            except UNREADABLE as error:
                raise unreadable(self._path, self._before, error) from error
            self._made = self._columns = None
            if self._batch is None:
                require_count(self._path, self._file, self._before)
                return False
            self._size = len(self._batch)
            self._columns = columns_of(self._batch)
        return True


_Buffers = tuple[Any, Any, Any]
"""Where the items of a column start, where those of its lists do, and the values; None for what it lacks."""
_Columns = tuple[tuple[_Buffers, ...], bytes]
"""The buffers of the columns, and for each row whether it has heights."""


def _open(path: Path, file: File, network: Network) -> _Rows:
    """Open a file of inputs; those that an earlier version exported were tracked by no app."""
    if [column.name for column in file.columns] == [name for name, _ in FORMER_INPUT_COLUMNS]:
        return _Rows((*row, None, ()) for row in read_rows(path, file, FORMER_INPUT_COLUMNS))
    if path.suffix == ".parquet":
        return _ParquetRows(path, file, network)
    return _Rows(read_rows(path, file, INPUT_COLUMNS))


def columns_of(batch: Any) -> _Columns | None:  # noqa: ANN401 - pyarrow has no type hints
    """Return the columns of a batch as compiled code takes them; None if a value is missing."""
    named = {name: column for (name, _), column in zip(INPUT_COLUMNS, batch.columns, strict=True)}
    if any(column.null_count for name, column in named.items() if name != _MAY_BE_NULL):
        return None
    if any(named[name].values.null_count for name, kind in INPUT_COLUMNS if kind.startswith("list")):
        return None
    spent_at = named[_MAY_BE_NULL]
    if spent_at.null_count in {0, len(batch)}:
        has_heights = bytes([not spent_at.null_count]) * len(batch)
    else:
        has_heights = bytes(spent_at.is_valid().to_pylist())
    return tuple(_buffers(named[name], kind) for name, kind in INPUT_COLUMNS), has_heights


def _buffers(column: Any, kind: str) -> _Buffers:  # noqa: ANN401 - pyarrow has no type hints
    if not kind.startswith("list"):
        return (
            (None, None, _values(column))
            if kind in {"int32", "int64"}
            else (_ends(column), None, _data(column))
        )
    items = column.values
    if kind == "list<int32>":
        return _ends(column), None, _values(items)
    return _ends(column), _ends(items), _data(items)


def _values(column: Any) -> memoryview:  # noqa: ANN401 - pyarrow has no type hints
    """Return the values of a fixed size, in bytes."""
    size = column.type.bit_width // 8
    values = memoryview(column.buffers()[1] or b"").cast("B")
    return values[size * column.offset : size * (column.offset + len(column))]


def _ends(column: Any) -> memoryview:  # noqa: ANN401 - pyarrow has no type hints
    """Return where items start, and where the last one ends."""
    ends = memoryview(column.buffers()[1] or bytes(4)).cast("B")
    return ends[4 * column.offset : 4 * (column.offset + len(column) + 1)]


def _data(column: Any) -> memoryview:  # noqa: ANN401 - pyarrow has no type hints
    """Return the bytes of all items."""
    return memoryview(column.buffers()[2] or b"").cast("B")

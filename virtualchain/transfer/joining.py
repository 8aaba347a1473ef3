"""Join the parts of a scan in the order of the chain, into the files that an export of the same tape has."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from virtualchain.bitcoin.header import work
from virtualchain.errors import DamagedExport
from virtualchain.model import Block
from virtualchain.transfer.files import (
    BLOCK_COLUMNS,
    INPUT_COLUMNS,
    Row,
    is_group,
    tables_of,
    write_file,
    write_groups,
)
from virtualchain.transfer.manifest import File
from virtualchain.transfer.parts import SIZE
from virtualchain.transfer.tables import Column

_DATABASE_TYPES: Final = {
    "header": "bytea",
    "raw": "bytea",
    "magics": "bytea[]",
    "fee": "bigint",
    "time": "timestamp with time zone",
    "chainwork": "numeric",
    "senders": "jsonb",
    "outputs": "jsonb",
    "block_id": "integer",
    "txindex": "integer",
    "spent_at": "integer[]",
    "tracked_by": "text[]",
}
"""The types that the database's views have; all other columns are text."""
_BLOCKS: Final = tuple(Column(name, _DATABASE_TYPES.get(name, "text"), kind) for name, kind in BLOCK_COLUMNS)
_INPUTS: Final = tuple(Column(name, _DATABASE_TYPES.get(name, "text"), kind) for name, kind in INPUT_COLUMNS)


def join_blocks(folder: Path, headers: Iterable[Block]) -> File:
    """Write the file of blocks."""
    tables = tables_of(_block_rows(headers), _BLOCKS)
    return write_file(folder / "blocks.parquet", _BLOCKS, lambda file: write_groups(file, _BLOCKS, tables))


def join_inputs(folder: Path, parts: Mapping[int, Path], places: Iterable[tuple[int, int]]) -> File:
    """Write the file of inputs; `places` are height and block file of each block, in the order of the chain.

    `parts` are by block file.
    """
    groups = _groups(_slices(parts, places))
    return write_file(folder / "inputs.parquet", _INPUTS, lambda file: write_groups(file, _INPUTS, groups))


def _block_rows(headers: Iterable[Block]) -> Iterator[Row]:
    """Yield blocks as the database returns those of a tape: the work counts from the first one on."""
    chainwork = None
    for block in headers:
        chainwork = 0 if chainwork is None else chainwork + work(block.bits)
        time = f"{datetime.fromtimestamp(block.time, UTC):%Y-%m-%d %H:%M:%S}+00"
        yield block.block_id, block.hash, block.prev_hash, time, str(chainwork), block.header


def _slices(parts: Mapping[int, Path], places: Iterable[tuple[int, int]]) -> Iterator[Any]:
    """Yield the rows of all parts as record batches, in the order of the chain."""
    readers: dict[int, _Part] = {}
    for file, blocks in groupby(places, key=itemgetter(1)):
        *_, (last, _) = blocks
        reader = readers.get(file)
        if reader is None:
            reader = readers[file] = _Part(parts[file])
        yield from reader.up_to(last)


class _Part:
    """The rows of a part, which are read a batch at a time; no file stays open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0
        self._count: int | None = None
        self._batch: Any = None
        self._heights: list[int] = []
        self._at = 0

    def up_to(self, height: int) -> Iterator[Any]:
        """Yield the rows that were not yielded before, up to those of a block."""
        while self._batch is not None or self._read():
            end = bisect_right(self._heights, height, self._at)
            if end > self._at:
                yield self._batch.slice(self._at, end - self._at)
            self._at = end
            if end < len(self._heights):
                return
            self._batch = None

    def _read(self) -> bool:
        """Read the next batch; return False if there is none."""
        import pyarrow as pa  # noqa: PLC0415 - an extra, needed for Parquet only

        if self._next == self._count:
            return False
        try:
            with self._path.open("rb") as file, pa.ipc.open_file(file) as reader:
                self._count = reader.num_record_batches
                if self._next == self._count:
                    return False
                self._batch = reader.get_batch(self._next)
        except (pa.ArrowException, OSError) as error:
            raise DamagedExport(
                f"{self._path} cannot be read ({error}): remove it, and start the scan again"
            ) from error
        self._heights = self._batch.column("block_id").to_pylist()
        self._at = 0
        self._next += 1
        return True


def _groups(slices: Iterable[Any]) -> Iterator[Any]:
    """Join rows to the row groups that an export has."""
    pending: list[Any] = []
    rows = size = 0
    for batch in slices:
        start = 0
        for end, each in enumerate(batch.column(SIZE).to_pylist(), 1):
            rows, size = rows + 1, size + each
            if is_group(rows, size):
                yield _table([*pending, batch.slice(start, end - start)])
                pending, start, rows, size = [], end, 0, 0
        if start < len(batch):
            pending.append(batch.slice(start))
    if pending:
        yield _table(pending)


def _table(batches: list[Any]) -> Any:  # noqa: ANN401 - pyarrow has no type hints
    import pyarrow as pa  # noqa: PLC0415 - an extra, needed for Parquet only

    return pa.Table.from_batches(batches).drop_columns([SIZE]).combine_chunks()

"""Import an exported tape into a database, where apps can then advance along it without a node.

Every row is checked before it is written, and all of them are written in one transaction: an import that ends
early, for whatever reason, leaves nothing behind and can be repeated.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final, NoReturn

import psycopg

from virtualchain.audit.checking import check_block
from virtualchain.bitcoin.header import read_header, work
from virtualchain.bitcoin.networks import network
from virtualchain.crew import Crew
from virtualchain.errors import DamagedExport, StoreError, UsageError
from virtualchain.model import Block
from virtualchain.store.database import connect_writer
from virtualchain.store.migrate import migrate
from virtualchain.store.sql import queries
from virtualchain.store.tape import Covered, Tape
from virtualchain.transfer.checked_rows import COPY_BEGIN, COPY_END, Batch, checked, is_short
from virtualchain.transfer.files import BLOCK_COLUMNS, Row, read_rows, row_size
from virtualchain.transfer.manifest import BlockRef, File, Manifest, check_files, read_manifest
from virtualchain.transfer.usual_rows import InputRows, Usual

_Q = queries("transfer")
_CHUNK: Final = 2000
"""Blocks that are written together, followed by their inputs."""
_ROWS: Final = 5000
_BYTES: Final = 4_000_000
"""Inputs are checked in batches that reach either limit; that bounds the memory in use."""

OnBlock = Callable[[Block, int, int], None]
"""Called with each new block, the number of its inputs, and the height of the export's last block."""


@dataclass(frozen=True, slots=True)
class Imported:
    """The export's network, first and last block, and how many blocks and inputs were new."""

    network: str | None
    first: int | None
    last: int | None
    blocks: int
    inputs: int


def import_tape(
    url: str,
    folder: Path,
    *,
    wait: bool = False,
    workers: int = 1,
    is_checked: bool = True,
    on_block: OnBlock | None = None,
) -> Imported:
    """Import the tape of the export in `folder`; `workers` processes check its rows, if there are many.

    Unless `is_checked`, inputs are taken as they are: for files of one's own.

    The database must be empty, or follow the same network and hold the export's first block or the one
    before it. Blocks that it already holds are compared and skipped. With `wait`, it waits for another writer
    to end.

    Raises UsageError for an export that does not fit the database, DamagedExport, which names the file, for
    one that was changed, and StoreError. In each case nothing is written.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    blocks, inputs = manifest.file("blocks"), manifest.file("inputs")
    if blocks is None or inputs is None:
        raise UsageError(f"{folder} holds no tape: export one with --what tape")
    migrate(url)
    with closing(connect_writer(url, wait=wait)) as connection, Crew(checked, workers, is_short) as crew:
        try:
            with connection.transaction():
                if manifest.network is None:
                    return Imported(None, None, None, 0, 0)
                importer = _Importer(connection, crew, folder, manifest, is_checked=is_checked)
                return importer.run(blocks, inputs, on_block or (lambda *_: None))
        except psycopg.Error as error:
            raise StoreError.from_database(error) from error


class _Importer:
    """One import, in the caller's transaction."""

    def __init__(
        self,
        connection: psycopg.Connection,
        crew: Crew[Batch, list[bytes]],
        folder: Path,
        manifest: Manifest,
        *,
        is_checked: bool,
    ) -> None:
        assert manifest.network is not None, "it is of a chain"
        self._network = network(manifest.network)
        self._is_checked = is_checked
        self._connection = connection
        self._crew = crew
        self._folder = folder
        self._manifest = manifest
        self._tape = Tape(connection)
        bound = self._tape.deployment()
        if bound is not None and bound != (self._network.name, self._network.genesis_hash):
            raise StoreError(
                f"this database follows {bound[0]}, but {folder} was exported from {self._network.name}: "
                "import it into another database"
            )
        self._tape.bind(self._network.name, self._network.genesis_hash)
        tip = self._tape.tip()
        self._tip = None if tip is None else read_header(tip.block_id, tip.header)
        self._pins = self._tape.pins()

    def run(self, blocks: File, inputs: File, on_block: OnBlock) -> Imported:
        first, last = self._manifest.first, self._manifest.last
        if first is None or last is None:
            return Imported(self._network.name, None, None, 0, 0)
        start = first.block_id if self._tip is None else self._tip.block_id + 1
        self._require_overlap(first.block_id, start)
        chainwork = self._tip_chainwork()
        if self._tip is None:  # a search may be open that was to begin with another block
            self._tape.forget_searches()
        input_rows = InputRows(self._folder / inputs.name, inputs, self._network)
        new_inputs = 0
        for chunk in self._chunks(blocks, first, last):
            self._compare([block for block, _ in chunk if block.block_id < start])
            new = [item for item in chunk if item[0].block_id >= start]
            chainwork = self._write_blocks(new, chainwork)
            counts = self._write_inputs(inputs, input_rows, [block for block, _ in chunk], start)
            for block, _ in new:
                on_block(block, counts[block.block_id], last.block_id)
            new_inputs += counts.total()
        if input_rows.are_left:
            self._damaged(inputs, f"it has inputs above block {last.block_id}, the last one")
        if start <= last.block_id:
            _extend_coverage(self._connection, self._manifest.coverage, start, last.block_id)
        new_blocks = max(0, last.block_id - start + 1)
        return Imported(self._network.name, first.block_id, last.block_id, new_blocks, new_inputs)

    def _require_overlap(self, first: int, start: int) -> None:
        """Refuse an export that neither begins on the tape nor directly continues it."""
        bottom = self._tape.bottom()
        if bottom is not None and not bottom.block_id <= first <= start:
            raise UsageError(
                f"{self._folder} begins at block {first}, but this database holds blocks {bottom.block_id} "
                f"to {start - 1}: export from one of these or from block {start} on, or import into an empty "
                "database"
            )

    def _tip_chainwork(self) -> int | None:
        """Return the chain work up to the tape's tip."""
        if self._tip is None:
            return None
        row = self._connection.execute(_Q["chainwork"], {"block_id": self._tip.block_id}).fetchone()
        assert row is not None, "the tip is on the tape"
        return int(row[0])

    def _chunks(self, file: File, first: BlockRef, last: BlockRef) -> Iterator[list[tuple[Block, int]]]:
        """Yield the export's blocks, checked, with the chain work up to each."""
        rows = read_rows(self._folder / file.name, file, BLOCK_COLUMNS)
        before: tuple[Block, int] | None = None
        while chunk := list(islice(rows, _CHUNK)):
            checked = []
            for row in chunk:
                try:
                    item = check_block(row, before)
                except ValueError as error:
                    self._damaged(file, str(error))
                if before is None:
                    self._require_ref(file, item[0], first)
                    self._require_genesis(file, item[0])
                checked.append(item)
                before = item
            yield checked
        if before is None:
            self._damaged(file, "it holds no block")
        self._require_ref(file, before[0], last)

    def _require_ref(self, file: File, block: Block, ref: BlockRef) -> None:
        if (block.block_id, block.hash) != (ref.block_id, ref.hash):
            self._damaged(
                file,
                f"block {block.block_id} ({block.hash}) does not match the manifest, which has block "
                f"{ref.block_id} ({ref.hash}) there",
            )

    def _require_genesis(self, file: File, block: Block) -> None:
        if block.block_id == 0 and block.hash != self._network.genesis_hash:
            self._damaged(file, f"{block.hash} is not block 0 of {self._network.name}")

    def _compare(self, blocks: Sequence[Block]) -> None:
        """Refuse blocks that differ from those on the tape."""
        if not blocks:
            return
        ours = self._tape.blocks(blocks[0].block_id, blocks[-1].block_id)
        for block, own in zip(blocks, ours, strict=True):
            self._refuse_branch(block.block_id, block.hash, own.hash)

    def _refuse_branch(self, block_id: int, theirs: str, ours: str) -> None:
        if theirs != ours:
            raise UsageError(
                f"{self._folder} has {theirs} as block {block_id}, but this database has {ours}: they follow "
                "different branches of the chain; import into an empty database"
            )

    def _refuse_unpinned(self, block: Block) -> None:
        if self._pins.get(block.block_id, block.hash) != block.hash:
            raise UsageError(
                f"{self._folder} has {block.hash} as block {block.block_id}, but this database follows only "
                f"chains with {self._pins[block.block_id]} there, which is pinned"
            )

    def _write_blocks(self, blocks: Sequence[tuple[Block, int]], chainwork: int | None) -> int | None:
        """Append blocks, and return the chain work up to the last one.

        `chainwork` is that up to the tape's tip; if it is None, the export's own values are used.
        """
        if not blocks:
            return chainwork
        if self._tip is not None and blocks[0][0].block_id == self._tip.block_id + 1:
            self._refuse_branch(self._tip.block_id, blocks[0][0].prev_hash, self._tip.hash)
        with self._connection.cursor() as cursor, cursor.copy(_Q["copy_blocks"]) as copy:
            for block, exported_work in blocks:
                self._refuse_unpinned(block)
                chainwork = exported_work if chainwork is None else chainwork + work(block.bits)
                hashes = (bytes.fromhex(block.hash), bytes.fromhex(block.prev_hash))
                time = datetime.fromtimestamp(block.time, UTC)
                copy.write_row((block.block_id, *hashes, block.header, time, chainwork))
        return chainwork

    def _write_inputs(self, file: File, rows: InputRows, blocks: Sequence[Block], start: int) -> Counter[int]:
        """Write the inputs of those blocks that are at `start` or above; return how many each block has."""
        counts: Counter[int] = Counter()
        waiting: deque[list[Usual | Row]] = deque()

        def batches() -> Iterator[Batch]:
            by_id = {block.block_id: block for block in blocks}
            for pieces in _batches(rows.of(blocks, start)):
                few = [row for row in pieces if not isinstance(row, Usual)]
                heights = Counter(row[0] for row in few)
                known = {height: by_id[height] for height in heights if height in by_id}
                for piece in pieces:
                    heights += piece.counts if isinstance(piece, Usual) else Counter()
                counts.update({height: count for height, count in heights.items() if height >= start})
                waiting.append(pieces)
                yield Batch(few, known, self._network, start, self._is_checked)

        with (
            self._connection.cursor() as cursor,
            cursor.copy(_Q["copy_inputs"]) as copy,
            ThreadPoolExecutor(1) as thread,  # it writes a batch while this one reads and checks the next
        ):
            writing = thread.submit(copy.write, COPY_BEGIN)
            try:
                for checked_rows in self._crew.in_order(batches()):
                    few, pieces = iter(checked_rows), waiting.popleft()
                    data = b"".join(each.data if isinstance(each, Usual) else next(few) for each in pieces)
                    writing.result()
                    writing = thread.submit(copy.write, data)
            except ValueError as error:
                self._damaged(file, str(error))
            writing.result()
            copy.write(COPY_END)
        return counts

    def _damaged(self, file: File, reason: str) -> NoReturn:
        raise DamagedExport(f"{self._folder / file.name} is damaged: {reason}")


def _batches(pieces: Iterable[Usual | Row]) -> Iterator[list[Usual | Row]]:
    """Divide rows into batches that are limited in length and in size."""
    batch: list[Usual | Row] = []
    rows = size = 0
    try:
        for piece in pieces:
            batch.append(piece)
            if isinstance(piece, Usual):
                size += len(piece.data)
            else:
                rows, size = rows + 1, size + row_size(piece)
            if rows == _ROWS or size >= _BYTES:
                yield batch
                batch, rows, size = [], 0, 0
    except (ValueError, DamagedExport):
        if batch:  # what comes before the error is checked first
            yield batch
        raise
    if batch:
        yield batch


def _extend_coverage(
    connection: psycopg.Connection, coverage: Sequence[Covered], first: int, last: int
) -> None:
    """Record what blocks `first` to `last`, just appended, were searched for.

    A search that is open both in the database and in the export continues. One that the export does not have
    ends: an app that needs it has these blocks searched again, once there is a node. What apps that track
    outputs have covered extends what is known of it: they are derived from the tape as far as that goes.
    """
    tape = Tape(connection)
    new: dict[tuple[bytes, str, int], int | None] = {}
    for row in coverage:
        start, until = max(row.from_block, first), row.until_block
        if start > last or (until is not None and until < start):
            continue
        if row.is_tracking:
            tape.add_coverage(row.magic, row.rule, start, last if until is None else min(until, last))
        else:
            new[row.magic, row.rule, start] = until
    for row in tape.coverage():
        if row.until_block is not None:
            continue
        search = {"magic": row.magic, "rule": row.rule}
        if row.from_block <= first and (row.magic, row.rule, first) in new:
            until = new.pop((row.magic, row.rule, first))
            connection.execute(_Q["end_coverage"], {**search, "until_block": until})
        else:
            tape.close_coverage(row.magic, row.rule, first - 1)
    for (magic, rule, start), until in new.items():
        row_values = {"magic": magic, "rule": rule, "from_block": start, "until_block": until}
        connection.execute(_Q["add_coverage"], row_values)

"""Put an exported tape into a database, where apps are then advanced along it without a node.

Everything is checked before it is written, and written in one transaction: an import is there whole or,
whatever ends it, not at all, and can be repeated.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final, NoReturn

import psycopg
from psycopg.types.json import Json as Jsonb

from virtualchain.bitcoin.header import read_header, work
from virtualchain.bitcoin.networks import NETWORKS, Network
from virtualchain.errors import DamagedExport, StoreError, UsageError
from virtualchain.model import Block, Input
from virtualchain.store.database import connect_writer
from virtualchain.store.migrate import migrate
from virtualchain.store.sql import queries
from virtualchain.store.tape import Tape
from virtualchain.transfer.checking import check_block, check_input
from virtualchain.transfer.coverage import carry_over
from virtualchain.transfer.manifest import End, File, Manifest, check_files, read_manifest
from virtualchain.transfer.reading import BLOCKS, INPUTS, Row, rows_of

_Q = queries("transfer")
_CHUNK: Final = 2000
"""Blocks that are written at once, and then their inputs."""

OnBlock = Callable[[Block, int, int], None]
"""Told of a block, how many inputs it holds, and the last block's height."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import found: the export's first and last block, and how many blocks and inputs were new."""

    network: str | None
    first: int | None
    last: int | None
    blocks: int
    inputs: int


def import_tape(url: str, folder: Path, *, wait: bool = False, on_block: OnBlock | None = None) -> Imported:
    """Import the tape of the export in `folder`.

    The database is empty or of the same network, and its tape, if any, holds the export's first block or the
    one before it. Blocks that are there are skipped. With `wait` another writer is waited for.

    Raises UsageError for an export that does not fit, DamagedExport, which names the file, for one that is
    not what it was, StoreError. Nothing is written then.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    blocks, inputs = manifest.file("blocks"), manifest.file("inputs")
    if blocks is None or inputs is None:
        raise UsageError(f"{folder} holds no tape: export one, with --what tape")
    migrate(url)
    with closing(connect_writer(url, wait=wait)) as connection:
        try:
            with connection.transaction():
                if manifest.network is None:
                    return Imported(None, None, None, 0, 0)
                work = _Import(connection, folder, manifest, NETWORKS[manifest.network])
                return work.run(blocks, inputs, on_block or (lambda *_: None))
        except psycopg.Error as error:
            raise StoreError(f"the database failed: {' '.join(str(error).split())}") from error


class _Import:
    """One import, in the caller's transaction."""

    def __init__(
        self, connection: psycopg.Connection, folder: Path, manifest: Manifest, network: Network
    ) -> None:
        self._connection = connection
        self._folder = folder
        self._manifest = manifest
        self._network = network
        self._tape = Tape(connection)
        bound = self._tape.deployment()
        if bound is not None and bound != (network.name, network.genesis_hash):
            raise StoreError(
                f"this database follows {bound[0]}, and {folder} was exported from {network.name}: "
                "import it into another database"
            )
        self._tape.bind(network.name, network.genesis_hash)
        tip = self._tape.tip()
        self._tip = None if tip is None else read_header(tip.block_id, tip.header)
        self._pins = self._tape.pins()

    def run(self, blocks: File, inputs: File, on_block: OnBlock) -> Imported:
        """Do it all."""
        first, last = self._manifest.first, self._manifest.last
        if first is None or last is None:
            return Imported(self._network.name, None, None, 0, 0)
        start = first.block_id if self._tip is None else self._tip.block_id + 1
        self._refuse_misfit(first.block_id, start)
        work = self._work()
        rows = _Ahead(rows_of(self._folder / inputs.name, inputs, INPUTS))
        new_inputs = 0
        for chunk in self._chunks(blocks, first, last):
            self._compare([block for block, _ in chunk if block.block_id < start])
            new = [item for item in chunk if item[0].block_id >= start]
            work = self._take_blocks(new, work)
            counts = self._take_inputs(inputs, rows, [block for block, _ in chunk], start)
            for block, _ in new:
                on_block(block, counts[block.block_id], last.block_id)
            new_inputs += counts.total()
        if rows.are_left:
            self._damaged(inputs, f"it has inputs in blocks behind {last.block_id}, the last one")
        if start <= last.block_id:
            carry_over(self._connection, self._manifest.coverage, start, last.block_id)
        new_blocks = max(0, last.block_id - start + 1)
        return Imported(self._network.name, first.block_id, last.block_id, new_blocks, new_inputs)

    def _refuse_misfit(self, first: int, start: int) -> None:
        """Refuse a stretch that neither joins the tape nor begins in it."""
        bottom = self._tape.bottom()
        if bottom is not None and not bottom.block_id <= first <= start:
            raise UsageError(
                f"{self._folder} begins with block {first}, and this database holds blocks {bottom.block_id} "
                f"to {start - 1}: export from one of these or from block {start} on, or import into an empty "
                "database"
            )

    def _work(self) -> int | None:
        """Give the work up to the tape's tip."""
        if self._tip is None:
            return None
        row = self._connection.execute(_Q["chainwork"], {"block_id": self._tip.block_id}).fetchone()
        assert row is not None, "the tip is on the tape"
        return int(row[0])

    def _chunks(self, file: File, first: End, last: End) -> Iterator[list[tuple[Block, int]]]:
        """Give the export's blocks, checked, with the work up to each."""
        rows = rows_of(self._folder / file.name, file, BLOCKS)
        before: tuple[Block, int] | None = None
        while chunk := list(islice(rows, _CHUNK)):
            checked = []
            for row in chunk:
                try:
                    item = check_block(row, before)
                except ValueError as error:
                    self._damaged(file, str(error))
                if before is None:
                    self._require(file, item[0], first)
                    self._require_genesis(file, item[0])
                checked.append(item)
                before = item
            yield checked
        if before is None:
            self._damaged(file, "it holds no block")
        self._require(file, before[0], last)

    def _require(self, file: File, block: Block, end: End) -> None:
        if (block.block_id, block.hash) != (end.block_id, end.hash):
            self._damaged(
                file,
                f"block {block.block_id} ({block.hash}) stands where the manifest has block {end.block_id} "
                f"({end.hash})",
            )

    def _require_genesis(self, file: File, block: Block) -> None:
        if block.block_id == 0 and block.hash != self._network.genesis_hash:
            self._damaged(file, f"{block.hash} is not block 0 of {self._network.name}")

    def _compare(self, blocks: Sequence[Block]) -> None:
        """Refuse blocks that the tape has others in place of, or the parent of which it lacks."""
        if not blocks:
            return
        ours = self._tape.blocks(blocks[0].block_id, blocks[-1].block_id)
        for block, own in zip(blocks, ours, strict=True):
            self._refuse_branch(block.block_id, block.hash, own.hash)

    def _refuse_branch(self, block_id: int, theirs: str, ours: str) -> None:
        if theirs != ours:
            raise UsageError(
                f"{self._folder} has {theirs} as block {block_id}, and this database {ours}: they took "
                "different branches of the chain; import into an empty database"
            )

    def _refuse_unpinned(self, block: Block) -> None:
        if self._pins.get(block.block_id, block.hash) != block.hash:
            raise UsageError(
                f"{self._folder} has {block.hash} as block {block.block_id}, and this database follows only "
                f"chains with {self._pins[block.block_id]} there, which is pinned"
            )

    def _take_blocks(self, blocks: Sequence[tuple[Block, int]], chainwork: int | None) -> int | None:
        """Append blocks. `chainwork` is the tape's up to its tip; None: the export's own counts."""
        if not blocks:
            return chainwork
        if self._tip is not None and blocks[0][0].block_id == self._tip.block_id + 1:
            self._refuse_branch(self._tip.block_id, blocks[0][0].prev_hash, self._tip.hash)
        with self._connection.cursor() as cursor, cursor.copy(_Q["take_blocks"]) as copy:
            for block, told_work in blocks:
                self._refuse_unpinned(block)
                chainwork = told_work if chainwork is None else chainwork + work(block.bits)
                hashes = (bytes.fromhex(block.hash), bytes.fromhex(block.prev_hash))
                time = datetime.fromtimestamp(block.time, UTC)
                copy.write_row((block.block_id, *hashes, block.header, time, chainwork))
        return chainwork

    def _take_inputs(self, file: File, rows: "_Ahead", blocks: Sequence[Block], start: int) -> Counter[int]:
        """Keep the inputs of some blocks, from block `start` on; give how many of these each block has."""
        by_id = {block.block_id: block for block in blocks}
        counts: Counter[int] = Counter()
        with self._connection.cursor() as cursor, cursor.copy(_Q["take_inputs"]) as copy:
            try:
                for row in rows.until(blocks[-1].block_id):
                    item = check_input(row, by_id, self._network)
                    if item.block_id >= start:
                        copy.write_row(_written(item))
                        counts[item.block_id] += 1
            except ValueError as error:
                self._damaged(file, str(error))
        return counts

    def _damaged(self, file: File, what: str) -> NoReturn:
        raise DamagedExport(f"{self._folder / file.name} is damaged: {what}")


class _Ahead:
    """Rows of inputs, of which the next one can be looked at; they must come in chain order."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._next = next(rows, None)
        self._last: Row = (-1, 0)

    @property
    def are_left(self) -> bool:
        """Whether there is a next one."""
        return self._next is not None

    def until(self, block_id: int) -> Iterator[Row]:
        """Give the rows up to a block; raises ValueError where one stands before an earlier one."""
        while self._next is not None and self._next[0] <= block_id:
            row, self._next = self._next, next(self._rows, None)
            if row[:2] <= self._last:
                raise ValueError(f"transaction {row[1]} of block {row[0]} stands out of order")
            self._last = row[:2]
            yield row


def _written(item: Input) -> tuple[object, ...]:
    return (
        item.block_id,
        item.txindex,
        bytes.fromhex(item.txid),
        item.raw,
        list(item.magics),
        Jsonb([sender.as_dict() for sender in item.senders]),
        Jsonb([output.as_dict() for output in item.outputs]),
        item.fee,
    )

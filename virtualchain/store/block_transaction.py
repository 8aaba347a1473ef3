"""The transaction of one block: what apps do in it, and at its end its rows for tape and log, all at once.

A block in which nothing is for anyone is one statement, whatever the number of apps: no transaction is
begun for it. In all others, statements are sent ahead: without waiting for those before, until something
reads a result.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from json import JSONEncoder
from types import TracebackType
from typing import Final, NamedTuple, Self

import psycopg
from psycopg.pq import TransactionStatus

from virtualchain.bitcoin.header import work
from virtualchain.model import Block, Input
from virtualchain.store.log import AppLog, Op, Rejection, Snapshot
from virtualchain.store.sql import queries

_Q = queries("block_transaction")
_BATCH: Final = 8_000_000
"""Characters of rows that are gathered before they are sent."""

_as_json = JSONEncoder(separators=(",", ":")).encode


class Place(NamedTuple):
    """A build of an app, and whether it is the live one."""

    app: str
    build: str
    is_live: bool


class Taken(NamedTuple):
    """What a build made of a block."""

    place: Place
    ops: Sequence[Op]
    rejections: Sequence[Rejection]
    snapshot: Snapshot


class BlockTransaction:
    """The transaction of one block; leaving it without `commit` undoes everything.

    `inputs` are those that the tape gets, together with the block if it `is_new`. Whoever runs a statement of
    the block calls `begin` first. From then on statements are sent ahead, and the error of one is raised by a
    later one, or by `wait`.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        block: Block,
        inputs: Sequence[Input] = (),
        *,
        is_new: bool = False,
    ) -> None:
        self._connection = connection
        self._block = block
        self._inputs = inputs
        self._lacks_block = is_new
        self._has_begun = False
        self._pipeline: psycopg.Pipeline | None = None
        self._end_of_pipeline = ExitStack()
        self._taken: list[Taken] = []
        self._rows = _no_rows()
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._roll_back()

    def begin(self) -> None:
        """Begin the transaction, unless it has begun."""
        if not self._has_begun:
            self._send_ahead()
            self._has_begun = True
            self._connection.execute(_Q["begin"])

    def wait(self) -> None:
        """Wait until the server has done all that was sent; raise the first error."""
        if self._pipeline is not None:
            self._pipeline.sync()

    def settle(self) -> None:
        """Wait as `wait` does, and from here on for each statement."""
        self._pipeline = None
        self._end_of_pipeline.close()

    def has_failed(self) -> bool:
        """Return whether a statement has failed, so that nothing but undoing is possible."""
        with suppress(psycopg.Error):
            self.wait()
        return self._connection.info.transaction_status != TransactionStatus.INTRANS

    @contextmanager
    def part(self, log: AppLog, *, is_live: bool) -> Iterator[None]:
        """Run what belongs to one build, which nobody swaps or drops meanwhile; undo that alone if it fails.

        After a failure statements are not sent ahead any more. Raises BuildChanged as `AppLog.hold` does,
        also in place of another failure, which it explains.
        """
        self.begin()
        hold = _Hold(log, is_live=is_live)
        self._connection.execute(_Q["savepoint"])
        try:
            if self._pipeline is None:
                hold.check()
            yield
            hold.check()
        except BaseException as error:
            if not self._connection.closed:
                with suppress(psycopg.Error):
                    self.settle()
                self._connection.execute(_Q["undo_savepoint"])
            if isinstance(error, Exception):
                with suppress(psycopg.Error):
                    hold.check()
            raise
        self._connection.execute(_Q["release_savepoint"])

    def take(self, taken: Taken) -> None:
        """Have the log show that a build took the block, and what became of its candidates."""
        self._taken.append(taken)
        self._gather(_log_rows(taken))

    def commit(self) -> set[Place]:
        """Write the rows, and end the transaction; return the builds that could not take the block.

        Somebody has swapped or dropped them, so there is no snapshot of them. Raises psycopg.Error, with
        SQLSTATE VC001 if a new block is not the tip's child.
        """
        self._gather(_input_rows(self._inputs))
        if self._has_begun:
            self._send_ahead()
        cursor = self._send([_snapshot_row(taken) for taken in self._taken])
        if self._has_begun:
            self._connection.execute(_Q["commit"])
            self.settle()
            self._has_begun = False
        written = set(cursor.fetchall())
        return {taken.place for taken in self._taken if taken.place[:2] not in written}

    def culprit(self) -> Place | None:
        """After a failure of `commit`, return the build whose part alone the database refuses, if one is."""
        self._lacks_block = False
        for taken in self._taken:
            self._roll_back()
            try:
                self.begin()
                self._gather(_log_rows(taken))
                self._send([_snapshot_row(taken)])
                self.wait()
            except psycopg.Error:
                return None if self._connection.closed else taken.place
        return None

    def _gather(self, rows: Iterable[tuple[str, list[object]]]) -> None:
        for kind, row in rows:
            text = _as_json(row)
            self._rows[kind].append(text)
            self._size += len(text)
            if self._size > _BATCH:
                self.begin()
                self._send([])

    def _send_ahead(self) -> None:
        if self._pipeline is None:
            self._pipeline = self._end_of_pipeline.enter_context(self._connection.pipeline())

    def _send(self, snapshots: list[list[object]]) -> psycopg.Cursor[tuple[object, ...]]:
        """Send the gathered rows and these snapshots; the result is app and build of those taken."""
        block = self._block
        rows = {kind: f"[{','.join(texts)}]" for kind, texts in self._rows.items()}
        values = {
            "block_id": block.block_id,
            "hash": block.hash if self._lacks_block else None,
            "prev_hash": block.prev_hash,
            "header": block.header,
            "time": block.time,
            "work": work(block.bits),
            "snapshots": _as_json(snapshots),
        }
        self._lacks_block, self._rows, self._size = False, _no_rows(), 0
        return self._connection.execute(_Q["add_rows"], {**values, **rows}, prepare=True)

    def _roll_back(self) -> None:
        with suppress(psycopg.Error):
            self.settle()
        if self._has_begun and not self._connection.closed:
            self._connection.execute(_Q["rollback"])
        self._has_begun = False
        self._rows, self._size = _no_rows(), 0


class _Hold:
    """The question whether a build is still what it was, whose answer is read when it is needed."""

    def __init__(self, log: AppLog, *, is_live: bool) -> None:
        self._log = log
        self._is_live = is_live
        self._answer = log.ask_hold()
        self._was_read = False

    def check(self) -> None:
        """Raise BuildChanged once if it is not."""
        if not self._was_read:
            self._was_read = True
            self._log.check_hold(self._answer, is_live=self._is_live)


def _no_rows() -> dict[str, list[str]]:
    return {"inputs": [], "ops": [], "rejections": []}


def _input_rows(inputs: Iterable[Input]) -> Iterator[tuple[str, list[object]]]:
    for item in inputs:
        magics = [magic.hex() for magic in item.magics]
        spent, unusual_keys = item.spent.hex(), item.unusual_keys
        place = (item.txindex, item.txid, item.raw.hex())
        yield "inputs", [*place, magics, spent, unusual_keys, item.fee, item.evidence]


def _log_rows(taken: Taken) -> Iterator[tuple[str, list[object]]]:
    app, build, _ = taken.place
    for op in taken.ops:
        place = (app, build, op.vtxindex, op.txindex)
        canonical = [serialized.hex() for serialized in op.canonical]
        yield "ops", [*place, op.opcode.hex(), op.payload.hex(), op.fields, canonical]
    for item in taken.rejections:
        yield "rejections", [app, build, item.txindex, item.opcode.hex(), item.step, item.reason]


def _snapshot_row(taken: Taken) -> list[object]:
    snapshot = taken.snapshot
    number = None if snapshot.state_number is None else snapshot.state_number.hex()
    return [*taken.place, snapshot.ops_hash, snapshot.consensus_hash, snapshot.state_hash, number]

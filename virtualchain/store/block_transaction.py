"""The transaction of one block: what apps do in it, and at its end its rows for tape and log, all at once.

A block in which nothing is for anyone is one statement, whatever the number of apps: no transaction is
begun for it. In all others, statements are sent ahead: without waiting for those before, until something
reads a result. Far from the tip, not even the end of the transaction is waited for.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from types import TracebackType
from typing import Final, NamedTuple, Self

import psycopg
from psycopg.pq import TransactionStatus

from virtualchain.bitcoin.header import work
from virtualchain.model import Block, Coinbase, Input
from virtualchain.store.log import AppLog, OpRows, RejectionRows, Snapshot, as_json
from virtualchain.store.pipeline import Answer, pipeline_of
from virtualchain.store.sql import Statement, queries, statement

_QUERIES: Final = queries("block_transaction")
_PARTS: Final = ("block", "inputs", "coinbase", "ops", "rejections")
"""What a statement may add beside snapshots, in the order of `add_rows`."""
_Q = {name: statement(_QUERIES[name]) for name in _QUERIES.keys() - {"add_rows", *_PARTS}}
_BATCH: Final = 2_000_000
"""Characters of rows that are gathered before they are sent."""
_CHUNK_SIZE: Final = 400_000
"""Characters of the rows of inputs that are gathered at once."""


class Place(NamedTuple):
    """A build of an app, as this process has joined it."""

    app: str
    build: str
    epoch: int
    is_live: bool


class Taken(NamedTuple):
    """What a build made of a block."""

    place: Place
    ops: OpRows
    rejections: RejectionRows
    snapshot: Snapshot


class _Part(NamedTuple):
    """What a build adds to the log; the rows of one that rests are its snapshot alone."""

    place: Place
    ops: OpRows | None
    rejections: RejectionRows | None
    snapshot: str
    """As a row of JSON."""


class BlockTransaction:
    """The transaction of one block; leaving it without `commit` or `send_commit` undoes everything.

    `inputs` are those that the tape gets, together with the block if it `is_new`. Whoever runs a statement of
    the block calls `begin` first. From then on statements are sent ahead, and the error of one is raised by a
    later one, or by `wait`. With `in_flight`, a part need not wait for what it sent last: if that fails,
    EarlierFailed says that the block must be taken again without.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        block: Block,
        inputs: Sequence[Input] = (),
        *,
        is_new: bool = False,
        in_flight: bool = False,
    ) -> None:
        self._connection = connection
        self._pipeline = pipeline_of(connection)
        self._block = block
        self.inputs = inputs
        self._lacks_block = is_new
        self._lacks_inputs = True
        """Whether the tape is to get the inputs yet."""
        self._has_begun = False
        self._is_in_flight = in_flight
        self._taken: list[_Part] = []
        self._rows = _no_rows()
        self._size = 0
        self._written: Answer | None = None
        self._coinbase: Coinbase | None = None
        """That of the block, if its inputs have branches, until it is sent."""

    def __enter__(self) -> Self:
        self._pipeline.owner = self
        self._pipeline.meanwhile = self._send_inputs if self._is_in_flight else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            self._connection.close()  # as `Pipeline.interruptible` does
        self._roll_back()
        self._pipeline.owner = self._pipeline.meanwhile = None

    def begin(self) -> None:
        """Begin the transaction, unless it has begun."""
        if not self._has_begun:
            self._has_begun = True
            self._pipeline.run(_Q["begin"])

    def wait(self) -> None:
        """Wait until the server has done all that was sent; raise the first error."""
        self._pipeline.wait()

    def has_failed(self) -> bool:
        """Return whether a statement has failed, so that nothing but undoing is possible."""
        with suppress(psycopg.Error):
            self._pipeline.wait()
        return self._connection.info.transaction_status != TransactionStatus.INTRANS

    @property
    def is_aborted(self) -> bool:
        """Whether a statement is known to have failed, without waiting for those that were sent."""
        return self._connection.pgconn.transaction_status == TransactionStatus.INERROR

    @property
    def failed_call(self) -> int | None:
        """The number of the call whose statement has failed; None if that was sent at the block's end."""
        return self._pipeline.failed_call

    @property
    def may_end_in_flight(self) -> bool:
        """Whether the part that runs may end without waiting for what it sent last."""
        return self._is_in_flight

    @contextmanager
    def part(self, log: AppLog) -> Iterator[None]:
        """Run what belongs to one build, which nobody swaps or drops meanwhile; undo that alone if it fails.

        With the first part the whole transaction is undone, and begun again. Raises BuildChanged as
        `AppLog.hold` does, in place of the failure that follows from it.
        """
        is_first = not self._has_begun
        before = self._lacks_block, self._lacks_inputs
        self.begin()
        if not is_first:
            self._pipeline.run(_Q["begin_part"])
        log.keep()
        try:
            with self._pipeline.interruptible():
                yield
                if self.is_aborted:
                    raise psycopg.errors.InFailedSqlTransaction("a callback has hidden that a read failed")
                if self._is_in_flight:
                    self._pipeline.owner = object()  # whoever notices that it has failed is not to blame
                else:
                    self._pipeline.wait()
        except BaseException as error:
            if not self._connection.closed:
                self._undo_part(is_first=is_first)
                self._lacks_block, self._lacks_inputs = before
            if isinstance(error, Exception):
                with suppress(psycopg.Error):
                    log.hold()
            raise
        if not is_first:
            self._pipeline.run(_Q["end_part"])

    def _undo_part(self, *, is_first: bool) -> None:
        if is_first:
            self._pipeline.undo(_Q["rollback"])
            self._pipeline.run(_Q["begin"])
        else:
            self._pipeline.undo(_Q["undo_part"])

    def take(self, taken: Taken) -> None:
        """Have the log show that a build took the block, and what became of its candidates."""
        row = _snapshot_row(taken.place, taken.snapshot)
        part = _Part(taken.place, taken.ops, taken.rejections, row)
        self._taken.append(part)
        self._gather_log(part)

    def rest(self, place: Place, snapshot: Snapshot) -> None:
        """Have the log show that a build took the block, in which nothing was for it."""
        self._taken.append(_Part(place, None, None, _snapshot_row(place, snapshot)))

    def commit(self) -> set[Place]:
        """Write the rows, and end the transaction; return the builds that could not take the block.

        Somebody has swapped or dropped them, so they get no snapshot any more. Raises psycopg.Error, with
        SQLSTATE VC001 if a new block is not the tip's child.
        """
        self.send_commit()
        try:
            self._pipeline.wait()
        except psycopg.Error:
            status = self._connection.info.transaction_status
            self._has_begun = status == TransactionStatus.INERROR  # the server has skipped COMMIT
            raise
        return self.missed() or set()

    def send_commit(self) -> None:
        """Do what `commit` does, without waiting; what it raises is raised later, as EarlierFailed."""
        self._coinbase = next((item.coinbase for item in self.inputs if item.coinbase is not None), None)
        if self._lacks_inputs:
            self._gather("inputs", _input_texts(self.inputs))
        self._written = self._send([part.snapshot for part in self._taken])
        if self._has_begun:
            self._pipeline.run(_Q["commit"])
        self._pipeline.sync()
        self._has_begun, self.inputs = False, ()

    def _send_inputs(self) -> None:
        """Send what the tape gets while an app waits for rows: the server writes it while the app judges.

        That is undone with the app's part. Rows of other apps must not be, so then all comes at the end.
        """
        if any(self._rows.values()):
            return
        self._gather("inputs", _input_texts(self.inputs))
        self._send([])
        self._lacks_inputs = False

    def wait_until_taken(self) -> None:
        """Wait until the server has written the rows of `send_commit`, but not for what was sent later."""
        assert self._written is not None, "it was sent"
        self._pipeline.wait_for(self._written)

    def missed(self) -> set[Place] | None:
        """Return what `commit` returns; None while the server has not answered."""
        if self._written is None or self._written.result is None:
            return None
        if self._written.count == len(self._taken):
            return set()
        epochs = {Place(*row) for row in self._connection.execute(_QUERIES["epochs"]).fetchall()}
        return {taken.place for taken in self._taken} - epochs

    def culprit(self) -> Place | None:
        """After a failure of `commit`, return the build whose part alone the database refuses, if one is."""
        self._lacks_block = False
        for taken in self._taken:
            self._roll_back()
            try:
                self.begin()
                self._gather_log(taken)
                self._send([taken.snapshot])
                self._pipeline.wait()
            except psycopg.Error:
                return None if self._connection.closed else taken.place
        return None

    def _gather_log(self, part: _Part) -> None:
        for kind, rows in (("ops", part.ops), ("rejections", part.rejections)):
            if rows:
                self._gather(kind, rows.texts(), part.place)

    def _gather(self, kind: str, texts: Iterable[str], place: Place | None = None) -> None:
        """Gather rows, which may be those of a build; send them when there are many."""
        for text in texts:
            self._rows[kind].setdefault(place, []).append(text)
            self._size += len(text)
            if self._size > _BATCH:
                self.begin()
                self._send([])
                self._pipeline.wait()  # so that no other app is blamed if the rows are refused

    def _send(self, snapshots: Sequence[str]) -> Answer:
        """Send the gathered rows and these snapshots; the answer counts the snapshots that were added."""
        block, coinbase = self._block, self._coinbase
        rows = {kind: _joined(texts) for kind, texts in self._rows.items() if texts}
        values = {"block_id": block.block_id, "snapshots": f"[{','.join(snapshots)}]", **rows}
        if self._lacks_block:
            values |= {
                "hash": block.hash,
                "prev_hash": block.prev_hash,
                "header": block.header,
                "time": block.time,
                "work": work(block.bits),
            }
        if coinbase is not None:
            values |= {"coinbase": coinbase.transaction.hex(), "coinbase_branch": coinbase.branch.hex()}
        parts = tuple(name for name in _PARTS if name in values or (name == "block" and self._lacks_block))
        self._coinbase, self._lacks_block, self._rows, self._size = None, False, _no_rows(), 0
        return self._pipeline.run(_add_rows(parts), values)

    def _roll_back(self) -> None:
        if self._has_begun and not self._connection.closed:
            self._pipeline.undo(_Q["rollback"])
        self._has_begun = False
        self._rows, self._size = _no_rows(), 0


@cache
def _add_rows(parts: tuple[str, ...]) -> Statement:
    """Return the statement that adds snapshots, and what these parts add."""
    text = "".join(f"{_QUERIES[part]}, " for part in parts)
    return statement(_QUERIES["add_rows"].replace("{parts}", text))


def _no_rows() -> dict[str, dict[Place | None, list[str]]]:
    return {"inputs": {}, "ops": {}, "rejections": {}}


def _joined(texts: Mapping[Place | None, Sequence[str]]) -> str:
    """Write rows as a JSON array; those of builds as one for each: app, build, and its rows."""
    parts = [
        ",".join(rows) if place is None else f"[{as_json(place[:2])[1:-1]},[{','.join(rows)}]]"
        for place, rows in texts.items()
    ]
    return f"[{','.join(parts)}]"


def _input_texts(inputs: Iterable[Input]) -> Iterator[str]:
    rows: list[str] = []
    size = 0
    for item in inputs:
        rows.append(_input_row(item))
        size += len(rows[-1])
        if size > _CHUNK_SIZE:
            yield ",".join(rows)
            rows, size = [], 0
    if rows:
        yield ",".join(rows)


def _input_row(item: Input) -> str:
    """Write an input's row; nearly all of it is hex, of which an encoder would look at every digit."""
    magics = ",".join([_hex(magic) for magic in item.magics])
    keys = as_json(item.unusual_keys) if item.unusual_keys else "{}"
    evidence = "null" if item.evidence is None else f'"{item.evidence}"'
    spent_at = "null" if item.spent_at is None else as_json(item.spent_at)
    tracked_by = as_json(item.tracked_by) if item.tracked_by else "[]"
    return (
        f'[{item.txindex},"{item.txid}","{item.raw.hex()}",[{magics}],"{item.spent.hex()}",{keys},{item.fee},'
        f"{evidence},{spent_at},{tracked_by},{_hex(item.branch)}]"
    )


def _hex(data: bytes | None) -> str:
    return "null" if data is None else f'"{data.hex()}"'


def _snapshot_row(place: Place, snapshot: Snapshot) -> str:
    state_hash = "null" if snapshot.state_hash is None else f'"{snapshot.state_hash}"'
    hashes = f'"{snapshot.ops_hash}","{snapshot.consensus_hash}",{state_hash},{_hex(snapshot.state_number)}'
    return f"[{_place_text(place)},{hashes}]"


@lru_cache(maxsize=64)
def _place_text(place: Place) -> str:
    return as_json(place)[1:-1]

"""Blocks that are foreseen: judged on top of a build's state in a transaction that the caller undoes.

What is judged, in which order, and on what state, is what the machine does with a block of the tape. But
nothing is added to tape and log, so no other session is in the way of it, or it in theirs.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.app.fields import all_to_json
from virtualchain.engine.candidates import Candidate
from virtualchain.engine.care import FULL_CARE, Care, NeedsCare
from virtualchain.engine.judge import Verdicts
from virtualchain.engine.machine import Looked, Machine
from virtualchain.engine.options import Options
from virtualchain.engine.shown_op import fields_of
from virtualchain.engine.states import AppState, OpaqueState, TableState, loads_files
from virtualchain.errors import InvalidOp, Unserializable, UsageError
from virtualchain.model import Block, Json, ScannedBlock
from virtualchain.store.block_transaction import BlockTransaction, Taken
from virtualchain.store.foreseen import Captured, Change, RowChange, merged
from virtualchain.store.log import AppLog, LogRows
from virtualchain.store.pipeline import pipeline_of
from virtualchain.store.projections import build_schema, projections
from virtualchain.store.state_files import StateFiles

_AT_ONCE: Final = 5_000
"""Outpoints that a statement asks for."""

_Place = tuple[int, int]
"""A candidate of a block: its transaction's place, and which of its payloads it is."""
_SCAN: _Place = (-1, 0)
"""In place of a candidate, what is done before all of them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an app would do with an input, or does with one that is in a block already."""

    txid: str
    payload_index: int
    """Which of the transaction's payloads it is, from 0."""
    opcode: bytes
    payload: bytes | None
    """None if the transaction only spends outputs that the app tracks."""
    fields: Json | list[Json] | None
    """As committed; of a refused input as it was parsed, None if it was not."""
    step: str | None
    """If it is refused: parse, check or commit."""
    reason: str | None
    changes: tuple[RowChange, ...]
    """What it does to rows, in the order in which it touches them. What the app does once a block counts with
    the block's first input if db_scan_block does it, and with the last if db_final does."""
    block_id: int
    """The block that it was judged in."""
    raw: bytes = field(repr=False)
    """The transaction, serialized with its witness."""

    @property
    def is_accepted(self) -> bool:
        """Whether the app accepts it."""
        return self.step is None

    def as_dict(self) -> Json:
        """Return a new dict, as JSON shows it."""
        return {
            "verdict": "accepted" if self.is_accepted else "refused",
            "step": self.step,
            "reason": self.reason,
            "changes": [change.as_dict() for change in self.changes],
            "block_id": self.block_id,
            "txid": self.txid,
            "payload_index": self.payload_index,
            "opcode": self.opcode.hex(),
            "payload": None if self.payload is None else self.payload.hex(),
            "fields": self.fields,
        }


class Interrupted(Exception):
    """Something more urgent is to be done than to foresee blocks."""


class Foreseer(Machine):
    """A build of an app that is advanced by blocks which stay out of tape and log.

    Its tables are those of the build, or a copy of them in the schema `tables`. It needs a transaction that
    is undone at its end; after that it must be loaded again. `may_continue` is asked before each call of a
    callback.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        contract: Contract,
        build: str,
        options: Options,
        *,
        tables: str | None = None,
        folder: Path,
        may_continue: Callable[[], bool] = lambda: True,
    ) -> None:
        self._may_continue = may_continue
        self._tables = tables or build_schema(contract.schema, build)
        self._folder = folder
        log = _ForeseenLog(connection, contract.name, build)
        self._foreseen_log = log
        self._judged: list[Verdict] = []
        own = replace(options, history=None, state_folder=folder)
        super().__init__(connection, contract, build, own, is_live=True, log=log)

    def load(self) -> None:
        """Return to where the build is now."""
        self._foreseen_log.forget()
        super().load()
        if self.contract.get_state is not None and self.cursor < (self._last_recorded or -1):
            raise UsageError(
                f"app {self.contract.name} keeps a state of its own that it cannot load, so nobody can judge "
                "on top of it: have get_db_state take a filename, and db_save write it"
            )

    def foresee(self, scanned: ScannedBlock) -> list[Verdict]:
        """Judge the block after the cursor; return a verdict on each candidate, in their order.

        Raises AppHalted if a callback fails, which ends the transaction; psycopg.Error if the database does;
        Interrupted if it may not continue.
        """
        block, inputs = scanned.block, {item.txindex: item for item in scanned.inputs}
        self._judged = []
        with _ForeseenBlock(self._connection, block) as transaction:
            if scanned.rest is not None:
                self.look(block, inputs, scanned.rest, transaction)
            consensus_hash = self.step(block, [item for _, item in sorted(inputs.items())], transaction)
        self._foreseen_log.add(block.block_id, consensus_hash)
        return self._judged

    def tracked(self, outpoints: Sequence[bytes]) -> set[bytes]:
        """Return those of some outpoints that the app tracks, as its tables are now."""
        assert isinstance(self._state, TableState), "only an app with tables tracks outputs"
        rows = self._state.db_state.rows
        tracked: set[bytes] = set()
        for start in range(0, len(outpoints), _AT_ONCE):
            answer = rows.ask_at(outpoints[start : start + _AT_ONCE])
            pipeline_of(self._connection).wait()
            tracked |= rows.outputs_in(answer)
        return tracked

    def _open_state(self, connection: psycopg.Connection, file: Path) -> AppState:
        if self.contract.get_state is not None:
            files = StateFiles(connection, self.contract.name, self.build, self._folder / file.name)
            return _ForeseenFile(self.contract, files)
        state = _ForeseenTables(connection, self.contract, self.log, self._tables, self._tape.network)
        state.may_continue = self._may_continue
        return state

    def _judge(self, block: Block, mine: Looked, transaction: BlockTransaction) -> Verdicts:
        try:  # few apps write while they parse, and a savepoint for each call takes time
            verdicts = self._judge_with(Care(start=len(mine.candidates)), block, mine, transaction)
        except NeedsCare:
            verdicts = self._judge_with(FULL_CARE, block, mine, transaction)
        changes = self._state.changes if isinstance(self._state, _ForeseenTables) else []
        self._judged = _verdicts(block, mine.candidates, verdicts, changes)
        return verdicts


def _verdicts(
    block: Block,
    candidates: Sequence[Candidate],
    verdicts: Verdicts,
    changes: Sequence[tuple[_Place | None, Sequence[Change]]],
) -> list[Verdict]:
    accepted = {(row[1], row[6]): row[4] for row in _rows(verdicts.ops)}
    refused = {(row[0], row[4]): (row[2], row[3]) for row in _rows(verdicts.rejections)}
    judged = [each for each in candidates if _place(each) in accepted or _place(each) in refused]
    made = []
    for candidate, some in zip(judged, _by_candidate(judged, changes), strict=True):
        place = _place(candidate)
        step, reason = refused.get(place, (None, None))
        made.append(
            Verdict(
                candidate.source.txid,
                candidate.payload_index,
                candidate.opcode,
                candidate.payload,
                accepted[place] if step is None else _parsed(candidate),
                step,
                reason,
                merged(some),
                block.block_id,
                candidate.source.raw,
            )
        )
    return made


def _by_candidate(
    judged: Sequence[Candidate], changes: Sequence[tuple[_Place | None, Sequence[Change]]]
) -> list[list[Change]]:
    """Return the changes of each candidate: one after the other, they find rows as those before left them."""
    order = {_place(candidate): number for number, candidate in enumerate(judged)} | {_SCAN: 0}
    mine: list[list[Change]] = [[] for _ in judged]
    last: dict[tuple[str, str], int] = {}
    for place, some in changes if judged else ():
        number = len(judged) - 1 if place is None else order.get(place, 0)
        for change in some:  # all are parsed before the first is committed, and that may write as well
            last[change.place] = max(number, last.get(change.place, 0))
            mine[last[change.place]].append(change)
    return mine


def _place(candidate: Candidate) -> _Place:
    return candidate.source.txindex, candidate.payload_index


def _rows(rows: LogRows) -> list[list[Any]]:
    """Return the rows that a block would have added to a table of the log."""
    return [row for text in rows.texts() for row in json.loads(f"[{text}]")]


def _parsed(candidate: Candidate) -> Json | None:
    """Return what a refused input was parsed as, if it was, and as far as JSON can show it."""
    fields = fields_of(candidate.op)
    with suppress(InvalidOp, Unserializable):
        return all_to_json([fields])[0] if fields else None
    return None


class _ForeseenBlock(BlockTransaction):
    """A part of a transaction that the caller has begun and undoes; its rows for the log go nowhere."""

    def begin(self) -> None:
        """Do nothing: the transaction has begun."""

    @contextmanager
    def part(self, log: AppLog) -> Iterator[None]:  # noqa: ARG002 - nobody is kept from anything
        """Undo what is done inside if it fails."""
        with self._pipeline.savepoint():
            yield

    def take(self, taken: Taken) -> None:
        """Do nothing."""


class _ForeseenLog(AppLog):
    """The log of a build, and after it the hashes of blocks that are foreseen."""

    def __init__(self, connection: psycopg.Connection, app: str, build: str) -> None:
        super().__init__(connection, app, build)
        self._hashes: dict[int, str] = {}

    def forget(self) -> None:
        """Forget the blocks that were foreseen."""
        self._hashes.clear()

    def add(self, block_id: int, consensus_hash: str) -> None:
        """Add a block."""
        self._hashes[block_id] = consensus_hash

    def consensus_at(self, block_ids: Sequence[int]) -> dict[int, str]:
        """Return the consensus hashes of those of `block_ids` that have one."""
        foreseen = {item: self._hashes[item] for item in block_ids if item in self._hashes}
        return super().consensus_at([item for item in block_ids if item not in foreseen]) | foreseen

    def consensus_hash(self, block_id: int) -> str | None:
        """Return the consensus hash of one block."""
        return self._hashes.get(block_id) or super().consensus_hash(block_id)

    def consensus_hashes(self, first: int, last: int) -> list[str]:
        """Return the consensus hashes of a range of blocks, in order."""
        return super().consensus_hashes(first, last) + self._between(first, last)

    def is_fresh(self, consensus_hash: str, first: int, last: int) -> bool:
        """Return whether one of a range of blocks has this hash."""
        return consensus_hash in self._between(first, last) or super().is_fresh(consensus_hash, first, last)

    def newest_blocks(self, hashes: Sequence[str], last: int) -> dict[str, int]:
        """Return the newest block up to `last` that has each of these hashes."""
        foreseen = {
            item: block_id
            for block_id, item in sorted(self._hashes.items())
            if item in hashes and block_id <= last
        }
        return super().newest_blocks(hashes, last) | foreseen

    def _between(self, first: int, last: int) -> list[str]:
        return [item for block_id, item in sorted(self._hashes.items()) if first <= block_id <= last]


class _ForeseenTables(TableState):
    """Projections whose changes are captured call by call; no state hash is computed."""

    may_continue: Callable[[], bool]

    def __init__(
        self, connection: psycopg.Connection, contract: Contract, log: AppLog, tables: str, network: str
    ) -> None:
        super().__init__(connection, contract, log, tables, network)
        self._captured = Captured(connection, projections(connection, tables))
        self._block_id = -1
        self._has_scan = contract.scan is not None
        self._must_scan = False
        """Whether the block is to be scanned yet."""
        self._call: int | None = None
        """The number of the call that runs, if it has no savepoint."""
        self.changes: list[tuple[_Place | None, Sequence[Change]]] = []
        """What calls have done in the block: with the candidate's place, or None at the block's end."""

    def enter(self, block: Block) -> None:
        """Open the app's tables to its callbacks."""
        super().enter(block)
        self._block_id = block.block_id
        self._captured.begin(block.block_id)
        self._must_scan = self._has_scan
        self.changes = []

    def begin_call(self, call: int, *, is_careful: bool) -> None:
        """Begin a call, if it may begin."""
        if not self.may_continue():
            raise Interrupted
        self._call = None if is_careful else call
        super().begin_call(call, is_careful=is_careful)

    def end_call(self, candidate: object) -> None:
        """Note what the call has done."""
        place = _place(candidate) if isinstance(candidate, Candidate) else _SCAN if self._must_scan else None
        if candidate is None:
            self._must_scan = False
        if not self.wrote():
            return
        if self._call is not None:
            raise NeedsCare(self._call)
        statements_wrote = self.db_state.statement_wrote
        if statements_wrote:
            self._log.leave()
        captured = self._captured.take(
            self.db_state.rows.touched(),
            statements_wrote=statements_wrote,
            has_savepoint=candidate is not None,
        )
        if statements_wrote:
            self._log.enter(self._block_id, self._tables)
        self.changes.append((place, captured))

    def leave(self, *, in_flight: bool) -> None:
        """End the block's callbacks, and find out what is left to know of its changes."""
        super().leave(in_flight=in_flight)
        self._captured.settle()

    def digest(self, block_id: int) -> None:  # type: ignore[override]  # noqa: ARG002 - nobody asks for it
        """Return None."""
        self.number = None


class _ForeseenFile(OpaqueState):
    """A state that is loaded from the last saved file, changed in memory, and not saved again."""

    def load(self, cursor: int | None) -> bool:
        """Have the app load what it saved."""
        if cursor is not None and not loads_files(self._contract):
            return True
        return super().load(cursor)

    def digest(self, block_id: int) -> None:
        """Return None."""

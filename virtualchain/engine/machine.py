"""One build of an app, advanced block by block: it knows the app and no chain.

Everything of a block runs in the caller's transaction, the app's part in a savepoint: if a callback fails,
that app's part is undone and the others continue. The order of the steps is that of the reference network
(docs/protocol/consensus.md, Extraction rules). It decides what a check sees, so it is part of the protocol.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Final

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.consensus.digests import EMPTY_OPS_HASH
from virtualchain.engine.candidates import Candidate, candidates_of, with_spends
from virtualchain.engine.care import FULL_CARE, NO_CARE, Care, NeedsCare
from virtualchain.engine.expectations import Expectations, describe_mismatch
from virtualchain.engine.guard import Guard
from virtualchain.engine.halting import contained, halt
from virtualchain.engine.judge import Verdicts, judge, must_judge
from virtualchain.engine.lookups import Lookups, answering
from virtualchain.engine.options import Options, Tally
from virtualchain.engine.priors import Priors
from virtualchain.engine.states import AppState, OpaqueState, TableState
from virtualchain.engine.tracking import Spends, Tracked, seen
from virtualchain.errors import AppHalted, BuildChanged, DeepFork, UnexpectedDigest
from virtualchain.model import Block, Digests, Expected, Input, Json, RestOfBlock, ScannedBlock
from virtualchain.store.block_transaction import BlockTransaction, Place, Taken
from virtualchain.store.log import AppLog, Snapshot
from virtualchain.store.patience import clock_of
from virtualchain.store.pipeline import Answer, EarlierFailed
from virtualchain.store.projections import build_schema
from virtualchain.store.state_files import StateFiles, state_file
from virtualchain.store.tape import Tape

_STRETCH = 500
"""Blocks whose inputs are read from the tape at once."""
_PRUNED_AT_ONCE = 100
"""The most blocks whose history is dropped together."""


NOTHING: Final = Tally()
"""What became of an app's inputs in a block without any."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """A block that a machine was advanced by, what became of the app's inputs, and the hash after it."""

    block: Block
    inputs: int
    consensus_hash: str
    tally: Tally


@dataclass(slots=True)
class Looked:
    """What an app finds in a block: its candidates, and how many inputs have one of its magics."""

    candidates: list[Candidate]
    count: int
    tracked: Tracked

    def find_sources(self, inputs: Mapping[int, Input]) -> None:
        """Take the candidates' inputs from those that are complete now, and add those without a payload."""
        for candidate in self.candidates:
            candidate.source = inputs[candidate.source.txindex]
        with_payload = [candidate for candidate in self.candidates if candidate.payload is not None]
        self.candidates = with_spends(with_payload, inputs.values(), self.tracked.seen)


class Machine:
    """One build of an app, and how far it has come along the tape.

    `cursor` is the last block that it was advanced to, or the block before its first. `is_live` says whether
    the app's views show this build.
    """

    was_interrupted = False
    """Whether the database failed while it was this app's turn."""
    _held_at = -1
    """The block in whose transaction `may_drop_history` has held the build."""
    condemned: psycopg.Error | None = None
    """The error for which the app is to be halted at its next block, if it is."""

    def __init__(
        self,
        connection: psycopg.Connection,
        contract: Contract,
        build: str,
        options: Options,
        *,
        is_live: bool,
        log: AppLog | None = None,
    ) -> None:
        self.contract = contract
        self.build = build
        self.log = log or AppLog(connection, contract.name, build)
        self._connection = connection
        self._clock = clock_of(connection)
        self._tape = Tape(connection)
        self._history = options.history
        self._looked: tuple[Block, Looked] | None = None
        """What `look` has found for the next block."""
        self.tally = Tally()
        """What became of the app's inputs in the last block that it was advanced by."""
        self._is_live = is_live
        self.magics: Final = frozenset(contract.magics)
        self._may_rest = (
            contract.get_state is None and contract.proceed is None and not must_judge(contract, ())
        )
        self._priors = Priors(self.log, contract)
        self._expectations = Expectations()
        self._guard = Guard(contract) if options.guard else None
        self._stops_if_unexpected = options.on_unexpected == "halt"
        self.unexpected: Json | None = None
        """What differs from the digests that are expected, if something does."""
        assert options.state_folder is not None, "the options are a database's: Options.for_database"
        file = state_file(options.state_folder, contract.schema, build, is_live=is_live)
        self._state = self._open_state(connection, file)
        self.load()

    def _open_state(self, connection: psycopg.Connection, file: Path) -> AppState:
        contract, build = self.contract, self.build
        if contract.get_state is not None:
            return OpaqueState(contract, StateFiles(connection, contract.name, build, file))
        tables = build_schema(contract.schema, build)
        return TableState(connection, contract, self.log, tables, self._tape.network)

    @property
    def _last(self) -> int:
        """The last block that the log has of the app: above the cursor if the state had to be made again."""
        return self.cursor if self._last_recorded is None else max(self.cursor, self._last_recorded)

    def load(self) -> None:
        """Load cursor and state from the database, at the start and after a rollback."""
        self._priors.forget()
        self._held_at = -1
        self.log.join(is_live=self._is_live)  # first: what is read then may already be of a later epoch
        self.place = Place(self.contract.name, self.build, self.log.epoch, self._is_live)
        recorded = self._last_recorded = self.log.cursor()
        self.cursor = max(self.contract.start - 1, -1 if recorded is None else recorded)
        with self.answering():
            starts_over = self._state.load(recorded)
        if starts_over:
            self.cursor = self.contract.start - 1

    def advance_over(
        self, scanned_blocks: Iterable[ScannedBlock], *, beside_writer: bool = False
    ) -> Iterator[Advanced]:
        """Advance along blocks of the tape that were fetched again, because it lacks some of their inputs.

        Those are added. The rest is as for `advance`.
        """
        for scanned in scanned_blocks:
            block, inputs = scanned.block, {item.txindex: item for item in scanned.inputs}
            with BlockTransaction(self._connection, block) as transaction:
                if beside_writer and not self._is_current(block, transaction):
                    self.load()
                    return
                with self._clock.stage("judge"):
                    if scanned.rest is not None:
                        self.look(block, inputs, scanned.rest, transaction)
                    transaction.inputs = taken = [item for _, item in sorted(inputs.items())]
                    consensus_hash = self.step(block, taken, transaction)
                self._commit(transaction)
            yield Advanced(block, len(taken), consensus_hash, self.tally)

    def advance(self, last: int, *, beside_writer: bool = False) -> Iterator[Advanced]:
        """Advance along the tape up to block `last`, with a transaction for each block.

        With `beside_writer`, this is not the writer's process: if the writer has rolled blocks back
        meanwhile, the machine is loaded again, and the iterator ends there. Raises AppHalted, BuildChanged.
        """
        while self.cursor < last:
            first = self.cursor + 1
            magics, app = self.contract.magics, self.contract.name
            until = self._tape.stretch(first, min(self.cursor + _STRETCH, last), magics, app)
            inputs = self._tape.inputs(first, until, magics, app)
            by_block = {block_id: list(group) for block_id, group in groupby(inputs, lambda i: i.block_id)}
            for block in self._tape.blocks(first, until):
                taken = by_block.get(block.block_id, ())
                with BlockTransaction(self._connection, block) as transaction:
                    if beside_writer and not self._is_current(block, transaction):
                        self.load()
                        return
                    with self._clock.stage("judge"):
                        consensus_hash = self.step(block, taken, transaction)
                    self._commit(transaction)
                yield Advanced(block, len(taken), consensus_hash, self.tally)

    def _commit(self, transaction: BlockTransaction) -> None:
        with self._clock.stage("commit"):
            if transaction.commit():
                self.log.hold()  # says what somebody did to the build

    def look(
        self, block: Block, inputs: dict[int, Input], rest: RestOfBlock, transaction: BlockTransaction
    ) -> None:
        """Find what the app sees of a new block because of its tracked set, before `step` takes the block.

        What is missing in `inputs`, by txindex, is added there. Raises what the source raises; nothing of the
        app has changed then.
        """
        assert block.block_id == self.cursor + 1, "an app is advanced block by block"
        self._looked = None
        in_order = [item for _, item in sorted(inputs.items())]
        try:
            looked = self._look(block, in_order, Spends(list(enumerate(rest.spends)), rest.txid), transaction)
        except (AppHalted, BuildChanged):
            return  # `step` encounters it again
        except psycopg.Error as error:
            self.was_interrupted = not isinstance(error, EarlierFailed)
            raise
        self._complete(inputs, looked.tracked, rest)
        looked.find_sources(inputs)
        self._looked = block, looked

    def _complete(self, inputs: dict[int, Input], tracked: Tracked, rest: RestOfBlock) -> None:
        """Add what the app sees to a block's inputs, with heights if it needs them."""
        needs_heights = bool(self.contract.needs)
        asked = {
            txindex: needs_heights
            for txindex in tracked.seen
            if txindex not in inputs or (needs_heights and inputs[txindex].spent_at is None)
        }
        for item in rest.take(asked) if asked else ():
            known = inputs.get(item.txindex, item)
            inputs[item.txindex] = replace(item, magics=known.magics, tracked_by=known.tracked_by)
        for txindex, because in tracked.seen.items():
            if because:
                names = {*inputs[txindex].tracked_by, self.contract.name}
                inputs[txindex] = replace(inputs[txindex], tracked_by=tuple(sorted(names)))

    def _look(
        self, block: Block, inputs: Sequence[Input], spends: Spends, transaction: BlockTransaction
    ) -> Looked:
        """Find the app's payloads, and which transactions it sees because of its tracked set."""
        with self.answering():
            candidates, count = candidates_of(self.contract, block, inputs)
        tracked = Tracked()
        outpoints = spends.all()
        if self.contract.tracks is None or not (outpoints or candidates):
            return Looked(candidates, count, tracked)
        assert isinstance(self._state, TableState), "only an app with tables tracks outputs"
        rows = self._state.db_state.rows
        with transaction.part(self.log):
            answer = rows.ask_at(outpoints)
            transaction.wait()
            tracked.before, tracked.rows = rows.outputs_in(answer), answer.rows()
            tracked.seen = seen(spends, {item.source.txindex for item in candidates}, tracked.before)
            others = {each for because in tracked.seen.values() for each in because} - tracked.before
            if others:
                answer = rows.ask_at(sorted(others))
                transaction.wait()
                tracked.rows += answer.rows()
        return Looked(with_spends(candidates, inputs, tracked.seen), count, tracked)

    def rests(self, block: Block, magics: Iterable[bytes]) -> bool:
        """Return whether a new block is nothing to the app, if these are the magics of its inputs.

        For an app that tracks outputs, `look` comes first.
        """
        if not self._may_rest or self.condemned is not None or not self.magics.isdisjoint(magics):
            return False
        if self.must_stop:
            return False
        looked = self._looked
        return self.contract.tracks is None or (
            looked is not None and looked[0] == block and not looked[1].candidates
        )

    def rest(self, block: Block, transaction: BlockTransaction) -> None:
        """Do what `step` does for a block in which the app `rests`, in a fraction of the time.

        Raises BuildChanged if history is dropped, and somebody has swapped or dropped the build.
        """
        block_id = block.block_id
        try:
            consensus_hash = self._priors.consensus_hash(block_id, EMPTY_OPS_HASH)
            self._prune(block_id, transaction)
        except psycopg.Error as error:
            self.was_interrupted = not isinstance(error, EarlierFailed)
            raise
        state_hash = self._state.digest(block_id)
        snapshot = Snapshot(block_id, EMPTY_OPS_HASH, consensus_hash, state_hash)
        transaction.rest(self.place, snapshot)
        self._compare(block, snapshot)
        self.cursor = block_id
        self.tally = NOTHING

    def step(self, block: Block, inputs: Sequence[Input], transaction: BlockTransaction) -> str:
        """Advance the app by `block`, the cursor's successor, in the caller's transaction.

        `inputs` are the block's inputs in order, other apps' included. Returns the consensus hash. Raises
        AppHalted if a callback fails (the app's part is undone), BuildChanged if somebody swapped or dropped
        the build, psycopg.Error if the database fails.
        """
        assert block.block_id == self.cursor + 1, "an app is advanced block by block"
        self.check_base_block(block)
        if self.condemned is not None:
            raise halt(self.contract, block.block_id, "a statement", None, self.condemned) from self.condemned
        if self.must_stop:
            raise self.refusal()
        try:
            return self._step(block, inputs, transaction)
        except psycopg.Error as error:
            self.was_interrupted = not isinstance(error, EarlierFailed)
            raise

    def _step(self, block: Block, inputs: Sequence[Input], transaction: BlockTransaction) -> str:
        if self._state.broken is not None:
            raise halt(
                self.contract, block.block_id, "get_db_state", None, self._state.broken
            ) from self._state.broken
        is_quiet = not inputs and self._state.is_transactional and not must_judge(self.contract, ())
        verdicts = Verdicts() if is_quiet else self._verdicts(block, inputs, transaction)
        if self._last_recorded is not None and block.block_id <= self._last_recorded:
            consensus_hash = self._compare_with_record(block, verdicts)
        else:
            consensus_hash = self._append(block, verdicts, transaction)
        self.cursor = block.block_id
        self.tally = verdicts.tally()
        return consensus_hash

    def _verdicts(self, block: Block, inputs: Sequence[Input], transaction: BlockTransaction) -> Verdicts:
        looked = self._looked
        if looked is None or looked[0] != block:
            spends = Spends.of_inputs(inputs if self.contract.tracks is not None else ())
            looked = block, self._look(block, inputs, spends, transaction)
        mine, self._looked = looked[1], None
        if must_judge(self.contract, mine.candidates) or not self._state.is_transactional:
            with self.answering():
                verdicts = self._judge(block, mine, transaction)
        else:
            verdicts = Verdicts()
        verdicts.inputs = mine.count
        return verdicts

    def _judge(self, block: Block, mine: Looked, transaction: BlockTransaction) -> Verdicts:
        """Judge with statements sent ahead, and again with care where it is needed."""
        care = NO_CARE if self._state.is_transactional else FULL_CARE
        while True:
            try:
                return self._judge_with(care, block, mine, transaction)
            except NeedsCare as needed:
                care = care.after(needed)

    def _judge_with(self, care: Care, block: Block, mine: Looked, transaction: BlockTransaction) -> Verdicts:
        """Judge in the app's part of the transaction, which is undone if that fails."""
        tracked = None if self.contract.tracks is None else mine.tracked
        guarded = nullcontext(self.contract) if self._guard is None else self._guard.watching(block.block_id)
        with transaction.part(self.log), guarded as contract:
            return judge(
                contract,
                self._state,
                block,
                mine.candidates,
                care,
                transaction,
                self._lookups(),
                tracked,
            )

    def expect(self, expected: Iterable[Expected]) -> None:
        """Compare the app's digests with these from now on, those of blocks that it has taken at once."""
        self._expectations = Expectations(expected)
        blocks = self._expectations.until(self._last)
        mismatches = map(self._expectations.mismatch, self.log.digests(blocks) if blocks else ())
        self.unexpected = next(filter(None, mismatches), None)

    def _compare(self, block: Block, snapshot: Snapshot) -> None:
        if block.block_id in self._expectations and self.unexpected is None:
            digests = Digests(block.block_id, block.hash, snapshot.consensus_hash, snapshot.state_hash)
            self.unexpected = self._expectations.mismatch(digests)

    @property
    def must_stop(self) -> bool:
        """Whether the app takes no further block, because its digests are not those that are expected."""
        return self.unexpected is not None and self._stops_if_unexpected

    def refusal(self) -> AppHalted:
        """Return the error of an app that takes no further block, because it `must_stop`."""
        assert self.unexpected is not None, "something differs"
        error = UnexpectedDigest(describe_mismatch(self.unexpected))
        return halt(self.contract, self.cursor + 1, "the comparison with expected digests", None, error)

    @property
    def is_to_be_asked(self) -> bool:
        """Whether something outside of the database follows a block: a callback, or a file."""
        return self.contract.proceed is not None or not self._state.is_transactional

    def check_base_block(self, block: Block) -> None:
        """Check a block of the tape before it is taken, whether or not the app takes it, too.

        Raises DeepFork if the app began with a checkpoint of another chain.
        """
        base_hash = self.contract.base_block_hash
        if base_hash is None:
            return
        base = self.contract.start - 1
        hash_here = {base: block.hash, base + 1: block.prev_hash}.get(block.block_id)
        if hash_here not in {None, base_hash}:
            raise DeepFork(
                f"app {self.contract.name} began with a checkpoint of block {base} ({base_hash}), and this "
                f"chain has another block there ({hash_here}): follow a node that has the checkpoint's "
                "block, or apply a checkpoint of this chain"
            )

    def answering(self) -> AbstractContextManager[None]:
        """Have what the app's callbacks ask answered from this build, up to where it is."""
        return answering(self._lookups())

    def _lookups(self) -> Lookups:
        return Lookups(self.log, self.contract.window, self.cursor)

    def settle(self) -> None:
        """Move saved files into place; call this once every block so far is on disk."""
        self._state.settle()

    def forget_file(self) -> None:
        """Remove the file of an opaque state, because a build that becomes live has its file elsewhere."""
        self._state.forget_file()

    def _is_current(self, block: Block, transaction: BlockTransaction) -> bool:
        """Return whether no other process has rolled back the build, or the tape's next block.

        If so, none does before the transaction ends.
        """
        transaction.begin()
        build = self.log.ask_hold()  # the build first, then the block, as a rollback does
        held, recorded = self._tape.ask_hold(block), self.log.ask_cursor()
        transaction.wait()
        self.log.check_hold(build)
        cursor = max((row[0] for row in recorded.rows()), default=-1)
        return bool(held.rows()) and max(self.contract.start - 1, cursor) == self._last

    def _digest(self, block: Block) -> str | None:
        if self._state.is_transactional:  # no callback is asked
            return self._state.digest(block.block_id)
        try:
            with contained(), self.answering():
                return self._state.digest(block.block_id)
        except psycopg.Error:
            raise
        except Exception as error:
            raise halt(self.contract, block.block_id, "db_save", None, error) from error

    def _append(self, block: Block, verdicts: Verdicts, transaction: BlockTransaction) -> str:
        with self._clock.stage("digests"):
            state_hash = self._digest(block)
            ops_hash = verdicts.ops_hash()
            consensus_hash = self._priors.consensus_hash(block.block_id, ops_hash)
        snapshot = Snapshot(block.block_id, ops_hash, consensus_hash, state_hash, self._state.number)
        self._prune(block.block_id, transaction)
        transaction.take(Taken(self.place, verdicts.ops, verdicts.rejections, snapshot))
        self._compare(block, snapshot)
        return consensus_hash

    def _prune(self, block_id: int, transaction: BlockTransaction) -> None:
        """Drop history that is older than the option asks for, at heights that are the same on every run."""
        oldest = self._oldest_kept(block_id)
        if oldest is None:
            return
        transaction.begin()
        if self._held_at != block_id:
            self.log.hold()
        with transaction.part(self.log):
            self.log.leave()  # with its settings, kept plans use indexes
            self._state.prune(oldest)
            self.log.set_history_from(oldest)

    def _oldest_kept(self, block_id: int) -> int | None:
        """Return the block before which history is dropped at this one; None if nothing is."""
        if self._history is None or block_id % max(1, min(_PRUNED_AT_ONCE, self._history // 10)):
            return None
        oldest = block_id - self._history
        return oldest if oldest >= self.contract.start else None

    def ask_to_drop_history(self, block_id: int, transaction: BlockTransaction) -> Answer | None:
        """If history is dropped at a block, ask whether the build is still ours, for `may_drop_history`.

        So several apps wait together; else each waits by itself.
        """
        if self._oldest_kept(block_id) is None:
            return None
        transaction.begin()
        return self.log.ask_hold()

    def may_drop_history(self, block_id: int, answer: Answer) -> None:
        """Take note of the answer; raise BuildChanged if somebody has swapped or dropped the build."""
        self.log.check_hold(answer)
        self._held_at = block_id

    def _compare_with_record(self, block: Block, verdicts: Verdicts) -> str:
        """Compare a re-evaluated block with its record; return the recorded consensus hash.

        A state that could not be loaded is brought back by judging the app's blocks again.
        """
        recorded = self.log.snapshot(block.block_id)
        if recorded.ops_hash != verdicts.ops_hash():
            error = ValueError(
                "judged again, the block has different ops: the rules changed, or are not deterministic; if "
                f"they changed, run `virtualchain upgrade {self.contract.name}`"
            )
            raise halt(self.contract, block.block_id, "the replay", None, error)
        return recorded.consensus_hash

"""Advance one app along the tape: from a block's inputs to the app's ops, digests and cursor.

Everything of a block runs in the caller's transaction, the app's part in a savepoint: where a callback
fails, that app's part is undone and the others go on. The order of the steps is the reference
network's (consensus.md, Extraction rules): it decides what a check sees, so it is part of the protocol.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import psycopg

from virtualchain import consensus
from virtualchain.app.contract import Contract
from virtualchain.bitcoin.payload import last_op_return
from virtualchain.engine.judge import Candidate, Judge, NeedsSavepoints, Verdicts, halt
from virtualchain.engine.states import AppState, OpaqueState, TableState
from virtualchain.errors import DeepFork, StoreError
from virtualchain.model import Block, Input
from virtualchain.store.failures import is_passing
from virtualchain.store.log import AppLog, Snapshot
from virtualchain.store.projections import build_schema
from virtualchain.store.state_files import StateFiles

_PRUNED_AT_ONCE = 100
"""Blocks whose history is dropped together, at the most."""


class Machine:
    """One build of an app, and where it stands on the tape.

    `cursor` is the last block that it was advanced to, or the block before its first. `history` is for how
    many blocks it can be brought back; None keeps everything.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        contract: Contract,
        build: str,
        state_file: Path,
        history: int | None,
    ) -> None:
        self.contract = contract
        self.build = build
        self.log = AppLog(connection, contract.name, build)
        self._connection = connection
        self._history = history
        self._state: AppState = (
            TableState(connection, contract, self.log, build_schema(contract.schema, build))
            if contract.get_state is None
            else OpaqueState(contract, StateFiles(connection, contract.name, build, state_file))
        )
        self.load()

    def load(self) -> None:
        """Stand where the database says: at first, and again behind a rollback."""
        self._recorded = self.log.cursor()
        starts_over = self._state.load(self._recorded)
        last = -1 if starts_over or self._recorded is None else self._recorded
        self.cursor = max(self.contract.start - 1, last)

    def step(self, block: Block, inputs: Iterable[Input]) -> str:
        """Advance the app by `block`, the cursor's successor, in the caller's transaction.

        `inputs` are the block's inputs in order, other apps' included. Gives the consensus hash. Raises
        AppHalted where a callback fails (the app's part is undone), psycopg.Error where the database does.
        """
        assert block.block_id == self.cursor + 1, "an app is advanced block by block"
        self.meet(block)
        if self._state.broken is not None:
            raise halt(self.contract, block, "get_db_state", None, self._state.broken) from self._state.broken
        candidates = self._candidates(block, inputs)
        touched = bool(candidates or self.contract.scan or self.contract.final)
        verdicts = self._judge(block, candidates) if touched else Verdicts()
        if self._recorded is not None and block.block_id <= self._recorded:
            consensus_hash = self._compare(block, verdicts)
        else:
            consensus_hash = self._append(block, verdicts, self._digest(block, touched=touched))
        self.cursor = block.block_id
        return consensus_hash

    def meet(self, block: Block) -> None:
        """Look at a block of the tape before it is taken, whether or not it is the app's turn.

        Raises DeepFork where the checkpoint that the app began with is of another chain.
        """
        at, begun = self.contract.start - 1, self.contract.behind
        found = {at: block.hash, at + 1: block.prev_hash}.get(block.block_id)
        if begun is not None and found not in {None, begun}:
            raise DeepFork(
                f"app {self.contract.name} began with a checkpoint of block {at} ({begun}), and this chain "
                f"has another block there ({found}): follow a node that has the checkpoint's block, or apply "
                "a checkpoint of this chain"
            )

    def is_current(self) -> bool:
        """Tell whether the database has it where it stands: a rollback by another process has not met it."""
        recorded = self.log.cursor()
        return max(self.contract.start - 1, -1 if recorded is None else recorded) == self.cursor

    def settle(self) -> None:
        """Learn that every block so far is on disk."""
        self._state.settle()

    def forget_file(self) -> None:
        """Remove the file of an opaque state: the build has another place from now on, or none."""
        self._state.forget_file()

    def _candidates(self, block: Block, inputs: Iterable[Input]) -> list[Candidate]:
        """Pick the inputs with one of the app's magics and opcodes, by the app's own payload rule."""
        magics, find_payload = self.contract.magics, self.contract.find_payload or last_op_return
        found: list[Candidate] = []
        for item in inputs:
            if not set(magics) & set(item.magics):
                continue
            try:
                payload = find_payload([output.as_dict() for output in item.outputs])
                if payload is None:
                    continue
                if not isinstance(payload, bytes):
                    raise TypeError(f"it gave a {type(payload).__name__}: it should be bytes or None")
            except Exception as error:
                raise halt(self.contract, block, "find_payload", item, error) from error
            # One magic may be the beginning of another: the first counts that an opcode follows.
            for magic in magics:
                opcode = payload[len(magic) : len(magic) + 1]
                if payload.startswith(magic) and opcode in self.contract.opcodes:
                    found.append(Candidate(item, opcode, payload[len(magic) + 1 :]))
                    break
        return found

    def _judge(self, block: Block, candidates: Sequence[Candidate]) -> Verdicts:
        try:
            return self._attempt(block, candidates, careful=not self._state.is_transactional)
        except NeedsSavepoints:
            return self._attempt(block, candidates, careful=True)

    def _attempt(self, block: Block, candidates: Sequence[Candidate], *, careful: bool) -> Verdicts:
        with self._connection.transaction():
            self._state.enter(block)
            verdicts = Judge(self.contract, self._state, block, careful=careful).judge(candidates)
            try:
                self._state.leave()
            except psycopg.Error as error:
                if is_passing(error):
                    raise
                raise halt(self.contract, block, "a deferred constraint", None, error) from error
        return verdicts

    def _digest(self, block: Block, *, touched: bool) -> str | None:
        try:
            return self._state.digest(block.block_id, touched=touched)
        except psycopg.Error:
            raise
        except Exception as error:
            raise halt(self.contract, block, "db_save", None, error) from error

    def _append(self, block: Block, verdicts: Verdicts, state_hash: str | None) -> str:
        wanted = consensus.prior_block_ids(block.block_id, self.contract.first_block_id)
        prior = self.log.consensus_at(wanted)
        lost = [item for item in wanted if item >= self.contract.start and item not in prior]
        if lost:
            raise StoreError(
                f"app {self.contract.name}: the snapshots of blocks {lost} are gone; restore the database"
            )
        ops_hash = consensus.ops_hash(verdicts.canonical())
        consensus_hash = consensus.consensus_hash(ops_hash, prior.values())
        self.log.add(block.block_id, verdicts.ops, verdicts.rejections)
        self.log.add_snapshot(
            Snapshot(block.block_id, ops_hash, consensus_hash, state_hash, self._state.number)
        )
        self._prune(block.block_id)
        return consensus_hash

    def _prune(self, block_id: int) -> None:
        """Forget history that is older than was asked for: not in each block, but always in the same ones."""
        if self._history is None or block_id % max(1, min(_PRUNED_AT_ONCE, self._history // 10)):
            return
        oldest = block_id - self._history
        if oldest >= self.contract.start:
            self._state.prune(oldest, self.log.history_from())
            self.log.set_history_from(oldest)

    def _compare(self, block: Block, verdicts: Verdicts) -> str:
        """Check a block that is judged again, to bring back a state that could not be loaded."""
        recorded = self.log.snapshot(block.block_id)
        if recorded.ops_hash != consensus.ops_hash(verdicts.canonical()):
            error = ValueError(
                "judged again, the block has other ops than before: the rules changed, or chance"
            )
            raise halt(self.contract, block, "the replay", None, error)
        return recorded.consensus_hash

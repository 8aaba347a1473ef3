"""Advance one app along the tape: from a block's inputs to the app's ops, digests and cursor.

Everything of a block runs in the caller's transaction, the app's part in a savepoint: where a callback
fails, that app's part is undone and the others go on. The order of the steps is the reference
network's (consensus.md, Extraction rules): it decides what a check sees, so it is part of the protocol.
"""

from collections.abc import Iterable, Sequence

import psycopg

from virtualchain import consensus, muhash
from virtualchain.bitcoin.payload import last_op_return
from virtualchain.contract import Contract
from virtualchain.errors import StoreError
from virtualchain.judge import Candidate, Judge, NeedsSavepoints, Verdicts, halt
from virtualchain.model import Block, Input
from virtualchain.store.failures import is_passing
from virtualchain.store.history import History
from virtualchain.store.log import AppLog, Snapshot
from virtualchain.store.projections import projections
from virtualchain.store.state import State


class Machine:
    """One app and where it stands on the tape.

    `cursor` is the last block that the app was advanced to, or the block before its first.
    """

    def __init__(self, connection: psycopg.Connection, contract: Contract, tables: str) -> None:
        self.contract = contract
        self.log = AppLog(connection, contract.name)
        self._connection = connection
        self._tables = tables
        self._history = History(connection, projections(connection, tables))
        self._state = State(connection, self.log, contract.window, tables)
        self.load()

    def load(self) -> None:
        """Read from the database where the app stands: at the start, and after a failed transaction."""
        last = self.log.cursor()
        self.cursor = max(self.contract.start - 1, -1 if last is None else last)
        self._number = self.log.state_number() or muhash.EMPTY
        self._state_hash = muhash.digest(self._number)

    def step(self, block: Block, inputs: Iterable[Input]) -> str:
        """Advance the app by `block`, the cursor's successor, in the caller's transaction.

        `inputs` are the block's inputs in order, other apps' included. Gives the consensus hash. Raises
        AppHalted where a callback fails (the app's part is undone), psycopg.Error where the database does.
        """
        assert block.block_id == self.cursor + 1, "an app is advanced block by block"
        verdicts, number = Verdicts(), self._number
        candidates = self._candidates(block, inputs)
        if candidates or self.contract.scan or self.contract.final:
            verdicts = self._judge(block, candidates)
            number = self._history.state_number(number, block.block_id)
        consensus_hash = self._append(block.block_id, verdicts, number)
        self.cursor, self._number = block.block_id, number
        return consensus_hash

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
            magic = next((magic for magic in magics if payload.startswith(magic)), None)
            if magic is None:
                continue
            opcode, rest = payload[len(magic) : len(magic) + 1], payload[len(magic) + 1 :]
            if opcode in self.contract.opcodes:
                found.append(Candidate(item, opcode, rest))
        return found

    def _judge(self, block: Block, candidates: Sequence[Candidate]) -> Verdicts:
        try:
            return self._attempt(block, candidates, careful=False)
        except NeedsSavepoints:
            return self._attempt(block, candidates, careful=True)

    def _attempt(self, block: Block, candidates: Sequence[Candidate], *, careful: bool) -> Verdicts:
        with self._connection.transaction():
            self.log.enter(block.block_id, self._tables)
            self._state.begin(block)
            judge = Judge(self._connection, self.contract, self._state, block, careful=careful)
            verdicts = judge.judge(candidates)
            try:
                self.log.leave()
            except psycopg.Error as error:
                if is_passing(error):
                    raise
                raise halt(self.contract, block, "a deferred constraint", None, error) from error
        return verdicts

    def _append(self, block_id: int, verdicts: Verdicts, number: bytes) -> str:
        wanted = consensus.prior_block_ids(block_id, self.contract.first_block_id)
        prior = self.log.consensus_at(wanted)
        lost = [item for item in wanted if item >= self.contract.start and item not in prior]
        if lost:
            raise StoreError(
                f"app {self.contract.name}: the snapshots of blocks {lost} are gone; restore the database"
            )
        ops_hash = consensus.ops_hash(text for op in verdicts.ops for text in op.canonical)
        consensus_hash = consensus.consensus_hash(ops_hash, prior.values())
        changed = number != self._number
        if changed:
            self._state_hash = muhash.digest(number)
        self.log.add(block_id, verdicts.ops, verdicts.rejections)
        self.log.add_snapshot(
            Snapshot(block_id, ops_hash, consensus_hash, self._state_hash, number if changed else None)
        )
        return consensus_hash

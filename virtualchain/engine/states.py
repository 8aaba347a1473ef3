"""The two kinds of state that an app may have, with one interface for the machine.

The state of a SQL app is its projections: `TableState`. An app with `get_db_state` keeps an opaque state of
its own, which the engine passes on, asks the app to save, and has it load again: `OpaqueState`.
"""

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.consensus.state_hash import EMPTY, digest_number
from virtualchain.engine.arithmetic import pinned_arithmetic
from virtualchain.engine.halting import contained
from virtualchain.model import Block
from virtualchain.store.failures import is_transient
from virtualchain.store.history import History
from virtualchain.store.log import AppLog
from virtualchain.store.projections import projections
from virtualchain.store.state import State
from virtualchain.store.state_files import StateFiles


class AppState(Protocol):
    """What the machine needs of an app's state."""

    @property
    def db_state(self) -> object:
        """What the callbacks get."""

    @property
    def is_transactional(self) -> bool:
        """Whether savepoints undo what a callback did."""

    @property
    def broken(self) -> Exception | None:
        """The error with which the app failed to make or load its state; None if it has one."""

    @property
    def number(self) -> bytes | None:
        """The number under the state hash; None if the last `digest` left it unchanged."""

    def load(self, cursor: int | None) -> bool:
        """Load the state after the app's last block (None: before its first) from the database.

        Return True if that is impossible, so that the app must judge all its blocks again.
        """

    def enter(self, block: Block) -> None:
        """Prepare the callbacks of a new block."""

    def begin_call(self, call: int, *, is_careful: bool) -> None:
        """Begin a call, with its number in the block; one that is careful may have to be undone alone.

        Others send their statements ahead, see `State.begin_call`.
        """

    def finish_call(self) -> None:
        """Finish a call inside its savepoint, unless it is rejected; raise for rows that do not fit."""

    def end_call(self, candidate: object) -> None:
        """End a call whose writes stay, on a candidate, or on the block as a whole (None)."""

    def leave(self, *, in_flight: bool) -> None:
        """End the block's callbacks; raise psycopg.Error for a violated deferred constraint.

        When it returns, nothing that was sent ahead can fail any more for its values. With `in_flight`, it
        may fail for other reasons yet.
        """

    def savepoint(self) -> AbstractContextManager[object]:
        """Undo everything written inside if it ends with an exception."""

    def read_ahead(self, keys: Mapping[str, Iterable[object]]) -> None:
        """Read the rows with these keys, by table."""

    def undo(self) -> None:
        """Forget what the call did, after its savepoint was undone."""

    def failure(self) -> Exception | None:
        """Return the error that aborted the block's transaction, even if a callback hid it."""

    def wrote(self) -> bool:
        """Return whether the call may have written, in what a savepoint undoes."""

    def digest(self, block_id: int) -> str | None:
        """Return the state hash after a block, of which `leave` was the end if callbacks ran in it."""

    def prune(self, oldest: int) -> None:
        """Drop what only a rollback below block `oldest` would need."""

    def settle(self) -> None:
        """Move saved files into place; called once all blocks so far are on disk."""

    def forget_file(self) -> None:
        """Remove what lies outside the database."""


class TableState:
    """The state of a SQL app: the rows of its projections, written in the block's own transaction."""

    is_transactional = True
    broken = None

    def __init__(
        self, connection: psycopg.Connection, contract: Contract, log: AppLog, tables: str, network: str
    ) -> None:
        self.db_state = State(
            connection, log, contract.window, tables, network=network, tracks=contract.tracks
        )
        self.finish_call = self.db_state.finish_call
        self.failure = self.db_state.failure
        self.wrote = self.db_state.wrote
        self.number: bytes | None = None
        self._log = log
        self._tables = tables
        self._history = History(connection, projections(connection, tables))
        self._entered = -1
        """The last block in which callbacks ran."""
        self._defers = log.has_deferrable_constraints(tables)
        self._may_refuse_rows = log.may_refuse_rows(tables)
        self._number = EMPTY
        self._hash = digest_number(self._number)

    def load(self, cursor: int | None) -> bool:  # noqa: ARG002 - the log knows
        """Load the number under the state hash; the rows are in place, and may be others than they were."""
        self.db_state.rows.forget()
        self._entered = -1  # the blocks to come may have the heights of others
        self._number = self._log.state_number() or EMPTY
        self._hash = digest_number(self._number)
        return False

    def enter(self, block: Block) -> None:
        """Begin the callbacks of a new block."""
        self._entered = block.block_id
        self.db_state.begin(block)
        if self._defers:
            self._log.defer_constraints()

    def leave(self, *, in_flight: bool) -> None:
        """Write the rows, check deferred constraints, close the tables, and ask what changed if need be."""
        self.db_state.end_calls()
        if self._defers:
            self._log.check_constraints()
        if not self.db_state.knows_changes:
            self._history.ask_changes(self._entered)
        if self._may_refuse_rows or not (in_flight and self.db_state.knows_changes):
            self.db_state.end()

    def begin_call(self, call: int, *, is_careful: bool) -> None:
        """Begin a call; what was sent in front of one that is careful is waited for."""
        self.db_state.begin_call(call, is_careful=is_careful)

    def end_call(self, candidate: object) -> None:
        """Do nothing: the block's end counts."""

    def savepoint(self) -> AbstractContextManager[object]:
        """Open a savepoint of the database."""
        return self.db_state.savepoint()

    def read_ahead(self, keys: Mapping[str, Iterable[object]]) -> None:
        """Read rows that `state.table` will be asked for."""
        self.db_state.rows.read_ahead(keys)

    def undo(self) -> None:
        """Bring back what was not written before the call."""
        self.db_state.undo()

    def digest(self, block_id: int) -> str:
        """Update the hash by the rows that the block changed."""
        if self._entered != block_id:  # no callback ran
            number = self._number
        elif self.db_state.knows_changes:
            number = self._history.number_after(self._number, self.db_state.rows.changes())
            self.db_state.rows.keep()
        else:
            number = self._history.state_number(self._number)
            self.db_state.rows.forget()
        self.number = None if number == self._number else number
        if self.number is not None:
            self._number, self._hash = self.number, digest_number(self.number)
        return self._hash

    def prune(self, oldest: int) -> None:
        """Drop old history."""
        self._history.prune(oldest, self._log.app, self._log.build)

    def settle(self) -> None:
        """Do nothing: nothing lies outside the database."""

    def forget_file(self) -> None:
        """Do nothing: there is no file."""


class OpaqueState:
    """A state that the app keeps itself; the SHA-256 of its saved file is its hash.

    If the app cannot load a saved file (its `get_db_state` has no argument `filename`, it does not save, or
    the file is no longer kept), it starts from scratch and judges all its blocks again.
    """

    is_transactional = False
    number = None

    def __init__(self, contract: Contract, files: StateFiles) -> None:
        self._contract = contract
        self._files = files
        self._hash: str | None = None
        self.db_state: object = None
        self.broken: Exception | None = None

    def load(self, cursor: int | None) -> bool:
        """Have the app make its state, or load what it saved."""
        get_state = self._contract.get_state
        assert get_state is not None, "the app keeps no state of its own"
        saved = None if self._contract.save is None else self._files.latest()
        self._hash = None if saved is None else hashlib.sha256(saved).hexdigest()
        takes_file = loads_files(self._contract)
        file = self._files.restore(saved) if takes_file else None
        arguments = {"filename": None if file is None else str(file)} if takes_file else {}
        self.broken = None
        try:
            with contained(), pinned_arithmetic():
                self.db_state = get_state(**arguments)
        except Exception as error:
            if is_transient(error):
                raise
            self.broken = error
        return cursor is not None and file is None

    def enter(self, block: Block) -> None:
        """Do nothing: the state is the app's."""

    def leave(self, *, in_flight: bool) -> None:
        """Do nothing: the state is the app's."""

    def begin_call(self, call: int, *, is_careful: bool) -> None:
        """Do nothing: the state is the app's."""

    def finish_call(self) -> None:
        """Do nothing: the state is the app's."""

    def end_call(self, candidate: object) -> None:
        """Do nothing: the state is the app's."""

    def savepoint(self) -> AbstractContextManager[object]:
        """Undo nothing: the app itself must undo what a rejected call did to its state."""
        return nullcontext()

    def read_ahead(self, keys: Mapping[str, Iterable[object]]) -> None:
        """Do nothing: the app has no tables."""

    def undo(self) -> None:
        """Do nothing: the app itself must undo what a rejected call did to its state."""

    def failure(self) -> Exception | None:
        """Return None: no statement can have failed."""
        return None

    def wrote(self) -> bool:
        """Return False: a savepoint would undo nothing."""
        return False

    def digest(self, block_id: int) -> str | None:
        """Have the app save its state, and keep the file if it changed."""
        if self._contract.save is None:
            return None
        draft = self._files.draft
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        self._contract.save(block_id, str(draft), db_state=self.db_state)
        content = self._files.read_draft()
        digest = hashlib.sha256(content).hexdigest()
        if digest != self._hash:
            self._files.keep(block_id, content)
            self._hash = digest
        return digest

    def prune(self, oldest: int) -> None:
        """Drop old saved files."""
        self._files.prune(oldest)

    def settle(self) -> None:
        """Move the last saved file into place."""
        self._files.settle()

    def forget_file(self) -> None:
        """Remove the saved file."""
        self._files.remove()


def loads_files(contract: Contract) -> bool:
    """Return whether an app with a state of its own saves it, and can load what it saved."""
    return contract.save is not None and _takes_filename(contract.get_state)


def _takes_filename(function: object) -> bool:
    try:
        return "filename" in inspect.signature(function).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False

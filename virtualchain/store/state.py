"""What the reducers of a SQL app get as `db_state`: the block's own transaction, kept within bounds."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, LiteralString, NamedTuple, is_typeddict, overload

import psycopg
from psycopg.pq import TransactionStatus

from virtualchain.errors import UsageError
from virtualchain.model import Block, Json
from virtualchain.store.failures import ValueDoesNotFit, does_not_fit
from virtualchain.store.guard.catalog import read_catalog
from virtualchain.store.guard.refusal import ForbiddenStatement, short
from virtualchain.store.guard.statements import Statement, examine
from virtualchain.store.log import AppLog
from virtualchain.store.pipeline import Answer, pipeline_of
from virtualchain.store.table import Row, Table
from virtualchain.store.tables import Tables
from virtualchain.store.values import base_value, is_text, shown, to_database

_MOST_STATEMENTS: Final = 1_000
"""Statements whose look is remembered: an app has few, unless it puts them together from values."""

Parameters = Sequence[Any] | Mapping[str, Any] | None


class _Known(NamedTuple):
    """A statement that was looked at, what the look said, and the text that is sent."""

    statement: LiteralString
    look: Statement
    text: bytes
    takes_names: bool
    """Whether its parameters have names."""


class State:
    """The database as an app's callbacks see it, in the transaction of one block.

    The app's tables come first on the search path. Parameters are `%s` or `%(name)s`, as in psycopg. If the
    block fails, everything written is rolled back with it.
    """

    block_id: int
    """The block that is being processed."""
    block_time: int
    """Its time in Unix seconds, as the miner wrote it."""
    network: str
    """The name of the network, such as `mainnet`."""

    def __init__(
        self,
        connection: psycopg.Connection,
        log: AppLog,
        window: int,
        tables: str,
        *,
        network: str,
        tracks: str | None = None,
    ) -> None:
        self.network = network
        self._connection = connection
        self._pipeline = pipeline_of(connection)
        self._pipeline.forget()  # the tables may be others than those of this name were
        self._log = log
        self._window = window
        self._failure: Exception | None = None
        self._wrote = False
        self.has_written = False
        """Whether a statement that may write has run in the block."""
        self._sends_ahead = False
        self._is_open = False
        """Whether the role, and what else statements depend on, are the app's; otherwise the engine's."""
        self._has_sent = False
        """Whether a callback has run a statement in the block, or, before it, in the last one."""
        self._tables = tables
        self.rows = Tables(connection, tables, tracks)
        """The rows that callbacks handle one by one; for the engine."""
        self._catalog = read_catalog(connection, tables)
        self._statements: dict[tuple[str, bool], _Known] = {}
        self._compared: set[tuple[str, type[Any]]] = set()
        """The tables and queries, and the types of their rows, that were compared."""
        # Prepared statements are looked up by text, and in another app the same text means other tables.
        self._mark = f"/* {tables} */ "

    def execute(self, statement: LiteralString, parameters: Parameters = None) -> int:
        """Run one statement; return how many rows it affected.

        Raises UsageError for a statement that reducers may not run, TypeError for a parameter of a type that
        does not cross to the database, Unserializable and ValueDoesNotFit for a value that does not fit,
        which rejects the input, psycopg.Error if the database refuses for another reason.
        """
        known = self._known(statement, parameters)
        if not self._sends_ahead or known.look.affects is None:
            return self._send(known, parameters).count
        self._send(known, parameters, wait=False)
        return known.look.affects

    @overload
    def query(self, statement: LiteralString, parameters: Parameters = None) -> list[Json]: ...
    @overload
    def query(self, statement: LiteralString, parameters: Parameters, row: type[Row]) -> list[Row]: ...
    def query(
        self, statement: LiteralString, parameters: Parameters = None, row: type[Row] | None = None
    ) -> list[Json] | list[Row]:
        """Run one query; return its rows as dicts. Without ORDER BY their order is undefined.

        `row` is a TypedDict that says for a type checker what a row is. Raises UsageError if it has a column
        that the query does not return.
        """
        rows = self._send(self._known(statement, parameters), parameters).dicts()
        if row is not None and rows:
            self._require_columns("query", statement, rows[0], row)
        return rows

    @overload
    def one(self, statement: LiteralString, parameters: Parameters = None) -> Json | None: ...
    @overload
    def one(self, statement: LiteralString, parameters: Parameters, row: type[Row]) -> Row | None: ...
    def one(
        self, statement: LiteralString, parameters: Parameters = None, row: type[Row] | None = None
    ) -> Json | Row | None:
        """Run one query; return its first row as a dict, or None. `row` is as for `query`."""
        first = next(iter(self._send(self._known(statement, parameters), parameters).dicts()), None)
        if row is not None and first is not None:
            self._require_columns("query", statement, first, row)
        return first

    def refusal(self, statement: LiteralString, parameters: Parameters = None) -> str | None:
        """Run one query of a check, with one column; return why it refuses, or None if it does not.

        Of text, each row that is not null is a reason, and the least one is returned. Of boolean, there must
        be a row, and each must be true: the reason is then "". Raises UsageError for any other column and for
        a query that writes, and otherwise as `execute`.
        """
        known = self._known(statement, parameters)
        if known.look.writes:
            raise UsageError(
                f"a query of a check reads only; what it writes belongs into commit: {short(statement)}"
            )
        answer = self._send(known, parameters)
        rows = answer.rows()
        match answer.types:
            case ["bool"]:
                return None if rows and all(row[0] is True for row in rows) else ""
            case ["text" | "varchar"]:
                return min((row[0] for row in rows if row[0] is not None), default=None)
        raise UsageError(
            f"a query of a check has one column, a reason (text) or a condition (boolean), not "
            f"{', '.join(answer.types) or 'none'}: {short(statement)}"
        )

    @overload
    def table(self, name: str) -> Table[Json]: ...
    @overload
    def table(self, name: str, row: type[Row]) -> Table[Row]: ...
    def table(self, name: str, row: type[Row] | None = None) -> Table[Json] | Table[Row]:
        """Return one of the app's tables, to read and write it row by row, without SQL.

        It takes boolean, integers, numeric, text, varchar and bytea. `row` is a TypedDict that says for a
        type checker what a row is. Raises UsageError for a table with another type of column, or that the app
        does not have, or if `row` has a column that it lacks.
        """
        table = self.rows.table(name)
        if row is not None:
            self._require_columns("table", name, table.shape.names, row)
        return table

    def _require_columns(self, kind: str, source: str, names: Collection[str], row: type[Any]) -> None:
        """Raise UsageError if a TypedDict has a column that rows do not have; each is compared once."""
        if (source, row) in self._compared:
            return
        what = f"the {kind} {short(source)}"
        if not is_typeddict(row):
            raise UsageError(f"{what}: rows are dicts, so {row.__name__} must be a TypedDict")
        missing = sorted(row.__required_keys__ - set(names))
        if missing:
            raise UsageError(
                f"{what} has no column {missing[0]}, which {row.__name__} declares: it has {', '.join(names)}"
            )
        if len(self._compared) >= _MOST_STATEMENTS:
            self._compared.clear()
        self._compared.add((source, row))

    def tracked(self, txid: str, vout: int) -> list[Json]:
        """Return the rows of the tracked projection for an output, in the order of their keys.

        Those for what the block's transactions spend are read together, before the first callback. Raises
        UsageError as `table` does, and if the app tracks no outputs.
        """
        return self.rows.rows_at(txid, vout)

    def consensus_hash(self, block_id: int) -> str | None:
        """Return the app's consensus hash (32 hex digits) at an earlier block; None if it has none there."""
        return self._log.consensus_hash(block_id) if 0 <= block_id < self.block_id else None

    def is_fresh(self, consensus_hash: str) -> bool:
        """Return whether a consensus hash is of one of the last S blocks.

        See docs/protocol/consensus.md, Staleness.
        """
        return self._log.is_fresh(consensus_hash, self.block_id - self._window, self.block_id)

    def _send(self, known: _Known, parameters: Parameters, *, wait: bool = True) -> Answer:
        """Send a statement, and wait for its answer unless that is not to be looked at."""
        try:
            values = _values(known, parameters)
        except (TypeError, UsageError) as error:
            error.add_note(f"the statement: {short(known.statement)}")
            raise
        if self.rows.is_dirty:
            self._write_of_call()
        try:
            self._open()
            self._has_sent = True
            if known.look.writes:
                self._wrote = self.has_written = True
                self.rows.forget()
            # Prepared, so that the server accepts one statement only, and plans it once for all blocks.
            answer = self._pipeline.send(known.text, values)
            if wait:
                self._pipeline.wait()
            else:
                self._pipeline.flush()
        except psycopg.Error as error:
            if known.look.may_reject and does_not_fit(error):
                self._failure = self._failure or ValueDoesNotFit()
                raise self._failure from error
            error.add_note(f"the statement: {short(known.statement)}")
            self._failure = self._failure or error
            raise
        return answer

    def _write_of_call(self) -> None:
        """Write the rows that were changed; what they do not fit is no fault of the next statement."""
        try:
            self.write()
            if not self._sends_ahead:
                self._pipeline.wait()
        except psycopg.Error as error:
            if does_not_fit(error):
                self._failure = self._failure or ValueDoesNotFit()
                raise self._failure from error
            self._failure = self._failure or error
            raise

    def _known(self, statement: LiteralString, parameters: Parameters) -> _Known:
        key = statement, parameters is not None
        known = self._statements.get(key)
        return self._look_at(*key) if known is None else known

    def _look_at(self, statement: LiteralString, has_parameters: bool) -> _Known:
        try:
            look = examine(statement, self._catalog, has_parameters=has_parameters)
        except ForbiddenStatement as error:
            self._failure = self._failure or error
            raise
        if len(self._statements) >= _MOST_STATEMENTS:
            self._statements.clear()
        takes_names = any(isinstance(name, str) for name in look.parameters)
        known = _Known(statement, look, (self._mark + look.text).encode(), takes_names)
        self._statements[statement, has_parameters] = known
        return known

    # The engine's side.

    def begin(self, block: Block) -> None:
        """Start a new block; open the app's tables to callbacks, or leave that to their first statement."""
        self.block_id, self.block_time = block.block_id, block.time
        self._failure = None
        self._wrote = self.has_written = self._is_open = False
        self._pipeline.call = None
        self.rows.begin(block.block_id)
        if self._has_sent:
            self._open()
        else:
            self._log.handle_rows()
        self._has_sent = False

    def begin_call(self, call: int, *, is_careful: bool) -> None:
        """Begin a call of a callback.

        A statement whose result nobody needs is not waited for: if it fails, the error comes later, out of
        another call, and nothing that happens in the block is final before the pipeline was waited for. The
        statements of a careful call are waited for, as are those before it.
        """
        if is_careful:
            self._pipeline.wait()
            self._open()  # in front of the savepoint, to which all settings return
            self.has_written = True  # `rows` may forget what it has written
        self._pipeline.call = call
        self._sends_ahead = not is_careful
        self._wrote = False
        self.rows.begin_call(may_be_undone=is_careful)

    def finish_call(self) -> None:
        """Write what a check that computes may refuse: this call's input is rejected, as by a statement."""
        computing = self.rows.computing  # of most apps, none
        if computing and any(rows.is_dirty for rows in computing):
            was_open = self._is_open
            self._write_of_call()
            if was_open:
                self._open()

    def write(self) -> None:
        """Leave the app's role, and write the rows that were changed one by one."""
        if self._is_open:
            self._log.leave(keeps_history=not self.rows.is_dirty)
            self._is_open = False
        self.rows.write()

    def _open(self) -> None:
        """Enter the app's role, unless that was done."""
        if not self._is_open:
            self._log.enter(self.block_id, self._tables)
            self._is_open = True
            self._pipeline.meanwhile = None  # the tape's rows, which that role may not write

    def undo(self) -> None:
        """Bring back the rows as they were before the call, whose savepoint was undone."""
        self._is_open = True  # as `begin_call` has left it
        self.rows.undo(statements_wrote=self._wrote)

    def end_calls(self) -> None:
        """Write all that is to be written; what follows is the engine's."""
        self._pipeline.call = None
        self.write()

    @property
    def knows_changes(self) -> bool:
        """Whether `rows` knows all that the block changed: no statement changed anything."""
        return not self.has_written

    def end(self) -> None:
        """Wait for what was sent ahead."""
        self._pipeline.wait()

    def savepoint(self) -> AbstractContextManager[object]:
        """Undo everything written inside if it ends with an exception."""
        return self._pipeline.savepoint()

    def wrote(self) -> bool:
        """Return whether the call has changed a row, or run a statement that may have."""
        return self._wrote or self.rows.has_changed

    @property
    def statement_wrote(self) -> bool:
        """Whether the call has run a statement that may have changed a row."""
        return self._wrote

    def failure(self) -> Exception | None:
        """Return the failed statement after which the block cannot continue, if there is one."""
        failure, self._failure = self._failure, None
        if failure is None:
            return None
        if isinstance(failure, ForbiddenStatement) or self._pipeline.is_broken:
            return failure  # another version of the server may have allowed it, and returned rows
        is_aborted = self._connection.info.transaction_status in {
            TransactionStatus.INERROR,
            TransactionStatus.UNKNOWN,
        }
        return failure if is_aborted else None


def _values(known: _Known, parameters: Parameters) -> list[Any]:
    """Return a statement's parameters by their numbers, as they cross to the database."""
    statement = known.look
    if parameters is None:
        return []
    if isinstance(parameters, str | bytes):
        raise TypeError("parameters are a list or a dict, not text: write [value] for one")
    is_named = isinstance(parameters, Mapping)
    count = len(statement.parameters)
    if not is_named and (known.takes_names or len(parameters) != count):
        raise TypeError(
            f"the statement has {count} parameters, and {len(parameters)} values are passed: write %s for "
            "each, or %(name)s with a dict, and %% for a percent sign"
        )
    values = []
    for place, name in enumerate(statement.parameters):
        if is_named and name not in parameters:
            raise TypeError(f"the statement's parameter {shown(name)} has no value")
        value = base_value(parameters[name])  # type: ignore[index]  # a name goes with a mapping, a place with a sequence
        if place in statement.not_text and is_text(value):
            raise UsageError(
                f"parameter {shown(name)} is text that a cast would have the server read, and how depends on "
                "its version: read it in Python, and pass the value (docs/mistakes.md#sql-text)"
            )
        values.append(to_database(value, name))
    return values

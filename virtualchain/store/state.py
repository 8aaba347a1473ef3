"""What the reducers of a SQL app get as `db_state`: the block's own transaction, kept within bounds."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, LiteralString

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from virtualchain.errors import UsageError
from virtualchain.model import Block, Json
from virtualchain.store.log import AppLog

_CONTROL: Final = re.compile(
    r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*"
    r"(BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE\s+TRANSACTION"
    r"|SET\b(?!\s+CONSTRAINTS)|RESET|DISCARD)\b",
    re.IGNORECASE | re.DOTALL,
)
_HASH: Final = re.compile(r"[0-9a-f]{32}")

_NO_SUCH_TYPE: Final = (
    psycopg.errors.UndefinedFunction,
    psycopg.errors.AmbiguousFunction,
    psycopg.errors.DatatypeMismatch,
)

Parameters = Sequence[Any] | Mapping[str, Any] | None


class State:
    """The database as an app's callbacks see it, in the transaction of one block.

    The app's tables come first on the search path. Parameters are `%s` or `%(name)s`, as psycopg has
    them. What is written is rolled back with the block where the block fails.
    """

    block_id: int
    """The block that is processed."""
    block_time: int
    """Its time, Unix seconds, as the miner wrote it."""

    def __init__(self, connection: psycopg.Connection, log: AppLog, window: int, tables: str) -> None:
        self._cursor = connection.cursor(row_factory=dict_row)
        self._connection = connection
        self._log = log
        self._window = window
        self._failure: Exception | None = None
        # A prepared statement is found by its text, and the same text means other tables in another app.
        self._mark = f"/* {tables} */ "

    def execute(self, statement: LiteralString, parameters: Parameters = None) -> int:
        """Run one statement; give how many rows it met.

        Raises UsageError for transaction control and SET, psycopg.Error where the database refuses.
        """
        return self._run(statement, parameters).rowcount

    def query(self, statement: LiteralString, parameters: Parameters = None) -> list[Json]:
        """Run one query; give its rows as dicts. The order is the database's unless the query says."""
        return self._run(statement, parameters).fetchall()

    def one(self, statement: LiteralString, parameters: Parameters = None) -> Json | None:
        """Run one query; give its first row as a dict, or None."""
        return self._run(statement, parameters).fetchone()

    def consensus_hash(self, block_id: int) -> str | None:
        """Give the app's consensus hash (32 hex digits) at an earlier block; None where it has none."""
        return self._log.consensus_hash(block_id) if 0 <= block_id < self.block_id else None

    def is_fresh(self, consensus_hash: str) -> bool:
        """Tell whether a consensus hash is one of the last S blocks (consensus.md, Staleness)."""
        if not isinstance(consensus_hash, str) or not _HASH.fullmatch(consensus_hash):
            return False
        return self._log.is_fresh(consensus_hash, self.block_id - self._window, self.block_id)

    def _run(self, statement: LiteralString, parameters: Parameters) -> psycopg.Cursor[Json]:
        if _CONTROL.match(statement):
            raise UsageError(
                f"a reducer may not run {statement.split(maxsplit=1)[0]!r}: "
                "the block's transaction and the session's settings are the engine's"
            )
        try:
            # Prepared, so that the server takes one statement only, and plans it once for all blocks.
            return self._cursor.execute(self._mark + statement, parameters, prepare=True)
        except Exception as error:
            blamed = _blame(error, parameters, is_connected=not self._connection.closed)
            self._failure = self._failure or blamed
            if blamed is error:
                raise
            raise blamed from error

    # The engine's side.

    def begin(self, block: Block) -> None:
        """Stand in a new block."""
        self.block_id, self.block_time = block.block_id, block.time
        self._failure = None

    def failure(self) -> Exception | None:
        """Give the failed statement that the transaction cannot go on after, if there is one."""
        failure, self._failure = self._failure, None
        lost = self._connection.info.transaction_status in {
            TransactionStatus.INERROR,
            TransactionStatus.UNKNOWN,
        }
        return failure if lost else None


def _blame(error: Exception, parameters: Parameters, *, is_connected: bool) -> Exception:
    """Give a data error in place of one that a value is to blame for, though it is called otherwise."""
    if isinstance(error, ValueError | OverflowError) and not isinstance(error, UnicodeEncodeError):
        return psycopg.DataError(f"a parameter cannot be sent: {error}")
    if is_connected and isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return psycopg.DataError(f"the parameters cannot be sent: {error}")  # there are more than 65,535
    # psycopg gives an int the smallest type that holds it, so a large one finds no function that takes it.
    if isinstance(error, _NO_SUCH_TYPE) and any(_is_large(value) for value in _values(parameters)):
        return psycopg.errors.NumericValueOutOfRange("an integer is larger than the statement can take")
    return error


def _values(parameters: Parameters) -> Iterable[object]:
    if parameters is None:
        return ()
    return parameters.values() if isinstance(parameters, Mapping) else parameters


def _is_large(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(_is_large(item) for item in value)
    return isinstance(value, int) and not -(2**31) <= value < 2**31

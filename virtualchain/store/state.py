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

    The app's tables come first on the search path. Parameters are `%s` or `%(name)s`, as in psycopg. If the
    block fails, everything written is rolled back with it.
    """

    block_id: int
    """The block that is being processed."""
    block_time: int
    """Its time in Unix seconds, as the miner wrote it."""

    def __init__(self, connection: psycopg.Connection, log: AppLog, window: int, tables: str) -> None:
        self._cursor = connection.cursor(row_factory=dict_row)
        self._connection = connection
        self._log = log
        self._window = window
        self._failure: Exception | None = None
        # Prepared statements are looked up by text, and in another app the same text means other tables.
        self._mark = f"/* {tables} */ "

    def execute(self, statement: LiteralString, parameters: Parameters = None) -> int:
        """Run one statement; return how many rows it affected.

        Raises UsageError for transaction control and SET, psycopg.Error where the database refuses.
        """
        return self._run(statement, parameters).rowcount

    def query(self, statement: LiteralString, parameters: Parameters = None) -> list[Json]:
        """Run one query; return its rows as dicts. Without ORDER BY their order is undefined."""
        return self._run(statement, parameters).fetchall()

    def one(self, statement: LiteralString, parameters: Parameters = None) -> Json | None:
        """Run one query; return its first row as a dict, or None."""
        return self._run(statement, parameters).fetchone()

    def consensus_hash(self, block_id: int) -> str | None:
        """Return the app's consensus hash (32 hex digits) at an earlier block; None if it has none there."""
        return self._log.consensus_hash(block_id) if 0 <= block_id < self.block_id else None

    def is_fresh(self, consensus_hash: str) -> bool:
        """Return whether a consensus hash is of one of the last S blocks.

        See docs/protocol/consensus.md, Staleness.
        """
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
            # Prepared, so that the server accepts one statement only, and plans it once for all blocks.
            return self._cursor.execute(self._mark + statement, parameters, prepare=True)
        except Exception as error:
            blamed = _blame(error, parameters, is_connected=not self._connection.closed)
            self._failure = self._failure or blamed
            if blamed is error:
                raise
            raise blamed from error

    # The engine's side.

    def begin(self, block: Block) -> None:
        """Start a new block."""
        self.block_id, self.block_time = block.block_id, block.time
        self._failure = None

    def failure(self) -> Exception | None:
        """Return the failed statement after which the transaction cannot continue, if there is one."""
        failure, self._failure = self._failure, None
        is_aborted = self._connection.info.transaction_status in {
            TransactionStatus.INERROR,
            TransactionStatus.UNKNOWN,
        }
        return failure if is_aborted else None


def _blame(error: Exception, parameters: Parameters, *, is_connected: bool) -> Exception:
    """Return a data error in place of an error that a value caused under another name."""
    if isinstance(error, ValueError | OverflowError) and not isinstance(error, UnicodeEncodeError):
        return psycopg.DataError(f"a parameter cannot be sent: {error}")
    if is_connected and isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return psycopg.DataError(f"the parameters cannot be sent: {error}")  # there are more than 65,535
    # psycopg sends an int as the smallest type that holds it, so for a large one no function may match.
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

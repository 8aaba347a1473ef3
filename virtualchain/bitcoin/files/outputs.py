"""Spent outputs out of the blocks themselves, where no undo data lie beside them.

One pass over all blocks notes where each transaction lies, by the first bytes of its id, in a temporary
SQLite database: memory stays flat, and nothing is left behind. What is found there is only a hint. An output
is taken from a transaction whose bytes have the very id that was asked for, so it is right or it is missing.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from virtualchain.bitcoin.block import split_transactions, txids
from virtualchain.bitcoin.files.store import BlockStore
from virtualchain.bitcoin.transaction import read_inputs, read_outputs
from virtualchain.errors import MalformedBlock, MissingData, NodeError
from virtualchain.model import SpentOutput, TxIn

_CREATE = "CREATE TABLE places (prefix INTEGER, block INTEGER, start INTEGER, length INTEGER)"
_INSERT = "INSERT INTO places VALUES (?, ?, ?, ?)"
_INDEX = "CREATE INDEX IF NOT EXISTS by_prefix ON places (prefix)"
_FIND = "SELECT block, start, length FROM places WHERE prefix = ?"


class Outputs:
    """The outputs of a store's blocks; safe to use from several threads."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._done = 0
        """How many of the store's blocks the database knows."""

    def spent(self, number: int, transactions: Mapping[int, str]) -> Mapping[int, Sequence[SpentOutput]]:
        """Give what some transactions of a block spend; raises MissingData, MalformedBlock.

        The first call reads every block.
        """
        inputs = self._inputs(number, transactions)
        with self._lock:
            try:
                database = self._up_to_date()
                known: dict[str, list[SpentOutput]] = {}
                return {
                    txindex: tuple(self._spent(database, number, spending, known) for spending in spendings)
                    for txindex, spendings in inputs.items()
                }
            except sqlite3.Error as error:
                raise NodeError(
                    f"the temporary index over {self._store} failed: {error}; "
                    "it may need room where SQLITE_TMPDIR or TMPDIR say"
                ) from error

    def close(self) -> None:
        """Drop the database."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _inputs(self, number: int, transactions: Mapping[int, str]) -> dict[int, tuple[TxIn, ...]]:
        cut = split_transactions(self._store.read(number))
        found = {}
        for txindex, txid in transactions.items():
            if txindex >= len(cut) or read_outputs(cut[txindex])[0] != txid:
                raise MalformedBlock(
                    f"block {self._store.hash(number)} of {self._store} has no {txid} at place {txindex}"
                )
            found[txindex] = read_inputs(cut[txindex])
        return found

    def _up_to_date(self) -> sqlite3.Connection:
        """Note the transactions of the blocks that have come since the last time."""
        if self._database is None:
            # Without a name it is a file of SQLite's own, made once memory no longer suffices.
            self._database = sqlite3.connect("", check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = OFF")
            self._database.execute(_CREATE)
            self._done = 0
        with self._store.lock:
            known = len(self._store.index)
        for number in range(self._done, known):
            self._database.executemany(_INSERT, self._places(number))
            self._done = number + 1
        # Behind the first pass: sorting once is faster than keeping the order.
        self._database.execute(_INDEX)
        return self._database

    def _places(self, number: int) -> Iterator[tuple[int, int, int, int]]:
        # A block that is damaged or gone makes no output known; what is missing is told when it is asked for.
        with suppress(MalformedBlock, MissingData):
            raw = self._store.read(number)
            cut = split_transactions(raw)
            start = len(raw) - sum(map(len, cut))
            for txid, transaction in zip(txids(raw), cut, strict=True):
                yield _prefix(txid), number, start, len(transaction)
                start += len(transaction)

    def _spent(
        self,
        database: sqlite3.Connection,
        spender: int,
        spending: TxIn,
        known: dict[str, list[SpentOutput]],
    ) -> SpentOutput:
        """Give an output; `known` keeps the outputs of transactions, many of which are spent together."""
        if spending.txid not in known:
            known[spending.txid] = self._outputs_of(database, spending.txid)
        if spending.vout < len(known[spending.txid]):
            return known[spending.txid][spending.vout]
        raise MissingData(
            f"block {self._store.hash(spender)} spends {spending.txid}:{spending.vout}, and {self._store} "
            "holds neither that nor rev*.dat: give files from the first block on, or bitcoind's whole folder"
        )

    def _outputs_of(self, database: sqlite3.Connection, txid: str) -> list[SpentOutput]:
        """Look a transaction up; no outputs where it is not there."""
        for number, start, length in database.execute(_FIND, [_prefix(txid)]):
            found, outputs = read_outputs(self._store.part(number, start, length))
            if found == txid:
                return outputs
        return []


def _prefix(txid: str) -> int:
    return int.from_bytes(bytes.fromhex(txid)[:8], "little", signed=True)

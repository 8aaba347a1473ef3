"""Spent outputs without a node: from bitcoind's undo data, or else from the blocks themselves.

`UndoFiles` reads `rev*.dat`. The record of a block is in the file with the same number and states neither its
hash nor its height: a checksum over the parent's hash and the data is all that links them. To distinguish
blocks with the same parent, the outputs that they spend are looked up in the blocks that created them. So are
those of a record that was found by searching: a stranger may have written it into a script.

`Outputs` is for blocks without undo data. One pass over all blocks records in a temporary SQLite database
where each transaction is, by the first bytes of its id: memory use stays flat, and no file is left over. An
entry is only a hint. An output is taken only from a transaction whose bytes have exactly the requested id, so
it is right or it is missing.
"""

import sqlite3
import threading
from array import array
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice, zip_longest
from typing import Final, NamedTuple

from virtualchain.bitcoin.block import LARGEST_SPENDABLE_SCRIPT, MOST_INPUTS, split_transactions, txids
from virtualchain.bitcoin.files.framing import FramedFile, Framing, read_part
from virtualchain.bitcoin.files.store import BlockStore
from virtualchain.bitcoin.files.undo import first_count, read_undo
from virtualchain.bitcoin.header import HEADER_SIZE, sha256d
from virtualchain.bitcoin.spending import capped, stands_for
from virtualchain.bitcoin.transaction import NO_TXID, read_inputs, read_outputs
from virtualchain.errors import MalformedBlock, MissingData, NodeError
from virtualchain.model import SpentOutput, SpentOutputs, TxIn

LARGEST_UNDO: Final = MOST_INPUTS * (LARGEST_SPENDABLE_SCRIPT + 32)
"""Bytes: each spent output is a script, and numbers that take at most 32."""
_CHECKSUM: Final = 32
"""What a coinbase spends from."""
_COUNT: Final = 9
"""The most bytes that a count can have."""
_KEPT_FILES: Final = 4
"""How many files' records are cached."""
_COMPARED: Final = 4
"""How many transactions are compared to distinguish siblings."""
_NEAR: Final = 100
"""The most records between those of siblings: the node connected both in the course of one reorg."""

_CREATE = "CREATE TABLE places (prefix INTEGER, block INTEGER, start INTEGER, length INTEGER)"
_INSERT = "INSERT INTO places VALUES (?, ?, ?, ?)"
_INDEX = "CREATE INDEX IF NOT EXISTS by_prefix ON places (prefix)"
_FIND = "SELECT block, start, length FROM places WHERE prefix = ?"


class _Record(NamedTuple):
    """Undo data that match a block's parent and its number of transactions."""

    data: bytes
    copies: int
    """How often they are in the file, other than by searching: once for each block that was connected."""
    searched: bool
    """Whether all of these were found by searching."""


class UndoFiles:
    """The undo data of a store's blocks; safe to use from several threads."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._files: OrderedDict[int, _UndoRecords] = OrderedDict()

    def is_connected(self, number: int) -> bool:
        """Check whether the node has connected a block: some undo data are certainly those of this block."""
        # A block that cannot be read is one that the node has not written yet, or could not connect either.
        with suppress(MalformedBlock, MissingData):
            records = self._matching_records(number)
            rivals = self._rivals(number)
            if not rivals and len(records) == 1 and not records[0].searched:
                return True
            differing = self._differing(number, rivals)
            compared = {at for each in differing.values() for at in each} or range(1, 1 + _COMPARED)
            own = [record for record in records if self._belongs_to(record.data, number, compared)]
            # One record serves one block: of several that spend the same, each needs its own.
            twins = [rival for rival, txindexes in differing.items() if not txindexes]
            if sum(record.copies for record in own) > len(twins):
                return True
            return bool(own) and self._has_connected_child(number)
        return False

    def _has_connected_child(self, number: int) -> bool:
        with self._store.lock:
            children = self._store.index.children(number)
        return any(self.is_connected(child) for child in children)

    def _rivals(self, number: int) -> list[int]:
        """Find the blocks with the same parent whose undo data would be in the same file."""
        with self._store.lock:
            index = self._store.index
            file = index.place(number).file
            return [each for each in index.siblings(number) if index.place(each).file == file]

    def _differing(self, number: int, rivals: Sequence[int]) -> dict[int, list[int]]:
        """Find for each rival with as many transactions some of those that spend something else."""
        differing: dict[int, list[int]] = {}
        if not rivals:
            return differing
        own = self._outpoints(number)
        for rival in rivals:
            with suppress(MalformedBlock, MissingData):
                others = self._outpoints(rival)
                if len(others) == len(own):
                    places = (at for at in range(1, len(own)) if own[at] != others[at])
                    differing[rival] = list(islice(places, _COMPARED))
        return differing

    def _outpoints(self, number: int) -> list[list[tuple[str, int]]]:
        """Return what each transaction of a block spends."""
        transactions = split_transactions(self._store.plain(number))
        return [[(spending.txid, spending.vout) for spending in read_inputs(each)] for each in transactions]

    def spent(self, number: int, transactions: Mapping[int, str], *, heights: bool) -> SpentOutputs:
        """Return the outputs that some transactions of a block spend; raises MissingData, MalformedBlock."""
        matching = self._matching_records(number) or self._matching_records(number, reread=True)
        records = [record.data for record in matching]
        if len(matching) > 1 or any(record.searched for record in matching) or self._rivals(number):
            records = self._choose(matching, number, transactions)
        if not records:
            raise MissingData(
                f"{self._store} has no undo data of block {self._store.hash(number)}: the node never "
                "connected it, or its rev*.dat is gone; use the node's whole folder, or the node itself"
            )
        coins_by_txindex = read_undo(records[0], transactions, self._store.network)
        outputs = {
            txindex: tuple(
                SpentOutput(coin.value, coin.script_pubkey, coin.made_at if heights else None)
                for coin in coins
            )
            for txindex, coins in coins_by_txindex.items()
        }
        return SpentOutputs(outputs, "undo", coins_by_txindex.counts)

    def _choose(self, records: Sequence[_Record], number: int, txindexes: Collection[int]) -> list[bytes]:
        """Pick the record that belongs to this block and not to a sibling."""
        verdicts = [(record, self._belongs_to(record.data, number, txindexes)) for record in records]
        certain = [record.data for record, verdict in verdicts if verdict]
        if certain:
            return certain
        undecided = [record.data for record, verdict in verdicts if verdict is None and not record.searched]
        with self._store.lock:
            index = self._store.index
            # A block below the tip was connected, so its record exists: if only one is left, it is that one.
            is_below_tip = index.is_active(number) and number != index.tip
        return undecided if is_below_tip and len(undecided) == 1 else []

    def _belongs_to(self, record: bytes, number: int, txindexes: Collection[int]) -> bool | None:
        """Check whether these transactions of a block spend what a record says; None if undecidable."""
        raw = self._store.plain(number)
        transactions = split_transactions(raw)
        coins = read_undo(record, range(1, len(transactions)), self._store.network)
        inputs = {txindex: read_inputs(transactions[txindex]) for txindex in range(1, len(transactions))}
        if any(len(coins[txindex]) != len(inputs[txindex]) for txindex in inputs):
            return False
        ancestors = _AncestorOutputs(self._store, number)
        verdict: bool | None = True
        for txindex in inputs.keys() & set(txindexes):
            for spending, coin in zip(inputs[txindex], coins[txindex], strict=True):
                created = ancestors.output(coin.height, spending.txid, spending.vout)
                if created is None:
                    verdict = None
                elif created.value != coin.value or not stands_for(coin.script_pubkey, created.script_pubkey):
                    return False
        return verdict

    def _matching_records(self, number: int, *, reread: bool = False) -> list[_Record]:
        """Find the distinct records that match a block's parent and its number of transactions.

        `reread` forgets first where the records are: a node that crashed may have overwritten them.
        """
        with self._store.lock:
            place, height = self._store.index.place(number), self._store.index.height(number)
            has_siblings = bool(self._store.index.siblings(number))
        start = self._store.start(number, _COUNT)
        count = first_count(start[HEADER_SIZE:]) - 1
        with self._lock:
            records = self._files.get(place.file)
            if records is None or reread:
                records = self._files[place.file] = _UndoRecords(self._store, place.file)
            self._files.move_to_end(place.file)
            if len(self._files) > _KEPT_FILES:
                self._files.popitem(last=False)
            copies: dict[bytes, list[bool]] = {}
            for data, searched in records.matching(start[4:36], count, height, everywhere=has_siblings):
                copies.setdefault(data, []).append(searched)
            return [_Record(data, flags.count(False) or 1, all(flags)) for data, flags in copies.items()]


class _UndoRecords:
    """The records of one file of undo data."""

    def __init__(self, store: BlockStore, number: int) -> None:
        self._path = store.folder.undo_file(number)
        self._key = store.key
        framing = Framing(store.network, store.key, 1, LARGEST_UNDO, head=_COUNT, trailer=_CHECKSUM)
        self._file = FramedFile(self._path, framing)
        self._offsets, self._lengths, self._counts = array("Q"), array("I"), array("I")
        self._searched = array("b")
        self._last_match = (0, 0)
        """A height and the position of its record: other records are about as far away as their heights."""

    def _refresh(self) -> None:
        frames = list(self._file.new_frames())
        if self._file.rewound:
            self._offsets, self._lengths, self._counts = array("Q"), array("I"), array("I")
            self._searched = array("b")
        self._offsets.extend(frame.offset for frame in frames)
        self._lengths.extend(frame.length for frame in frames)
        self._counts.extend(first_count(frame.head) for frame in frames)
        self._searched.extend(frame.searched for frame in frames)

    def matching(
        self, parent_hash: bytes, count: int, height: int, *, everywhere: bool
    ) -> Iterator[tuple[bytes, bool]]:
        """Yield the records of `count` transactions whose checksum matches the parent's hash.

        With each, whether it was found by searching.

        Unless `everywhere` is set, the search ends some way after the first match.
        """
        self._refresh()
        guess = min(max(self._last_match[1] + height - self._last_match[0], 0), len(self._counts))
        below, above = range(guess - 1, -1, -1), range(guess, len(self._counts))
        last = None
        for step, position in enumerate(chain.from_iterable(zip_longest(above, below))):
            if last is not None and step > last:
                return
            if position is not None and self._counts[position] == count:
                offset, length = self._offsets[position], self._lengths[position]
                record = read_part(self._path, offset, length + _CHECKSUM, self._key)
                if sha256d(parent_hash + record[:length]) == record[length:]:
                    self._last_match = (height, position)
                    if last is None and not everywhere:
                        last = step + 2 * _NEAR
                    yield record[:length], bool(self._searched[position])


class _AncestorOutputs:
    """Looks up outputs in the block that created them: a block's ancestors, and the block itself."""

    def __init__(self, store: BlockStore, number: int) -> None:
        self._store = store
        self._number = number
        self._blocks: dict[int, dict[str, bytes]] = {}

    def output(self, height: int, txid: str, vout: int) -> SpentOutput | None:
        """Return an output that was created at this height; None if the block there is not available.

        An amount of -1 means that the block did not create it.
        """
        if height not in self._blocks:
            with self._store.lock:
                ancestor = self._store.index.ancestor(self._number, height)
            if ancestor is None:
                return None
            try:
                raw = self._store.plain(ancestor)
            except MissingData:
                return None
            self._blocks[height] = dict(zip(txids(raw), split_transactions(raw), strict=True))
        transaction = self._blocks[height].get(txid)
        outputs = [] if transaction is None else read_outputs(transaction)[1]
        return outputs[vout] if vout < len(outputs) else SpentOutput(-1, b"")


class Outputs:
    """The outputs of a store's blocks; safe to use from several threads."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._indexed = 0
        """How many of the store's blocks are in the database."""

    def spent(self, number: int, transactions: Mapping[int, str], *, heights: bool) -> SpentOutputs:
        """Return the outputs that some transactions of a block spend; raises MissingData, MalformedBlock.

        The first call reads every block.
        """
        inputs = self._inputs(number, transactions)
        with self._lock:
            try:
                database = self._up_to_date()
                needed: dict[str, set[int]] = {}
                for spending in chain.from_iterable(inputs.values()):
                    needed.setdefault(spending.txid, set()).add(spending.vout)
                known: dict[str, dict[int, SpentOutput]] = {}
                outputs = {
                    txindex: capped(self._spent(database, number, spendings, needed, known))
                    for txindex, spendings in inputs.items()
                }
                if not heights:
                    outputs = {
                        txindex: tuple(output._replace(made_at=None) for output in spent)
                        for txindex, spent in outputs.items()
                    }
            except sqlite3.Error as error:
                raise NodeError(
                    f"the temporary index over {self._store} failed: {error}; "
                    "it may need space in the folder that SQLITE_TMPDIR or TMPDIR names"
                ) from error
        return SpentOutputs(outputs, "transaction")

    def close(self) -> None:
        """Drop the database."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _inputs(self, number: int, transactions: Mapping[int, str]) -> dict[int, tuple[TxIn, ...]]:
        raws = split_transactions(self._store.plain(number))
        inputs = {}
        for txindex, txid in transactions.items():
            if txindex >= len(raws) or read_outputs(raws[txindex])[0] != txid:
                raise MalformedBlock(
                    f"block {self._store.hash(number)} of {self._store} has no {txid} at txindex {txindex}"
                )
            inputs[txindex] = read_inputs(raws[txindex])
        return inputs

    def _up_to_date(self) -> sqlite3.Connection:
        """Add the transactions of new blocks to the database."""
        if self._database is None:
            # A database without a name is SQLite's own file, created once memory no longer suffices.
            self._database = sqlite3.connect("", check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = OFF")
            self._database.execute(_CREATE)
            self._indexed = 0
        with self._store.lock:
            blocks = len(self._store.index)
        for number in range(self._indexed, blocks):
            self._database.executemany(_INSERT, self._places(number))
            self._indexed = number + 1
        # Only after the first pass: sorting once is faster than keeping the order.
        self._database.execute(_INDEX)
        return self._database

    def _places(self, number: int) -> Iterator[tuple[int, int, int, int]]:
        # A block that is damaged or gone adds no outputs; a missing output is reported when it is requested.
        with suppress(MalformedBlock, MissingData):
            raw = self._store.plain(number)
            transactions = split_transactions(raw)
            start = len(raw) - sum(map(len, transactions))
            for txid, transaction in zip(txids(raw), transactions, strict=True):
                yield _prefix(txid), number, start, len(transaction)
                start += len(transaction)

    def _spent(
        self,
        database: sqlite3.Connection,
        spender: int,
        spendings: Sequence[TxIn],
        needed: Mapping[str, set[int]],
        known: dict[str, dict[int, SpentOutput]],
    ) -> Iterator[SpentOutput]:
        """Yield what the inputs of a transaction spend.

        A transaction that created several outputs is read once for the whole block: `known` holds those of
        them that are `needed`.
        """
        for spending in spendings:
            if spending.txid not in known:
                outputs = self._outputs_of(database, spending.txid, spender)
                known[spending.txid] = {
                    vout: capped([outputs[vout]])[0] for vout in needed[spending.txid] if vout < len(outputs)
                }
            # Each is spent once, so it need not be kept any longer.
            output = known[spending.txid].pop(spending.vout, None)
            if output is None:
                raise MissingData(
                    f"block {self._store.hash(spender)} spends {spending.txid}:{spending.vout}, and "
                    f"{self._store} holds neither that nor rev*.dat: use files from the first block on, or "
                    "bitcoind's whole folder"
                )
            yield output

    def _outputs_of(self, database: sqlite3.Connection, txid: str, spender: int) -> Sequence[SpentOutput]:
        """Read a transaction's outputs; empty if it is not there.

        They say where they were made if it is in a block that `spender` builds on: other branches may have
        the transaction, too.
        """
        elsewhere: Sequence[SpentOutput] = ()
        for number, start, length in database.execute(_FIND, [_prefix(txid)]):
            raw = self._store.plain_part(number, start, length)
            candidate, outputs = read_outputs(raw)
            if candidate == txid:
                elsewhere = elsewhere or outputs
                with self._store.lock:
                    height = self._store.index.height(number)
                    is_ancestor = self._store.index.ancestor(spender, height) == number
                if is_ancestor:
                    made_at = 2 * height + (read_inputs(raw)[0].txid == NO_TXID)
                    return [output._replace(made_at=made_at) for output in outputs]
        return elsewhere


def _prefix(txid: str) -> int:
    return int.from_bytes(bytes.fromhex(txid)[:8], "little", signed=True)

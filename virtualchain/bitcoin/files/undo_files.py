"""Spent outputs out of `rev*.dat`, the undo data that bitcoind keeps beside its blocks.

The record of a block lies in the file of the same number and says neither its hash nor its height: a
checksum over the parent's hash and the data is all that ties them together. Blocks with the same parent are
told apart by what they spend, which is looked up in the blocks that made it.
"""

import threading
from array import array
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Final

from virtualchain.bitcoin.block import split_transactions, txids
from virtualchain.bitcoin.files.framing import FramedFile, Framing, read_part
from virtualchain.bitcoin.files.store import BlockStore
from virtualchain.bitcoin.files.undo import first_count, read_undo
from virtualchain.bitcoin.header import HEADER_SIZE, sha256d
from virtualchain.bitcoin.transaction import read_inputs, read_outputs
from virtualchain.errors import MalformedBlock, MissingData
from virtualchain.model import SpentOutput

LARGEST_UNDO: Final = 4_000_000 // (41 * 4) * (10_000 + 32)
"""Bytes: an input weighs four units for each of its 41 bytes, a script that can be spent has 10,000."""
_CHECKSUM: Final = 32
_COUNT: Final = 9
"""Bytes of a count at most."""
_FEW: Final = 4
"""Files whose records are remembered, and transactions that are looked at to tell blocks apart."""
_NEAR: Final = 100
"""Records between those of siblings, at most: the node connected both in the course of a reorganisation."""

Spent = Mapping[int, Sequence[SpentOutput]]


class UndoFiles:
    """The undo data of a store's blocks; safe to use from several threads."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._files: OrderedDict[int, _Records] = OrderedDict()

    def is_connected(self, number: int) -> bool:
        """Tell whether the node has connected a block: undo data are there that are surely this block's."""
        # A block that cannot be read is one that the node has not yet written, or could not connect either.
        with suppress(MalformedBlock, MissingData):
            records = self._records_of(number)
            if len(records) < 2 and not self._has_siblings(number):
                return bool(records)
            return any(self._is_of(record, number, range(1, 1 + _FEW)) for record in records)
        return False

    def spent(self, number: int, transactions: Mapping[int, str]) -> Spent:
        """Give what some transactions of a block spend; raises MissingData, MalformedBlock."""
        records = self._records_of(number) or self._records_of(number, anew=True)
        if len(records) > 1 or self._has_siblings(number):
            records = self._choose(records, number, transactions)
        if not records:
            raise MissingData(
                f"{self._store} has no undo data of block {self._store.hash(number)}: the node never "
                "connected it, or its rev*.dat is gone; give the node's whole folder, or ask the node itself"
            )
        found = read_undo(records[0], transactions)
        return {
            txindex: tuple(SpentOutput(coin.value, coin.script_pubkey) for coin in coins)
            for txindex, coins in found.items()
        }

    def _has_siblings(self, number: int) -> bool:
        with self._store.lock:
            return self._store.index.has_siblings(number)

    def _choose(self, records: Sequence[bytes], number: int, wanted: Collection[int]) -> list[bytes]:
        """Pick the record that is this block's and not a sibling's."""
        verdicts = [(record, self._is_of(record, number, wanted)) for record in records]
        sure = [record for record, verdict in verdicts if verdict]
        if sure:
            return sure
        open_ = [record for record, verdict in verdicts if verdict is None]
        with self._store.lock:
            index = self._store.index
            # A block below the tip was connected, so its record is there: a single one left must be it.
            is_below_tip = index.is_active(number) and number != index.tip
        return open_ if is_below_tip and len(open_) == 1 else []

    def _is_of(self, record: bytes, number: int, wanted: Collection[int]) -> bool | None:
        """Tell whether some transactions of a block spend what a record says; None: cannot be told."""
        raw = self._store.read(number)
        transactions = split_transactions(raw)
        coins = read_undo(record, range(1, len(transactions)))
        inputs = {txindex: read_inputs(transactions[txindex]) for txindex in range(1, len(transactions))}
        if any(len(coins[txindex]) != len(inputs[txindex]) for txindex in inputs):
            return False
        makers = _Makers(self._store, number)
        verdict: bool | None = True
        for txindex in inputs.keys() & set(wanted):
            for spending, coin in zip(inputs[txindex], coins[txindex], strict=True):
                made = makers.output(coin.height, spending.txid, spending.vout)
                if made is None:
                    verdict = None
                elif made != SpentOutput(coin.value, coin.script_pubkey):
                    return False
        return verdict

    def _records_of(self, number: int, *, anew: bool = False) -> list[bytes]:
        """Find the different records that go with a block's parent and its number of transactions.

        `anew`: where they lie is forgotten before; a node that crashed may have written over them.
        """
        with self._store.lock:
            place, height = self._store.index.place(number), self._store.index.height(number)
            has_siblings = self._store.index.has_siblings(number)
        start = self._store.part(number, 0, HEADER_SIZE + _COUNT)
        count = first_count(start[HEADER_SIZE:]) - 1
        with self._lock:
            records = self._files.get(place.file)
            if records is None or anew:
                records = self._files[place.file] = _Records(self._store, place.file)
            self._files.move_to_end(place.file)
            if len(self._files) > _FEW:
                self._files.popitem(last=False)
            matching = records.matching(start[4:36], count, height, everywhere=has_siblings)
            return list(dict.fromkeys(matching))


class _Records:
    """The records of one file of undo data."""

    def __init__(self, store: BlockStore, number: int) -> None:
        self._path = store.folder.undo_file(number)
        self._key = store.key
        framing = Framing(store.network, store.key, 1, LARGEST_UNDO, head=_COUNT, trailer=_CHECKSUM)
        self._file = FramedFile(self._path, framing)
        self._offsets, self._lengths, self._counts = array("Q"), array("I"), array("I")
        self._found = (0, 0)
        """A height, and the place of its record: others lie about as far from it as their heights say."""

    def _look(self) -> None:
        frames = list(self._file.new_frames())
        if self._file.rewound:
            self._offsets, self._lengths, self._counts = array("Q"), array("I"), array("I")
        self._offsets.extend(frame.offset for frame in frames)
        self._lengths.extend(frame.length for frame in frames)
        self._counts.extend(first_count(frame.head) for frame in frames)

    def matching(self, parent_hash: bytes, count: int, height: int, *, everywhere: bool) -> Iterator[bytes]:
        """Give the records of so many transactions whose checksum goes with the parent's hash.

        Unless it is to be looked `everywhere`, the search ends a while behind the first one.
        """
        self._look()
        guess = min(max(self._found[1] + height - self._found[0], 0), len(self._counts))
        below, above = range(guess - 1, -1, -1), range(guess, len(self._counts))
        last = None
        for step, place in enumerate(chain.from_iterable(zip_longest(above, below))):
            if last is not None and step > last:
                return
            if place is not None and self._counts[place] == count:
                offset, length = self._offsets[place], self._lengths[place]
                record = read_part(self._path, offset, length + _CHECKSUM, self._key)
                if sha256d(parent_hash + record[:length]) == record[length:]:
                    self._found = (height, place)
                    if last is None and not everywhere:
                        last = step + 2 * _NEAR
                    yield record[:length]


class _Makers:
    """Looks up outputs in the blocks that made them: those below a block, and the block itself."""

    def __init__(self, store: BlockStore, number: int) -> None:
        self._store = store
        self._number = number
        self._blocks: dict[int, dict[str, bytes]] = {}

    def output(self, height: int, txid: str, vout: int) -> SpentOutput | None:
        """Give an output; None where the block at that height is not there.

        An amount of -1 says that this block did not make it.
        """
        if height not in self._blocks:
            with self._store.lock:
                maker = self._store.index.ancestor(self._number, height)
            if maker is None:
                return None
            try:
                raw = self._store.read(maker)
            except MissingData:
                return None
            self._blocks[height] = dict(zip(txids(raw), split_transactions(raw), strict=True))
        made = self._blocks[height].get(txid)
        outputs = [] if made is None else read_outputs(made)[1]
        return outputs[vout] if vout < len(outputs) else SpentOutput(-1, b"")

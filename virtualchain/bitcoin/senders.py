"""Senders: what shows that the outputs which transactions spend are those that a source reports.

A block commits to the ids of the transactions whose outputs it spends, and not to the outputs. So a source
could name other senders and amounts. How far it is believed is a level:

- "node": on its word, as far as the inputs do not contradict it (`mismatch` in `spending.py`).
- "bound": a script that the input reveals (`binds` there) is taken on what it reveals. Any other output is
  taken from the transaction that made it, whose id shows that it is the one. Amounts of the former are the
  source's word.
- "proved": every output is taken from the transaction that made it, in the block that holds it: its id, its
  Merkle branch, and the block's work are checked, so that the height is shown as well.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final

from virtualchain.bitcoin.block import Scan
from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.bitcoin.source import BlockSource, HeightSource, TransactionSource, at_height
from virtualchain.bitcoin.spending import UNCHECKED_BLOCKS, Capped, binds, capped, stands_for
from virtualchain.bitcoin.transaction import read_outputs
from virtualchain.errors import MalformedBlock, MissingData
from virtualchain.model import Block, SenderLevel, SpentOutput, SpentOutputs, TxIn

_KEPT: Final = 8
"""Blocks that made outputs and are kept: outputs are often spent soon, and several of one block."""

HashesAt = Callable[[Collection[int]], Mapping[int, str]]
"""Returns the hashes of the blocks on the tape at some heights."""

_Spent = dict[int, list[SpentOutput]]


def _unknown(_heights: Collection[int]) -> Mapping[int, str]:
    """Know no block."""
    return {}


class Senders:
    """Asks a source what transactions spend, and checks the answer as far as a level says.

    Safe to use from several threads, but for `require_on_tape`, which reads the tape.
    """

    def __init__(self, level: SenderLevel = "node", hashes_at: HashesAt = _unknown) -> None:
        self._level = level
        self._hashes_at = hashes_at
        self._blocks: OrderedDict[str, CheckedBlock] = OrderedDict()
        self._lock = threading.Lock()

    def spent(self, source: BlockSource, scan: Scan) -> SpentOutputs:
        """Return what the candidates of a scan spend: by txindex, one output per input, in order.

        Raises what the source raises, MissingData if it cannot show what the level takes, and MalformedBlock
        if it reports something else than the transactions say.
        """
        with at_height(scan.block.block_id):
            if self._level == "proved":
                return self._proved(source, scan)
            reported = _reported(source, scan)
            return reported if self._level == "node" else self._bound(source, scan, reported)

    def require_on_tape(self, spent: Mapping[int, str], spender: Block) -> None:
        """Check that blocks which were shown to have made what a block spends are those of the tape.

        `spent` are hashes by height; a height that is not on the tape is not compared. Raises MalformedBlock.
        """
        if not spent:
            return
        for height, ours in self._hashes_at(spent.keys()).items():
            if spent[height] != ours:
                raise MalformedBlock(
                    f"block {spender.block_id} ({spender.hash}): what it spends was shown with block "
                    f"{spent[height]} at height {height}, but the tape has {ours} there; use another node"
                )

    def _bound(self, source: BlockSource, scan: Scan, reported: SpentOutputs) -> SpentOutputs:
        """Take the scripts that inputs do not bind from the transactions that made them; compare the values.

        There, a source may report the substitute of a script of any size.
        """
        is_signed = reported.are_signed and scan.block.hash not in UNCHECKED_BLOCKS
        unbound: dict[int, dict[int, TxIn]] = {}
        for txindex, pairs in _pairs(scan, reported):
            for place, (each, output) in enumerate(pairs):
                if not (is_signed and binds(output.script_pubkey, each)):
                    unbound.setdefault(txindex, {})[place] = each
        blocks: dict[int, str] = {}
        made = _transactions(source, {each.txid for places in unbound.values() for each in places.values()})
        placed = _with_heights(source, scan, unbound) if made is None else SpentOutputs({})
        shown = dict(reported)
        for txindex, places in unbound.items():
            stated = [output.made_at for output in placed.get(txindex, ())]
            cap = Capped().cap
            outputs = []
            for place, output in enumerate(reported[txindex]):
                real, spending = output, places.get(place)
                if spending is not None and made is not None:
                    real = _compare(scan, txindex, spending, output, made[spending.txid])
                elif spending is not None:
                    where = output._replace(made_at=stated[place] if place < len(stated) else None)
                    real = self._find(source, scan, txindex, spending, where, blocks)
                outputs.append(output._replace(script_pubkey=cap(real.script_pubkey)))
            shown[txindex] = outputs
        return SpentOutputs(shown, "bound", reported.counts, are_signed=reported.are_signed, made_in=blocks)

    def _proved(self, source: BlockSource, scan: Scan) -> SpentOutputs:
        spending = [each.txindex for each in scan.candidates if each.spends]
        reported = _with_heights(source, scan, spending)
        blocks: dict[int, str] = {}
        proved: _Spent = {}
        for txindex, pairs in _pairs(scan, reported):
            outputs = (
                self._find(source, scan, txindex, spending, output, blocks) for spending, output in pairs
            )
            proved[txindex] = list(capped(outputs))
        missing = set(spending) - set(proved)
        if missing:
            raise MissingData(f"what transaction {min(missing)} spends was not reported completely")
        return SpentOutputs(proved, "proof", reported.counts, are_signed=reported.are_signed, made_in=blocks)

    def _find(
        self,
        source: BlockSource,
        scan: Scan,
        txindex: int,
        spending: TxIn,
        reported: SpentOutput,
        blocks: dict[int, str],
    ) -> SpentOutput:
        """Find an output in the block that made it, which is added to `blocks`."""
        if reported.made_at is None:
            raise MissingData(
                f"{source} does not state which block made {spending.txid}, which takes a node of version 24 "
                "or later, or its block files: nothing else can be shown about that output"
            )
        height = reported.made_at >> 1
        if height > scan.block.block_id:
            raise _lie(scan, txindex, f"{spending.txid} was not made before it is spent, at height {height}")
        block = self._block(source, scan.block, height)
        assert block.tree is not None, "it was checked completely"
        made_by = block.tree.find(spending.txid)
        if made_by is None:
            raise _lie(scan, txindex, f"block {height} ({block.header.hash}) does not hold {spending.txid}")
        if height == scan.block.block_id and made_by >= txindex:
            raise _lie(scan, txindex, f"{spending.txid} comes after it")
        made_at = 2 * height + (made_by == 0)
        if reported.made_at != made_at:
            raise _lie(scan, txindex, f"{spending.txid} is transaction {made_by} of block {height}")
        output = _compare(scan, txindex, spending, reported, block.layout.transaction(made_by))
        if blocks.setdefault(height, block.header.hash) != block.header.hash:
            raise _lie(scan, txindex, f"two blocks were shown at height {height}")
        return output._replace(made_at=made_at)

    def _block(self, source: BlockSource, spender: Block, height: int) -> CheckedBlock:
        """Fetch the block at a height and check it completely, work and Merkle root included."""
        is_own = height == spender.block_id
        block_hash = spender.hash if is_own else source.block_hash(height)
        with self._lock:
            known = self._blocks.get(block_hash)
            if known is not None and known.header.block_id == height:
                self._blocks.move_to_end(block_hash)
                return known
        raw = source.raw_block(block_hash)
        header = spender if is_own else read_header(height, raw[:HEADER_SIZE])
        if header.hash != block_hash:
            raise MalformedBlock(f"block {height}: requested {block_hash}, got {header.hash}")
        block = CheckedBlock(header, raw, source.network, "merkle")
        with self._lock:
            self._blocks[block_hash] = block
            if len(self._blocks) > _KEPT:
                self._blocks.popitem(last=False)
        return block


def _reported(source: BlockSource, scan: Scan) -> SpentOutputs:
    """Ask what the candidates of a scan spend."""
    transactions = _spenders(scan)
    ask = source.spent_outputs
    if isinstance(source, HeightSource) and any(each.needs_heights for each in scan.candidates):
        ask = source.spent_outputs_with_heights
    return _as_spent(ask(scan.block.hash, transactions))


def _with_heights(source: BlockSource, scan: Scan, txindexes: Iterable[int]) -> SpentOutputs:
    """Ask what some candidates spend, with the heights of the blocks that made it."""
    chosen = set(txindexes)
    transactions = {txindex: txid for txindex, txid in _spenders(scan).items() if txindex in chosen}
    if not transactions:
        return SpentOutputs({})
    if not isinstance(source, HeightSource):
        raise MissingData(
            f"{source} does not state which blocks made the outputs that transactions spend: use a node of "
            "version 24 or later, or its block files"
        )
    return _as_spent(source.spent_outputs_with_heights(scan.block.hash, transactions))


def _spenders(scan: Scan) -> dict[int, str]:
    return {each.txindex: each.transaction.txid for each in scan.candidates if each.spends}


def _as_spent(spent: Mapping[int, Iterable[SpentOutput]]) -> SpentOutputs:
    if isinstance(spent, SpentOutputs):
        return spent
    return SpentOutputs({txindex: tuple(outputs) for txindex, outputs in spent.items()})


def _pairs(scan: Scan, spent: SpentOutputs) -> Iterator[tuple[int, list[tuple[TxIn, SpentOutput]]]]:
    """Pair the inputs of each candidate with what they spend; one with another count is left out.

    Whoever joins them reports that count.
    """
    for each in scan.candidates:
        outputs = spent.get(each.txindex, ())
        if each.spends and len(outputs) == each.spends:
            yield each.txindex, list(zip(each.transaction.inputs, outputs, strict=True))


def _transactions(source: BlockSource, txids: Collection[str]) -> Mapping[str, bytes] | None:
    """Ask for transactions by their ids; None if the source does not find them so."""
    if not txids:
        return {}
    if not isinstance(source, TransactionSource):
        return None
    try:
        return source.transactions(sorted(txids))
    except MissingData:
        return None


def _compare(scan: Scan, txindex: int, spending: TxIn, reported: SpentOutput, made_by: bytes) -> SpentOutput:
    """Compare what was reported of an output with the transaction that made it; return the output."""
    txid, outputs = read_outputs(made_by)
    if txid != spending.txid:
        raise _lie(scan, txindex, f"transaction {spending.txid} was requested, but {txid} returned")
    if spending.vout >= len(outputs):
        raise _lie(scan, txindex, f"{txid} has no output {spending.vout}")
    output = outputs[spending.vout]
    if output.value != reported.value:
        raise _lie(
            scan,
            txindex,
            f"{txid}:{spending.vout} has {output.value} satoshi, but {reported.value} were reported",
        )
    if not stands_for(reported.script_pubkey, output.script_pubkey):
        raise _lie(scan, txindex, f"{txid}:{spending.vout} has another script than was reported")
    return output


def _lie(scan: Scan, txindex: int, why: str) -> MalformedBlock:
    return MalformedBlock(
        f"block {scan.block.block_id} ({scan.block.hash}): what transaction {txindex} spends was reported "
        f"wrongly: {why}; use another node"
    )

"""Check rows of the tape against themselves: nearly everything in them can be computed without the chain.

A header determines its hash, parent and time; a raw transaction determines its id, its outputs and what it
spends. What remains to be trusted here are the values and scripts of the spent outputs, and that a
transaction is in its block, which only a branch shows (`virtualchain/audit/tape.py`).
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from virtualchain.bitcoin.block import Candidate, Scan, inputs
from virtualchain.bitcoin.header import read_header, work
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.spending import stands_for
from virtualchain.bitcoin.transaction import NO_TXID, Transaction, read_transaction, unpack_outputs
from virtualchain.errors import MalformedBlock, quoted
from virtualchain.model import Block, Input, Json, Sender, SpentOutput

_WORK = re.compile("-?[0-9]{1,78}")
"""2**256, the number of all possible hashes, has 78 digits."""


def check_block(row: Sequence[Any], before: tuple[Block, int] | None) -> tuple[Block, int]:
    """Return the block of a row and the chain work up to it; `before` are those of the previous row.

    Raises ValueError if the row does not match its header, or the block is not a child of the previous one.
    """
    block_id, block_hash, prev_hash, time, chainwork_text, header = row
    if not 0 <= block_id < 2**31:
        raise ValueError(f"block {block_id}: there is no such height")
    try:
        block = read_header(block_id, header)
    except MalformedBlock as error:  # names the block
        raise ValueError(str(error)) from error
    try:
        own_work = work(block.bits)
    except MalformedBlock as error:
        raise ValueError(f"block {block_id}: {error}") from error
    if not _WORK.fullmatch(chainwork_text):
        raise ValueError(f"block {block_id}: {quoted(chainwork_text)} is not an amount of work")
    chainwork = int(chainwork_text)
    if (block.hash, block.prev_hash, datetime.fromtimestamp(block.time, UTC)) != (
        block_hash,
        prev_hash,
        time,
    ):
        raise ValueError(
            f"block {block_id} ({block_hash}): hash, parent or time does not match its header, which has the "
            f"hash {block.hash}"
        )
    if before is not None:
        parent, work_before = before
        if (block_id, prev_hash) != (parent.block_id + 1, parent.hash):
            raise ValueError(
                f"block {block_id} ({block_hash}) is not a child of block {parent.block_id} ({parent.hash})"
            )
        if chainwork != work_before + own_work:
            raise ValueError(f"block {block_id} ({block_hash}): its work does not match its header")
    return block, chainwork


def check_input(row: Sequence[Any], blocks: Mapping[int, Block], network: Network) -> None:
    """Check a row of the tape in one of `blocks`.

    Raises ValueError if its block is not among them, or the row does not match its raw transaction.
    """
    block_id, txindex, txid, magics, spent, unusual_keys, fee, raw, spent_at, tracked_by = row
    place = f"transaction {txindex} ({txid}) of block {block_id}"

    def outputs() -> list[SpentOutput]:
        return [_in_range(output, network) for output in unpack_outputs(spent)]

    claimed = _Claimed(block_id, txindex, magics, raw, spent_at, tracked_by)
    computed = _compute(place, claimed, outputs, blocks, network)
    _compare(
        place,
        ("txid", txid, computed.txid),
        ("spent", spent, computed.spent),
        ("unusual_keys", unusual_keys, {str(n): list(keys) for n, keys in computed.unusual_keys.items()}),
        ("fee", fee, computed.fee),
    )


def read_exported_input(row: Sequence[Any], blocks: Mapping[int, Block], network: Network) -> Input:
    """Return the input of an export's row in one of `blocks`; raises ValueError like `check_input`."""
    block_id, txindex, txid, magics, senders_text, outputs_text, fee, raw, spent_at, tracked_by = row
    place = f"transaction {txindex} ({txid}) of block {block_id}"
    senders, outputs = _objects(senders_text, place), _objects(outputs_text, place)

    def spent() -> list[SpentOutput]:
        return [_spent_output(sender, network) for sender in senders]

    claimed = _Claimed(block_id, txindex, magics, raw, spent_at, tracked_by)
    computed = _compute(place, claimed, spent, blocks, network)
    senders = [_as_now(*each) for each in zip(senders, computed.senders, strict=True)]
    _compare(
        place,
        ("txid", txid, computed.txid),
        ("senders", senders, [sender.as_dict() for sender in computed.senders]),
        ("outputs", outputs, [output.as_dict() for output in computed.outputs]),
        ("fee", fee, computed.fee),
    )
    return replace(computed, evidence="export")


class _Claimed(NamedTuple):
    """What a row of an input says beyond what is computed from it."""

    block_id: int
    txindex: int
    magics: Sequence[bytes]
    raw: bytes
    spent_at: Sequence[int] | None
    tracked_by: Sequence[str]


def _compute(
    place: str,
    row: _Claimed,
    spent: Callable[[], Sequence[SpentOutput]],
    blocks: Mapping[int, Block],
    network: Network,
) -> Input:
    """Compute an input from what its row says, and what it spends."""
    if row.block_id not in blocks or not 0 <= row.txindex < 2**31:
        raise ValueError(f"{place}: there is no such position, or rows are out of order")
    if list(row.magics) != sorted(set(row.magics)):
        raise ValueError(f"{place}: its magics are not a sorted list without duplicates")
    if not all(isinstance(app, str) and app for app in row.tracked_by) or list(row.tracked_by) != sorted(
        set(row.tracked_by)
    ):
        raise ValueError(f"{place}: tracked_by is not a sorted list of apps without duplicates")
    if not row.magics and not row.tracked_by:
        raise ValueError(f"{place}: it has no magic, and no app's tracking asked for it")
    try:
        transaction = read_transaction(row.raw, network)
        outputs = spent()
        _check_coinbase(row, transaction)
        candidate = Candidate(row.txindex, transaction, row.raw, tuple(row.magics))
        if len(outputs) != candidate.spends:
            raise ValueError(f"it has {candidate.spends} inputs and {len(outputs)} senders")
        _check_heights(row, len(outputs))
        (computed,) = inputs(Scan(blocks[row.block_id], (candidate,), network), {row.txindex: outputs})
    except (MalformedBlock, ValueError) as error:
        raise ValueError(f"{place}: {error}") from error
    spent_at = None if row.spent_at is None else tuple(row.spent_at)
    return replace(computed, spent_at=spent_at, tracked_by=tuple(row.tracked_by))


def _check_coinbase(row: _Claimed, transaction: Transaction) -> None:
    """Check that a transaction is a coinbase if it is the first of its block, and only then."""
    is_coinbase = [spending.txid for spending in transaction.inputs] == [NO_TXID]
    if is_coinbase != (row.txindex == 0):
        raise ValueError(
            "it is a coinbase, which is the first transaction of a block"
            if is_coinbase
            else "the first transaction of a block is a coinbase, and it is not"
        )
    if is_coinbase and row.tracked_by:
        raise ValueError("a coinbase spends nothing, so no app's tracking asked for it")


def _check_heights(row: _Claimed, spends: int) -> None:
    """Check that `spent_at` has a possible place for each spent output: not its own block's coinbase."""
    if row.spent_at is None:
        return
    if len(row.spent_at) != spends:
        raise ValueError(f"spent_at has {len(row.spent_at)} places for {spends} spent outputs")
    if not all(isinstance(place, int) and 0 <= place <= 2 * row.block_id for place in row.spent_at):
        raise ValueError("spent_at has a place that is not below its block, or in it")


def _compare(place: str, *columns: tuple[str, object, object]) -> None:
    for name, stored, expected in columns:
        if stored != expected:
            raise ValueError(f"{place}: column {name} does not match the raw transaction")


def _objects(text: str, place: str) -> list[Json]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: senders or outputs are not JSON: {error}") from error
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{place}: senders or outputs are not a list of objects")
    return items


def _as_now(sender: Json, computed: Sender) -> Json:
    """Return a sender that an earlier version exported as this one would: long scripts are replaced."""
    if "sighash" in sender:
        return sender
    kept, script = bytes.fromhex(computed.script_pubkey), bytes.fromhex(sender["script_pubkey"])
    script_pubkey = kept.hex() if stands_for(kept, script) else script.hex()
    return {**sender, "script_pubkey": script_pubkey, "sighash": list(computed.sighash)}


def _spent_output(sender: Json, network: Network) -> SpentOutput:
    """Return the output that a sender spent."""
    value, script = sender.get("value"), sender.get("script_pubkey")
    if type(value) is not int or not isinstance(script, str):
        raise ValueError("a sender has no valid value or no script")
    return _in_range(SpentOutput(value, bytes.fromhex(script)), network)


def _in_range(output: SpentOutput, network: Network) -> SpentOutput:
    if not 0 <= output.value <= network.largest_amount:
        raise ValueError("a sender has no valid value or no script")
    return output

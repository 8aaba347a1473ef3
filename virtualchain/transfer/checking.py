"""Check what can be known of an exported row without its chain, which is nearly all of it.

A header says its hash, its parent and its time; a raw transaction its id, its outputs and what it spends.
What is left to trust are the values and scripts of the spent outputs, and that a transaction is in its block.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from virtualchain.bitcoin.block import Candidate, Scan, inputs
from virtualchain.bitcoin.header import read_header, work
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.transaction import MAX_MONEY, read_transaction
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block, Input, Json, SpentOutput
from virtualchain.transfer.reading import Row

_WORK = re.compile("-?[0-9]{1,78}")
"""All hashes that there could be have 78 digits."""


def check_block(row: Row, before: tuple[Block, int] | None) -> tuple[Block, int]:
    """Give the block of a row, and the work up to it; `before` are those of the row before.

    Raises ValueError where the row is not what its header says, or no child of the block before.
    """
    block_id, block_hash, prev_hash, time, told_work, header = row
    if not 0 <= block_id < 2**31:
        raise ValueError(f"block {block_id}: there is no such height")
    try:
        block = read_header(block_id, header)
        own_work = work(block.bits)
    except MalformedBlock as error:
        raise ValueError(f"block {block_id}: {error}") from error
    if not _WORK.fullmatch(told_work):
        raise ValueError(f"block {block_id}: {told_work[:100]!r} is no amount of work")
    chainwork = int(told_work)
    said = (block.hash, block.prev_hash, datetime.fromtimestamp(block.time, UTC))
    if said != (block_hash, prev_hash, time):
        raise ValueError(
            f"block {block_id} ({block_hash}) has the header of block {block.hash}, or another time"
        )
    if before is not None:
        parent, work_before = before
        if (block_id, prev_hash) != (parent.block_id + 1, parent.hash):
            raise ValueError(
                f"block {block_id} ({block_hash}) is no child of block {parent.block_id} ({parent.hash})"
            )
        if chainwork != work_before + own_work:
            raise ValueError(f"block {block_id} ({block_hash}) has another work than its header says")
    return block, chainwork


def check_input(row: Row, blocks: Mapping[int, Block], network: Network) -> Input:
    """Give the input of a row in one of `blocks`.

    Raises ValueError where there is no such block, or the row is not what its raw transaction says.
    """
    block_id, txindex, txid, magics, senders, outputs, fee, raw = row
    where = f"transaction {txindex} ({txid}) of block {block_id}"
    if block_id not in blocks or not 0 < txindex < 2**31:
        raise ValueError(f"{where}: there is no such place, or rows are out of order")
    if not magics or magics != sorted(set(magics)):
        raise ValueError(f"{where}: its magics are not some, in order, each once")
    told_senders, told_outputs = _objects(senders, where), _objects(outputs, where)
    try:
        transaction = read_transaction(raw, network)
        spent = [_spent(sender) for sender in told_senders]
        if len(spent) != len(transaction.inputs):
            raise ValueError(f"it has {len(transaction.inputs)} inputs and {len(spent)} senders")
        candidate = Candidate(txindex, transaction, raw, tuple(magics))
        (found,) = inputs(Scan(blocks[block_id], (candidate,), network), {txindex: spent})
    except (MalformedBlock, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    told = {"txid": txid, "senders": told_senders, "outputs": told_outputs, "fee": fee}
    computed = {
        "txid": found.txid,
        "senders": [sender.as_dict() for sender in found.senders],
        "outputs": [output.as_dict() for output in found.outputs],
        "fee": found.fee,
    }
    for name, value in computed.items():
        if value != told[name]:
            raise ValueError(f"{where}: {name} and the raw transaction beside it do not agree")
    return found


def _objects(text: str, where: str) -> list[Json]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: senders or outputs are no JSON: {error}") from error
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ValueError(f"{where}: senders or outputs are no list of objects")
    return found


def _spent(sender: Json) -> SpentOutput:
    """Give the output that a sender stands for."""
    value, script = sender.get("value"), sender.get("script_pubkey")
    if type(value) is not int or not 0 <= value <= MAX_MONEY or not isinstance(script, str):
        raise ValueError("a sender has no value or no script")
    return SpentOutput(value, bytes.fromhex(script))

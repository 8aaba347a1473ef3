"""The rows of an export's inputs on their way to the database: checked, and written as COPY takes them.

This is for those that `usual_rows.py` leaves. Checking takes thirty times as long as the COPY, so several
processes do it if there are many.
"""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from virtualchain.audit.checking import read_exported_input
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.script import likely_keys
from virtualchain.bitcoin.transaction import pack_outputs, read_inputs
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block, Input, SpentOutput
from virtualchain.transfer.files import Row

COPY_BEGIN: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
"""What PostgreSQL's binary format of COPY begins with: no flags, no extension of the header."""
COPY_END: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_COLUMNS: Final = struct.pack("!h", 11)
_FEW: Final = 500
"""Rows that take less than a tenth of a second."""
_JSONB_VERSION: Final = b"\x01"
_BYTEA, _INT4, _TEXT = 17, 23, 25
"""The types of elements, as PostgreSQL numbers them."""


class Batch(NamedTuple):
    """Rows of inputs, which may be none, and the blocks that they are in, by height."""

    rows: Sequence[Row]
    blocks: Mapping[int, Block]
    network: Network
    start: int
    """The first height that is new: rows below are only checked."""
    is_checked: bool
    """Whether the rows are compared with what can be computed."""


def checked(batch: Batch) -> list[bytes]:
    """Check rows, and return each in the binary format of COPY; raises ValueError for one that is wrong.

    One that is not new is empty.
    """
    read = partial(read_exported_input, blocks=batch.blocks, network=batch.network)
    if not batch.is_checked:
        read = partial(_taken, read)
    return [_binary(item) if item.block_id >= batch.start else b"" for item in map(read, batch.rows)]


def is_short(batch: Batch) -> bool:
    """Check whether a batch is checked before a process would have started."""
    return len(batch.rows) <= _FEW


def _taken(read: Callable[[Row], Input], row: Row) -> Input:
    """Return the input of a row as the row says; `read` checks one of an earlier version."""
    block_id, txindex, txid, magics, senders_text, _, fee, raw, spent_at, tracked_by = row
    try:
        senders = json.loads(senders_text)
        if not all("sighash" in sender for sender in senders):
            return read(row)
        spent = [SpentOutput(sender["value"], bytes.fromhex(sender["script_pubkey"])) for sender in senders]
        unusual = {}
        for n, (spending, output) in enumerate(zip(read_inputs(raw) if txindex else (), spent, strict=True)):
            keys = tuple(senders[n]["public_keys"])
            if keys != likely_keys(output.script_pubkey, spending.script_sig, spending.witness):
                unusual[n] = keys
        return Input(
            block_id=block_id,
            txindex=txindex,
            txid=txid,
            raw=raw,
            magics=tuple(magics),
            senders=(),
            outputs=(),
            fee=fee,
            spent=pack_outputs(spent),
            unusual_keys=unusual,
            evidence="export",
            spent_at=spent_at,
            tracked_by=tuple(tracked_by),
        )
    except (ValueError, TypeError, LookupError, OverflowError, struct.error, MalformedBlock) as error:
        raise ValueError(f"transaction {txindex} ({txid}) of block {block_id}: {error}") from error


def _binary(item: Input) -> bytes:
    """Write an input as `copy_inputs` lists its columns."""
    spent_at = None if item.spent_at is None else [struct.pack("!i", place) for place in item.spent_at]
    fields = (
        struct.pack("!i", item.block_id),
        struct.pack("!i", item.txindex),
        bytes.fromhex(item.txid),
        item.raw,
        _array(_BYTEA, item.magics),
        item.spent,
        _JSONB_VERSION + json.dumps(item.unusual_keys).encode(),
        struct.pack("!q", item.fee),
        None if item.evidence is None else item.evidence.encode(),
        None if spent_at is None else _array(_INT4, spent_at),
        _array(_TEXT, [app.encode() for app in item.tracked_by]) if item.tracked_by else None,
    )
    return _COLUMNS + b"".join(map(_field, fields))


def _field(value: bytes | None) -> bytes:
    return _NULL if value is None else struct.pack("!i", len(value)) + value


def _array(kind: int, items: Sequence[bytes]) -> bytes:
    """Write an array of one dimension, without nulls; an empty one has no dimension."""
    if not items:
        return struct.pack("!iii", 0, 0, kind)
    return struct.pack("!iiiii", 1, 0, kind, len(items), 1) + b"".join(map(_field, items))

"""The rows of an export's inputs on their way to the database: checked, and written as COPY takes them.

Checking takes a hundred times as long as the COPY, so several processes do it.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from virtualchain.audit.checking import read_exported_input
from virtualchain.bitcoin.networks import Network
from virtualchain.model import Block, Input
from virtualchain.transfer.files import Row

COPY_BEGIN: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
"""What PostgreSQL's binary format of COPY begins with: no flags, no extension of the header."""
COPY_END: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_COLUMNS: Final = struct.pack("!h", 11)
_JSONB_VERSION: Final = b"\x01"
_BYTEA, _INT4, _TEXT = 17, 23, 25
"""The types of elements, as PostgreSQL numbers them."""


class Batch(NamedTuple):
    """Rows of inputs, and the blocks that they are in, by height."""

    rows: Sequence[Row]
    blocks: Mapping[int, Block]
    network: Network
    start: int
    """The first height that is new: rows below are only checked."""


def checked(batch: Batch) -> bytes:
    """Check rows, and return them in the binary format of COPY; raises ValueError for one that is wrong."""
    items = (read_exported_input(row, batch.blocks, batch.network) for row in batch.rows)
    return b"".join(_binary(item) for item in items if item.block_id >= batch.start)


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

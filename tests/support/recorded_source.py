"""A source whose blocks are made up around recorded payloads, as the reference network saw them.

The recording has heights, places and payloads, but no transactions. Each payload is therefore put into a
transaction of its own, at the recorded place, that spends output 0 of the recorded transaction id: this is
how a callback knows which recorded transaction it is called for.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from virtualchain.bitcoin.header import HEADER_SIZE, read_header, sha256d
from virtualchain.bitcoin.networks import Network, network
from virtualchain.bitcoin.script import op_return
from virtualchain.bitcoin.source import Tip
from virtualchain.errors import MissingData
from virtualchain.model import Block, SpentOutput
from virtualchain.testing.blocks import make_block
from virtualchain.testing.wire import outpoint, serialize_output

_SCRIPT = b"\x51"
_BITS = 0x207FFFFF
"""The target of regtest."""
_FILLER = {"txid": "ff" * 32, "nulldata": None}


class RecordedSource:
    """Serves the recorded `blocks` (`height`, `txs`), after an empty block if they start above height 0."""

    def __init__(self, blocks: Sequence[Mapping[str, Any]]) -> None:
        self._chain: dict[int, Block] = {}
        self._raw: dict[str, bytes] = {}
        first = blocks[0]["height"]
        leading = [{"height": first - 1, "txs": []}] if first else []
        self._tip = Block(first - len(leading) - 1, "00" * 32, "", "", 0, _BITS, b"")
        for block in [*leading, *blocks]:
            self._add(block["txs"])
        self.network: Network = replace(network("regtest"), genesis_hash=next(iter(self._raw)))

    def _add(self, txs: Sequence[Mapping[str, Any]]) -> None:
        recorded = {tx["txindex"]: tx for tx in txs}
        places = range(1, max(recorded, default=0) + 1)
        bodies = [_transaction(place, recorded.get(place, _FILLER)) for place in places]
        raw, _ = make_block(self._tip, [(body, sha256d(body)) for body in bodies], _SCRIPT, 50 * 10**8)
        self._tip = read_header(self._tip.block_id + 1, raw[:HEADER_SIZE])
        self._chain[self._tip.block_id] = self._tip
        self._raw[self._tip.hash] = raw

    def tip(self) -> Tip:
        """Return the last block."""
        return Tip(self._tip.block_id, self._tip.hash)

    def block_hash(self, block_id: int) -> str:
        """Return the hash of the block at a height."""
        if block_id not in self._chain:
            raise MissingData(f"nothing was recorded at {block_id}")
        return self._chain[block_id].hash

    def headers_after(self, block_id: int, block_hash: str) -> list[Block] | None:
        """Return up to 50 headers after a block."""
        block = self._chain.get(block_id)
        if block is None or block.hash != block_hash:
            return None
        last = min(block_id + 50, self._tip.block_id)
        return [self._chain[height] for height in range(block_id + 1, last + 1)]

    def is_invalid(self, block_id: int, block_hash: str) -> bool:
        """Return False: no block is invalid."""
        return False

    def raw_block(self, block_hash: str) -> bytes:
        """Return a block's bytes."""
        return self._raw[block_hash]

    def spent_outputs(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Return the one output that each transaction spends."""
        return dict.fromkeys(transactions, (SpentOutput(1_000, _SCRIPT),))

    def wait(self, timeout: float) -> None:
        """Return at once, as no block will come."""

    def wake(self) -> None:
        """Do nothing, as there is no wait to end."""

    def close(self) -> None:
        """Do nothing, as there is nothing to release."""


def _transaction(place: int, tx: Mapping[str, Any]) -> bytes:
    """Serialize a transaction that spends output 0 of the recorded one and carries its payload."""
    outputs = [serialize_output(900, _SCRIPT)]
    if tx["nulldata"] is not None:
        outputs.append(serialize_output(0, op_return(bytes.fromhex(tx["nulldata"]))))
    return b"".join(
        [
            struct.pack("<i", 2),
            b"\1" + outpoint(tx["txid"], 0) + b"\0" + b"\xff" * 4,
            bytes([len(outputs)]) + b"".join(outputs),
            struct.pack("<I", place),  # the lock time makes fillers differ
        ]
    )

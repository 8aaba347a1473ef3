"""A source of blocks that are made up around recorded transactions, in memory.

Each transaction stands at its recorded place, with harmless ones in front of it, and each block on the one
before. What a transaction spends is looked up where the spent transaction was recorded, and follows from
how it is spent where it was not (`names.md` §1).
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.script import pushes
from virtualchain.bitcoin.source import Tip
from virtualchain.bitcoin.transaction import read_inputs, read_outputs
from virtualchain.consensus.hashing import hash160, sha256d
from virtualchain.errors import MissingData
from virtualchain.model import Block, SpentOutput, TxIn
from virtualchain.testing.blocks import make_block
from virtualchain.testing.wire import outpoint, serialize_output

_BITS: Final = 0x207FFFFF
"""The target of regtest."""
_SCRIPT: Final = bytes.fromhex("0014") + bytes(20)
_HEADERS_AT_ONCE: Final = 200

Placed = Mapping[int, bytes]
"""Raw transactions by their places in a block."""


@dataclass(frozen=True, slots=True)
class _Made:
    block: Block
    raw: bytes
    transactions: tuple[bytes, ...]
    """From place 1 on."""


class RecordedSource:
    """Serves one chain at a time, behind an empty block at `first - 1`; `show` changes which.

    `known` are the raw transactions that others may spend, by their ids.
    """

    def __init__(self, first: int, known: Mapping[str, bytes], network: Network) -> None:
        self.network = network
        self._known = known
        self._outputs: dict[str, list[SpentOutput]] = {}
        self._made: dict[str, _Made] = {}
        before = Block(first - 2, "00" * 32, "", "", 0, _BITS, b"")
        self.base = self._make(before, {}, b"")
        self._active: tuple[Block, ...] = (self.base,)

    def make_branch(self, parent: Block, contents: Iterable[Placed], tag: bytes = b"") -> list[Block]:
        """Make blocks behind `parent`; another `tag` makes other blocks of the same contents."""
        branch = []
        for placed in contents:
            parent = self._make(parent, placed, tag)
            branch.append(parent)
        return branch

    def show(self, chain: Iterable[Block]) -> None:
        """Make a chain the active one; it starts behind the base."""
        self._active = (self.base, *chain)

    def _make(self, parent: Block, placed: Placed, tag: bytes) -> Block:
        bodies = tuple(placed.get(place) or _filler(place) for place in range(1, max(placed, default=0) + 1))
        spending = [(raw, bytes.fromhex(read_outputs(raw)[0])[::-1]) for raw in bodies]
        raw, _ = make_block(parent, spending, _SCRIPT, 50 * 10**8, tag)
        block = read_header(parent.block_id + 1, raw[:HEADER_SIZE])
        self._made[block.hash] = _Made(block, raw, bodies)
        return block

    # What the engine asks for.

    def __str__(self) -> str:
        return "a recorded scenario"

    def tip(self) -> Tip:
        """Tell the active chain's last block."""
        return Tip(self._active[-1].block_id, self._active[-1].hash)

    def block_hash(self, block_id: int) -> str:
        """Tell the active block at a height."""
        place = block_id - self.base.block_id
        if not 0 <= place < len(self._active):
            raise MissingData(f"the scenario has no block {block_id}")
        return self._active[place].hash

    def headers_after(self, block_id: int, block_hash: str) -> list[Block] | None:
        """Give the headers behind an active block."""
        place = block_id - self.base.block_id
        if not 0 <= place < len(self._active) or self._active[place].hash != block_hash:
            return None
        return list(self._active[place + 1 : place + 1 + _HEADERS_AT_ONCE])

    def is_invalid(self, block_id: int, block_hash: str) -> bool:  # noqa: ARG002 - none is
        """Call no branch invalid."""
        return False

    def raw_block(self, block_hash: str) -> bytes:
        """Give a block's bytes."""
        return self._made[block_hash].raw

    def spent_outputs(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Give what transactions spend, as far as it was recorded or shows."""
        made = self._made[block_hash]
        return {txindex: self._spent(made.transactions[txindex - 1]) for txindex in transactions}

    def wait(self, timeout: float) -> None:
        """Wait for nothing: no block will come by itself."""

    def wake(self) -> None:
        """There is no wait to end."""

    def close(self) -> None:
        """There is nothing to let go of."""

    def _spent(self, raw: bytes) -> list[SpentOutput]:
        # Where the amount is unknown, the first of such inputs pays for all outputs: there is no fee then.
        unknown = sum(output.value for output in read_outputs(raw)[1])
        spent = []
        for spending in read_inputs(raw):
            found = self._recorded(spending)
            if found is None:
                found, unknown = SpentOutput(unknown, script_from(spending)), 0
            spent.append(found)
        return spent

    def _recorded(self, spending: TxIn) -> SpentOutput | None:
        if spending.txid not in self._known:
            return None
        if spending.txid not in self._outputs:
            self._outputs[spending.txid] = read_outputs(self._known[spending.txid])[1]
        outputs = self._outputs[spending.txid]
        return outputs[spending.vout] if spending.vout < len(outputs) else None


def script_from(spending: TxIn) -> bytes:
    """Give the script that an input seems to spend; empty where its form says nothing.

    A signature and a key spend p2pkh; what starts with OP_0 spends p2sh with the script pushed last.
    """
    script_sig = bytes.fromhex(spending.script_sig)
    pushed = pushes(script_sig)
    if len(pushed) == 2 and len(pushed[1]) in {33, 65}:
        return b"\x76\xa9\x14" + hash160(pushed[1]) + b"\x88\xac"
    if script_sig[:1] == b"\0":
        return b"\xa9\x14" + hash160(pushed[-1]) + b"\x87"
    return b""


def _filler(place: int) -> bytes:
    """Make a transaction that is nobody's input, another one at each place."""
    parent = sha256d(b"filler %d" % place).hex()
    return b"".join(
        [
            struct.pack("<i", 2),
            b"\1" + outpoint(parent, 0) + b"\0" + b"\xff" * 4,
            b"\1" + serialize_output(900, _SCRIPT),
            struct.pack("<I", place),
        ]
    )

"""A source of blocks that are made in memory from recorded transactions.

Each transaction is at its recorded txindex; filler transactions take the positions before it. A spent output
is looked up if its transaction was recorded, and otherwise inferred from how it is spent.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.bitcoin.networks import Network, with_easy_work
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

PlacedTxs = Mapping[int, bytes]
"""Raw transactions by txindex."""


@dataclass(frozen=True, slots=True)
class _MadeBlock:
    block: Block
    raw: bytes
    transactions: tuple[bytes, ...]
    """From txindex 1 on."""


class RecordedSource:
    """Serves one chain at a time, on top of an empty block at `first - 1`; `activate` switches the chain.

    `known` are raw transactions that others may spend, by txid.
    """

    def __init__(self, first: int, known: Mapping[str, bytes], network: Network) -> None:
        self.network = with_easy_work(network)
        self._known = known
        self._outputs: dict[str, Sequence[SpentOutput]] = {}
        self._made: dict[str, _MadeBlock] = {}
        before = Block(first - 2, "00" * 32, "", "", 0, _BITS, b"")
        self.base = self._make(before, {}, b"")
        self._active: tuple[Block, ...] = (self.base,)

    def make_branch(self, parent: Block, contents: Iterable[PlacedTxs], tag: bytes = b"") -> list[Block]:
        """Make blocks on top of `parent`; a different `tag` makes different blocks of the same contents."""
        branch = []
        for placed in contents:
            parent = self._make(parent, placed, tag)
            branch.append(parent)
        return branch

    def activate(self, chain: Iterable[Block]) -> None:
        """Make a chain, which starts on top of the base, the active one."""
        self._active = (self.base, *chain)

    def _make(self, parent: Block, placed: PlacedTxs, tag: bytes) -> Block:
        last = max(placed, default=0)
        bodies = tuple(placed.get(txindex) or _filler(txindex) for txindex in range(1, last + 1))
        spending = [(raw, bytes.fromhex(read_outputs(raw)[0])[::-1]) for raw in bodies]
        raw, _ = make_block(parent, spending, _SCRIPT, 50 * 10**8, tag)
        block = read_header(parent.block_id + 1, raw[:HEADER_SIZE])
        self._made[block.hash] = _MadeBlock(block, raw, bodies)
        return block

    # The engine's interface.

    def __str__(self) -> str:
        return "a recorded scenario"

    def tip(self) -> Tip:
        """Return the last block of the active chain."""
        return Tip(self._active[-1].block_id, self._active[-1].hash)

    def block_hash(self, block_id: int) -> str:
        """Return the hash of the active chain's block at a height."""
        index = block_id - self.base.block_id
        if not 0 <= index < len(self._active):
            raise MissingData(f"the scenario has no block {block_id}")
        return self._active[index].hash

    def headers_after(self, block_id: int, block_hash: str) -> list[Block] | None:
        """Return the headers after a block of the active chain; None if it is not on that chain."""
        index = block_id - self.base.block_id
        if not 0 <= index < len(self._active) or self._active[index].hash != block_hash:
            return None
        return list(self._active[index + 1 : index + 1 + _HEADERS_AT_ONCE])

    def is_invalid(self, block_id: int, block_hash: str) -> bool:  # noqa: ARG002 - none is
        """Return False: no branch is invalid."""
        return False

    def raw_block(self, block_hash: str) -> bytes:
        """Return a serialized block."""
        return self._made[block_hash].raw

    def spent_outputs(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Return the outputs that transactions spend, as far as they were recorded or can be inferred."""
        made = self._made[block_hash]
        return {txindex: self._spent_by(made.transactions[txindex - 1]) for txindex in transactions}

    def wait(self, timeout: float) -> None:
        """Return at once: no block will arrive on its own."""

    def wake(self) -> None:
        """Do nothing: there is no wait to end."""

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _spent_by(self, raw: bytes) -> list[SpentOutput]:
        # If amounts are unknown, the first such input pays for all outputs, and there is no fee.
        unknown_amount = sum(output.value for output in read_outputs(raw)[1])
        spent = []
        for spending in read_inputs(raw):
            output = self._recorded_output(spending)
            if output is None:
                output, unknown_amount = SpentOutput(unknown_amount, _inferred_script(spending)), 0
            spent.append(output)
        return spent

    def _recorded_output(self, spending: TxIn) -> SpentOutput | None:
        if spending.txid not in self._known:
            return None
        if spending.txid not in self._outputs:
            self._outputs[spending.txid] = read_outputs(self._known[spending.txid])[1]
        outputs = self._outputs[spending.txid]
        return outputs[spending.vout] if spending.vout < len(outputs) else None


def _inferred_script(spending: TxIn) -> bytes:
    """Infer the script that an input spends; empty if its form does not show it.

    A signature and a key spend p2pkh. An input script that starts with OP_0 spends p2sh; its last push is the
    redeem script.
    """
    script_sig = spending.script_sig
    pushed = pushes(script_sig)
    if len(pushed) == 2 and len(pushed[1]) in {33, 65}:
        return b"\x76\xa9\x14" + hash160(pushed[1]) + b"\x88\xac"
    if script_sig[:1] == b"\0":
        return b"\xa9\x14" + hash160(pushed[-1]) + b"\x87"
    return b""


def _filler(txindex: int) -> bytes:
    """Make a transaction without a payload, different for each txindex."""
    parent = sha256d(b"filler %d" % txindex).hex()
    return b"".join(
        [
            struct.pack("<i", 2),
            b"\1" + outpoint(parent, 0) + b"\0" + b"\xff" * 4,
            b"\1" + serialize_output(900, _SCRIPT),
            struct.pack("<I", txindex),
        ]
    )

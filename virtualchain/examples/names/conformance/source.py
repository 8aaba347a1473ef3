"""A source of blocks that are made in memory from recorded transactions.

Each transaction is at its recorded txindex; filler transactions take the positions before it. A spent output
is looked up if its transaction was recorded, and otherwise inferred from how it is spent.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Final

from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.script import pushes
from virtualchain.bitcoin.transaction import read_inputs, read_outputs
from virtualchain.consensus.hashing import hash160, sha256d
from virtualchain.model import Block, SpentOutput, TxIn
from virtualchain.testing.blocks import make_block
from virtualchain.testing.conformance.source import MadeBlock, RecordedSource
from virtualchain.testing.wire import outpoint, serialize_output

_SCRIPT: Final = bytes.fromhex("0014") + bytes(20)

PlacedTxs = Mapping[int, bytes]
"""Raw transactions by txindex."""


class RegistrySource(RecordedSource[PlacedTxs]):
    """Serves recorded transactions; `known` are raw ones that others may spend, by txid."""

    def __init__(self, first: int, known: Mapping[str, bytes], network: Network) -> None:
        self._known = known
        self._outputs: dict[str, Sequence[SpentOutput]] = {}
        super().__init__(first, network, {})

    def make(self, parent: Block, content: PlacedTxs, tag: bytes) -> bytes:
        """Make a block of transactions at their places."""
        spending = [(raw, bytes.fromhex(read_outputs(raw)[0])[::-1]) for raw in _transactions(content)]
        raw, _ = make_block(parent, spending, _SCRIPT, 50 * 10**8, tag)
        return raw

    def spent_by(self, made: MadeBlock[PlacedTxs], txindex: int) -> Sequence[SpentOutput]:
        """Return the outputs that a transaction spends, as far as they were recorded or can be inferred."""
        return self.spent_of(_transaction(made.content, txindex))

    def spent_of(self, raw: bytes) -> list[SpentOutput]:
        """Return the outputs that a serialized transaction spends."""
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


def _transactions(content: PlacedTxs) -> list[bytes]:
    """Return a block's transactions from txindex 1 on."""
    return [_transaction(content, txindex) for txindex in range(1, max(content, default=0) + 1)]


def _transaction(content: PlacedTxs, txindex: int) -> bytes:
    return content.get(txindex) or _filler(txindex)


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

"""A source of recorded blocks, byte for byte but for the header, and of what their inputs spend."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final

from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.transaction import read_inputs, read_outputs
from virtualchain.errors import MissingData
from virtualchain.examples.runes.conformance.scenario import Prevout, RecordedBlock
from virtualchain.model import Block, SpentOutput, SpentOutputs
from virtualchain.testing.blocks import bare_coinbase, make_header, merkle_root
from virtualchain.testing.conformance.source import BITS, MadeBlock, RecordedSource
from virtualchain.testing.wire import compact_size

_VERSION: Final = 0x20000000


class RunesSource(RecordedSource[RecordedBlock]):
    """Serves recorded blocks; `known` is what any block's inputs spend, for rival blocks that mix them."""

    def __init__(self, first: int, network_name: str, known: Mapping[tuple[str, int], Prevout]) -> None:
        self._known = known
        super().__init__(first, network(network_name), empty_block(first - 1))

    def make(self, parent: Block, content: RecordedBlock, tag: bytes) -> bytes:
        """Make a block with the recorded transactions and time; the tag is in its version."""
        txids = [bytes.fromhex(read_outputs(raw)[0])[::-1] for raw in content.txs]
        version = _VERSION | (int.from_bytes(sha256(tag).digest()[:2], "little") if tag else 0)
        header = make_header(parent, merkle_root(txids), content.time, BITS, version)
        return b"".join([header, compact_size(len(content.txs)), *content.txs])

    def spent_by(self, made: MadeBlock[RecordedBlock], txindex: int) -> Sequence[SpentOutput]:
        """Return the outputs that a transaction spends, as they were recorded with its block."""
        block = made.content
        spent = []
        for spending in read_inputs(block.txs[txindex]):
            outpoint = spending.txid, spending.vout
            output = block.prevouts.get(outpoint) or self._known.get(outpoint)
            if output is None:
                raise MissingData(f"block {block.height} has no prevout {spending.txid}:{spending.vout}")
            spent.append(SpentOutput(output.value, output.script, 2 * output.height))
        return spent

    def spent_outputs(self, block_hash: str, transactions: Mapping[int, str]) -> SpentOutputs:
        """Return the outputs that transactions spend; recorded ones are not signed."""
        return SpentOutputs(super().spent_outputs(block_hash, transactions), are_signed=False)


def empty_block(height: int, time: int = 0) -> RecordedBlock:
    """Make a block without anything to spend."""
    return RecordedBlock(height, time, (bare_coinbase(height),), {})


def rival_of(block: RecordedBlock, txs: Iterable[bytes]) -> RecordedBlock:
    """Make a block with the coinbase of a recorded one and other transactions."""
    return RecordedBlock(block.height, block.time, (block.txs[0], *txs), block.prevouts)

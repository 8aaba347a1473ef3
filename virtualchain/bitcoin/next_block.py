"""The next block, made up: the one that a miner would make of some transactions on top of a chain.

It is for whoever wants to know what would come of them. It has no proof of work, and its hash means nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from virtualchain.bitcoin.header import HEADER_SIZE, read_header, sha256d
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.script import push, push_height
from virtualchain.bitcoin.source import BlockSource, CoinSource, Tip
from virtualchain.bitcoin.transaction import read_inputs, read_outputs, write_count
from virtualchain.errors import MissingData
from virtualchain.model import Block, SpentOutput, SpentOutputs

Outpoint = tuple[str, int]
"""An output: txid and number."""

_VERSION: Final = (0x20000000).to_bytes(4, "little")
_ANYONE_CAN_SPEND: Final = b"\x51"


class NextBlock:
    """One made-up block on top of `parent`, as a `BlockSource` that has nothing else.

    `spent` are outputs that its transactions spend; for others, `source` is asked.
    """

    def __init__(
        self,
        parent: Block,
        time: int,
        raws: Sequence[bytes],
        network: Network,
        *,
        spent: Mapping[Outpoint, SpentOutput],
        source: BlockSource | None = None,
    ) -> None:
        block_id = parent.block_id + 1
        transactions = [_coinbase(block_id), *raws]
        root = sha256d(b"".join(map(sha256d, transactions)))  # of no block, so that nothing may rely on it
        body = write_count(len(transactions)) + b"".join(transactions)
        start = _VERSION + bytes.fromhex(parent.hash)[::-1]
        header = start + root + time.to_bytes(4, "little") + parent.bits.to_bytes(4, "little") + bytes(4)
        self._raw = header + body
        self.block = read_header(block_id, self._raw[:HEADER_SIZE])
        self._network = network
        self._raws = transactions
        self._source = source
        self._spent = dict(spent)
        for raw in raws:
            txid, outputs = read_outputs(raw)
            for vout, output in enumerate(outputs):
                self._spent[txid, vout] = output

    def __str__(self) -> str:
        return "the next block"

    @property
    def network(self) -> Network:
        """The network that the transactions are for."""
        return self._network

    def tip(self) -> Tip:
        """Return the block."""
        return Tip(self.block.block_id, self.block.hash)

    def block_hash(self, block_id: int) -> str:
        """Return the block's hash; raises MissingData at any other height."""
        if block_id != self.block.block_id:
            raise MissingData(f"the next block is block {self.block.block_id}, not {block_id}")
        return self.block.hash

    def headers_after(self, block_id: int, block_hash: str) -> list[Block] | None:  # noqa: ARG002 - a hash says it
        """Return the block's header after its parent, and none after the block."""
        known = {self.block.prev_hash: [self.block], self.block.hash: []}
        return known.get(block_hash)

    def is_invalid(self, block_id: int, block_hash: str) -> bool:  # noqa: ARG002 - nobody has checked it
        """Return False."""
        return False

    def wait(self, timeout: float) -> None:
        """Do nothing: nothing changes."""

    def wake(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: the source that is asked belongs to others."""

    def raw_block(self, block_hash: str) -> bytes:
        """Return the block's bytes."""
        assert block_hash == self.block.hash, "it knows one block"
        return self._raw

    def spent_outputs(
        self,
        block_hash: str,  # noqa: ARG002 - it knows one block
        transactions: Mapping[int, str],
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Return what some of its transactions spend; raises MissingData if nobody knows that."""
        spends = {
            txindex: [(item.txid, item.vout) for item in read_inputs(self._raws[txindex])]
            for txindex in transactions
        }
        self._ask({output for outputs in spends.values() for output in outputs})
        coins = {
            txindex: [self._coin(transactions[txindex], output) for output in outputs]
            for txindex, outputs in spends.items()
        }
        return SpentOutputs(coins, are_signed=False)

    spent_outputs_with_heights = spent_outputs

    def _ask(self, outputs: Collection[Outpoint]) -> None:
        missing = [output for output in outputs if output not in self._spent]
        if missing and self._source is not None and isinstance(self._source, CoinSource):
            self._spent.update(self._source.coins(missing))

    def _coin(self, txid: str, output: Outpoint) -> SpentOutput:
        if output not in self._spent:
            unknown = "is not known here" if self._source is None else f"is not known to {self._source}"
            raise MissingData(
                f"transaction {txid} spends output {output[1]} of {output[0]}, which {unknown}: it may be "
                "spent already, or never have been made"
            )
        coin = self._spent[output]
        return coin if coin.made_at is not None else coin._replace(made_at=2 * self.block.block_id)


def _coinbase(block_id: int) -> bytes:
    unlocking = push_height(block_id) + push(b"next")
    spends = bytes(32) + b"\xff" * 4 + write_count(len(unlocking)) + unlocking + b"\xff" * 4
    pays = bytes(8) + write_count(len(_ANYONE_CAN_SPEND)) + _ANYONE_CAN_SPEND
    return b"\x02\0\0\0\x01" + spends + b"\x01" + pays + bytes(4)

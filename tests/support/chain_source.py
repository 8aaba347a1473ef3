"""A source that serves branches of a made-up chain from memory, and may change between two questions."""

from collections.abc import Callable, Mapping, Sequence

from virtualchain.bitcoin.source import Tip
from virtualchain.errors import MissingData
from virtualchain.model import Block, SpentOutput
from virtualchain.testing import ChainBuilder
from virtualchain.testing.tree import StoredBlock
from virtualchain.testing.undo import read_undo


class ChainSource:
    """Serves one chain of blocks; `chain` may be replaced at any time, by `asked` for example.

    `asked` is called with each question, and `page` is how many headers an answer holds.
    """

    def __init__(self, builder: ChainBuilder, chain: Sequence[StoredBlock] | None = None) -> None:
        self.network = builder.network
        self.builder = builder
        self.page = 200
        self.asked: Callable[[str], object] = lambda _: None
        self.chain = list(builder.tree.chain if chain is None else chain)
        self._known = {stored.block.hash: stored for stored in self.chain}

    def __str__(self) -> str:
        return "a made-up chain"

    def tip(self) -> Tip:
        """Return the last block."""
        self.asked("tip")
        return Tip(self.chain[-1].height, self.chain[-1].block.hash)

    def block_hash(self, block_id: int) -> str:
        """Return the hash of the block at a height."""
        self.asked("block_hash")
        if not 0 <= block_id < len(self.chain):
            raise MissingData(f"there is no block {block_id}")
        return self.chain[block_id].block.hash

    def headers_after(self, block_id: int, block_hash: str) -> list[Block] | None:
        """Return the headers after a block; None if it is not on the chain."""
        self.asked("headers_after")
        if not 0 <= block_id < len(self.chain) or self.chain[block_id].block.hash != block_hash:
            return None
        return [stored.block for stored in self.chain[block_id + 1 : block_id + 1 + self.page]]

    def is_invalid(self, block_id: int, block_hash: str) -> bool:
        """Return False: no block is invalid."""
        self.asked("is_invalid")
        return False

    def raw_block(self, block_hash: str) -> bytes:
        """Return a block's bytes, on any branch."""
        self.asked("raw_block")
        return self._stored(block_hash).raw

    def spent_outputs(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Return what some transactions of a block spend."""
        undo = self.builder.undo(self._stored(block_hash))
        assert undo is not None
        coins = read_undo(undo)
        return {at: tuple(SpentOutput(coin.value, coin.script) for coin in coins[at]) for at in transactions}

    def wait(self, timeout: float) -> None:
        """Return at once."""

    def wake(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def _stored(self, block_hash: str) -> StoredBlock:
        stored = self._known.get(block_hash) or self.builder.tree.find(block_hash)
        assert stored is not None
        return stored

"""A source of recorded blocks, which are made in memory: one chain at a time is active."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.bitcoin.networks import Network, with_easy_work
from virtualchain.bitcoin.source import Tip
from virtualchain.errors import MissingData
from virtualchain.model import Block, SpentOutput

C = TypeVar("C")
"""What a block is made from."""

BITS: Final = 0x207FFFFF
"""The target of regtest."""
_HEADERS_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True)
class MadeBlock(Generic[C]):
    """A block, its bytes, and what it was made from."""

    block: Block
    raw: bytes
    content: C


class RecordedSource(ABC, Generic[C]):
    """Serves one chain at a time, on top of an empty block at `first - 1`; `activate` switches the chain."""

    def __init__(self, first: int, network: Network, nothing: C) -> None:
        """Make the block below the first one from `nothing`."""
        self.network = with_easy_work(network)
        self._made: dict[str, MadeBlock[C]] = {}
        self._invalid: frozenset[str] = frozenset()
        self.base = self._make(Block(first - 2, "00" * 32, "", "", 0, BITS, b""), nothing, b"")
        self._active: tuple[Block, ...] = (self.base,)

    @abstractmethod
    def make(self, parent: Block, content: C, tag: bytes) -> bytes:
        """Make the block after `parent`; a different `tag` makes a different block of the same content."""

    @abstractmethod
    def spent_by(self, made: MadeBlock[C], txindex: int) -> Sequence[SpentOutput]:
        """Return the outputs that a transaction of a block spends."""

    def make_branch(self, parent: Block, contents: Iterable[C], tag: bytes = b"") -> list[Block]:
        """Make blocks on top of `parent`."""
        branch = []
        for content in contents:
            parent = self._make(parent, content, tag)
            branch.append(parent)
        return branch

    def activate(self, chain: Iterable[Block], *, invalidate: bool = False) -> None:
        """Make a chain, which starts on top of the base, the active one.

        With `invalidate`, the blocks that leave the active chain are invalid: they are given up even for a
        chain with less work.
        """
        left, self._active = self._active, (self.base, *chain)
        active = {block.hash for block in self._active}
        self._invalid -= active
        if invalidate:
            self._invalid |= {block.hash for block in left} - active

    def _make(self, parent: Block, content: C, tag: bytes) -> Block:
        raw = self.make(parent, content, tag)
        block = read_header(parent.block_id + 1, raw[:HEADER_SIZE])
        self._made[block.hash] = MadeBlock(block, raw, content)
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

    def is_invalid(self, block_id: int, block_hash: str) -> bool:  # noqa: ARG002 - the hash says it all
        """Return whether a block was given up as invalid."""
        return block_hash in self._invalid

    def raw_block(self, block_hash: str) -> bytes:
        """Return a serialized block."""
        return self._made[block_hash].raw

    def spent_outputs(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Return the outputs that transactions spend."""
        made = self._made[block_hash]
        return {txindex: self.spent_by(made, txindex) for txindex in transactions}

    def wait(self, timeout: float) -> None:
        """Return at once: no block will arrive on its own."""

    def wake(self) -> None:
        """Do nothing: there is no wait to end."""

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

"""What the engine needs of a chain, whatever gives it: a node, or its files.

A source answers questions about the chain as it stands now and remembers nothing of earlier answers.
Every answer may be out of date a moment later; what is appended to the tape stands on its parent's hash,
so a stale answer costs another look and never correctness.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from virtualchain.bitcoin.networks import Network
from virtualchain.model import Block, SpentOutput


@dataclass(frozen=True, slots=True)
class Tip:
    """The last block of the chain that the source calls active."""

    block_id: int
    hash: str


class BlockSource(Protocol):
    """A place that Bitcoin blocks come from; safe to use from several threads at once.

    `str` of it is what messages call it: an address without a password, or a path.

    Hashes and transaction ids are lower-case hex in display order. Every method may raise NodeUnavailable,
    after a few attempts of its own, where a later attempt may succeed, and NodeError where none will.
    """

    @property
    def network(self) -> Network:
        """The network that the source is on; its genesis block was compared."""
        ...

    def tip(self) -> Tip:
        """Tell the active chain's last block."""
        ...

    def block_hash(self, block_id: int) -> str:
        """Tell which block is active at a height; raises MissingData above the tip."""
        ...

    def headers_after(self, block_id: int, block_hash: str) -> list[Block] | None:
        """Give the headers that follow a block on the active chain, oldest first.

        At most 2,000, often fewer: ask again after the last one. An empty list means that the block is the
        tip, None that it is not on the active chain or unknown. Each header names its predecessor as parent.
        """
        ...

    def is_invalid(self, block_id: int, block_hash: str) -> bool:
        """Tell whether the source calls the branch that holds this block invalid.

        Only worth asking of a block that left the active chain. False where the source cannot say.
        """
        ...

    def raw_block(self, block_hash: str) -> bytes:
        """Give a block's bytes, whose header has this very hash; raises MissingData, MalformedBlock."""
        ...

    def spent_outputs(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Give the outputs that some transactions of a block spend: by txindex, one per input, in order.

        `transactions` maps txindex to txid. Raises MissingData where a single spent output is not known:
        none is ever left out or made up.
        """
        ...

    def wait(self, timeout: float) -> None:
        """Sleep until something may have changed: at most `timeout` seconds, less after `wake`."""
        ...

    def wake(self) -> None:
        """End the present or the next `wait`; may be called from another thread or a signal handler."""
        ...

    def close(self) -> None:
        """Let go of the connections; the source is of no use afterwards."""
        ...

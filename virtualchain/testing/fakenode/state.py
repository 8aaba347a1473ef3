"""The state that the fake node answers from: its chain, and what it has pruned or not downloaded yet."""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from threading import Condition
from time import monotonic
from types import TracebackType
from typing import Final

from virtualchain.model import Json
from virtualchain.testing.blocks import target
from virtualchain.testing.chain import ChainBuilder
from virtualchain.testing.fakenode.results import difficulty, median_time
from virtualchain.testing.tree import StoredBlock
from virtualchain.testing.undo import Undo
from virtualchain.testing.wire import read_block

_SIGNET_CHALLENGE: Final = (
    "512103ad5e0edad18cb1f0fc0d28a3d4f1f3e445640337489abb10404f2d1e086be430"
    "210359ef5021964fe22d6f8e05b2463c9540ce96883fe3b278760f048f5189f2e6c452ae"
)
"""The public signet's."""
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")


class ChainLock(Condition):
    """Held while the chain changes or is read; whoever releases it lets the waiting requests look again."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.notify_all()
        super().__exit__(kind, error, trace)


@dataclass(slots=True)
class NodeState:
    """A node as its interfaces see it."""

    chain: ChainBuilder
    pruned_below: int = 0
    """Blocks below this height are gone, and so is their undo data."""
    txindex: bool = False
    """Whether it finds the transactions of its chain by their ids alone."""
    syncing: bool = False
    """Whether it reports that it is in initial block download."""
    started: float = field(default_factory=monotonic)
    confused: bool = False
    """Whether it confuses a block with its parent, and the genesis block with the tip."""
    lock: ChainLock = field(default_factory=ChainLock)
    ending: threading.Event = field(default_factory=threading.Event)
    """Set while the node shuts down, which ends the requests that wait for a block."""

    _places: dict[str, dict[bytes, tuple[int, int]]] = field(default_factory=dict, repr=False)

    def places(self, stored: StoredBlock) -> Mapping[bytes, tuple[int, int]]:
        """Return the position in a block of each of its transactions, and the offset at which it starts."""
        known = self._places.get(stored.block.hash)
        if known is None:
            transactions = read_block(stored.plain)
            at = len(stored.plain) - sum(len(tx.raw) for tx in transactions)
            starts = accumulate((len(tx.raw) for tx in transactions), initial=at)
            known = {tx.txid: (n, next(starts)) for n, tx in enumerate(transactions)}
            self._places[stored.block.hash] = known
        return known

    def find(self, block_hash: str) -> StoredBlock | None:
        """Return the block with this hash."""
        stored = self.chain.tree.find(block_hash.lower())
        if stored is not None and self.confused:
            return stored.parent or self.chain.tree.tip
        return stored

    def has(self, stored: StoredBlock) -> bool:
        """Check whether the node still has a block's bytes."""
        return stored.height >= self.pruned_below

    def undo(self, stored: StoredBlock) -> Undo | None:
        """Return what a block spends, None if the node does not have it."""
        # The genesis block spends nothing, which is known without undo data.
        return self.chain.undo(stored) if stored.parent is None or self.has(stored) else None

    def wait_until(self, is_reached: Callable[[], bool], milliseconds: int) -> Json:
        """Release the lock until something is reached, or the time (0: unlimited) is over; return the tip."""
        self.lock.wait_for(lambda: is_reached() or self.ending.is_set(), milliseconds / 1000 or None)
        return {"hash": self.chain.tip, "height": self.chain.height}

    def chain_info(self) -> Json:
        """Return the result of `getblockchaininfo`."""
        tree = self.chain.tree
        tip = tree.tip
        info: Json = {
            "chain": tree.network.chain,
            "blocks": tip.height,
            "headers": tip.height,
            "bestblockhash": tip.block.hash,
            "bits": f"{tip.block.bits:08x}",
            "target": f"{target(tip.block.bits):064x}",
            "difficulty": difficulty(tip.block.bits),
            "time": tip.block.time,
            "mediantime": median_time(tip),
            "verificationprogress": 0.5 if self.syncing else 1,
            "initialblockdownload": self.syncing,
            "chainwork": f"{tip.chainwork:064x}",
            "size_on_disk": sum(len(stored.raw) for stored in tree.chain if self.has(stored)),
            "pruned": bool(self.pruned_below),
        }
        if self.pruned_below:
            info |= {"pruneheight": self.pruned_below, "automatic_pruning": False}
        if tree.network.name == "signet":
            info["signet_challenge"] = _SIGNET_CHALLENGE
        return info | {"warnings": []}


def is_hash(text: str) -> bool:
    """Check whether a string is a hash in hex."""
    return _HASH.fullmatch(text) is not None

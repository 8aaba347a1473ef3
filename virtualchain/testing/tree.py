"""The blocks that a node knows, side branches included, and which of them it calls its chain."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.networks import Network
from virtualchain.errors import UsageError
from virtualchain.model import Block
from virtualchain.testing.blocks import genesis_block, work
from virtualchain.testing.undo import Undo
from virtualchain.testing.wire import HEADER_SIZE, read_compact_size


@dataclass(eq=False, slots=True)
class StoredBlock:
    """A block as the node keeps it."""

    block: Block
    raw: bytes
    parent: "StoredBlock | None"
    chainwork: int
    """Work of all blocks up to this one, the genesis block included."""
    order: int
    """When the node got it: a later block has a higher number."""
    undo: Undo | None = None
    """What its transactions spend, once it is known."""
    invalid: bool = False

    @property
    def height(self) -> int:
        """Give the block's height."""
        return self.block.block_id

    @property
    def transactions(self) -> int:
        """Give how many transactions it holds, the coinbase included."""
        return read_compact_size(self.raw, HEADER_SIZE)[0]


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of a branch, as `getchaintips` tells it."""

    stored: StoredBlock
    branch_length: int
    """Blocks between it and the chain."""
    status: str
    """active, valid-fork or invalid."""


class BlockTree:
    """All blocks that grow out of a network's genesis block; one path through them is the chain."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._order = count()
        self._known: dict[str, StoredBlock] = {}
        raw = genesis_block(network)
        genesis = self._store(read_header(0, raw[:HEADER_SIZE]), raw, None)
        self.chain: list[StoredBlock] = [genesis]
        self._hidden: list[StoredBlock] = []
        self._hidden_tip: StoredBlock | None = None

    @property
    def tip(self) -> StoredBlock:
        """Give the chain's last block."""
        return self.chain[-1]

    def find(self, block_hash: str) -> StoredBlock | None:
        """Give the block with this hash (display order), on the chain or beside it."""
        return self._known.get(block_hash)

    def is_active(self, stored: StoredBlock) -> bool:
        """Say whether a block stands on the chain."""
        return stored.height < len(self.chain) and self.chain[stored.height] is stored

    def next(self, stored: StoredBlock) -> StoredBlock | None:
        """Give the block behind one of the chain, None at the tip and beside the chain."""
        if self.is_active(stored) and stored.height + 1 < len(self.chain):
            return self.chain[stored.height + 1]
        return None

    def add(self, raw: bytes, undo: Undo | None = None) -> StoredBlock:
        """Take a block, whose parent must be known (else UsageError); the chain stays where it is."""
        head = read_header(0, raw[:HEADER_SIZE])
        known = self._known.get(head.hash)
        if known is not None:
            return known
        parent = self._known.get(head.prev_hash)
        if parent is None:
            raise UsageError(
                f"block {head.hash} stands on {head.prev_hash}, which is not here: give the blocks of"
                f" {self.network.name} from its genesis block on, each behind its parent"
            )
        stored = self._store(read_header(parent.height + 1, raw[:HEADER_SIZE]), raw, parent)
        stored.undo = undo
        return stored

    def activate(self, tip: StoredBlock) -> None:
        """Make the branch that ends in `tip` the chain."""
        branch = list(self._branch(tip))
        self.chain[tip.height + 1 - len(branch) :] = reversed(branch)

    def tips(self) -> list[Tip]:
        """List the ends of all branches, the highest first, as `getchaintips` does."""
        parents = {stored.parent for stored in self._known.values()}
        # After an invalidation the chain may end in a block that others stand on.
        ends = {self.tip, *(stored for stored in self._known.values() if stored not in parents)}
        return [self._tip(end) for end in sorted(ends, key=lambda end: (-end.height, end.order))]

    def invalidate(self, first: StoredBlock) -> None:
        """Call a block and all that stand on it invalid; the chain goes to the best branch that is left."""
        for stored in self._descendants(first):
            stored.invalid = True
        valid = (stored for stored in self._known.values() if not stored.invalid)
        best = max(valid, key=lambda stored: (stored.chainwork, -stored.order))
        self.activate(best)

    def forget(self, first: StoredBlock) -> None:
        """Drop a block beside the chain and all that stand on it, as if they had never come."""
        for stored in self._descendants(first):
            del self._known[stored.block.hash]

    def hide_since(self, tip: StoredBlock) -> None:
        """Go back to when the chain ended in `tip`: whatever came later is unknown until `show_hidden`."""
        later = [stored for stored in self._known.values() if stored.order > tip.order]
        self._hidden = [*later, *self._hidden]
        self._hidden_tip = self._hidden_tip or self.tip
        for stored in later:
            del self._known[stored.block.hash]
        self.activate(tip)

    def show_hidden(self) -> None:
        """Know again what `hide_since` took away, and stand where the chain stood then."""
        self._known.update((stored.block.hash, stored) for stored in self._hidden)
        self._hidden = []
        if self._hidden_tip is not None:
            self.activate(self._hidden_tip)
            self._hidden_tip = None

    def _store(self, block: Block, raw: bytes, parent: StoredBlock | None) -> StoredBlock:
        before = 0 if parent is None else parent.chainwork
        stored = StoredBlock(block, raw, parent, before + work(block.bits), next(self._order))
        self._known[block.hash] = stored
        return stored

    def _descendants(self, first: StoredBlock) -> list[StoredBlock]:
        found = {first}
        # Blocks are known in the order of their coming, so a parent is always met first.
        for stored in self._known.values():
            if stored.parent in found:
                found.add(stored)
        return sorted(found, key=lambda stored: stored.order)

    def _tip(self, end: StoredBlock) -> Tip:
        length = sum(1 for _ in self._branch(end))
        status = "invalid" if end.invalid else "valid-fork" if length else "active"
        return Tip(end, length, status)

    def _branch(self, end: StoredBlock) -> Iterator[StoredBlock]:
        """Walk from a block down to the chain, which is not included."""
        at: StoredBlock | None = end
        while at is not None and not self.is_active(at):
            yield at
            at = at.parent

"""The state of a node's chain: the blocks that it knows, the branch that is active, and the unspent coins."""

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from virtualchain.bitcoin.encoding import plain_block, read_whole_header
from virtualchain.bitcoin.networks import NETWORKS, Network
from virtualchain.errors import UsageError
from virtualchain.model import Block
from virtualchain.testing.blocks import genesis_block, work
from virtualchain.testing.undo import Coin, Undo, created_coins, make_undo, read_undo
from virtualchain.testing.wire import HEADER_SIZE, RawTx, read_block, read_compact_size


@dataclass(eq=False, slots=True)
class StoredBlock:
    """A block as the node keeps it."""

    block: Block
    raw: bytes
    parent: "StoredBlock | None"
    chainwork: int
    """Total work of the blocks up to this one, including the genesis block."""
    order: int
    """Numbers blocks in the order in which they arrive."""
    undo: Undo | None = None
    """What its transactions spend, once it is known."""
    invalid: bool = False
    network: Network = NETWORKS["regtest"]

    @property
    def height(self) -> int:
        """Return the block's height."""
        return self.block.block_id

    @property
    def transactions(self) -> int:
        """Return the number of transactions, including the coinbase."""
        return read_compact_size(self.plain, HEADER_SIZE)[0]

    @property
    def plain(self) -> bytes:
        """Return the block in Bitcoin's encoding."""
        return plain_block(self.raw, self.network)

    @property
    def header(self) -> bytes:
        """Return the header as nodes hand it out: with its AuxPoW, if it has one."""
        return self.block.header + self.block.auxpow


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of a branch, as reported by `getchaintips`."""

    stored: StoredBlock
    branch_length: int
    """Number of blocks between it and the chain."""
    status: str
    """active, valid-fork or invalid."""


class BlockTree:
    """All known blocks, which descend from a network's genesis block; one branch of them is the chain."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._order = count()
        self._known: dict[str, StoredBlock] = {}
        raw = genesis_block(network)
        genesis = self._store(read_whole_header(0, raw, network), raw, None)
        self.chain: list[StoredBlock] = [genesis]
        self._hidden: list[StoredBlock] = []
        self._hidden_tip: StoredBlock | None = None

    @property
    def tip(self) -> StoredBlock:
        """Return the chain's last block."""
        return self.chain[-1]

    def find(self, block_hash: str) -> StoredBlock | None:
        """Return the block with this hash (display order), on any branch."""
        return self._known.get(block_hash)

    def is_active(self, stored: StoredBlock) -> bool:
        """Check whether a block is on the chain."""
        return stored.height < len(self.chain) and self.chain[stored.height] is stored

    def next(self, stored: StoredBlock) -> StoredBlock | None:
        """Return the chain's block after `stored`; None at the tip and on side branches."""
        if self.is_active(stored) and stored.height + 1 < len(self.chain):
            return self.chain[stored.height + 1]
        return None

    def add(self, raw: bytes, undo: Undo | None = None) -> StoredBlock:
        """Add a block, whose parent must be known (else UsageError), without activating it."""
        head = read_whole_header(0, raw, self.network)
        known = self._known.get(head.hash)
        if known is not None:
            return known
        parent = self._known.get(head.prev_hash)
        if parent is None:
            raise UsageError(
                f"block {head.hash} follows {head.prev_hash}, which is unknown: add blocks of"
                f" {self.network.name} after its genesis block, each after its parent"
            )
        stored = self._store(read_whole_header(parent.height + 1, raw, self.network), raw, parent)
        stored.undo = undo
        return stored

    def activate(self, tip: StoredBlock) -> None:
        """Make the branch that ends in `tip` the chain."""
        branch = list(self._branch(tip))
        self.chain[tip.height + 1 - len(branch) :] = reversed(branch)

    @property
    def blocks(self) -> list[StoredBlock]:
        """Return all blocks but the genesis block in the order of their arrival, hidden ones among them."""
        stored = [*self._known.values(), *self._hidden]
        return sorted((each for each in stored if each.parent is not None), key=lambda each: each.order)

    @property
    def best(self) -> StoredBlock:
        """Return the chain's last block, as it is once hidden ones are shown."""
        return self._hidden_tip or self.tip

    def tips(self) -> list[Tip]:
        """List the ends of all branches, the highest first, as `getchaintips` does."""
        parents = {stored.parent for stored in self._known.values()}
        # After an invalidation, the chain may end in a block that has children.
        ends = {self.tip, *(stored for stored in self._known.values() if stored not in parents)}
        return [self._tip(end) for end in sorted(ends, key=lambda end: (-end.height, end.order))]

    def invalidate(self, first: StoredBlock) -> None:
        """Mark a block and its descendants invalid, and activate the best branch that remains."""
        for stored in self._descendants(first):
            stored.invalid = True
        valid = (stored for stored in self._known.values() if not stored.invalid)
        best = max(valid, key=lambda stored: (stored.chainwork, -stored.order))
        self.activate(best)

    def forget(self, first: StoredBlock) -> None:
        """Drop a block of a side branch and its descendants, as if they had never arrived."""
        for stored in self._descendants(first):
            del self._known[stored.block.hash]

    def hide_since(self, tip: StoredBlock) -> None:
        """Go back to the time when the chain ended in `tip`; `show_hidden` restores the later blocks."""
        later = [stored for stored in self._known.values() if stored.order > tip.order]
        self._hidden = [*later, *self._hidden]
        self._hidden_tip = self._hidden_tip or self.tip
        for stored in later:
            del self._known[stored.block.hash]
        self.activate(tip)

    def show_hidden(self) -> None:
        """Restore the blocks that `hide_since` removed, and the tip of that time."""
        self._known.update((stored.block.hash, stored) for stored in self._hidden)
        self._hidden = []
        if self._hidden_tip is not None:
            self.activate(self._hidden_tip)
            self._hidden_tip = None

    def _store(self, block: Block, raw: bytes, parent: StoredBlock | None) -> StoredBlock:
        before = 0 if parent is None else parent.chainwork
        chainwork = before + work(block.bits)
        stored = StoredBlock(block, raw, parent, chainwork, next(self._order), network=self.network)
        self._known[block.hash] = stored
        return stored

    def _descendants(self, first: StoredBlock) -> list[StoredBlock]:
        descendants = {first}
        # Known blocks are in the order of their arrival, so a parent always precedes its children.
        for stored in self._known.values():
            if stored.parent in descendants:
                descendants.add(stored)
        return sorted(descendants, key=lambda stored: stored.order)

    def _tip(self, end: StoredBlock) -> Tip:
        length = sum(1 for _ in self._branch(end))
        status = "invalid" if end.invalid else "valid-fork" if length else "active"
        return Tip(end, length, status)

    def _branch(self, end: StoredBlock) -> Iterator[StoredBlock]:
        """Walk from a block down to the chain, which is excluded."""
        at: StoredBlock | None = end
        while at is not None and not self.is_active(at):
            yield at
            at = at.parent


class Coins:
    """The unspent outputs after one block, like a node's coin database; `move` brings them to another block.

    They are computed only on demand: a benchmark whose blocks come with their undo data never pays for
    reading them. A coinbase's outputs can be spent at once here. Scripts and signatures are not checked.
    """

    def __init__(self) -> None:
        self.at: StoredBlock | None = None
        """The block after which these are the coins; None before the first move."""
        self._coins: dict[bytes, Coin] = {}
        self._owned: defaultdict[bytes, dict[bytes, Coin]] = defaultdict(dict)
        self._confirmed: dict[bytes, int] = {}

    def get(self, outpoint: bytes) -> Coin | None:
        """Return the coin at an outpoint (36 bytes), None if it does not exist or is spent."""
        return self._coins.get(outpoint)

    def owned(self, script: bytes) -> dict[bytes, Coin]:
        """Return the coins with this output script, by outpoint."""
        return self._owned.get(script, {})

    def confirmed(self, txid: bytes) -> int | None:
        """Return the height of a transaction (txid in internal byte order), None if it is not mined."""
        return self._confirmed.get(txid)

    def move(self, to: StoredBlock) -> None:
        """Disconnect and connect blocks until these are the coins after `to`; fills in their undo data."""
        ahead = []
        at: StoredBlock | None = to
        while at is not self.at:
            assert at is not None, "both blocks descend from the genesis block"
            if self.at is not None and self.at.height >= at.height:
                self._disconnect(self.at)
                self.at = self.at.parent
            else:
                ahead.append(at)
                at = at.parent
        for stored in reversed(ahead):
            self._connect(stored)
            self.at = stored

    def _connect(self, stored: StoredBlock) -> None:
        spent = []
        for index, tx in enumerate(read_block(stored.plain)):
            spent.append([self._remove(outpoint) for outpoint in tx.outpoints] if index else [])
            self._confirmed[tx.txid] = stored.height
            # The genesis coinbase cannot be spent: no node has it among its coins.
            if stored.parent is not None:
                self._create(tx, stored.height, generated=index == 0)
        known = [[coin for coin in coins if coin is not None] for coins in spent]
        if stored.undo is None and known == spent:
            stored.undo = make_undo(known)

    def _disconnect(self, stored: StoredBlock) -> None:
        transactions = read_block(stored.plain)
        spent = read_undo(stored.undo) if stored.undo is not None else [[] for _ in transactions]
        for tx, coins in zip(reversed(transactions), reversed(spent), strict=True):
            del self._confirmed[tx.txid]
            for vout in range(len(tx.outputs)):
                self._remove(tx.txid + struct.pack("<I", vout))
            for outpoint, coin in zip(tx.outpoints, coins, strict=False):
                self._add(outpoint, coin)

    def _create(self, tx: RawTx, height: int, *, generated: bool) -> None:
        for outpoint, coin in created_coins(tx, height, generated=generated):
            self._add(outpoint, coin)

    def _add(self, outpoint: bytes, coin: Coin) -> None:
        self._coins[outpoint] = self._owned[coin.script][outpoint] = coin

    def _remove(self, outpoint: bytes) -> Coin | None:
        coin = self._coins.pop(outpoint, None)
        if coin is not None:
            del self._owned[coin.script][outpoint]
        return coin

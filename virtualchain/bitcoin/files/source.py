"""The source that reads bitcoind's block files in place, or one file in the same format.

The files contain less than the node that writes them knows. Work determines which chain is active, and if
there are undo data beside the blocks, only a block that has them counts: the node has connected it. This
excludes blocks that the node is still writing or checking, and those that it rejected. The files do not show
that a branch was called invalid later.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from virtualchain.bitcoin.block import split_transactions
from virtualchain.bitcoin.files.index import Branch
from virtualchain.bitcoin.files.spent import Outputs, UndoFiles
from virtualchain.bitcoin.files.store import NO_PARENT, BlockStore, find_folder, find_network
from virtualchain.bitcoin.header import HEADER_SIZE, display_hash
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.source import MOST_HEADERS, Tip, Wake
from virtualchain.bitcoin.transaction import read_inputs
from virtualchain.errors import MissingData, NodeError, NodeUnavailable
from virtualchain.model import Block, SpentOutput


def open_blocks(path: Path, network: Network | None = None) -> "FileSource":
    """Open the blocks at `path`: bitcoind's data or `blocks` folder, or a file in the format of `blk*.dat`.

    All headers are read once. The chain starts with the genesis block or, if that is missing (a pruned node,
    part of a chain), with the lowest block after which none is missing; heights are then what the coinbases
    state (BIP 34). The files must be of `network`; None accepts any.

    Raises UsageError if there are no blocks at `path`, NodeError for files that cannot be read or are of
    another network, NodeUnavailable for files without a block yet.
    """
    folder = find_folder(path, network)
    actual, key = find_network(folder, network)
    store = BlockStore(folder, actual, key)
    store.refresh()
    store.index.set_anchor(*find_anchor(store))
    source = FileSource(store)
    source.tip()
    return source


class FileSource:
    """Block files as a `BlockSource`, by a store whose index has an anchor.

    Only `tip` looks for new blocks: without it, the chain stays the one that the store has.
    """

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._undo = UndoFiles(store)
        self._outputs = Outputs(store)
        self._wake = Wake()

    def __str__(self) -> str:
        return str(self._store)

    @property
    def network(self) -> Network:
        """The network that the files are of."""
        return self._store.network

    @property
    def store(self) -> BlockStore:
        """The files, and the index of the blocks in them."""
        return self._store

    def tip(self) -> Tip:
        """Read what was appended, and return the active chain's last block."""
        store, index = self._store, self._store.index
        with store.lock:
            store.refresh()
            candidates = (
                number
                for number in index.better_tips()
                if not store.has_undo or self._undo.is_connected(number)
            )
            best = next(candidates, None)
            if best is not None:
                index.activate(best)
            return Tip(index.height(index.tip), store.hash(index.tip))

    def block_hash(self, block_id: int) -> str:
        """Return the hash of the active block at a height; raises MissingData outside the chain."""
        store = self._store
        with store.lock:
            number = store.index.active(block_id)
            if number is not None:
                return store.hash(number)
            first, last = store.index.base, store.index.height(store.index.tip)
        raise MissingData(f"{store} holds blocks {first} to {last} of the chain, but not {block_id}")

    def headers_after(self, block_id: int, block_hash: str) -> list[Block] | None:
        """Return the headers that follow a block on the active chain, see `BlockSource`."""
        store = self._store
        with store.lock:
            number = store.find(block_hash)
            if number is None or store.index.active(block_id) != number:
                return None
            following = range(block_id + 1, block_id + 1 + MOST_HEADERS)
            numbers = [(height, store.index.active(height)) for height in following]
        return [store.header(each, height) for height, each in numbers if each is not None]

    def is_invalid(self, block_id: int, block_hash: str) -> bool:
        """Return False: no file says which blocks the node calls invalid."""
        del block_id, block_hash
        return False

    def raw_block(self, block_hash: str) -> bytes:
        """Return a block's bytes, whose header has exactly this hash; raises MissingData, MalformedBlock."""
        return self._store.read(self._number_of(block_hash))

    def spent_outputs(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Return the outputs that some transactions of a block spend, see `BlockSource`."""
        return self._spent(block_hash, transactions, heights=False)

    def spent_outputs_with_heights(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Return them with the heights of the blocks that made them; a file that lacks those has none."""
        return self._spent(block_hash, transactions, heights=True)

    def _spent(
        self, block_hash: str, transactions: Mapping[int, str], *, heights: bool
    ) -> Mapping[int, Sequence[SpentOutput]]:
        number = self._number_of(block_hash)
        if not transactions:
            return {}
        if self._store.has_undo:
            return self._undo.spent(number, transactions, heights=heights)
        return self._outputs.spent(number, transactions, heights=heights)

    def wait(self, timeout: float) -> None:
        """Sleep for `timeout` seconds, or until `wake`; the files are read again by `tip`."""
        self._wake.wait(timeout)

    def wake(self) -> None:
        """End the current or the next `wait`; may be called from another thread or a signal handler."""
        self._wake.call()

    def close(self) -> None:
        """End a wait and drop the temporary database."""
        self._wake.call()
        self._outputs.close()

    def _number_of(self, block_hash: str) -> int:
        number = self._store.find(block_hash)
        if number is None:
            raise MissingData(f"{self._store} does not hold block {block_hash}: use all files, or a node")
        return number


def find_anchor(store: BlockStore) -> tuple[int, int]:
    """Find the block with which the chain starts: its number in the index, and its height.

    Raises NodeUnavailable if there is no block yet, NodeError for another genesis block or if no block states
    its height.
    """
    branches = list(store.index.branches())
    if not branches and store.refused is not None:
        raise NodeError(f"{store} holds no block of {store.network.name}: {store.refused}")
    if not branches:
        raise NodeUnavailable(f"{store} holds no complete block yet")
    parents = {branch: display_hash(store.part(branch.root, 0, HEADER_SIZE)[4:36]) for branch in branches}
    genesis_hash = store.network.genesis_hash
    # The first blocks win over any work, but not if a search found them: anyone may have hidden them there.
    priorities = {NO_PARENT: 2, genesis_hash: 1}

    def rank(branch: Branch) -> tuple[int, int, int]:
        priority = 0 if branch.root in store.searched else priorities.get(parents[branch], 0)
        return priority, branch.work, -branch.root

    best = max(branches, key=rank)
    if parents[best] == NO_PARENT and store.hash(best.root) != genesis_hash:
        raise NodeError(
            f"{store} should be of {store.network.name}, whose first block is {genesis_hash}, "
            f"but its first block is {store.hash(best.root)}"
        )
    if parents[best] in priorities:
        return best.root, 0 if parents[best] == NO_PARENT else 1
    return best.root, _root_height(store, best)


def _root_height(store: BlockStore, branch: Branch) -> int:
    """Determine the height of a branch's root from what its root and its tip state."""
    tip = _stated_height(store.plain(branch.tip))
    least = store.network.coinbase_height_block_id
    if tip is None or tip < least:
        raise NodeError(
            f"{store} does not start with the genesis block, and its block {store.hash(branch.tip)} does not "
            "state its height: use files from the first block on, or a node"
        )
    lowest = tip - branch.depth
    if lowest >= least and _stated_height(store.plain(branch.root)) != lowest:
        raise NodeError(
            f"{store}: block {store.hash(branch.root)} is {branch.depth} blocks below one that states "
            f"height {tip}, but does not state {lowest}: are all of these blocks of {store.network.name}?"
        )
    return lowest


def _stated_height(raw: bytes) -> int | None:
    """Read the height with which a block's coinbase begins (BIP 34); None if there is none."""
    if int.from_bytes(raw[:4], "little", signed=True) < 2:
        return None
    script = read_inputs(split_transactions(raw)[0])[0].script_sig
    if not script:
        return None
    if 0x51 <= script[0] <= 0x60:
        return script[0] - 0x50
    size = script[0]
    if not 1 <= size <= 4 or len(script) <= size:
        return None
    return int.from_bytes(script[1 : 1 + size], "little", signed=True)

"""The source that reads bitcoind's files of blocks where they lie, or one file in the same form.

The files say less than the node that writes them. Which chain is active is told by work, and where undo data
lie beside the blocks only a block that has them counts: the node has connected it. That keeps out what it is
still writing or checking, and what it refused. Nothing says that a branch was called invalid later.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from virtualchain.bitcoin.files.anchor import find_anchor
from virtualchain.bitcoin.files.folder import find_folder, find_network
from virtualchain.bitcoin.files.outputs import Outputs
from virtualchain.bitcoin.files.store import BlockStore
from virtualchain.bitcoin.files.undo_files import UndoFiles
from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.source import BlockSource, Tip
from virtualchain.bitcoin.wake import Wake
from virtualchain.errors import MissingData
from virtualchain.model import Block, SpentOutput

MOST_HEADERS: Final = 2000


def open_blocks(path: Path, network: Network | None = None) -> BlockSource:
    """Open the blocks at `path`: bitcoind's data or `blocks` folder, or a file in the form of `blk*.dat`.

    Their headers are all read once. The chain starts with the genesis block, or where that is not there (a
    pruned node, a cut) with the lowest block from which on all are; its height is then what the coinbases
    state (BIP 34). `network` is what the files must be of; None takes any.

    Raises UsageError for a path at which there are no blocks, NodeError for files that cannot be read or
    are of another network, NodeUnavailable for files without a block yet.
    """
    folder = find_folder(path, network)
    found, key = find_network(folder, network)
    return FileSource(BlockStore(folder, found, key))


class FileSource:
    """Files of blocks; the contract is that of `BlockSource`."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._undo = UndoFiles(store)
        self._outputs = Outputs(store)
        self._wake = Wake()
        store.look()
        store.index.anchor(*find_anchor(store))
        self.tip()

    def __str__(self) -> str:
        return str(self._store)

    @property
    def network(self) -> Network:
        """The network that the files are of."""
        return self._store.network

    def tip(self) -> Tip:
        """Look at what was appended, and tell the active chain's last block."""
        store, index = self._store, self._store.index
        with store.lock:
            store.look()
            better = (
                number for number in index.better() if not store.has_undo or self._undo.is_connected(number)
            )
            best = next(better, None)
            if best is not None:
                index.activate(best)
            return Tip(index.height(index.tip), store.hash(index.tip))

    def block_hash(self, block_id: int) -> str:
        """Tell which block is active at a height; raises MissingData above the tip, and below the first."""
        store = self._store
        with store.lock:
            number = store.index.active(block_id)
            if number is not None:
                return store.hash(number)
            first, last = store.index.base, store.index.height(store.index.tip)
        raise MissingData(f"{store} holds blocks {first} to {last} of the chain, and not {block_id}")

    def headers_after(self, block_id: int, block_hash: str) -> list[Block] | None:
        """Give the headers that follow a block on the active chain, see `BlockSource`."""
        store = self._store
        with store.lock:
            number = store.find(block_hash)
            if number is None or store.index.active(block_id) != number:
                return None
            following = range(block_id + 1, block_id + 1 + MOST_HEADERS)
            numbers = [(height, store.index.active(height)) for height in following]
        return [
            read_header(height, store.part(each, 0, HEADER_SIZE))
            for height, each in numbers
            if each is not None
        ]

    def is_invalid(self, block_id: int, block_hash: str) -> bool:
        """Tell nothing: no file says which blocks the node calls invalid."""
        del block_id, block_hash
        return False

    def raw_block(self, block_hash: str) -> bytes:
        """Give a block's bytes, whose header has this very hash; raises MissingData, MalformedBlock."""
        return self._store.read(self._known(block_hash))

    def spent_outputs(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Give the outputs that some transactions of a block spend, see `BlockSource`."""
        number = self._known(block_hash)
        if not transactions:
            return {}
        if self._store.has_undo:
            return self._undo.spent(number, transactions)
        return self._outputs.spent(number, transactions)

    def wait(self, timeout: float) -> None:
        """Sleep for `timeout` seconds, or until `wake`; `tip` looks at the files."""
        self._wake.wait(timeout)

    def wake(self) -> None:
        """End the present or the next `wait`; may be called from another thread or a signal handler."""
        self._wake.call()

    def close(self) -> None:
        """Drop what was made for the time being."""
        self._wake.call()
        self._outputs.close()

    def _known(self, block_hash: str) -> int:
        number = self._store.find(block_hash)
        if number is None:
            raise MissingData(f"{self._store} does not hold block {block_hash}: give all files, or a node")
        return number

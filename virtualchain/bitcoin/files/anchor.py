"""Where a chain of files starts, and at which height."""

from typing import Final

from virtualchain.bitcoin.block import split_transactions
from virtualchain.bitcoin.files.index import Branch
from virtualchain.bitcoin.files.store import BlockStore
from virtualchain.bitcoin.header import HEADER_SIZE, display
from virtualchain.bitcoin.transaction import read_inputs
from virtualchain.errors import NodeError, NodeUnavailable

_ALWAYS_STATED: Final = {"mainnet": 227_931, "testnet3": 21_111}
"""From which height on every coinbase states its own (BIP 34); from the first block on elsewhere."""


def find_anchor(store: BlockStore) -> tuple[int, int]:
    """Find the block with which the chain starts, by its number in the store, and its height.

    Raises NodeUnavailable where there is no block yet, NodeError for another genesis block and where no block
    says how high it stands.
    """
    branches = list(store.index.branches())
    if not branches:
        raise NodeUnavailable(f"{store} holds no whole block yet")
    parents = {branch: display(store.part(branch.root, 0, HEADER_SIZE)[4:36]) for branch in branches}
    genesis_hash = store.network.genesis_hash
    for branch, parent in parents.items():
        if store.hash(branch.root) == genesis_hash:
            return branch.root, 0
        if parent == "00" * 32:
            raise NodeError(
                f"{store} says that it is of {store.network.name}, whose first block is {genesis_hash}, "
                f"but its own is {store.hash(branch.root)}"
            )
    best = max(branches, key=lambda branch: (parents[branch] == genesis_hash, branch.work, -branch.root))
    if parents[best] == genesis_hash:
        return best.root, 1
    return best.root, _stated_by(store, best)


def _stated_by(store: BlockStore, branch: Branch) -> int:
    """Tell a branch's lowest height from what its ends state."""
    tip = _stated_height(store.read(branch.tip))
    least = _ALWAYS_STATED.get(store.network.name, 1)
    if tip is None or tip < least:
        raise NodeError(
            f"{store} does not start with the genesis block, and its block {store.hash(branch.tip)} does not "
            "state its height: give files from the first block on, or a node"
        )
    lowest = tip - branch.depth
    if lowest >= least and _stated_height(store.read(branch.root)) != lowest:
        raise NodeError(
            f"{store}: block {store.hash(branch.root)} stands {branch.depth} blocks below one that states "
            f"height {tip}, and does not state {lowest}: are all of these blocks of {store.network.name}?"
        )
    return lowest


def _stated_height(raw: bytes) -> int | None:
    """Read the height with which a block's coinbase begins (BIP 34); None where there is none."""
    if int.from_bytes(raw[:4], "little", signed=True) < 2:
        return None
    script = bytes.fromhex(read_inputs(split_transactions(raw)[0])[0].script_sig)
    if not script:
        return None
    if 0x51 <= script[0] <= 0x60:
        return script[0] - 0x50
    size = script[0]
    if not 1 <= size <= 4 or len(script) <= size:
        return None
    return int.from_bytes(script[1 : 1 + size], "little", signed=True)

"""Inclusion: what shows, to somebody who has a block's header, that a transaction is in the block.

The branch of the block's Merkle tree that leads from the transaction to the header's root does so, as in
BIP 37. A tree does not state its depth, so an inner node could pass for a transaction of 64 bytes, or for a
leaf. The coinbase's branch pins the depth: the coinbase is known by its form, and it is the first leaf.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from virtualchain.bitcoin.compiled import merkle_rows
from virtualchain.bitcoin.header import display_hash, sha256d
from virtualchain.bitcoin.layout import MOST_TRANSACTIONS, Layout
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.script import push_height
from virtualchain.bitcoin.transaction import NO_TXID, read_inputs, without_witness
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block

NODE_SIZE: Final = 64
"""Bytes of two hashes: what the Merkle tree's inner nodes are hashed from."""
_DEEPEST: Final = MOST_TRANSACTIONS.bit_length()
_DIGEST: Final = 32
_NO_VOUT: Final = 2**32 - 1
"""With `NO_TXID`, what the input of a coinbase names in place of an output."""


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A transaction of a block and the block's coinbase, both without witness, with their branches.

    A branch lists the sibling at each level from the bottom up, in the order in which hashes are computed.
    """

    txindex: int
    transaction: bytes = field(repr=False)
    branch: bytes = field(repr=False)
    coinbase: bytes = field(repr=False)
    coinbase_branch: bytes = field(repr=False)


class Tree:
    """The Merkle tree over the transactions of a block, and the block's coinbase."""

    __slots__ = ("_count", "_rows", "coinbase")

    def __init__(self, ids: bytes, coinbase: bytes) -> None:
        """Build the tree over ids, one after the other; `coinbase` may have its witness."""
        self._rows: bytes = merkle_rows(ids)
        self._count = len(ids) // _DIGEST
        self.coinbase = without_witness(coinbase)

    @property
    def root(self) -> str:
        """The root, in display order."""
        return display_hash(self._rows[-_DIGEST:])

    def find(self, txid: str) -> int | None:
        """Return the place of the transaction with this id; None if there is none."""
        digest = bytes.fromhex(txid)[::-1]
        return next((n for n in range(self._count) if self._node(n) == digest), None)

    def branch(self, txindex: int) -> bytes:
        """Return the branch from a transaction to the root."""
        nodes, rows, start, count = [], self._rows, 0, self._count
        while count > 1:
            sibling = txindex ^ 1
            at = _DIGEST * (start + (sibling if sibling < count else txindex))
            nodes.append(rows[at : at + _DIGEST])
            start, txindex, count = start + count, txindex >> 1, (count + 1) >> 1
        return b"".join(nodes)

    def _node(self, at: int) -> bytes:
        return self._rows[_DIGEST * at : _DIGEST * (at + 1)]


def inclusions(layout: Layout, txindexes: Iterable[int]) -> Iterator[Inclusion]:
    """Yield what shows that these transactions are in a block."""
    tree = Tree(layout.digests()[0], layout.transaction(0))
    coinbase_branch = tree.branch(0)
    for txindex in txindexes:
        transaction = without_witness(layout.transaction(txindex))
        yield Inclusion(txindex, transaction, tree.branch(txindex), tree.coinbase, coinbase_branch)


def check_inclusion(inclusion: Inclusion, header: Block, network: Network) -> str:
    """Check that a transaction is in the block of `header`, at its place; return its id.

    Coinbases of today begin with their block's height (BIP 34), so that a header whose height is a lie is
    found, too. Raises MalformedBlock, which says what does not fit.
    """
    if len(inclusion.branch) != len(inclusion.coinbase_branch):
        raise MalformedBlock("the branches of transaction and coinbase differ in length")
    spendings = read_inputs(inclusion.coinbase)
    if [(spending.txid, spending.vout) for spending in spendings] != [(NO_TXID, _NO_VOUT)]:
        raise MalformedBlock("what is shown as the block's coinbase is not one")
    _lead(inclusion.coinbase, inclusion.coinbase_branch, 0, header)
    states_height = spendings[0].script_sig.startswith(push_height(header.block_id))
    if header.block_id >= network.coinbase_height_block_id and not states_height:
        raise MalformedBlock(f"the coinbase does not state the height {header.block_id}")
    if inclusion.txindex == 0 and inclusion.transaction != inclusion.coinbase:
        raise MalformedBlock("the first transaction is the coinbase")
    read_inputs(inclusion.transaction)
    return _lead(inclusion.transaction, inclusion.branch, inclusion.txindex, header)


def _lead(transaction: bytes, branch: bytes, txindex: int, header: Block) -> str:
    """Follow a branch from a transaction to the header's root; return the transaction's id."""
    if not transaction[4]:
        raise MalformedBlock("a transaction is shown with its witness, which its id does not cover")
    if len(transaction) == NODE_SIZE:
        raise MalformedBlock(f"a transaction has {NODE_SIZE} bytes, like the tree's inner nodes")
    siblings = [branch[at : at + _DIGEST] for at in range(0, len(branch), _DIGEST)]
    if len(branch) % _DIGEST or len(siblings) > _DEEPEST or not 0 <= txindex < 1 << len(siblings):
        raise MalformedBlock(f"a branch of {len(branch)} bytes does not lead to transaction {txindex}")
    node = txid = sha256d(transaction)
    for level, sibling in enumerate(siblings):
        is_right = txindex >> level & 1
        # An odd row repeats its last node, and what stands there twice has the place of the first.
        if is_right and sibling == node:
            raise MalformedBlock(f"there is no transaction {txindex}: its branch repeats the one before")
        node = sha256d(sibling + node if is_right else node + sibling)
    if display_hash(node) != header.merkle_root:
        raise MalformedBlock(f"the branch of transaction {txindex} does not lead to the header's root")
    return display_hash(txid)

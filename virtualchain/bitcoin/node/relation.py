"""How the chains of two nodes relate: by their headers, whose work is checked, whatever tips they claim."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from virtualchain.bitcoin.difficulty import check_work
from virtualchain.bitcoin.header import branch_work
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.errors import MissingData
from virtualchain.model import Block

BEHIND: Final = 2
"""Blocks that the node which is asked may be behind another one for any time."""
_MOST_COMPARED: Final = 2016
"""Blocks of a branch whose work is compared; what is deeper is for an operator."""


@dataclass(frozen=True, slots=True)
class Relation:
    """How the chain of another node relates to that of the node that is asked."""

    fork: int
    """The last block of both."""
    ours: int
    """Blocks above it on the chain of the node that is asked, of many not all."""
    theirs: int
    has_more_work: bool
    """Whether theirs has, above the fork."""
    dispute: str | None
    """Which node calls which block invalid."""
    is_syncing: bool
    """Whether the node that is asked is further behind, and says that it is syncing."""

    @property
    def is_split(self) -> bool:
        """Whether each has a block that the other one's chain does not hold."""
        return self.ours > 0 and self.theirs > 0


def compare(ours: NodeSource, theirs: NodeSource) -> Relation:
    """Compare the chains of two nodes by their headers, whatever tips they claim; raises NodeError."""
    our_tip, their_tip = ours.tip(), theirs.tip()
    if our_tip == their_tip:
        return Relation(our_tip.block_id, 0, 0, has_more_work=False, dispute=None, is_syncing=False)
    fork = _last_common(ours, theirs, min(our_tip.block_id, their_tip.block_id))
    our_headers = _headers_above(ours, fork, BEHIND + 1)
    their_headers = _headers_above(theirs, fork, BEHIND + 1)
    has_more_work = bool(their_headers)
    if our_headers and their_headers:
        our_headers = _headers_above(ours, fork, _MOST_COMPARED)
        their_headers = _headers_above(theirs, fork, _MOST_COMPARED)
        is_short = max(len(our_headers), len(their_headers)) < _MOST_COMPARED
        has_more_work = is_short and branch_work(their_headers) > branch_work(our_headers)
    lengths = len(our_headers), len(their_headers)
    dispute = None
    if min(lengths) > 0 or max(lengths) > BEHIND:
        dispute = _dispute(ours, theirs, our_headers, their_headers)
    is_syncing = not our_headers and len(their_headers) > BEHIND and ours.is_syncing()
    return Relation(fork, *lengths, has_more_work, dispute, is_syncing)


def _last_common(ours: NodeSource, theirs: NodeSource, highest: int) -> int:
    """Return the last block that is on both chains; their first one is, as opening a node has checked."""

    def is_common(block_id: int) -> bool:
        our_hash = _hash_at(ours, block_id)
        return our_hash is not None and our_hash == _hash_at(theirs, block_id)

    if is_common(highest):
        return highest
    common, other = 0, highest
    while other - common > 1:
        middle = (common + other) // 2
        if is_common(middle):
            common = middle
        else:
            other = middle
    return common


def _hash_at(node: NodeSource, block_id: int) -> str | None:
    try:
        return node.block_hash(block_id)
    except MissingData:
        return None


def _headers_above(node: NodeSource, fork: int, most: int) -> list[Block]:
    """Read at least `most` headers of a chain above a block, or all, and check the work of each."""
    headers: list[Block] = []
    last = fork, node.block_hash(fork)
    while len(headers) < most and (page := node.headers_after(*last)):
        for header in page:
            check_work(header, node.network)
        headers += page
        last = page[-1].block_id, page[-1].hash
    return headers


def _dispute(
    ours: NodeSource, theirs: NodeSource, our_headers: Sequence[Block], their_headers: Sequence[Block]
) -> str | None:
    """Return which of two nodes calls the other one's first block above the fork invalid, if one does."""
    for first in their_headers[:1]:
        if ours.is_invalid(first.block_id, first.hash):
            return invalid_note(ours, theirs, first.block_id, first.hash)
    for first in our_headers[:1]:
        if theirs.is_invalid(first.block_id, first.hash):
            return invalid_note(theirs, ours, first.block_id, first.hash)
    return None


def invalid_note(judge: object, other: object, block_id: int, block_hash: str) -> str:
    """Return that one node calls a block of another one invalid, and what an operator does then."""
    return (
        f"the nodes disagree from block {block_id} on: {judge} calls block {block_hash} of {other} invalid; "
        "find out which of the two is right, and name only that one, with which blocks of the other one's "
        "branch are undone"
    )

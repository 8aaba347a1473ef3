"""The planner: from what we hold and what the node says to what is to be done next.

Values in, a value out, so every rule can be tested without a node (`house.md`, "What one block does").
Work is summed from header bits above the fork alone: partial chains and files of blocks compare, too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from virtualchain.bitcoin.header import branch_work
from virtualchain.errors import NodeUnavailable, UsageError
from virtualchain.model import Block


@dataclass(frozen=True, slots=True)
class Extend:
    """Take these blocks, in this order: each is the next one's parent, the first is our tip's child."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for now; `reason` tells the operator what is waited for."""

    reason: str
    fork: int | None
    """The last common block where the node's chain is not ours, else None."""


Cause = Literal["work", "invalid", "pin"]


@dataclass(frozen=True, slots=True)
class Pins:
    """Blocks that the followed chain must hold, by height, and which blocks stand there now."""

    wanted: Mapping[int, str] = field(default_factory=dict)
    ours: Mapping[int, str] = field(default_factory=dict)
    """Of those heights, the ones that the tape has."""
    theirs: Mapping[int, str] = field(default_factory=dict)
    """Of those heights, the ones that the node's active chain has."""


@dataclass(frozen=True, slots=True)
class Reorg:
    """Undo our blocks above the fork, then plan again."""

    fork_block_id: int
    """The last block that stays."""
    fork_hash: str | None
    """None: the chains part below the lowest block that we hold, and none of ours stays."""
    old_tip: Block
    new_tip: Block | None
    """None: the node has no block above the fork."""
    depth: int
    """How many blocks are undone."""
    cause: Cause
    """Why our branch goes: theirs has more work, the node calls it invalid, or it lacks a pinned block."""


Plan = Extend | Wait | Reorg
_NO_PINS = Pins()


def plan(
    *,
    tip: Block | None,
    first_block_id: int,
    node_tip: int,
    confirmations: int,
    following: Sequence[Block] | None,
    ours: Sequence[Block] = (),
    theirs: Sequence[Block] = (),
    invalid: bool = False,
    pins: Pins = _NO_PINS,
) -> Plan:
    """Decide what comes next.

    `tip` is the last block that we took (None: nothing yet, and `first_block_id` comes first),
    `node_tip` the height of the node's active chain, `following` the headers that come after our tip on
    it (from the first block on where there is no tip; some of them are enough), or None where our tip is
    not active. Only then the rest counts: `ours` and `theirs` are all headers above the last common
    block, ours up to `tip` and the node's up to its tip, and `invalid` says whether the node calls our
    branch invalid. Where even our lowest block is not active, `ours` is all that we hold and `theirs`
    starts at the same height. A chain without a block of `pins` is neither taken nor, where the node has
    one with it, kept.

    Raises NodeUnavailable for headers that do not fit together, because the node's chain changed while
    it was read, and UsageError for a node whose genesis block is another one than ours.
    """
    if following is not None:
        return _lacks_pin(pins, (), following) or _extend(
            tip, first_block_id, node_tip, confirmations, following
        )
    if tip is None or not ours or ours[-1].hash != tip.hash:
        raise _changed("our tip is not on it, but no block of ours lies above the fork")
    return _lacks_pin(pins, ours, theirs) or _leave(
        tip, node_tip, ours, theirs, invalid=invalid, pinned=_violated(pins.wanted, pins.ours) is not None
    )


def _lacks_pin(pins: Pins, ours: Sequence[Block], theirs: Sequence[Block]) -> Wait | None:
    """Wait where the node's chain has another block at a pinned height, or leaves ours below one of ours."""
    found = {**pins.theirs, **{block.block_id: block.hash for block in theirs}}
    lacking = _violated(pins.wanted, found)
    if lacking is None and ours:
        left = {block.block_id: block.hash for block in ours}
        held = (at for at, pin in pins.wanted.items() if left.get(at) == pin and at not in found)
        lacking = min(held, default=None)
    if lacking is None and not ours:  # the node is on our chain
        lacking = _violated(pins.wanted, pins.ours)
    if lacking is None:
        return None
    return Wait(
        f"waiting for the node: its chain does not hold the pinned block {lacking} ({pins.wanted[lacking]})",
        ours[0].block_id - 1 if ours else None,
    )


def _violated(wanted: Mapping[int, str], found: Mapping[int, str]) -> int | None:
    """Give the lowest pinned height at which another block was found."""
    return min((at for at, pin in wanted.items() if found.get(at, pin) != pin), default=None)


def _extend(
    tip: Block | None, first_block_id: int, node_tip: int, confirmations: int, following: Sequence[Block]
) -> Plan:
    next_id = first_block_id if tip is None else tip.block_id + 1
    _require_chain(following, next_id)
    if tip is not None and following and following[0].prev_hash != tip.hash:
        raise _changed(f"block {next_id} is no child of our tip")
    stable = tuple(block for block in following if block.block_id <= node_tip - confirmations)
    if stable:
        return Extend(stable)
    if node_tip < next_id:
        return Wait(f"waiting for block {next_id}: the node is at block {node_tip}", None)
    have = node_tip - next_id
    return Wait(f"at the stable tip: block {next_id} has {have} of {confirmations} confirmations", None)


def _leave(
    tip: Block, node_tip: int, ours: Sequence[Block], theirs: Sequence[Block], *, invalid: bool, pinned: bool
) -> Plan:
    lowest = ours[0]
    fork = lowest.block_id - 1
    _require_chain(theirs, lowest.block_id)
    if fork < 0:
        raise UsageError(
            "the node's genesis block is another one than ours:"
            " choose a node of the same network, or another database"
        )
    has_more_work = branch_work(theirs) > branch_work(ours)
    if has_more_work or invalid or pinned:
        parts_at_fork = not theirs or theirs[0].prev_hash == lowest.prev_hash
        return Reorg(
            fork_block_id=fork,
            fork_hash=lowest.prev_hash if parts_at_fork else None,
            old_tip=tip,
            new_tip=theirs[-1] if theirs else None,
            depth=tip.block_id - fork,
            cause="pin" if pinned else "work" if has_more_work else "invalid",
        )
    if not theirs:
        return Wait(f"waiting for the node: it is at block {node_tip}, we are at block {tip.block_id}", fork)
    return Wait(
        f"waiting for the node: above block {fork} it follows another branch with no more work than ours"
        f" (up to block {theirs[-1].block_id}, we are at block {tip.block_id})",
        fork,
    )


def find_fork(tip_id: int, lowest_id: int, is_active: Callable[[int], bool]) -> int | None:
    """Find the highest of our blocks that is on the node's active chain; None: not even the lowest is.

    `is_active` tells it for one height, our hash at that height being the caller's to know. It is asked
    at `tip_id`, then 1, 3, 7 … below, then by halves in between, and never twice for a height:
    about twice the logarithm of the fork's depth.
    """
    if tip_id < lowest_id:
        return None
    active, inactive, step = tip_id, tip_id + 1, 1
    while not is_active(active):
        if active == lowest_id:
            return None
        inactive = active
        active = max(lowest_id, active - step)
        step *= 2
    while inactive - active > 1:
        middle = (active + inactive) // 2
        if is_active(middle):
            active = middle
        else:
            inactive = middle
    return active


def _require_chain(headers: Sequence[Block], first_id: int) -> None:
    if headers and headers[0].block_id != first_id:
        raise _changed(f"block {headers[0].block_id} came where block {first_id} was due")
    for parent, child in pairwise(headers):
        if child.prev_hash != parent.hash or child.block_id != parent.block_id + 1:
            raise _changed(f"block {child.block_id} is no child of block {parent.block_id}")


def _changed(what: str) -> NodeUnavailable:
    return NodeUnavailable(f"the node's chain changed while it was read ({what}): ask again")

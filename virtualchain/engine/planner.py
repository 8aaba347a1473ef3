"""The planner: from what the tape holds and what the node reports, decide what to do next.

Values in, a value out: every rule can be tested without a node (docs/architecture.md, The life of a fork).
Work is summed from header bits above the fork only, so partial chains and files of blocks can be compared,
too. Who asks has checked that the headers have this work (`look`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from virtualchain.bitcoin.header import branch_work
from virtualchain.errors import NodeUnavailable, UsageError
from virtualchain.model import Block, Reorg
from virtualchain.notices import Notice


@dataclass(frozen=True, slots=True)
class Extend:
    """Take these blocks, in this order: each is the next one's parent, the first is our tip's child."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for now; `reason` says for the operator what is waited for."""

    reason: str
    fork: int | None
    """The last common block if the node's chain is not ours, else None."""


@dataclass(frozen=True, slots=True)
class Branch:
    """All headers of one chain above a fork, summed up: there may be hundreds of thousands."""

    first: Block
    last: Block
    work: int

    @classmethod
    def of(cls, headers: Sequence[Block]) -> "Branch | None":
        """Sum up headers; None if there are none. Raises NodeUnavailable if they do not form a chain."""
        if not headers:
            return None
        require_chain(headers, headers[0].block_id)
        return cls(headers[0], headers[-1], branch_work(headers))


@dataclass(frozen=True, slots=True)
class Pins:
    """Blocks that the followed chain must hold, by height, and the blocks at those heights now."""

    required: Mapping[int, str] = field(default_factory=dict)
    ours: Mapping[int, str] = field(default_factory=dict)
    """Of those heights, the ones that the tape has."""
    theirs: Mapping[int, str] = field(default_factory=dict)
    """Of those heights, the ones that the node's active chain has."""


Plan = Extend | Wait | Reorg
_NO_PINS = Pins()


def plan(
    *,
    tip: Block | None,
    first_block_id: int,
    node_tip: int,
    confirmations: int,
    following: Sequence[Block] | None,
    fork: Block | None = None,
    ours: Branch | None = None,
    theirs: Branch | None = None,
    invalid: bool = False,
    pins: Pins = _NO_PINS,
) -> Plan:
    """Decide what comes next.

    `tip` is the tape's last block (None: the tape is empty, and `first_block_id` comes first), `node_tip` the
    height up to which the node's active chain is known. `following` are the headers that come after our tip
    on that chain, or some of them (from the first block on if there is no tip); None if our tip is not
    active. Only then the rest counts: `fork` is the last common block, `ours` and `theirs` are all headers
    above it, ours up to `tip` and the node's up to its tip, and `invalid` says whether the node calls our
    branch invalid. If not even our lowest block is active, there is no `fork`, `ours` is all that we hold and
    `theirs` starts at the same height. A chain without a block of `pins` is not taken, and ours is left if it
    is such a chain and the node's is not.

    Raises NodeUnavailable if the headers do not fit together, because the node's chain changed while it was
    read, and UsageError if the node has another genesis block than the tape.
    """
    if following is not None:
        return _wait_for_pin(pins, None, following) or _extend(
            tip, first_block_id, node_tip, confirmations, following
        )
    if tip is None or ours is None or ours.last.hash != tip.hash:
        raise _chain_changed("our tip is not on it, but no block of ours lies above the fork")
    if theirs is not None:
        _require_fork(fork, ours, theirs)
    return _wait_for_pin(pins, ours, ()) or _leave_or_wait(
        tip,
        node_tip,
        ours,
        theirs,
        invalid=invalid,
        pinned=_lowest_violated(pins.required, pins.ours) is not None,
    )


def _require_fork(fork: Block | None, ours: Branch, theirs: Branch) -> None:
    """Check that the branches part where the fork was found."""
    if theirs.first.block_id != ours.first.block_id:
        raise _chain_changed(f"block {theirs.first.block_id} came instead of block {ours.first.block_id}")
    if theirs.first.hash == ours.first.hash:
        raise _chain_changed(f"block {ours.first.block_id}, above the fork, is ours on both branches")
    if fork is not None and theirs.first.prev_hash != fork.hash:
        raise _chain_changed(f"block {theirs.first.block_id} is not a child of the fork")


def _wait_for_pin(pins: Pins, ours: Branch | None, following: Sequence[Block]) -> Wait | None:
    """Wait if the node's chain has another block at a pinned height, or leaves ours below a pinned block."""
    their_hashes = {**pins.theirs, **{block.block_id: block.hash for block in following}}
    missing = _lowest_violated(pins.required, their_hashes)
    if missing is None and ours is not None:
        leaving = {at: block for at, block in pins.ours.items() if at >= ours.first.block_id}
        lost = (at for at, pin in pins.required.items() if leaving.get(at) == pin and at not in their_hashes)
        missing = min(lost, default=None)
    if missing is None and ours is None:  # the node is on our chain
        missing = _lowest_violated(pins.required, pins.ours)
    if missing is None:
        return None
    pinned = f"{missing} ({pins.required[missing]})"
    return Wait(
        _other_chain(f"its chain does not hold the pinned block {pinned}"),
        ours.first.block_id - 1 if ours is not None else None,
    )


def _lowest_violated(required: Mapping[int, str], hashes: Mapping[int, str]) -> int | None:
    """Return the lowest pinned height at which there is another block."""
    return min((at for at, pin in required.items() if hashes.get(at, pin) != pin), default=None)


def _extend(
    tip: Block | None, first_block_id: int, node_tip: int, confirmations: int, following: Sequence[Block]
) -> Plan:
    next_id = first_block_id if tip is None else tip.block_id + 1
    require_chain(following, next_id, tip)
    stable = tuple(block for block in following if block.block_id <= node_tip - confirmations)
    if stable:
        return Extend(stable)
    if node_tip < next_id:
        reason = f"waiting for block {next_id}: the node is at block {node_tip}"
    else:
        have = node_tip - next_id
        reason = f"at the stable tip: block {next_id} has {have} of {confirmations} confirmations"
    return Wait(Notice(reason, "waiting_for_block", block_id=next_id, node_block_id=node_tip), None)


def _other_chain(what: str) -> Notice:
    return Notice(f"waiting for the node: {what}", "waiting_for_chain")


def _leave_or_wait(
    tip: Block, node_tip: int, ours: Branch, theirs: Branch | None, *, invalid: bool, pinned: bool
) -> Plan:
    lowest = ours.first
    fork = lowest.block_id - 1
    if fork < 0:
        raise UsageError(
            "the node's genesis block differs from ours:"
            " choose a node of the same network, or another database"
        )
    has_more_work = theirs is not None and theirs.work > ours.work
    if has_more_work or invalid or pinned:
        parts_at_fork = theirs is None or theirs.first.prev_hash == lowest.prev_hash
        return Reorg(
            fork_block_id=fork,
            fork_hash=lowest.prev_hash if parts_at_fork else None,
            old_tip=tip,
            new_tip=None if theirs is None else theirs.last,
            cause="pin" if pinned else "work" if has_more_work else "invalid",
        )
    if theirs is None:
        return Wait(_other_chain(f"it is at block {node_tip}, we are at block {tip.block_id}"), fork)
    return Wait(
        _other_chain(
            f"above block {fork} it follows another branch with no more work than ours"
            f" (up to block {theirs.last.block_id}, we are at block {tip.block_id})"
        ),
        fork,
    )


def find_fork(tip_id: int, lowest_id: int, is_active: Callable[[int], bool]) -> int | None:
    """Find the highest of our blocks that is on the node's active chain; None: not even the lowest is.

    `is_active` answers for our block at one height. It is called for `tip_id`, then 1, 3, 7 … below, then by
    halves in between, never twice for a height: about twice the logarithm of the fork's depth.
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


def require_chain(headers: Sequence[Block], first_id: int, before: Block | None = None) -> None:
    """Check that headers follow `before` and each other from height `first_id` on.

    Raises NodeUnavailable.
    """
    if headers and headers[0].block_id != first_id:
        raise _chain_changed(f"block {headers[0].block_id} came instead of block {first_id}")
    if headers and before is not None and headers[0].prev_hash != before.hash:
        raise _chain_changed(f"block {first_id} is not a child of block {before.block_id}")
    for parent, child in pairwise(headers):
        if child.prev_hash != parent.hash or child.block_id != parent.block_id + 1:
            raise _chain_changed(f"block {child.block_id} is not a child of block {parent.block_id}")


def _chain_changed(what: str) -> NodeUnavailable:
    return NodeUnavailable(f"the node's chain changed while it was read ({what}): ask again")

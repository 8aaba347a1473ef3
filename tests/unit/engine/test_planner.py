"""The planner, one rule at a time."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.support.headers import HARD, grow
from virtualchain.bitcoin.header import branch_work, work
from virtualchain.engine.planner import Extend, Plan, Wait, find_fork, plan
from virtualchain.errors import MalformedBlock, NodeUnavailable, UsageError
from virtualchain.model import Block, Reorg

CHAIN = grow(None, 20, first=100)


def follow(tip: Block | None, following: Sequence[Block], *, node_tip: int = 119, k: int = 6) -> Plan:
    """Plan with our tip on the node's active chain."""
    return plan(tip=tip, first_block_id=100, node_tip=node_tip, confirmations=k, following=following)


def part(
    ours: Sequence[Block], theirs: Sequence[Block], *, invalid: bool = False, node_tip: int | None = None
) -> Plan:
    """Plan with our tip on another branch than the node's."""
    if node_tip is None:
        node_tip = theirs[-1].block_id if theirs else ours[0].block_id - 1
    return plan(
        tip=ours[-1],
        first_block_id=100,
        node_tip=node_tip,
        confirmations=6,
        following=None,
        ours=ours,
        theirs=theirs,
        invalid=invalid,
    )


def test_extend_takes_the_blocks_that_have_k_blocks_on_them() -> None:
    """With the node at 119 and K = 6, block 113 is the last."""
    assert follow(CHAIN[5], CHAIN[6:]) == Extend(tuple(CHAIN[6:14]))


def test_extend_at_zero_confirmations_goes_to_the_tip() -> None:
    """K = 0 takes a block as soon as it is there."""
    assert follow(CHAIN[5], CHAIN[6:], k=0) == Extend(tuple(CHAIN[6:]))


def test_extend_takes_a_batch_that_ends_below_the_stable_tip() -> None:
    """A source gives as many headers at once as it likes."""
    assert follow(CHAIN[0], CHAIN[1:4]) == Extend(tuple(CHAIN[1:4]))


def test_an_empty_tape_starts_with_the_first_block() -> None:
    """Whatever its parent is: nothing of ours lies below."""
    assert follow(None, CHAIN) == Extend(tuple(CHAIN[:14]))


def test_an_empty_tape_waits_for_a_first_block_that_is_to_come() -> None:
    """The reason names the block and where the node is."""
    assert follow(None, [], node_tip=41) == Wait("waiting for block 100: the node is at block 41", None)


def test_wait_at_the_stable_tip_counts_confirmations() -> None:
    """Block 114 has five blocks on it and needs six."""
    expected = Wait("at the stable tip: block 114 has 5 of 6 confirmations", None)
    assert follow(CHAIN[13], CHAIN[14:]) == expected


def test_wait_at_the_very_tip_names_the_block_to_come() -> None:
    """There is no block that could be confirmed."""
    assert follow(CHAIN[-1], [], k=0) == Wait("waiting for block 120: the node is at block 119", None)


def test_a_larger_k_than_before_waits() -> None:
    """What was taken with fewer confirmations stays taken."""
    assert follow(CHAIN[13], CHAIN[14:], k=10) == Wait(
        "at the stable tip: block 114 has 5 of 10 confirmations", None
    )


@pytest.mark.parametrize(
    "following",
    [
        CHAIN[7:],
        CHAIN[5:],
        [*CHAIN[6:8], *CHAIN[9:]],
        [CHAIN[6], *grow(CHAIN[5], 3, name="other")[1:]],
        grow(CHAIN[4], 4, name="other")[1:],
    ],
)
def test_headers_that_do_not_chain_up_are_asked_for_again(following: list[Block]) -> None:
    """A gap, a repeat, a switch of branches: the node's chain changed between two answers."""
    with pytest.raises(NodeUnavailable, match="changed while it was read"):
        follow(CHAIN[5], following)


def test_an_empty_tape_takes_no_other_first_block() -> None:
    """Headers that start one too late would leave a hole."""
    with pytest.raises(NodeUnavailable, match="block 101 came instead of block 100"):
        follow(None, CHAIN[1:])


def test_reorg_to_a_branch_with_more_work() -> None:
    """All that the engine needs to undo, and to report."""
    ours, theirs = grow(CHAIN[9], 3), grow(CHAIN[9], 4, name="theirs")
    assert part(ours, theirs) == Reorg(
        fork_block_id=109,
        fork_hash=CHAIN[9].hash,
        old_tip=ours[-1],
        new_tip=theirs[-1],
        cause="work",
    )


def test_reorg_to_a_shorter_branch_with_more_work() -> None:
    """Work decides, not height."""
    ours, theirs = grow(CHAIN[9], 100), grow(CHAIN[9], 1, bits=HARD)
    decided = part(ours, theirs)
    assert isinstance(decided, Reorg)
    assert decided.depth == 100
    assert decided.new_tip == theirs[0]


def test_work_counts_up_to_the_nodes_tip_and_not_to_the_stable_one() -> None:
    """None of the five blocks is stable at K = 6, and together they win."""
    assert isinstance(part(grow(CHAIN[9], 4), grow(CHAIN[9], 5, name="theirs")), Reorg)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_wait_for_a_branch_with_less_or_equal_work(n: int) -> None:
    """The node may still come back, or go ahead."""
    decided = part(grow(CHAIN[9], 3), grow(CHAIN[9], n, name="theirs"))
    assert isinstance(decided, Wait)
    assert decided.fork == 109
    assert (
        f"above block 109 it follows another branch with no more work than ours (up to block {109 + n}"
        in (decided.reason)
    )


def test_wait_for_a_node_that_lags_on_our_own_chain() -> None:
    """The fork is the node's own tip."""
    assert part(CHAIN[10:], []) == Wait(
        "waiting for the node: it is at block 109, we are at block 119", fork=109
    )


def test_reorg_where_the_node_calls_our_branch_invalid() -> None:
    """Its own branch has less work, and counts all the same."""
    ours, theirs = grow(CHAIN[9], 3), grow(CHAIN[9], 1, name="theirs")
    decided = part(ours, theirs, invalid=True)
    assert isinstance(decided, Reorg)
    assert decided.cause == "invalid"
    assert decided.new_tip == theirs[-1]


def test_reorg_to_an_invalidated_tip_without_a_replacement() -> None:
    """After a bare `invalidateblock` the node has no branch of its own."""
    assert part(CHAIN[18:], [], invalid=True) == Reorg(117, CHAIN[17].hash, CHAIN[19], None, cause="invalid")


def test_more_work_is_the_reason_even_where_ours_is_invalid() -> None:
    """The cause invalid marks the reorgs that work alone does not explain."""
    decided = part(grow(CHAIN[9], 1), grow(CHAIN[9], 2, name="theirs"), invalid=True)
    assert isinstance(decided, Reorg)
    assert decided.cause == "work"


def test_reorg_below_the_lowest_block_that_we_hold() -> None:
    """Work is compared over the same heights; nothing of ours stays, so no hash does."""
    theirs = grow(None, 21, first=100, name="theirs")
    theirs[0] = replace(theirs[0], prev_hash="ab" * 32)
    assert part(CHAIN, theirs) == Reorg(99, None, CHAIN[-1], theirs[-1], cause="work")


def test_another_genesis_is_refused() -> None:
    """Two networks have no common block: that is no reorg."""
    with pytest.raises(UsageError, match="genesis block differs from ours"):
        part(grow(None, 3), grow(None, 5, name="other"))


@pytest.mark.parametrize(
    "theirs", [grow(CHAIN[8], 5, name="theirs"), [*grow(CHAIN[9], 1), *grow(CHAIN[9], 4, name="b")[1:]]]
)
def test_a_branch_that_does_not_start_at_the_fork_or_breaks_is_asked_for_again(theirs: list[Block]) -> None:
    """The fork moved between two answers."""
    with pytest.raises(NodeUnavailable, match="changed while it was read"):
        part(grow(CHAIN[9], 3, name="ours"), theirs)


def test_a_tip_that_is_not_active_with_nothing_above_the_fork_is_asked_for_again() -> None:
    """The node left our chain and came back while it was asked."""
    with pytest.raises(NodeUnavailable, match="no block of ours lies above the fork"):
        plan(tip=CHAIN[5], first_block_id=100, node_tip=119, confirmations=6, following=None)


def test_a_branch_that_ends_elsewhere_than_in_our_tip_is_asked_for_again() -> None:
    """The fork was looked for below another tip."""
    with pytest.raises(NodeUnavailable, match="our tip is not on it"):
        plan(
            tip=CHAIN[19],
            first_block_id=100,
            node_tip=119,
            confirmations=6,
            following=None,
            ours=CHAIN[10:19],
            theirs=grow(CHAIN[9], 20, name="theirs"),
        )


def test_a_header_with_the_wrong_height_is_asked_for_again() -> None:
    """Its parent is right, its place is not."""
    misplaced = replace(CHAIN[7], block_id=108)
    with pytest.raises(NodeUnavailable, match="block 108 is not a child of block 106"):
        follow(CHAIN[5], [CHAIN[6], misplaced])


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0x1D00FFFF, 0x100010001),  # mainnet and testnet genesis
        (0x207FFFFF, 2),  # regtest
        (0x2100FFFF, 1),
        (0x220000FF, 1),
        (0x01010000, 2**255),
        (0x02000100, 2**255),
        (0x03000001, 2**255),
        (0x180455D2, 2**256 // (0x0455D2 * 2**168 + 1)),
    ],
)
def test_work_of_compact_targets(bits: int, expected: int) -> None:
    """Short exponents drop mantissa bytes, long ones may reach up to 256 bits."""
    assert work(bits) == expected


@pytest.mark.parametrize(
    "bits",
    [
        0,
        0x00FFFFFF,
        0x01003456,  # the mantissa is shifted out
        0x04800001,  # negative
        0x1D80FFFF,
        0x03000000,
        0x22000100,  # one bit too many
        0x2101FFFF,
        0xFF123456,
        -1,
        2**32 + 0x1D00FFFF,
        2**64,
    ],
)
def test_impossible_targets_are_refused(bits: int) -> None:
    """No header that a node accepts has one."""
    with pytest.raises(MalformedBlock, match="no target"):
        work(bits)


def test_branch_work_is_the_sum() -> None:
    """Nothing has no work."""
    assert branch_work([]) == 0
    assert branch_work([*grow(None, 3), *grow(None, 1, bits=HARD)]) == 3 * 2 + 256


@pytest.mark.parametrize(
    ("active_up_to", "found", "most"),
    [(1000, 1000, 1), (999, 999, 2), (998, 998, 4), (900, 900, 14), (0, 0, 20), (-1, None, 11)],
)
def test_the_fork_is_found_with_few_probes(active_up_to: int, found: int | None, most: int) -> None:
    """Near the tip at once, and at the other end of the tape in twice its logarithm."""
    probes: list[int] = []

    def is_active(block_id: int) -> bool:
        probes.append(block_id)
        return block_id <= active_up_to

    assert find_fork(1000, 0, is_active) == found
    assert len(probes) <= most
    assert len(set(probes)) == len(probes)


def test_an_empty_range_has_no_fork() -> None:
    """Nor is anything asked."""
    assert find_fork(5, 6, lambda _: pytest.fail("asked")) is None

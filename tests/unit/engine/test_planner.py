"""The planner, one rule at a time, on made-up headers and on real ones."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from tests.support.headers import HARD, grow
from tests.support.shared_data import shared
from virtualchain.bitcoin.header import branch_work, headers_from, read_header, work
from virtualchain.engine.planner import Branch, Extend, Pins, Plan, Wait, find_fork, plan
from virtualchain.errors import MalformedBlock, NodeUnavailable, UsageError
from virtualchain.model import Block, Reorg

CHAIN = grow(None, 20, first=100)


def plan_on_our_chain(
    tip: Block | None, following: Sequence[Block], *, node_tip: int = 119, k: int = 6
) -> Plan:
    """Plan with our tip on the node's active chain."""
    return plan(tip=tip, first_block_id=100, node_tip=node_tip, confirmations=k, following=following)


def plan_on_a_fork(ours: Sequence[Block], theirs: Sequence[Block], *, invalid: bool = False) -> Plan:
    """Plan with our tip on another branch than the node's."""
    return plan(
        tip=ours[-1],
        first_block_id=100,
        node_tip=theirs[-1].block_id if theirs else ours[0].block_id - 1,
        confirmations=6,
        following=None,
        ours=Branch.of(ours),
        theirs=Branch.of(theirs),
        invalid=invalid,
    )


def test_extend_takes_the_blocks_that_have_k_blocks_on_them() -> None:
    """With the node at block 119 and K = 6, block 113 is the last one taken."""
    assert plan_on_our_chain(CHAIN[5], CHAIN[6:]) == Extend(tuple(CHAIN[6:14]))


def test_extend_at_zero_confirmations_goes_to_the_tip() -> None:
    """With K = 0, a block is taken as soon as it exists."""
    assert plan_on_our_chain(CHAIN[5], CHAIN[6:], k=0) == Extend(tuple(CHAIN[6:]))


def test_extend_takes_a_batch_that_ends_below_the_stable_tip() -> None:
    """A source may return any number of headers at once."""
    assert plan_on_our_chain(CHAIN[0], CHAIN[1:4]) == Extend(tuple(CHAIN[1:4]))


def test_an_empty_tape_starts_with_the_first_block() -> None:
    """The first block is taken whatever its parent is, as nothing of ours is below it."""
    assert plan_on_our_chain(None, CHAIN) == Extend(tuple(CHAIN[:14]))


def test_an_empty_tape_waits_for_a_first_block_in_the_future() -> None:
    """The reason names the block and the node's height."""
    assert plan_on_our_chain(None, [], node_tip=41) == Wait(
        "waiting for block 100: the node is at block 41", None
    )


def test_wait_at_the_stable_tip_counts_confirmations() -> None:
    """Block 114 has five blocks on top of it and needs six."""
    expected = Wait("at the stable tip: block 114 has 5 of 6 confirmations", None)
    assert plan_on_our_chain(CHAIN[13], CHAIN[14:]) == expected


def test_wait_at_the_node_tip_names_the_next_block() -> None:
    """There is no further block that could be confirmed."""
    assert plan_on_our_chain(CHAIN[-1], [], k=0) == Wait(
        "waiting for block 120: the node is at block 119", None
    )


def test_a_larger_k_than_before_waits() -> None:
    """Blocks that were taken with fewer confirmations stay."""
    assert plan_on_our_chain(CHAIN[13], CHAIN[14:], k=10) == Wait(
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
def test_headers_that_do_not_connect_are_requested_again(following: list[Block]) -> None:
    """After a gap, a repeat or a switch of branches, the node's chain changed between two replies."""
    with pytest.raises(NodeUnavailable, match="changed while it was read"):
        plan_on_our_chain(CHAIN[5], following)


def test_an_empty_tape_takes_no_other_first_block() -> None:
    """Headers that start one block too late would leave a gap."""
    with pytest.raises(NodeUnavailable, match="block 101 came instead of block 100"):
        plan_on_our_chain(None, CHAIN[1:])


def test_reorg_to_a_branch_with_more_work() -> None:
    """The plan has all that the engine needs to undo the blocks and to report it."""
    ours, theirs = grow(CHAIN[9], 3), grow(CHAIN[9], 4, name="theirs")
    assert plan_on_a_fork(ours, theirs) == Reorg(
        fork_block_id=109,
        fork_hash=CHAIN[9].hash,
        old_tip=ours[-1],
        new_tip=theirs[-1],
        cause="work",
    )


def test_reorg_to_a_shorter_branch_with_more_work() -> None:
    """Work decides, not height."""
    ours, theirs = grow(CHAIN[9], 100), grow(CHAIN[9], 1, bits=HARD)
    result = plan_on_a_fork(ours, theirs)
    assert isinstance(result, Reorg)
    assert result.depth == 100
    assert result.new_tip == theirs[0]


def test_work_counts_up_to_the_node_tip_and_not_to_the_stable_one() -> None:
    """None of the five blocks is stable with K = 6, yet together they win."""
    assert isinstance(plan_on_a_fork(grow(CHAIN[9], 4), grow(CHAIN[9], 5, name="theirs")), Reorg)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_wait_for_a_branch_with_less_or_equal_work(n: int) -> None:
    """The node may still return to our branch, or extend its own."""
    result = plan_on_a_fork(grow(CHAIN[9], 3), grow(CHAIN[9], n, name="theirs"))
    assert isinstance(result, Wait)
    assert result.fork == 109
    assert (
        f"above block 109 it follows another branch with no more work than ours (up to block {109 + n}"
        in (result.reason)
    )


def test_wait_for_a_node_that_lags_on_our_own_chain() -> None:
    """If the node is only behind, the fork is its own tip."""
    assert plan_on_a_fork(CHAIN[10:], []) == Wait(
        "waiting for the node: it is at block 109, we are at block 119", fork=109
    )


def test_reorg_if_the_node_considers_our_branch_invalid() -> None:
    """The node's branch is followed although it has less work."""
    ours, theirs = grow(CHAIN[9], 3), grow(CHAIN[9], 1, name="theirs")
    result = plan_on_a_fork(ours, theirs, invalid=True)
    assert isinstance(result, Reorg)
    assert result.cause == "invalid"
    assert result.new_tip == theirs[-1]


def test_reorg_to_an_invalidated_tip_without_a_replacement() -> None:
    """After a mere `invalidateblock`, the node has no branch of its own."""
    assert plan_on_a_fork(CHAIN[18:], [], invalid=True) == Reorg(
        117, CHAIN[17].hash, CHAIN[19], None, cause="invalid"
    )


def test_more_work_is_the_cause_even_if_ours_is_invalid() -> None:
    """The cause is `invalid` only if work alone does not explain the reorg."""
    result = plan_on_a_fork(grow(CHAIN[9], 1), grow(CHAIN[9], 2, name="theirs"), invalid=True)
    assert isinstance(result, Reorg)
    assert result.cause == "work"


def test_reorg_below_our_lowest_block() -> None:
    """Work is compared over the same heights; as none of our blocks stays, there is no fork hash."""
    theirs = grow(None, 21, first=100, name="theirs")
    theirs[0] = replace(theirs[0], prev_hash="ab" * 32)
    assert plan_on_a_fork(CHAIN, theirs) == Reorg(99, None, CHAIN[-1], theirs[-1], cause="work")


def test_another_genesis_is_refused() -> None:
    """Two networks have no common block, so this is not a reorg."""
    with pytest.raises(UsageError, match="genesis block differs from ours"):
        plan_on_a_fork(grow(None, 3), grow(None, 5, name="other"))


@pytest.mark.parametrize(
    "theirs", [grow(CHAIN[8], 5, name="theirs"), [*grow(CHAIN[9], 1), *grow(CHAIN[9], 4, name="b")[1:]]]
)
def test_a_branch_that_does_not_connect_to_the_fork_is_requested_again(theirs: list[Block]) -> None:
    """The fork moved between two replies."""
    with pytest.raises(NodeUnavailable, match="changed while it was read"):
        plan_on_a_fork(grow(CHAIN[9], 3, name="ours"), theirs)


def test_an_inactive_tip_with_nothing_above_the_fork_is_requested_again() -> None:
    """The node left our chain and came back between two replies."""
    with pytest.raises(NodeUnavailable, match="no block of ours lies above the fork"):
        plan(tip=CHAIN[5], first_block_id=100, node_tip=119, confirmations=6, following=None)


def test_a_branch_that_does_not_end_in_our_tip_is_requested_again() -> None:
    """The fork was searched for below another tip."""
    with pytest.raises(NodeUnavailable, match="our tip is not on it"):
        plan(
            tip=CHAIN[19],
            first_block_id=100,
            node_tip=119,
            confirmations=6,
            following=None,
            ours=Branch.of(CHAIN[10:19]),
            theirs=Branch.of(grow(CHAIN[9], 20, name="theirs")),
        )


def test_a_header_with_the_wrong_height_is_requested_again() -> None:
    """A header with the right parent and the wrong height does not connect."""
    misplaced = replace(CHAIN[7], block_id=108)
    with pytest.raises(NodeUnavailable, match="block 108 is not a child of block 106"):
        plan_on_our_chain(CHAIN[5], [CHAIN[6], misplaced])


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
    """Short exponents drop mantissa bytes; long ones may reach 256 bits."""
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
    """Bits that no valid header can have raise an error."""
    with pytest.raises(MalformedBlock, match="not a valid target"):
        work(bits)


def test_branch_work_is_the_sum() -> None:
    """The work of a branch is the sum of its blocks' work, and 0 without blocks."""
    assert branch_work([]) == 0
    assert branch_work([*grow(None, 3), *grow(None, 1, bits=HARD)]) == 3 * 2 + 256


@pytest.mark.parametrize(
    ("active_up_to", "fork", "most_probes"),
    [(1000, 1000, 1), (999, 999, 2), (998, 998, 4), (900, 900, 14), (0, 0, 20), (-1, None, 11)],
)
def test_the_fork_is_found_with_few_probes(active_up_to: int, fork: int | None, most_probes: int) -> None:
    """A fork near the tip takes a few probes, one at the tape's start twice the tape's logarithm."""
    probes: list[int] = []

    def is_active(block_id: int) -> bool:
        probes.append(block_id)
        return block_id <= active_up_to

    assert find_fork(1000, 0, is_active) == fork
    assert len(probes) <= most_probes
    assert len(set(probes)) == len(probes)


def test_an_empty_range_has_no_fork() -> None:
    """No block is probed in an empty range."""
    assert find_fork(5, 6, lambda _: pytest.fail("probed a block")) is None


# Pinned blocks


OURS, THEIRS = grow(CHAIN[9], 5), grow(CHAIN[9], 3, name="theirs")


def hashes(*blocks: Block) -> dict[int, str]:
    """Return the blocks' hashes by height."""
    return {block.block_id: block.hash for block in blocks}


def plan_with_pins(
    pins: Mapping[int, str],
    *,
    following: Sequence[Block] | None = None,
    ours: Sequence[Block] = (),
    theirs: Sequence[Block] = (),
) -> Plan:
    """Plan as the engine does: on our branch with `following`, after a fork with `ours` and `theirs`."""
    node = [*CHAIN[:10], *(theirs if following is None else following)]
    tape = [*CHAIN[:10], *ours]
    return plan(
        tip=tape[-1],
        first_block_id=100,
        node_tip=node[-1].block_id,
        confirmations=0,
        following=following,
        ours=Branch.of(ours),
        theirs=Branch.of(theirs),
        pins=Pins(
            pins,
            {at: block for at, block in hashes(*tape).items() if at in pins},
            {at: block for at, block in hashes(*node).items() if at in pins},
        ),
    )


def test_a_chain_with_the_pinned_block_is_followed() -> None:
    """The pinned block may be below our tip, among the next blocks, or in the future."""
    for pinned in (hashes(CHAIN[3]), hashes(CHAIN[12]), {500: "ab" * 32}):
        assert plan_with_pins(pinned, following=CHAIN[10:]) == Extend(tuple(CHAIN[10:]))


@pytest.mark.parametrize("at", [110, 112, 119])
def test_a_chain_with_another_block_at_the_pinned_height_is_not_followed(at: int) -> None:
    """Not even its first blocks are taken, as they may be on either side of the fork."""
    waits = plan_with_pins({at: "ab" * 32}, following=CHAIN[10:])
    assert isinstance(waits, Wait)
    assert f"pinned block {at} ({'ab' * 32})" in waits.reason


def test_our_branch_is_kept_against_one_without_the_pinned_block() -> None:
    """This also holds if the node's branch does not reach the pinned height yet."""
    long = grow(CHAIN[9], 9, name="theirs")
    for theirs in (long, grow(CHAIN[9], 1, name="theirs")):
        assert isinstance(plan_with_pins(hashes(OURS[2]), ours=OURS, theirs=theirs), Wait)
    assert isinstance(plan_with_pins(hashes(CHAIN[4]), ours=OURS, theirs=long), Reorg)


def test_our_branch_is_left_for_the_pinned_block_whatever_its_work() -> None:
    """The node's chain has less work than ours, but it has the pinned block."""
    result = plan_with_pins(hashes(THEIRS[1]), ours=OURS, theirs=THEIRS)
    assert isinstance(result, Reorg)
    assert (result.cause, result.fork_block_id, result.depth) == ("pin", 109, 5)


def test_neither_side_has_the_pinned_block() -> None:
    """Nothing is undone for another chain without the pinned block."""
    assert isinstance(plan_with_pins({111: "ab" * 32}, ours=OURS, theirs=grow(CHAIN[9], 9, name="x")), Wait)


def test_a_tape_without_the_pinned_block_is_not_extended() -> None:
    """While the node is on our branch and below the pinned height, there is no right block to take."""
    pins = Pins({111: "ab" * 32}, hashes(OURS[1]), {})
    waits = plan(tip=OURS[-1], first_block_id=100, node_tip=114, confirmations=0, following=[], pins=pins)
    assert isinstance(waits, Wait)
    assert "pinned block 111" in waits.reason


# Real headers: retargets, an orphan, minimum-difficulty blocks


FILES = [
    ("mainnet_576576_578692.bin", 576576),
    ("signet_0_2015.bin", 0),
    ("testnet3_0_10000.bin", 0),
]


def real_headers(name: str, first_block_id: int) -> list[Block]:
    """Read a file of contiguous headers from the shared data."""
    return headers_from(first_block_id, shared(f"headers/{name}").read_bytes())


@pytest.mark.parametrize(("name", "first_block_id"), FILES)
def test_every_hash_is_below_the_target_of_its_bits(name: str, first_block_id: int) -> None:
    """As a hash is at most the target, hash times work is below 2^256."""
    for block in real_headers(name, first_block_id):
        assert int(block.hash, 16) * work(block.bits) < 2**256


@pytest.mark.parametrize(("name", "first_block_id"), FILES)
def test_a_tape_follows_real_headers_to_the_stable_tip(name: str, first_block_id: int) -> None:
    """Real headers extend an empty tape, then the tape's own tip."""
    headers = real_headers(name, first_block_id)
    tip_id = headers[-1].block_id
    first = plan(
        tip=None,
        first_block_id=first_block_id,
        node_tip=tip_id,
        confirmations=6,
        following=headers[:1000],
    )
    assert first == Extend(tuple(headers[:1000]))
    rest = plan(
        tip=headers[999],
        first_block_id=first_block_id,
        node_tip=tip_id,
        confirmations=6,
        following=headers[1000:],
    )
    assert rest == Extend(tuple(headers[1000:-6]))


def test_work_changes_at_a_retarget_and_only_there() -> None:
    """On mainnet, work changes at multiples of 2016 only."""
    headers = real_headers("mainnet_576576_578692.bin", 576576)
    changes = [child.block_id for parent, child in pairwise(headers) if parent.bits != child.bits]
    assert changes == [578592]
    before, after = work(headers[0].bits), work(headers[-1].bits)
    assert branch_work(headers) == 2016 * before + 101 * after


def test_minimum_difficulty_blocks_do_not_outweigh_a_real_one() -> None:
    """Testnet3 allows easy blocks after 20 minutes; many of them have less work than one other."""
    headers = real_headers("testnet3_0_10000.bin", 0)
    hard = max(headers, key=lambda block: work(block.bits))
    easy = [block for block in headers if block.bits == 0x1D00FFFF and block.block_id > 2016]
    assert easy
    assert work(hard.bits) > work(easy[0].bits) == 0x100010001
    heavy = work(hard.bits) // work(easy[0].bits)
    assert branch_work(easy[:heavy]) <= work(hard.bits) < branch_work(easy[: heavy + 1])


def test_an_orphan_of_equal_work_waits_and_one_block_more_reorgs() -> None:
    """Mainnet's orphan 437478, after a retarget, lost to its sibling when 437479 came."""
    cases: dict[str, Any] = json.loads(shared("headers/headersReorgAndRetarget.json").read_text())

    def block(case: dict[str, Any]) -> Block:
        header = read_header(case["height"], bytes.fromhex(case["hex"][2:]))
        assert header.hash == case["digest"][2:]
        return header

    orphan = block(cases["orphan_437478"])
    chain = [block(case) for case in [*cases["preRetargetChain"], *cases["postRetargetChain"]]]
    fork = next(header for header in chain if header.hash == orphan.prev_hash)
    theirs = chain[chain.index(fork) + 1 :]
    assert [header.block_id for header in theirs] == [437478, 437479]
    first = plan_on_a_fork([orphan], theirs[:1])
    assert isinstance(first, Wait)
    assert first.fork == 437477
    assert plan_on_a_fork([orphan], theirs) == Reorg(437477, fork.hash, orphan, theirs[-1], cause="work")

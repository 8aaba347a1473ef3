"""The planner and pinned blocks: which chains are followed, left, or waited for."""

from collections.abc import Mapping, Sequence

import pytest

from tests.support.headers import grow
from virtualchain.engine.planner import Extend, Pins, Plan, Wait, plan
from virtualchain.model import Block, Reorg

CHAIN = grow(None, 20, first=100)
OURS, THEIRS = grow(CHAIN[9], 5), grow(CHAIN[9], 3, name="theirs")


def hashes(*blocks: Block) -> dict[int, str]:
    """Return hashes by height."""
    return {block.block_id: block.hash for block in blocks}


def decide(
    pins: Mapping[int, str],
    *,
    following: Sequence[Block] | None = None,
    ours: Sequence[Block] = (),
    theirs: Sequence[Block] = (),
) -> Plan:
    """Plan as the engine does: on our branch with `following`, else parted into `ours` and `theirs`."""
    node = [*CHAIN[:10], *(theirs if following is None else following)]
    held = [*CHAIN[:10], *ours]
    return plan(
        tip=held[-1],
        first_block_id=100,
        node_tip=node[-1].block_id,
        confirmations=0,
        following=following,
        ours=ours,
        theirs=theirs,
        pins=Pins(
            pins,
            {at: block for at, block in hashes(*held).items() if at in pins},
            {at: block for at, block in hashes(*node).items() if at in pins},
        ),
    )


def test_a_chain_with_the_pinned_block_is_followed() -> None:
    """Below our tip, in what comes next, or still to come."""
    for pinned in (hashes(CHAIN[3]), hashes(CHAIN[12]), {500: "ab" * 32}):
        assert decide(pinned, following=CHAIN[10:]) == Extend(tuple(CHAIN[10:]))


@pytest.mark.parametrize("at", [110, 112, 119])
def test_a_chain_with_another_block_there_is_waited_for(at: int) -> None:
    """However near its first blocks are: on which side of the fork they lie is not known."""
    waits = decide({at: "ab" * 32}, following=CHAIN[10:])
    assert isinstance(waits, Wait)
    assert f"pinned block {at} ({'ab' * 32})" in waits.reason


def test_our_branch_is_not_left_for_one_without_the_pinned_block() -> None:
    """Also where the node's branch does not reach its height yet."""
    long = grow(CHAIN[9], 9, name="theirs")
    for theirs in (long, grow(CHAIN[9], 1, name="theirs")):
        assert isinstance(decide(hashes(OURS[2]), ours=OURS, theirs=theirs), Wait)
    assert isinstance(decide(hashes(CHAIN[4]), ours=OURS, theirs=long), Reorg)


def test_our_branch_is_left_for_the_pinned_block_whatever_its_work() -> None:
    """The node's chain has less work than ours, but the block that ours lacks."""
    decided = decide(hashes(THEIRS[1]), ours=OURS, theirs=THEIRS)
    assert isinstance(decided, Reorg)
    assert (decided.cause, decided.fork_block_id, decided.depth) == ("pin", 109, 5)


def test_neither_side_has_the_pinned_block() -> None:
    """Nothing is undone for a chain that is as wrong."""
    assert isinstance(decide({111: "ab" * 32}, ours=OURS, theirs=grow(CHAIN[9], 9, name="x")), Wait)


def test_a_tape_without_the_pinned_block_is_not_extended() -> None:
    """The node is on our branch, and too low to show the pinned block: there is nothing right to take."""
    pins = Pins({111: "ab" * 32}, hashes(OURS[1]), {})
    waits = plan(tip=OURS[-1], first_block_id=100, node_tip=114, confirmations=0, following=[], pins=pins)
    assert isinstance(waits, Wait)
    assert "pinned block 111" in waits.reason

"""Properties of the planner for all chains, branches and heights."""

from hypothesis import given
from hypothesis import strategies as st

from tests.support.headers import EASY, HARD, grow
from virtualchain.bitcoin.header import branch_work, work
from virtualchain.engine.planner import Branch, Extend, Wait, find_fork, plan
from virtualchain.errors import MalformedBlock, NodeUnavailable
from virtualchain.model import Block, Reorg

BITS = st.lists(st.sampled_from([EASY, 0x2003FFFF, HARD]), max_size=6)


def branch(root: Block, bits: list[int], name: str) -> list[Block]:
    """Make a branch on top of `root`, with one block for each item of `bits`."""
    blocks = [root]
    for block_bits in bits:
        blocks += grow(blocks[-1], 1, bits=block_bits, name=name)
    return blocks[1:]


@given(
    height=st.integers(0, 8),
    headers=st.integers(0, 12),
    node_tip=st.integers(0, 30),
    confirmations=st.integers(0, 8),
    swaps=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=1),
)
def test_extend_is_a_chain_of_stable_blocks_on_our_tip(
    height: int, headers: int, node_tip: int, confirmations: int, swaps: list[tuple[int, int]]
) -> None:
    """For headers in any order, the blocks that are taken form a chain on our tip."""
    chain = grow(None, height + headers + 1)
    tip, following = chain[height], chain[height + 1 :]
    for one, other in swaps:
        if max(one, other) < len(following):
            following[one], following[other] = following[other], following[one]
    try:
        result = plan(
            tip=tip,
            first_block_id=0,
            node_tip=node_tip,
            confirmations=confirmations,
            following=following,
        )
    except NodeUnavailable:
        assert following != chain[height + 1 :]
        return
    stable = [block for block in following if block.block_id + confirmations <= node_tip]
    if isinstance(result, Extend):
        assert list(result.blocks) == stable
        for parent, child in zip([tip, *result.blocks], result.blocks, strict=False):
            assert (child.prev_hash, child.block_id) == (parent.hash, parent.block_id + 1)
    else:
        assert isinstance(result, Wait)
        assert not stable
        assert result.reason


@given(our_bits=BITS.filter(bool), their_bits=BITS, invalid=st.booleans(), confirmations=st.integers(0, 8))
def test_reorg_exactly_for_more_work_or_an_invalid_branch(
    our_bits: list[int], their_bits: list[int], invalid: bool, confirmations: int
) -> None:
    """Any other branch is waited for, and a reorg names the fork and both tips."""
    [root] = grow(None, 1, first=50)
    ours, theirs = branch(root, our_bits, "ours"), branch(root, their_bits, "theirs")
    result = plan(
        tip=ours[-1],
        first_block_id=50,
        node_tip=50 + len(theirs),
        confirmations=confirmations,
        following=None,
        ours=Branch.of(ours),
        theirs=Branch.of(theirs),
        invalid=invalid,
    )
    has_more_work = branch_work(theirs) > branch_work(ours)
    if has_more_work or invalid:
        new_tip = theirs[-1] if theirs else None
        assert result == Reorg(50, root.hash, ours[-1], new_tip, cause="work" if has_more_work else "invalid")
    else:
        assert isinstance(result, Wait)
        assert result.fork == 50
        assert result.reason


@given(st.integers(0, 2**32 - 1))
def test_work_is_a_whole_number_of_hashes_or_an_error(bits: int) -> None:
    """Every compact target either has a work of 1 to 2^255 or raises an error."""
    try:
        assert 1 <= work(bits) <= 2**255
    except MalformedBlock as error:
        assert "target" in str(error)  # noqa: PT017 -- both outcomes are right, for other bits


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(-1, 5001))
def test_the_fork_is_found_from_any_tip(lowest: int, length: int, active_up_to: int) -> None:
    """No block is probed twice or outside the tape, and about twice the logarithm of the depth suffices."""
    tip = lowest + length - 1
    probes: list[int] = []

    def is_active(block_id: int) -> bool:
        probes.append(block_id)
        return block_id <= active_up_to

    fork = find_fork(tip, lowest, is_active)
    assert fork == (min(tip, active_up_to) if length and active_up_to >= lowest else None)
    assert all(lowest <= probe <= tip for probe in probes)
    assert len(set(probes)) == len(probes)
    depth = tip - (lowest if fork is None else fork)
    assert len(probes) <= 2 + 2 * (depth + 1).bit_length()

"""The index of blocks: heights, work and the active chain, in whatever order blocks are seen."""

import random
import struct
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualchain.bitcoin.files.index import NONE, BlockIndex, Branch, Place
from virtualchain.bitcoin.header import sha256d, work

EASY, HARD = 0x207FFFFF, 0x1F7FFFFF
ZERO = bytes(32)


def header(parent: bytes, nonce: int = 0, bits: int = EASY) -> bytes:
    """Write a header behind a parent's hash."""
    return struct.pack("<i32s32sIII", 1, parent, ZERO, 0, bits, nonce)


def chain_of(length: int, parent: bytes = ZERO, nonce: int = 0, bits: int = EASY) -> list[bytes]:
    """Write headers that stand one on the other."""
    headers = []
    for _ in range(length):
        headers.append(header(parent, nonce, bits))
        parent = sha256d(headers[-1])
    return headers


def fill(index: BlockIndex, headers: Iterable[bytes]) -> list[int]:
    """Add headers, each at a place of its own, and give their numbers."""
    for each in headers:
        index.add(each, Place(0, 1000 * len(index), 100))
    return [number for each in headers if (number := index.find(sha256d(each))) is not None]


def anchored(headers: list[bytes]) -> BlockIndex:
    """Make an index whose first block is the genesis block."""
    index = BlockIndex()
    fill(index, headers)
    index.anchor(0, 0)
    return index


def follow(index: BlockIndex) -> list[bytes]:
    """Activate the best block, and give the chain's hashes."""
    best = next(index.better(), None)
    if best is not None:
        index.activate(best)
    chain: list[bytes] = []
    while (number := index.active(len(chain))) is not None:
        assert index.height(number) == len(chain)
        chain.append(index.hash(number))
    return chain


def test_the_chain_is_followed_as_it_grows() -> None:
    """Each block knows its place, height and work; blocks that are not there are not found."""
    headers = chain_of(5)
    index = anchored(headers[:3])
    assert follow(index) == [sha256d(each) for each in headers[:3]]
    fill(index, headers[3:])
    assert next(index.better()) == 4
    assert follow(index) == [sha256d(each) for each in headers]
    assert list(index.better()) == []
    assert index.place(4) == Place(0, 4000, 100)
    assert index.work(4) == 5 * work(EASY)
    assert index.find(b"\x11" * 32) is None
    assert index.active(5) is None
    assert index.active(-1) is None


def test_the_most_work_counts_and_not_the_most_blocks() -> None:
    """Two hard blocks beat four easy ones; the way back is taken when more come."""
    common = chain_of(3)
    fork = sha256d(common[2])
    easy, hard = chain_of(4, fork), chain_of(2, fork, bits=HARD)
    index = anchored(common + easy)
    assert follow(index)[3:] == [sha256d(each) for each in easy]
    fill(index, hard)
    assert follow(index)[3:] == [sha256d(each) for each in hard]
    assert [index.is_active(number) for number in range(9)] == [True] * 3 + [False] * 4 + [True] * 2


def test_of_equal_work_the_first_seen_counts() -> None:
    """Also where the rival is linked earlier because its parent was."""
    common = chain_of(2)
    fork = sha256d(common[1])
    first, second = chain_of(2, fork, nonce=1), chain_of(2, fork, nonce=2)
    index = anchored(common + first)
    follow(index)
    fill(index, second)
    assert list(index.better()) == []
    unordered = anchored([*common, first[1], *second, first[0]])
    assert follow(unordered)[2:] == [sha256d(each) for each in first]


def test_better_blocks_come_best_first() -> None:
    """So that the next one can be tried where one is refused; those without an anchor below are left out."""
    headers, stranger = chain_of(6), chain_of(9, b"\x22" * 32)
    index = anchored([headers[0], *stranger, *headers[1:]])
    rival = fill(index, [header(sha256d(headers[3]), 7)])[0]
    numbers = [index.find(sha256d(each)) for each in headers]
    assert list(index.better()) == [numbers[5], numbers[4], rival, *numbers[3:0:-1]]
    index.activate(rival)
    assert list(index.better()) == [numbers[5]]
    assert index.height(1) == NONE


def test_a_block_seen_twice_lies_where_it_was_seen_last() -> None:
    """It stays one block, seen when it was first."""
    headers = chain_of(3)
    index = anchored(headers)
    index.add(headers[1], Place(7, 5_000_000_000, 300))
    assert len(index) == 3
    assert index.place(1) == Place(7, 5_000_000_000, 300)


def test_bytes_that_are_no_header_are_passed_over() -> None:
    """A target that no block can have."""
    index = anchored(chain_of(1))
    for bits in (0, 0x01000000, 0x20FFFFFF, 0xFFFFFFFF):
        fill(index, [header(ZERO, 1, bits)])
    assert len(index) == 1


def test_absurd_targets_do_no_harm() -> None:
    """Work of 2^255 a block is summed like any other."""
    headers = chain_of(40, bits=0x03000001)
    index = anchored(headers)
    assert index.work(39) == 40 * work(0x03000001)


def test_siblings_are_known() -> None:
    """Of blocks with a parent, and of lowest ones."""
    common = chain_of(2)
    rival = header(sha256d(common[0]), 9)
    index = anchored(common)
    assert not index.has_siblings(1)
    fill(index, [rival])
    assert index.has_siblings(1)
    assert index.has_siblings(2)
    assert not index.has_siblings(0)
    fill(index, [header(ZERO, 5)])
    assert index.has_siblings(0)


def test_ancestors_are_found_on_either_branch() -> None:
    """Above the fork the branch's own, below it the chain's."""
    common, longer = chain_of(3), chain_of(3, nonce=1)
    longer = chain_of(4, sha256d(common[2]), 1)
    shorter = chain_of(3, sha256d(common[2]), 2)
    index = anchored(common + longer)
    fill(index, shorter)
    follow(index)
    tip = index.find(sha256d(shorter[2]))
    assert tip is not None
    assert [index.ancestor(tip, height) for height in range(7)] == [0, 1, 2, 7, 8, 9, None]
    assert [index.ancestor(6, height) for height in (0, 4, 6, 7)] == [0, 4, 6, None]


def test_branches_without_a_parent() -> None:
    """Each with its best tip; the chain can then start at one of them, at any height."""
    one, two = chain_of(4, b"\x11" * 32), chain_of(3, b"\x22" * 32, bits=HARD)
    index = BlockIndex()
    fill(index, [*one, *two, header(sha256d(one[1]), 5)])
    assert list(index.branches()) == [
        Branch(root=0, tip=3, work=4 * work(EASY), depth=3),
        Branch(root=4, tip=6, work=3 * work(HARD), depth=2),
    ]
    index.anchor(4, 700_000)
    index.activate(next(index.better()))
    assert (index.base, index.height(index.tip)) == (700_000, 700_002)
    assert [index.active(height) for height in (699_999, 700_000, 700_002, 700_003)] == [None, 4, 6, None]


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_the_order_of_blocks_changes_nothing(seed: int, length: int) -> None:
    """Shuffled behind the genesis block, a tree gives the heights and the work of an ordered one."""
    rng = random.Random(seed)
    headers = chain_of(1)
    for nonce in range(length):
        headers.append(header(sha256d(rng.choice(headers)), nonce, rng.choice([EASY, HARD])))
    ordered = anchored(headers)
    shuffled = anchored([headers[0], *rng.sample(headers[1:], length)])
    tip = follow(ordered)[-1]
    for each in headers:
        here, there = ordered.find(sha256d(each)), shuffled.find(sha256d(each))
        assert here is not None
        assert there is not None
        assert ordered.height(here) == shuffled.height(there) != NONE
        assert ordered.work(here) == shuffled.work(there)
    best = next(shuffled.better())
    best_work = shuffled.work(best)
    found = ordered.find(tip)
    assert found is not None
    assert best_work == ordered.work(found)


def test_memory_is_some_bytes_a_block() -> None:
    """A chain of a million blocks fits: nothing is kept of a block but its row."""
    headers = chain_of(6_000)
    tracemalloc.start()
    index = anchored(headers)
    follow(index)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 150 * len(headers)


@pytest.mark.parametrize("count", [510, 513, 5000])
def test_every_block_is_found_when_the_table_grows(count: int) -> None:
    """None is lost, none is taken for another."""
    headers = chain_of(count)
    index = anchored(headers)
    assert [index.find(sha256d(each)) for each in headers] == list(range(count))

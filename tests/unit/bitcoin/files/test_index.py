"""The index of blocks: heights, work and the active chain, whatever the order in which blocks are seen."""

import random
import struct
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualchain.bitcoin.files.index import NONE, BlockIndex, Branch, Place
from virtualchain.bitcoin.header import sha256d, work
from virtualchain.bitcoin.networks import network

EASY, HARD = 0x207FFFFF, 0x1F7FFFFF
ZERO = bytes(32)


def header(parent: bytes, nonce: int = 0, bits: int = EASY) -> bytes:
    """Write a header on top of a parent."""
    return struct.pack("<i32s32sIII", 1, parent, ZERO, 0, bits, nonce)


def chain_of(length: int, parent: bytes = ZERO, nonce: int = 0, bits: int = EASY) -> list[bytes]:
    """Write headers that form a chain."""
    headers = []
    for _ in range(length):
        headers.append(header(parent, nonce, bits))
        parent = sha256d(headers[-1])
    return headers


def fill(index: BlockIndex, headers: Iterable[bytes]) -> list[int]:
    """Add headers, each at its own place, and return their numbers."""
    for each in headers:
        index.add(each, Place(0, 1000 * len(index), 100))
    return [number for each in headers if (number := index.find(sha256d(each))) is not None]


def anchored(headers: list[bytes]) -> BlockIndex:
    """Make an index whose anchor is the first of these headers, at height 0."""
    index = BlockIndex(network("regtest"))
    fill(index, headers)
    index.set_anchor(0, 0)
    return index


def follow(index: BlockIndex) -> list[bytes]:
    """Activate the best block, and return the chain's hashes."""
    best = next(index.better_tips(), None)
    if best is not None:
        index.activate(best)
    chain: list[bytes] = []
    while (number := index.active(len(chain))) is not None:
        assert index.height(number) == len(chain)
        chain.append(index.hash(number))
    return chain


def test_the_chain_is_followed_as_it_grows() -> None:
    """Each block has its place, height and work; unknown blocks are not found."""
    headers = chain_of(5)
    index = anchored(headers[:3])
    assert follow(index) == [sha256d(each) for each in headers[:3]]
    fill(index, headers[3:])
    assert next(index.better_tips()) == 4
    assert follow(index) == [sha256d(each) for each in headers]
    assert list(index.better_tips()) == []
    assert index.place(4) == Place(0, 4000, 100)
    assert index.work(4) == 5 * work(EASY)
    assert index.find(b"\x11" * 32) is None
    assert index.active(5) is None
    assert index.active(-1) is None


def test_the_most_work_counts_not_the_most_blocks() -> None:
    """Two difficult blocks outweigh four easy ones, and replace them on the active chain."""
    common = chain_of(3)
    fork = sha256d(common[2])
    easy, hard = chain_of(4, fork), chain_of(2, fork, bits=HARD)
    index = anchored(common + easy)
    assert follow(index)[3:] == [sha256d(each) for each in easy]
    fill(index, hard)
    assert follow(index)[3:] == [sha256d(each) for each in hard]
    assert [index.is_active(number) for number in range(9)] == [True] * 3 + [False] * 4 + [True] * 2


def test_of_equal_work_the_first_seen_counts() -> None:
    """This holds even if the rival is linked earlier because its parent was."""
    common = chain_of(2)
    fork = sha256d(common[1])
    first, second = chain_of(2, fork, nonce=1), chain_of(2, fork, nonce=2)
    index = anchored(common + first)
    follow(index)
    fill(index, second)
    assert list(index.better_tips()) == []
    unordered = anchored([*common, first[1], *second, first[0]])
    assert follow(unordered)[2:] == [sha256d(each) for each in first]


def test_better_blocks_come_best_first() -> None:
    """If one is rejected, the next can be tried; blocks that do not descend from the anchor are left out."""
    headers, stranger = chain_of(6), chain_of(9, b"\x22" * 32)
    index = anchored([headers[0], *stranger, *headers[1:]])
    rival = fill(index, [header(sha256d(headers[3]), 7)])[0]
    numbers = [index.find(sha256d(each)) for each in headers]
    assert list(index.better_tips()) == [numbers[5], numbers[4], rival, *numbers[3:0:-1]]
    index.activate(rival)
    assert list(index.better_tips()) == [numbers[5]]
    assert index.height(1) == NONE


def test_a_block_seen_twice_is_where_it_was_seen_last() -> None:
    """It is still one block, and keeps its number."""
    headers = chain_of(3)
    index = anchored(headers)
    index.add(headers[1], Place(7, 5_000_000_000, 300))
    assert len(index) == 3
    assert index.place(1) == Place(7, 5_000_000_000, 300)


def test_bytes_that_are_not_a_header_are_ignored() -> None:
    """Their target is one that no block can have."""
    index = anchored(chain_of(1))
    for bits in (0, 0x01000000, 0x20FFFFFF, 0xFFFFFFFF):
        fill(index, [header(ZERO, 1, bits)])
    assert len(index) == 1


def test_absurd_targets_do_no_harm() -> None:
    """Work of 2^255 per block is summed like any other."""
    headers = chain_of(40, bits=0x03000001)
    index = anchored(headers)
    assert index.work(39) == 40 * work(0x03000001)


def test_siblings_are_known() -> None:
    """They are known for blocks with a parent and for those without."""
    common = chain_of(2)
    rival = header(sha256d(common[0]), 9)
    index = anchored(common)
    assert index.siblings(1) == []
    fill(index, [rival])
    assert (index.siblings(1), index.siblings(2)) == ([2], [1])
    assert index.siblings(0) == []
    assert sorted(index.children(0)) == [1, 2]
    fill(index, [header(ZERO, 5)])
    assert (index.siblings(0), index.siblings(3)) == ([3], [0])


def test_ancestors_are_found_on_either_branch() -> None:
    """Above the fork they are the branch's own, and below it those of the active chain."""
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


def test_branches_without_a_known_parent() -> None:
    """Each has its best tip, and the chain can then start with one of them, at any height."""
    one, two = chain_of(4, b"\x11" * 32), chain_of(3, b"\x22" * 32, bits=HARD)
    index = BlockIndex(network("regtest"))
    fill(index, [*one, *two, header(sha256d(one[1]), 5)])
    assert list(index.branches()) == [
        Branch(root=0, tip=3, work=4 * work(EASY), depth=3),
        Branch(root=4, tip=6, work=3 * work(HARD), depth=2),
    ]
    index.set_anchor(4, 700_000)
    index.activate(next(index.better_tips()))
    assert (index.base, index.height(index.tip)) == (700_000, 700_002)
    assert [index.active(height) for height in (699_999, 700_000, 700_002, 700_003)] == [None, 4, 6, None]


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_the_order_of_blocks_changes_nothing(seed: int, length: int) -> None:
    """A shuffled tree has the same heights and work as an ordered one."""
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
    best = next(shuffled.better_tips())
    best_work = shuffled.work(best)
    tip_number = ordered.find(tip)
    assert tip_number is not None
    assert best_work == ordered.work(tip_number)


def test_memory_is_a_few_bytes_per_block() -> None:
    """A chain of a million blocks fits: only a row is kept of each block."""
    headers = chain_of(6_000)
    tracemalloc.start()
    index = anchored(headers)
    follow(index)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 150 * len(headers)


@pytest.mark.parametrize("count", [510, 513, 5000])
def test_every_block_is_found_when_the_table_grows(count: int) -> None:
    """No block is lost or mistaken for another."""
    headers = chain_of(count)
    index = anchored(headers)
    assert [index.find(sha256d(each)) for each in headers] == list(range(count))

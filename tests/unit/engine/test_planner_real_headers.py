"""The planner over headers that were really mined: retargets, an orphan, minimum-difficulty blocks."""

import json
from itertools import pairwise
from typing import Any

import pytest

from tests.support.shared_data import shared
from virtualchain.bitcoin.header import branch_work, headers_from, read_header, work
from virtualchain.engine.planner import Extend, Plan, Wait, plan
from virtualchain.model import Block, Reorg

FILES = [
    ("mainnet_576576_578692.bin", 576576),
    ("signet_0_2015.bin", 0),
    ("testnet3_0_10000.bin", 0),
]


def read(name: str, first_block_id: int) -> list[Block]:
    """Read a file of contiguous headers."""
    return headers_from(first_block_id, shared(f"headers/{name}").read_bytes())


def part(ours: list[Block], theirs: list[Block]) -> Plan:
    """Plan with our tip on another branch than the node's."""
    return plan(
        tip=ours[-1],
        first_block_id=ours[0].block_id,
        node_tip=theirs[-1].block_id,
        confirmations=6,
        following=None,
        ours=ours,
        theirs=theirs,
    )


@pytest.mark.parametrize(("name", "first_block_id"), FILES)
def test_every_hash_meets_the_target_that_its_bits_mean(name: str, first_block_id: int) -> None:
    """A hash is at most the target, so hash times work is below 2^256."""
    for block in read(name, first_block_id):
        assert int(block.hash, 16) * work(block.bits) < 2**256


@pytest.mark.parametrize(("name", "first_block_id"), FILES)
def test_a_tape_follows_real_headers_to_the_stable_tip(name: str, first_block_id: int) -> None:
    """From nothing, then from its own tip."""
    headers = read(name, first_block_id)
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
    """Mainnet: at heights that 2016 divides."""
    headers = read("mainnet_576576_578692.bin", 576576)
    changes = [child.block_id for parent, child in pairwise(headers) if parent.bits != child.bits]
    assert changes == [578592]
    before, after = work(headers[0].bits), work(headers[-1].bits)
    assert branch_work(headers) == 2016 * before + 101 * after


def test_minimum_difficulty_blocks_do_not_outweigh_a_real_one() -> None:
    """Testnet3 allows an easy block after twenty minutes: many of them are lighter than few others."""
    headers = read("testnet3_0_10000.bin", 0)
    hard = max(headers, key=lambda block: work(block.bits))
    easy = [block for block in headers if block.bits == 0x1D00FFFF and block.block_id > 2016]
    assert easy
    assert work(hard.bits) > work(easy[0].bits) == 0x100010001
    heavy = work(hard.bits) // work(easy[0].bits)
    assert branch_work(easy[:heavy]) <= work(hard.bits) < branch_work(easy[: heavy + 1])


def test_an_orphan_of_equal_work_waits_and_one_block_more_reorgs() -> None:
    """Mainnet's orphan 437478, just after a retarget: its sibling won when 437479 came."""
    cases: dict[str, Any] = json.loads(shared("headers/headersReorgAndRetarget.json").read_text())

    def block(case: dict[str, Any]) -> Block:
        found = read_header(case["height"], bytes.fromhex(case["hex"][2:]))
        assert found.hash == case["digest"][2:]
        return found

    orphan = block(cases["orphan_437478"])
    chain = [block(case) for case in [*cases["preRetargetChain"], *cases["postRetargetChain"]]]
    fork = next(found for found in chain if found.hash == orphan.prev_hash)
    theirs = chain[chain.index(fork) + 1 :]
    assert [found.block_id for found in theirs] == [437478, 437479]
    waited = part([orphan], theirs[:1])
    assert isinstance(waited, Wait)
    assert waited.fork == 437477
    assert part([orphan], theirs) == Reorg(437477, fork.hash, orphan, theirs[-1], cause="work")

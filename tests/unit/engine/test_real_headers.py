"""Real headers agree with all rules, and a real fork with an orphan is followed only to where the work is."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.support.shared_data import shared
from tests.unit.engine.test_look import MemoryTape, look_at
from virtualchain.bitcoin.difficulty import check_targets, check_times, check_work
from virtualchain.bitcoin.header import headers_from, read_header
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.source import BlockSource, Tip
from virtualchain.engine.look import Look
from virtualchain.engine.planner import Extend, Wait
from virtualchain.errors import MalformedBlock, MissingData
from virtualchain.model import Block, Reorg

MAINNET = network("mainnet")
Recorded = Mapping[str, Any]


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    """Read mainnet's headers around an adjustment, with the first one of the period and an orphan."""
    document: Recorded = json.loads(shared("headers/headersReorgAndRetarget.json").read_bytes())
    return document


def header(item: Recorded) -> Block:
    """Read a header; a mistake of the recording would show in its hash."""
    block = read_header(item["height"], bytes.fromhex(item["hex"][2:]))
    assert block.hash == item["digest"][2:]
    return block


def main_chain(recorded: Recorded) -> list[Block]:
    """Return blocks 437467 to 437479."""
    return [header(item) for part in ("preRetargetChain", "postRetargetChain") for item in recorded[part]]


def check(headers: Sequence[Block], earlier: Sequence[Block]) -> None:
    """Check headers against all rules."""
    known = {block.block_id: block for block in earlier}.get
    for block in headers:
        check_work(block, MAINNET)
    check_targets(headers, MAINNET, known)
    check_times(headers, MAINNET, known)


class RealHeaders:
    """Serves headers alone, as a source that starts somewhere."""

    network = MAINNET

    def __init__(self, chain: Sequence[Block]) -> None:
        self._chain = {block.block_id: block for block in chain}

    def __str__(self) -> str:
        return "real headers"

    def tip(self) -> Tip:
        """Return the last header."""
        last = max(self._chain)
        return Tip(last, self._chain[last].hash)

    def block_hash(self, block_id: int) -> str:
        """Return the hash at a height."""
        if block_id not in self._chain:
            raise MissingData(f"there is no block {block_id}")
        return self._chain[block_id].hash

    def headers_after(self, block_id: int, block_hash: str) -> list[Block] | None:
        """Return what follows; None if the block is not in the chain."""
        if block_id not in self._chain or self._chain[block_id].hash != block_hash:
            return None
        return [block for height, block in sorted(self._chain.items()) if height > block_id]

    def raw_block(self, block_hash: str) -> bytes:
        """Return a header."""
        return next(block.header for block in self._chain.values() if block.hash == block_hash)

    def is_invalid(self, block_id: int, block_hash: str) -> bool:
        """Return False."""
        del block_id, block_hash
        return False


def look(chain: Sequence[Block]) -> Look:
    """Look at a chain of headers; one confirmation is enough."""
    return Look(cast("BlockSource", RealHeaders(chain)), 0)


def test_a_real_adjustment_agrees(recorded: Recorded) -> None:
    """Its target follows from the first header of the period, and no other one passes."""
    chain, start = main_chain(recorded), header(recorded["oldPeriodStart"])
    assert [block.block_id for block in chain] == list(range(437_467, 437_480))
    assert start.block_id == 437_472 - 2016
    for cut in range(len(chain)):
        check(chain[cut:], [start, *chain[:cut]])
    at = 437_472 - 437_467
    assert chain[at].bits != chain[at - 1].bits
    for bits in (chain[at].bits + 1, chain[at].bits - 1, chain[at - 1].bits):
        with pytest.raises(MalformedBlock, match="block 437472 states the target"):
            check_targets([*chain[:at], replace(chain[at], bits=bits)], MAINNET, {start.block_id: start}.get)
    with pytest.raises(MalformedBlock, match="block 437479 states the time"):
        check_times([*chain[:-1], replace(chain[-1], time=chain[-7].time)], MAINNET, lambda _: None)


def test_a_real_orphan_is_left_and_not_returned_to(recorded: Recorded) -> None:
    """It has the rules' work, but one block less on top."""
    chain, orphan = main_chain(recorded), header(recorded["orphan_437478"])
    orphaned = [*chain[:-2], orphan]
    check(orphaned, [header(recorded["oldPeriodStart"])])
    assert orphan.prev_hash == chain[-3].hash
    assert orphan.hash != chain[-2].hash
    first = chain[0].block_id
    # The same work: the block that was first stays.
    waits = look_at(MemoryTape(orphaned), look(chain[:-1]), chain[-2].block_id, first)
    assert isinstance(waits, Wait)
    left = look_at(MemoryTape(orphaned), look(chain), chain[-1].block_id, first)
    assert isinstance(left, Reorg)
    assert (left.fork_block_id, left.old_tip, left.new_tip) == (437_477, orphan, chain[-1])
    stays = look_at(MemoryTape(chain), look(orphaned), orphan.block_id, first)
    assert isinstance(stays, Wait)
    taken = look_at(MemoryTape(chain[:-2]), look(orphaned), orphan.block_id, first)
    assert isinstance(taken, Extend)


def test_off_believes_a_header_without_work(recorded: Recorded) -> None:
    """Neither its work nor its target or time is looked at; that it follows the one before is."""
    chain = main_chain(recorded)
    last = chain[-1]
    raw = last.header[:68] + (1).to_bytes(4, "little") + (0x1D00FFFF).to_bytes(4, "little") + bytes(4)
    forged = read_header(last.block_id, raw)
    forgery = RealHeaders([*chain[:-1], forged])
    tape = MemoryTape(chain[:-1])
    with pytest.raises(MalformedBlock, match="no proof of work"):
        look_at(tape, Look(cast("BlockSource", forgery), 0), forged.block_id)
    believed = look_at(tape, Look(cast("BlockSource", forgery), 0, "off"), forged.block_id)
    assert isinstance(believed, Extend)
    assert list(believed.blocks) == [forged]


@pytest.mark.parametrize(
    ("file", "name", "first"),
    [
        ("mainnet_576576_578692", "mainnet", 576_576),
        ("signet_0_2015", "signet", 0),
        ("testnet3_0_10000", "testnet3", 0),
    ],
)
def test_each_kind_of_change_to_a_real_header_is_found(file: str, name: str, first: int) -> None:
    """Less work, another target, and an early time, in chains with adjustments and eased blocks."""
    on = network(name)
    headers = headers_from(first, shared(f"headers/{file}.bin").read_bytes())
    for at in (500, 1200, len(headers) - 1):
        block, before = headers[at], headers[:at]
        known = {each.block_id: each for each in before}.get
        check_targets([block], on, known)
        check_times([block], on, known)
        with pytest.raises(MalformedBlock, match="no proof of work"):
            check_work(replace(block, hash="f" * 64), on)
        with pytest.raises(MalformedBlock, match="states the target"):
            check_targets([replace(block, bits=block.bits - 1)], on, known)
        median = sorted(each.time for each in before[-11:])[5]
        with pytest.raises(MalformedBlock, match=f"must be later than {median}"):
            check_times([replace(block, time=median)], on, known)
        check_times([replace(block, time=median + 1)], on, known)

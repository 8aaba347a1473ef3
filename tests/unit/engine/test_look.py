"""Looking at a chain that changes between two questions, or whose headers claim work they do not have."""

import random
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.support.chain_source import ChainSource
from tests.unit.bitcoin.building import mined
from virtualchain.bitcoin.header import branch_work, read_header
from virtualchain.bitcoin.networks import Network, network
from virtualchain.bitcoin.source import Tip
from virtualchain.engine.look import Look
from virtualchain.engine.planner import Extend, Plan, Wait
from virtualchain.errors import MalformedBlock, MissingData, NodeError, NodeUnavailable
from virtualchain.model import Block, Reorg
from virtualchain.store.tape import Standing
from virtualchain.testing import ChainBuilder
from virtualchain.testing.tree import StoredBlock

if TYPE_CHECKING:
    from virtualchain.store.tape import Tape

K = 3
HARD = 0x200FFFFF
"""Eight times regtest's work."""


class MemoryTape:
    """The part of a tape that a look reads."""

    def __init__(self, blocks: Sequence[Block] = ()) -> None:
        self.held = list(blocks)
        self.pinned: dict[int, str] = {}

    def tip(self) -> Block | None:
        """Return the last block."""
        return self.held[-1] if self.held else None

    def bottom(self) -> Block | None:
        """Return the first block."""
        return self.held[0] if self.held else None

    def block(self, block_id: int) -> Block | None:
        """Return the block at a height."""
        return next((block for block in self.held if block.block_id == block_id), None)

    def blocks(self, first: int, last: int) -> list[Block]:
        """Return the blocks between two heights."""
        return [block for block in self.held if first <= block.block_id <= last]

    def work_above(self, block: Block) -> int:
        """Sum up what is above a block."""
        return branch_work(each for each in self.held if each.block_id > block.block_id)

    def pins(self) -> dict[int, str]:
        """Return the pinned blocks."""
        return self.pinned


def look_at(tape: MemoryTape, look: Look, node_tip: int, first: int = 0) -> Plan:
    """Make a plan for a tape in memory, as an engine does."""
    look.ask_ahead()
    standing = Standing(tape.tip(), tape.pins())
    return look.plan(cast("Tape", tape), standing, first_block_id=first, node_tip=lambda: Tip(node_tip, ""))


def branches() -> tuple[ChainBuilder, list[list[StoredBlock]]]:
    """Make three chains that part at different heights; the shortest has the most work."""
    builder = ChainBuilder(premine=30)
    chains = [list(builder.tree.chain)]
    builder.reorg(6, 12)
    chains.append(list(builder.tree.chain))
    builder.reorg(14, 5, bits=HARD)
    chains.append(list(builder.tree.chain))
    assert [len(chain) for chain in chains] == [31, 37, 28]
    return builder, chains


@pytest.fixture(scope="module")
def made() -> tuple[ChainBuilder, list[list[StoredBlock]]]:
    """Make the chains once."""
    return branches()


def blocks(chain: Sequence[StoredBlock], last: int | None = None) -> list[Block]:
    """Return a chain's headers up to a height."""
    return [stored.block for stored in chain if last is None or stored.height <= last]


# A chain that changes between two questions


def test_our_own_blocks_are_no_other_branch(made: tuple[ChainBuilder, list[list[StoredBlock]]]) -> None:
    """The node left our chain and came back while the fork was searched: it has not replaced anything."""
    builder, (ours, theirs, _) = made
    for back_at in range(1, 20):
        source = ChainSource(builder, theirs)
        questions = iter(range(100))

        def asked(_: str, source: ChainSource = source, at: int = back_at, count: Any = questions) -> None:
            if next(count) == at:
                source.chain = list(ours)

        source.asked = asked
        tape = MemoryTape(blocks(ours, 27))
        try:
            plan = look_at(tape, Look(source, K), len(theirs) - 1)
        except NodeUnavailable:
            continue
        assert not isinstance(plan, Reorg) or plan.new_tip == theirs[-1].block


def test_confirmations_count_on_the_chain_that_is_taken(
    made: tuple[ChainBuilder, list[list[StoredBlock]]],
) -> None:
    """The chain was longer when its height was asked: the blocks that it lost confirm nothing."""
    builder, (ours, _, _) = made
    for lost in range(8):
        source = ChainSource(builder, ours[: len(ours) - lost])
        plan = look_at(MemoryTape(blocks(ours, 20)), Look(source, K), len(ours) - 1)
        last = len(ours) - 1 - lost - K
        assert plan == Extend(tuple(blocks(ours, last)[21:])) if last > 20 else isinstance(plan, Wait)
    source = ChainSource(builder, ours[:20])
    plan = look_at(MemoryTape(blocks(ours, 19)), Look(source, K), len(ours) - 1)
    assert plan == Wait("waiting for block 20: the node is at block 19", None)


@pytest.mark.parametrize("k", [0, 1, 6, 7, 8, 20])
def test_more_confirmations_than_one_answer_has_headers(
    made: tuple[ChainBuilder, list[list[StoredBlock]]], k: int
) -> None:
    """As many answers are read as it takes; also for an empty tape."""
    builder, (ours, _, _) = made
    for held, first in ((blocks(ours, 4), 0), ([], 5)):
        tape, source = MemoryTape(held), ChainSource(builder, ours)
        source.page = 7
        while isinstance(plan := look_at(tape, Look(source, k), 30, first), Extend):
            tape.held += plan.blocks
        assert isinstance(plan, Wait)
        assert tape.held == blocks(ours, 30 - k)[0 if held else 5 :]


def test_a_chain_that_gets_shorter_while_the_fork_is_searched(
    made: tuple[ChainBuilder, list[list[StoredBlock]]],
) -> None:
    """A height above the tip is no error, but a block that is gone below it is."""
    builder, (ours, theirs, _) = made
    source = ChainSource(builder, theirs[:26])
    plan = look_at(MemoryTape(blocks(ours, 30)), Look(source, K), len(theirs) - 1)
    assert isinstance(plan, Wait)
    assert plan.fork == 24

    class Pruned(ChainSource):
        def block_hash(self, block_id: int) -> str:
            if block_id < 40:
                raise MissingData("pruned")
            return super().block_hash(block_id)

    with pytest.raises(MissingData):
        look_at(MemoryTape(blocks(ours, 30)), Look(Pruned(builder, theirs), K), len(theirs) - 1)


@pytest.mark.parametrize("seed", range(60))
def test_whenever_the_chain_changes_the_tape_stays_right(
    made: tuple[ChainBuilder, list[list[StoredBlock]]], seed: int
) -> None:
    """Blocks are taken only with K others on them, and undone only for more work on one chain."""
    builder, chains = made
    dice = random.Random(seed)
    versions = [chain[:end] for chain in chains for end in range(20, len(chain) + 1)]
    source = ChainSource(builder, dice.choice(versions))
    source.page = dice.choice([2, 7, 50])

    def asked(_: str) -> None:
        if dice.random() < 0.3:
            source.chain = list(dice.choice(versions))

    source.asked = asked
    tape = MemoryTape(blocks(dice.choice(chains), dice.randrange(10, 27)))
    look = Look(source, K)
    for _ in range(60):
        try:
            plan = look_at(tape, look, source.tip().block_id)
        except (NodeUnavailable, MissingData):
            continue
        if isinstance(plan, Extend):
            extended = [*tape.held, *plan.blocks]
            assert any(
                blocks(version)[: len(extended) + K][: len(extended)] == extended
                and len(version) >= len(extended) + K
                for version in versions
            )
            tape.held = extended
        elif isinstance(plan, Reorg):
            kept = tape.held[: plan.fork_block_id + 1]
            assert plan.fork_hash == kept[-1].hash
            assert any(_justifies(blocks(version), kept, tape.held, plan) for version in versions)
            tape.held = kept
    source.asked = lambda _: None
    source.chain = list(chains[2])
    while not isinstance(plan := look_at(tape, look, 27), Wait):
        tape.held = (
            [*tape.held, *plan.blocks] if isinstance(plan, Extend) else tape.held[: plan.fork_block_id + 1]
        )
    assert tape.held == blocks(chains[2])[: len(tape.held)]
    assert len(tape.held) > 27 - K


def _justifies(version: list[Block], kept: list[Block], held: list[Block], plan: Reorg) -> bool:
    """Check whether a version of the chain has more work than ours above the fork and ends in the new tip."""
    above, ours = version[len(kept) :], held[len(kept) :]
    return (
        version[: len(kept)] == kept
        and version[-1] == plan.new_tip
        and above[0] != ours[0]
        and branch_work(above) > branch_work(ours)
    )


def test_a_long_branch_is_read_once(made: tuple[ChainBuilder, list[list[StoredBlock]]]) -> None:
    """While it grows without getting the most work, only its new headers are read."""
    builder, (ours, theirs, _) = made
    source = ChainSource(builder, theirs[:29])
    asked: list[str] = []
    source.asked = asked.append
    tape, look = MemoryTape(blocks(ours, 29)), Look(source, K)
    for end in (29, 30, 30):
        source.chain = list(theirs[:end])
        asked.clear()
        plan = look_at(tape, look, end - 1)
        assert isinstance(plan, Wait)
        assert plan.fork == 24
        assert f"(up to block {end - 1}," in plan.reason
        assert asked.count("raw_block") == (end == 29)
    source.chain = list(theirs)
    plan = look_at(tape, look, len(theirs) - 1)
    assert isinstance(plan, Reorg)
    assert plan.new_tip == theirs[-1].block


def test_headers_are_asked_for_before_it_is_known_how_the_tape_stands(
    made: tuple[ChainBuilder, list[list[StoredBlock]]],
) -> None:
    """The answer counts if the tape ends as expected: not once it was rolled back, or after a fault."""
    builder, (ours, _, _) = made
    source = ChainSource(builder, ours[:28])
    asked: list[str] = []
    source.asked = asked.append
    tape, look = MemoryTape(blocks(ours, 20)), Look(source, K)
    look.ask_ahead()
    assert not asked  # nobody knows yet how it ends
    plan = look_at(tape, look, 27)
    assert plan == Extend(tuple(blocks(ours, 24)[21:]))
    tape.held += plan.blocks
    source.chain = list(ours[:29])
    asked.clear()
    look.ask_ahead()
    assert asked == ["headers_after"]
    source.chain = list(ours)
    standing = Standing(tape.tip(), {})
    plan = look.plan(cast("Tape", tape), standing, first_block_id=0, node_tip=source.tip)
    assert plan == Extend((ours[25].block,))
    assert asked == ["headers_after"]

    tape.held = blocks(ours, 22)  # by another process
    asked.clear()
    plan = look_at(tape, look, 30)
    assert plan == Extend(tuple(blocks(ours, 27)[23:]))
    assert asked == ["headers_after"] * 2
    tape.held += plan.blocks
    look.ask_ahead()

    def fail(_: str) -> None:
        raise NodeUnavailable("away")

    source.asked = fail
    with pytest.raises(NodeUnavailable):
        look.ask_ahead()
    source.asked = asked.append
    source.chain = list(ours[:24])
    standing = Standing(tape.tip(), {})
    plan = look.plan(cast("Tape", tape), standing, first_block_id=0, node_tip=source.tip)
    assert isinstance(plan, Wait)


def test_pins_are_compared_with_the_branch_that_was_read(
    made: tuple[ChainBuilder, list[list[StoredBlock]]],
) -> None:
    """The node was on our chain when it was asked for the pinned block, and then on another."""
    builder, (ours, theirs, _) = made
    source = ChainSource(builder, theirs)
    hashes = iter(range(100))

    def asked(question: str) -> None:
        if question == "block_hash":
            source.chain = list(ours if next(hashes) == 0 else theirs)
        elif question != "tip":
            source.chain = list(theirs)

    source.asked = asked
    tape = MemoryTape(blocks(ours, 28))
    tape.pinned = {27: ours[27].block.hash}
    plan = look_at(tape, Look(source, K), len(theirs) - 1)
    assert isinstance(plan, Wait)
    assert "pinned block 27" in plan.reason


# Headers that claim work


def claiming(parent: Block, count: int, bits: int, *, works: bool = False, step: int = 600) -> list[Block]:
    """Make headers with these bits on top of a block, with proof of work only if asked to."""
    headers = []
    for number in range(count):
        raw = struct.pack(
            "<i32s32sIII", 4, bytes.fromhex(parent.hash)[::-1], bytes(32), parent.time + step, bits, number
        )
        if works:
            raw = mined(raw)
        parent = read_header(parent.block_id + 1, raw)
        headers.append(parent)
    return headers


class Claims(ChainSource):
    """Serves made-up headers on top of a chain."""

    def __init__(self, builder: ChainBuilder, chain: Sequence[StoredBlock], headers: Sequence[Block]) -> None:
        made = [StoredBlock(each, each.header + b"\0", None, 0, 0) for each in headers]
        super().__init__(builder, [*chain, *made])


IMPOSSIBLE = (0x03000001, 0x1D00FFFF, 0x2000FFFF, 0x01010000, 0x2100FFFF, 0xFFFFFFFF, 0, 0x04800001)
"""Bits without work, easier than regtest's, negative, of more than 256 bits, or zero."""


@pytest.mark.parametrize("bits", IMPOSSIBLE)
def test_claimed_work_undoes_nothing(made: tuple[ChainBuilder, list[list[StoredBlock]]], bits: int) -> None:
    """Eight headers with bits that nobody worked for must not outweigh a chain."""
    builder, (ours, _, _) = made
    for bits_of in (bits, 0x207FFFFF):
        headers = claiming(ours[9].block, 8, bits_of)
        source = Claims(builder, ours[:10], headers)
        with pytest.raises(NodeError, match=r"proof of work|easier than regtest allows|not a valid target"):
            look_at(MemoryTape(blocks(ours, 27)), Look(source, K), source.chain[-1].height)


@pytest.mark.parametrize("bits", IMPOSSIBLE)
def test_claimed_work_is_not_followed(made: tuple[ChainBuilder, list[list[StoredBlock]]], bits: int) -> None:
    """Nor does it confirm anything: on our tip, and on an empty tape."""
    builder, (ours, _, _) = made
    headers = claiming(ours[9].block, 8, bits)
    source = Claims(builder, ours[:10], headers)
    for tape, first in ((MemoryTape(blocks(ours, 9)), 0), (MemoryTape(), 5), (MemoryTape(), 12)):
        with pytest.raises(MalformedBlock, match="a made-up chain: "):
            look_at(tape, Look(source, 0), source.chain[-1].height, first)


def adjusting(**changes: Any) -> Network:
    """Return regtest, but with mainnet's rules for targets."""
    return replace(network("regtest"), retargets=True, **changes)


def test_targets_must_follow_from_the_chain(made: tuple[ChainBuilder, list[list[StoredBlock]]]) -> None:
    """On a network that adjusts them, work does not help if the rules require another target."""
    builder, (ours, _, _) = made
    honest, cheap = (
        claiming(ours[9].block, 8, 0x207FFFFF, works=True),
        claiming(ours[9].block, 8, HARD, works=True),
    )
    for headers, is_right in ((honest, True), (cheap, False)):
        for held in (9, 12):
            source = Claims(builder, ours[:10], headers)
            source.network = adjusting()
            tape = MemoryTape(blocks(ours, held))
            for _ in range(2):  # a refused branch is not remembered
                if is_right:
                    plan = look_at(tape, Look(source, 0), 17)
                    assert isinstance(plan, Extend if held == 9 else Reorg)
                else:
                    with pytest.raises(MalformedBlock, match="block 10 states the target 0x200fffff"):
                        look_at(tape, Look(source, 0), 17)


class CountedTape(MemoryTape):
    """Counts how often headers are read."""

    reads = 0

    def blocks(self, first: int, last: int) -> list[Block]:
        """Return the blocks between two heights."""
        self.reads += 1
        return super().blocks(first, last)


def test_headers_of_the_tape_are_read_once(made: tuple[ChainBuilder, list[list[StoredBlock]]]) -> None:
    """From look to look those in front of its end are known, until it ends with another branch.

    On the quick branch, times are allowed that would be too early on the other one.
    """
    builder, (ours, _, _) = made
    slow, quick = (
        [*blocks(ours, 9), *claiming(ours[9].block, 15, 0x207FFFFF, works=True, step=step)]
        for step in (600, 10)
    )
    source = Claims(builder, ours[:10], slow[10:])
    tape, look = CountedTape(), Look(source, 0)
    for branch in (slow, quick):
        source.chain = Claims(builder, ours[:10], branch[10:]).chain
        tape.reads = 0
        for height in range(20, 24):
            tape.held = branch[: height + 1]
            plan = look_at(tape, look, 24)
            assert isinstance(plan, Extend)
            assert list(plan.blocks) == branch[height + 1 :]
        assert tape.reads == 1


def test_another_header_than_the_first_one_requested(
    made: tuple[ChainBuilder, list[list[StoredBlock]]],
) -> None:
    """An empty tape reads its first header from a block, which may be another one."""
    builder, (ours, _, _) = made
    source = ChainSource(builder, ours)
    source._known[ours[5].block.hash] = ours[3]
    with pytest.raises(MalformedBlock, match=f"block 5: requested {ours[5].block.hash}, got"):
        look_at(MemoryTape(), Look(source, K), 30, 5)

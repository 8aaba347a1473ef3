"""Gather what the planner needs to know of the tape and of the source's chain, and ask it.

Every header is checked for its proof of work, its target and its time before it counts: what decides whether
blocks are undone must have cost what it claims. (With `verify="off"` the source is believed.) The source
answers one question after the other, and its chain may change in between, so nothing is concluded from
answers that do not fit together.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from virtualchain.bitcoin.difficulty import Earlier, check_targets, check_times, check_work
from virtualchain.bitcoin.header import branch_work, work
from virtualchain.bitcoin.source import BlockSource, InputSource, Tip, read_header_of
from virtualchain.engine import planner
from virtualchain.errors import MalformedBlock, MissingData, NodeUnavailable
from virtualchain.model import Block, Verification
from virtualchain.store.tape import Standing, Tape

_ATTEMPTS: Final = 3
"""How often a block is asked for that is missing although the chain reaches up to it."""
_KEPT: Final = 100
"""Headers of the tape that are read at once, and known at the next look."""
_FEW: Final = 10
"""If there are no more blocks to take than this, the headers end at the source's tip."""


class _Headers:
    """A source's active headers, which are checked unless the source is trusted."""

    def __init__(self, source: BlockSource, *, is_trusted: bool) -> None:
        self.source = source
        self._is_trusted = is_trusted

    def at(self, block_id: int) -> Block:
        """Read the active header at a height.

        It is not asked for by its parent: there may be none, or the source may begin here.
        """
        block_hash = _hash_at(self.source, block_id, block_id)
        if block_hash is None:
            raise _chain_changed()
        return read_header_of(self.source, block_id, block_hash)

    def after(self, block: Block) -> list[Block]:
        """Read the headers that follow one that was active a moment ago."""
        headers = self.source.headers_after(block.block_id, block.hash)
        if headers is None:
            raise _chain_changed()
        return headers

    def check(self, headers: Sequence[Block], first_id: int, parent: Block | None, earlier: Earlier) -> None:
        """Check that headers form a chain from height `first_id` on, with the work that they state."""
        planner.require_chain(headers, first_id, parent)
        if self._is_trusted:
            return
        network = self.source.network
        try:
            is_stored = isinstance(self.source, InputSource)
            for header in headers:
                check_work(header, network, is_stored=is_stored)
            check_targets(headers, network, earlier)
            check_times(headers, network, earlier)
        except MalformedBlock as error:
            raise MalformedBlock(f"{self.source}: {error}") from error


class Look:
    """Looks from a tape at a source's chain, again and again.

    Between two looks it remembers the other branch that the source is on: a long one is not read twice. It
    also remembers where the tape should end by then.
    """

    def __init__(self, source: BlockSource, confirmations: int, verify: Verification = "headers") -> None:
        self._source = source
        self._confirmations = confirmations
        self._headers = _Headers(source, is_trusted=verify == "off")
        self._branch = _Branch(self._headers, ())
        self._recent = _Recent()
        self._last: Block | None = None
        self._ahead: tuple[Block, list[Block] | None] | None = None
        self.node_tip = Tip(-1, "")
        """The last block of the source's active chain, as far as the last plan knows it."""

    def ask_ahead(self) -> None:
        """Ask the source what follows the block that the tape should end with, before that is known.

        The next plan takes the answer, unless the tape ends with another one.
        """
        last, self._ahead = self._last, None
        if last is not None:
            self._ahead = last, self._source.headers_after(last.block_id, last.hash)

    def plan(
        self,
        tape: Tape,
        standing: Standing,
        *,
        first_block_id: int,
        node_tip: Callable[[], Tip],
    ) -> planner.Plan:
        """Decide what the tape, which stands like that, needs next.

        `first_block_id` is where an empty one starts. `node_tip` returns the last block of the source's
        active chain; it is not called if there are a few blocks to take, whose rows somebody waits for.
        Raises NodeUnavailable if that chain changed meanwhile, MalformedBlock for a header that no node would
        accept, and NodeError and UsageError as `planner.plan` does.
        """
        tip, required = standing
        following = self._following(tape, tip, first_block_id, node_tip)
        # A block counts as confirmed by the headers that were read on top of it. What `node_tip` returns may
        # be the height of another, longer chain that the source has left since.
        last = following[-1] if following else tip if following is not None else None
        to_take = len(following or ()) - self._confirmations
        shows_tip = last is not None and 0 < to_take <= _FEW and not required
        self.node_tip = Tip(last.block_id, last.hash) if last is not None and shows_tip else node_tip()
        known = _pins(tape, self._source, required, self.node_tip.block_id)
        self._last = None
        if tip is not None and following is None:
            return self._plan_on_a_fork(tape, tip, first_block_id, self.node_tip.block_id, known)
        plan = planner.plan(
            tip=tip,
            first_block_id=first_block_id,
            node_tip=self.node_tip.block_id if last is None else last.block_id,
            confirmations=self._confirmations,
            following=following,
            pins=known,
        )
        self._last = plan.blocks[-1] if isinstance(plan, planner.Extend) else tip
        return plan

    def _following(
        self, tape: Tape, tip: Block | None, first_block_id: int, node_tip: Callable[[], Tip]
    ) -> list[Block] | None:
        """Read headers after our tip until some have enough confirmations; None if it is not active."""
        if tip is not None:
            answer = self._after(tip)
            if answer is None:
                return None
            headers = list(answer)
        elif first_block_id > node_tip().block_id:
            return []
        else:
            first = self._headers.at(first_block_id)
            headers = [first, *self._headers.after(first)]
        while 0 < len(headers) <= self._confirmations and (more := self._headers.after(headers[-1])):
            headers += more
        next_id = first_block_id if tip is None else tip.block_id + 1
        self._headers.check(headers, next_id, tip, self._recent.on(tape, tip))
        self._recent.add(headers)
        return headers

    def _after(self, tip: Block) -> list[Block] | None:
        """Read the headers after our tip, unless they were asked for ahead; None if it is not active."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == tip:
            return ahead[1]
        return self._source.headers_after(tip.block_id, tip.hash)

    def _plan_on_a_fork(
        self, tape: Tape, tip: Block, first_block_id: int, node_tip: int, pins: planner.Pins
    ) -> planner.Plan:
        bottom = tape.bottom()
        assert bottom is not None, "a tape with a tip has a first block"

        def is_active(block_id: int) -> bool:
            ours = tape.block(block_id)
            return ours is not None and _hash_at(self._source, block_id, node_tip) == ours.hash

        fork_id = planner.find_fork(tip.block_id, bottom.block_id, is_active)
        first_id = bottom.block_id if fork_id is None else fork_id + 1
        first = tape.block(first_id)
        theirs = None
        if first_id <= node_tip:
            if not self._branch.goes_on(first_id, pins.required):
                self._branch = _Branch(self._headers, pins.required)
            theirs = self._branch.read(first_id, self._recent.on(tape, tip))
        return planner.plan(
            tip=tip,
            first_block_id=first_block_id,
            node_tip=node_tip,
            confirmations=self._confirmations,
            following=None,
            fork=None if fork_id is None else tape.block(fork_id),
            ours=None if first is None else _summed(tape, first, tip),
            theirs=theirs,
            invalid=self._source.is_invalid(tip.block_id, tip.hash),
            # What the branch itself holds counts; the source may have been on another one when it was asked.
            pins=planner.Pins(pins.required, pins.ours, {**pins.theirs, **self._branch.pinned(first_id)}),
        )


class _Branch:
    """A source's active chain from a height on, read page by page and summed up."""

    def __init__(self, headers: _Headers, pinned: Collection[int]) -> None:
        self._headers = headers
        self._heights = frozenset(pinned)
        self._pinned: dict[int, str] = {}
        self._sum: planner.Branch | None = None
        self._recent: dict[int, Block] = {}
        """The last headers, by height: what checking the targets of the next ones takes."""

    def goes_on(self, first_id: int, pinned: Collection[int]) -> bool:
        """Check whether this is about the same height and pins, and what was read is still active."""
        known = self._sum
        return (
            known is not None
            and known.first.block_id == first_id
            and self._heights == frozenset(pinned)
            and self._headers.source.headers_after(known.last.block_id, known.last.hash) is not None
        )

    def pinned(self, first_id: int) -> dict[int, str]:
        """Return the hashes at the pinned heights, from this height on."""
        return self._pinned if self._sum is not None and self._sum.first.block_id == first_id else {}

    def read(self, first_id: int, earlier: Earlier) -> planner.Branch:
        """Read the rest of it, up to the tip; `earlier` returns the headers below `first_id`."""
        known = self._sum
        if known is None:
            page: Sequence[Block] = [self._headers.at(first_id)]
        else:
            page = self._headers.after(known.last)
        while page:
            known = self._add(page, first_id, earlier)
            page = self._headers.after(known.last)
        assert known is not None, "the first page holds the first header"
        return known

    def _add(self, page: Sequence[Block], first_id: int, earlier: Earlier) -> planner.Branch:
        known = self._sum
        next_id, last = (first_id, None) if known is None else (known.last.block_id + 1, known.last)

        def before(block_id: int) -> Block | None:
            return earlier(block_id) if block_id < first_id else self._recent.get(block_id)

        self._headers.check(page, next_id, last, before)
        total = branch_work(page) + (0 if known is None else known.work)
        self._sum = planner.Branch(page[0] if known is None else known.first, page[-1], total)
        self._pinned.update((block.block_id, block.hash) for block in page if block.block_id in self._heights)
        self._recent.update((block.block_id, block) for block in page)
        for block_id in range(min(self._recent), page[-1].block_id - self._headers.source.network.period):
            del self._recent[block_id]
        return self._sum


class _Recent:
    """The last headers of a tape, which the next ones are checked with, and those found on top of it.

    They form one chain, so a tape that ends with one of them has those before it.
    """

    def __init__(self) -> None:
        self._by_height: dict[int, Block] = {}

    def on(self, tape: Tape, tip: Block | None) -> Earlier:
        """Return what finds a header of the tape, which ends with `tip`."""
        known, self._by_height = self._by_height, {}
        if tip is not None and tip.block_id in known and known[tip.block_id].hash == tip.hash:
            heights = range(tip.block_id - _KEPT, tip.block_id + 1)
            self._by_height = {height: known[height] for height in heights if height in known}

        def header(block_id: int) -> Block | None:
            if block_id not in self._by_height:  # many are read at once, as neighbors are asked for next
                blocks = tape.blocks(block_id - _KEPT, block_id)
                self._by_height.update((block.block_id, block) for block in blocks)
            return self._by_height.get(block_id)

        return header

    def add(self, headers: Sequence[Block]) -> None:
        """Add headers on top of the tape."""
        self._by_height.update((block.block_id, block) for block in headers)


def _summed(tape: Tape, first: Block, tip: Block) -> planner.Branch:
    """Sum up the tape from a block on."""
    return planner.Branch(first, tip, work(first.bits) + tape.work_above(first))


def _pins(tape: Tape, source: BlockSource, pinned: Mapping[int, str], node_tip: int) -> planner.Pins:
    theirs = {height: _hash_at(source, height, node_tip) for height in pinned}
    return planner.Pins(
        pinned,
        {height: block.hash for height in pinned if (block := tape.block(height)) is not None},
        {height: block_hash for height, block_hash in theirs.items() if block_hash is not None},
    )


def _hash_at(source: BlockSource, block_id: int, node_tip: int) -> str | None:
    """Return the hash of the active block at a height; None above the tip, which may have gone down."""
    if block_id > node_tip:
        return None
    for attempt in range(_ATTEMPTS):
        try:
            return source.block_hash(block_id)
        except MissingData:
            if source.tip().block_id < block_id:
                return None
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _chain_changed() -> NodeUnavailable:
    return NodeUnavailable("the node's chain changed while it was read: ask again")

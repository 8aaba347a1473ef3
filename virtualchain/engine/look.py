"""Gather what the planner needs to know of the tape and of the source's chain, and ask it."""

from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.bitcoin.source import BlockSource, at_height
from virtualchain.engine import planner
from virtualchain.errors import NodeUnavailable
from virtualchain.model import Block
from virtualchain.store.tape import Tape


def make_plan(
    tape: Tape, source: BlockSource, *, first_block_id: int, node_tip: int, confirmations: int
) -> planner.Plan:
    """Decide what the tape needs next.

    `first_block_id` is where an empty one starts, `node_tip` the height of the source's active chain. Raises
    NodeUnavailable if that chain changed meanwhile, and NodeError and UsageError as `planner.plan` does.
    """
    tip = tape.tip()
    following: list[Block] | None
    if tip is None:
        following = _headers_from(source, first_block_id) if first_block_id <= node_tip else []
    else:
        following = source.headers_after(tip.block_id, tip.hash)
    pins = _pins(tape, source, node_tip)
    if tip is None or following is not None:
        return planner.plan(
            tip=tip,
            first_block_id=first_block_id,
            node_tip=node_tip,
            confirmations=confirmations,
            following=following,
            pins=pins,
        )

    def is_active(block_id: int) -> bool:
        ours = tape.block(block_id)
        return block_id <= node_tip and ours is not None and source.block_hash(block_id) == ours.hash

    bottom = tape.bottom()
    assert bottom is not None, "a tape with a tip has a first block"
    fork = planner.find_fork(tip.block_id, bottom.block_id, is_active)
    above = bottom.block_id if fork is None else fork + 1
    return planner.plan(
        tip=tip,
        first_block_id=first_block_id,
        node_tip=node_tip,
        confirmations=confirmations,
        following=None,
        ours=tape.blocks(above, tip.block_id),
        theirs=_all_headers_from(source, above) if above <= node_tip else [],
        invalid=source.is_invalid(tip.block_id, tip.hash),
        pins=pins,
    )


def _pins(tape: Tape, source: BlockSource, node_tip: int) -> planner.Pins:
    pinned = tape.pins()
    return planner.Pins(
        pinned,
        {height: block.hash for height in pinned if (block := tape.block(height)) is not None},
        {height: source.block_hash(height) for height in pinned if height <= node_tip},
    )


def _headers_from(source: BlockSource, block_id: int) -> list[Block]:
    """Return headers of the active chain from a height on, as many as one answer holds.

    The block before it is not requested: there may be none, or the source may begin here.
    """
    block_hash = source.block_hash(block_id)
    following = source.headers_after(block_id, block_hash)
    if following is None:
        raise NodeUnavailable("the node's chain changed while it was read: ask again")
    with at_height(block_id):
        return [read_header(block_id, source.raw_block(block_hash)[:HEADER_SIZE]), *following]


def _all_headers_from(source: BlockSource, block_id: int) -> list[Block]:
    headers = _headers_from(source, block_id)
    while headers and (more := source.headers_after(headers[-1].block_id, headers[-1].hash)):
        headers += more
    return headers

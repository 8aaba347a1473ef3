"""Gather what the planner needs to know of the tape and of the source's chain, and ask it."""

from virtualchain import chain
from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.bitcoin.source import BlockSource
from virtualchain.deployment import Deployment
from virtualchain.errors import DeepFork, NodeUnavailable
from virtualchain.model import Block


def make_plan(deployment: Deployment, source: BlockSource, node_tip: int, confirmations: int) -> chain.Plan:
    """Decide what comes next on the tape; `node_tip` is the height of the source's active chain.

    Raises NodeUnavailable where that chain changed meanwhile, NodeError, UsageError as `chain.plan` does.
    """
    tip, first = deployment.tip(), deployment.first_block_id()
    following: list[Block] | None
    if tip is None:
        following = _headers_from(source, first) if first <= node_tip else []
    else:
        following = source.headers_after(tip.block_id, tip.hash)
    if tip is None or following is not None:
        return chain.plan(
            tip=tip,
            first_block_id=first,
            node_tip=node_tip,
            confirmations=confirmations,
            following=following,
        )

    def is_active(block_id: int) -> bool:
        ours = deployment.blocks(block_id, block_id)[0]
        return block_id <= node_tip and source.block_hash(block_id) == ours.hash

    bottom = deployment.bottom()
    fork = chain.find_fork(tip.block_id, bottom, is_active)
    above = bottom if fork is None else fork + 1
    return chain.plan(
        tip=tip,
        first_block_id=first,
        node_tip=node_tip,
        confirmations=confirmations,
        following=None,
        ours=deployment.blocks(above, tip.block_id),
        theirs=_all_headers_from(source, above) if above <= node_tip else [],
        invalid=source.is_invalid(tip.block_id, tip.hash),
    )


def deep_fork(reorg: chain.Reorg) -> DeepFork:
    """Say what happened to the chain, for the operator."""
    why = "which the node calls invalid" if reorg.invalid else "and the node follows one with more work"
    new = reorg.new_tip
    theirs = f"its tip is block {new.block_id} ({new.hash})" if new else "it has no block above the fork"
    return DeepFork(
        f"deep fork above block {reorg.fork_block_id}: {reorg.depth} blocks were taken from another branch, "
        f"up to block {reorg.old_tip.block_id} ({reorg.old_tip.hash}), {why}; {theirs}. Nothing was changed"
    )


def _headers_from(source: BlockSource, block_id: int) -> list[Block]:
    """Give headers of the active chain from a height on, as many as come at once.

    The block before is not asked for: there may be none, or the source may begin here.
    """
    block_hash = source.block_hash(block_id)
    following = source.headers_after(block_id, block_hash)
    if following is None:
        raise NodeUnavailable("the node's chain changed while it was read: ask again")
    return [read_header(block_id, source.raw_block(block_hash)[:HEADER_SIZE]), *following]


def _all_headers_from(source: BlockSource, block_id: int) -> list[Block]:
    headers = _headers_from(source, block_id)
    while headers and (more := source.headers_after(headers[-1].block_id, headers[-1].hash)):
        headers += more
    return headers

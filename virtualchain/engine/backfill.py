"""Search blocks anew for an app that joins late: only those that were never searched for its magic.

Blocks that are on the tape get the inputs that were not looked for; blocks in front of it are put there, from
the tape's first one down. A chunk is one transaction, and what it searched is said in it, so that nothing is
searched twice, whenever the work is broken off. The other apps go on between two chunks.
"""

from collections.abc import Iterator
from contextlib import closing

from virtualchain.app.contract import Contract
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.header import HEADER_SIZE, read_header, work
from virtualchain.bitcoin.prefetch import prefetch
from virtualchain.bitcoin.source import BlockSource
from virtualchain.engine.coverage import gaps, watches_of
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.look import held_blocks, held_tip
from virtualchain.engine.machine import Machine
from virtualchain.errors import MissingData, NodeUnavailable
from virtualchain.model import Block, Json

CHUNK = 100
"""Blocks that are searched in one transaction."""


def search_on(deployment: Deployment, source: BlockSource, contract: Contract) -> tuple[int, int] | None:
    """Search one chunk of the blocks that an app still lacks; give its ends, or None where it lacks none.

    None, too, where the node lacks a block while its chain does not hold the tape's tip: it lags, or is on
    another branch, and the next plan says what that means. Raises NodeUnavailable where the node's chain is
    not the tape's now, MissingData where the node does not have a block any more, and what else the source
    raises.
    """
    lacking = gaps(deployment.tape, contract)
    if not lacking:
        return None
    try:
        return _search(deployment, source, contract, *lacking[0])
    except MissingData:
        tip = held_tip(deployment.tape)
        if tip is not None and source.headers_after(tip.block_id, tip.hash) is None:
            return None
        raise


def _search(
    deployment: Deployment, source: BlockSource, contract: Contract, first: int, last: int
) -> tuple[int, int]:
    """Search the first chunk of a stretch, or where it lies in front of the tape, the last; give its ends."""
    bottom = deployment.tape.bottom()
    assert bottom is not None, "an empty tape lacks nothing"
    if first < bottom.block_id:  # downwards: each block goes in front of its child
        last = min(last, bottom.block_id - 1)
        first = max(first, last - CHUNK + 1)
        child = held_blocks(deployment.tape, bottom.block_id, bottom.block_id)[0]
        wanted = list(_in_front_of(source, child, first))
    else:
        last = min(last, first + CHUNK - 1)
        wanted = held_blocks(deployment.tape, first, last)
    watches = watches_of([contract])
    with deployment.connection.transaction():
        child_work = work(read_header(bottom.block_id, bottom.header).bits)
        with closing(prefetch(source, Scanner(watches, source.network), wanted)) as scanned_blocks:
            for scanned in scanned_blocks:
                if scanned.block.block_id < bottom.block_id:
                    deployment.tape.prepend(scanned, child_work)
                    child_work = work(scanned.block.bits)
                else:
                    deployment.tape.add_inputs(scanned.inputs)
        for watch in watches:
            deployment.tape.add_coverage(watch.magic, watch.rule, first, last)
    return first, last


def _in_front_of(source: BlockSource, child: Block, first: int) -> Iterator[Block]:
    """Give the headers from the one in front of `child` down to a height."""
    while child.block_id > first:
        block_id = child.block_id - 1
        if source.block_hash(block_id) != child.prev_hash:
            raise NodeUnavailable(
                f"the node follows another branch than the tape at block {block_id}: ask again"
            )
        child = read_header(block_id, source.raw_block(child.prev_hash)[:HEADER_SIZE])
        yield child


def told(machine: Machine, first: int, last: int) -> str:
    """Say what was searched."""
    return f"app {machine.contract.name} joins: blocks {first} to {last} were searched for its inputs"


def lacks_blocks(machine: Machine, error: MissingData) -> Json:
    """Describe, as a failed callback is, that the node lacks blocks which an app needs to join."""
    return {
        "block_id": machine.cursor + 1,
        "callback": "searching blocks that were never searched for its magic",
        "txid": None,
        "txindex": None,
        "error": f"{error}; a node that has all blocks helps, or its files (--blocks)",
        "traceback": "",
    }

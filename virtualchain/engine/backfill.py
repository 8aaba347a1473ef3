"""Search blocks for the inputs of an app that joins late: only blocks never searched for its magic.

Blocks on the tape get the missing inputs; blocks before it are put in front, from the tape's first one down.
A chunk is one transaction, which also records what was searched, so that nothing is searched twice, whenever
the work is interrupted. The other apps continue between two chunks.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing

from virtualchain.app.contract import Contract
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.header import work
from virtualchain.bitcoin.source import BlockSource, read_header_of
from virtualchain.engine.coverage import gaps, tracking_of, watches_of
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.halting import missing_blocks_record
from virtualchain.engine.machine import Machine
from virtualchain.engine.options import CHUNK, Listener
from virtualchain.errors import MissingData, NodeUnavailable, UpstreamLacks
from virtualchain.model import Block, ScannedBlock
from virtualchain.notices import Notice
from virtualchain.store.block_transaction import BlockTransaction


def catch_up(
    deployment: Deployment,
    source: BlockSource,
    listener: Listener,
    most: int | None,
    on_search: Callable[[], object],
) -> bool:
    """Search blocks for lagging apps that need it, and advance the others along the tape.

    An app is advanced by `most` blocks, or all the way. `on_search` is called after each search. For apps
    that are kept on the tape, and not applied, blocks are only searched. Returns whether anything moved.
    """
    moved = bool(deployment.kept) and _complete(deployment, source, listener, on_search)
    lagging = deployment.apps.lagging()
    if not lagging:
        return moved
    for machine in lagging:
        if not listener.may_continue():
            return moved
        contract = machine.contract
        try:
            searched = backfill_chunk(deployment, source, contract, machine.cursor)
            if searched is None and advance_chunk(deployment, source, machine, listener):
                moved = True
                continue
        except MissingData as error:
            deployment.apps.halt(machine, missing_blocks_record(machine.cursor + 1, error))
            continue
        except UpstreamLacks as error:  # the others go on meanwhile
            message = f"app {contract.name} waits: {error}"
            listener.on_wait(Notice(message, "waiting_for_upstream", app=contract.name))
            continue
        if searched is not None:
            moved = True
            on_search()
            _tell(listener, contract, searched, "joins")
    before = {machine: machine.cursor for machine in deployment.apps.lagging()}
    deployment.catch_up(listener, most)
    return moved or any(machine.cursor != cursor for machine, cursor in before.items())


def _complete(
    deployment: Deployment, source: BlockSource, listener: Listener, on_search: Callable[[], object]
) -> bool:
    """Search a chunk of the tape for each app that is kept there; what was pruned stays as it is."""
    moved = False
    pruned = deployment.tape.pruned_until()
    for contract in deployment.kept:
        if not listener.may_continue():
            break
        searched = backfill_chunk(deployment, source, contract, -1 if pruned is None else pruned)
        if searched is not None:
            moved = True
            on_search()
            _tell(listener, contract, searched, "is added")
    return moved


def _tell(listener: Listener, contract: Contract, searched: tuple[int, int], what: str) -> None:
    first, last = searched
    message = f"app {contract.name} {what}: blocks {first} to {last} were searched for its inputs"
    listener.on_wait(Notice(message, "app_joins", app=contract.name, first=first, last=last))


def backfill_chunk(
    deployment: Deployment, source: BlockSource, contract: Contract, after: int = -1
) -> tuple[int, int] | None:
    """Search one chunk of the blocks above `after` that an app still needs searched; return its ends.

    Returns None if no block is left, or if the node does not have a block, or another one, while its chain
    does not hold the tape's tip: it lags, or is on another branch, and the next plan says what that means.
    Raises NodeUnavailable if that has just changed, MissingData if the node no longer has a block, and
    whatever else the source raises.
    """
    unsearched = gaps(deployment.tape, contract, after)
    bottom = deployment.tape.bottom()
    if contract.tracks is not None and bottom is not None:
        # What it sees depends on its state: it is advanced from blocks. Here they are only put on the tape.
        unsearched = [(first, last) for first, last in unsearched if first < bottom.block_id]
    if not unsearched:
        return None
    try:
        return _search(deployment, source, contract, *unsearched[0])
    except (MissingData, NodeUnavailable):
        if not holds_tip(source, deployment):
            return None
        raise


def holds_tip(source: BlockSource, deployment: Deployment) -> bool:
    """Return whether the tape's tip is on the source's chain."""
    tip = deployment.tape.tip()
    return tip is None or source.headers_after(tip.block_id, tip.hash) is not None


def scan_for(
    deployment: Deployment, contract: Contract, source: BlockSource, headers: Sequence[Block]
) -> Generator[ScannedBlock, None, None]:
    """Fetch blocks for an app that tracks outputs; close the generator to stop early."""
    tracking = tracking_of([contract])
    scanner = Scanner(watches_of([contract]), source.network, keeps_blocks=True, tracking=tracking)
    return deployment.fetch(source, scanner, headers)


def advance_chunk(deployment: Deployment, source: BlockSource, machine: Machine, listener: Listener) -> bool:
    """Advance a lagging app that tracks outputs by one chunk, if the tape lacks what it sees somewhere.

    Where the tape has it all, it is advanced along that, else along blocks that are fetched again. Returns
    whether it moved; if not, the node lags or is on another branch. Raises what `backfill_chunk` raises.
    """
    tracks = machine.contract.tracks is not None
    unsearched = gaps(deployment.tape, machine.contract, machine.cursor) if tracks else []
    if not unsearched:
        return False
    before = machine.cursor
    first, last = unsearched[0]
    if before + 1 < first:
        deployment.advance_to(machine, min(before + CHUNK, first - 1), listener)
        return machine.cursor != before
    headers = deployment.tape.blocks(before + 1, min(before + CHUNK, last))
    scanned_blocks = scan_for(deployment, machine.contract, source, headers)
    try:
        with closing(scanned_blocks):
            deployment.advance_over(machine, scanned_blocks, listener)
    except MissingData:
        if holds_tip(source, deployment):
            raise
    return machine.cursor != before


def _search(
    deployment: Deployment, source: BlockSource, contract: Contract, first: int, last: int
) -> tuple[int, int]:
    """Search the first chunk of a stretch, or the last if it lies in front of the tape; return its ends."""
    bottom = deployment.tape.bottom()
    assert bottom is not None, "an empty tape has no gaps"
    if first < bottom.block_id:  # downwards: each block goes in front of its child
        last = min(last, bottom.block_id - 1)
        first = max(first, last - CHUNK + 1)
        headers = list(_in_front_of(source, bottom, first))
    else:
        last = min(last, first + CHUNK - 1)
        headers = deployment.tape.blocks(first, last)
    watches = watches_of([contract])
    senders = deployment.senders()
    shown: list[tuple[Mapping[int, str], Block]] = []
    with deployment.connection.transaction():
        child_work = work(bottom.bits)
        scanner = Scanner(watches, source.network)
        with closing(deployment.fetch(source, scanner, headers)) as scanned_blocks:
            for scanned in scanned_blocks:
                if scanned.block.block_id < bottom.block_id:
                    deployment.tape.prepend(scanned.block, child_work)
                    child_work = work(scanned.block.bits)
                    if scanned.made_in:
                        shown.append((scanned.made_in, scanned.block))
                BlockTransaction(deployment.connection, scanned.block, scanned.inputs).commit()
        for made_in, spender in shown:  # with blocks that are on the tape only now
            senders.require_on_tape(made_in, spender)
        for watch in watches:
            deployment.tape.add_coverage(watch.magic, watch.rule, first, last)
    return first, last


def _in_front_of(source: BlockSource, child: Block, first: int) -> Iterator[Block]:
    """Yield the headers from the one in front of `child` down to a height."""
    while child.block_id > first:
        block_id = child.block_id - 1
        if source.block_hash(block_id) != child.prev_hash:
            raise NodeUnavailable(
                f"the node follows another branch than the tape at block {block_id}: ask again"
            )
        child = read_header_of(source, block_id, child.prev_hash)
        yield child

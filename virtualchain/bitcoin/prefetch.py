"""Read-ahead: blocks are fetched and scanned in threads while the database works on earlier ones."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, count, islice
from typing import Final

from virtualchain.bitcoin.block import Scan, Scanner, inputs
from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.senders import Senders
from virtualchain.bitcoin.source import BlockSource, InputSource, at_height
from virtualchain.bitcoin.spending import LARGEST_KEPT
from virtualchain.clock import Clock
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block, Input, RestOfBlock, ScannedBlock, SpentOutput, Verification

MOST_BYTES: Final = 128_000_000
"""Bytes that the blocks read ahead may take, by an estimate before what they spend is known."""
_PER_INPUT: Final = 1000
"""Bytes of memory that an input or output of a transaction takes beside its script."""


def prefetch(
    source: BlockSource,
    scanner: Scanner,
    headers: Iterable[Block],
    threads: int = 3,
    ahead: int = 8,
    *,
    verify: Verification = "merkle",
    senders: Senders | None = None,
    clock: Clock | None = None,
) -> Generator[ScannedBlock, None, None]:
    """Fetch and scan the blocks of these headers, in their order; the other options are those of `fetch`.

    At most `ahead` blocks are fetched or held beyond the one yielded last, and together they take at most
    `MOST_BYTES`: a block that would take more waits until its turn. An error in a block is raised when
    its turn comes, after all blocks before it. Close the generator to stop early (`contextlib.closing`): this
    cancels the fetches that have not started, and returns when the others have finished. A single block is
    fetched by the caller's own thread.
    """
    if isinstance(source, InputSource):
        asked = list(headers)
        if asked:
            yield from _read_ahead(source, scanner, asked, verify, senders or Senders(), clock or Clock())
        return
    checks = senders or Senders()
    following = iter(headers)
    first = list(islice(following, 2))
    if len(first) < 2:
        for header in first:
            yield _on_tape(fetch(source, scanner, header, verify=verify, senders=checks, clock=clock), checks)
        return
    remaining = zip(count(), chain(first, following))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    budget = _Budget(MOST_BYTES)

    def fetch_in_budget(place: int, header: Block) -> ScannedBlock:
        def claim(size: int) -> None:
            budget.claim(place, size)

        return fetch(source, scanner, header, verify=verify, senders=checks, claim=claim, clock=clock)

    def submit(most: int) -> list[Future[ScannedBlock]]:
        return [pool.submit(fetch_in_budget, *each) for each in islice(remaining, most)]

    try:
        pending = deque(submit(ahead))
        while pending:
            block = pending.popleft().result()
            pending.extend(submit(1))
            yield _on_tape(block, checks)
            del block
            budget.next_turn()
    finally:
        budget.close()
        pool.shutdown(cancel_futures=True)


def _on_tape(scanned: ScannedBlock, senders: Senders) -> ScannedBlock:
    """Return a block once what it spends was made in blocks of the tape, as far as that is checked."""
    senders.require_on_tape(scanned.made_in, scanned.block)
    return scanned


def _read_ahead(
    source: InputSource,
    scanner: Scanner,
    headers: Sequence[Block],
    verify: Verification,
    senders: Senders,
    clock: Clock,
) -> Generator[ScannedBlock, None, None]:
    """Take the inputs of these blocks from a source that hands them out; one batch is read ahead."""

    def read(first: int) -> list[ScannedBlock]:
        with clock.stage("fetch"):
            return source.scanned(headers[first:], scanner, senders, verify)

    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        done, batch = 0, pool.submit(read, 0)
        while done < len(headers):
            blocks = batch.result()
            assert blocks, "at least one block is handed out"
            done += len(blocks)
            if done < len(headers):
                batch = pool.submit(read, done)
            yield from blocks
    finally:
        pool.shutdown(cancel_futures=True)


class _Budget:
    """Bytes that blocks share, in the order of their places; the one whose turn it is may take any number."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self._claimed: dict[int, int] = {}
        self._turn = 0
        self._is_closed = False
        self._changed = threading.Condition()

    def claim(self, place: int, size: int) -> None:
        """Wait until there is room for `size` bytes, or it is this place's turn; less than before fits."""

        def has_room() -> bool:
            others = sum(self._claimed.values()) - self._claimed.get(place, 0)
            fits = others + size <= self._allowed or size <= self._claimed.get(place, 0)
            return fits or place == self._turn or self._is_closed

        with self._changed:
            self._changed.wait_for(has_room)
            if self._is_closed:
                raise RuntimeError("reading ahead has ended")  # nobody asks for the result
            self._claimed[place] = size
            self._changed.notify_all()

    def next_turn(self) -> None:
        """Forget the block whose turn it was: it has been used."""
        with self._changed:
            self._claimed.pop(self._turn, None)
            self._turn += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let no one wait any longer."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


def _estimate(scan: Scan) -> int:
    """Compute the most memory that a block's inputs can take, before what they spend is known."""
    return sum(
        len(each.raw) * 2
        + len(each.transaction.inputs) * (_PER_INPUT + 2 * LARGEST_KEPT)
        + len(each.transaction.paid) * _PER_INPUT
        for each in scan.candidates
    ) + _size_of_rest(scan)


def _size(scan: Scan, spent: Mapping[int, Sequence[SpentOutput]]) -> int:
    """Estimate the memory that a block's inputs take once everything in them has been looked at."""
    return sum(
        len(each.raw) * 2
        + sum(_PER_INPUT + 2 * len(output.script_pubkey) for output in spent.get(each.txindex, ()))
        + len(each.transaction.paid) * _PER_INPUT
        for each in scan.candidates
    ) + _size_of_rest(scan)


def _size_of_rest(scan: Scan) -> int:
    """Estimate the memory of what is kept of a block for apps that track outputs."""
    if scan.layout is None:
        return 0
    return len(scan.layout.raw) + 100 * len(scan.layout) + 36 * sum(scan.layout.spendings)


def _claim_nothing(size: int) -> None:
    """Take any number of bytes."""


def fetch(
    source: BlockSource,
    scanner: Scanner,
    header: Block,
    *,
    verify: Verification = "merkle",
    senders: Senders | None = None,
    claim: Callable[[int], None] = _claim_nothing,
    clock: Clock | None = None,
) -> ScannedBlock:
    """Fetch one block, its inputs and the outputs that they spend.

    `claim` is called with how many bytes the inputs may take, before what they spend is fetched, and again
    with how many they take. `verify` is how much of the block is checked, as `CheckedBlock` describes, and
    `senders` who checks what it spends; on the tape, whoever takes the block. `clock` counts the seconds of
    stages `fetch`, `scan` and `senders`. Raises what the source raises, and MalformedBlock if the block does
    not pass.
    """
    clock = clock or Clock()
    with clock.stage("fetch"), at_height(header.block_id):
        raw = source.raw_block(header.hash)
    with clock.stage("scan"):
        try:
            scan = scanner.scan(CheckedBlock(header, raw, source.network, verify, scanner.search))
        except MalformedBlock as error:
            raise MalformedBlock(f"{source}: {error}") from error
    claim(_estimate(scan))
    checks = senders or Senders()
    with clock.stage("senders"):
        spent = checks.spent(source, scan)
        inputs_of_block = _inputs(source, scan, spent)
    scanned = ScannedBlock(header, inputs_of_block, _rest(source, scan, checks), spent.made_in)
    claim(_size(scan, spent))
    return scanned


def _inputs(source: BlockSource, scan: Scan, spent: Mapping[int, Sequence[SpentOutput]]) -> tuple[Input, ...]:
    try:
        return inputs(scan, spent)  # errors in here name the block
    except MalformedBlock as error:
        raise MalformedBlock(f"{source}: {error}") from error


def _rest(source: BlockSource, scan: Scan, senders: Senders) -> RestOfBlock | None:
    """Return what apps that track outputs may ask of a block; None if there are none."""
    if scan.layout is None:
        return None

    def take(requested: Mapping[int, bool]) -> tuple[Input, ...]:
        more = scan.more(requested)
        spent = senders.spent(source, more)
        senders.require_on_tape(spent.made_in, scan.block)
        return _inputs(source, more, spent)

    return RestOfBlock(scan.layout.spends(), scan.layout.txid, take)

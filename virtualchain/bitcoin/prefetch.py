"""Read ahead: blocks are fetched and scanned while the database works on those before them."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from virtualchain.bitcoin.block import Scanner, inputs
from virtualchain.bitcoin.commitments import check_commitments
from virtualchain.bitcoin.source import BlockSource
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block, ScannedBlock


def prefetch(
    source: BlockSource,
    scanner: Scanner,
    headers: Iterable[Block],
    threads: int = 3,
    ahead: int = 8,
    *,
    verify: bool = False,
) -> Generator[ScannedBlock, None, None]:
    """Fetch and scan the blocks of these headers, in their order; `verify` as in `fetch`.

    At most `ahead` blocks are fetched or held beyond the one that was given last. What goes wrong with a
    block is raised when it is its turn, after all those before it. Close the generator to end early
    (`contextlib.closing`): it cancels what has not begun, and returns once what has begun is done.
    """
    coming = iter(headers)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")

    def begin(most: int) -> list[Future[ScannedBlock]]:
        return [pool.submit(fetch, source, scanner, header, verify=verify) for header in islice(coming, most)]

    try:
        pending = deque(begin(ahead))
        while pending:
            block = pending.popleft().result()
            pending.extend(begin(1))
            yield block
    finally:
        pool.shutdown(cancel_futures=True)


def fetch(source: BlockSource, scanner: Scanner, header: Block, *, verify: bool = False) -> ScannedBlock:
    """Fetch one block, find its inputs and what they spend.

    Raises what the source raises, and MalformedBlock where the block is not the header's; `verify` also
    compares its transactions with the header's Merkle root, and their witnesses.
    """
    raw = source.raw_block(header.hash)
    try:
        scan = scanner.scan(header.block_id, raw)
        if scan.block != header:
            raise MalformedBlock(f"block {header.block_id}: asked for {header.hash}, got {scan.block.hash}")
        if verify:
            check_commitments(header, raw)
    except MalformedBlock as error:
        raise MalformedBlock(f"{source}: {error}") from error
    wanted = {candidate.txindex: candidate.transaction.txid for candidate in scan.candidates}
    return ScannedBlock(header, inputs(scan, source.spent_outputs(header.hash, wanted)))

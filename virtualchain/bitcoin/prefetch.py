"""Read-ahead: blocks are fetched and scanned in threads while the database works on earlier ones."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from virtualchain.bitcoin.block import Scanner, inputs
from virtualchain.bitcoin.commitments import check_commitments
from virtualchain.bitcoin.source import BlockSource, at_height
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

    At most `ahead` blocks are fetched or held beyond the one yielded last. An error in a block is raised when
    its turn comes, after all blocks before it. Close the generator to stop early (`contextlib.closing`): this
    cancels the fetches that have not started, and returns when the others have finished.
    """
    remaining = iter(headers)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")

    def submit(count: int) -> list[Future[ScannedBlock]]:
        return [
            pool.submit(fetch, source, scanner, header, verify=verify) for header in islice(remaining, count)
        ]

    try:
        pending = deque(submit(ahead))
        while pending:
            block = pending.popleft().result()
            pending.extend(submit(1))
            yield block
    finally:
        pool.shutdown(cancel_futures=True)


def fetch(source: BlockSource, scanner: Scanner, header: Block, *, verify: bool = False) -> ScannedBlock:
    """Fetch one block, its inputs and the outputs that they spend.

    `verify` also checks the transactions against the header's Merkle root, and their witnesses. Raises what
    the source raises, and MalformedBlock if the block does not match the header.
    """
    with at_height(header.block_id):
        raw = source.raw_block(header.hash)
    try:
        scan = scanner.scan(header.block_id, raw)
        if scan.block != header:
            raise MalformedBlock(f"block {header.block_id}: requested {header.hash}, got {scan.block.hash}")
        if verify:
            check_commitments(header, raw)
    except MalformedBlock as error:
        raise MalformedBlock(f"{source}: {error}") from error
    transactions = {candidate.txindex: candidate.transaction.txid for candidate in scan.candidates}
    with at_height(header.block_id):
        return ScannedBlock(header, inputs(scan, source.spent_outputs(header.hash, transactions)))

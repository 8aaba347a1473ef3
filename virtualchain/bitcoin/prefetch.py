"""Read-ahead: blocks are fetched and scanned in threads while the database works on earlier ones."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from virtualchain.bitcoin.block import Scanner, inputs
from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.source import BlockSource
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block, ScannedBlock, Verification


def prefetch(
    source: BlockSource,
    scanner: Scanner,
    headers: Iterable[Block],
    threads: int = 3,
    ahead: int = 8,
    *,
    verify: Verification = "merkle",
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


def fetch(
    source: BlockSource, scanner: Scanner, header: Block, *, verify: Verification = "merkle"
) -> ScannedBlock:
    """Fetch one block, its inputs and the outputs that they spend.

    `verify` is how much of the block is checked, as `CheckedBlock` describes. Raises what the source raises,
    and MalformedBlock if the block does not pass.
    """
    raw = source.raw_block(header.hash)
    try:
        scan = scanner.scan(CheckedBlock(header, raw, source.network, verify))
    except MalformedBlock as error:
        raise MalformedBlock(f"{source}: {error}") from error
    transactions = {candidate.txindex: candidate.transaction.txid for candidate in scan.candidates}
    return ScannedBlock(header, inputs(scan, source.spent_outputs(header.hash, transactions)))

"""The cost of a scan by the number of magics that it searches for.

    python -m tests.benchmarks.magics [--runs 15] [--json]

The block is made up: of 3,000 transactions, 300 have an OP_RETURN, and 30 of these the first magic. The other
magics do not occur, so that only the search is measured. Times are medians in milliseconds; the ratio is to
the scan for one magic in the same run.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

from rich.table import Table

from tests.benchmarks.printing import report
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.payload import watch
from virtualchain.testing import FakeNode

MAGICS = [b"%02d" % number for number in range(100)]
COUNTS = (1, 10, 100)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description="Measure a scan by the number of magics.")
    parser.add_argument("--runs", type=int, default=15, help="scans of each kind (default: 15)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    rows = measure(make_block(), options.runs)
    table = Table("magics", "matches", "ms", "ratio")
    for row in rows:
        table.add_row(f"{row['magics']}", f"{row['matches']}", f"{row['ms']:.2f}", f"{row['ratio']:.2f}")
    report(rows, table, as_json=options.json)


def make_block() -> bytes:
    """Mine the block on a fake node and return it."""
    with FakeNode() as node:
        payloads = [MAGICS[0] + b"o" if number % 100 == 0 else b"zz" for number in range(0, 3000, 10)]
        txs = [
            node.send(payloads[number // 10] + bytes(30) if number % 10 == 0 else None)
            for number in range(3000)
        ]
        node.mine(txs)
        return node.chain.raw_blocks()[-1]


def measure(raw: bytes, runs: int) -> list[dict[str, float | int]]:
    """Scan the block for each number of magics in turn, several times."""
    regtest = network("regtest")
    block = CheckedBlock(read_header(102, raw[:HEADER_SIZE]), raw, regtest, "merkle")
    scanners = {n: Scanner([watch(magic, None, "app") for magic in MAGICS[:n]], regtest) for n in COUNTS}
    times: dict[int, list[float]] = {n: [] for n in COUNTS}
    matches = {n: len(scanner.scan(block).candidates) for n, scanner in scanners.items()}
    for _ in range(runs):
        for n, scanner in scanners.items():
            started = time.perf_counter()
            scanner.scan(block)
            times[n].append((time.perf_counter() - started) * 1000)
    medians = {n: statistics.median(times[n]) for n in COUNTS}
    return [
        {"magics": n, "matches": matches[n], "ms": medians[n], "ratio": medians[n] / medians[COUNTS[0]]}
        for n in COUNTS
    ]


if __name__ == "__main__":
    main()

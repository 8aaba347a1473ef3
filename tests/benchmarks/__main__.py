"""Measure everything that speed consists of, and report it.

    python -m tests.benchmarks [--runs 3] [--full-blocks 60] [--chain FOLDER] [--rows 20000 100000]
        [--quick] [--json] [--svg FILE] [--page]

It runs the benchmarks of this folder one after the other, on one temporary database server: a sync of a
mainnet-like chain and of empty blocks, each stage timed apart, beside bare fetching (`sync`); ops from memory
beside bare psycopg and COPY (`apply`); growth of log and tables (`growth`); ways of keeping history
(`history`); and the time from a block's announcement to its rows (`tip`, with a real bitcoind). From these it
computes a first sync of mainnet (`first_sync`). Rates are medians, and ratios the medians of the runs'
ratios, so that a machine that is busy with other things spoils them less.

`--page` writes the results to `docs/performance.md` and `docs/performance.svg`. `--quick` only shows that all
works. A whole run takes about a quarter of an hour on two cores.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from tests.benchmarks import apply, growth, history, report, sync, tip
from tests.benchmarks.environment import empty_blocks, full_blocks, temporary_server
from tests.benchmarks.page import page
from tests.support.generated import GENERATOR, GeneratedChain, generate, read
from virtualchain.testing.bitcoind import find_bitcoind
from virtualchain.testing.database import DatabaseServer

DOCS: Final = Path(__file__).parents[2] / "docs"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure everything.")
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--full-blocks", type=int, default=60, help="full blocks to generate (default: 60)")
    parser.add_argument("--chain", type=Path, help="a folder with the output of the chain generator")
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 100_000], help="rows of the growth")
    parser.add_argument("--quick", action="store_true", help="measure little, to show that all works")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a plot")
    parser.add_argument("--page", action="store_true", help="write docs/performance.md and .svg")
    options = parser.parse_args(arguments)
    with ExitStack() as opened:
        server = opened.enter_context(temporary_server())
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="virtualchain-benchmark-")))
        results = measure(server, _chain(options, folder), options)
    if options.svg is not None:
        options.svg.write_text(report.plot(results), encoding="utf-8")
    if options.page:
        (DOCS / "performance.svg").write_text(report.plot(results), encoding="utf-8")
        (DOCS / "performance.md").write_text(page(results), encoding="utf-8")
    if options.json:
        print(json.dumps(results))  # noqa: T201 - a program's output
    else:
        Console().print(report.table(results))


def measure(server: DatabaseServer, chain: Path | None, options: argparse.Namespace) -> dict[str, Any]:
    """Run all benchmarks; return their results as JSON. Without a `chain`, a fake node makes the blocks."""
    runs, quick = options.runs, options.quick
    results: dict[str, Any] = report.environment(server, runs)
    few = 1 if quick else options.full_blocks
    with full_blocks(few, chain, fake=chain is None) as blocks:
        _say("the mainnet-like chain")
        full = sync.measure(blocks, server, runs)
        absent = sync.absent_seconds(blocks, server, 1 if quick else runs)
    with empty_blocks(20 if quick else 3000) as blocks:
        _say("empty blocks")
        empty = sync.measure(blocks, server, runs)
    _say("ops from memory")
    total = 10 if quick else 20_000
    applied = [
        apply.measure(server, ops, max(total, 2 * ops), runs) for ops in (0, 10, 20 if quick else 1000)
    ]
    _say("growth")
    rows = [100, 200] if quick else options.rows
    grown = growth.measure(server, rows, 10 if quick else 1000)
    _say("history")
    sizes = (500, 200, 120) if quick else (100_000, 50_000, 1_000)
    kept = history.measure(server, *sizes, 1 if quick else runs)
    arrived: list[tip.Result] = []
    if chain is not None:
        _say("the tip")
        arrived = tip.measure(server, read(chain), 3 if quick else 200)
    return results | report.as_json(full, absent, empty, applied, grown, kept, arrived)


def _chain(options: argparse.Namespace, folder: Path) -> Path | None:
    """Return the folder of the generated chain; None if it cannot be made or used here."""
    if options.chain is not None:
        return Path(options.chain)
    if find_bitcoind() is None or not GENERATOR.exists():
        _say("no bitcoind, or no generator: a fake node serves similar blocks, and the tip is left out")
        return None
    _say(f"generating {options.full_blocks} blocks")
    chain: GeneratedChain = generate(folder, full=3 if options.quick else options.full_blocks, small=0)
    return chain.file.parent


def _say(what: str) -> None:
    print(f"{what} …", file=sys.stderr, flush=True)  # noqa: T201 - progress


if __name__ == "__main__":
    main()

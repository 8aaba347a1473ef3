"""The speed and memory of a sync over REST, compared with merely fetching the same blocks.

    python -m tests.benchmarks.sync [--blocks 120] [--empty 5000] [--runs 3] [--json]

There are two chains: full blocks like mainnet's (from a real bitcoind if `BITCOIND` or PATH has one and the
generator is available, otherwise from a fake node), and blocks with only a coinbase, which show the cost of a
block itself. Each run fetches the blocks over one keep-alive connection, then syncs them into an empty
database with an app that accepts every op, each in a process of its own. The table shows the medians; the
ratio is the median of the runs' ratios. Peak memory is measured for a sync of 100 blocks and of all.

Generating a full block takes half a second. `--chain FOLDER` uses a chain that
`shared/tools/genchain.py --out FOLDER` wrote before, and `--fake` makes similar blocks faster.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.benchmarks.environment import Chain, empty_blocks, full_blocks, temporary_server
from virtualchain.testing.database import DatabaseServer

FEW = 100
"""The number of blocks of the shorter sync, whose peak memory is compared with the whole one's."""


@dataclass(frozen=True)
class Result:
    """The measurements on one chain; times are medians in seconds, memory is in bytes."""

    chain: str
    node: str
    blocks: int
    bytes: int
    inputs: int
    fetch: float
    sync: float
    ratio: float
    peak_at_few: int
    peak_at_all: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both chains and print the results."""
    parser = argparse.ArgumentParser(description="Measure a sync over REST.")
    parser.add_argument("--blocks", type=int, default=120, help="full blocks (default: 120)")
    parser.add_argument("--empty", type=int, default=5000, help="empty blocks (default: 5000)")
    parser.add_argument("--runs", type=int, default=3, help="runs on each chain (default: 3)")
    parser.add_argument("--chain", type=Path, help="a folder with the generator's output")
    parser.add_argument("--fake", action="store_true", help="use the fake node for full blocks, too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    with temporary_server() as server:
        with full_blocks(options.blocks, options.chain, fake=options.fake) as chain:
            results = [measure(chain, server, options.runs)]
        with empty_blocks(options.empty) as chain:
            results.append(measure(chain, server, options.runs))
    if options.json:
        print(json.dumps([asdict(result) for result in results]))  # noqa: T201 - a program's output
    else:
        Console().print(table(results, options.runs))


def measure(chain: Chain, server: DatabaseServer, runs: int) -> Result:
    """Fetch and sync a chain in turn, several times."""
    few = _sync(chain, server, min(chain.last, chain.first + FEW - 1))
    fetches, syncs = [], []
    for _ in range(runs):
        fetches.append(_run_worker(chain, "fetch", chain.last))
        syncs.append(_sync(chain, server, chain.last))
    return Result(
        chain=chain.name,
        node=chain.node,
        blocks=syncs[0]["blocks"],
        bytes=fetches[0]["bytes"],
        inputs=syncs[0]["inputs"],
        fetch=statistics.median(fetched["seconds"] for fetched in fetches),
        sync=statistics.median(synced["seconds"] for synced in syncs),
        ratio=statistics.median(
            synced["seconds"] / fetched["seconds"] for fetched, synced in zip(fetches, syncs, strict=True)
        ),
        peak_at_few=few["peak"],
        peak_at_all=max(synced["peak"] for synced in syncs),
    )


def table(results: Sequence[Result], runs: int) -> Table:
    """Format the chains side by side."""
    grid = Table(f"medians of {runs}", *(f"{result.chain} ({result.node})" for result in results))
    for name, text in _ROWS.items():
        grid.add_row(name, *map(text, results))
    for column in grid.columns[1:]:
        column.justify = "right"
    return grid


_ROWS: Final[dict[str, Callable[[Result], str]]] = {
    "blocks": lambda result: str(result.blocks),
    "size": lambda result: f"{result.bytes / 1e6:.1f} MB",
    "inputs": lambda result: str(result.inputs),
    "fetch only": lambda result: f"{result.blocks / result.fetch:.0f} blocks/s",
    "sync": lambda result: f"{result.blocks / result.sync:.0f} blocks/s",
    "sync, a block": lambda result: f"{result.sync / result.blocks * 1e3:.2f} ms",
    "sync / fetch only": lambda result: f"{result.ratio:.1f} times as long",
    f"peak memory at {FEW} blocks": lambda result: f"{result.peak_at_few / 1e6:.0f} MB",
    "peak memory at all blocks": lambda result: f"{result.peak_at_all / 1e6:.0f} MB",
}


def _sync(chain: Chain, server: DatabaseServer, last: int) -> dict[str, Any]:
    return _run_worker(chain, "sync", last, "--database", server.clone())


def _run_worker(chain: Chain, task: str, last: int, *options: str) -> dict[str, Any]:
    command: list[str] = [
        sys.executable,
        "-m",
        "tests.benchmarks.worker",
        task,
        "--node",
        chain.url,
        *options,
    ]
    command += ["--first", str(chain.first), "--last", str(last)]
    if chain.cookie is not None:
        command += ["--cookie", str(chain.cookie)]
    process = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    measured: dict[str, Any] = json.loads(process.stdout)
    return measured


if __name__ == "__main__":
    main()

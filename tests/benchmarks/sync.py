"""How fast a sync over REST is, beside the bare fetching of the same blocks, and how much memory it takes.

    python -m tests.benchmarks.sync [--blocks 120] [--empty 5000] [--runs 3] [--json]

Two chains: full blocks like mainnet's (from a real bitcoind where `BITCOIND` or PATH has one and the
generator is here, else from a fake node), and blocks with nothing but a coinbase, which show what a block
costs in itself. Each run fetches the blocks over one keep-alive connection, then syncs them with an app
that accepts every op into an empty database, each in a process of its own; the table shows the medians, and
the ratio is the median of the runs' own ratios. Peak memory is that of a sync of 100 blocks and of all.

Generating full blocks takes half a second each: `--chain FOLDER` takes what
`shared/tools/genchain.py --out FOLDER` wrote before, `--fake` makes similar ones faster.
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

from tests.benchmarks.chains import Chain, empty_blocks, full_blocks
from tests.benchmarks.server import temporary_server
from virtualchain.testing.database import DatabaseServer

FEW = 100
"""Blocks of the shorter sync, whose peak memory the whole one's is held against."""


@dataclass(frozen=True)
class Result:
    """What was measured on one chain; times are medians in seconds, memory is in bytes."""

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
    """Measure both chains and print what came out."""
    parser = argparse.ArgumentParser(description="Measure a sync over REST.")
    parser.add_argument("--blocks", type=int, default=120, help="full blocks (default: 120)")
    parser.add_argument("--empty", type=int, default=5000, help="empty blocks (default: 5000)")
    parser.add_argument("--runs", type=int, default=3, help="runs on each chain (default: 3)")
    parser.add_argument("--chain", type=Path, help="a folder that the generator wrote")
    parser.add_argument("--fake", action="store_true", help="take the fake node for full blocks, too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    with temporary_server() as server:
        with full_blocks(given.blocks, given.chain, fake=given.fake) as chain:
            results = [measure(chain, server, given.runs)]
        with empty_blocks(given.empty) as chain:
            results.append(measure(chain, server, given.runs))
    if given.json:
        print(json.dumps([asdict(result) for result in results]))  # noqa: T201 - a program's output
    else:
        Console().print(table(results, given.runs))


def measure(chain: Chain, server: DatabaseServer, runs: int) -> Result:
    """Fetch and sync a chain, one after the other, several times."""
    few = _sync(chain, server, min(chain.last, chain.first + FEW - 1))
    fetches, syncs = [], []
    for _ in range(runs):
        fetches.append(_work(chain, "fetch", chain.last))
        syncs.append(_sync(chain, server, chain.last))
    return Result(
        chain=chain.name,
        node=chain.node,
        blocks=syncs[0]["blocks"],
        bytes=fetches[0]["bytes"],
        inputs=syncs[0]["inputs"],
        fetch=statistics.median(each["seconds"] for each in fetches),
        sync=statistics.median(each["seconds"] for each in syncs),
        ratio=statistics.median(
            synced["seconds"] / fetched["seconds"] for fetched, synced in zip(fetches, syncs, strict=True)
        ),
        peak_at_few=few["peak"],
        peak_at_all=max(each["peak"] for each in syncs),
    )


def table(results: Sequence[Result], runs: int) -> Table:
    """Show the chains side by side."""
    shown = Table(f"medians of {runs}", *(f"{result.chain} ({result.node})" for result in results))
    for name, text in _ROWS.items():
        shown.add_row(name, *map(text, results))
    for column in shown.columns[1:]:
        column.justify = "right"
    return shown


_ROWS: Final[dict[str, Callable[[Result], str]]] = {
    "blocks": lambda result: str(result.blocks),
    "size": lambda result: f"{result.bytes / 1e6:.1f} MB",
    "inputs": lambda result: str(result.inputs),
    "bare fetching": lambda result: f"{result.blocks / result.fetch:.0f} blocks/s",
    "sync": lambda result: f"{result.blocks / result.sync:.0f} blocks/s",
    "sync, a block": lambda result: f"{result.sync / result.blocks * 1e3:.2f} ms",
    "sync / bare fetching": lambda result: f"{result.ratio:.1f} times as long",
    f"peak memory at {FEW} blocks": lambda result: f"{result.peak_at_few / 1e6:.0f} MB",
    "peak memory at all blocks": lambda result: f"{result.peak_at_all / 1e6:.0f} MB",
}


def _sync(chain: Chain, server: DatabaseServer, last: int) -> dict[str, Any]:
    return _work(chain, "sync", last, "--database", server.clone())


def _work(chain: Chain, what: str, last: int, *options: str) -> dict[str, Any]:
    command: list[str] = [
        sys.executable,
        "-m",
        "tests.benchmarks.worker",
        what,
        "--node",
        chain.url,
        *options,
    ]
    command += ["--first", str(chain.first), "--last", str(last)]
    if chain.cookie is not None:
        command += ["--cookie", str(chain.cookie)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


if __name__ == "__main__":
    main()

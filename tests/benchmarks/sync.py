"""The speed and memory of a sync over REST, compared with merely fetching what it needs.

    python -m tests.benchmarks.sync [--blocks 120] [--empty 5000] [--runs 3] [--json]

There are two chains: full blocks like mainnet's (from a real bitcoind if `BITCOIND` or PATH has one and the
generator is available, otherwise from a fake node), and blocks with only a coinbase, which show the cost of a
block itself. Each run, over one keep-alive connection, fetches the blocks; fetches them and the spent outputs
of those in which the app has inputs; then syncs them into an empty database with an app that accepts every
op, with one that finds none, and with ten that find none. Each is a process of its own, and goes over the
blocks twice: the first pass only warms up. The table shows medians of rates and of the runs' ratios. Peak
memory is measured for a sync of 100 blocks and of all. The stages come from a run of their own; fetching runs
in threads beside the others.

Generating a full block takes half a second. `--chain FOLDER` uses a chain that
`shared/tools/genchain.py --out FOLDER` wrote before, and `--fake` makes similar blocks faster.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from tests.benchmarks import processes
from tests.benchmarks.environment import Chain, empty_blocks, full_blocks, temporary_server
from tests.benchmarks.printing import report
from virtualchain.testing.database import DatabaseServer

_PASSES: Final = 2
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
    seconds: dict[str, float]
    """By task: fetch, spent (blocks and spent outputs), sync, absent (a sync that finds no input; with one
    app, and with ten)."""
    cpu: dict[str, float]
    """Seconds of this process's CPU, by task."""
    sync_ratio: float
    """The rate of a sync divided by that of fetching blocks and spent outputs."""
    absent_ratio: float
    """The rate of a sync that finds no input divided by that of fetching blocks."""
    ten_ratio: float
    """The rate of a sync of ten apps that find no input divided by that of one."""
    peak_at_few: int
    peak_at_all: int
    stages: dict[str, float]
    """Milliseconds a block, by stage."""


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
    report([asdict(result) for result in results], table(results, options.runs), as_json=options.json)


def measure(chain: Chain, server: DatabaseServer, runs: int) -> Result:
    """Fetch and sync a chain in turn, several times."""
    few = _run("sync", chain, server, min(chain.last, chain.first + FEW - 1))
    rounds = [{task: _run(task, chain, server, chain.last) for task in _TASKS} for _ in range(runs)]
    staged = _run("sync", chain, server, chain.last, "--stages")

    def median(value: Callable[[dict[str, dict[str, Any]]], float]) -> float:
        return statistics.median(map(value, rounds))

    return Result(
        chain=chain.name,
        node=chain.node,
        blocks=staged["blocks"],
        bytes=rounds[0]["fetch"]["bytes"],
        inputs=staged["inputs"],
        seconds={task: statistics.median(each[task]["seconds"] for each in rounds) for task in _TASKS},
        cpu={task: statistics.median(each[task]["cpu"] for each in rounds) for task in _TASKS},
        sync_ratio=median(lambda each: each["spent"]["seconds"] / each["sync"]["seconds"]),
        absent_ratio=median(lambda each: each["fetch"]["seconds"] / each["absent"]["seconds"]),
        ten_ratio=median(lambda each: each["absent"]["seconds"] / each["absent, ten apps"]["seconds"]),
        peak_at_few=few["peak"],
        peak_at_all=max(each["sync"]["peak"] for each in rounds),
        stages={stage: value / staged["blocks"] * 1e3 for stage, value in staged["stages"].items()},
    )


def table(results: Sequence[Result], runs: int) -> Table:
    """Format the chains side by side."""
    grid = Table(f"medians of {runs}", *(f"{result.chain} ({result.node})" for result in results))
    for name, text in _ROWS.items():
        grid.add_row(name, *map(text, results))
    for stage in dict.fromkeys(stage for result in results for stage in result.stages):
        grid.add_row(f"stage: {stage}", *(f"{result.stages.get(stage, 0):.2f} ms" for result in results))
    for column in grid.columns[1:]:
        column.justify = "right"
    return grid


def _rate(task: str) -> Callable[[Result], str]:
    return lambda result: (
        f"{result.blocks / result.seconds[task]:,.0f} blocks/s, "
        f"{result.bytes / 1e6 / result.seconds[task]:,.1f} MB/s"
    )


_TASKS: Final = {
    "fetch": ("fetch",),
    "spent": ("spent",),
    "sync": ("sync",),
    "absent": ("sync", "--absent", "1"),
    "absent, ten apps": ("sync", "--absent", "10"),
}
"""The worker's arguments, by task."""
_ROWS: Final[dict[str, Callable[[Result], str]]] = {
    "blocks": lambda result: str(result.blocks),
    "size": lambda result: f"{result.bytes / 1e6:.1f} MB",
    "inputs": lambda result: str(result.inputs),
    "fetch blocks": _rate("fetch"),
    "fetch blocks, spent outputs": _rate("spent"),
    "sync": _rate("sync"),
    "sync, no input": _rate("absent"),
    "sync, no input, ten apps": _rate("absent, ten apps"),
    "sync / fetch blocks, spent outputs": lambda result: f"{result.sync_ratio:.2f}",
    "sync, no input / fetch blocks": lambda result: f"{result.absent_ratio:.2f}",
    "sync, no input, ten apps / one": lambda result: f"{result.ten_ratio:.2f}",
    "our CPU, a block": lambda result: f"{result.cpu['sync'] / result.blocks * 1e3:.2f} ms",
    f"peak memory at {FEW} blocks": lambda result: f"{result.peak_at_few / 1e6:.0f} MB",
    "peak memory at all blocks": lambda result: f"{result.peak_at_all / 1e6:.0f} MB",
}


def absent_seconds(chain: Chain, server: DatabaseServer, runs: int) -> dict[str, float]:
    """Measure a sync that finds no input from each kind of source: median seconds, by source."""
    sources = ("rest", "rpc") if chain.folder is None else ("rest", "rpc", "files")
    options = [] if chain.folder is None else ["--blocks", str(chain.folder)]

    def seconds(source: str) -> float:
        return float(_run("absent", chain, server, chain.last, "--source", source, *options)["seconds"])

    rounds = [{source: seconds(source) for source in sources} for _ in range(runs)]
    return {source: statistics.median(each[source] for each in rounds) for source in sources}


def _run(task: str, chain: Chain, server: DatabaseServer, last: int, *options: str) -> dict[str, Any]:
    arguments = [*_TASKS[task], "--node", chain.url, *options]
    arguments += ["--first", str(chain.first), "--last", str(last)]
    if chain.cookie is not None:
        arguments += ["--cookie", str(chain.cookie)]
    urls = [server.clone() for _ in range(_PASSES)]
    result = processes.measured("worker", [*arguments, "--databases", *urls])
    for url in urls:
        server.drop(url)
    return result


if __name__ == "__main__":
    main()

"""State nodes: how much faster eight apps are applied by several processes than by one.

    python -m tests.benchmarks.state_nodes [--blocks 100] [--ops 25] [--nodes 1 2 4 8] [--runs 3] [--json]

A crawler's tape is made once: in each block, each of eight apps has some ops. Then the apps are divided among
state nodes, each a process with a database of its own, and all on one temporary server, as is the crawler's.
They are opened, begin together, and the clock stops when the last one has taken the last block. The ratio is
the rate in blocks to that of one process with all eight apps, in the same run; the shown one is the median.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from tests.benchmarks.environment import temporary_server
from tests.benchmarks.printing import report
from virtualchain import App, State, StateEngine
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

APPS: Final = 8
FIRST: Final = 102
_ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """What was measured; times are medians in seconds."""

    blocks: int
    ops: int
    """Of all apps together."""
    seconds: dict[int, float]
    """By the number of state nodes."""
    ratios: dict[int, float]
    """Of the rate to that of one process."""


def make_app(number: int) -> App:
    """Make one of the eight apps: it keeps a count for each word, and every op."""
    app = App(
        f"words{number}",
        magic=b"w%d" % number,
        first_block_id=FIRST,
        projections="""
            CREATE TABLE words (word text PRIMARY KEY, seen integer NOT NULL DEFAULT 0);
            CREATE TABLE uses (block_id integer, vtxindex integer, word text,
                PRIMARY KEY (block_id, vtxindex));
        """,
    )

    def commit(op: dict[str, Any], state: State, block_id: int, vtxindex: int) -> None:
        state.table("words").add(op["word"], seen=1)
        state.table("uses").put({"block_id": block_id, "vtxindex": vtxindex, "word": op["word"]})

    def keys(op: dict[str, Any]) -> dict[str, list[Any]]:
        return {"words": [op["word"]]}

    app.add(b"s", parse=lambda payload: {"word": payload.decode()}, commit=commit, keys=keys)
    return app


def crawl(server: DatabaseServer, blocks: int, ops: int) -> str:
    """Make the tape; return the URL of its database."""
    url = server.create()
    with FakeNode() as node:
        for block in range(blocks):
            payloads = [b"w%dsword %d" % (app, (block + n) % 50) for app in range(APPS) for n in range(ops)]
            node.mine([node.send(payload, sender=f"user {n}") for n, payload in enumerate(payloads)])
        apps = [make_app(number) for number in range(APPS)]
        with StateEngine(keeps=apps, database=url, source=node.url, confirmations=0) as engine:
            engine.build()
    return url


def follow(server: DatabaseServer, tape: str, nodes: int) -> float:
    """Divide the apps among state nodes; return the seconds until the last one has all blocks."""
    urls = [server.create() for _ in range(nodes)]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.benchmarks.state_nodes", "--node", tape, url, *apps],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    cwd=_ROOT,
                )
            )
            for n, url in enumerate(urls)
            if (apps := [str(number) for number in range(APPS) if number % nodes == n])
        ]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        began = time.perf_counter()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        seconds = time.perf_counter() - began
    assert not any(process.returncode for process in processes)
    for url in urls:
        server.drop(url)
    return seconds


def measure(server: DatabaseServer, blocks: int, ops: int, nodes: Sequence[int], runs: int) -> Result:
    """Make the tape, and follow it with different numbers of state nodes in turns."""
    tape = crawl(server, blocks, ops)
    measured = [{count: follow(server, tape, count) for count in nodes} for _ in range(runs)]
    seconds = {count: statistics.median(run[count] for run in measured) for count in nodes}
    ratios = {count: statistics.median(run[nodes[0]] / run[count] for run in measured) for count in nodes}
    return Result(blocks, blocks * ops * APPS, seconds, ratios)


def table(result: Result) -> Table:
    """Show the result."""
    shown = Table(title=f"{result.blocks:,} blocks, {result.ops:,} ops of {APPS} apps")
    for column in ("state nodes", "blocks/s", "ops/s", "ratio"):
        shown.add_column(column, justify="right")
    for count, seconds in result.seconds.items():
        rates = (f"{result.blocks / seconds:,.0f}", f"{result.ops / seconds:,.0f}")
        shown.add_row(str(count), *rates, f"{result.ratios[count]:.2f}")
    return shown


def run_node(tape: str, url: str, *numbers: str) -> None:
    """Be a state node with some of the apps, which begins when a line comes."""
    apps = [make_app(int(number)) for number in numbers]
    with StateEngine(*apps, database=url, source=tape) as engine:
        print("ready", flush=True)  # noqa: T201 - for the process that has started this one
        sys.stdin.readline()
        engine.build()
        print("done", flush=True)  # noqa: T201 - the same


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.state_nodes", description=__doc__)
    parser.add_argument("--blocks", type=int, default=100)
    parser.add_argument("--ops", type=int, default=25, help="of each app in each block")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--node", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.node:
        run_node(*options.node)
        return
    with temporary_server() as server:
        result = measure(server, options.blocks, options.ops, options.nodes, options.runs)
    report(asdict(result), table(result), as_json=options.json)


if __name__ == "__main__":
    main()

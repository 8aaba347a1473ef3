"""The cost of the guard of statements, as a share of the time in which an app is advanced along the tape.

    python -m tests.benchmarks.guard [--blocks 20] [--ops 200] [--runs 9] [--json]

Each op runs one SELECT and one INSERT … ON CONFLICT DO UPDATE. The blocks are taken once; then the app is
advanced along the tape again and again, with the guard, and with `State` passing parameters on unchecked.
Which of the two goes first changes from pair to pair. The table shows medians; the ratio is the median of
the pairs' ratios. A third run has `--guard`, which watches callbacks in Python. The time of this process
alone is measured as well: it depends less on what else the computer does.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

from rich.table import Table

from tests.benchmarks.environment import temporary_server
from tests.benchmarks.printing import report
from virtualchain import App, State, StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.options import Options
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

KEYS: Final = 500
"""Different keys that ops write to: most upserts update a row."""
MAGIC: Final = b"gd"


@dataclass(frozen=True)
class Result:
    """Ops per second and microseconds of this process per op, with and without the guard."""

    ops: int
    guarded: float
    bare: float
    ratio: float
    """Of the times, with the guard to without."""
    guarded_process: float
    bare_process: float
    watched: float
    """Of the times, with callbacks that are watched in Python, too, to without."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description="Measure what the guard of statements costs.")
    parser.add_argument("--blocks", type=int, default=20, help="blocks (default: 20)")
    parser.add_argument("--ops", type=int, default=200, help="ops in each block (default: 200)")
    parser.add_argument("--runs", type=int, default=9, help="pairs of runs (default: 9)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    with temporary_server() as server:
        result = measure(server, options.blocks, options.ops, options.runs)
    report(asdict(result), table(result, options.runs), as_json=options.json)


def measure(server: DatabaseServer, blocks: int, ops: int, runs: int) -> Result:
    """Advance the app along the same blocks with and without the guard in turn, several times."""
    url = server.clone()
    with FakeNode() as node:
        for block in range(blocks):
            node.mine([node.send(MAGIC + b"o%d" % (block * ops + number)) for number in range(ops)])
        with StateEngine(an_app("warm_up"), database=url, source=node.url, confirmations=0) as engine:
            engine.build()
    pairs: list[dict[bool, tuple[float, float]]] = []
    watched: list[tuple[float, float]] = []
    for run in range(runs):
        order = (True, False) if run % 2 else (False, True)
        pairs.append({guarded: _advance(url, f"run{run}_{guarded}", guarded=guarded) for guarded in order})
        watched.append(_advance(url, f"run{run}_watched", guarded=True, watched=True))
    server.drop(url)
    total = blocks * ops
    wall, process = (
        {guarded: statistics.median(pair[guarded][clock] for pair in pairs) for guarded in (True, False)}
        for clock in (0, 1)
    )
    return Result(
        ops=total,
        guarded=total / wall[True],
        bare=total / wall[False],
        ratio=statistics.median(pair[True][0] / pair[False][0] for pair in pairs),
        guarded_process=process[True] / total * 1e6,
        bare_process=process[False] / total * 1e6,
        watched=statistics.median(each[0] / pair[True][0] for each, pair in zip(watched, pairs, strict=True)),
    )


def table(result: Result, runs: int) -> Table:
    """Format both kinds side by side."""
    grid = Table(f"medians of {runs}", "with the guard", "without")
    grid.add_row("rate", f"{result.guarded:.0f} ops/s", f"{result.bare:.0f} ops/s")
    grid.add_row("process, an op", f"{result.guarded_process:.0f} µs", f"{result.bare_process:.0f} µs")
    grid.add_row("time, with / without", f"{result.ratio:.3f}", "")
    grid.add_row("time, with --guard / without", f"{result.watched:.3f}", "")
    return grid


def an_app(name: str) -> App:
    """Make an app that looks up a key and writes it, in each op."""
    app = App(
        name,
        magic=MAGIC,
        projections="CREATE TABLE pairs (key bigint PRIMARY KEY, value text NOT NULL, times bigint NOT NULL)",
        first_block_id=102,
    )

    def check(op: dict[str, Any], state: State) -> bool:
        row = state.one("SELECT times FROM pairs WHERE key = %s", [op["key"]])
        return row is None or row["times"] >= 0

    def commit(op: dict[str, Any], state: State) -> None:
        state.execute(
            "INSERT INTO pairs VALUES (%(key)s, %(value)s, 1)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value, times = pairs.times + 1",
            op,
        )

    app.add(
        b"o",
        parse=lambda payload: {"key": int(payload) % KEYS, "value": payload.decode()},
        check=check,
        commit=commit,
    )
    return app


def _advance(url: str, name: str, *, guarded: bool, watched: bool = False) -> tuple[float, float]:
    """Install the app under a name, and advance it to the tip; return the seconds of both clocks."""
    contract = read_contract(an_app(name))
    with tempfile.TemporaryDirectory() as folder:
        options = Options(confirmations=0, state_folder=Path(folder), guard=watched)
        with closing(Deployment(url, [contract], None, options)) as deployment:
            (machine,) = deployment.apps.machines
            last = deployment.last_block_id()
            gc.collect()
            with nullcontext() if guarded else _without_guard():
                started, started_process = time.perf_counter(), time.process_time()
                for _ in machine.advance(last):
                    pass
                return time.perf_counter() - started, time.process_time() - started_process


def _without_guard() -> AbstractContextManager[object]:
    """Have `State` pass parameters on as they are; statements are looked at once, before the first block."""

    def as_they_are(known: Any, parameters: Any) -> list[Any]:
        return [parameters[name] for name in known.look.parameters]

    return mock.patch("virtualchain.store.state._values", as_they_are)


if __name__ == "__main__":
    main()

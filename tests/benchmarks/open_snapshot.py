"""The effect on the writer of a reader that keeps a snapshot open for long, as pg_dump does.

    python -m tests.benchmarks.open_snapshot [--blocks 4000] [--history 200] [--runs 3] [--json]

An app that inserts 50 rows, updates 50 others and deletes 10 in each block, and whose old history is pruned
all the time, is synced from a fake node into an empty database. It runs alone, and while another session has
kept a REPEATABLE READ transaction open since the first tenth of the blocks, so the server cannot clean up
rows that were removed since. The table shows the medians; each ratio is the median of the runs' ratios.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import psycopg
from rich.table import Table

from tests.benchmarks.environment import Chain, single_ops, temporary_server
from tests.benchmarks.printing import report
from virtualchain import App, State, StateEngine
from virtualchain.testing.database import DatabaseServer

_STEPS = (
    "INSERT INTO accounts SELECT %(block)s::int * 50 + n, n, 'opened' FROM generate_series(0, 49) AS n",
    """UPDATE accounts SET amount = amount + 1
    WHERE id IN (SELECT 50 * (5 + (%(block)s::bigint * 7919 + n * 104729) %% %(block)s) + n
        FROM generate_series(0, 49) AS n)""",
    """DELETE FROM accounts
    WHERE id IN (SELECT 50 * ((%(block)s::bigint * 31 + n * 7907) %% %(block)s) + n
        FROM generate_series(0, 9) AS n)""",
)


def accounts_app() -> App:
    """Make an app that changes 110 rows in each block."""
    app = App(
        "accounts",
        magic=b"mv",
        projections="CREATE TABLE accounts (id integer PRIMARY KEY, amount integer NOT NULL, note text)",
    )

    def commit(op: object, state: State, block_id: int) -> None:
        for statement in _STEPS:
            state.execute(statement, {"block": block_id})

    app.add(b"o", parse=lambda payload: {}, commit=commit)
    return app


@dataclass(frozen=True)
class Result:
    """Medians of the seconds after the first tenth, and of the last tenth's relative to the second's."""

    blocks: int
    alone: float
    open: float
    ratio: float
    growth_alone: float
    growth_open: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description="Measure a sync with and without an open snapshot.")
    parser.add_argument("--blocks", type=int, default=4000, help="blocks to sync (default: 4000)")
    parser.add_argument("--history", type=int, default=200, help="blocks of history to keep (default: 200)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    with temporary_server() as server, single_ops(options.blocks) as chain:
        result = measure(chain, server, options.history, options.runs)
    report(asdict(result), table(result, options.runs), as_json=options.json)


def measure(chain: Chain, server: DatabaseServer, history: int, runs: int) -> Result:
    """Sync the chain without and with an open snapshot in turn, several times."""
    pairs = [
        (_sync(chain, server, history, snapshot=False), _sync(chain, server, history, snapshot=True))
        for _ in range(runs)
    ]
    alone, with_reader = [sum(pair[0]) for pair in pairs], [sum(pair[1]) for pair in pairs]
    return Result(
        blocks=chain.last - chain.first + 1,
        alone=statistics.median(alone),
        open=statistics.median(with_reader),
        ratio=statistics.median(b / a for a, b in zip(alone, with_reader, strict=True)),
        growth_alone=statistics.median(pair[0][-1] / pair[0][0] for pair in pairs),
        growth_open=statistics.median(pair[1][-1] / pair[1][0] for pair in pairs),
    )


def table(result: Result, runs: int) -> Table:
    """Format both kinds side by side."""
    grid = Table(f"medians of {runs}", "alone", "with an open snapshot")
    blocks = result.blocks * 0.9
    grid.add_row("blocks after the first tenth", f"{blocks:.0f}", f"{blocks:.0f}")
    grid.add_row("rate", f"{blocks / result.alone:.0f} blocks/s", f"{blocks / result.open:.0f} blocks/s")
    grid.add_row("time, with / alone", "", f"{result.ratio:.2f}")
    grid.add_row("time, last tenth / second", f"{result.growth_alone:.2f}", f"{result.growth_open:.2f}")
    return grid


def _sync(chain: Chain, server: DatabaseServer, history: int, *, snapshot: bool) -> list[float]:
    """Sync into a new database; return the seconds of each tenth of the blocks after the first tenth."""
    url = server.clone()
    size = (chain.last - chain.first + 1) // 10
    times = []
    with ExitStack() as opened:
        engine = opened.enter_context(
            StateEngine(accounts_app(), database=url, source=chain.url, confirmations=0, history=history)
        )
        engine.build(chain.first + size - 1)
        if snapshot:
            reader = opened.enter_context(psycopg.connect(url))
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            reader.execute("SELECT count(*) FROM accounts.accounts")
        for part in range(2, 11):
            started = time.perf_counter()
            engine.build(chain.first + part * size - 1)
            times.append(time.perf_counter() - started)
    server.drop(url)
    return times


if __name__ == "__main__":
    main()

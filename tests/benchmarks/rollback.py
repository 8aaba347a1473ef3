"""The time to undo blocks, compared with indexing the same blocks, on a small table and a large one.

    python -m tests.benchmarks.rollback [--rows 10000 1000000] [--blocks 6 100 1000] [--runs 5] [--json]

An early block fills an app's table with rows. Then follow blocks of ten ops, each of which inserts, updates
or deletes a row, or, for the case with many changes, blocks of one op that changes a thousand. They are
indexed, undone and indexed again, several times. The table shows medians, and the ratio of the medians. The
time should depend on what is undone, and not on the size of the table. The last line is a whole reorg of one
block at the tip, without confirmations, compared with taking one block: the engine asks the node, undoes one
block, and takes two.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.benchmarks.environment import temporary_server
from tests.benchmarks.printing import report
from virtualchain import App, State, StateEngine
from virtualchain.engine import rollback as recovery
from virtualchain.model import Reorg
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

TABLES = "CREATE TABLE entries (id bigint PRIMARY KEY, owner text NOT NULL, n integer NOT NULL)"
CHANGES = 10
"""Ops of a block, each of which changes one row."""
MANY = 1000
"""Rows that the only op of the other kind of block changes."""


@dataclass(frozen=True)
class Result:
    """The measurements of one case; times are medians in seconds."""

    rows: int
    case: str
    changes: int
    index: float
    undo: float

    @property
    def ratio(self) -> float:
        """The time of indexing divided by that of undoing."""
        return self.index / self.undo


def table_app() -> App:
    """Make an app that fills a table, and changes single rows or many."""
    app = App("bench", magic=b"bm", projections=TABLES, first_block_id=102)

    def fill(op: dict[str, Any], state: State) -> None:
        state.execute(
            "INSERT INTO entries SELECT i * 10, 'owner ' || mod(i, 1000), 0 FROM generate_series(1, %s) AS i",
            [op["n"]],
        )

    def change(op: dict[str, Any], state: State) -> None:
        n = op["n"]
        if n % 5 < 2:
            state.execute("INSERT INTO entries VALUES (%s, 'new', 0) ON CONFLICT DO NOTHING", [n * 10 + 1])
        elif n % 5 < 4:
            state.execute("UPDATE entries SET n = n + 1 WHERE id = %s", [n % 5_000 * 10])
        else:
            state.execute("DELETE FROM entries WHERE id = %s", [(n % 1_000 + 5_000) * 10])

    def change_many(op: dict[str, Any], state: State) -> None:
        first = op["n"] * MANY
        state.execute(
            "INSERT INTO entries SELECT i * 10 + 1, 'new', 0 FROM generate_series(%s::bigint, %s) AS i",
            [first, first + MANY // 2 - 1],
        )
        state.execute(
            "UPDATE entries SET n = n + 1 "
            "WHERE id IN (SELECT i * 10 FROM generate_series(%s::bigint, %s) AS i)",
            [1 + op["n"] % 10 * (MANY // 2), (1 + op["n"] % 10) * (MANY // 2)],
        )

    def parse(payload: bytes) -> dict[str, int]:
        return {"n": int(payload)}

    app.add(b"f", parse=parse, commit=fill)
    app.add(b"o", parse=parse, commit=change)
    app.add(b"m", parse=parse, commit=change_many)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all cases and print the results."""
    parser = argparse.ArgumentParser(description="Measure rollbacks.")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000], help="table sizes")
    parser.add_argument("--blocks", type=int, nargs="+", default=[6, 100, 1000], help="blocks to undo")
    parser.add_argument("--many", type=int, default=100_000, help="changes of the case with many changes")
    parser.add_argument("--runs", type=int, default=5, help="runs of each case (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    results: list[Result] = []
    with temporary_server() as server:
        for rows in options.rows:
            results += measure(server, rows, options.blocks, options.many, options.runs)
    values = [{**asdict(result), "ratio": result.ratio} for result in results]
    report(values, table(results, options.runs), as_json=options.json, width=110)


def measure(server: DatabaseServer, rows: int, depths: Sequence[int], many: int, runs: int) -> list[Result]:
    """Fill a table, and undo blocks of changes to it."""
    url = server.clone()
    results = []
    with FakeNode() as node, tempfile.TemporaryDirectory() as folder:
        node.mine([node.send(b"bmf%d" % rows)])
        node.mine(n=3)
        settings: dict[str, Any] = {"database": url, "source": node.url, "state_folder": Path(folder)}
        with StateEngine(table_app(), confirmations=0, history=None, **settings) as engine:
            base = engine.build()
            for depth in depths:
                _replace(
                    node, base, depth, lambda block: [b"bmo%d" % (block * 10 + i) for i in range(CHANGES)]
                )
                results.append(_cycle(engine, rows, f"{depth} blocks", depth * CHANGES, base, runs))
            _replace(node, base, max(1, many // MANY), lambda block: [b"bmm%d" % (block + 1_000)])
            results.append(_cycle(engine, rows, f"{many:,} changes", many, base, runs))
            results.append(_tip(engine, node, rows, runs))
    return results


def table(results: Sequence[Result], runs: int) -> Table:
    """Format the cases one below the other."""
    grid = Table("rows", f"undone (medians of {runs})", "changes", "indexing", "undoing", "ratio")
    for result in results:
        grid.add_row(
            f"{result.rows:,}",
            result.case,
            f"{result.changes:,}",
            f"{result.index * 1e3:,.1f} ms",
            f"{result.undo * 1e3:,.1f} ms",
            f"1/{result.ratio:.1f}",
        )
    for column in grid.columns[2:]:
        column.justify = "right"
    return grid


def _cycle(engine: StateEngine, rows: int, case: str, changes: int, base: int, runs: int) -> Result:
    """Index the node's blocks above `base` and undo them, several times."""
    indexed, undone = [], []
    for _ in range(runs):
        indexed.append(_timed(engine.build))
        tip = engine._deployment.tape.tip()
        assert tip is not None
        reorg = Reorg(base, None, tip, None, "operator")
        undone.append(_timed(lambda reorg=reorg: recovery.roll_back(engine._deployment, reorg)))  # type: ignore[misc]
    return Result(rows, case, changes, statistics.median(indexed), statistics.median(undone))


def _tip(engine: StateEngine, node: FakeNode, rows: int, runs: int) -> Result:
    """Measure whole reorgs of one block at the tip."""
    extended, reorganized = [], []
    engine.build()
    for run in range(runs):
        ops = [[node.send(b"bmo%d" % (10**7 + run * 100 + i)) for i in range(CHANGES)] for _ in range(2)]
        node.mine(ops[0])
        extended.append(_timed(engine.build))
        node.reorg(1, 2, ops[1])
        reorganized.append(_timed(engine.build))
    return Result(
        rows, "reorg of one block", CHANGES, statistics.median(extended), statistics.median(reorganized)
    )


def _replace(node: FakeNode, base: int, blocks: int, payloads: Callable[[int], list[bytes]]) -> None:
    """Replace the blocks above block `base`."""
    tree = node.chain.tree
    with node._lock:
        tree.activate(tree.chain[base])
        for block in range(blocks):
            node.mine([node.send(payload) for payload in payloads(block)])


def _timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

"""From the benchmarks' results to JSON, goals, a table and a plot; `page` writes the documentation."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from rich.table import Table

from tests.benchmarks import apply, growth, sync, tip
from tests.benchmarks.first_sync import estimate
from tests.benchmarks.plot import Bar, number, svg
from virtualchain.testing.database import DatabaseServer

_SOURCES: Final = {"rest": "node, REST", "rpc": "node, JSON-RPC alone", "files": "the node's files"}


def environment(server: DatabaseServer, runs: int) -> dict[str, Any]:
    """Describe when and on what kind of machine this runs."""
    url = server.create()
    with psycopg.connect(url) as connection:
        version = connection.info.server_version // 10_000
    server.drop(url)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    machine = (
        f"{os.cpu_count()} cores {platform.machine()}, {memory:.0f} GB, {platform.system()}, "
        f"Python {platform.python_version()}, PostgreSQL {version}"
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "load": os.getloadavg()[0],
        "runs": runs,
    }


def as_json(
    full: sync.Result,
    absent: Mapping[str, float],
    empty: sync.Result,
    applied: Sequence[apply.Result],
    grown: Sequence[growth.Result],
    kept: Mapping[str, Mapping[str, float]],
    arrived: Sequence[tip.Result],
) -> dict[str, Any]:
    """Put all results together, with the first sync that follows from them."""
    rates = {_SOURCES[source]: full.bytes / seconds for source, seconds in absent.items()}
    estimates = estimate(rates, applied[-1].helper)
    return {
        "sync": [asdict(full), asdict(empty)],
        "bytes_per_second": rates,
        "apply": [asdict(result) for result in applied],
        "growth": [asdict(result) for result in grown],
        "history": {way: dict(row) for way, row in kept.items()},
        "tip": [asdict(result) for result in arrived],
        "first_sync": [asdict(each) | {"hours": each.hours} for each in estimates],
    }


def goals(results: Mapping[str, Any]) -> list[Bar]:
    """Compare what was measured with what the project wants to reach."""
    full, small = results["sync"]
    empty, few, many = results["apply"]
    cases = {each["case"]: each for each in results["growth"]}
    one_row = cases["one row"]["ratio"]
    bars = [
        Bar("full blocks / fetch and spent outputs", full["sync_ratio"], 0.65, ""),
        Bar("blocks without an input / fetch", full["absent_ratio"], 0.6, ""),
        Bar("empty blocks / an empty transaction", empty["ratios"]["empty"], 1.25, ""),
        Bar("ops, 10 a block / bare statements", few["ratios"]["statements"], 1.0, ""),
        Bar("ops, 1,000 a block / bare statements", many["ratios"]["statements"], 1.0, ""),
        Bar("state.table, 10 ops a block", few["helper"], 12_000, "/s"),
        Bar("state.table, 1,000 ops a block", many["helper"], 25_000, "/s"),
        Bar("empty blocks, ten apps / one", small["ten_ratio"], 1 / 1.3, ""),
        *(
            Bar(f"growth, {case}: last rate / first", cases[case]["ratio"], 0.9, "")
            for case in ("plain", "state.table", "snapshot", "composite", "ten apps", "one row, state.table")
        ),
        Bar("growth, one row / bare statements", one_row / cases["one row, bare"]["ratio"], 0.9, ""),
        Bar("bytes an op", sum(cases["plain"]["bytes_per_op"].values()), 750, "", is_cost=True),
        Bar("peak memory", max(_peaks(results)) / 1e6, 250, "MB", is_cost=True),
    ]
    times = {(each["way"], each["kind"]): each for each in results["tip"]}
    if times:
        small, large = times["REST", "small"], times["REST", "full"]
        bars += [
            Bar("tip, small block, median", small["median"], 3, "ms", is_cost=True),
            Bar("tip, full block, median", large["median"], 8, "ms", is_cost=True),
            Bar("tip, full block, 99th percentile", large["p99"], 25, "ms", is_cost=True),
        ]
    return bars


def _peaks(results: Mapping[str, Any]) -> list[float]:
    return [
        *(each["peak_at_all"] for each in results["sync"]),
        *(each["peak"] for each in (*results["apply"], *results["growth"])),
    ]


def plot(results: Mapping[str, Any]) -> str:
    """Draw goals and stages."""
    full, _ = results["sync"]
    empty, few, many = (each["stages"] for each in results["apply"])
    stacks = {
        f"a full block, {sum(full['stages'].values()):.1f} ms": full["stages"],
        f"an empty block, {number(sum(empty.values()))} µs": empty,
        f"an op of 10, {number(sum(few.values()))} µs": few,
        f"an op of 1,000, {number(sum(many.values()))} µs": many,
    }
    return svg(goals(results), stacks)


def table(results: Mapping[str, Any]) -> Table:
    """Format the results for a terminal: what was measured, its goal, and the first sync."""
    grid = Table("measured", "value", "goal", "share", title=f"{results['date']}, {results['machine']}")
    for column in grid.columns[1:]:
        column.justify = "right"
    for bar in goals(results):
        limit = f"{'≤' if bar.is_cost else '≥'} {number(bar.goal)} {bar.unit}"
        grid.add_row(bar.name, f"{number(bar.value)} {bar.unit}", limit, f"{bar.share:.2f}")
    grid.add_section()
    for each in results["first_sync"]:
        grid.add_row(f"first sync of mainnet: {each['source']}", f"{each['hours']:.1f} h", "", "")
    return grid

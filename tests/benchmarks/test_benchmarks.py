"""The benchmarks run and show their results; the tests do not judge how long anything takes."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import __main__ as everything
from tests.benchmarks import (
    apply,
    cold_start,
    growth,
    guard,
    history,
    open_snapshot,
    outputs,
    processes,
    proofs,
    rollback,
    scaling,
    sync,
    tip,
    webhooks,
    worker,
)
from tests.benchmarks.environment import single_ops
from tests.benchmarks.first_sync import estimate
from tests.benchmarks.plot import Bar
from tests.benchmarks.stages import STAGES
from tests.support.generated import GENERATOR, generate
from virtualchain.testing.bitcoind import Bitcoind
from virtualchain.testing.database import DatabaseServer


@dataclass(frozen=True)
class Once:
    """One run of everything: what was printed and written, and what each benchmark returned on the way."""

    printed: str
    folder: Path
    measured: dict[str, list[Any]]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Run everything, as the command does without a node, but in this process: starting sixty takes long."""
    folder = tmp_path_factory.mktemp("everything")
    measured: dict[str, list[Any]] = {}
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.setattr(everything, "find_bitcoind", lambda: None)
        patch.setattr(everything, "DOCS", folder)
        patch.setattr(processes, "measured", _in_this_process)
        for module in (sync, apply, growth, history):
            patch.setattr(
                module, "measure", _noting(module.measure, measured.setdefault(module.__name__, []))
            )
        everything.main(["--quick", "--runs", "1", "--json", "--svg", str(folder / "plot.svg"), "--page"])
    return Once(printed.getvalue(), folder, measured)


def _in_this_process(module: str, arguments: list[str]) -> Any:
    """Call a program's `main` instead of starting it."""
    with redirect_stdout(StringIO()) as printed:
        {"apply": apply, "growth": growth, "worker": worker}[module].main(arguments)
    return json.loads(printed.getvalue())


def _noting(measure: Callable[..., Any], results: list[Any]) -> Callable[..., Any]:
    """Note what a benchmark returns."""

    def noted(*arguments: Any) -> Any:
        results.append(measure(*arguments))
        return results[-1]

    return noted


def test_one_command_measures_everything(once: Once) -> None:
    """Without a node it leaves out the tip; it prints JSON, draws a plot, and writes the page."""
    results = json.loads(once.printed)
    assert results["tip"] == []
    assert [each["source"] for each in results["first_sync"]] == ["node, REST", "node, JSON-RPC alone"]
    plot = once.folder / "plot.svg"
    assert ET.parse(plot).getroot().tag.endswith("svg")
    assert (once.folder / "performance.svg").read_text() == plot.read_text()
    page = (once.folder / "performance.md").read_text()
    assert f"Measured on {results['date']}" in page
    assert "| state.table, 1,000 ops a block |" in page


def test_syncs_of_both_chains_are_measured(once: Once) -> None:
    """A few blocks of each kind are fetched and synced, and the results shown."""
    full, empty = once.measured[sync.__name__]
    assert (full.blocks, empty.blocks, empty.inputs) == (1, 20, 0)
    assert full.bytes > 1_000_000 > empty.bytes
    for result in (full, empty):
        assert all(seconds > 0 for seconds in result.seconds.values())
        assert result.peak_at_all > 10_000_000
    assert set(full.stages) == set(STAGES) - {"reading the tape"}
    assert sync.table([full, empty], 1).row_count == 14 + len(full.stages)


def test_applying_ops_is_measured(once: Once) -> None:
    """A few blocks of ops and empty ones are applied beside every bound, with the time of each stage."""
    empty, _, ops = once.measured[apply.__name__]
    assert set(ops.bounds) == set(apply.BOUNDS)
    assert all(ratio > 0 for ratio in ops.ratios.values())
    assert {"parse", "check", "commit", "rows of tape and log", "state hash"} <= set(ops.stages)
    assert set(empty.bounds) == {"empty"}
    assert apply.table([ops, empty], 1).row_count == 9 + len(ops.stages)


def test_tracking_outputs_is_measured(database_server: DatabaseServer) -> None:
    """A few blocks are taken by an app that tracks outputs, and by one that does not."""
    result = outputs.measure(database_server, 1_000, 2, 60, 1)
    assert result.ratio > 0
    assert outputs.table([result], 1).row_count == 7


def test_syncs_with_and_without_an_open_snapshot_are_measured(database_server: DatabaseServer) -> None:
    """A few blocks are synced with and without a long reader, and the results shown."""
    with single_ops(40) as chain:
        result = open_snapshot.measure(chain, database_server, 10, 1)
    assert (result.blocks, result.alone > 0, result.open > 0, result.ratio > 0) == (40, True, True, True)
    assert open_snapshot.table(result, 1).row_count == 4


def test_rollbacks_are_measured(database_server: DatabaseServer) -> None:
    """Each depth, many changes and a reorg at the tip are measured on a table of one size."""
    results = rollback.measure(database_server, 3_000, [2, 5], 2_000, 1)
    assert [result.case for result in results] == [
        "2 blocks",
        "5 blocks",
        "2,000 changes",
        "reorg of one block",
    ]
    assert all(result.index > 0 and result.undo > 0 for result in results)
    assert rollback.table(results, 1).row_count == 4


def test_webhooks_are_measured(database_server: DatabaseServer) -> None:
    """Receivers that fail and that do not get the same events."""
    results = webhooks.deliveries(database_server, 12)
    assert results["reliable"][1] == 12 < results["unreliable"][1]


def test_every_way_of_keeping_history_is_measured(once: Once) -> None:
    """Each way inserts, updates, deletes and undoes the same rows."""
    (measured,) = once.measured[history.__name__]
    assert set(measured) == {"none", "key", "plain", "brin"}
    assert all(row["bulk insert, µs a row"] > 0 for row in measured.values())
    assert all(measured[way]["undo 100 blocks, ms"] > 0 for way in measured if way != "none")
    assert history.table(measured).row_count == 8


def test_proofs_are_measured() -> None:
    """On a short chain, too, a proof has its size, its hops, and is checked."""
    result = proofs.measure(3_000, 5)
    assert result.hops[1] == 11
    assert 0 < result.bytes[0] <= result.bytes[1] < 20_000
    assert proofs.table(result).row_count == 4


def test_the_guard_of_statements_is_measured(database_server: DatabaseServer) -> None:
    """A few ops are advanced with and without the guard, and the results shown."""
    result = guard.measure(database_server, 3, 5, 2)
    assert (result.ops, result.guarded > 0, result.bare > 0, result.ratio > 0) == (15, True, True, True)
    assert result.guarded_process > 0 < result.bare_process
    assert result.watched > 0
    assert guard.table(result, 2).row_count == 4


def test_the_arithmetic_of_scaling_is_on_its_page() -> None:
    """The page has the tables that are computed, and the model agrees with what was measured."""
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
    for rows in (scaling.by_ops(), scaling.by_apps(), scaling.by_nodes(), scaling.by_readers()):
        assert scaling.markdown(rows) in page
    for nodes, ratio in scaling.NODES.items():
        assert scaling.speedup(nodes, 2) == pytest.approx(ratio, rel=0.1)
    faster = scaling.Measured(statements=10_000.0)
    assert scaling.by_ops(faster)[3][3] == "28 h"


def test_a_cold_start_is_measured(database_server: DatabaseServer, tmp_path: Path) -> None:
    """A small checkpoint is published, applied from its URL beside a COPY, and the results shown."""
    result = cold_start.measure(database_server, 3000, 1, tmp_path)
    assert result.bytes > 300_000
    assert result.apply > result.bound > 0
    assert cold_start.shown(result).row_count == 2


def test_growth_is_measured(once: Once) -> None:
    """Every case is applied to a small number of rows, and the results shown."""
    (results,) = once.measured[growth.__name__]
    assert [result.case for result in results] == list(growth.CASES)
    sizes = [sorted(result.rates) for result in results]
    assert sizes == [*[[100, 200]] * 5, [1, 3, 10], *[[40, 160]] * 3]
    assert all(rate > 0 for result in results for rate in result.rates.values())
    assert {"ops", "inputs"} <= set(results[0].bytes_per_op)
    assert growth.table(results).row_count == len(growth.CASES)


def test_an_op_takes_at_most_750_bytes(database_server: DatabaseServer) -> None:
    """Nothing is stored twice: tape and log, with their indexes, of an op with one sender and two outputs."""
    (result,) = growth.measure(database_server, [2_000], 1_000, ["plain"])
    assert 500 < sum(result.bytes_per_op.values()) < 750


@pytest.mark.node
@pytest.mark.skipif(not GENERATOR.exists(), reason="needs the chain generator")
def test_the_tip_is_measured(bitcoind: Bitcoind, database_server: DatabaseServer, tmp_path: Path) -> None:
    """A small and a full block come to the bare program and to the engine, and their times are shown."""
    assert bitcoind.rpc("getblockcount") >= 0, "else this test is skipped"
    ways = ("bare", "REST, ZMQ")
    assert set(ways) < set(tip.WAYS)
    results = tip.measure(database_server, generate(tmp_path, full=1, small=0), 1, ways)
    assert [(each.way, each.kind) for each in results] == [
        (way, kind) for way in ways for kind in ("small", "full")
    ]
    assert all(0 < each.median <= each.p99 <= each.worst for each in results)
    assert tip.table(results).row_count == 4


def test_a_first_sync_is_the_sum_of_blocks_and_ops() -> None:
    """The hours follow from bytes and ops a second."""
    rest, files = estimate({"REST": 100e6, "files": 200e6}, 30_000)
    assert (round(rest.blocks, 3), round(rest.ops, 3)) == (1.778, 2.778)
    assert rest.hours == rest.blocks + rest.ops
    assert files.hours == rest.blocks / 2 + rest.ops


def test_bars_show_how_much_of_a_goal_is_reached() -> None:
    """More is better, or less is."""
    assert Bar("rate", 50, 100, "/s").share == 0.5
    assert Bar("time", 50, 100, "ms", is_cost=True).share == 2.0

"""The alert rules, by promtool: each fires in its case and in no other; and what the dashboard asks for."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from virtualchain.engine.measures import AppState, Measures
from virtualchain.metrics import METRICS
from virtualchain.operating.exposition import Exposition

DEPLOY: Final = Path(__file__).parents[3] / "docs" / "deploy"
MONITORING: Final = DEPLOY.parent / "monitoring.md"
STEPS: Final = 96
"""Samples of each series, five minutes apart: eight hours."""
SOON: Final = 18
"""How many of them most cases need."""
LONG: Final = ("the first sync", "the database grows", "a full disk", "a disk that fills")
"""Cases that need all."""
WRITER: Final = 'job="virtualchain", instance="writer:9108"'
SERVER: Final = 'job="virtualchain-serve", instance="server:8080"'
DISK: Final = 'job="node", instance="host:9100", mountpoint="/var/lib/postgresql"'

Series = dict[str, str | None]


def constant(value: float) -> str:
    """Write a series that does not change."""
    return f"{value}x{STEPS}"


def steady(start: float, by: float) -> str:
    """Write a series that changes by the same number each time."""
    return f"{start}{by:+}x{STEPS}"


def of(place: str, **samples: str | None) -> Series:
    """Return series of an instance, by metric; two underscores separate its labels' names and values."""
    series = {}
    for name, values in samples.items():
        metric, *labels = name.split("__")
        pairs = [f'{label}="{value}"' for label, value in zip(labels[::2], labels[1::2], strict=True)]
        family = {"writer": "virtualchain_up"}.get(metric, metric)
        if not family.startswith(("up", "node_file", "virtualchain_")):
            family = f"virtualchain_{family}"
        series[f"{family}{{{', '.join([place, *pairs])}}}"] = values
    return series


def healthy(place: str) -> Series:
    """Return the series of an instance that is well."""
    return of(
        place,
        up=constant(1),
        **{
            "writer": constant(1),
            "started_timestamp_seconds": constant(10),
            "height": steady(100, 1),
            "node_height": steady(106, 1),
            "node_in_use": constant(1),
            "nodes_disagree": constant(0),
            "lag_blocks": constant(0),
            "last_block_timestamp_seconds": steady(0, 300),
            "app_height__app__names": steady(100, 1),
            "app_halted__app__names": constant(0),
            "app_unexpected__app__names": constant(0),
            "deep_fork_refused": constant(0),
            "reorganization_depth_blocks_count": constant(0),
            "reorganization_depth_blocks_bucket__le__6.0": constant(0),
            "database_size_bytes": steady(1e9, 1000),
            **{f"node_errors_total__kind__{kind}": constant(0) for kind in ("unavailable", "malformed")},
            **{f"waiting__for__{cause}": constant(0) for cause in ("node", "database", "readers")},
        },
    )


WELL: Final = {
    **healthy(WRITER),
    **healthy(SERVER),
    **of(SERVER, report_age_seconds=constant(5)),
    **of(DISK, node_filesystem_avail_bytes=constant(5e11), node_filesystem_size_bytes=constant(1e12)),
}
ONCE: Final = f"0x{SOON - 6} 1x{STEPS}"
"""A counter that is increased once, within the last half hour."""
CASES: Final[dict[str, tuple[str | None, Series]]] = {
    "all is well": (None, {}),
    "no target": ("VirtualchainNoTarget", dict.fromkeys(WELL)),
    "a target is gone": (
        "VirtualchainDown",
        {**dict.fromkeys(name for name in WELL if WRITER in name), **of(WRITER, up=constant(0))},
    ),
    "no writer": ("VirtualchainNoWriter", of(SERVER, writer=constant(0))),
    "no writer, which lagged": (
        "VirtualchainNoWriter",
        of(SERVER, writer=constant(0), lag_blocks=constant(9)),
    ),
    "no report": ("VirtualchainNotReporting", of(SERVER, report_age_seconds=constant(400))),
    "a deep fork": (
        "VirtualchainDeepFork",
        of(SERVER, writer=constant(0), deep_fork_refused=constant(1)),
    ),
    "a deep rollback": ("VirtualchainDeepRollback", of(WRITER, reorganization_depth_blocks_count=ONCE)),
    "a short rollback": (
        None,
        of(
            WRITER,
            **{
                "reorganization_depth_blocks_count": ONCE,
                "reorganization_depth_blocks_bucket__le__6.0": ONCE,
            },
        ),
    ),
    "the tape stands": ("VirtualchainLagging", of(WRITER, lag_blocks=constant(5))),
    "the tape falls back": ("VirtualchainLagging", of(WRITER, lag_blocks=steady(5, 1))),
    "the first sync": (
        None,
        of(WRITER, lag_blocks=steady(900_000, -1000), database_size_bytes=steady(1e9, 1e8)),
    ),
    "no new blocks": ("VirtualchainNoNewBlocks", of(WRITER, last_block_timestamp_seconds=constant(-20_000))),
    "a halted app": (
        "VirtualchainAppHalted",
        of(WRITER, app_halted__app__names=constant(1), app_height__app__names=constant(100)),
    ),
    "other digests": (
        "VirtualchainUnexpectedDigest",
        of(
            WRITER,
            app_unexpected__app__names=constant(1),
            app_halted__app__names=constant(1),
            app_height__app__names=constant(100),
        ),
    ),
    "other digests, and it continues": (
        "VirtualchainUnexpectedDigest",
        of(WRITER, app_unexpected__app__names=constant(1)),
    ),
    "an app stands": ("VirtualchainAppLagging", of(WRITER, app_height__app__names=constant(90))),
    "an app catches up": (None, of(WRITER, app_height__app__names=steady(-1000, 2))),
    "the node is away": (
        "VirtualchainNodeAway",
        of(WRITER, waiting__for__node=constant(1), node_errors_total__kind__unavailable=steady(0, 9)),
    ),
    "nodes that disagree": ("VirtualchainNodesDisagree", of(WRITER, nodes_disagree=constant(1))),
    "another node": ("VirtualchainNodeReplaced", of(WRITER, node_in_use=constant(2))),
    "the node restarts": (None, of(WRITER, waiting__for__node=f"0x{SOON - 1} 1x{STEPS}")),
    "the node lies": ("VirtualchainNodeErrors", of(WRITER, node_errors_total__kind__malformed=steady(0, 5))),
    "the database is away": ("VirtualchainDatabaseAway", of(WRITER, waiting__for__database=constant(1))),
    "a reader": ("VirtualchainReaders", of(WRITER, waiting__for__readers=constant(1))),
    "it starts again and again": (
        "VirtualchainRestarts",
        of(WRITER, started_timestamp_seconds=steady(10, 120)),
    ),
    "it starts again": (None, of(WRITER, started_timestamp_seconds=f"10x{SOON - 6} 3600x{STEPS}")),
    "the database grows": ("VirtualchainGrowth", of(WRITER, database_size_bytes=steady(1e9, 1e7))),
    "a full disk": ("VirtualchainDisk", of(DISK, node_filesystem_avail_bytes=constant(1e10))),
    "a disk that fills": ("VirtualchainDisk", of(DISK, node_filesystem_avail_bytes=steady(5e11, -1e9))),
}
"""The alert that fires, if one does, and the series that are not as in `WELL` (None: there is none)."""


@pytest.fixture
def promtool() -> str:
    """Return the path of promtool; without it the test is skipped, or fails if CI=true."""
    path = shutil.which("promtool")
    if path is None:
        assert os.environ.get("CI") != "true", "promtool is missing"
        pytest.skip("there is no promtool")
    return path


def rules() -> list[dict[str, str]]:
    """Return the alerts with their names and runbooks, read as text: there is no parser of YAML here."""
    text = (DEPLOY / "alerts.yml").read_text(encoding="utf-8")
    alerts = re.findall(r"- alert: (\w+)\n(.*?)(?=\n\n|\Z)", text, re.DOTALL)
    return [{"name": name, "body": body} for name, body in alerts]


def run(*arguments: object) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_in_its_case_and_in_no_other(promtool: str, tmp_path: Path) -> None:
    """Every alert has a case, and nothing else fires in it."""
    tests = []
    for case, (alert, changes) in CASES.items():
        assert set(changes) <= set(WELL), case
        series = {**WELL, **changes}
        expected = [] if alert is None else [{"labels": f'{{alertname="{alert}"}}', "value": 1}]
        tests.append(
            {
                "name": case,
                "interval": "5m",
                "input_series": [
                    {"series": name, "values": values} for name, values in series.items() if values
                ],
                "promql_expr_test": [
                    {
                        "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": f"{(STEPS if case in LONG else SOON) * 5}m",
                        "exp_samples": expected,
                    }
                ],
            }
        )
    file = tmp_path / "alerts_test.yml"
    whole = {"rule_files": [str(DEPLOY / "alerts.yml")], "evaluation_interval": "5m", "tests": tests}
    file.write_text(json.dumps(whole))  # which is YAML, too
    run(promtool, "test", "rules", file)
    assert {alert for alert, _ in CASES.values()} - {None} == {rule["name"] for rule in rules()}


def test_each_alert_has_a_section_that_says_what_to_do(promtool: str) -> None:
    """Its runbook leads to a heading of its name."""
    run(promtool, "check", "config", DEPLOY / "prometheus.yml")
    headings = re.findall(r"^### (Virtualchain\w+)$", MONITORING.read_text(encoding="utf-8"), re.MULTILINE)
    assert [rule["name"] for rule in rules()] == headings
    for rule in rules():
        assert f"runbook: docs/monitoring.md#{rule['name'].lower()}\n" in rule["body"] + "\n"
        assert all(f"{key}: " in rule["body"] for key in ("summary", "description", "severity"))


def _names(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:virtualchain|process|node)_\w+", expression))


def _known() -> set[str]:
    histograms = {name for name, metric in METRICS.items() if metric.kind == "histogram"}
    parts = {f"{name}{part}" for name in histograms for part in ("_bucket", "_count", "_sum")}
    return set(METRICS) - histograms | parts


def test_all_metrics_that_alerts_and_dashboard_ask_for_exist(promtool: str, tmp_path: Path) -> None:
    """No panel stays empty because of a name, and every expression can be evaluated."""
    dashboard = json.loads((DEPLOY / "dashboard.json").read_text(encoding="utf-8"))
    panels: list[dict[str, Any]] = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    known = _known() | {
        f"process_{name}" for name in ("resident_memory_bytes", "cpu_seconds_total", "open_fds")
    }
    asked = set().union(*map(_names, expressions))
    assert asked <= known, asked - known
    unused = {name for name in METRICS if not any(name in each for each in asked)} - {
        "virtualchain_inputs_total",
        "virtualchain_waiting",
    }
    assert not unused, "the dashboard shows every metric"
    in_alerts = _names("".join(rule["body"].split("annotations:")[0] for rule in rules()))
    assert in_alerts - {"node_filesystem_avail_bytes", "node_filesystem_size_bytes"} <= known
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels), "no panel lies on another"
    group = {
        "name": "dashboard",
        "rules": [
            {"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions)
        ],
    }
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [group]}))
    run(promtool, "check", "rules", tmp_path / "rules.yml")


def test_the_text_is_as_prometheus_wants_it(promtool: str) -> None:
    """Names, units and help lines pass its linter."""
    measures = Measures()
    measures.see({"names": AppState(1, is_halted=False, is_unexpected=False)})
    text, _ = Exposition(measures.samples, process=True).write(None)
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_page_describes_every_metric() -> None:
    """Its table has the names, kinds and labels of `METRICS`, in the same order."""
    text = MONITORING.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(virtualchain_\w+)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE)
    listed = [(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows]
    assert listed == [(name, metric.kind, metric.labels) for name, metric in METRICS.items()]

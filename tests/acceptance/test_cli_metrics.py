"""The option `run --metrics`: a real process, and what it has in common with `status`."""

import json
import re
import signal
import socket
import sys
import time
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client import parser as text_format

from tests.acceptance.conftest import Commands, Done, Inside, Running
from tests.acceptance.test_cli_hung import stopped_backend
from tests.acceptance.test_cli_run import at
from virtualchain.testing import FakeNode

MOVING = ("stage_seconds", "waiting", "report_age", "database_size", "lag_seconds", "up")
"""Parts of the names of metrics that change while a writer rests, or are only known to one of both."""


@pytest.fixture
def common(fake_node: FakeNode, database_url: str) -> tuple[Any, ...]:
    """Return the options of every command here."""
    node = ("--bitcoin", fake_node.url, "--confirmations", 0)
    return ("--app", "apps", "--database", database_url, *node)


def ask(process: Running, path: str = "/metrics") -> str:
    """Return what a running writer answers."""
    process.until_said("metrics are at http://")
    [url] = re.findall(r"metrics are at (\S+)/metrics", process.err)
    with urlopen(url + path, timeout=10) as answer:
        return str(answer.read().decode())


def check_last_line(done: Done, complaint: str) -> None:
    """Check that a command ended with a line that contains a text, after what it says of passwords."""
    *warnings, last = done.err.splitlines()
    assert complaint in last, done.err
    assert all("is in the process list" in line for line in warnings), done.err


def samples(text: str) -> dict[str, float]:
    """Return the samples of a text that do not move, by name and labels as JSON."""
    return {
        json.dumps([sample.name, sample.labels], sort_keys=True): sample.value
        for family in text_format.text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("virtualchain_") and not any(part in sample.name for part in MOVING)
    }


def status(inside: Inside, common: tuple[Any, ...]) -> dict[str, float]:
    """Return the same of `status --json`."""
    metrics = json.loads(inside("status", "--json", *common).out)["metrics"]
    return {
        json.dumps([sample["name"], sample["labels"]], sort_keys=True): sample["value"]
        for sample in metrics
        if not any(part in sample["name"] for part in MOVING)
    }


def test_status_says_the_same_as_the_metrics_of_a_writer(
    cli: Commands, inside: Inside, fake_node: FakeNode, database_url: str, common: tuple[Any, ...]
) -> None:
    """With a node that is not up yet, and while the database hangs, too; and after the writer's end."""
    fake_node.stop()
    process = cli.start("run", "--metrics", 0, *common)
    process.until(lambda: 'virtualchain_waiting{for="node"} 1.0' in ask(process))
    assert json.loads(ask(process, "/health")) == {"alive": True, "waits_for": "node"}
    fake_node.start()
    process.until_said(at(fake_node))
    fake_node.mine([fake_node.send(b"stoone"), fake_node.send(b"stono")])
    process.until(lambda: f"virtualchain_height {float(fake_node.height)}" in ask(process))
    assert json.loads(ask(process, "/ready")) == {"ready": True, "reasons": []}
    process.until(lambda: samples(ask(process)) == status(inside, common))
    with stopped_backend(database_url):
        started = time.monotonic()
        assert samples(ask(process))
        assert time.monotonic() - started < 5
    before = samples(ask(process))
    assert before['["virtualchain_refusals_total", {"app": "notes", "step": "check"}]'] == 1
    assert process.signal(signal.SIGTERM).code == 0
    assert status(inside, common) == before
    text = inside("status", *common).out
    assert re.search(r"so far +\d+ blocks, 1 op, 1 rejection, 0 rollbacks, \d+ node error", text)


def test_what_cannot_be_answered_is_refused_before_a_block_is_taken(
    inside: Inside, common: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that is taken, or is none, and a missing library."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = inside("run", "--metrics", port, *common, code=2)
        check_last_line(done, f"--metrics: 127.0.0.1 port {port} cannot be used: Address already in use")
    for address in ("http", "70000", ":9108", "::1:9108", "-1"):
        assert (
            "write 9108, 0.0.0.0:9108 or [::1]:9108"
            in inside("run", "--metrics", address, *common, code=2).err
        )
    for name in ("virtualchain.operating.exporter", "virtualchain.operating.exposition"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    done = inside("run", "--metrics", 0, *common, code=2)
    check_last_line(
        done, "--metrics needs prometheus_client, which is missing: pip install 'virtualchain[metrics]'"
    )

"""What `run --metrics` answers, what a writer counts, and what the database has of it."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
import pytest
from prometheus_client import parser as text_format
from prometheus_client.openmetrics import parser as openmetrics

from tests.integration.conftest import Query
from tests.support.moving import an_app, story
from tests.support.serving import served
from virtualchain import App, State, StateEngine
from virtualchain.engine import report
from virtualchain.engine.measures import Measures
from virtualchain.errors import DeepFork, UsageError
from virtualchain.metrics import METRICS
from virtualchain.operating import exporter
from virtualchain.operating.exporter import Exporter
from virtualchain.operating.exposition import expose
from virtualchain.store.database import connect_reader
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Samples = dict[tuple[str, ...], float]
MOVING: Final = ("stage_seconds_total", "waiting_seconds_total", "lag_seconds", "report_age_seconds")
"""Metrics that change while a writer rests."""


def ask(url: str, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Return status, media type and body."""
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.hostname or "", parts.port, timeout=10)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


def read(text: str) -> Samples:
    """Return the samples of a text by name and labels, without those of the process."""
    return {
        (sample.name.removeprefix("virtualchain_"), *_values(sample.labels)): sample.value
        for family in text_format.text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("virtualchain_")
    }


def _values(labels: Mapping[str, str]) -> list[str]:
    return [value for _, value in sorted(labels.items())]


def scrape(url: str) -> Samples:
    """Return what a scrape shows."""
    status, _, text = ask(url)
    assert status == 200, text
    return read(text)


def until(url: str, holds: Callable[[Samples], object]) -> Samples:
    """Scrape until it is as expected."""
    deadline = time.monotonic() + 15
    while not holds(shown := scrape(url)):
        assert time.monotonic() < deadline, shown
        time.sleep(0.02)
    return shown


@contextmanager
def following(
    *apps: App, measures: Measures | None = None, ready_lag: int = 2, **options: Any
) -> Iterator[tuple[StateEngine, str]]:
    """Let an engine follow in another thread, and answer monitors; yields the address, too."""
    measures = measures or Measures()
    beside = Exporter(measures, options["database"], "127.0.0.1", 0, ready_lag=ready_lag)
    with beside.running(), StateEngine(*apps, measures=measures, **options) as engine:
        thread = threading.Thread(target=engine.follow)
        thread.start()
        try:
            yield engine, beside.url.removesuffix("/metrics")
        finally:
            engine.stop()
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the writer look and report often."""
    monkeypatch.setattr(report, "EVERY", 0.1)
    monkeypatch.setattr(report, "_SOON", 0.0)  # news are there before the node is asked again
    monkeypatch.setattr("virtualchain.engine.engine.POLL", 0.05)


def reported(database_url: str) -> Samples:
    """Return what the database has."""
    with connect_reader(database_url) as connection:
        rows = connection.execute("SELECT name, labels, value FROM virtualchain.metrics").fetchall()
    return {(name.removeprefix("virtualchain_"), *_values(labels)): value for name, labels, value in rows}


def test_all_of_a_writers_work_is_counted(fake_node: FakeNode, query: Query, database_url: str) -> None:
    """Blocks, inputs, ops, rejections, stages, a fork, an outage; and the database has the same."""
    story(fake_node, 1, 30)
    options: dict[str, Any] = {"database": database_url, "source": fake_node.url, "confirmations": 0}
    with following(an_app("one"), an_app("two"), **options) as (_, url):
        shown = until(url, lambda now: now.get(("height",)) == fake_node.height)
        blocks = shown["blocks_total",]
        lags = shown["lag_blocks",], shown["lag_seconds",]
        assert (shown["node_height",], *lags) == (fake_node.height, 0, 0)
        for name, table in (("ops_total", "ops"), ("refusals_total", "rejections")):
            for app in ("one", "two"):
                [row] = query(f"SELECT count(*) AS n FROM virtualchain.{table} WHERE app = '{app}'")
                assert sum(value for key, value in shown.items() if key[:2] == (name, app)) == row["n"] > 0
        [row] = query("SELECT count(*) AS n FROM virtualchain.inputs")
        assert shown["inputs_total",] == row["n"]
        assert shown["app_height", "one"] == fake_node.height
        stages = {key[1]: value for key, value in shown.items() if key[0] == "stage_seconds_total"}
        assert all(0 < seconds < 30 for seconds in stages.values()), stages
        assert shown["reorganization_depth_blocks_bucket", "+Inf"] == 0

        fake_node.reorg(5)
        shown = until(url, lambda now: now["reorganizations_total",] and now["lag_blocks",] == 0)
        assert shown["blocks_total",] > blocks
        depths = [
            shown["reorganization_depth_blocks_bucket", bound] for bound in ("3.0", "6.0", "1000.0", "+Inf")
        ]
        assert depths == [0, 1, 1, 1]
        assert (shown["reorganization_depth_blocks_sum",], shown["rollback_seconds_total",] > 0) == (5, True)

        fake_node.stop()
        shown = until(url, lambda now: now["waiting", "node"])
        assert shown["node_errors_total", "unavailable"] > 0
        status, _, body = ask(url, "/ready")
        assert (status, json.loads(body)["reasons"]) == (503, ["the node is waited for"])
        assert ask(url, "/health")[0] == 200
        fake_node.start()
        shown = until(url, lambda now: now["waiting", "tip"])
        assert shown["reconnects_total", "node"] == 1
        assert shown["waiting_seconds_total", "node"] > 0
        assert ask(url, "/ready")[0] == 200

        settled = scrape(url)
        deadline = time.monotonic() + 10
        while not _agree(settled := scrape(url), reported(database_url)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        later = reported(database_url)
        assert set(settled) - set(later) == {("database_size_bytes",)}
    assert reported(database_url)["blocks_total",] == shown["blocks_total",], "the last report stays"


def _agree(shown: Samples, in_database: Samples) -> bool:
    """Return whether all but what moves, and is not a matter of the writer's, is the same."""
    left_out = (*MOVING, "waiting", "database_size_bytes")
    return {key: value for key, value in shown.items() if key[0] not in left_out} == {
        key: value for key, value in in_database.items() if key[0] not in left_out
    }


def test_the_same_is_said_by_the_server_and_for_a_mere_reader(
    fake_node: FakeNode, query: Query, database_url: str
) -> None:
    """`serve` has the metrics of the database; /ready says whether a writer follows, /health just answers."""
    story(fake_node, 1, 5)
    options: dict[str, Any] = {"database": database_url, "source": fake_node.url, "confirmations": 0}
    with served(database_url, expose=expose, ready_lag=0) as web:
        assert ask(web, "/health")[0] == 200
        assert ask(web, "/ready")[0] == 503, "there is no deployment yet"
        with following(an_app("one"), **options) as (_, url):
            until(url, lambda now: now.get(("height",)) == fake_node.height)
            shown = until(web, lambda now: _agree(scrape(url), now | {("up",): 1.0}))
            assert shown["up",] == 1
            assert 0 <= shown["report_age_seconds",] < 10
            assert shown["database_size_bytes",] > 1_000_000
            assert ask(web, "/ready") == (200, "application/json", '{"ready":true,"reasons":[]}')
        until(web, lambda now: now["up",] == 0)
        status, _, body = ask(web, "/ready")
        assert (status, json.loads(body)["reasons"]) == (503, ["no writer runs"])
    with served(database_url) as web:
        assert ask(web)[0] == 404, "without the library"


def test_a_deployment_that_lags_is_not_ready(
    fake_node: FakeNode, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a block takes long, what is missing is counted, also in seconds; a halted app is shown."""
    story(fake_node, 1, 2)
    goes_on, waits = threading.Event(), threading.Event()

    def slow(op: dict[str, Any], state: State) -> bool:
        waits.set()
        goes_on.wait(20)
        raise ValueError(op)

    app = App("slow", magic=b"mv", opcodes=None)
    app.add(parse=lambda payload: {"text": payload.hex()}, check=slow)
    options: dict[str, Any] = {"database": database_url, "source": fake_node.url, "confirmations": 0}
    measures = Measures()
    with following(an_app("one"), app, measures=measures, ready_lag=0, **options) as (_, url):
        assert waits.wait(10)
        shown = until(url, lambda now: now["lag_seconds",] > 0)
        assert shown["lag_blocks",] > 0
        status, _, body = ask(url, "/ready")
        assert (status, "stable blocks are missing, and 0 may be" in body) == (503, True)
        monkeypatch.setattr("virtualchain.clock.STUCK_AFTER", 0.0)
        assert ask(url, "/health")[0] == 503, "nothing has moved since"
        monkeypatch.undo()
        monkeypatch.setattr("virtualchain.engine.engine.POLL", 0.05)
        goes_on.set()
        shown = until(url, lambda now: now["app_halted", "slow"] and now["lag_blocks",] == 0)
        assert shown["app_halted", "one"] == 0
        assert shown["app_height", "slow"] < shown["app_height", "one"] == shown["height",]
        assert ask(url, "/ready")[0] == 200, "the others follow"
        monkeypatch.setattr(time, "time", lambda: 0.0)
        assert min(scrape(url).values()) >= 0, "whatever the clock says"


def test_a_fork_that_is_refused_stays_on_record(fake_node: FakeNode, database_url: str) -> None:
    """The writer ends, and the database has why."""
    story(fake_node, 1, 8)
    options: dict[str, Any] = {"database": database_url, "source": fake_node.url, "confirmations": 0}
    with StateEngine(an_app(), on_deep_fork="halt", **options) as engine:
        engine.build()
        fake_node.reorg(3)
        with pytest.raises(DeepFork):
            engine.build()
    assert reported(database_url)["deep_fork_refused",] == 1
    assert reported(database_url)["reorganizations_total",] == 0


def test_a_node_is_waited_for_until_it_answers(
    fake_node: FakeNode, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that takes questions and never answers is away, not only in the pauses between two of them."""
    asked, wait = threading.Event(), fake_node._faults.wait
    monkeypatch.setattr("virtualchain.bitcoin.node.client.RETRY_PAUSES", ())

    def hang(seconds: float | None) -> None:
        asked.set()
        wait(seconds)

    monkeypatch.setattr(fake_node._faults, "wait", hang)
    options: dict[str, Any] = {"database": database_url, "source": fake_node.url, "confirmations": 0}
    with following(an_app(), **options) as (_, url):
        until(url, lambda shown: shown["waiting", "tip"])
        fake_node.fail("refuse", 1, on="/rest/headers")
        fake_node.fail("hang", None, on="/rest/headers")
        assert asked.wait(15), "it is asked again"
        assert scrape(url)["waiting", "node"] == reported(database_url)["waiting", "node"] == 1
        status, _, body = ask(url, "/ready")
        assert (status, json.loads(body)["reasons"]) == (503, ["the node is waited for"])
        fake_node.heal()
        until(url, lambda shown: shown["waiting", "tip"])
        assert scrape(url)["waiting_seconds_total", "node"] > 0


def test_a_database_that_is_away_or_silent_delays_no_scrape(
    fake_node: FakeNode, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost session is counted; one that is silent is waited for; a size that is too old is left out."""
    monkeypatch.setattr("virtualchain.clock.SILENT_AFTER", 0.2)
    monkeypatch.setattr(exporter, "_SIZE_KEEPS", 0.5)
    story(fake_node, 1, 2)
    options: dict[str, Any] = {"database": database_url, "source": fake_node.url, "confirmations": 0}
    with (
        following(an_app(), **options) as (_, url),
        psycopg.connect(database_url, autocommit=True) as other,
    ):
        until(url, lambda now: now.get(("height",)) == fake_node.height)
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        )
        until(url, lambda now: now["reconnects_total", "database"] == 1)
        with other.transaction():
            other.execute("LOCK TABLE vc.writer")
            shown = until(url, lambda now: now["waiting", "database"])
            assert shown["waiting_seconds_total", "database"] > 0.2
            assert ask(url, "/health")[0] == 200
            assert "the database is waited for" in ask(url, "/ready")[2]
            until(url, lambda now: ("database_size_bytes",) not in now)
        until(url, lambda now: now["waiting", "tip"])


def test_the_formats_and_paths(database_url: str) -> None:
    """Text and OpenMetrics by Accept, HEAD, 404, IPv6, a taken port; `METRICS` has all names and labels."""
    measures = Measures()
    with ExitStack() as opened:
        urls = []
        for host in ("127.0.0.1", "::1"):
            beside = Exporter(measures, database_url, host, 0)
            opened.enter_context(beside.running())
            urls.append(beside.url.removesuffix("/metrics"))
        assert urls[1].startswith("http://[::1]:")
        for url in urls:
            status, media_type, text = ask(url)
            assert (status, media_type.startswith("text/plain")) == (200, True)
            names = {family.name for family in text_format.text_string_to_metric_families(text)}
            assert {"process_resident_memory_bytes", "virtualchain_build_info"} <= names
            status, media_type, text = ask(url, Accept="application/openmetrics-text; version=1.0.0")
            assert (status, media_type.startswith("application/openmetrics-text")) == (200, True)
            families: Any = openmetrics.text_string_to_metric_families  # type: ignore[no-untyped-call,unused-ignore] # of the library
            assert {family.name for family in families(text)} > {"virtualchain_blocks"}
            assert ask(url, method="HEAD")[::2] == (200, "")
            assert [ask(url, path)[0] for path in ("/", "/metrics/", "/health?x=1", "/ready")] == [
                *(404, 404),
                *(200, 503),
            ]
        for sample in measures.samples():
            name = sample.name
            for part in ("_bucket", "_count", "_sum"):
                name = name.removesuffix(part) if name.removesuffix(part) in METRICS else name
            assert set(METRICS[name].labels) | {"le"} >= set(sample.labels)
        port = urlsplit(urls[0]).port or 0
        with pytest.raises(UsageError, match=f"port {port} cannot be used: Address already in use"):
            Exporter(measures, database_url, "127.0.0.1", port)
    with pytest.raises(UsageError, match=r"no-such-host\.invalid port 0 cannot be used"):
        Exporter(measures, database_url, "no-such-host.invalid", 0)


def test_clients_that_send_nothing_keep_nobody_from_an_answer(database_url: str) -> None:
    """Two hundred of them, and more threads than there may be do not come to be."""
    beside = Exporter(Measures(), database_url, "127.0.0.1", 0)
    url = urlsplit(beside.url)
    with beside.running(), ExitStack() as opened:
        for _ in range(200):
            silent = opened.enter_context(socket.create_connection((url.hostname, url.port), timeout=10))
            silent.sendall(b"GET /metrics HT")
        started = time.monotonic()
        assert ask(beside.url)[0] == 200
        assert time.monotonic() - started < exporter._PATIENCE, "before theirs has ended"
        working = [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]
        assert len(working) <= exporter._MOST + 20, "those that were sent away are just ending"


def test_two_writers_in_one_process_count_for_themselves(
    fake_node: FakeNode, database_url: str, database_server: DatabaseServer
) -> None:
    """Each has its own numbers."""
    story(fake_node, 1, 4)
    options: dict[str, Any] = {"source": fake_node.url, "confirmations": 0}
    beside = database_server.clone()
    with (
        following(an_app("one"), database=database_url, **options) as (_, first),
        following(an_app("two"), database=beside, **options) as (_, second),
    ):
        shown = until(first, lambda now: now.get(("height",)) == fake_node.height)
        assert ("ops_total", "one") in shown
        assert ("ops_total", "two") not in shown
        until(second, lambda now: now.get(("height",)) == fake_node.height)
        fake_node.reorg(2)
        assert until(first, lambda now: now["reorganizations_total",])["reorganizations_total",] == 1
    database_server.drop(beside)

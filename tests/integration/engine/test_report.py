"""What a writer reports of itself: that it runs, what it waits for, the node's tip, and how far it is."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from tests.integration.conftest import Query, Run
from tests.support.moving import an_app, story
from tests.support.old_schema import upgrade_to
from virtualchain import StateEngine, __version__
from virtualchain.engine import report
from virtualchain.store.migrate import migrate
from virtualchain.store.pipeline import pipeline_of
from virtualchain.testing import FakeNode

WRITER = "SELECT * FROM virtualchain.writer"


def seen(query: Query) -> dict[str, Any]:
    """Return what the writer reported last."""
    (row,) = query(f"{WRITER}, (SELECT now() AS now) AS clock")
    return row


def until(query: Query, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Wait until the report is as expected; return it."""
    deadline = time.monotonic() + 15
    while not holds(row := seen(query)):
        assert time.monotonic() < deadline, row
        time.sleep(0.02)
    return row


@contextmanager
def following(engine: StateEngine) -> Iterator[None]:
    """Let an engine follow in another thread."""
    thread = threading.Thread(target=engine.follow)
    thread.start()
    try:
        yield
    finally:
        engine.stop()
        thread.join(20)
        assert not thread.is_alive()


def test_a_follower_reports(
    fake_node: FakeNode, query: Query, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits, too: that it runs, the node's tip, and what it waits for, also without the node."""
    monkeypatch.setattr(report, "EVERY", 0.2)
    monkeypatch.setattr(report, "_SOON", 0.05)
    monkeypatch.setattr("virtualchain.engine.engine.POLL", 0.1)
    story(fake_node, 1, 5)
    with StateEngine(an_app(), database=database_url, source=fake_node.url, confirmations=2) as engine:
        before = seen(query)
        assert before["started_at"] <= before["seen_at"] <= before["now"]
        assert (before["version"], before["node_block_id"], before["stopped_at"]) == (__version__, None, None)
        with following(engine):
            row = until(query, lambda row: row["waits_for"])
            awaited = row["waits_for"]
            assert (row["node_block_id"], row["node_hash"]) == (fake_node.height, fake_node.tip)
            assert row["waits_for"] == engine.waits_for
            assert f"block {fake_node.height - 1} has 1 of 2 confirmations" in row["waits_for"]
            until(query, lambda later: later["seen_at"] > row["seen_at"])
            story(fake_node, 2, 3)
            awaited = until(query, lambda row: row["node_block_id"] == fake_node.height)["waits_for"]
            fake_node.stop()
            row = until(query, lambda row: row["waits_for"] == engine.waits_for != awaited)
            assert row["node_block_id"] == fake_node.height, "the last one that is known"
            until(query, lambda later: later["seen_at"] > row["seen_at"])
            fake_node.start()
            until(query, lambda row: "confirmations" in str(row["waits_for"]))
        assert seen(query)["stopped_at"] is None
    row = seen(query)
    assert (row["stopped_at"], row["waits_for"]) == (row["seen_at"], None)
    samples = query("SELECT * FROM virtualchain.progress ORDER BY at")
    assert len(samples) > 3
    assert all(later["at"] > row["at"] for row, later in pairwise(samples))
    last = fake_node.height - 2
    assert (samples[-1]["block_id"], samples[-1]["node_block_id"]) == (last, fake_node.height)
    for key, table in (("inputs", "inputs"), ("ops", "ops"), ("rejections", "rejections")):
        [row] = query(f"SELECT count(*) AS n FROM virtualchain.{table}")
        assert sum(sample[key] for sample in samples) == row["n"] > 0


def test_it_is_written_between_blocks(
    fake_node: FakeNode, query: Query, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never in the transaction of a block, though blocks are in flight or an app catches up."""
    monkeypatch.setattr(report, "EVERY", 0.0)
    statuses = []
    note = report.Report._note

    def look(self: report.Report, connection: psycopg.Connection, *arguments: Any) -> None:
        pipeline_of(connection).leave()
        statuses.append(connection.info.transaction_status)
        note(self, connection, *arguments)

    monkeypatch.setattr(report.Report, "_note", look)
    story(fake_node, 1, 30)
    options: dict[str, Any] = {
        "database": database_url,
        "source": fake_node.url,
        "confirmations": 0,
        "history": 5,
    }
    first = fake_node.height - 30
    with StateEngine(an_app("one"), **options) as engine:
        engine.build()
    ops = query("SELECT count(*) AS n FROM virtualchain.ops")[0]["n"]
    with StateEngine(an_app("one"), an_app("two", first_block_id=first), **options) as engine:
        engine.build()
    [row] = query("SELECT count(*) AS n, sum(inputs) AS inputs, sum(ops) AS ops FROM virtualchain.progress")
    assert row["n"] > 2 * 30
    assert row["ops"] == 2 * ops, "those of the app that caught up count as well"
    assert row["inputs"] == query("SELECT count(*) AS n FROM virtualchain.inputs")[0]["n"]
    fake_node.reorg(20)
    with StateEngine(an_app("one"), an_app("two", first_block_id=first), **options) as engine:
        engine.build()
    assert query("SELECT build FROM virtualchain.apps") == [{"build": "2"}] * 2
    assert len(statuses) > 3 * 30
    assert set(statuses) == {TransactionStatus.IDLE}


def test_samples_are_dropped_after_a_day(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """And so are those from before the clock was set back."""
    run(an_app())
    with psycopg.connect(database_url) as connection:
        connection.execute("""
            INSERT INTO vc.progress SELECT now() + n * interval '1 hour', 1, 1, 0, 0, 0
            FROM generate_series(-30, 3) AS n WHERE n <> 0
        """)
    run(an_app())
    [row] = query(
        "SELECT count(*) AS n, max(at) <= now() AS past, now() - min(at) AS age FROM virtualchain.progress"
    )
    assert (row["n"] in {25, 26, 27}, row["past"]) == (True, True)
    assert row["age"].total_seconds() < 86400


def test_a_killed_writer_has_not_stopped(
    fake_node: FakeNode, query: Query, database_url: str, run: Run
) -> None:
    """Its report gets old and has no end; the next writer begins another one.

    What a writer waits for is news, which is not kept back until the next report is due.
    """
    run(an_app())
    assert seen(query)["stopped_at"] is not None
    fake_node.mine()
    program = (
        "import sys; from virtualchain import StateEngine; from tests.support.moving import an_app; "
        "from virtualchain.engine import report; report.EVERY = 1000; "
        "e = StateEngine(an_app(), database=sys.argv[1], source=sys.argv[2], confirmations=0); "
        "print('ready', flush=True); e.follow()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, database_url, fake_node.url],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    killed = until(query, lambda row: row["waits_for"])
    process.kill()
    process.communicate()
    time.sleep(0.1)
    row = seen(query)
    assert (row["stopped_at"], row["waits_for"]) == (None, killed["waits_for"])
    assert row["seen_at"] == killed["seen_at"] < row["now"]
    run(an_app(), wait_for_writer=True)
    row = seen(query)
    assert row["started_at"] > killed["seen_at"]
    assert row["stopped_at"] is not None


def test_a_new_session_is_the_same_writer(
    fake_node: FakeNode, query: Query, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the report is a fault of the session: the engine opens another one, and nothing is lost."""
    monkeypatch.setattr("virtualchain.engine.engine.PAUSES", (0.01,) * 5)
    story(fake_node, 1, 10)
    faults = [psycopg.errors.AdminShutdown("as if"), psycopg.errors.DiskFull("as if")]
    note, sample = report.Report._note, report.Report._sample

    def fail(self: report.Report, *arguments: Any) -> None:
        if faults:
            raise faults.pop()
        note(self, *arguments)

    monkeypatch.setattr(report.Report, "_note", fail)
    with StateEngine(an_app(), database=database_url, source=fake_node.url, confirmations=0) as engine:
        began = seen(query)["started_at"]
        assert engine.build() == fake_node.height
        assert faults == []
        row = seen(query)
        assert abs((row["started_at"] - began).total_seconds()) < 0.05
        assert row["seen_at"] > began

        def fail_at_the_end(*_: object) -> None:
            raise psycopg.OperationalError("as if")

        monkeypatch.setattr(report.Report, "_sample", fail_at_the_end)
    assert seen(query)["stopped_at"] is None
    monkeypatch.setattr(report.Report, "_sample", sample)


def test_text_that_no_database_holds(fake_node: FakeNode, database_url: str, query: Query) -> None:
    """A node's words may have any character, and any length."""
    with StateEngine(an_app(), database=database_url, source=fake_node.url, confirmations=0) as engine:
        engine._report.write(engine._deployment.connection, "a\0b\ud800" + "ä" * 5000)
    (row,) = query("SELECT waits_for FROM vc.writer")
    assert row == {"waits_for": None}, "it stopped since"
    assert report._storable("a\0b\ud800" + "ä" * 5000) == "ab?" + "ä" * 996


def test_an_upgrade_keeps_the_row(empty_database_url: str, fake_node: FakeNode) -> None:
    """A deployment of 0016 has its last start, and no report before the next one."""
    url = empty_database_url
    upgrade_to(url, "0016")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO vc.writer (confirmations, apps) VALUES (4, '{plain}')")
        migrate(url)
        rows = connection.execute(WRITER.encode()).fetchall()
        assert rows == [(4, ["plain"], *[None] * 7)]
        with StateEngine(an_app(), database=url, source=fake_node.url, confirmations=1) as engine:
            engine.build()
        (row,) = connection.execute(WRITER.encode()).fetchall()
        assert row[:2] == (1, ["plain"])
        assert row[-2] == __version__
        assert connection.execute("SELECT count(*) FROM virtualchain.progress").fetchone() == (2,)

"""A pooler in front of the database: readers work and leave nothing behind in it, writers are refused."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest

from tests.support import representative
from tests.support.pooler import pooled
from virtualchain import watch
from virtualchain.cli import main
from virtualchain.errors import StoreError, UsageError
from virtualchain.reading import views
from virtualchain.store.database import connect_reader, connect_writer
from virtualchain.store.migrate import migrate
from virtualchain.testing import FakeNode

Run = Callable[..., int]
Ask = Callable[..., str]


@pytest.fixture(params=["transaction", "session"])
def pooled_url(request: pytest.FixtureRequest, database_url: str) -> Iterator[str]:
    """Run PgBouncer in front of the test's database."""
    with pooled(database_url, request.param) as url:
        yield url


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Return a function that runs a command and returns its output, without what time changes."""

    def run_command(url: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["virtualchain", "--database", url, "--json", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in {None, 0}
        return re.sub(r'"(age|value)": [\d.e-]+', "", capsys.readouterr().out)  # of the writer's report

    return run_command


def wait_for_no_writer(url: str) -> None:
    """Wait until the server has ended the session of an engine that was closed."""
    for _ in range(100):
        with views.snapshot(url) as connection:
            if views.writer(connection) is None:
                return
        time.sleep(0.1)


def test_readers_work_through_a_pooler(
    fake_node: FakeNode, run: Run, ask: Ask, pooled_url: str, database_url: str
) -> None:
    """Status, ops and SQL are the same through a pooler, repeatedly and in interleaved sessions."""
    representative.feed(fake_node)
    run(representative.app())
    wait_for_no_writer(database_url)
    for arguments in [
        ["status", "--bitcoin", fake_node.url],
        ["ops"],
        ["ops", "--rejected"],
        ["consensus"],
        ["sql", "SELECT * FROM entries ORDER BY id"],
        ["sql", "SHOW DateStyle"],
        ["sql", "--as-of", "102", "SELECT max(block_id) FROM blocks"],
    ] * 2:
        expected = ask(database_url, *arguments)
        assert len(expected) > 10
        assert ask(pooled_url, *arguments) == expected
    with views.snapshot(pooled_url) as first, views.snapshot(pooled_url) as second:
        for connection in (first, second, first, second):
            selection = views.Selection(limit=1)
            assert len(list(views.ops(connection, selection))) == 1
        with pytest.raises(UsageError, match="cannot insert multiple commands"):
            views.query(second, "SELECT 1; SELECT 2")


def test_readers_leave_nothing_behind(pooled_url: str) -> None:
    """No setting and no prepared statement remains in the pooler's shared sessions, and none is lost."""
    with psycopg.connect(pooled_url, autocommit=True, prepare_threshold=None) as other:
        question = (
            "SELECT pg_backend_pid(), current_setting('default_transaction_read_only'), "
            "current_setting('IntervalStyle'), (SELECT count(*) FROM pg_prepared_statements)"
        )
        before = other.execute(question).fetchone()
        assert before
        for _ in range(3):
            closing(connect_reader(pooled_url)).__exit__()
            with views.snapshot(pooled_url) as connection:
                assert connection.execute("SHOW IntervalStyle").fetchone() == ("iso_8601",)
                for _ in range(7):
                    views.query(connection, "SELECT 1 AS one")
                    views.network(connection)
        assert other.execute(question).fetchone() == before
        assert before[1:] == ("off", "postgres", 0)


def test_a_watch_polls_through_a_pooler(fake_node: FakeNode, run: Run, pooled_url: str) -> None:
    """It does not LISTEN, which would remain in a shared session, and still misses nothing."""
    representative.feed(fake_node)
    run(representative.app())
    with watch(pooled_url, from_block=102, poll=0.1) as events:
        assert events._session is not None
        assert not events._session.listens
        assert next(events).block_id == 102
    with psycopg.connect(pooled_url, autocommit=True, prepare_threshold=None) as other:
        for _ in range(3):
            assert other.execute("SELECT count(*) FROM pg_listening_channels()").fetchone() == (0,)


def test_writers_are_refused(pooled_url: str) -> None:
    """A lock taken through a pooler would belong to others: the message says what to use instead."""
    for write in (connect_writer, migrate):
        with pytest.raises(StoreError, match=r"is a connection pooler, .* give the address of"):
            write(pooled_url)

"""The SQL box: a statement of a stranger harms neither the server nor other statements."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from virtualchain.errors import UsageError
from virtualchain.reading.views import QueryRejected
from virtualchain.testing.database import DatabaseServer
from virtualchain.web import sql_box
from virtualchain.web.login import reader_url
from virtualchain.web.sessions import Busy, TooSlow


@pytest.fixture(scope="module")
def url(database_server: DatabaseServer) -> Iterator[str]:
    """Return the URL of a reader of a new deployment."""
    database = database_server.clone()
    yield reader_url(database)
    sql_box.close()
    database_server.drop(database)


def test_values(url: str) -> None:
    """Values are texts as PostgreSQL writes them, and columns keep their order and names."""
    result = sql_box.run(
        url,
        "SELECT 1.50 AS a, '\\xff'::bytea AS a, NULL AS n, ARRAY['\\x01'::bytea], 'NaN'::float8, true",
    )
    assert result.columns == ("a", "a", "n", "array", "float8", "?column?")
    assert result.types == ("numeric", "bytea", "text", "bytea[]", "float8", "bool")
    assert result.rows == [["1.50", "\\xff", None, '["\\\\x01"]', "NaN", "true"]]
    assert sql_box.run(url, "SELECT 1 AS one WHERE false").columns == ("one",)
    assert sql_box.run(url, "DO $$ BEGIN END $$").columns == ()


@pytest.mark.parametrize(
    ("statement", "words", "position"),
    [
        ("SELECT 1 FRM x", 'syntax error at or near "x"', 14),
        ("SELECT nothing", "does not exist", 8),
        ("SELECT 1; SELECT 2", "multiple commands", None),
        ("CREATE TABLE t ()", "permission denied|read-only", None),
        ("COPY (SELECT 1) TO STDOUT", "COPY cannot be used", None),
        ("COPY (SELECT 1) TO PROGRAM 'true'", "denied|must be|COPY", None),
        ("SELECT 1 / (3 - n) FROM generate_series(1, 5) AS n", "division by zero", None),
    ],
)
def test_refused(url: str, statement: str, words: str, position: int | None) -> None:
    """What cannot be read, or does more than read, is refused, with the place of the mistake."""
    with pytest.raises(QueryRejected, match=words) as refused:
        sql_box.run(url, statement)
    if position is not None:
        assert refused.value.position == position


@pytest.mark.parametrize(
    ("statement", "words"), [("", "no statement"), ("x" * 20_001, "the most"), ("\0", "NUL")]
)
def test_no_statement(url: str, statement: str, words: str) -> None:
    """What is not a statement does not reach the database."""
    with pytest.raises(UsageError, match=words):
        sql_box.run(url, statement)


def test_limits(url: str) -> None:
    """A page has so many rows, and so many bytes; a file is whole, or there is none."""
    endless = "SELECT generate_series(1, 100000000), repeat('x', 100)"
    result = sql_box.run(url, endless, limit=10)
    assert (len(result.rows), result.has_more) == (10, True)
    wide = sql_box.run(url, "SELECT repeat('x', 1000000) FROM generate_series(1, 1000)")
    assert len(wide.rows) < 10
    assert wide.has_more
    many = ", ".join(["NULL"] * 1_000)
    assert len(sql_box.run(url, f"SELECT {many} FROM generate_series(1, 1000)").rows) == 20
    with pytest.raises(UsageError, match="more than 100,000 rows"):
        sql_box.export(url, endless, "csv")
    with pytest.raises(TooSlow, match=r"more than 0\.5 seconds"):
        sql_box.run(url, "SELECT pg_sleep(20)", timeout=0.5)
    with pytest.raises(UsageError, match="two columns are named a"):
        sql_box.export(url, "SELECT 1 AS a, 2 AS a", "json")
    assert (
        b"".join(sql_box.export(url, "SELECT 'a,b' AS c, NULL", "csv").chunks())
        == b'c,?column?\r\n"a,b",\r\n'
    )


def test_no_trace_is_left(url: str) -> None:
    """Neither a setting nor a role nor a transaction outlives its statement."""
    for statement in ("SET statement_timeout = 0", "COMMIT", "SET search_path = pg_catalog", "SET ROLE NONE"):
        sql_box.run(url, statement)
    [[timeout, path]] = sql_box.run(
        url, "SELECT current_setting('statement_timeout'), current_setting('search_path')", timeout=3
    ).rows
    assert timeout == "3s"
    assert "virtualchain" in str(path)


def test_only_some_at_once(url: str) -> None:
    """A further statement is answered that it must wait, and those that run are not disturbed."""
    started = threading.Barrier(3)

    def sleep() -> int:
        started.wait()
        return len(sql_box.run(url, "SELECT pg_sleep(2)").rows)

    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(sleep) for _ in range(2)]
        started.wait()
        while sql_box._BOX._slots._value:
            threading.Event().wait(0.01)
        with pytest.raises(Busy, match="running already"):
            sql_box.run(url, "SELECT 1")
        assert [other.result() for other in others] == [1, 1]
    assert sql_box.run(url, "SELECT 1").rows == [["1"]]


def test_a_process_that_dies(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the process of a statement runs out of memory or time, that is an error of this statement alone."""
    monkeypatch.setattr(sql_box, "_GRACE", -9.0)  # it is killed after a second
    with pytest.raises(UsageError, match="too much memory or time"):
        sql_box.run(url, "SELECT pg_sleep(5)")
    monkeypatch.undo()
    assert sql_box.run(url, "SELECT 1").rows == [["1"]]


def test_a_large_server(url: str) -> None:
    """A process that is started by a large one is not taken for a large one itself."""
    sql_box.close()
    ballast = bytearray(b"x" * 500_000_000)
    assert sql_box.run(url, "SELECT 1").rows == [["1"]]
    assert len(ballast) == 500_000_000

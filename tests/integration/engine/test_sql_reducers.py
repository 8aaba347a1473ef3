"""Checks and commits in SQL, as they run: reasons, conditions, order, and what halts the app."""

from pathlib import Path

import pytest

from tests.integration.conftest import Query, Run
from virtualchain import App
from virtualchain.errors import AppHalted
from virtualchain.testing import FakeNode

TABLES = """
    CREATE TABLE said (block_id integer, text text, n bigint NOT NULL DEFAULT 1, PRIMARY KEY (block_id, text))
"""
HERE = Path(__file__)
LINES = HERE.read_text(encoding="utf-8").splitlines()
TWICE = """
    INSERT INTO said (block_id, text) VALUES (%(block_id)s, %(text)s);
    -- The second one has the key of the first.
    INSERT INTO said (block_id, text) VALUES (%(block_id)s, %(text)s)
"""


def an_app(*, check: str | None = None, commit: str | None = None) -> App:
    """Make an app that keeps what was said."""
    app = App("said", magic=b"sd", projections=TABLES)
    app.add(b"s", layout="text text", check=check, commit=commit)
    return app


def test_statements_run_in_order_with_the_op_and_its_place(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """Each sees what those before it did; fields and what every statement is given are parameters."""
    commit = """
        INSERT INTO said VALUES (%(block_id)s, %(text)s || ' 100%% ' || %(vtxindex)s::text, length(%(txid)s));
        UPDATE said SET n = n + 1 WHERE block_id = %(block_id)s AND text LIKE %(text)s || '%%';
    """
    fake_node.mine([fake_node.send(b"sdshi"), fake_node.send(b"sdsho")])
    run(an_app(commit=commit))
    assert query("SELECT text, n FROM said.said ORDER BY text") == [
        {"text": "hi 100% 0", "n": 65},
        {"text": "ho 100% 1", "n": 65},
    ]


REFUSALS = {
    "a reason": ("SELECT 'no ' || %(text)s WHERE %(text)s = 'hi'", ["no hi"]),
    "the least reason": ("SELECT x FROM (VALUES ('b'), (NULL), ('a'), ('c')) AS v (x)", ["a", "a"]),
    "null is no reason": ("SELECT NULL::text", []),
    "a condition": ("SELECT %(text)s = 'hi'", ["condition 1 does not hold"]),
    "a condition of a row that is missing": (
        "SELECT n > 0 FROM said WHERE text = 'x'",
        ["condition 1 does not hold"] * 2,
    ),
    "null is no condition": ("SELECT NULL::boolean", ["condition 1 does not hold"] * 2),
    "all rows of a condition": (
        "SELECT x FROM (VALUES (true), (false)) AS v (x)",
        ["condition 1 does not hold"] * 2,
    ),
    "the second": ("SELECT true; SELECT 'second' WHERE %(text)s = 'hi'; SELECT 'third'", ["second", "third"]),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_query_refuses_by_a_reason_or_a_condition(
    fake_node: FakeNode, run: Run, query: Query, name: str
) -> None:
    """The order of rows does not matter, and a condition that nothing fulfills does not hold."""
    check, reasons = REFUSALS[name]
    fake_node.mine([fake_node.send(b"sdshi"), fake_node.send(b"sdsho")])
    run(an_app(check=check))
    rows = query("SELECT reason FROM virtualchain.rejections ORDER BY txindex")
    assert [row["reason"] for row in rows] == reasons


def test_a_value_that_does_not_fit_rejects_the_input(fake_node: FakeNode, run: Run, query: Query) -> None:
    """As in Python: the statements before it are undone."""
    commit = """
        INSERT INTO said (block_id, text) VALUES (%(block_id)s, %(text)s);
        UPDATE said SET n = n + 9223372036854775807 WHERE block_id = %(block_id)s AND text = %(text)s
    """
    fake_node.mine([fake_node.send(b"sdshi")])
    run(an_app(commit=commit))
    assert query("SELECT step FROM virtualchain.rejections") == [{"step": "commit"}]
    assert query("SELECT * FROM said.said") == []


HALTS: dict[str, tuple[dict[str, str], str, str]] = {
    "a broken constraint": ({"commit": TWICE}, "UniqueViolation", "statement 2"),
    "an order that nothing fixes": ({"check": "SELECT text FROM said LIMIT 1"}, "ORDER BY", "statement 1"),
    "the clock": ({"commit": "INSERT INTO said VALUES (1, now()::text)"}, "now", "statement 1"),
    "no such table": ({"check": "SELECT 'x' FROM told"}, "told", "statement 1"),
    "two columns": ({"check": "SELECT 'x', 'y'"}, "one column", "check"),
    "a check that writes": (
        {"check": "WITH w AS (INSERT INTO said VALUES (1, 'x') RETURNING n) SELECT n > 0 FROM w"},
        "a query of a check reads only",
        "check",
    ),
    "a number": ({"check": "SELECT 1"}, "not int4", "check"),
}


@pytest.mark.parametrize("name", HALTS)
def test_what_halts_the_app_is_found_by_file_statement_and_line(
    fake_node: FakeNode, run: Run, name: str
) -> None:
    """The message and the record name the line of the SQL, as they do for Python."""
    steps, message, function = HALTS[name]
    fake_node.mine([fake_node.send(b"sdshi")])
    with pytest.raises(AppHalted) as halted:
        run(an_app(**steps))
    assert message in str(halted.value)
    record = halted.value.record
    if function == "check":  # the engine refuses what came back, as it would from Python
        assert record["callback"] == "db_check"
        return
    assert (record["file"], record["function"]) == (str(HERE), function)
    assert "INSERT" in LINES[int(str(record["line"])) - 1] or "SELECT" in LINES[int(str(record["line"])) - 1]
    if name == "a broken constraint":
        assert LINES[int(str(record["line"])) - 2] == "    -- The second one has the key of the first."

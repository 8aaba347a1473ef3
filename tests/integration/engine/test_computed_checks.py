"""Checks that compute: a row whose values fit may be refused for what a check makes of them."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.integration.conftest import Query, Run
from virtualchain import App, Rejected, State
from virtualchain.errors import AppHalted
from virtualchain.testing import FakeNode

TABLES = """
    CREATE TABLE a (k text PRIMARY KEY, n bigint NOT NULL,
        CHECK (length(k) < 9), CHECK (100 / n >= 0), CHECK (n * n > 0));
    CREATE TABLE b (k text PRIMARY KEY, n bigint NOT NULL);
    CREATE DOMAIN ratio AS bigint CHECK (100 / VALUE >= 0);
    CREATE TABLE c (k text PRIMARY KEY, n bigint NOT NULL, CHECK (n::ratio >= 0));
"""
BLOCKS = (
    ("put a x 7", "put b x 1", "put a x 0", "put b x 0", "put a y 4611686018427387904", "put a y 1"),
    ("put a x 0", "put a x 8", "put a x 0 look a"),
    ("put b z 1 put a z 0", "look a put a z 0 put b w 2", "put a z 3 sql b q 9", "sql b r 1 put a r 0"),
    ("no", "put a v 0", "put a v 9 no", "put a v 10"),
    ("put a w 0 look b put a w 1", "put a w 5"),
    ("put c x 0", "sql b y 1", "put c x 3"),
)
"""Blocks of inputs, each of words: what they do, one after the other."""
REFUSED = 10
"""How many of them a check refuses."""


def sql_put(state: State, table: str, key: str, n: int) -> None:
    """Put a row by a statement."""
    statement = f"INSERT INTO {table} VALUES (%s, %s) ON CONFLICT (k) DO UPDATE SET n = EXCLUDED.n"
    state.execute(statement, (key, n))


def row_put(state: State, table: str, key: str, n: int) -> None:
    """Put a row by `state.table`."""
    state.table(table).put({"k": key, "n": n})


def obedient(name: str, put: Callable[[State, str, str, int], None]) -> App:
    """Return an app that does what its inputs say, and puts rows in one way."""

    def commit(op: dict[str, Any], state: State) -> Rejected | None:
        words = iter(op["text"].split())
        for word in words:
            match word:
                case "put":
                    put(state, next(words), next(words), int(next(words)))
                case "sql":
                    sql_put(state, next(words), next(words), int(next(words)))
                case "get":
                    with suppress(Exception):
                        state.table(next(words)).get(next(words))
                case "look":
                    state.query(f"SELECT count(*) FROM {next(words)}")
                case "no":
                    return Rejected("no")
        return None

    def check(op: dict[str, Any], state: State) -> bool:
        if op["text"] == "dup":
            state.execute("INSERT INTO b SELECT k, n FROM b WHERE k = %s", ["x"])
        return True

    app = App(name, magic=b"ck", projections=TABLES)
    app.add(b"o", parse=lambda payload: {"text": payload.decode()}, check=check, commit=commit)
    return app


def test_the_input_is_rejected(fake_node: FakeNode, run: Run, query: Query) -> None:
    """As by a statement that writes the same row, also if a later input of the block mends the row."""
    for texts in BLOCKS:
        fake_node.mine([fake_node.send(b"cko" + text.encode()) for text in texts])
    run(obedient("rows", row_put), obedient("statements", sql_put))
    verdicts = """
        SELECT block_id, txindex, fields ->> 'text' AS text FROM virtualchain.ops WHERE app = %(app)s
        UNION ALL SELECT block_id, txindex, reason FROM virtualchain.rejections WHERE app = %(app)s
        ORDER BY block_id, txindex
    """
    rows, statements = (query(verdicts, {"app": app}) for app in ("rows", "statements"))
    assert rows == statements
    assert sum("divided by zero" in row["text"] for row in rows) == REFUSED
    for table in ("rows.a", "rows.b"):
        read = f"SELECT * FROM {table} ORDER BY k"
        assert query(read) == query(read.replace("rows", "statements"))
    hashes = "SELECT count(DISTINCT state_hash) FROM virtualchain.snapshots GROUP BY block_id"
    assert {row["count"] for row in query(hashes)} == {1}, "the same of both apps"


def test_at_the_end_of_a_block_it_is_the_app_s(fake_node: FakeNode, run: Run, query: Query) -> None:
    """No input can be rejected for it, so the app halts, and the block leaves no trace."""
    app = obedient("rows", row_put)
    app.final(lambda ops, state: row_put(state, "a", "end", 1 - len(ops)))
    fake_node.mine()
    run(app)
    fake_node.mine([fake_node.send(b"cko" + b"put b x 1")])
    with pytest.raises(AppHalted, match="out of range"):
        run(app)
    assert query("SELECT n FROM rows.a") == [{"n": 1}]
    assert query("SELECT n FROM rows.b") == []


def test_what_follows_a_rejected_input_fails_for_itself(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A constraint that the next input breaks halts the app, as without the rejected one before it."""
    fake_node.mine([fake_node.send(b"cko" + b"put b x 1")])
    run(obedient("rows", row_put))
    fake_node.mine([fake_node.send(b"cko" + text) for text in (b"put a x 0", b"dup")])
    with pytest.raises(AppHalted, match="UniqueViolation"):
        run(obedient("rows", row_put))
    assert query("SELECT * FROM virtualchain.rejections") == []


def test_a_callback_may_hide_that_a_read_failed(fake_node: FakeNode, run: Run, query: Query) -> None:
    """What failed was written before, by an input that is rejected alone, whatever rows a node has kept."""
    fake_node.mine([fake_node.send(b"cko" + b"put b q 1")])
    run(obedient("rows", row_put))
    fake_node.mine([fake_node.send(b"cko" + text) for text in (b"put a x 0", b"get b q")])
    run(obedient("rows", row_put))
    assert query("SELECT txindex, step FROM virtualchain.rejections") == [{"txindex": 1, "step": "commit"}]
    assert query("SELECT count(*) FROM virtualchain.ops") == [{"count": 2}]

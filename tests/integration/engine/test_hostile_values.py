"""Hostile values in check and commit are recorded rejections, whatever error PostgreSQL or psycopg raises."""

import json
import threading
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.integration.conftest import Query, Run
from virtualchain import App, Rejected, State
from virtualchain.testing import FakeNode

TABLES = """
    CREATE TABLE kept (key text PRIMARY KEY, number integer, body jsonb);
    CREATE INDEX kept_bodies ON kept USING gin (body);
"""


def an_app(**steps: Any) -> App:
    """Make an app with one opcode and these steps."""
    app = App("hostile", magic=b"ho", projections=TABLES)
    app.add(b"o", **{"parse": lambda payload: {"text": payload.decode()}, **steps})
    return app


def mine(node: FakeNode, *texts: bytes) -> None:
    """Mine a block with an op for each text."""
    node.mine([node.send(b"hoo" + text) for text in texts])


def rejections(query: Query) -> list[tuple[str, str]]:
    """Read step and reason of all rejections."""
    return [
        (row["step"], row["reason"])
        for row in query("SELECT step, reason FROM virtualchain.rejections ORDER BY block_id, txindex")
    ]


def incompressible(length: int) -> str:
    """Return text that compression does not bring below the size limit of an index."""
    return Random(1).randbytes(length // 2).hex()


def recursive_dict() -> dict[str, Any]:
    """Return a dict that contains itself."""
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    return cycle


STATEMENTS: dict[str, tuple[str, list[Any], str]] = {
    "out of range": ("INSERT INTO kept (key, number) VALUES ('k', %s)", [2**40], "22003 "),
    "many digits": ("SELECT %s::numeric", [1 << 600_000], "DataError: "),
    "unprintable": ("SELECT %s::jsonb", [Jsonb(10**5_000)], "DataError: a parameter cannot be sent"),
    "no function": ("SELECT substr('abc', %s)", [2**40], "22003 "),
    "no operator": ("SELECT '[1]'::jsonb -> %s", [2**63], "22003 "),
    "no subscript": ("SELECT (ARRAY[1, 2])[%s]", [2**31], "22003 "),
    "nul": ("SELECT %s::text", ["a\0b"], "DataError: "),
    "surrogate": ("SELECT %s::text", ["\ud800"], "UnicodeEncodeError: "),
    "json nul": ("INSERT INTO kept VALUES ('k', 1, %s)", [Jsonb("\0")], "22P05 "),
    "json surrogate": ("INSERT INTO kept VALUES ('k', 1, %s)", [Jsonb({"a": "\udfff"})], "22P02 "),
    "json nan": ("SELECT %s::jsonb", [Jsonb(float("nan"))], "22P02 "),
    "json endless": ("SELECT %s::jsonb", [Jsonb(recursive_dict())], "DataError: a parameter cannot"),
    "json deep": ("SELECT %s::jsonb", ["[" * 50_000 + "]" * 50_000], "54001 "),
    "json broken": ("SELECT %s::jsonb", ["{"], "22P02 "),
    "long key": ("INSERT INTO kept (key) VALUES (%s)", [incompressible(12_000)], "22001 "),
    "pattern": ("SELECT 'a' ~ %s", ["("], "2201B "),
    "no date": ("SELECT %s::date", ["2009-02-30"], "22008 "),
    "early date": ("SELECT %s::date", ["0044-03-15 BC"], "DataError: "),
    "division": ("SELECT 1 / %s", [0], "22012 "),
    "long text": ("SELECT repeat('x', %s)", [2**31 - 1], "54000 "),
    "mixed list": ("SELECT %s", [[1, "a"]], "DataError: "),
    "ragged list": ("SELECT %s", [[[1], [2, 3]]], "22P02 "),
    "many values": (f"SELECT 1 IN ({', '.join(['%s'] * 70_000)})", [1] * 70_000, "DataError: the parameters"),
}


@pytest.mark.parametrize("hidden", [False, True], ids=["raised", "hidden by the app"])
@pytest.mark.parametrize("step", ["check", "commit"])
def test_a_value_that_a_statement_cannot_take_is_a_rejection(
    fake_node: FakeNode, run: Run, query: Query, step: str, *, hidden: bool
) -> None:
    """Each such op is undone and rejected, and the ops around it are accepted."""

    def write(op: dict[str, Any], state: State) -> bool | None:
        state.execute("INSERT INTO kept (key) VALUES (%s)", [op["text"]])
        statement, parameters, _ = STATEMENTS.get(op["text"], ("SELECT 1", [], ""))
        execute: Any = state.execute if statement.startswith("INSERT") else state.query
        try:
            execute(statement, parameters)
        except psycopg.DatabaseError:
            if not hidden:
                raise
        return True if step == "check" else None

    mine(fake_node, b"before", *(case.encode() for case in STATEMENTS), b"after")
    run(an_app(**{step: write}))
    rejected = rejections(query)
    if not hidden:
        assert len(rejected) == len(STATEMENTS)
        for (case, (_, _, reason)), (rejected_at, recorded) in zip(STATEMENTS.items(), rejected, strict=True):
            assert rejected_at == step, case
            assert recorded.startswith(reason), case
    # A value that fails before it is sent leaves the transaction intact, so an app may hide that error.
    assert all(reason.startswith(("22", "54", "UnicodeEncodeError", "DataError")) for _, reason in rejected)
    assert query("SELECT count(*) AS n FROM hostile.kept") == [{"n": 2 + len(STATEMENTS) - len(rejected)}]


def test_a_statement_that_fails_for_any_value_halts(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A statement with a wrong type fails for any value: that is the app's error, not the stranger's."""
    app = an_app(check=lambda op, state: state.query("SELECT 'a'::text = %s", [len(op["text"])]))
    other = App("other", magic=b"ho")
    other.add(b"o", parse=lambda payload: {"text": payload.decode()})
    mine(fake_node, b"x")
    run(app, other)
    (row,) = query("SELECT error FROM virtualchain.apps WHERE status = 'halted'")
    assert row["error"]["error"].startswith("UndefinedFunction: ")


def test_a_field_that_json_cannot_hold_is_rejected_at_parse_and_commit(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """A huge int and an endless structure are rejected even in fields that are not hashed."""

    def commit(op: dict[str, Any], state: State) -> None:
        if op["text"] == "commit":
            op["extra"] = recursive_dict()

    app = App("hostile", magic=b"ho", projections=TABLES)
    app.add(
        b"o",
        parse=lambda payload: {"text": payload.decode(), "n": 1 << (8 * len(payload))},
        commit=commit,
        fields=["text"],
    )
    mine(fake_node, b"x" * 300, b"commit", b"good")
    run(app)
    assert rejections(query) == [
        ("parse", "field 'n': an int of more than 2048 bits"),
        ("commit", "field 'extra' is nested deeper than 64"),
    ]


def test_a_rejection_may_be_returned_from_every_step(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Reasons that are not text, too long, or impossible to store are recorded in a legible form."""

    def parse(payload: bytes) -> Any:
        return Rejected(ValueError("of parse")) if payload == b"parse" else {"text": payload.decode()}  # type: ignore[arg-type]

    def check(op: dict[str, Any], state: State) -> Any:
        return Rejected("\0\ud800" + "y" * 100_000) if op["text"] == "check" else True

    def commit(op: dict[str, Any], state: State) -> Any:
        state.execute("INSERT INTO kept (key) VALUES (%s)", [op["text"]])
        return Rejected("of commit") if op["text"] == "commit" else None

    mine(fake_node, b"parse", b"check", b"commit", b"good")
    run(an_app(parse=parse, check=check, commit=commit))
    parsed, checked, committed = rejections(query)
    assert (parsed, committed) == (("parse", "of parse"), ("commit", "of commit"))
    assert checked[1].startswith("\\x00\\ud800yyy")
    assert len(checked[1]) < 1_100
    assert query("SELECT key FROM hostile.kept") == [{"key": "good"}]


class Unprintable(Exception):
    """An error whose conversion to text fails."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("never")


@pytest.mark.parametrize(
    "error", [RuntimeError("\0\ud800" + "z" * 10**6), Unprintable()], ids=["unstorable", "unprintable"]
)
def test_any_error_of_an_app_is_recorded(
    fake_node: FakeNode, run: Run, query: Query, error: Exception
) -> None:
    """An error whose text cannot be stored, or that has none, halts the app and not the engine."""

    def check(op: dict[str, Any], state: State) -> bool:
        raise error

    other = App("other", magic=b"ho")
    other.add(b"o", parse=lambda payload: {"text": payload.decode()})
    mine(fake_node, b"x")
    last = run(an_app(check=check), other)
    rows = query("SELECT name, status, block_id, error FROM virtualchain.apps ORDER BY name")
    assert [(row["name"], row["status"], row["block_id"]) for row in rows] == [
        ("hostile", "halted", last - 1),
        ("other", "running", last),
    ]
    assert len(json.dumps(rows[0]["error"])) < 30_000


def test_an_app_may_put_anything_into_an_op(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A rejection in the same block copies the ops; a lock cannot be copied, and is passed on as it is."""

    def check(op: dict[str, Any], state: State) -> bool:
        op["lock"] = threading.Lock()
        return True

    def commit(op: dict[str, Any], state: State) -> Any:
        del op["lock"]
        return op["text"] != "bad" and {"text": op["text"]}

    mine(fake_node, b"good", b"bad", b"fine")
    run(an_app(check=check, commit=commit))
    assert rejections(query) == [("commit", "refused")]

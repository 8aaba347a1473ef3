"""Values in check and commit: some are rejected on every node, others depend on more and halt the app."""

import json
import threading
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from enum import Enum
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg.types import json as psycopg_json

from tests.integration.conftest import Query, Run
from tests.support.unguarded import unguarded
from virtualchain import App, Jsonb, Rejected, State, VirtualchainError
from virtualchain.errors import AppHalted
from virtualchain.testing import FakeNode

TABLES = """
    CREATE TABLE kept (key text PRIMARY KEY, number integer, short varchar(3), body jsonb);
    CREATE INDEX kept_bodies ON kept USING gin (body);
"""


class Word(Enum):
    """Text that is not a str."""

    NUMBER = "1_000"


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


FITS = "a value is out of range, too long, or divided by zero"
DEEP = "field 'value' is nested deeper than 64"
LONG = "parameter 1: a number of more than 1000 digits"
REJECTED: dict[str, tuple[str, Callable[[], Any], str]] = {
    "out of range": ("INSERT INTO kept (key, number) VALUES ('k', %s)", lambda: [2**40], FITS),
    "too long": ("INSERT INTO kept (key, short) VALUES ('k', %s)", lambda: ["abcd"], FITS),
    "division": ("SELECT 1 / %s", lambda: [0], FITS),
    "cast": ("SELECT %s::integer", lambda: [2**31], FITS),
    "sum": ("UPDATE kept SET number = number + %s WHERE key = %s", lambda: [2**31 - 1, "before"], FITS),
    "text of a cast": ("SELECT '[1]'::text || %s::integer", lambda: [-(2**40)], FITS),
    "many digits": ("SELECT %s::numeric", lambda: [1 << 600_000], "parameter 1: an int of more than 2048"),
    "nul": ("SELECT %s::text", lambda: ["a\0b"], "parameter 1 contains a NUL character"),
    "surrogate": ("SELECT %(a)s::text", lambda: {"a": "\ud800"}, "parameter a contains a lone surrogate"),
    "nan": ("SELECT %s", lambda: [Decimal("NaN")], "parameter 1: NaN is not a finite number"),
    "infinite": ("SELECT %s", lambda: [[Decimal("-Infinity")]], "parameter 1: -Infinity is not a finite"),
    "long number": ("SELECT %s", lambda: [Decimal("1e1001")], LONG),
    "small number": ("SELECT %s", lambda: [Decimal("1e-1001")], LONG),
    "json nul": ("INSERT INTO kept (key, body) VALUES ('k', %s)", lambda: [Jsonb("\0")], "field 'value' con"),
    "json surrogate": ("SELECT %s", lambda: [Jsonb({"a": "\udfff"})], "field 'value' contains a lone"),
    "json nan": ("SELECT %s", lambda: [Jsonb(float("nan"))], "field 'value': nan is not a number"),
    "json endless": ("SELECT %s", lambda: [Jsonb(recursive_dict())], DEEP),
    "json digits": ("SELECT %s", lambda: [Jsonb([10**5_000])], "field 'value': an int of more than 2048"),
    "psycopg's": ("SELECT %s", lambda: [psycopg_json.Jsonb("\0")], "field 'value' contains a NUL"),
    "long key": ("INSERT INTO kept (key) VALUES (%s)", lambda: [incompressible(12_000)], FITS),
    "key of 2,001 bytes": ("INSERT INTO kept (key) VALUES (%s)", lambda: ["k" * 2001], FITS),
}
"""Values that no node's database can take: the statement, how its parameters are made, and the reason."""

HALTING: dict[str, tuple[str, list[Any], str]] = {
    "text as json": ("SELECT %s::jsonb", ["{}"], "UsageError: parameter 1 is text"),
    "text as a number": (
        "SELECT %s::integer",
        ["1_000"],
        "UsageError: parameter 1 is text",
    ),
    "an enum's text as a number": (
        "SELECT %s::integer",
        [Word.NUMBER],
        "UsageError: parameter 1 is text",
    ),
    "text as a date": ("SELECT %s::date", ["2009-02-30"], "ForbiddenStatement: a cast to date depends on"),
    "text for a number": ("INSERT INTO kept (key, number) VALUES ('k', %s)", ["0x1F"], "DatatypeMismatch: "),
    "text beside a number": ("SELECT key FROM kept WHERE number = %s", ["0b11"], "UndefinedFunction: "),
    "a float": ("SELECT %s", [1.5], "TypeError: parameter 1: a float does not cross to the database"),
    "a date": ("SELECT %s", [date(2009, 1, 3)], "TypeError: parameter 1: a date does not cross"),
    "a dict": (
        "SELECT %s",
        [{"a": 1}],
        "TypeError: parameter 1: a dict does not cross",
    ),
    "a tuple": ("SELECT %s", [(1, 2)], "TypeError: parameter 1: a tuple does not cross"),
    "a mixed list": ("SELECT %s", [[1, "a"]], "TypeError: parameter 1: Int8, str in one list"),
    "a nested list": ("SELECT %s", [[[1], [2, 3]]], "TypeError: parameter 1: list in one list"),
    "too few": ("SELECT %s, %s", [1], "TypeError: the statement has 2 parameters, and 1 values are passed"),
    "a pattern": ("SELECT 'a' ~ %s", ["("], "InvalidRegularExpression: "),
    "no such function": ("SELECT substr('abc', %s)", [2**40], "UndefinedFunction: "),
    "a long statement": (f"SELECT 1 IN ({', '.join(['%s'] * 70_000)})", [1] * 70_000, "ForbiddenStatement: "),
    "a filter": ("SELECT key FROM kept WHERE 1 / number > %s", [0], "DivisionByZero: "),
    "a subquery": ("SELECT (SELECT 1 / number FROM kept WHERE key = %s)", ["zero"], "DivisionByZero: "),
    "a join": (
        "SELECT a.key FROM kept AS a JOIN kept AS b ON 1 / a.number = b.number WHERE a.key > %s",
        [""],
        "DivisionByZero: ",
    ),
    "an order": (
        "SELECT 1 / number AS x FROM kept WHERE key >= %s ORDER BY x LIMIT 1",
        [""],
        "DivisionByZero: ",
    ),
}
"""What depends on more than values, or is the author's: the statement, its parameters, the error."""


@pytest.mark.parametrize("hidden", [False, True], ids=["raised", "hidden by the app"])
@pytest.mark.parametrize("step", ["check", "commit"])
def test_a_value_that_a_statement_cannot_take_is_a_rejection(
    fake_node: FakeNode, run: Run, query: Query, step: str, *, hidden: bool
) -> None:
    """Each such op is undone and rejected, and the ops around it are accepted."""

    def write(op: dict[str, Any], state: State) -> bool | None:
        state.execute("INSERT INTO kept (key, number) VALUES (%s, 1)", [op["text"]])
        statement, parameters, _ = REJECTED.get(op["text"], ("SELECT 1", list, ""))
        execute: Any = state.query if statement.startswith("SELECT") else state.execute
        try:
            execute(statement, parameters())
        except (VirtualchainError, psycopg.DatabaseError):
            if not hidden:
                raise
        return True if step == "check" else None

    mine(fake_node, b"before", *(case.encode() for case in REJECTED), b"after")
    run(an_app(**{step: write}))
    assert query("SELECT status, error FROM virtualchain.apps") == [{"status": "running", "error": None}]
    rejected = rejections(query)
    if not hidden:
        assert len(rejected) == len(REJECTED)
        for (case, (_, _, reason)), (rejected_at, recorded) in zip(REJECTED.items(), rejected, strict=True):
            assert rejected_at == step, case
            assert recorded.startswith(reason), case
    # A value that fails before it is sent leaves the transaction intact, so an app may hide that error.
    assert all(hidden is False or reason == FITS for _, reason in rejected)
    assert query("SELECT count(*) AS n FROM hostile.kept") == [{"n": 2 + len(REJECTED) - len(rejected)}]


@pytest.mark.parametrize("case", HALTING)
def test_what_may_depend_on_more_than_values_halts(
    fake_node: FakeNode, run: Run, query: Query, case: str
) -> None:
    """The app halts alone before that block, with the statement named, and the block leaves no trace."""
    statement, parameters, error = HALTING[case]

    def check(op: dict[str, Any], state: State) -> bool:
        state.execute("INSERT INTO kept (key, number) VALUES (%s, 0)", [op["text"]])
        if op["text"] == "zero":
            state.query(statement, parameters)
        return True

    mine(fake_node, b"fine")
    height = fake_node.height
    mine(fake_node, b"zero", b"other")
    other = App("other", magic=b"ho")
    other.add(b"o", parse=lambda payload: {"text": payload.decode()})
    run(an_app(check=check), other)
    rows = query("SELECT name, status, block_id, error FROM virtualchain.apps ORDER BY name")
    assert [(row["name"], row["status"]) for row in rows] == [("hostile", "halted"), ("other", "running")]
    assert rows[0]["block_id"] == height
    assert rows[0]["error"]["error"].startswith(error)
    assert statement[:20] in rows[0]["error"]["error"]
    assert query("SELECT key FROM hostile.kept") == [{"key": "fine"}]
    assert rejections(query) == []


def test_a_callback_cannot_hide_that_a_statement_may_not_run(fake_node: FakeNode, run: Run) -> None:
    """Another version of the server may have the function, so the next step would not be the same."""

    def check(op: dict[str, Any], state: State) -> bool:
        try:
            state.query("SELECT function_of_the_future(1)")
        except VirtualchainError:
            return False
        return True

    mine(fake_node, b"x")
    with pytest.raises(AppHalted, match="function_of_the_future is not a built-in function"):
        run(an_app(check=check))


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


def test_what_the_guard_misses_meets_a_shadow(fake_node: FakeNode, run: Run) -> None:
    """Under the guard, a function of the clock is found on the search path first, and raises."""
    mine(fake_node, b"x")
    with pytest.raises(AppHalted, match="reducers may not call now"):
        run(an_app(check=lambda op, state: bool(unguarded(state).execute("SELECT now()"))))


def test_a_parameter_is_computed_only_for_rows_that_match(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """However often a session ran the statement: a plan for one set of values would compute it before."""

    def check(op: dict[str, Any], state: State) -> bool:
        state.execute("UPDATE kept SET number = %s WHERE key = %s", [2**40, "nobody"])
        return True

    mine(fake_node, *(b"%d" % number for number in range(12)))
    run(an_app(check=check))
    assert rejections(query) == []
    assert query("SELECT count(*) AS n FROM virtualchain.ops") == [{"n": 12}]


@pytest.mark.parametrize(
    "end", [SystemExit(0), GeneratorExit(), psycopg.Rollback()], ids=lambda end: type(end).__name__
)
def test_a_callback_that_would_end_the_engine_halts_the_app(
    fake_node: FakeNode, run: Run, query: Query, end: BaseException
) -> None:
    """None of them ends the process, and none undoes the block unnoticed."""

    def check(op: dict[str, Any], state: State) -> bool:
        raise end

    mine(fake_node, b"x")
    with pytest.raises(AppHalted, match=f"the callback raised {type(end).__name__}"):
        run(an_app(check=check))
    assert query("SELECT status FROM virtualchain.apps") == [{"status": "halted"}]
    assert query("SELECT count(*) AS n FROM virtualchain.ops") == [{"n": 0}]

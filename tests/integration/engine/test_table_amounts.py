"""What depends neither on a callback's arithmetic, nor on rows that are kept, nor on what is waited for."""

from decimal import Decimal, localcontext
from typing import Any

import pytest

from tests.integration.conftest import Query, Run
from virtualchain import App, Rejected, State
from virtualchain.errors import VirtualchainError
from virtualchain.testing import FakeNode


@pytest.mark.parametrize("precision", [3, 28])
def test_amounts_are_exact(fake_node: FakeNode, run: Run, query: Query, precision: int) -> None:
    """`move` and `spend` take what they give, whatever the context of a callback's decimals."""
    app = App("exact", magic=b"ex", projections="CREATE TABLE a (k text PRIMARY KEY, v numeric(39) NOT NULL)")
    amount = Decimal(10**38 + 1)

    def commit(op: dict[str, Any], state: State) -> None:
        table = state.table("a")
        for key in ("ann", "bob"):
            table.put({"k": key, "v": amount if key == "ann" else 0})
        with localcontext(prec=precision):
            table.move("ann", "bob", v=amount)
            table.spend("bob", v=amount)
            table.add("bob", v=amount)

    app.add(b"o", parse=lambda payload: {}, commit=commit)
    fake_node.mine([fake_node.send(b"exo")])
    run(app)
    assert query("SELECT reason FROM virtualchain.rejections") == []
    assert query("SELECT * FROM exact.a ORDER BY k") == [{"k": "ann", "v": 0}, {"k": "bob", "v": amount}]


def test_a_move_that_is_refused_moves_nothing(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Also if the giver has no row, and its key is too long for one."""
    app = App("moves", magic=b"mv", projections="CREATE TABLE a (k text PRIMARY KEY, v integer DEFAULT 5)")

    def commit(op: dict[str, Any], state: State) -> None:
        table = state.table("a")
        table.put({"k": "bob", "v": 0})
        try:
            table.move("x" * 3_000, "bob", v=3)
        except VirtualchainError:
            op["caught"] = True

    app.add(b"o", parse=lambda payload: {}, commit=commit)
    fake_node.mine([fake_node.send(b"mvo")])
    run(app)
    assert query("SELECT fields FROM virtualchain.ops") == [{"fields": {"caught": True}}]
    assert query("SELECT * FROM moves.a") == [{"k": "bob", "v": 0}]


def test_any_limit_is_one(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A limit that a stranger wrote is no error, however large it is."""
    app = App("limits", magic=b"lm", projections="CREATE TABLE a (k integer PRIMARY KEY, n integer)")

    def commit(op: dict[str, Any], state: State) -> None:
        table = state.table("a")
        table.put({"k": op["k"], "n": len(table.find(limit=2**63 + op["k"]))})

    app.add(b"o", parse=lambda payload: {"k": int(payload)}, commit=commit)
    fake_node.mine([fake_node.send(b"lmo%d" % number) for number in range(3)])
    run(app)
    assert query("SELECT * FROM limits.a ORDER BY k") == [{"k": number, "n": number} for number in range(3)]


def test_a_count_is_that_of_the_rows(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Also if one VALUES list makes several, and whether or not inputs of the block were refused before."""
    app = App("counts", magic=b"cn", projections="CREATE TABLE t (k bigint PRIMARY KEY)")

    def commit(op: dict[str, Any], state: State, block_id: int) -> Rejected | None:
        if op["many"] < 0:
            state.execute("INSERT INTO t VALUES (%s)", [op["many"]])
            return Rejected("no")
        keys = [block_id * 100 + number for number in range(op["many"])]
        op["count"] = state.execute("INSERT INTO t VALUES (unnest(%s::bigint[]))", [keys])
        return None

    app.add(b"o", parse=lambda payload: {"many": int(payload)}, commit=commit)
    for many in (b"4", b"3", b"0"):
        fake_node.mine([fake_node.send(b"cno" + many)])
    fake_node.mine([*(fake_node.send(b"cno-1") for _ in range(2)), fake_node.send(b"cno4")])
    run(app)
    counts = query("SELECT (fields ->> 'count')::integer AS n FROM virtualchain.ops ORDER BY block_id")
    assert [each["n"] for each in counts] == [4, 3, 0, 4]


def test_rows_are_written_in_the_order_of_their_changes(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Also after a call was undone, whether they were read in this block or are kept from earlier ones."""
    schema = "CREATE TABLE t (k text PRIMARY KEY, u integer NOT NULL UNIQUE)"
    app = App("order", magic=b"or", projections=schema)

    def commit(op: dict[str, Any], state: State) -> Rejected | None:
        table = state.table("t")
        changes = {"make": {"a": 1, "b": 2}, "both": {"b": 3, "a": 2}, "refuse": {"c": 50}}
        for key, unique in changes.get(op["do"], {}).items():
            table.put({"k": key, "u": unique})
        if op["do"] == "look":
            table.get("b")
        elif op["do"] == "sql":
            state.execute("UPDATE t SET u = 99 WHERE k = 'z'")
        return Rejected("no") if op["do"] == "refuse" else None

    def keys(op: dict[str, Any]) -> dict[str, list[str]]:
        return {"t": ["a", "b"]} if op["do"] == "both" else {}

    app.add(b"o", parse=lambda payload: {"do": payload.decode()}, commit=commit, keys=keys)
    for ops in ((b"make",), (b"sql",), (b"look",)):
        fake_node.mine([fake_node.send(b"oro" + op) for op in ops])
    run(app)
    fake_node.mine([fake_node.send(b"oro" + op) for op in (b"both", b"refuse")])
    run(app)
    assert query('SELECT * FROM "order".t ORDER BY k') == [{"k": "a", "u": 2}, {"k": "b", "u": 3}]

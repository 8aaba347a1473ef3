"""`state.table`: the same rows, history, digests, refusals and rollbacks as with statements."""

import json
import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, cast

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.integration.store.test_postgresql_versions import running
from virtualchain import App, Rejected, State, StateEngine
from virtualchain.errors import AppHalted, UsageError
from virtualchain.store.migrate import migrate
from virtualchain.testing import FakeNode
from virtualchain.testing.database import installations

ITEMS = """
    CREATE TABLE items (
        owner text, n integer, small smallint DEFAULT 3, big bigint,
        amount numeric(12, 2) NOT NULL DEFAULT 0.50, free numeric,
        note varchar(10) DEFAULT 'none', data bytea, flag boolean DEFAULT true,
        PRIMARY KEY (owner, n)
    );
    CREATE TABLE totals (owner text PRIMARY KEY, count bigint NOT NULL);
"""
COLUMNS = ("owner", "n", "small", "big", "amount", "free", "note", "data", "flag")
OWNERS = ("ann", "bob", "zoë", "")
UPDATES = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[2:])
PUT = (
    f"INSERT INTO items VALUES ({', '.join(['%s'] * len(COLUMNS))}) "
    f"ON CONFLICT (owner, n) DO UPDATE SET {UPDATES}"
)
NEW = "INSERT INTO items (big, amount, owner, n) VALUES (%s, 0.50 + %s, %s, %s)"
ADD = "UPDATE items SET big = coalesce(big, 0) + %s, amount = amount + %s WHERE owner = %s AND n = %s"
COUNT = "INSERT INTO totals VALUES (%s, 1) ON CONFLICT (owner) DO UPDATE SET count = totals.count + 1"
VALUES = {
    "small": (None, 0, -(2**15), 2**15 - 1, 2**15),
    "big": (None, 0, 2**63 - 1, -(2**63), 5, 2**63),
    "amount": ("0", "1.005", "-1.005", "12345.678", "9999999999.99", "9999999999.995", "1E+3"),
    "free": (None, "0", "1.0", "1.00", "-0.0", "1E+3", "123456789012345678901234567890.123456789"),
    "note": (None, "", "ten chars!", "ten chars!  ", "eleven chars", "ünï"),
    "data": (None, "", "00ff"),
    "flag": (None, True, False),
}
"""Values that fit, at the edge or beyond."""


def decoded(op: dict[str, Any]) -> dict[str, Any]:
    """Return a row of an op with its values as they cross to the database."""
    row = {name: op[name] for name in COLUMNS}
    for name in ("amount", "free"):
        row[name] = None if row[name] is None else Decimal(row[name])
    return row | {"data": None if row["data"] is None else bytes.fromhex(row["data"])}


def shown(row: dict[str, Any] | None) -> str:
    """Return a row as the op records it."""
    return "none" if row is None else " ".join(repr(row[name]) for name in COLUMNS)


def by_statements(op: dict[str, Any], state: State) -> Rejected | None:
    """Do what an op says with SQL."""
    key = [op["owner"], op["n"]]
    op["seen"] = shown(state.one("SELECT * FROM items WHERE owner = %s AND n = %s", key))
    if op["n"] % 2:
        rows = state.query("SELECT * FROM items WHERE owner = %s ORDER BY n", [op["owner"]])
        op["owned"] = [shown(row) for row in rows]
    match op["do"]:
        case "put" | "refuse":
            state.execute(PUT, list(decoded(op).values()))
        case "add":
            statement = NEW if op["seen"] == "none" else ADD
            state.execute(statement, [op["big"] or 0, Decimal(op["amount"]), *key])
        case "delete":
            state.execute("DELETE FROM items WHERE owner = %s AND n = %s", key)
    state.execute(COUNT, [op["owner"]])
    return Rejected("after writing") if op["do"] == "refuse" else None


def by_rows(op: dict[str, Any], state: State) -> Rejected | None:
    """Do the same with `state.table`."""
    items, key = state.table("items"), (op["owner"], op["n"])
    op["seen"] = shown(items.get(key))
    if op["n"] % 2:
        op["owned"] = [shown(row) for row in items.find(op["owner"])]
    match op["do"]:
        case "put" | "refuse":
            items.put(decoded(op))
        case "add":
            items.add(key, big=op["big"] or 0, amount=Decimal(op["amount"]))
        case "delete":
            items.delete(key)
    state.table("totals").add(op["owner"], count=1)
    return Rejected("after writing") if op["do"] == "refuse" else None


def mixed(op: dict[str, Any], state: State) -> Rejected | None:
    """Do the same now this way, now that way, with statements that see what was done row by row."""
    if op["n"] % 3 == 0:
        return by_statements(op, state)
    result = by_rows(op, state)
    if op["n"] % 3 == 1:
        rows = state.query("SELECT * FROM totals WHERE owner = %s", [op["owner"]])
        assert rows[0]["count"] == cast("dict[str, int]", state.table("totals").get(op["owner"]))["count"]
    return result


def an_app(commit: Callable[..., Any], *, names_keys: bool = False) -> App:
    """Make an app whose ops are JSON."""
    app = App("items", magic=b"it", projections=ITEMS)

    def keys(op: dict[str, Any]) -> dict[str, list[Any]]:
        no_row_has_them = [("nobody", 2**40), ("nobody", 2**5000), ("no\x00body", 1), ("\ud800", 1), ("\0",)]
        named = (op["owner"], op["n"]) if op["n"] % 3 else (op["owner"],)
        return {"items": [named, *no_row_has_them], "totals": [op["owner"]]}

    def parse(payload: bytes) -> dict[str, Any]:
        return dict(json.loads(payload))

    app.add(b"o", parse=parse, commit=commit, keys=keys if names_keys else None)
    return app


def random_op(dice: random.Random, keys: int) -> bytes:
    """Make an op."""
    op = {
        "do": dice.choices(("put", "add", "delete", "refuse"), (6, 6, 3, dice.choice((0, 1))))[0],
        "owner": dice.choice(OWNERS),
        "n": dice.randrange(keys),
        **{name: dice.choice(values) for name, values in VALUES.items()},
    }
    return b"ito" + json.dumps(op, ensure_ascii=False, separators=(",", ":")).encode()


def deployment(url: str, app: str = "items", tables: Sequence[str] = ("items", "totals")) -> dict[str, Any]:
    """Return everything that must not depend on how rows are written."""
    with psycopg.connect(url) as connection:
        return {
            name: connection.execute(query).fetchall()
            for name, query in {
                "digests": "SELECT block_id, ops_hash, state_hash FROM vc.snapshots ORDER BY 1",
                "ops": "SELECT block_id, vtxindex, fields FROM vc.ops ORDER BY 1, 2",
                "rejections": "SELECT block_id, txindex, step, reason FROM vc.rejections ORDER BY 1, 2",
                **{
                    f"{table}{twin}": f"SELECT DISTINCT r::text FROM {app}__1.{table}{twin} AS r ORDER BY 1"
                    for table in tables
                    for twin in ("", "_history", "_births")
                },
            }.items()
        }


@pytest.mark.parametrize("seed", range(4))
def test_rows_and_statements_do_the_same(
    fake_node: FakeNode, fresh_index: Callable[..., str], seed: int
) -> None:
    """Whatever happens to a row, everything that is kept is the same, and after a fork still."""
    dice = random.Random(seed)
    keys = dice.choice((2, 9))

    def mine(blocks: int) -> None:
        for _ in range(blocks):
            fake_node.mine([fake_node.send(random_op(dice, keys)) for _ in range(dice.choice((0, 1, 3, 12)))])

    mine(12)
    apps = {
        "statements": an_app(by_statements),
        "rows": an_app(by_rows),
        "rows read ahead": an_app(by_rows, names_keys=True),
        "mixed": an_app(mixed, names_keys=True),
    }
    urls = {name: fresh_index(app) for name, app in apps.items()}
    expected = deployment(urls["statements"])
    assert len(expected["ops"]) > 10
    assert expected["rejections"]
    for name, url in urls.items():
        for part, rows in deployment(url).items():
            assert rows == expected[part], f"{name}: {part}"


@pytest.mark.parametrize("commit", [by_rows, mixed])
def test_a_fork_brings_rows_back(
    fake_node: FakeNode,
    run: Run,
    query: Query,
    database_url: str,
    fresh_index: Callable[..., str],
    commit: Any,
) -> None:
    """Rows that were written one by one are rolled back by their history."""
    dice = random.Random(5)
    for _ in range(8):
        fake_node.mine([fake_node.send(random_op(dice, 2)) for _ in range(4)])
    run(an_app(commit))
    fake_node.reorg(5, 6)
    run(an_app(commit))
    assert query("SELECT ops_undone > 0 AS undone, rows_undone > 0 AS rows FROM virtualchain.reorgs") == [
        {"undone": True, "rows": True}
    ]
    here, there = deployment(database_url), deployment(fresh_index(an_app(by_statements)))
    assert {name: rows for name, rows in here.items() if not name.endswith("_births")} == {
        name: rows for name, rows in there.items() if not name.endswith("_births")
    }


WRONG: dict[str, Callable[[State], Any]] = {
    "no such table": lambda state: state.table("nothing"),
    "its column list has the type": lambda state: state.table("lists"),
    "is numeric without a precision": lambda state: state.table("numbers"),
    "does not fit the column": lambda state: state.table("defaults"),
    "its primary key is deferrable": lambda state: state.table("later"),
    "an index with an expression": lambda state: state.table("lower"),
    "has no column nothing": lambda state: state.table("good").put({"id": 1, "nothing": 2}),
    "may not be null": lambda state: state.table("good").put({"id": 1}),
    "the type integer": lambda state: state.table("good").put({"id": "1", "text": ""}),
    "the type text": lambda state: state.table("good").put({"id": 1, "text": 1}),
    "a key of table good consists of id": lambda state: state.table("good").get((1, 2)),
    "cannot be added": lambda state: state.table("good").add(1, text=1),
}


@pytest.mark.parametrize("message", WRONG)
def test_mistakes_halt_the_app(fake_node: FakeNode, run: Run, message: str) -> None:
    """What is no matter of values is the app's error, and its message says what is wrong."""
    app = App(
        "wrong",
        magic=b"it",
        projections="CREATE TABLE good (id integer PRIMARY KEY, text text NOT NULL);"
        "CREATE TABLE lists (id integer PRIMARY KEY, list integer[]);"
        "CREATE TABLE numbers (id numeric PRIMARY KEY);"
        "CREATE TABLE later (id integer PRIMARY KEY DEFERRABLE);"
        "CREATE TABLE defaults (id integer PRIMARY KEY, n smallint DEFAULT 70000, m integer DEFAULT 1 / 0);"
        "CREATE TABLE lower (id text PRIMARY KEY); CREATE INDEX ON lower (upper(id));",
    )
    app.add(b"o", parse=lambda _: {}, commit=lambda op, state: WRONG[message](state) and None)
    fake_node.mine([fake_node.send(b"ito")])
    with pytest.raises(AppHalted) as halted:
        run(app)
    assert isinstance(halted.value.__cause__, UsageError | TypeError)
    assert message in str(halted.value.__cause__)


@pytest.mark.parametrize("key", [b"x" * 2001, b"x" * 2000])
def test_an_entry_too_long_for_an_index_rejects_the_input(
    fake_node: FakeNode, fresh_index: Callable[..., str], key: bytes
) -> None:
    """As the table's triggers do it."""

    def by_statement(op: dict[str, Any], state: State) -> None:
        state.execute("INSERT INTO names VALUES (%s, 1)", [key.decode()])

    def by_row(op: dict[str, Any], state: State) -> None:
        state.table("names").put({"name": key.decode(), "n": 1})

    fake_node.mine([fake_node.send(b"ito")])
    rejections = []
    for commit in (by_statement, by_row):
        app = App("names", magic=b"it", projections="CREATE TABLE names (name text PRIMARY KEY, n integer)")
        app.add(b"o", parse=lambda _: {}, commit=commit)
        with psycopg.connect(fresh_index(app)) as connection:
            rejections.append(connection.execute("SELECT step, reason FROM vc.rejections").fetchall())
    assert rejections[0] == rejections[1]
    assert len(rejections[0]) == len(key) - 2000


def test_a_broken_constraint_halts_the_app(fake_node: FakeNode, run: Run) -> None:
    """Constraints are checked when rows are written, and the message names the one that is broken."""
    app = App(
        "poor", magic=b"it", projections="CREATE TABLE t (id integer PRIMARY KEY, n bigint CHECK (n > 0))"
    )
    app.add(b"o", parse=lambda _: {}, commit=lambda op, state: state.table("t").put({"id": 1, "n": 0}))
    fake_node.mine([fake_node.send(b"ito")])
    with pytest.raises(AppHalted, match="t_n_check"):
        run(app)


def test_every_version_of_the_server_does_the_same(
    fake_node: FakeNode, fresh_index: Callable[..., str]
) -> None:
    """Rows that were written one by one on another version are those of statements here."""
    dice = random.Random(11)
    for _ in range(8):
        fake_node.mine([fake_node.send(random_op(dice, 3)) for _ in range(4)])
    expected = deployment(fresh_index(an_app(by_statements)))
    for binaries in installations().values():
        with running(binaries) as server:
            migrate(server.url)
            app = an_app(mixed, names_keys=True)
            with StateEngine(app, database=server.url, source=fake_node.url, confirmations=0) as engine:
                assert engine.build() == fake_node.height
            assert deployment(server.url) == expected

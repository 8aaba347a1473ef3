"""Balances, lists and the like with `state.table`: what statements do, refusals included."""

import json
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.conftest import Query, Run
from tests.integration.store.test_tables import deployment
from virtualchain import App, Rejected, State
from virtualchain.errors import AppHalted, UsageError
from virtualchain.testing import FakeNode

TABLES = """
    CREATE TABLE accounts (
        owner text PRIMARY KEY, gold bigint NOT NULL DEFAULT 0, silver numeric(9, 2) DEFAULT 1.50
    );
    CREATE TABLE notes (
        owner text, part smallint, n integer, text text NOT NULL, PRIMARY KEY (owner, part, n)
    );
    CREATE TABLE queue (n smallint PRIMARY KEY, what text NOT NULL DEFAULT 'wait');
"""
NAMES = ("accounts", "notes", "queue")
OWNERS = ("ann", "bob", "zo\u00eb", "\U0001f600", "\uffff", "")
AMOUNTS = ("0", "1", "7", "0.005", "2.345", "-1", "9999999.99", str(2**63 - 1), str(2**63))
KINDS = ("earn", "spend", *("move", "append", "join") * 2, "serve", "drop", "change", "look")
LAST = "SELECT n FROM notes WHERE owner = %s AND part = %s ORDER BY n DESC LIMIT 1"
GET = "SELECT gold, silver FROM accounts WHERE owner = %s"
SET = (
    "INSERT INTO accounts VALUES (%s, %s, %s) ON CONFLICT (owner) "
    "DO UPDATE SET gold = excluded.gold, silver = excluded.silver"
)
ROUND = {"gold": "SELECT %s::numeric::bigint AS gold", "silver": "SELECT %s::numeric(9, 2) AS silver"}
TAKEN = "SELECT what FROM queue WHERE n = %s"


class Short(Exception):
    """There is too little to take."""


def held(state: State, owner: str) -> dict[str, Any]:
    """Return what an owner has, by a statement."""
    row = state.one(GET, [owner]) or {"gold": 0, "silver": Decimal("1.50")}
    return row | {"silver": row["silver"] or Decimal(0)}


def taken(state: State, op: dict[str, Any], owner: str) -> dict[str, Any]:
    """Take an op's amounts, rounded as the columns round them, by statements."""
    rounded: dict[str, Any] = {}
    for name, amount in zip(ROUND, amounts(op), strict=True):
        rounded |= state.one(ROUND[name], [amount]) or {}
        if rounded[name] < 0:
            raise Short
    have = held(state, owner)
    if any(have[name] < rounded[name] for name in rounded):
        raise Short
    state.execute(SET, [owner, *(have[name] - rounded[name] for name in ("gold", "silver"))])
    return rounded


def amounts(op: dict[str, Any]) -> list[Decimal]:
    """Return what an op moves."""
    return [Decimal(op["gold"]), Decimal(op["silver"])]


def by_statements(op: dict[str, Any], state: State) -> Rejected | None:  # noqa: C901 - one kind of op a case
    """Do what an op says with SQL."""
    who, other, part = op["who"], op["other"], op["part"]
    try:
        match op["do"]:
            case "earn":
                have = held(state, who)
                state.execute(SET, [who, have["gold"] + op["n"], have["silver"]])
                op["gold_now"] = have["gold"] + op["n"]
            case "spend":
                taken(state, op, who)
            case "move":
                moved = taken(state, op, who)
                have = held(state, other)
                state.execute(SET, [other, *(have[name] + moved[name] for name in ("gold", "silver"))])
            case "append":
                last = state.one(LAST, [who, part])
                op["number"] = 0 if last is None else last["n"] + 1
                state.execute("INSERT INTO notes VALUES (%s, %s, %s, %s)", [who, part, op["number"], "new"])
            case "join":
                last = state.one("SELECT max(n) AS n FROM queue")
                number = 0 if last is None or last["n"] is None else last["n"] + 1
                state.execute("INSERT INTO queue VALUES (%s::bigint, %s)", [number, who])
            case "serve":
                first = state.one("SELECT * FROM queue ORDER BY n LIMIT 1")
                op["served"] = first
                if first is not None:
                    state.execute("DELETE FROM queue WHERE n = %s", [first["n"]])
            case "drop":
                last = state.one(
                    "SELECT * FROM notes WHERE owner = %s ORDER BY part DESC, n DESC LIMIT 1", [who]
                )
                op["dropped"] = last
                if last is not None:
                    state.execute(
                        "DELETE FROM notes WHERE owner = %s AND part = %s AND n = %s", list(last.values())[:3]
                    )
            case "change":
                statement = "UPDATE notes SET text = %s WHERE owner = %s AND part = %s AND n = %s"
                op["changed"] = bool(state.execute(statement, [f"by {other}", who, part, op["n"]]))
            case "look":
                op["there"] = state.one(TAKEN, [op["n"]]) is not None
                op["some"] = [
                    state.query("SELECT * FROM notes ORDER BY owner, part, n LIMIT 3"),
                    state.query("SELECT * FROM notes ORDER BY owner DESC, part DESC, n DESC LIMIT 4"),
                    state.query(
                        "SELECT * FROM notes WHERE owner = %s AND part = %s ORDER BY n DESC", [who, part]
                    ),
                    state.query("SELECT * FROM notes WHERE owner = %s ORDER BY part, n LIMIT 2", [who]),
                ]
    except Short:
        return Rejected("too little")
    return Rejected("after writing") if op["refuse"] else None


def by_rows(op: dict[str, Any], state: State) -> Rejected | None:
    """Do the same with `state.table`."""
    accounts, notes, queue = map(state.table, NAMES)
    who, other, part = op["who"], op["other"], op["part"]
    gold, silver = amounts(op)
    match op["do"]:
        case "earn":
            op["gold_now"] = accounts.add(who, gold=op["n"])["gold"]
        case "spend":
            accounts.spend(who, "too little", gold=gold, silver=silver)
        case "move":
            accounts.move(who, other, "too little", gold=gold, silver=silver)
        case "append":
            op["number"] = notes.append({"owner": who, "part": part, "text": "new"})
        case "join":
            queue.append({"what": who})
        case "serve":
            op["served"] = queue.pop(last=False)
        case "drop":
            op["dropped"] = notes.pop(who)
        case "change":
            op["changed"] = notes.update((who, part, op["n"]), text=f"by {other}")
        case "look":
            op["there"] = op["n"] in queue
            op["some"] = [
                notes.find(limit=3),
                notes.find(limit=4, backwards=True),
                notes.find(who, part, backwards=True),
                notes.find(who, limit=2),
            ]
    return Rejected("after writing") if op["refuse"] else None


def mixed(op: dict[str, Any], state: State) -> Rejected | None:
    """Do the same now this way, now that way."""
    return (by_rows if op["n"] % 2 else by_statements)(op, state)


def an_app(commit: Callable[..., Any]) -> App:
    """Make an app whose ops are JSON."""
    app = App("bank", magic=b"bk", projections=TABLES)
    app.add(b"o", parse=lambda payload: dict(json.loads(payload)), commit=commit)
    return app


def random_op(dice: random.Random) -> bytes:
    """Make an op."""
    op = {
        "do": dice.choice(
            (
                "earn",
                "spend",
                "move",
                "move",
                "append",
                "append",
                "join",
                "join",
                "serve",
                "drop",
                "change",
                "look",
            )
        ),
        "who": dice.choice(OWNERS),
        "other": dice.choice(OWNERS),
        "part": dice.choice((-1, 0, 5)),
        "n": dice.choice((0, 1, 3, 4, 10, 2**62)),
        "gold": dice.choice(AMOUNTS),
        "silver": dice.choice(AMOUNTS),
        "refuse": dice.random() < 0.1,
    }
    return b"bko" + json.dumps(op, separators=(",", ":")).encode()


@pytest.mark.parametrize("seed", range(2))
def test_helpers_and_statements_do_the_same(
    fake_node: FakeNode, run: Run, database_url: str, fresh_index: Callable[..., str], seed: int
) -> None:
    """Whatever is moved, appended, taken or refused, all that is kept is the same, and after a fork still."""
    dice = random.Random(seed)

    def mine(blocks: int) -> None:
        for _ in range(blocks):
            fake_node.mine([fake_node.send(random_op(dice)) for _ in range(dice.choice((1, 4, 40)))])

    mine(8)
    run(an_app(by_rows))
    fake_node.reorg(4, 5)
    mine(2)
    run(an_app(by_rows))
    expected = deployment(fresh_index(an_app(by_statements)), "bank", NAMES)
    assert len(expected["ops"]) > 30
    assert {reason for *_, reason in expected["rejections"]} >= {"too little", "after writing"}
    assert all(expected[name] for name in NAMES)
    for name, url in {"forked": database_url, "mixed": fresh_index(an_app(mixed))}.items():
        for part, rows in deployment(url, "bank", NAMES).items():
            if name != "forked" or not part.endswith("_births"):
                assert rows == expected[part], f"{name}: {part}"


def test_only_the_end_of_a_list_is_read(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Rows that the block has deleted are passed over, and none is read that is not needed."""
    seen: list[int] = []

    def commit(op: dict[str, Any], state: State) -> None:
        queue = state.table("queue")
        if op["n"] == 0:
            for number in range(300):
                assert queue.append({}) == number
            return
        rows = state.rows._rows["queue"]
        assert queue.last() == {"n": 299, "what": "wait"}
        seen.append(len(rows._known))
        for _ in range(120):
            queue.pop()
        assert queue.append({}) == 180
        seen.append(len(rows._known))
        assert queue.first() == {"n": 0, "what": "wait"}
        assert [row["n"] for row in queue.find(limit=3, backwards=True)] == [180, 179, 178]
        assert len(queue.find(limit=1000)) == 181
        assert queue.pop(last=False) == {"n": 0, "what": "wait"}

    app = App("bank", magic=b"bk", projections=TABLES)
    app.add(b"o", parse=lambda payload: {"n": payload[0]}, commit=commit)
    fake_node.mine([fake_node.send(b"bko\0")])
    fake_node.mine([fake_node.send(b"bko\1")])
    run(app)
    assert seen[0] == 1
    assert seen[1] < 230
    assert query("SELECT count(*), min(n), max(n) FROM bank.queue") == [{"count": 180, "min": 1, "max": 180}]


def test_a_refusal_before_any_write_needs_no_second_run(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A helper's refusal costs no more than a returned one: the block is judged once, and says why."""
    calls = []

    def check(op: dict[str, Any], state: State) -> bool:
        calls.append(op)
        state.table("accounts").spend("ann", gold=1)
        return True

    app = App("bank", magic=b"bk", projections=TABLES)
    app.add(b"o", parse=lambda _: {}, check=check)
    fake_node.mine([fake_node.send(b"bko") for _ in range(3)])
    run(app)
    assert len(calls) == 3
    assert {row["reason"] for row in query("SELECT reason FROM virtualchain.rejections")} == {
        "accounts ann: gold is 0, and 1 would be taken"
    }


def test_a_move_keeps_the_sum(fake_node: FakeNode, run: Run, query: Query) -> None:
    """No rounding, overflow or move to oneself makes money, and none is lost."""
    refused = []

    def commit(op: dict[str, Any], state: State) -> None:
        accounts = state.table("accounts")
        accounts.put({"owner": "ann", "gold": 10, "silver": Decimal("1.00")})
        accounts.put({"owner": "rich", "gold": 2**63 - 5})
        accounts.move("ann", "bob", silver=Decimal("0.005"))
        accounts.move("ann", "ann", gold=10)
        accounts.move("ann", "bob", gold=Decimal("0.5"))
        for giver, taker, amount in (
            ("ann", "bob", 10),
            ("ann", "rich", 9),
            ("bob", "ann", -1),
            ("ann", "ann", 99),
        ):
            try:
                accounts.move(giver, taker, gold=amount)
            except Exception as error:  # noqa: BLE001 - what it is shall be seen
                refused.append(type(error).__name__)

    app = App("bank", magic=b"bk", projections=TABLES)
    app.add(b"o", parse=lambda _: {}, commit=commit)
    fake_node.mine([fake_node.send(b"bko")])
    run(app)
    assert refused == ["Refused", "ValueDoesNotFit", "Refused", "Refused"]
    assert query("SELECT * FROM bank.accounts ORDER BY owner") == [
        {"owner": "ann", "gold": 9, "silver": Decimal("0.99")},
        {"owner": "bob", "gold": 1, "silver": Decimal("1.51")},
        {"owner": "rich", "gold": 2**63 - 5, "silver": Decimal("1.50")},
    ]


WRONG: dict[str, Callable[[State], Any]] = {
    "find with a limit of -1": lambda state: state.table("queue").find(limit=-1),
    "do not begin with 0 values": lambda state: state.table("notes").find(),
    "do not begin with 3 values": lambda state: state.table("notes").last("ann", 1, 2),
    "in n, the last column of the key: leave it out": lambda state: state.table("queue").append({"n": 1}),
    "must be an integer, not text": lambda state: state.table("accounts").append({"gold": 1}),
    "may not be null": lambda state: state.table("notes").append({"owner": "ann", "part": 1}),
    "update cannot change n": lambda state: (
        state.table("queue").append({}),
        state.table("queue").update(0, n=1),
    ),
    "has no column copper": lambda state: state.table("accounts").spend("ann", copper=1),
    "'1' cannot be added": lambda state: state.table("accounts").move("ann", "bob", gold="1"),
}


@pytest.mark.parametrize("message", WRONG)
def test_mistakes_halt_the_app(fake_node: FakeNode, run: Run, message: str) -> None:
    """What is no matter of values is the app's error, and its message says what is wrong."""
    app = App("bank", magic=b"bk", projections=TABLES)
    app.add(b"o", parse=lambda _: {}, commit=lambda op, state: WRONG[message](state) and None)
    fake_node.mine([fake_node.send(b"bko")])
    with pytest.raises(AppHalted) as halted:
        run(app)
    assert isinstance(halted.value.__cause__, UsageError | TypeError)
    assert message in str(halted.value.__cause__)

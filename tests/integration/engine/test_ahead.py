"""Statements that are sent ahead decide nothing: verdicts, rows and halts are those of one at a time."""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import current_thread, main_thread
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.support.tables import deployment
from virtualchain import App, Rejected, State, last_op_return
from virtualchain.engine import engine as indexer
from virtualchain.engine import machine
from virtualchain.engine.care import FULL_CARE
from virtualchain.errors import AppHalted, VirtualchainError
from virtualchain.model import Payloads
from virtualchain.store.pipeline import Pipeline
from virtualchain.testing import FakeNode

PUT = "INSERT INTO t VALUES (%s, %s) ON CONFLICT (k) DO UPDATE SET n = t.n + excluded.n"
NEW = "INSERT INTO t VALUES (%s, %s)"


def step(letter: str, key: int, state: State) -> Rejected | None:
    """Run one step of an op."""
    match letter:
        case "p":  # its result is known, so it is sent ahead
            assert state.execute(PUT, [key, 1]) == 1
        case "f":  # does not fit, which rejects the op, however late that is noticed
            state.execute(PUT, [key, 2**40])
        case "h":  # the same, and the callback hides it
            with suppress(VirtualchainError):
                state.execute(PUT, [key, 2**40])
        case "d":
            state.execute("DELETE FROM t WHERE k = %s", [key])
        case "q":
            state.query("SELECT k, n FROM t ORDER BY k")
        case "r":
            return Rejected("on purpose")
        case "u":  # breaks a constraint if there is a row, which halts the app
            state.execute(NEW, [key, 1])
        case "x":
            raise KeyError("on purpose")
    return None


def an_app() -> App:
    """Make an app whose ops are steps; the last rows that an op saw are part of it."""
    app = App(
        "steps",
        magic=b"st",
        projections="CREATE TABLE t (k integer PRIMARY KEY, n integer NOT NULL CHECK (n < 1000))",
    )

    def run(op: dict[str, Any], state: State) -> Rejected | bool:
        for place, letter in enumerate(op["steps"]):
            result = step(letter, (place + op["key"]) % 5, state)
            if result is not None:
                return result
        return True

    def commit(op: dict[str, Any], state: State) -> Rejected | None:
        op["seen"] = str(state.query("SELECT k, n FROM t ORDER BY k"))
        result = run(op, state)
        return result if isinstance(result, Rejected) else None

    def parse(payload: bytes) -> dict[str, Any]:
        return {"key": payload[0] - 48, "steps": payload[1:].decode()}

    app.add(b"o", parse=parse, commit=commit)
    app.add(b"c", parse=parse, check=run)
    return app


def mine(node: FakeNode, dice: random.Random, letters: str, blocks: int) -> None:
    """Mine blocks of random ops."""
    for _ in range(blocks):
        payloads = [
            dice.choice((b"sto", b"stc"))
            + b"%d" % dice.randrange(5)
            + "".join(dice.choices(letters, k=dice.randrange(6))).encode()
            for _ in range(dice.choice((0, 1, 2, 6)))
        ]
        node.mine([node.send(payload) for payload in payloads])


@pytest.fixture
def carefully(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after whose call nothing is sent ahead."""
    return lambda: monkeypatch.setattr(machine, "NO_CARE", FULL_CARE)


@pytest.mark.parametrize("seed", range(3))
def test_verdicts_are_those_of_one_at_a_time(
    fake_node: FakeNode, fresh_index: Callable[..., str], carefully: Callable[[], None], seed: int
) -> None:
    """Whatever is rejected, wherever that is noticed, everything that is recorded is the same."""
    mine(fake_node, random.Random(seed), "ppppppfhdqqr", 25)
    ahead = deployment(fresh_index(an_app()))
    carefully()
    assert deployment(fresh_index(an_app())) == ahead


@pytest.mark.parametrize("letters", ["ppu", "ppx", "pux", "pfux"])
def test_halts_are_those_of_one_at_a_time(
    fake_node: FakeNode,
    run: Run,
    fresh_index: Callable[..., str],
    carefully: Callable[[], None],
    letters: str,
) -> None:
    """The same block, op and error are named."""
    mine(fake_node, random.Random(1), letters, 12)
    with pytest.raises(AppHalted) as ahead:
        run(an_app())
    carefully()
    with pytest.raises(AppHalted) as one_at_a_time:
        fresh_index(an_app())
    names = ("block_id", "callback", "txid", "opcode", "op", "line", "error")
    assert {name: ahead.value.record[name] for name in names} == {
        name: one_at_a_time.value.record[name] for name in names
    }


@pytest.mark.parametrize(
    ("refused", "savepoints"),
    [((), 0), ((30,), 1), ((10, 55), 11), ((0, 1, 2), 119)],
)
def test_only_calls_that_need_one_have_a_savepoint(
    fake_node: FakeNode,
    fresh_index: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    refused: tuple[int, ...],
    savepoints: int,
) -> None:
    """The first call that must be undone has one, and every call from the second one on."""
    app = App("refusals", magic=b"st", projections="CREATE TABLE t (k integer PRIMARY KEY, n integer)")

    def commit(op: dict[str, Any], state: State) -> Rejected | None:
        state.execute("INSERT INTO t VALUES (%s, 1)", [op["key"]])
        return Rejected("on purpose") if op["key"] in refused else None

    app.add(b"o", parse=lambda payload: {"key": int(payload)}, commit=commit)
    fake_node.mine([fake_node.send(b"sto%d" % key) for key in range(60)])
    made: list[int] = []
    savepoint = Pipeline.savepoint

    def counted(pipeline: Pipeline) -> Any:
        made.append(1)
        return savepoint(pipeline)

    monkeypatch.setattr(Pipeline, "savepoint", counted)
    url = fresh_index(app)
    with psycopg.connect(url) as connection:
        keys = [row[0] for row in connection.execute("SELECT k FROM refusals__1.t ORDER BY k")]
    assert keys == [key for key in range(60) if key not in refused]
    assert len(made) == savepoints


def test_an_op_that_fails_to_parse_late_is_shown_as_its_payload(fake_node: FakeNode, run: Run) -> None:
    """The statement of its parse fails later, when there seems to be an op already."""
    app = App("early", magic=b"st", projections="CREATE TABLE t (k integer PRIMARY KEY, n integer)")

    def parse(payload: bytes, state: State) -> dict[str, Any]:
        state.execute(NEW, [int(payload), 1])
        return {"key": int(payload)}

    app.add(b"o", parse=parse)
    fake_node.mine([fake_node.send(payload) for payload in (b"sto1", b"sto2", b"sto1")])
    with pytest.raises(AppHalted) as halted:
        run(app)
    assert halted.value.record["callback"] == "db_parse"
    assert halted.value.record["op"] == "with the payload 31"


@pytest.mark.parametrize("name", ["find_payload", "db_keys"])
def test_a_fault_that_passes_halts_nobody(
    fake_node: FakeNode, run: Run, query: Query, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Such a fault comes out of any callback that asks for a consensus hash."""
    monkeypatch.setattr(indexer, "PAUSES", (0.02, 0.05))
    faults = [psycopg.errors.QueryCanceled("on purpose")]

    def first_time(here: str) -> None:
        if here == name and faults and current_thread() is main_thread():  # not while blocks are fetched
            raise faults.pop()

    def find_payload(outputs: Sequence[Mapping[str, Any]]) -> Payloads:
        first_time("find_payload")
        return last_op_return(outputs)

    def keys(op: dict[str, Any]) -> dict[str, list[object]]:
        first_time("db_keys")
        return {"t": [op["key"]]}

    app = App("asks", magic=b"st", projections="CREATE TABLE t (k integer PRIMARY KEY, n integer)")
    app.find_payload = find_payload
    app.add(b"o", parse=lambda payload: {"key": int(payload)}, keys=keys)
    fake_node.mine([fake_node.send(b"sto1")])
    assert run(app) == fake_node.height
    assert not faults
    assert query("SELECT status FROM virtualchain.apps") == [{"status": "running"}]

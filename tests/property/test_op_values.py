"""Whatever an app puts into an op ends as an op, a rejection, or a halt that says what is wrong."""

import datetime as dt
import fractions
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from decimal import Decimal
from enum import IntEnum, StrEnum
from pathlib import PurePosixPath
from typing import Any

import psycopg
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.unit.bitcoin.building import op_return, transaction
from virtualchain import App, Boolean, Hex, Integer, List, Rejected, Text
from virtualchain.app.declarations import read_contract
from virtualchain.engine import judge as judging
from virtualchain.engine.candidates import candidates_of
from virtualchain.engine.care import FULL_CARE
from virtualchain.engine.judge import Verdicts
from virtualchain.engine.lookups import Lookups
from virtualchain.errors import AppHalted
from virtualchain.model import Block, Input, Output
from virtualchain.store.log import LogRows
from virtualchain.testing.database import DatabaseServer

BLOCK = Block(5, "ab" * 32, "cd" * 32, "ef" * 32, 1_600_000_000, 0x207FFFFF, bytes(80))
TYPES = {
    "text": Text(6),
    "n": Integer(-3, 2**70),
    "hash": Hex(2),
    "flag": Boolean(),
    "list": List(Integer(0, 9)),
}


class Color(IntEnum):
    """An int with a name."""

    RED = 1


class Word(StrEnum):
    """Text with a name."""

    ONE = "one"


class Secretive:
    """An object that cannot be printed."""

    def __repr__(self) -> str:
        """Fail."""
        raise RuntimeError("never")


def endless() -> list[Any]:
    """Make a list that contains itself."""
    made: list[Any] = []
    made.append(made)
    return made


ANY_TEXT = st.text(st.characters(exclude_categories=()))
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, 2**64, -(2**63) - 1, 2**2048 - 1, 2**2048, -(2**3000)]),
    st.floats(),
    ANY_TEXT,
    st.binary().map(bytes.hex),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner) | st.lists(st.integers()),
    max_leaves=8,
)
FOREIGN: st.SearchStrategy[Any] = st.one_of(
    st.binary(),
    st.binary().map(bytearray),
    st.complex_numbers(),
    st.decimals(),
    st.fractions(),
    st.datetimes(timezones=st.none() | st.just(dt.UTC)),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.ip_addresses(),
    st.builds(endless),
    st.builds(threading.Lock),
    st.sampled_from(
        [
            Decimal,
            Color.RED,
            Word.ONE,
            object(),
            ...,
            NotImplemented,
            range(3),
            len,
            PurePosixPath("/"),
        ]
    ),
    st.builds(iter, st.just([1])),
    st.just(Rejected("not this")),
)
HASHABLE = st.none() | st.integers() | ANY_TEXT | st.binary() | st.fractions() | st.dates()
ANY = st.recursive(
    SCALARS | FOREIGN,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(HASHABLE, inner),
        st.dictionaries(ANY_TEXT, inner).map(OrderedDict),
        st.sets(HASHABLE),
        st.frozensets(HASHABLE),
    ),
    max_leaves=8,
)
FITTING: dict[str, st.SearchStrategy[Any]] = {
    "text": st.text("aé€", max_size=2),
    "n": st.integers(-3, 2**70) | st.just(Color.RED),
    "hash": st.binary(max_size=2).map(bytes.hex),
    "flag": st.booleans(),
    "list": st.lists(st.integers(0, 9)),
}


def ops(values: st.SearchStrategy[Any], names: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[Any, Any]]:
    """Generate ops in which some or all typed fields fit, and others have any value or are missing."""
    loose = {name: fitting | values for name, fitting in FITTING.items()}
    return st.one_of(
        st.fixed_dictionaries({}, optional=loose),
        st.builds(
            lambda op, more: {**more, **op}, st.fixed_dictionaries(FITTING), st.dictionaries(names, values)
        ),
        st.dictionaries(names | st.sampled_from(sorted(TYPES)), values),
    )


class NoState:
    """A state without a database, whose callbacks get None."""

    db_state = None
    is_transactional = False
    may_end_in_flight = False
    is_aborted = False
    broken = None
    number = None

    def enter(self, block: Block) -> None:
        """Do nothing."""

    def begin_call(self, call: int, *, is_careful: bool) -> None:
        """Do nothing."""

    def leave(self, *, in_flight: bool) -> None:
        """Do nothing."""

    def savepoint(self) -> AbstractContextManager[object]:
        """Undo nothing."""
        return nullcontext()

    def failure(self) -> None:
        """Return None: no statement can have failed."""

    def undo(self) -> None:
        """Do nothing."""

    def wrote(self) -> bool:
        """Return False: nothing can be written."""
        return False

    def finish_call(self) -> None:
        """Do nothing."""

    def end_call(self, candidate: object) -> None:
        """Do nothing."""


def judge(op: Any, fields: Any, step: str) -> Verdicts:
    """Judge a block with one input, for which an app makes this op at a step."""
    app = App("values", magic=b"va")
    if step == "parse":
        app.add(b"o", parse=lambda payload: op, fields=fields)
    else:
        parsed = {"text": "a", "n": 1, "hash": "", "flag": True, "list": []}
        app.add(b"o", parse=lambda payload: parsed, commit=lambda op_, state: op, fields=fields)
    script = op_return(b"vao")
    output = Output(0, 0, script.hex(), "nulldata", ())
    item = Input(5, 1, "01" * 32, transaction(script), (b"va",), (), (output,), 0, b"")
    state: Any = NoState()
    contract = read_contract(app)
    candidates, _ = candidates_of(contract, BLOCK, [item])
    return judging.judge(contract, state, BLOCK, candidates, FULL_CARE, state, Lookups(state, 24, 4))


@pytest.fixture(scope="module")
def connection(database_server: DatabaseServer) -> Any:
    """Connect to a database that stores the ops."""
    url = database_server.clone()
    with psycopg.connect(url, autocommit=True) as opened:
        yield opened
    database_server.drop(url)


def store(connection: psycopg.Connection, verdicts: Verdicts) -> None:
    """Store all that a verdict records, as the log does, and compare what was stored."""
    for *_, fields, canonical, _ in rows(verdicts.ops):
        serialized = [bytes.fromhex(each) for each in canonical]
        row = connection.execute(
            "SELECT %s::jsonb = %s::jsonb, %s::bytea[]", [Jsonb(fields), Jsonb(fields), serialized]
        ).fetchone()
        assert row == (True, serialized)
    for *_, reason, _ in rows(verdicts.rejections):
        assert connection.execute("SELECT %s::text", [reason]).fetchone() == (reason,)


def rows(kept: LogRows) -> list[list[Any]]:
    """Return rows of the log as they are sent."""
    sent: list[list[Any]] = json.loads(f"[{','.join(kept.texts())}]")
    return sent


DECLARED = {"typed": TYPES, "named": list(TYPES), "one": ["text"], "unhashed": [], "undeclared": None}


@settings(deadline=None, max_examples=80)
@given(
    op=ops(ANY, HASHABLE) | ANY,
    fields=st.sampled_from(sorted(DECLARED)),
    step=st.sampled_from(["parse", "commit"]),
)
@example(op={1: 2}, fields="undeclared", step="parse")
@example(op={1: 2, "a": 1}, fields="undeclared", step="commit")
@example(op={"text": "a", "list": endless()}, fields="named", step="commit")
@example(op={"text": fractions.Fraction(1)}, fields="one", step="commit")
def test_any_op_is_accepted_rejected_or_halts_with_a_name(
    connection: psycopg.Connection, op: Any, fields: str, step: str
) -> None:
    """What is accepted or rejected can be stored, and a halt names the callback and the error."""
    try:
        verdicts = judge(op, DECLARED[fields], step)
    except AppHalted as halted:
        record = halted.record
        assert record["callback"] == f"db_{step}" or "has no" in str(record["error"])
        assert str(record["error"]).startswith(("InvalidOp: ", f"TypeError: db_{step} returned"))
        assert not isinstance(op, dict) or "TypeError" not in str(record["error"])
        return
    assert len(verdicts.ops) + len(verdicts.rejections) == 1
    store(connection, verdicts)


@pytest.mark.parametrize("fields", sorted(DECLARED))
@pytest.mark.parametrize("step", ["parse", "commit"])
@pytest.mark.parametrize("place", ["op", "field", "list", "ops"])
def test_an_object_that_cannot_be_printed_halts_with_a_name(fields: str, step: str, place: str) -> None:
    """No message asks an app's object for its text."""
    value = Secretive()
    op = {"op": value, "field": {"text": value}, "list": {"text": [value]}, "ops": [value]}[place]
    with pytest.raises(AppHalted, match=f"db_{step} failed with (InvalidOp: field 'text'|TypeError)"):
        judge(op, DECLARED[fields], step)


@settings(deadline=None, max_examples=80)
@given(op=ops(JSON, ANY_TEXT), step=st.sampled_from(["parse", "commit"]))
def test_no_json_halts_an_app_with_types(
    connection: psycopg.Connection, op: dict[str, Any], step: str
) -> None:
    """It is an op if it can be stored and every field fits, judged here by other means, or a rejection."""
    assume(step == "parse" or set(TYPES) <= set(op))
    verdicts = judge(dict(op), TYPES, step)
    store(connection, verdicts)
    assert [row[2] for row in rows(verdicts.rejections)] == ([] if fits(op) else [step])
    if verdicts.ops:
        texts = [op["text"], str(int(op["n"])), op["hash"], str(op["flag"]), str(op["list"])]
        pieces = [f"{len(text.encode())}:{text}" for text in texts]
        assert rows(verdicts.ops)[0][-2] == [f"o:{','.join(pieces)}".encode().hex()]


def fits(op: dict[str, Any]) -> bool:
    """Return whether an op can be stored and has every typed field with a value of its type."""
    return (
        set(TYPES) <= set(op)
        and all(map(is_storable, scalars(op)))
        and (type(op["text"]), type(op["hash"]), type(op["flag"]), type(op["list"])) == (str, str, bool, list)
        and len(op["text"].encode()) <= 6
        and op["hash"]
        in {"", *(number.to_bytes(size, "big").hex() for size in (1, 2) for number in range(256**size))}
        and type(op["n"]) in {int, Color}
        and op["n"] + 3 in range(2**70 + 4)
        and all(type(item) is int and item in range(10) for item in op["list"])
    )


def scalars(value: object) -> Iterator[object]:
    """Yield what lists and dicts hold, keys included."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from scalars(item)
    elif isinstance(value, list):
        for item in value:
            yield from scalars(item)
    else:
        yield value


def is_storable(value: object) -> bool:
    """Return whether jsonb can hold a scalar on every node."""
    if isinstance(value, str):
        return value.isprintable() or not any(
            ord(letter) == 0 or 0xD800 <= ord(letter) < 0xE000 for letter in value
        )
    return not isinstance(value, float | int) or abs(value) < (
        float("inf") if isinstance(value, float) else 2**2048
    )

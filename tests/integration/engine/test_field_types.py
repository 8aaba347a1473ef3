"""Typed fields and the author's errors, through the whole engine: who is rejected, and who is halted."""

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from tests.integration.conftest import Query, Run
from virtualchain import App, Boolean, Hex, Integer, List, State, StateEngine, Text, parse_json
from virtualchain.testing import FakeNode

TYPES = {
    "text": Text(12),
    "n": Integer(-5, 5),
    "hash": Hex(4),
    "flag": Boolean(),
    "terms": List(Integer(0, 2**64)),
}
GOOD = {
    "flag": True,
    "text": "grüß",
    "n": -5,
    "hash": "00ff",
    "terms": [1, 2**63],
    "more": {"not": ["typed"]},
}


def typed(name: str = "typed", **steps: Any) -> App:
    """Make an app whose ops are the JSON that strangers send, with types for five of their fields."""
    app = App(name, magic=b"ty")
    app.add(b"o", **{"parse": parse_json, "fields": TYPES, **steps})
    return app


def mine(node: FakeNode, *ops: object) -> None:
    """Mine a block with an input for each op."""
    bodies = [op if isinstance(op, bytes) else json.dumps(op).encode() for op in ops]
    node.mine([node.send(b"tyo" + body) for body in bodies])


def rejections(query: Query, app: str = "typed") -> list[tuple[str, str]]:
    """Read step and reason of an app's rejections."""
    rows = query(
        "SELECT step, reason FROM virtualchain.rejections WHERE app = %s ORDER BY block_id, txindex", [app]
    )
    return [(row["step"], row["reason"]) for row in rows]


def serialized(query: Query, app: str = "typed") -> list[list[bytes]]:
    """Read the serialized ops of an app."""
    rows = query("SELECT canonical FROM virtualchain.ops WHERE app = %s ORDER BY block_id, vtxindex", [app])
    return [row["canonical"] for row in rows]


def test_what_does_not_fit_is_rejected_at_parse(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Types are checked, the dict's order is that of hashing, and other fields are kept as they are."""
    bad: list[tuple[str, object, str]] = [
        ("text", "grüß dich, Welt", "field 'text': 17 bytes; it must be text of at most 12 bytes in UTF-8"),
        ("text", ["a"], "field 'text': a value of type list; it must be text of at most 12 bytes in UTF-8"),
        (
            "text",
            None,
            "field 'text': a value of type NoneType; it must be text of at most 12 bytes in UTF-8",
        ),
        ("text", "a\0", "field 'text' contains a NUL character"),
        ("text", "\ud800", "field 'text' contains a lone surrogate"),
        ("n", 6, "field 'n': out of range; it must be an int from -5 to 5"),
        ("n", True, "field 'n': a value of type bool; it must be an int from -5 to 5"),
        ("n", 1.0, "field 'n': a value of type float; it must be an int from -5 to 5"),
        ("hash", "FF", "field 'hash': not lower-case hex, two digits a byte; it must be at most 4 bytes in "),
        ("flag", 0, "field 'flag': a value of type int; it must be True or False"),
        (
            "terms",
            [1, -1],
            "field 'terms': item 1: out of range; it must be a list; each item must be an int ",
        ),
        ("terms", {"1": 1}, "field 'terms': a value of type dict; it must be a list; "),
        ("more", "\0", "field 'more' contains a NUL character"),
    ]
    for name in TYPES:
        mine(fake_node, {key: value for key, value in GOOD.items() if key != name})
    mine(fake_node, GOOD, *({**GOOD, name: value} for name, value, _ in bad))
    run(typed())
    missing, others = rejections(query)[: len(TYPES)], rejections(query)[len(TYPES) :]
    assert missing == [
        ("parse", f"field '{name}' is missing; it must be {kind}") for name, kind in TYPES.items()
    ]
    assert len(others) == len(bad)
    for (step, reason), (_, _, expected) in zip(others, bad, strict=True):
        assert (step, reason[: len(expected)]) == ("parse", expected)
    assert serialized(query) == [["o:6:grüß,2:-5,4:00ff,4:True,25:[1, 9223372036854775808L]".encode()]]
    assert query("SELECT fields FROM virtualchain.ops") == [{"fields": GOOD}]


def test_types_start_at_their_activation_height(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Before it the old rules take what the new ones reject."""
    start = fake_node.height + 1
    app = App("typed", magic=b"ty")
    app.add(b"o", parse=parse_json, fields=["text"])
    app.add(b"o", parse=parse_json, fields={"n": Integer(0, 5), "text": Text(3)}, from_block=start + 1)
    op = {"text": "long text", "n": 9}
    mine(fake_node, op)
    mine(fake_node, op, {"text": "abc", "n": 5})
    run(app)
    assert serialized(query) == [[b"o:9:long text"], [b"o:1:5,3:abc"]]
    assert [step for step, _ in rejections(query)] == ["parse"]


def test_a_plain_implementation_may_have_types(fake_node: FakeNode, run: Run, query: Query) -> None:
    """`get_opfields` returns names for one opcode and types for another."""
    module = SimpleNamespace(
        get_virtual_chain_name=lambda: "typed",
        get_virtual_chain_version=lambda: "1",
        get_first_block_id=lambda: 101,
        get_magic_bytes=lambda: "ty",
        get_opcodes=lambda: "op",
        get_opfields=lambda: {"o": {"n": Integer(0, 1), "text": Text(1)}, b"p": ["text"]},
        db_parse=lambda *arguments: parse_json(arguments[2]),
        db_check=lambda *arguments: True,
        db_commit=lambda *arguments: None,
    )
    good, bad = b'{"text": "a", "n": 1}', b'{"text": "ab", "n": 1}'
    fake_node.mine([fake_node.send(b"ty" + code + body) for code in (b"o", b"p") for body in (good, bad)])
    run(module)
    assert serialized(query) == [[b"o:1:1,1:a"], [b"p:1:a"], [b"p:2:ab"]]
    assert len(rejections(query)) == 1


def test_what_a_commit_makes_must_fit_as_well(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A sum that leaves its range rejects the input, whose writes are undone; a missing field halts."""
    tables = "CREATE TABLE sums (key integer PRIMARY KEY, value integer NOT NULL)"

    def commit(op: dict[str, Any], state: State) -> Any:
        row = state.one("SELECT value FROM sums")
        op["n"] += 0 if row is None else row["value"]
        state.execute("DELETE FROM sums")
        state.execute("INSERT INTO sums VALUES (1, %s)", [op["n"]])
        return {"text": op["text"]} if op["text"] == "drop" else None

    app = App("typed", magic=b"ty", projections=tables)
    app.add(b"o", parse=parse_json, commit=commit, fields={"n": Integer(0, 5), "text": Text(9)})
    other = typed("other", fields=["text"])
    mine(fake_node, *({"n": n, "text": ""} for n in (3, 3, 2, 1)))
    run(app, other)
    reason = "field 'n': out of range; it must be an int from 0 to 5"
    assert rejections(query) == [("commit", reason), ("commit", reason)]
    assert query("SELECT value FROM typed.sums") == [{"value": 5}]
    mine(fake_node, {"n": 0, "text": "drop"})
    run(app, other)
    (row,) = query("SELECT name, error FROM virtualchain.apps WHERE status = 'halted'")
    assert (row["name"], row["error"]["callback"]) == ("typed", "db_commit")
    assert row["error"]["error"].startswith("InvalidOp: op 'o' has no n: every hashed field is required")


UNHASHABLE: dict[str, tuple[Any, str]] = {
    "bytes": (b"raw", "write it as text, such as value.hex()"),
    "tuple": ((1, 2), "make it a list"),
    "bytes in a list": ([1, b"raw"], "write it as text"),
    "tuple in a dict": ({"a": (1,)}, "make it a list"),
}
UNSTORABLE: dict[str, tuple[Any, str]] = {
    "decimal": (Decimal("1.5"), "count the smallest unit as an int, or write it as text"),
    "datetime": (dt.datetime(2009, 1, 3, tzinfo=dt.UTC), "seconds in an int"),
    "interval": (dt.timedelta(1), "seconds in an int"),
    "set": ({1, 2}, "sorted(value)"),
    "frozenset": (frozenset("a"), "sorted(value)"),
    "uuid": (UUID(int=5), "make it text, an int or a list of ints"),
    "object": (object(), "make it text, an int or a list of ints"),
    "class": (Decimal, "make it text, an int or a list of ints"),
    "set in a list": ([{1}], "sorted(value)"),
}


def author_app(name: str, step: str, value: object, fields: Any) -> App:
    """Make an app that puts a value into the field `v` at a step."""

    def commit(op: dict[str, Any], state: State) -> None:
        op["v"] = value

    app = App(name, magic=b"ty")
    if step == "parse":
        app.add(b"o", parse=lambda payload: {"v": value}, fields=fields)
    else:
        app.add(b"o", parse=lambda payload: {"v": 0}, commit=commit, fields=fields)
    return app


def test_what_only_an_author_can_get_wrong_halts_the_app_at_the_first_input(
    fake_node: FakeNode, database_url: str, query: Query
) -> None:
    """Each app is halted alone, with the callback, the field and the remedy; others take the input."""
    apps = {}
    hashed: dict[str, Any] = {"named": ["v"], "unnamed": None, "typed": {"v": Integer(0, 9)}}
    for step in ("parse", "commit"):
        for kind, (value, remedy) in (UNHASHABLE | UNSTORABLE).items():
            for how, fields in (hashed | ({"unhashed": []} if kind in UNSTORABLE else {})).items():
                name = f"{step} {how} {kind}"
                apps[name] = (author_app(name, step, value, fields), f"db_{step}", remedy)
    mine(fake_node, GOOD)
    mine(fake_node, GOOD)
    good = [
        typed(),
        *(author_app(f"fine {kind}", "commit", value, []) for kind, (value, _) in UNHASHABLE.items()),
    ]
    everything = [*(app for app, _, _ in apps.values()), *good]
    with StateEngine(*everything, database=database_url, source=fake_node.url, confirmations=0) as engine:
        last = engine.build()
        halted = engine.halted()
    assert set(halted) == set(apps)
    for name, (_, callback, remedy) in apps.items():
        record = halted[name].record
        assert (record["block_id"], record["callback"]) == (last - 1, callback), name
        assert str(record["error"]).startswith("InvalidOp: field 'v': a "), name
        assert remedy in str(record["error"]), name
        assert remedy in str(halted[name]), name
    ops = query("SELECT app, count(*) AS n FROM virtualchain.ops GROUP BY app ORDER BY app")
    assert [(row["app"], row["n"]) for row in ops] == sorted((app.name, 2) for app in good)
    assert query("SELECT app FROM virtualchain.rejections") == []


@pytest.mark.parametrize("fields", [["text", "gone"], ["virtualchain_txid"]])
def test_a_field_that_no_op_has_halts_the_app(
    fake_node: FakeNode, run: Run, query: Query, fields: list[str]
) -> None:
    """The list of fields is the author's, so it halts the app at the first input, and names what helps."""
    mine(fake_node, GOOD)
    run(typed(fields=fields), typed("other"))
    (row,) = query("SELECT name, error FROM virtualchain.apps WHERE status = 'halted'")
    assert (row["name"], row["error"]["callback"]) == ("typed", "db_commit")
    assert row["error"]["error"].startswith(f"InvalidOp: op 'o' has no {fields[-1]}: ")
    assert "declare the fields with types" in row["error"]["error"]


def parse_ignoring_errors(payload: bytes) -> Any:
    """Parse JSON as an author does who knows only Python's own parser."""
    return json.loads(payload)


@pytest.mark.parametrize("parse", [parse_json, parse_ignoring_errors], ids=["ours", "Python's"])
def test_no_json_of_a_stranger_halts_an_app_without_types(
    fake_node: FakeNode, run: Run, query: Query, parse: Callable[[bytes], Any]
) -> None:
    """Where text was meant there is a list, a dict, a number that is none, or more than can be stored."""
    bodies = [
        b'{"text": {"a": 1}}',
        b'{"text": ["a"]}',
        b'{"text": [1, [2]]}',
        b'{"text": "\\u0000"}',
        b'{"text": "\\ud800"}',
        b'{"text": NaN}',
        b'{"text": 1e999}',
        b'{"text": 1' + b"0" * 700 + b"}",
        b'{"text": "", "\\u0000": 1}',
        b'{"text": "", "more": ' + b"[" * 70 + b"]" * 70 + b"}",
    ]
    mine(fake_node, *bodies, b'{"text": "good"}')
    run(typed(parse=parse, fields=["text"]))
    assert [step for step, _ in rejections(query)] == ["parse"] * len(bodies)
    assert serialized(query) == [[b"o:4:good"]]

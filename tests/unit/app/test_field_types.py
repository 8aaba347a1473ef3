"""The types of fields: which values fit, which declarations are errors, and what enters the fingerprint."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import pytest

from tests.unit.app.test_contract import declare
from virtualchain import App, Boolean, Hex, Integer, List, Text
from virtualchain.app.declarations import read_contract
from virtualchain.app.field_types import FieldType, read_fields, require_types
from virtualchain.app.fields import LARGEST
from virtualchain.errors import InvalidApp, InvalidOp, Unserializable


class Color(IntEnum):
    """An int with a name."""

    RED = 1


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Integer(-3, 5), -3),
        (Integer(-3, 5), 5),
        (Integer(0, 1), Color.RED),
        (Integer(1 - 2**2048, 2**2048 - 1), 2**2048 - 1),
        (Text(4), ""),
        (Text(4), "ab\n "),
        (Text(4), "éé"),
        (Text(4), "\U0001f600"),
        (Hex(2), ""),
        (Hex(2), "00ff"),
        (Boolean(), False),
        (List(Integer(0, 9)), []),
        (List(Integer(0, 9)), [9, 0, 9]),
    ],
)
def test_a_value_that_fits_is_taken(kind: FieldType, value: object) -> None:
    """Bounds are inclusive, and lengths are those in bytes."""
    require_types({"field": value}, {"field": kind})


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        (Integer(-3, 5), -4, "out of range; it must be an int from -3 to 5"),
        (Integer(-3, 5), 6, "out of range"),
        (Integer(0, 9), 2**4_000, "out of range"),
        (Integer(0, 1), True, "a value of type bool; it must be an int"),
        (Integer(0, 1), 1.0, "a value of type float;"),
        (Integer(0, 1), "1", "a value of type str;"),
        (Integer(0, 1), None, "a value of type NoneType;"),
        (Integer(0, 1), [1], "a value of type list;"),
        (Text(4), "abcde", "5 bytes; it must be text of at most 4 bytes in UTF-8"),
        (Text(4), "ééé", "6 bytes"),
        (Text(4), "a\x00", "a NUL character"),
        (Text(4), "\ud800", "a lone surrogate"),
        (Text(4), 5, "a value of type int; it must be text"),
        (Text(4), {"a": "b"}, "a value of type dict;"),
        (Text(4), None, "a value of type NoneType;"),
        (Hex(2), "00FF", "not lower-case hex"),
        (Hex(2), "0", "not lower-case hex"),
        (Hex(2), "0x", "not lower-case hex"),
        (Hex(2), " 00", "not lower-case hex"),
        (Hex(2), "00\n", "not lower-case hex"),
        (Hex(2), "\u0660\u0660", "not lower-case hex"),
        (Hex(2), "000000", "3 bytes; it must be at most 2 bytes in lower-case hex"),
        (Hex(2), 10, "a value of type int;"),
        (Boolean(), 1, "a value of type int; it must be True or False"),
        (Boolean(), "true", "a value of type str;"),
        (Boolean(), None, "a value of type NoneType;"),
        (List(Integer(0, 9)), 5, "a value of type int; it must be a list"),
        (List(Integer(0, 9)), "123", "a value of type str;"),
        (List(Integer(0, 9)), [0, 10], "item 1: out of range"),
        (List(Integer(0, 9)), [False], "item 0: a value of type bool"),
        (List(Integer(0, 9)), [[]], "item 0: a value of type list"),
        (List(Integer(0, 9)), {"0": 0}, "a value of type dict;"),
    ],
)
def test_json_that_does_not_fit_is_the_strangers(kind: FieldType, value: object, why: str) -> None:
    """A stranger can have written each of these values, so they are no error of the app's."""
    with pytest.raises(Unserializable, match=f"^field 'field': .*{why}") as raised:
        require_types({"field": value}, {"field": kind})
    assert not isinstance(raised.value, InvalidOp)


@pytest.mark.parametrize("kind", [Integer(0, 1), Text(9), Hex(9), Boolean(), List(Integer(0, 1))])
@pytest.mark.parametrize("value", [b"00", (1,), {1}, object(), [b"x"], {"a": (1,)}, 1j])
def test_what_only_an_app_can_make_is_the_apps(kind: FieldType, value: object) -> None:
    """No JSON holds such a value, also not inside a list or a dict."""
    with pytest.raises(InvalidOp, match=r"^field 'field': a .* does not fit, it must be"):
        require_types({"field": value}, {"field": kind})


def test_a_missing_field_does_not_fit() -> None:
    """It is named with what it must be; fields without a type are not looked at."""
    require_types({"a": 1, "b": object()}, {"a": Integer(0, 1)})
    with pytest.raises(Unserializable, match=r"^field 'a' is missing; it must be an int from 0 to 1$"):
        require_types({"b": 1}, {"a": Integer(0, 1)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Integer(5, 4), "low is above high"),
        (lambda: Integer(False, 4), "a bound of Integer is a bool"),
        (lambda: Integer(0, 1.5), "a bound of Integer is a float"),  # type: ignore[arg-type]
        (lambda: Integer(0, 2**2048), "up to 2048 bits"),
        (lambda: Text(0), "most_bytes must be an int from 1"),
        (lambda: Text(True), "most_bytes must be"),
        (lambda: Text(LARGEST + 1), "most_bytes must be"),
        (lambda: Hex("5"), "most_bytes must be"),  # type: ignore[arg-type]
        (lambda: List(Text(5)), "a hashed list has ints only"),  # type: ignore[arg-type]
        (lambda: List(Integer), "a hashed list has ints only"),  # type: ignore[arg-type]
    ],
)
def test_types_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    """The error is raised where the type is written."""
    with pytest.raises(InvalidApp, match=message):
        make()


@pytest.mark.parametrize(
    "fields",
    [
        "text",
        b"text",
        5,
        [1],
        [("a", Integer(0, 1))],
        {"b", "a"},
        frozenset("a"),
        {"a": Text},
        {"a": int},
        {1: 2},
    ],
)
def test_fields_that_are_neither_names_nor_types_are_refused(fields: Any) -> None:
    """A str would be a list of letters, a set has another order on every node, and a class is not a type."""
    with pytest.raises(InvalidApp, match=r"app x: fields=.* of opcode b'a': "):
        App("x", magic=b"x").add(b"a", parse=lambda payload: {}, fields=fields)
    with pytest.raises(InvalidApp, match=r"get_opfields returns .* for b'a': "):
        declare(get_opfields={b"a": fields})


def test_names_and_types_keep_their_order() -> None:
    """The order of the dict is that of hashing."""
    kinds = {"z": Integer(0, 1), "a": Text(5)}
    assert list(read_fields(kinds)) == ["z", "a"]
    assert read_fields(iter(["z", "a", "z"])) == ("z", "a", "z")
    contract = declare(get_opfields={"a": kinds})
    assert contract.field_rules(0, b"a").hashed_fields({}) == ("z", "a")
    assert contract.field_rules(0, b"a").types == kinds
    assert contract.field_rules(0, b"b").types == {}


def test_types_change_at_their_activation_height() -> None:
    """Before it, the older declaration applies, be it names, types or nothing."""
    app = App("x", magic=b"x")
    app.add(b"a", parse=lambda payload: {})
    app.add(b"a", parse=lambda payload: {}, fields={"b": Text(5), "a": Boolean()}, from_block=10)
    app.add(b"a", parse=lambda payload: {}, fields=["a"], from_block=20)
    contract = read_contract(app)
    op = {"c": 1, "a": 1, "b": 1}
    assert [list(contract.field_rules(block, b"a").hashed_fields(op)) for block in (9, 10, 19, 20)] == [
        ["a", "b", "c"],
        ["b", "a"],
        ["b", "a"],
        ["a"],
    ]
    assert [len(contract.field_rules(block, b"a").types) for block in (9, 10, 19, 20)] == [0, 2, 2, 0]


def test_types_are_part_of_the_fingerprint() -> None:
    """Every bound counts, and an app without types keeps the fingerprint that it had."""

    def fingerprint(fields: Any, later: Any = None) -> str:
        app = App("x", magic=b"x")
        app.add(b"a", parse=lambda payload: {}, fields=fields)
        if later is not None:
            app.add(b"a", parse=lambda payload: {}, fields=later, from_block=9)
        return read_contract(app).fingerprint()

    declarations: list[Any] = [
        ["n"],
        {"n": Integer(0, 5)},
        {"n": Integer(0, 6)},
        {"n": Integer(-1, 5)},
        {"n": Text(5)},
        {"n": Hex(5)},
        {"n": Boolean()},
        {"n": List(Integer(0, 5))},
        {"n": List(Integer(0, 6))},
        {"n": Integer(0, 5), "m": Boolean()},
        {"m": Boolean(), "n": Integer(0, 5)},
    ]
    seen = [fingerprint(fields) for fields in declarations]
    seen += [fingerprint(["n"], later) for later in declarations]
    assert len(set(seen)) == len(seen)
    assert fingerprint({"n": Integer(0, 5)}) == fingerprint({"n": Integer(0, 5)})
    # Values of the release before types existed.
    assert fingerprint(["n"]) == "decd878ccf690e5695de58a9274a8cb6bbc303a57683d4e432bb49bdb2b2f003"
    assert (
        fingerprint(["n"], ["n", "m"]) == "0448b93dee26aa445136b87c7f5d5432e4fa68510a629abf1438b714cdbba3fa"
    )

"""What an op's fields may contain, and how the JSON of strangers is read."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from virtualchain.app.fields import LARGEST, all_to_json, legible, opcode_text, parse_json, to_json
from virtualchain.errors import InvalidOp, Unserializable


def test_bytes_become_hex_and_tuples_lists() -> None:
    """A type that JSON does not have is written as one that it has."""
    fields = {"a": b"\x00\xff", "b": (1, None), "c": {"d": [True, 1.5, "ä"]}}
    assert to_json(fields) == {"a": "00ff", "b": [1, None], "c": {"d": [True, 1.5, "ä"]}}


@pytest.mark.parametrize(
    "value", ["\x00", "\udfff", float("inf"), {1: 2}, {"\x00": 1}, object(), ["\x00"], {1, 2}]
)
def test_a_value_that_json_cannot_represent_is_reported_with_its_field(value: Any) -> None:
    """It is noticed at any depth, and in keys as well."""
    with pytest.raises(Unserializable, match="field"):
        to_json({"field": [value]})


def test_endless_structures_are_rejected_at_once() -> None:
    """They are a dict that contains itself, and lists sixty deep that each contain the next one twice."""
    cycle: dict[str, Any] = {}
    cycle |= {"a": cycle, "b": cycle}
    wide: list[Any] = []
    for _ in range(60):
        wide = [wide, wide]
    for endless, reason in ((cycle, "nested deeper than 64"), (wide, "with it the op is larger")):
        with pytest.raises(Unserializable, match=f"field 'field'.* {reason}"):
            to_json({"field": endless})


def test_ints_are_limited_to_what_can_be_hashed() -> None:
    """What Python or PostgreSQL would reject later is rejected here: an int too large to be hashed."""
    assert to_json({"a": 2**2048 - 1, "b": -(2**2048) + 1})
    with pytest.raises(Unserializable, match="field 'a': an int of more than 2048 bits"):
        to_json({"a": 2**2048})


def test_the_ops_of_one_input_share_its_limits() -> None:
    """A commit that turns one op into many cannot exceed with all of them what one op may have."""
    half = {"text": "x" * 9_000_000}
    assert all_to_json([half])
    with pytest.raises(Unserializable, match="field 'text': with it the op is larger than 16777216"):
        all_to_json([half, half])


@pytest.mark.parametrize("shape", ["text", "list", "dict", "key", "bytes"])
def test_the_largest_op_is_as_large_in_every_shape(shape: str) -> None:
    """Each value takes 64, and each character one, whether it is copied at a glance or not."""

    def op(size: int) -> dict[str, Any]:
        text = "x" * (size - 3 * 64 - 2)
        match shape:
            case "text":
                return {"a": text, "b": 1, "": ""}
            case "list":
                return {"ab": [text, True]}
            case "dict":
                return {"a": {"b": text, "": []}}
            case "key":
                return {"ab": {text: (1,)}}
            case _:
                return {"ab": [text[:-6], b"abc"]}

    assert to_json(op(LARGEST))
    with pytest.raises(Unserializable, match=f"with it the op is larger than {LARGEST}"):
        to_json(op(LARGEST + 1))


@given(
    st.dictionaries(
        st.text(max_size=3),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
        ),
        max_size=3,
    )
)
def test_json_is_copied_as_it_is(fields: dict[str, Any]) -> None:
    """The copy has the same values, of the same types, and changes to the original do not show in it."""
    text = json.dumps(fields)
    assume("\\u0000" not in text and "\\ud" not in text)
    copied = to_json(fields)
    assert json.dumps(copied) == text
    for value in fields.values():
        if isinstance(value, list | dict):
            value.clear()
    assert json.dumps(copied) == text


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (Decimal("1.5"), "count the smallest unit as an int"),
        (datetime(2009, 1, 3, tzinfo=UTC), "seconds in an int"),
        (date(2009, 1, 3), "write it as text"),
        ({2, 1}, r"sorted\(value\)"),
        (frozenset(), r"sorted\(value\)"),
        (bytearray(b"x"), r"value\.hex\(\)"),
        (1j, "make it text, an int or a list of ints"),
        (range(3), "make it text"),
    ],
)
def test_types_that_json_does_not_have_are_the_apps_error(value: Any, remedy: str) -> None:
    """No stranger's bytes become such a value unless the app makes it; the error says what to do instead."""
    with pytest.raises(InvalidOp, match=f"field 'when': a {type(value).__name__} cannot be stored.*{remedy}"):
        to_json({"when": [value]})


@pytest.mark.parametrize(("name", "value"), [(1, 2), (b"a", 2), (None, 2), ("a", {1: 2}), ("a", [{b"": 2}])])
def test_keys_that_are_not_text_are_the_apps_error(name: Any, value: Any) -> None:
    """Every key of JSON is text."""
    with pytest.raises(InvalidOp, match="but must be text"):
        to_json({name: value})


@pytest.mark.parametrize(
    "value", ["\x00", "\udfff", float("nan"), float("-inf"), 2**2048, {"\x00": 1}, [["\ud800"]]]
)
def test_what_a_stranger_can_write_is_no_error_of_the_app(value: Any) -> None:
    """Python's own parser of JSON accepts all of these, the numbers that are none included."""
    with pytest.raises(Unserializable) as raised:
        to_json({"a": value})
    assert not isinstance(raised.value, InvalidOp)


def test_minus_zero_and_small_floats_are_kept() -> None:
    """Minus zero and the smallest float are numbers like any other."""
    kept = to_json({"a": -0.0, "b": 5e-324, "c": True})
    assert (repr(kept["a"]), kept["b"], kept["c"]) == ("-0.0", 5e-324, True)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "Expecting value"),
        (b"\xff", "can't decode"),
        (b"[" * 100_000, "nested deeper than 64"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested deeper than 64"),
        (b"1" * 5_000, "an int of more than 2048 bits"),
        (str(2**2048).encode(), "an int of more than 2048 bits"),
        (b"-Infinity", "-Infinity is not JSON"),
        (b"NaN", "NaN is not JSON"),
        (b"1e400", "no float can hold"),
        (b'["' + b'\\"' * 50_000, "Unterminated string"),
        (b'"' * 50_001, "Extra data"),
    ],
    ids=lambda value: str(value[:12]),
)
def test_bad_json_from_strangers_is_rejected_the_same_everywhere(payload: bytes, reason: str) -> None:
    """Fixed limits apply before Python's own reader hits limits that depend on the machine."""
    with pytest.raises(ValueError, match=reason):
        parse_json(payload)


def test_json_within_the_limits_is_read() -> None:
    """Brackets in text do not count toward the depth, nor do those that were closed."""
    deepest = b"[" * 64 + b"]" * 64
    assert parse_json(deepest)
    assert parse_json(b'{"a": "[[[\\"[[[", "b": [[], [], 1.5, -3]}') == {
        "a": '[[["[[[',
        "b": [[], [], 1.5, -3],
    }
    assert parse_json(b"[" + b"[]," * 1_000 + b"0]")[-1] == 0
    assert parse_json(str(1 - 2**2048).encode()) == 1 - 2**2048


def test_text_that_quotes_a_stranger_is_storable_and_short() -> None:
    """NUL and lone surrogates are escaped, and the middle of a long text is left out."""
    assert legible("a\x00b\ud800ä", 10) == "a\\x00b\\ud800ä"
    assert legible("b" * 50 + "e" * 50, 10) == "bbbbb … eeeee"


def test_opcodes_are_characters_or_hex() -> None:
    """A printable ASCII opcode is written as a character, any other as hex."""
    assert [opcode_text(code) for code in (b"c", b"?", b"\x00", b"\xe9")] == ["c", "?", "0x00", "0xe9"]
    assert [opcode_text(b""), opcode_text(b"", b"x"), opcode_text(b"", None)] == ["none", "none", "spend"]

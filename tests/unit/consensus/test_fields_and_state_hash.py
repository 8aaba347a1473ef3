"""What an op's fields may hold, and the arithmetic of the state hash."""

import hashlib
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualchain.app.fields import all_to_json, legible, parse_json, to_json
from virtualchain.consensus.state_hash import EMPTY, digest_number, row_element, update_number
from virtualchain.errors import Unserializable


def test_bytes_become_hex_and_tuples_lists() -> None:
    """What JSON lacks is written in what it has."""
    fields = {"a": b"\x00\xff", "b": (1, None), "c": {"d": [True, 1.5, "ä"]}}
    assert to_json(fields) == {"a": "00ff", "b": [1, None], "c": {"d": [True, 1.5, "ä"]}}


@pytest.mark.parametrize(
    "value", ["\x00", "\udfff", float("inf"), {1: 2}, {"\x00": 1}, object(), ["\x00"], {1, 2}]
)
def test_what_json_cannot_hold_names_its_field(value: Any) -> None:
    """At any depth, and in keys as well."""
    with pytest.raises(Unserializable, match="field"):
        to_json({"field": [value]})


def test_structures_without_end_are_refused_at_once() -> None:
    """A dict that holds itself, and lists that hold each other twice, sixty deep."""
    cycle: dict[str, Any] = {}
    cycle |= {"a": cycle, "b": cycle}
    wide: list[Any] = []
    for _ in range(60):
        wide = [wide, wide]
    for endless, reason in ((cycle, "nested deeper than 64"), (wide, "with it the op is larger")):
        with pytest.raises(Unserializable, match=f"field 'field'.* {reason}"):
            to_json({"field": endless})


def test_ints_are_held_to_what_is_hashed() -> None:
    """What Python or PostgreSQL would refuse later is refused here, above the bits that can be hashed."""
    assert to_json({"a": 2**2048 - 1, "b": -(2**2048) + 1})
    with pytest.raises(Unserializable, match="field 'a': an int of more than 2048 bits"):
        to_json({"a": 2**2048})


def test_the_ops_of_one_input_share_its_limits() -> None:
    """A commit that makes many ops of one cannot pass together what each of them could alone."""
    half = {"text": "x" * 9_000_000}
    assert all_to_json([half])
    with pytest.raises(Unserializable, match="field 'text': with it the op is larger than 16777216"):
        all_to_json([half, half])


@pytest.mark.parametrize("value", [Decimal("1.5"), datetime(2009, 1, 3, tzinfo=UTC), date(2009, 1, 3), 1j])
def test_types_that_json_lacks_are_named(value: Any) -> None:
    """Money and time are for the app to write as text or ints."""
    with pytest.raises(Unserializable, match=f"field 'when': a {type(value).__name__} cannot be stored"):
        to_json({"when": [value]})


def test_zeros_and_small_floats_stay() -> None:
    """Minus zero and the smallest float are numbers."""
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
def test_json_of_strangers_is_refused_alike_everywhere(payload: bytes, reason: str) -> None:
    """By limits of ours, and before Python's own reader meets those that depend on where it runs."""
    with pytest.raises(ValueError, match=reason):
        parse_json(payload)


def test_json_within_the_limits_is_read() -> None:
    """Brackets in text do not count, nor those that were closed."""
    deepest = b"[" * 64 + b"]" * 64
    assert parse_json(deepest)
    assert parse_json(b'{"a": "[[[\\"[[[", "b": [[], [], 1.5, -3]}') == {
        "a": '[[["[[[',
        "b": [[], [], 1.5, -3],
    }
    assert parse_json(b"[" + b"[]," * 1_000 + b"0]")[-1] == 0
    assert parse_json(str(1 - 2**2048).encode()) == 1 - 2**2048


def test_text_that_quotes_a_stranger_is_storable_and_short() -> None:
    """NUL and lone surrogates are escaped, and the middle of a long one is left out."""
    assert legible("a\x00b\ud800ä", 10) == "a\\x00b\\ud800ä"
    assert legible("b" * 50 + "e" * 50, 10) == "bbbbb … eeeee"


rows = st.lists(st.tuples(st.text(), st.none() | st.text()), max_size=8)


@given(rows, rows, st.randoms(use_true_random=False))
def test_order_and_detours_do_not_matter(kept: list[Any], gone: list[Any], dice: Any) -> None:
    """Rows that came and went leave no trace, in whatever order."""
    came = [row_element("t", row) for row in kept + gone]
    dice.shuffle(came)
    went = [row_element("t", row) for row in gone]
    straight = update_number(EMPTY, [row_element("t", row) for row in kept], [])
    assert update_number(update_number(EMPTY, came, []), [], went) == straight
    assert update_number(EMPTY, came, went) == straight


def test_a_row_is_hashed_as_the_interface_says() -> None:
    """One row's number, written out by hand from interfaces.md."""
    text = '["names","alice","ä\\"\\n",null]'
    number = int.from_bytes(hashlib.shake_256(text.encode()).digest(384), "little") % (2**3072 - 1103717)
    assert row_element("names", ["alice", 'ä"\n', None]) == number
    assert digest_number(EMPTY) == hashlib.sha256((1).to_bytes(384, "little")).hexdigest()


def test_table_and_null_count() -> None:
    """The same columns in another table, or null instead of nothing, are another row."""
    assert len({row_element(*row) for row in (("a", ["1"]), ("b", ["1"]), ("a", [None]), ("a", [""]))}) == 4

"""What an op's fields may hold, and the arithmetic of the state hash."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualchain import muhash
from virtualchain.errors import Unserialisable
from virtualchain.fields import to_json


def test_bytes_become_hex_and_tuples_lists() -> None:
    """What JSON lacks is written in what it has."""
    fields = {"a": b"\x00\xff", "b": (1, None), "c": {"d": [True, 1.5, "ä"]}}
    assert to_json(fields) == {"a": "00ff", "b": [1, None], "c": {"d": [True, 1.5, "ä"]}}


@pytest.mark.parametrize(
    "value", ["\x00", "\udfff", float("inf"), {1: 2}, {"\x00": 1}, object(), ["\x00"], {1, 2}]
)
def test_what_json_cannot_hold_names_its_field(value: Any) -> None:
    """At any depth, and in keys as well."""
    with pytest.raises(Unserialisable, match="field"):
        to_json({"field": [value]})


rows = st.lists(st.tuples(st.text(), st.none() | st.text()), max_size=8)


@given(rows, rows, st.randoms(use_true_random=False))
def test_order_and_detours_do_not_matter(kept: list[Any], gone: list[Any], dice: Any) -> None:
    """Rows that came and went leave no trace, in whatever order."""
    came = [muhash.element("t", row) for row in kept + gone]
    dice.shuffle(came)
    went = [muhash.element("t", row) for row in gone]
    straight = muhash.update(muhash.EMPTY, [muhash.element("t", row) for row in kept], [])
    assert muhash.update(muhash.update(muhash.EMPTY, came, []), [], went) == straight
    assert muhash.update(muhash.EMPTY, came, went) == straight


def test_a_row_is_hashed_as_the_interface_says() -> None:
    """One row's number, written out by hand from interfaces.md."""
    text = '["names","alice","ä\\"\\n",null]'
    number = int.from_bytes(hashlib.shake_256(text.encode()).digest(384), "little") % (2**3072 - 1103717)
    assert muhash.element("names", ["alice", 'ä"\n', None]) == number
    assert muhash.digest(muhash.EMPTY) == hashlib.sha256((1).to_bytes(384, "little")).hexdigest()


def test_table_and_null_count() -> None:
    """The same columns in another table, or null instead of nothing, are another row."""
    assert (
        len({muhash.element(*row) for row in (("a", ["1"]), ("b", ["1"]), ("a", [None]), ("a", [""]))}) == 4
    )

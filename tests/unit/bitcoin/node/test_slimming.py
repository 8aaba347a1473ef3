"""JSON with long scripts is shortened while it arrives, and nothing else in it changes."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualchain.bitcoin.node.slimming import slim
from virtualchain.bitcoin.node.transport import TooLong
from virtualchain.bitcoin.spending import LARGEST_KEPT, substitute


def cut(text: bytes, size: int) -> Iterator[bytes]:
    """Cut text into pieces."""
    return (text[at : at + size] for at in range(0, len(text), size))


def slimmed(value: object, size: int = 1 << 16, **options: Any) -> Any:
    """Read back what is left of a value."""
    text = json.dumps(value, **options).encode()
    return json.loads(b"".join(slim(cut(text, size), len(text))))


@pytest.mark.parametrize("size", [1, 7, 40, 1 << 16])
def test_scripts_are_shortened(size: int) -> None:
    """Text of scripts goes, long hex becomes the substitute, whatever the pieces."""
    long, short = b"\x61" * (LARGEST_KEPT + 1), b"\x62" * LARGEST_KEPT
    value = [
        {"asm": "OP_NOP " * 900, "desc": "raw(61)#x", "hex": script.hex(), "type": "nonstandard"}
        for script in (long, short, b"")
    ]
    kept = substitute(len(long), hashlib.sha256(long).digest())
    assert slimmed(value, size) == [
        {"asm": "", "desc": "", "hex": script.hex(), "type": "nonstandard"} for script in (kept, short, b"")
    ]


TEXT = st.text(max_size=20) | st.sampled_from(["asm", '"asm": "', "hex", "\\", 'desc":'])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
)


@given(JSON, st.integers(1, 50), st.booleans())
def test_other_json_is_left_as_it_is(value: Any, size: int, is_compact: bool) -> None:
    """Only the values of three keys change, if they are text."""

    def without_scripts(item: Any) -> Any:
        if isinstance(item, list):
            return [without_scripts(each) for each in item]
        if isinstance(item, dict):
            return {
                key: "" if key in {"asm", "desc"} and isinstance(each, str) else without_scripts(each)
                for key, each in item.items()
            }
        return item

    separators = (",", ":") if is_compact else None
    try:
        shortened = slimmed(value, size, separators=separators)
    except json.JSONDecodeError:
        # A quote in the text of a script: no node prints that, and it is not taken for anything else.
        assert '"asm"' in json.dumps(value) or '"desc"' in json.dumps(value)
    else:
        assert shortened == without_scripts(value)


def test_what_is_left_has_a_limit() -> None:
    """What is dropped does not count, but all else does."""
    text = json.dumps({"asm": "x" * 1000, "other": "y" * 100}).encode()
    assert b"".join(slim(cut(text, 10), 200))
    with pytest.raises(TooLong):
        list(slim(cut(text, 10), 100))


@pytest.mark.parametrize("script", ["6" * (2 * LARGEST_KEPT + 3), "zz" * (LARGEST_KEPT + 1)])
def test_a_script_that_is_not_hex_is_an_error(script: str) -> None:
    """A long script is read, so what is not hex is noticed."""
    with pytest.raises(ValueError):  # noqa: PT011  Python's own message, or ours
        slimmed({"hex": script})

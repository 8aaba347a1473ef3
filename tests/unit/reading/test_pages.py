"""What the database returns as JSON, and cursors."""

import json
from decimal import Decimal

import pytest

from virtualchain.errors import UsageError
from virtualchain.reading.pages import Item, Page, read_cursor, write_cursor


def test_numbers_keep_their_digits() -> None:
    """A fraction is a Decimal, and so is a number that Python's int would refuse."""
    item = Item(json.dumps({"a": 1, "t": "1"})[:-1] + f', "b": 1.00, "c": {"7" * 10_000}}}')
    assert item.value == {"a": 1, "t": "1", "b": Decimal("1.00"), "c": Decimal("7" * 10_000)}
    assert str(item.value["b"]) == "1.00"
    assert Page((item, item), None).rows == [item.value] * 2
    assert Page((item, item), None).json == b"[" + item.json + b",\n" + item.json + b"]"


@pytest.mark.parametrize("inner", ['"]}\\"["', "1", "null"])
def test_what_is_nested_deeply_is_text(inner: str) -> None:
    """A value that Python's parser refuses does not hide the others, and none of it is lost."""
    deep = "[" * 200_000 + inner + "]" * 200_000  # Python 3.13 parses thousands of levels
    value = Item(f'{{"a": {{"b": {deep}}}, "c": [1, {deep}, "x"]}}').value
    assert value["c"][0::2] == [1, "x"]
    for value_inside in (value["a"]["b"], value["c"][1]):
        levels, inside = 0, value_inside
        while isinstance(inside, list):
            [inside] = inside
            levels += 1
        assert 50 < levels < 900
        assert "[" * levels + inside + "]" * levels == deep


def test_cursors() -> None:
    """A cursor is read back with its types, and as no others."""
    cursor = write_cursor(5, "a'b", 7)
    assert read_cursor(cursor, int, str, int) == [5, "a'b", 7]
    wrong: list[tuple[str, tuple[type, ...]]] = [
        *((cursor, (int, str)), (cursor, (int, str, str)), ("", (int,)), ("x", (int,))),
        *((write_cursor(True), (int,)), (write_cursor(1.0), (int,)), (write_cursor("\0"), (str,))),
        *((write_cursor(2**31), (int,)), (write_cursor(-2), (int,))),
    ]
    for text, types in wrong:
        with pytest.raises(UsageError):
            read_cursor(text, *types)

"""Fields written as text become what their types, or their encoder's annotations, say."""

from collections.abc import Sequence
from typing import Any

import pytest

from virtualchain import App, Boolean, Hex, Integer, List, Text
from virtualchain.app.declarations import read_contract
from virtualchain.app.field_text import read_fields, split_fields
from virtualchain.errors import UsageError

typed = App("typed", magic=b"ty")
typed.add(
    b"t",
    parse=lambda payload: None,
    encode=lambda **fields: b"",
    fields={
        "name": Text(10),
        "hash": Hex(4),
        "count": Integer(-5, 500),
        "flag": Boolean(),
        "list": List(Integer(0, 9)),
    },
)
annotated = App("annotated", magic=b"an")


@annotated.opcode(b"a")
class Annotated:
    """An opcode whose encoder says what its fields are."""

    def parse(self, payload: bytes) -> Any:
        """Read nothing."""

    def encode(  # type: ignore[no-untyped-def] # one parameter has no annotation: that is the case
        self,
        text: str,
        number: int,
        data: bytes,
        items: Sequence[int],
        maybe: "str | None" = None,
        perhaps: int | None = None,
        *,
        flag: bool = False,
        anything=None,  # noqa: ANN001 - the same
    ) -> bytes:
        """Write nothing."""
        return b""


def read(app: App, opcode: bytes, *items: str) -> dict[str, object]:
    """Read fields as a command line has them."""
    return read_fields(read_contract(app), opcode, split_fields(items))


def test_declared_types_decide() -> None:
    """Text stays text, even if it looks like a number."""
    fields = read(typed, b"t", "name=123", "hash=00", "count=-5", "flag=true", "list=[1, 2]")
    assert fields == {"name": "123", "hash": "00", "count": -5, "flag": True, "list": [1, 2]}
    assert read(typed, b"t", "name=a=b=", "hash=") == {"name": "a=b=", "hash": ""}


def test_annotations_decide_without_types() -> None:
    """Of optional values, null is None, but for text."""
    fields = read(
        annotated, b"a", "text=null", "number=7", "data=00ff", "items=[1]", "maybe=null", "flag=FALSE"
    )
    assert fields == {
        "text": "null",
        "number": 7,
        "data": b"\x00\xff",
        "items": [1],
        "maybe": "null",
        "flag": False,
    }
    assert read(annotated, b"a", "perhaps=null", "maybe=1") == {"perhaps": None, "maybe": "1"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("007", "007"),
        ("1e3", "1e3"),
        ("1.5", "1.5"),
        ("true", True),
        ("null", None),
        ("True", "True"),
        ('"7"', "7"),
        ('{"a": [1.5]}', {"a": [1.5]}),
        ("plain text", "plain text"),
        ("", ""),
    ],
)
def test_json_decides_if_nothing_is_said(text: str, value: object) -> None:
    """What has no annotation is JSON if it looks like it: quotes make text of a number."""
    assert read(annotated, b"a", f"anything={text}") == {"anything": value}


@pytest.mark.parametrize(
    ("app", "item", "complaint"),
    [
        (typed, "count=1.5", "field 'count': '1.5' is not a whole number"),
        (typed, "count=1e9", "is not a whole number"),
        (typed, "count=" + "9" * 700, "is not a whole number"),
        (typed, "flag=yes", "is neither true nor false"),
        (typed, "list=1, 2", "is not JSON"),
        (annotated, "data=0g", "is not hex"),
        (annotated, "items=[1", "is not JSON"),
        (annotated, "anything=" + "[" * 100, "nested deeper"),
    ],
)
def test_values_of_another_kind_are_refused(app: App, item: str, complaint: str) -> None:
    """The error names the field."""
    with pytest.raises(UsageError, match=complaint):
        read(app, b"t" if app is typed else b"a", item)


def test_items_of_another_form_are_refused() -> None:
    """Each is a name and a value, once."""
    for items in (["name"], ["=x"], ["a=1", "a=2"]):
        with pytest.raises(UsageError):
            split_fields(items)

"""Parameters as they cross to the database: what is checked is what is sent."""

from collections.abc import Iterator
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any

import pytest
from psycopg.types.numeric import Int8

from virtualchain.errors import Unserializable
from virtualchain.store.values import Jsonb, base_value, is_text, to_database


class Text(str):
    """Text that shows something else than it holds."""

    __slots__ = ()

    def __str__(self) -> str:
        return "a\0b"

    def __contains__(self, part: object) -> bool:
        return False

    def __iter__(self) -> Iterator[str]:
        return iter("")

    def __len__(self) -> int:
        return 0

    def isascii(self) -> bool:
        """Hide what is not."""
        return True

    def encode(self, *_: object) -> bytes:
        """Return something else."""
        return b"a\0b"


class Number(int):
    """A number that shows something else than it holds."""

    def __int__(self) -> int:
        return 7

    __index__ = __int__

    def __str__(self) -> str:
        return "0x1F"

    __repr__ = __str__

    def __lt__(self, other: object) -> bool:
        return True

    __le__ = __ge__ = __gt__ = __lt__

    def bit_length(self) -> int:
        """Hide the size."""
        return 1


class Bytes(bytes):
    """Bytes that show something else than they hold."""

    def __bytes__(self) -> bytes:
        return b"other"

    def __getitem__(self, _: Any) -> Any:
        return b"other"

    def hex(self, *_: object) -> str:
        """Return something else."""
        return "\0"


class Fraction(Decimal):
    """A number that hides that it is not finite."""

    def as_tuple(self) -> Any:
        """Return another number."""
        return Decimal(1).as_tuple()

    def __str__(self) -> str:
        return "1_0"


class Items(list[Any]):
    """A list that shows other items the first time."""

    shown = False

    def __iter__(self) -> Iterator[Any]:
        first, self.shown = not self.shown, True
        return iter([1]) if first else super().__iter__()


class Real(float):
    """A number that shows something else than it holds."""

    def __float__(self) -> float:
        return 7.0

    def __repr__(self) -> str:
        return "NaN"


class Disguised:
    """An object that passes for text."""

    __class__ = str  # type: ignore[assignment]  # the lie


class Level(IntEnum):
    """Numbers with names."""

    HIGH = 3


class Color(StrEnum):
    """Text with names."""

    RED = "red"


class Word(Enum):
    """An Enum that is text without being a str."""

    NUMBER = "1_0"


def crossing(value: object) -> Any:
    """Return a parameter as it crosses."""
    return to_database(base_value(value), 0)


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (Text("held"), "held"),
        (Number(5), Int8(5)),
        (Bytes(b"held"), b"held"),
        (bytearray(b"held"), b"held"),
        (Fraction("2.5"), Decimal("2.5")),
        (Items(["a", "b"]), ["a", "b"]),
        ([Text("held")], ["held"]),
        (Level.HIGH, Int8(3)),
        (Color.RED, "red"),
        (Word.NUMBER, "1_0"),
        (True, True),
        (None, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_crosses_as_its_base_type_has_it(value: object, sent: object) -> None:
    """Nothing that it overrides shows; enums cross as their values."""
    crossed = crossing(value)
    assert type(crossed) is type(sent)
    assert (crossed == sent) is True


@pytest.mark.parametrize(
    "value",
    [
        Text("a\0b"),
        Text("\ud800"),
        Number(1 << 5_000),
        Fraction("NaN"),
        [Text("a\0b")],
        Jsonb,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_cannot_hide_what_no_column_takes(value: object) -> None:
    """What is checked is what the base type holds, in Jsonb as well, even if it was changed meanwhile."""
    if value is Jsonb:
        value = Jsonb({})
        value.value["key"] = "\0"
    with pytest.raises(Unserializable):
        crossing(value)


@pytest.mark.parametrize("value", [Text("a\0b"), Text("\ud800"), Number(1 << 5_000)])
def test_jsonb_holds_what_base_types_hold(value: object) -> None:
    """The same is so inside Jsonb, as a value, an item or a key."""
    for body in (value, [value], {"key": value}, {value: 1} if isinstance(value, str) else value):
        with pytest.raises(Unserializable):
            Jsonb(body)


def test_jsonb_sends_base_types() -> None:
    """What JSON gets is of exact types."""
    sent = Jsonb([Text("held"), Number(5), Bytes(b"held"), Real(2.5)]).value
    assert [type(item) for item in sent] == [str, int, str, float]
    assert sent == ["held", 5, "68656c64", 2.5]


def test_text_in_disguise_is_text_for_a_cast() -> None:
    """An Enum whose value is text, or a list of them, would be read by a cast as text is."""
    assert is_text(base_value(Word.NUMBER))
    assert is_text(base_value([Word.NUMBER]))
    assert is_text(base_value(Items(["a"])))


def test_what_only_claims_a_type_does_not_cross() -> None:
    """It is an error of the app."""
    with pytest.raises(TypeError):
        crossing(Disguised())

"""What the fields of an op may hold, how they become JSON, and how JSON of strangers is read.

An op's fields come from bytes that a stranger wrote, so what the database or the digests could not
take must be found when the op is parsed, and on every node alike.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from virtualchain.errors import Unserializable

DEEPEST: Final = 64
"""How far lists and dicts may be nested."""
LARGEST: Final = 16 * 1024 * 1024
"""How large the fields of one input may be in all: their characters, and 64 more for each value."""
_VALUE: Final = 64
_INT_BITS: Final = 2048
_INT_DIGITS: Final = 617
"""Decimal digits of the largest int: Python's own limit depends on the environment."""
_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_NUL: Final = "\x00"


def to_json(fields: Mapping[str, object]) -> dict[str, Any]:
    """Copy an op's fields for a jsonb column: bytes become hex, tuples lists.

    Raises Unserializable, naming the field, for what PostgreSQL's jsonb cannot hold, or not on every node:
    NUL or a lone surrogate in text, a float that is no number, an int of more than 2048 bits, keys that are
    not text, deeper nesting than 64, more than 16 Mi characters in all, or a type that is none of JSON's.
    """
    return all_to_json([fields])[0]


def all_to_json(ops: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
    """Copy the ops that stand for one input, as `to_json` does; its limits are for all of them together."""
    copier = _Copier()
    return [copier.fields(op) for op in ops]


def parse_json(payload: bytes) -> Any:  # noqa: ANN401 - what JSON may hold
    """Read JSON that a stranger wrote, alike on every node; raises ValueError for anything else.

    Python's own reader refuses deep nesting and long integers where its version, its environment and the
    depth of the call say so. Here the limits are 64 levels and 2048 bits, and a number is finite.
    """
    text = payload.decode()
    depth = 0
    for token in _BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > DEEPEST:
            raise ValueError(f"JSON that is nested deeper than {DEEPEST}")
    return json.loads(text, parse_int=_read_int, parse_float=_read_float, parse_constant=_refuse_constant)


def legible(text: str, longest: int) -> str:
    """Make text storable that may quote a hostile input: NUL and lone surrogates escaped, its middle cut."""
    if len(text) > longest:
        text = f"{text[: longest // 2]} … {text[len(text) - longest // 2 :]}"
    return text.replace(_NUL, "\\x00").encode("utf-8", "backslashreplace").decode()


class _Copier:
    """Copies values, and counts them: lists that hold each other twice, sixty deep, would be endless."""

    def __init__(self) -> None:
        self._left = LARGEST

    def fields(self, fields: Mapping[str, object]) -> dict[str, Any]:
        """Copy one op."""
        return {
            self._text(name, "a field's name"): self._value(value, name, 1) for name, value in fields.items()
        }

    def _value(self, value: object, field: str, depth: int) -> object:
        if depth > DEEPEST:
            raise Unserializable(f"field {field!r} is nested deeper than {DEEPEST}")
        self._count(_VALUE, f"field {field!r}")
        match value:
            case str():
                return self._text(value, f"field {field!r}")
            case bytes():
                self._count(2 * len(value), f"field {field!r}")
                return value.hex()
            case list() | tuple():
                return [self._value(item, field, depth + 1) for item in value]
            case dict():
                return {
                    self._text(key, f"a key in field {field!r}"): self._value(item, field, depth + 1)
                    for key, item in value.items()
                }
            case _:
                return _number(value, field)

    def _count(self, size: int, what: str) -> None:
        self._left -= size
        if self._left < 0:
            raise Unserializable(f"{what}: with it the op is larger than {LARGEST} characters")

    def _text(self, value: object, what: str) -> str:
        if not isinstance(value, str):
            raise Unserializable(f"{what} is a {type(value).__name__}, and should be text")
        self._count(len(value), what)
        if _NUL in value:
            raise Unserializable(f"{what} contains a NUL character")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise Unserializable(f"{what} contains a lone surrogate")
        return value


def _number(value: object, field: str) -> int | float | None:
    match value:
        case None | bool():
            return value
        case int() if value.bit_length() <= _INT_BITS:
            return value
        case int():
            raise Unserializable(f"field {field!r}: an int of more than {_INT_BITS} bits")
        case float() if math.isfinite(value):
            return value
        case float():
            raise Unserializable(f"field {field!r}: {value} is not a number that JSON can hold")
        case _:
            raise Unserializable(f"field {field!r}: a {type(value).__name__} cannot be stored as JSON")


def _read_int(digits: str) -> int:
    if len(digits.lstrip("-")) <= _INT_DIGITS:
        value = int(digits)
        if value.bit_length() <= _INT_BITS:
            return value
    raise ValueError(f"an int of more than {_INT_BITS} bits")


def _read_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number that no float can hold")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")

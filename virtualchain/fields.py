"""What the fields of an op may hold, and how they become JSON.

An op's fields come from bytes that a stranger wrote, so what the database or the digests could not
take must be found when the op is parsed, and on every node alike.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from virtualchain.errors import Unserialisable

DEEPEST: Final = 64
"""How far lists and dicts may be nested."""


def to_json(fields: Mapping[str, object]) -> dict[str, Any]:
    """Copy an op's fields for a jsonb column: bytes become hex, tuples lists.

    Raises Unserialisable, naming the field, for what PostgreSQL's jsonb cannot hold: NUL or a lone
    surrogate in text, a float that is no number, keys that are not text, deeper nesting than 64, or a
    type that is none of JSON's.
    """
    return {_text(name, "a field's name"): _value(value, name, 1) for name, value in fields.items()}


def _value(value: object, field: str, depth: int) -> object:
    if depth > DEEPEST:
        raise Unserialisable(f"field {field!r} is nested deeper than {DEEPEST}")
    match value:
        case None | bool() | int():
            return value
        case str():
            return _text(value, f"field {field!r}")
        case bytes():
            return value.hex()
        case float():
            if not math.isfinite(value):
                raise Unserialisable(f"field {field!r}: {value} is not a number that JSON can hold")
            return value
        case list() | tuple():
            return [_value(item, field, depth + 1) for item in value]
        case dict():
            return {
                _text(key, f"a key in field {field!r}"): _value(item, field, depth + 1)
                for key, item in value.items()
            }
        case _:
            raise Unserialisable(f"field {field!r}: a {type(value).__name__} cannot be stored as JSON")


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise Unserialisable(f"{what} is a {type(value).__name__}, and should be text")
    if "\x00" in value:
        raise Unserialisable(f"{what} contains a NUL character")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise Unserialisable(f"{what} contains a lone surrogate")
    return value

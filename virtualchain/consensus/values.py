"""Whose error a value is that cannot be stored or hashed: a stranger's, or that of the app's author.

A stranger writes the bytes that an app parses, so any JSON may end up in an op, and what does not fit rejects
the input (`Unserializable`). No bytes turn into a Decimal or a set unless the app makes one, and it makes one
of every input: such an op is the app's error (`InvalidOp`).
"""

import datetime as dt
from decimal import Decimal
from typing import Final

from virtualchain.errors import InvalidOp

MAX_INT_BITS: Final = 2048
"""617 digits at most: Python's limit on printing ints can be lowered to 640 digits, but no further."""

_JSON: Final = (type(None), bool, int, float, str, list, dict)
_REMEDIES: Final[tuple[tuple[tuple[type, ...], str], ...]] = (
    ((bytes, bytearray, memoryview), "write it as text, such as value.hex()"),
    ((set, frozenset), "make it a list in a fixed order, such as sorted(value)"),
    ((tuple,), "make it a list"),
    ((Decimal,), "count the smallest unit as an int, or write it as text"),
    ((dt.date, dt.time, dt.timedelta), "write it as text, or as seconds in an int"),
)


def text_problem(text: str) -> str | None:
    """Return what about text no database can store; None if it can be stored."""
    if "\x00" in text:
        return "contains a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "contains a lone surrogate"
    return None


def foreign_value(value: object) -> object:
    """Find a value of a type that JSON lacks, this one or one in its lists and dicts; None if none is."""
    pending, seen = [value], set[int]()
    while pending:
        item = pending.pop()
        if not isinstance(item, _JSON):
            return item
        if isinstance(item, list | dict) and id(item) not in seen:
            seen.add(id(item))
            pending.extend(reversed(item.values() if isinstance(item, dict) else item))
    return None


def invalid_value(value: object, what: str, why: str) -> InvalidOp:
    """Describe a value of a type that JSON lacks, and what to do instead; `what` holds it."""
    remedies = (remedy for kinds, remedy in _REMEDIES if isinstance(value, kinds))
    remedy = next(remedies, "make it text, an int or a list of ints")
    return InvalidOp(f"{what}: a {type(value).__name__} {why}; {remedy} (docs/mistakes.md#types)")

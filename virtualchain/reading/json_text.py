"""Write values of the database as JSON, without loss: all digits of numerics, bytes as hex."""

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from secrets import token_hex
from typing import Final

from virtualchain.errors import UsageError

_DIGITS: Final = 300
"""Numerics with more digits are text in JSON, because few JSON readers accept such numbers."""

_MARK: Final = token_hex(16)
"""Begins the text of a number whose digits json has no type for: no other text has it, as nobody knows it."""
_NUMBER: Final = re.compile(f'"{_MARK}([^"]*)"')


def json_text(value: object, *, ensure_ascii: bool = True, indent: int | None = None) -> str:
    """Write a value as JSON: bytes are hex, and numerics are numbers with all their digits, such as 1.00."""
    text = json.dumps(value, default=_plain, ensure_ascii=ensure_ascii, indent=indent)
    return _NUMBER.sub(r"\1", text)


def refuse_same_names(columns: Sequence[str], otherwise: str) -> None:
    """Raise UsageError if two columns have the same name, as no two members of an object may."""
    duplicates = sorted({name for name in columns if columns.count(name) > 1})
    if duplicates:
        raise UsageError(
            f"two columns are named {duplicates[0]}: give them different names with AS, or {otherwise}"
        )


def plain_text(value: object) -> str:
    """Return a value as PostgreSQL writes it, but bytes as plain hex and nested values as JSON."""
    match value:
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case bool():
            return "true" if value else "false"
        case dict() | list():
            return json_text(value, ensure_ascii=False)
    return str(value)


def _plain(value: object) -> object:
    """Convert a value that JSON lacks: bytes to hex, numerics to what `_NUMBER` finds, the rest to text."""
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) < _DIGITS:
        return f"{_MARK}{value:f}"
    return plain_text(value)

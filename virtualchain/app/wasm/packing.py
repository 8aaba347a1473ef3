"""How values cross between a module and the engine: each with a byte that says what it is (docs/wasm.md)."""

import struct
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

_NULL, _FALSE, _TRUE, _INTEGER, _TEXT, _BYTES, _NUMERIC = range(7)
_LONG: Final = struct.Struct("<q")
_LENGTH: Final = struct.Struct("<I")


def pack(values: Iterable[object]) -> bytes:
    """Write values one after the other."""
    parts: list[bytes] = []
    for value in values:
        match value:
            case None:
                parts.append(bytes([_NULL]))
            case bool():
                parts.append(bytes([_TRUE if value else _FALSE]))
            case int():
                parts.append(bytes([_INTEGER]) + _LONG.pack(value))
            case str():
                parts.append(_sized(_TEXT, value.encode()))
            case bytes():
                parts.append(_sized(_BYTES, value))
            case Decimal():
                parts.append(_sized(_NUMERIC, f"{value:f}".encode()))
            case _:
                raise TypeError(f"a {type(value).__name__} does not cross to a module")
    return b"".join(parts)


def unpack(data: bytes) -> list[object]:
    """Read values until the end; raises ValueError if they are not well-formed, or text is not UTF-8."""
    values: list[object] = []
    at = 0
    while at < len(data):
        tag, at = data[at], at + 1
        if tag in {_NULL, _FALSE, _TRUE}:
            values.append(None if tag == _NULL else tag == _TRUE)
        elif tag == _INTEGER:
            values.append(_LONG.unpack(_taken(data, at, 8))[0])
            at += 8
        elif tag in {_TEXT, _BYTES, _NUMERIC}:
            (size,) = _LENGTH.unpack(_taken(data, at, 4))
            content = _taken(data, at + 4, size)
            at += 4 + size
            values.append(content if tag == _BYTES else _read(tag, content))
        else:
            raise ValueError(f"a value begins with the byte {tag}; the largest is {_NUMERIC}")
    return values


def _read(tag: int, content: bytes) -> str | Decimal:
    text = content.decode()
    if tag == _TEXT:
        return text
    digits = text.removeprefix("-").replace(".", "", 1)
    if not digits.isascii() or not digits.isdigit() or len(digits) > 1000:
        raise ValueError("a numeric is not up to 1,000 digits, with at most one point and a sign")
    return Decimal(text)


def _sized(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + _LENGTH.pack(len(content)) + content


def _taken(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise ValueError("a value ends after the end")
    return data[at : at + size]

"""What an op's fields may hold, how they become JSON, and how to parse JSON from strangers.

An op's fields come from bytes that a stranger wrote. A value that the database or the digests cannot hold
must therefore be caught when the op is parsed, and on every node alike.
"""

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NoReturn

from virtualchain.consensus.values import MAX_INT_BITS, invalid_value, text_problem
from virtualchain.errors import InvalidOp, Unserializable

DEEPEST: Final = 64
"""Maximum nesting depth of lists and dicts."""
LARGEST: Final = 16 * 1024 * 1024
"""Maximum total size of the fields of one input: their characters, plus 64 for each value."""
NO_OPCODE: Final = "none"
NO_PAYLOAD: Final = "spend"
"""What people read in place of the opcode of an input that has none."""
_VALUE: Final = 64
_SMALL: Final = 1 << 64
_FIELD: Final = "field {!r}"
_KEY: Final = "a key in field {!r}"
_INT_DIGITS: Final = 617
"""Decimal digits of the largest int. Python's own limit depends on the environment."""
_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def to_json(fields: Mapping[str, object]) -> dict[str, Any]:
    """Copy an op's fields for a jsonb column; bytes become hex, and tuples become lists.

    Raises Unserializable, which names the field, for values that PostgreSQL's jsonb cannot hold on every
    node: text with a NUL or a lone surrogate, a float that is not finite, an int of more than 2048 bits,
    nesting deeper than 64, more than 16 Mi characters in all. Raises InvalidOp for keys that are not text and
    for types that JSON lacks.
    """
    return all_to_json([fields])[0]


def all_to_json(ops: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
    """Copy the ops of one input as `to_json` does; its limits apply to all of them together."""
    copier = _Copier()
    return [copier.fields(op) for op in ops]


def parse_json(payload: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Parse JSON that a stranger wrote, with the same result on every node; raises ValueError if invalid.

    The limits of Python's own parser on nesting and long integers depend on its version, its environment and
    the depth of the call. Here they are 64 levels and 2048 bits, and numbers must be finite.
    """
    text = payload.decode()
    depth = 0
    for token in _BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > DEEPEST:
            raise ValueError(f"JSON is nested deeper than {DEEPEST}")
    return json.loads(text, parse_int=_read_int, parse_float=_read_float, parse_constant=_refuse_constant)


def legible(text: str, longest: int) -> str:
    """Make text that may quote a hostile input storable: escape NUL and lone surrogates, cut its middle."""
    if len(text) > longest:
        text = f"{text[: longest // 2]} … {text[len(text) - longest // 2 :]}"
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def opcode_text(opcode: bytes, payload: bytes | None = b"") -> str:
    """Return an opcode as people read it: a printable ASCII character as itself, any other byte as hex.

    Without one it is `NO_OPCODE`, or `NO_PAYLOAD` if there is no payload either.
    """
    if not opcode:
        return NO_PAYLOAD if payload is None else NO_OPCODE
    character = opcode.decode("latin-1")
    return character if character.isascii() and character.isprintable() else f"0x{opcode.hex()}"


class _Copier:
    """Copies values and limits their total size: lists nested sixty deep in pairs would be endless."""

    def __init__(self) -> None:
        self._left = LARGEST

    def fields(self, fields: Mapping[str, object]) -> dict[str, Any]:
        """Copy one op."""
        if type(fields) is dict:
            try:
                copied, size = _copy_plain(fields, 1, self._left)
            except _NotPlain:
                pass  # one by one, so that an error names the value
            else:
                self._left -= size
                return copied
        return {
            self._text(name, "a field's name"): self._value(value, name, 1) for name, value in fields.items()
        }

    def _value(self, value: object, field: str, depth: int) -> object:
        if depth > DEEPEST:
            raise Unserializable(f"field {field!r} is nested deeper than {DEEPEST}")
        self._count(_VALUE, _FIELD, field)
        match value:
            case str():
                return self._text(value, _FIELD, field)
            case int() | None:
                return _number(value, field)
            case bytes():
                self._count(2 * bytes.__len__(value), _FIELD, field)
                return bytes.hex(value)
            case list() | tuple():
                return [self._value(item, field, depth + 1) for item in value]
            case dict():
                return {
                    self._text(key, _KEY, field): self._value(item, field, depth + 1)
                    for key, item in value.items()
                }
            case _:
                return _number(value, field)

    def _count(self, size: int, what: str, field: str) -> None:
        self._left -= size
        if self._left < 0:
            raise Unserializable(f"{what.format(field)}: with it the op is larger than {LARGEST} characters")

    def _text(self, value: object, what: str, field: str = "") -> str:
        if not isinstance(value, str):
            raise InvalidOp(f"{what.format(field)} is a {type(value).__name__}, but must be text")
        value = str.__str__(value)  # what a subclass overrides is neither checked nor stored
        self._count(len(value), what, field)
        problem = text_problem(value)
        if problem is not None:
            raise Unserializable(f"{what.format(field)} {problem}")
        return value


class _NotPlain(Exception):
    """A value needs a closer look."""


def _copy_plain(values: dict[Any, Any], depth: int, most: int) -> tuple[dict[str, Any], int]:
    """Copy a dict, as most are, of text in ASCII, small ints, and what is made of them; return its size, too.

    Raises _NotPlain for any other, and if its size is more than `most`.
    """
    copied, size = _copy_plain_items(values.values(), depth, most)
    for name in values:
        if type(name) is not str or not name.isascii() or "\0" in name:
            raise _NotPlain
        size += len(name)
    if size > most:
        raise _NotPlain
    return dict(zip(values, copied, strict=True)), size


def _copy_plain_items(values: Collection[Any], depth: int, most: int) -> tuple[list[Any], int]:
    """Copy a list, or the values of a dict, in the same way; text may make their size more than `most`."""
    size = _VALUE * len(values)
    if depth > DEEPEST or size > most:
        raise _NotPlain
    copied = []
    for value in values:
        kind = type(value)
        if kind is str:
            if not value.isascii() or "\0" in value:
                raise _NotPlain
            size += len(value)
            copied.append(value)
        elif kind is list or kind is tuple:
            items, more = _copy_plain_items(value, depth + 1, most - size)
            size += more
            copied.append(items)
        elif kind is dict:
            fields, more = _copy_plain(value, depth + 1, most - size)
            size += more
            copied.append(fields)
        elif value is None or kind is bool or (kind is int and -_SMALL < value < _SMALL):
            copied.append(value)
        else:
            raise _NotPlain
    return copied, size


def _number(value: object, field: str) -> int | float | None:
    match value:
        case None | True | False:
            return value
        case int():
            number = int.__int__(value)
            if number.bit_length() > MAX_INT_BITS:
                raise Unserializable(f"field {field!r}: an int of more than {MAX_INT_BITS} bits")
            return number
        case float():
            real = float.__float__(value)
            if not math.isfinite(real):
                raise Unserializable(f"field {field!r}: {real} is not a number that JSON can hold")
            return real
        case _:
            raise invalid_value(value, f"field {field!r}", "cannot be stored as JSON")


def _read_int(digits: str) -> int:
    if len(digits.lstrip("-")) <= _INT_DIGITS:
        value = int(digits)
        if value.bit_length() <= MAX_INT_BITS:
            return value
    raise ValueError(f"an int of more than {MAX_INT_BITS} bits")


def _read_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number that no float can hold")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")

"""Types that an app declares for an op's hashed fields; the engine checks them when an op is parsed.

What a type accepts depends on the value alone, so that every node rejects the same inputs.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final, TypeGuard

from virtualchain.app.fields import LARGEST
from virtualchain.consensus.values import MAX_INT_BITS, foreign_value, invalid_value, text_problem
from virtualchain.errors import InvalidApp, Unserializable

_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")


@dataclass(frozen=True, slots=True)
class Integer:
    """An int from `low` to `high`, both included; a bool is not an int. The bounds have up to 2048 bits."""

    low: int
    high: int

    def __post_init__(self) -> None:
        """Check the bounds."""
        for bound in (self.low, self.high):
            if not _is_int(bound) or bound.bit_length() > MAX_INT_BITS:
                raise InvalidApp(
                    f"a bound of Integer is a {type(bound).__name__}: "
                    f"it must be an int of up to {MAX_INT_BITS} bits"
                )
        if self.low > self.high:
            raise InvalidApp(f"Integer({self.low}, {self.high}) accepts no int: low is above high")

    def __str__(self) -> str:
        return f"an int from {self.low} to {self.high}"

    def problem(self, value: object) -> str | None:
        """Return why a value does not fit; None if it does."""
        if not _is_int(value):
            return f"a value of type {type(value).__name__}"
        return None if self.low <= value <= self.high else "out of range"


@dataclass(frozen=True, slots=True)
class Text:
    """Text of at most `most_bytes` bytes in UTF-8, without NUL characters and lone surrogates."""

    most_bytes: int

    def __post_init__(self) -> None:
        """Check the limit."""
        _check_limit("Text", self.most_bytes)

    def __str__(self) -> str:
        return f"text of at most {self.most_bytes} bytes in UTF-8"

    def problem(self, value: object) -> str | None:
        """Return why a value does not fit; None if it does."""
        if not isinstance(value, str):
            return f"a value of type {type(value).__name__}"
        problem = text_problem(value)
        if problem is not None:
            return f"it {problem}"
        size = len(value.encode())
        return None if size <= self.most_bytes else f"{size} bytes"


@dataclass(frozen=True, slots=True)
class Hex:
    """At most `most_bytes` bytes as lower-case hex, two digits each."""

    most_bytes: int

    def __post_init__(self) -> None:
        """Check the limit."""
        _check_limit("Hex", self.most_bytes)

    def __str__(self) -> str:
        return f"at most {self.most_bytes} bytes in lower-case hex"

    def problem(self, value: object) -> str | None:
        """Return why a value does not fit; None if it does."""
        if not isinstance(value, str):
            return f"a value of type {type(value).__name__}"
        if not _HEX.fullmatch(value):
            return "not lower-case hex, two digits a byte"
        return None if len(value) <= 2 * self.most_bytes else f"{len(value) // 2} bytes"


@dataclass(frozen=True, slots=True)
class Boolean:
    """True or False."""

    def __str__(self) -> str:
        return "True or False"

    def problem(self, value: object) -> str | None:
        """Return why a value does not fit; None if it does."""
        return None if isinstance(value, bool) else f"a value of type {type(value).__name__}"


@dataclass(frozen=True, slots=True)
class List:
    """A list, possibly empty, of values of one type, which is Integer: no other lists can be hashed."""

    of: Integer

    def __post_init__(self) -> None:
        """Check the items' type."""
        if not isinstance(self.of, Integer):
            raise InvalidApp(
                f"List({self.of!r}): a hashed list has ints only; write List(Integer(low, high))"
            )

    def __str__(self) -> str:
        return f"a list; each item must be {self.of}"

    def problem(self, value: object) -> str | None:
        """Return why a value does not fit; None if it does."""
        if not isinstance(value, list):
            return f"a value of type {type(value).__name__}"
        for number, item in enumerate(value):
            problem = self.of.problem(item)
            if problem is not None:
                return f"item {number}: {problem}"
        return None


FieldType = Integer | Text | Hex | Boolean | List

Fields = tuple[str, ...] | Mapping[str, FieldType]
"""The hashed fields of an opcode, in order: names alone, or names and types."""


def read_fields(value: object) -> Fields:
    """Read the hashed fields that an app declares; raises TypeError, with the reason, if they are invalid."""
    if isinstance(value, Mapping):
        for name, kind in value.items():
            if not isinstance(name, str) or not isinstance(kind, FieldType):
                raise TypeError(
                    f"{name!r}: {kind!r} is not a name and one of Integer(low, high), Text(most_bytes), "
                    "Hex(most_bytes), Boolean() and List(Integer(low, high))"
                )
        return dict(value)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | set | frozenset):
        names = tuple(value)
        if all(isinstance(name, str) for name in names):
            return names
    raise TypeError("it must be a list of field names, in order, or a dict from names to types")


def require_types(op: Mapping[str, object], types: Mapping[str, FieldType]) -> None:
    """Check that an op has every field with a type, and that its value fits.

    Raises Unserializable, or InvalidOp for a value that no JSON of a stranger can have put there.
    """
    for name, kind in types.items():
        if name not in op:
            raise Unserializable(f"field {name!r} is missing; it must be {kind}")
        problem = kind.problem(op[name])
        if problem is not None:
            foreign = foreign_value(op[name])
            if foreign is not None:
                raise invalid_value(foreign, f"field {name!r}", f"does not fit, it must be {kind}")
            raise Unserializable(f"field {name!r}: {problem}; it must be {kind}")


def described(fields: Fields | None) -> list[list[Any]]:
    """List names and types as JSON, for an app's fingerprint; without types, nothing."""
    if not isinstance(fields, Mapping):
        return []
    return [[name, type(kind).__name__, *astuple(kind)] for name, kind in fields.items()]


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_limit(kind: str, most_bytes: object) -> None:
    if not _is_int(most_bytes) or not 1 <= most_bytes <= LARGEST:
        raise InvalidApp(f"{kind}({most_bytes!r}): most_bytes must be an int from 1 to {LARGEST}")

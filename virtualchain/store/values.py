"""How values of callbacks cross to the database: with types that the engine decides, by one table.

===================  ===================================================
Python               PostgreSQL
===================  ===================================================
None                 NULL
bool                 boolean
int                  bigint, or numeric outside its range, up to 2048 bits
str                  text
bytes                bytea
Decimal              numeric, finite, up to 1,000 digits on either side
list of one of them  an array
Jsonb                jsonb
===================  ===================================================

Anything else is an error of the app. The driver decides nothing, so its version cannot matter.
"""

import json
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from psycopg.adapt import AdaptersMap
from psycopg.types import json as psycopg_json
from psycopg.types.numeric import Int8, IntNumeric
from psycopg.types.string import StrDumper

from virtualchain.app.fields import to_json
from virtualchain.consensus.values import MAX_INT_BITS, text_problem
from virtualchain.errors import Unserializable

_MOST_DIGITS: Final = 1000


class Jsonb:
    """A value that crosses to the database as jsonb: what JSON can hold, bytes as hex.

    Its limits are those of an op's fields: 64 levels, 16 Mi characters, ints of 2048 bits, finite floats.
    Raises Unserializable for a value beyond them, which rejects the input.
    """

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = to_json({"value": value})["value"]

    def __repr__(self) -> str:
        return f"Jsonb({self.value!r})"


def use_fixed_types(adapters: AdaptersMap) -> None:
    """Let a cursor send text as text, never as a literal that the server reads by its own rules."""
    adapters.register_dumper(str, StrDumper)


def base_value(value: object) -> object:  # noqa: PLR0911 - one type a case
    """Return a parameter as its base type holds it: what is checked is then what is sent.

    A subclass may override what checks, psycopg or JSON call. An Enum is its value. Raises TypeError for an
    object that only claims to be of a type.
    """
    kind = type(value)
    if kind is int or kind is str or kind is bytes or kind is bool:
        return value
    match value:
        case Enum():
            return base_value(value.value)
        case int():
            return int.__int__(value)
        case str():
            return str.__str__(value)
        case bytes():
            return bytes.__getitem__(value, slice(None))
        case bytearray():
            return bytes(bytearray.__getitem__(value, slice(None)))
        case memoryview():
            return bytes(value)
        case Decimal():
            return Decimal(value)
        case list():
            return [base_value(item) for item in list.__iter__(value)]
    return value


def to_database(value: object, name: str | int) -> Any:  # noqa: ANN401, PLR0911 - one row of the table a case
    """Return a parameter, which is a base value, as it crosses to the database.

    Raises Unserializable for a value that no column can take, which rejects the input, and TypeError for a
    type that does not cross; `name` is the parameter's name or its place, from 0.
    """
    match value:
        case None | True | False | bytes():
            return value
        case int():
            return _integer(value, name)
        case str():
            return _text(value, name)
        case Decimal():
            return _decimal(value, name)
        case list():
            return _array(value, name)
        case Jsonb():  # again: it may have been changed
            return psycopg_json.Jsonb(Jsonb(value.value).value, dumps=_dumps)
        case psycopg_json.Jsonb() | psycopg_json.Json():
            return psycopg_json.Jsonb(Jsonb(value.obj).value, dumps=_dumps)
    raise TypeError(
        f"parameter {shown(name)}: a {type(value).__name__} does not cross to the database: {_advice(value)} "
        "(docs/mistakes.md#parameters)"
    )


def _advice(value: object) -> str:
    """Return what to pass in place of a value."""
    match value:
        case dict():
            return "wrap it in virtualchain.Jsonb"
        case tuple():
            return "pass a list, as for = ANY(%s), or wrap it in virtualchain.Jsonb"
        case date():
            return "pass its Unix seconds as an int, as state.block_time has them"
    return "pass an int, Decimal, text, bytes, or a list of one of them"


def is_text(value: object) -> bool:
    """Return whether a base value, or an item of it, is text or bytes, which a cast would have read."""
    if isinstance(value, list):
        return any(is_text(item) for item in value)
    return isinstance(value, str | bytes)


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def shown(name: str | int) -> str:
    """Return how messages name a parameter: by its name, or its place from 1."""
    return f"{name + 1}" if isinstance(name, int) else name


def _integer(value: int, name: str | int) -> int:
    if -(2**63) <= value < 2**63:
        return Int8(value)
    if value.bit_length() <= MAX_INT_BITS:
        return IntNumeric(value)
    raise Unserializable(f"parameter {shown(name)}: an int of more than {MAX_INT_BITS} bits")


def _text(value: str, name: str | int) -> str:
    problem = text_problem(value)
    if problem is not None:
        raise Unserializable(f"parameter {shown(name)} {problem}")
    return value


def _decimal(value: Decimal, name: str | int) -> Decimal:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        raise Unserializable(f"parameter {shown(name)}: {value} is not a finite number")
    if exponent < -_MOST_DIGITS or value.adjusted() > _MOST_DIGITS:
        raise Unserializable(f"parameter {shown(name)}: a number of more than {_MOST_DIGITS} digits")
    return value


def _array(values: list[Any], name: str | int) -> list[Any]:
    items = [to_database(item, name) for item in values]
    kinds = {type(item) for item in items if item is not None}
    if kinds == {Int8, IntNumeric}:
        return [None if item is None else IntNumeric(item) for item in items]
    if len(kinds) > 1 or list in kinds:
        raise TypeError(f"parameter {shown(name)}: {_names(kinds)} in one list; a list holds one type")
    return items


def _names(kinds: Iterable[type]) -> str:
    return ", ".join(sorted(kind.__name__ for kind in kinds))

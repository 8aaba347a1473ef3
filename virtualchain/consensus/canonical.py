"""Canonical bytes of an op: what goes into the ops hash.

The reference printed values with Python 2's `str()`. This module prints what it printed, and refuses
what it could not print, what a database cannot keep, or what would differ between two machines.
"""

import math
from collections.abc import Mapping, Sequence

from virtualchain.errors import Unserializable

_LARGEST_INT_BITS = 2048  # Python may be told to refuse to print more than 640 digits, but no fewer
_LARGEST_PYTHON2_INT = 2**63 - 1


def serialize_op(opcode: bytes, op: Mapping[str, object], fields: Sequence[str]) -> bytes:
    """Write an op as the opcode, a colon, and its fields' texts as netstrings joined by commas.

    Takes `fields` in their order; what else the op holds does not count. Raises Unserializable for a
    field that is missing or cannot be hashed (`consensus.md`, "Serialised op").
    """
    missing = [field for field in fields if field not in op]
    if missing:
        raise Unserializable(f"op {opcode!r} lacks {', '.join(missing)}: every hashed field must be there")
    texts = [text_of(op[field], field) for field in fields]
    return opcode + b":" + b",".join(b"%d:%s" % (len(text), text) for text in texts)


def text_of(value: object, field: str = "value") -> bytes:
    """Print a hashed value (None, bool, int, float, str or a list of ints) as UTF-8.

    Raises Unserializable, which names `field`, for any other type, text that is not Unicode (a lone
    surrogate), a float that is no number, and an int of more than 2048 bits.
    """
    match value:
        case None:
            return b""
        case bool():
            return b"True" if value else b"False"
        case str():
            return _utf8(value, field)
        case int():
            return _decimal(value, field)
        case float():
            return _twelve_digits(value, field)
        case list():
            return b"[%s]" % b", ".join(_element(item, field) for item in value)
        case _:
            raise Unserializable(
                f"field {field!r}: a {type(value).__name__} cannot be hashed;"
                " None, bool, int, float, str and lists of ints can"
            )


def _utf8(text: str, field: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Unserializable(
            f"field {field!r}: character {error.start} is a lone surrogate, which UTF-8 cannot hold"
        ) from error


def _decimal(number: int, field: str) -> bytes:
    if number.bit_length() > _LARGEST_INT_BITS:
        raise Unserializable(f"field {field!r}: an int of more than {_LARGEST_INT_BITS} bits")
    return b"%d" % number


def _twelve_digits(number: float, field: str) -> bytes:
    if not math.isfinite(number):
        raise Unserializable(f"field {field!r}: {number} is not a number that JSON can hold")
    text = b"%.12g" % number
    return text if b"." in text or b"e" in text else text + b".0"


def _element(item: object, field: str) -> bytes:
    if isinstance(item, bool) or not isinstance(item, int):
        raise Unserializable(f"field {field!r}: a list may hold ints only, not a {type(item).__name__}")
    text = _decimal(item, field)
    # Inside a list Python 2 printed the repr, which marks an int that no machine word holds.
    return text if -_LARGEST_PYTHON2_INT - 1 <= item <= _LARGEST_PYTHON2_INT else text + b"L"

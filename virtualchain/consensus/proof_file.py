"""Reading a proof strictly, so that every checker accepts the same files (`docs/protocol/proofs.md`).

Parsers of JSON differ in what they take for it, and in what they make of it: the last of two equal keys, or
the first; a number as it is written, or rounded. Nothing in which they could differ is accepted.
"""

import json
import re
from collections.abc import Set as AbstractSet
from typing import Any, Final, NoReturn

from virtualchain.errors import InvalidProof, quoted
from virtualchain.model import Json

LONGEST: Final = 2**26
"""Bytes of the longest file that is read."""
HIGHEST: Final = 2**31 - 1
"""The highest height, and the largest number if nothing else is stated."""
_DIGITS = re.compile("[0-9]{1,16}")
"""How numbers are written: the largest in any proof is 2^53 - 1."""
_HEX = re.compile("(?:[0-9a-f]{2})*")


def read_proof(data: bytes) -> Json:
    """Read the one JSON object of a proof file; raises InvalidProof if it is not one, or could be misread."""
    if len(data) > LONGEST:
        raise InvalidProof(f"the file has more than {LONGEST:,} bytes")
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_int=_number,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise InvalidProof(f"the file is not UTF-8: byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise InvalidProof("the file has a string with a lone surrogate") from error
    except (ValueError, RecursionError) as error:
        raise InvalidProof(f"the file is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidProof("the proof must be an object")
    return value


def write_proof(proof: Json) -> str:
    """Write a proof as a file of one line, in ASCII."""
    return json.dumps(proof, separators=(",", ":"))


def record(
    value: object, keys: AbstractSet[str], what: str, optional: AbstractSet[str] = frozenset()
) -> dict[str, object]:
    """Read an object that has exactly these keys, and any of the optional ones; raises InvalidProof."""
    if not isinstance(value, dict) or value.keys() - optional != keys:
        raise InvalidProof(f"{what} must be an object with exactly these keys: {', '.join(sorted(keys))}")
    return value


def items(value: object, what: str) -> list[object]:
    """Read a list; raises InvalidProof."""
    if not isinstance(value, list):
        raise InvalidProof(f"{what} must be a list")
    return value


def whole(value: object, what: str, highest: int = HIGHEST) -> int:
    """Read a whole number from 0 to `highest`; raises InvalidProof."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
        raise InvalidProof(f"{what} must be a whole number from 0 to {highest}")
    return value


def hexadecimal(value: object, digits: int | None, what: str) -> str:
    """Read so many lower-case hex digits, or with None any even number of them; raises InvalidProof."""
    if not isinstance(value, str) or not _HEX.fullmatch(value) or digits not in (None, len(value)):
        raise InvalidProof(f"{what} must be {digits or 'an even number of'} lower-case hex digits")
    return value


def text(value: object, what: str) -> str:
    """Read text; raises InvalidProof if it is something else or cannot be written as UTF-8."""
    try:
        if isinstance(value, str) and value.encode() is not None:
            return value
    except UnicodeEncodeError as error:
        raise InvalidProof(f"{what} has a lone surrogate") from error
    raise InvalidProof(f"{what} is not text")


def _object(pairs: list[tuple[str, Any]]) -> Json:
    keys: Json = {}
    for key, value in pairs:
        if key in keys:
            raise InvalidProof(f"the file has an object with the key {quoted(key)} twice")
        keys[key] = value
    return keys


def _number(digits: str) -> int:
    return int(digits) if _DIGITS.fullmatch(digits) else _no_number(digits)


def _no_number(written: str) -> NoReturn:
    raise InvalidProof(f"the file has the number {quoted(written)}, which no proof can have")

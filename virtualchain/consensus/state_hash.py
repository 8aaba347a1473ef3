"""The state hash: a digest of a set of rows that is kept up to date by the rows that change.

MuHash (Bellare and Micciancio 1997) over the integers modulo p = 2^3072 - 1103717: a row that comes
multiplies, a row that goes divides, so the order of changes does not matter and undoing a block is
dividing by what it multiplied. What a row's bytes are is said in `interfaces.md`, Digests and files.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Final

_BITS: Final = 3072
_BELOW: Final = 1103717
MODULUS: Final = 2**_BITS - _BELOW
_MASK: Final = 2**_BITS - 1
NUMBER_SIZE: Final = 384
"""Bytes of a number, little-endian."""
EMPTY: Final = (1).to_bytes(NUMBER_SIZE, "little")
"""The number of no row at all."""


def row_element(table: str, columns: Sequence[str | None]) -> int:
    """Give the number of one row: its table's name and the text of each column, in column order."""
    row = json.dumps([table, *columns], ensure_ascii=False, separators=(",", ":"))
    return int.from_bytes(hashlib.shake_256(row.encode()).digest(NUMBER_SIZE), "little") % MODULUS or 1


def update_number(number: bytes, came: Iterable[int], went: Iterable[int]) -> bytes:
    """Multiply a number by the rows that came and divide it by those that went."""
    divisor = _product(went)
    value = int.from_bytes(number, "little") * _product(came) % MODULUS
    if divisor != 1:
        value = value * pow(divisor, -1, MODULUS) % MODULUS
    return value.to_bytes(NUMBER_SIZE, "little")


def digest_number(number: bytes) -> str:
    """Give the state hash (64 hex digits) of a number."""
    return hashlib.sha256(number).hexdigest()


def _product(elements: Iterable[int]) -> int:
    # By this modulus 2^3072 is 1103717, so what is above can be folded in, in a third of a division's time;
    # twice, because the first time leaves a few bits above.
    value = 1
    for item in elements:
        value *= item
        value = (value & _MASK) + (value >> _BITS) * _BELOW
        value = (value & _MASK) + (value >> _BITS) * _BELOW
    return value % MODULUS

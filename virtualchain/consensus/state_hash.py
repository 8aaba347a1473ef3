"""The state hash: a digest of a set of rows that is updated from the rows that change.

It is MuHash (Bellare and Micciancio 1997) over the integers modulo p = 2^3072 - 1103717. A row that is added
multiplies the number and a row that is removed divides it, so the order of changes does not matter, and
undoing a block means dividing by what it multiplied. `docs/protocol/digests.md` defines the bytes of a row.
"""

import hashlib
from collections.abc import Iterable, Sequence
from json.encoder import encode_basestring
from typing import Any, Final

try:
    import gmpy2
except ImportError:  # it only saves time
    gmpy2 = None

_BITS: Final = 3072
_BELOW: Final = 1103717
MODULUS: Final = 2**_BITS - _BELOW
_INT: Final[Any] = int if gmpy2 is None else gmpy2.mpz
_ONE, _LIMIT, _MASK, _FACTOR = map(_INT, (1, MODULUS, 2**_BITS - 1, _BELOW))
_read: Final = _INT.from_bytes
NUMBER_SIZE: Final = 384
"""Bytes of a number, little-endian."""
EMPTY: Final = (1).to_bytes(NUMBER_SIZE, "little")
"""The number of an empty set of rows."""


def row_json(table: str, columns: Sequence[str | None]) -> bytes:
    """Write a row as digests hash it, from its table's name and the text of each column, in column order."""
    texts = ",".join(["null" if text is None else encode_basestring(text) for text in (table, *columns)])
    return f"[{texts}]".encode()


def element(row: bytes) -> int:
    """Compute the number of a row as `row_json` writes it; it may be one of gmpy2's."""
    number: int = _read(hashlib.shake_256(row).digest(NUMBER_SIZE), "little")
    return number if 0 < number < _LIMIT else number % MODULUS or 1


def row_element(table: str, columns: Sequence[str | None]) -> int:
    """Compute the number of one row from its table's name and the text of each column, in column order."""
    return element(row_json(table, columns))


def product(rows: Iterable[bytes]) -> int:
    """Multiply the elements of rows as `row_json` writes them: what adding all of them does to a number."""
    value = _ONE
    for row in rows:
        value = _fold(value * element(row))
    return int(value % MODULUS)


class NumberUpdate:
    """What changes of rows do to a number: rows that come multiply it, and rows that go divide it."""

    def __init__(self) -> None:
        self._added: Any = _ONE
        self._removed = self._added

    def add(self, element: int) -> None:
        """Take in the element of a row that comes."""
        self._added = _fold(self._added * element)

    def remove(self, element: int) -> None:
        """Take in the element of a row that goes."""
        self._removed = _fold(self._removed * element)

    def after(self, number: bytes) -> bytes:
        """Return the number after the changes."""
        divisor = self._removed % MODULUS
        value = int.from_bytes(number, "little") * self._added % MODULUS
        if divisor != 1:
            inverse = pow(divisor, -1, MODULUS) if gmpy2 is None else gmpy2.invert(divisor, MODULUS)
            value = value * inverse % MODULUS
        return int(value).to_bytes(NUMBER_SIZE, "little")


def update_number(number: bytes, added: Iterable[int], removed: Iterable[int]) -> bytes:
    """Multiply a number by the elements of added rows and divide it by those of removed rows."""
    update = NumberUpdate()
    for element in added:
        update.add(element)
    for element in removed:
        update.remove(element)
    return update.after(number)


def digest_number(number: bytes) -> str:
    """Compute the state hash (64 hex digits) of a number."""
    return hashlib.sha256(number).hexdigest()


def _fold(value: Any) -> Any:  # noqa: ANN401 - an int of Python's or of gmpy2's
    # Modulo p, 2^3072 equals 1103717, so the bits above can be folded in, in a third of a division's time.
    # Folding twice is needed because the first time leaves a few bits above.
    value = (value & _MASK) + (value >> _BITS) * _FACTOR
    return (value & _MASK) + (value >> _BITS) * _FACTOR

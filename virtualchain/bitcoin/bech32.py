"""Bech32 addresses (BIP 173, BIP 350), written two characters at a time with tables.

The tape has the address of every sender and output of an input, and most are of this kind.
"""

from functools import lru_cache
from typing import Final

_CHARACTERS: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_PAIRS: Final = [first + second for first in _CHARACTERS for second in _CHARACTERS]
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
"""What each bit that leaves the checksum adds to it."""
_BECH32: Final = 1
_BECH32M: Final = 0x2BC830A3


def write_address(prefix: str, version: int, program: bytes) -> str:
    """Write the address of a witness program: Bech32 for version 0, Bech32m for later ones."""
    digits = -(-8 * len(program) // 5)
    number = int.from_bytes(program, "big") << 5 * digits - 8 * len(program)
    checksum, written = _start(prefix, version), _CHARACTERS[version]
    if digits % 2:
        first = number >> 5 * (digits - 1)
        checksum, written = _add(checksum, first), written + _CHARACTERS[first]
    values = [number >> shift & 1023 for shift in range(10 * (digits // 2) - 10, -1, -10)]
    for value in (*values, 0, 0, 0):
        checksum = _ADDED[checksum >> 20] ^ (checksum & 0xFFFFF) << 10 ^ value
    checksum ^= _BECH32M if version else _BECH32
    values += (checksum >> 20, checksum >> 10 & 1023, checksum & 1023)
    return f"{prefix}1{written}{''.join([_PAIRS[value] for value in values])}"


def _add(checksum: int, value: int) -> int:
    """Add a value of five bits to a checksum."""
    leaving = checksum >> 25
    checksum = (checksum & 0x1FFFFFF) << 5 ^ value
    for bit, added in enumerate(_GENERATOR):
        if leaving >> bit & 1:
            checksum ^= added
    return checksum


_ADDED: Final = [_add(_add(leaving << 20, 0), 0) for leaving in range(1024)]
"""What the ten highest bits of a checksum turn into when ten bits are added."""


@lru_cache(maxsize=64)
def _start(prefix: str, version: int) -> int:
    """Compute the checksum of an address up to its version."""
    checksum = 1
    high, low = [ord(letter) >> 5 for letter in prefix], [ord(letter) & 31 for letter in prefix]
    for value in (*high, 0, *low, version):
        checksum = _add(checksum, value)
    return checksum

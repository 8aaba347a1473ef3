"""Addresses: Bech32 (BIP 173, BIP 350) and Base58Check, written two characters at a time with tables.

Callbacks see the address of every sender and output. Like the walks over blocks (`walk.py`), these functions
are compiled by Cython where that is possible, and write the same interpreted.
"""

from functools import lru_cache
from typing import Final

from virtualchain.bitcoin import interpreted as cython  # the build puts `import cython` here
from virtualchain.consensus.hashing import sha256d

IS_COMPILED: Final = cython.compiled

_CHARACTERS: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_PAIRS: Final = [first + second for first in _CHARACTERS for second in _CHARACTERS]
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
"""What each bit that leaves the checksum adds to it."""
_BECH32: Final = 1
_BECH32M: Final = 0x2BC830A3

_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_PAIRS: Final = [first + second for first in _BASE58 for second in _BASE58]
_TEN_DIGITS: Final = 58**10


@cython.locals(
    data="const unsigned char[::1]",
    at="Py_ssize_t",
    bits="Py_ssize_t",
    held="unsigned int",
    value="unsigned int",
    checksum="unsigned int",
    pairs="list",
    added="list",
    parts="list",
)
def write_address(prefix: str, version: int, program: bytes) -> str:
    """Write the address of a witness program: Bech32 for version 0, Bech32m for later ones."""
    data, pairs, added = program + b"\0", _PAIRS, _ADDED  # the last character may need some bits of zero
    # Five bits are a character. The program is written in pairs, after the version if that makes them even.
    is_with_version = 0 < len(program) * 8 % 10 <= 5
    checksum = _start(prefix, -1 if is_with_version else version)
    held, bits = (version, 5) if is_with_version else (0, 0)
    parts = [prefix, "1"] if is_with_version else [prefix, "1", _CHARACTERS[version]]
    for at in range(len(data)):
        held = (held & 0x3FF) << 8 | data[at]
        bits += 8
        if bits >= 10:
            bits -= 10
            value = held >> bits & 0x3FF
            checksum = added[checksum >> 20] ^ (checksum & 0xFFFFF) << 10 ^ value
            parts.append(pairs[value])
    for at in range(3):  # noqa: B007 - a name that has a type
        checksum = added[checksum >> 20] ^ (checksum & 0xFFFFF) << 10
    checksum ^= _BECH32M if version else _BECH32
    parts += (pairs[checksum >> 20], pairs[checksum >> 10 & 0x3FF], pairs[checksum & 0x3FF])
    return "".join(parts)


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
    """Compute the checksum of an address up to its version, or to what is before it for -1."""
    checksum = 1
    high, low = [ord(letter) >> 5 for letter in prefix], [ord(letter) & 31 for letter in prefix]
    for value in (*high, 0, *low, *([] if version < 0 else [version])):
        checksum = _add(checksum, value)
    return checksum


@cython.locals(digits="unsigned long long", n="Py_ssize_t", pairs="list", parts="list")
def write_base58(payload: bytes) -> str:
    """Write a version with a hash in Base58Check: four bytes of a checksum are added."""
    data = payload + sha256d(payload)[:4]
    number = int.from_bytes(data, "big")
    pairs, parts = _BASE58_PAIRS, []
    while number:
        number, digits = divmod(number, _TEN_DIGITS)
        for n in range(5):  # noqa: B007 - a name that has a type
            parts.append(pairs[digits % 3364])
            digits //= 3364
    parts.reverse()
    # A byte of zero at the beginning is written as the digit zero.
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + "".join(parts).lstrip("1")

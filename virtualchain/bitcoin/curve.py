"""Points of secp256k1: enough to check what a taproot output commits to (BIP 340, BIP 341).

Numbers here are public, so nothing needs constant time. A tweak takes about a millisecond, and a third of
that if gmpy2 is installed.
"""

import hashlib
from functools import cache
from typing import Final

try:
    from gmpy2 import mpz
except ImportError:
    mpz = int  # the same numbers, at a third of the speed

PRIME: Final[int] = mpz(2**256 - 2**32 - 977)
"""The prime of the field."""
_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""How many points the group has."""
_GENERATOR: Final = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)
_WINDOW: Final = 4
"""Bits of a factor that one addition deals with."""

_Point = tuple[int, int]
"""Two coordinates."""
_Scaled = tuple[int, int, int]
"""A point (x / z², y / z³) as x, y and z, which are added without divisions."""


def tagged_hash(tag: str, data: bytes) -> bytes:
    """Compute SHA-256 under a tag (BIP 340)."""
    prefix = hashlib.sha256(tag.encode()).digest()
    return hashlib.sha256(prefix + prefix + data).digest()


def y_coordinate(x: int, *, odd: bool) -> int:
    """Compute the y coordinate of the point with this x; raises ValueError if there is none."""
    square = (pow(x, 3, PRIME) + 7) % PRIME
    y: int = pow(square, (PRIME + 1) // 4, PRIME)
    if not 0 <= x < PRIME or y * y % PRIME != square:
        raise ValueError(f"{x:064x} is not the x coordinate of a public key")
    return int(y if y % 2 == odd else PRIME - y)


def tweak(internal_key: bytes, tree: bytes) -> tuple[bytes, bool]:
    """Compute a taproot output key from its internal key and the root of its scripts (BIP 341).

    Returns the x coordinate and whether y is odd. Raises ValueError if the internal key is not on the curve,
    or the tweak cancels it.
    """
    x = int.from_bytes(internal_key, "big")
    factor = int.from_bytes(tagged_hash("TapTweak", internal_key + tree), "big")
    if factor >= _ORDER:
        raise ValueError("a tweak is larger than the group")
    total: _Scaled | None = (x, y_coordinate(x, odd=False), 1)
    for window in _multiples():
        digit = factor & (1 << _WINDOW) - 1
        factor >>= _WINDOW
        if digit:
            total = (*window[digit - 1], 1) if total is None else _sum(total, window[digit - 1])
    if total is None:
        raise ValueError("a tweak cancels its key")
    out_x, out_y = _affine(total)
    return out_x.to_bytes(32, "big"), out_y % 2 == 1


@cache
def _multiples() -> tuple[tuple[_Point, ...], ...]:
    """List, for each window of a factor, the generator times each digit at that place."""
    windows = []
    base = _GENERATOR
    for _ in range(256 // _WINDOW):
        window = [base, _affine(_double(base))]
        while len(window) < (1 << _WINDOW) - 1:
            window.append(_affine(_add((*window[-1], 1), base)))
        windows.append(tuple(window))
        base = _affine(_add((*window[-1], 1), base))
    return tuple(windows)


def _affine(point: _Scaled) -> _Point:
    x, y, z = point
    inverse = pow(z, -1, PRIME)
    square = inverse * inverse % PRIME
    return int(x * square % PRIME), int(y * square * inverse % PRIME)


def _double(point: _Point) -> _Scaled:
    x, y = point
    y_square = y * y % PRIME
    s = 4 * x * y_square % PRIME
    slope = 3 * x * x % PRIME
    doubled_x = (slope * slope - 2 * s) % PRIME
    return doubled_x, (slope * (s - doubled_x) - 8 * y_square * y_square) % PRIME, 2 * y % PRIME


def _add(left: _Scaled, right: _Point) -> _Scaled:
    """Add two points, neither of which is the other one's inverse."""
    total = _sum(left, right)
    assert total is not None, "small multiples of the generator, which has a large order"
    return total


def _sum(left: _Scaled, right: _Point) -> _Scaled | None:
    """Add two points; return None for the point at infinity.

    Whoever makes a key can have it: their key may be the inverse of a small multiple of the generator.
    """
    x1, y1, z1 = left
    z_square = z1 * z1 % PRIME
    h = (right[0] * z_square - x1) % PRIME
    r = (right[1] * z_square * z1 - y1) % PRIME
    if h == 0:
        return _double(right) if r == 0 else None
    h_square = h * h % PRIME
    h_cube = h * h_square % PRIME
    v = x1 * h_square % PRIME
    x3 = (r * r - h_cube - 2 * v) % PRIME
    return x3, (r * (v - x3) - y1 * h_cube) % PRIME, z1 * h % PRIME

"""Integers of a message: LEB128, seven bits a byte, the least significant group first."""

from typing import Final

from virtualchain.examples.runes.params import MAX_VARINT_BYTES

_TOO_LARGE_BITS: Final = 0x7C
"""The bits of the last possible byte that a 128-bit integer does not have."""


class InvalidVarint(ValueError):
    """Bytes that are not an integer; `kind` is `unterminated`, `overflow` or `overlong`."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"not an integer of at most 128 bits: {kind}")
        self.kind = kind


def decode(data: bytes, at: int = 0) -> tuple[int, int]:
    """Read the integer at offset `at`; return it and the offset after it. Raises InvalidVarint."""
    value = 0
    for place in range(MAX_VARINT_BYTES):
        if at + place >= len(data):
            raise InvalidVarint("unterminated")
        byte = data[at + place]
        if place == MAX_VARINT_BYTES - 1 and byte & _TOO_LARGE_BITS:
            raise InvalidVarint("overflow")
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise InvalidVarint("unterminated" if at + MAX_VARINT_BYTES >= len(data) else "overlong")


def decode_all(data: bytes) -> list[int]:
    """Read integers up to the end of `data`; raises InvalidVarint if one of them is invalid."""
    integers, at = [], 0
    while at < len(data):
        value, at = decode(data, at)
        integers.append(value)
    return integers


def encode(value: int) -> bytes:
    """Write an integer in its shortest form."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])

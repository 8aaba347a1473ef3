"""Shorten a node's JSON while it arrives, to what is used of it.

A node prints a script three times: as `asm`, as `desc` and as `hex`. Anyone can make a block that spends
thousands of scripts of 10,000 bytes, which are gigabytes in print. So `asm` and `desc` lose their text, and a
`hex` that is longer than what is kept of a script becomes the script's substitute.
"""

import hashlib
import re
from collections.abc import Generator, Iterable, Iterator
from typing import Final

from virtualchain.bitcoin.node.transport import TooLong
from virtualchain.bitcoin.spending import LARGEST_KEPT, substitute

_FIELD: Final = re.compile(rb'"(asm|desc|hex)" {0,9}: {0,9}"')
_LONGEST_FIELD: Final = 32
"""Bytes at the end of a piece in which a field may begin that the next piece completes."""


def slim(pieces: Iterable[bytes], limit: int) -> Generator[bytes, None, None]:
    """Yield JSON in pieces, with shorter scripts; raises TooLong after `limit` bytes of what is left.

    Raises ValueError if a script is not hex.
    """
    size = 0
    for piece in _shortened(iter(pieces)):
        size += len(piece)
        if size > limit:
            raise TooLong(limit)
        yield piece


def _shortened(pieces: Iterator[bytes]) -> Iterator[bytes]:
    buffer, at = b"", 0
    for piece in pieces:
        buffer, at = buffer[at:] + piece, 0
        kept = []
        while field := _FIELD.search(buffer, at):
            kept.append(buffer[at : field.end()])
            value = _Hex() if field[1] == b"hex" else _Dropped()
            buffer, at = _read_value(value, buffer, field.end(), pieces)
            kept.append(value.text())
        end = max(at, len(buffer) - _LONGEST_FIELD)
        kept.append(buffer[at:end])
        at = end
        yield b"".join(kept)
    yield buffer[at:]


def _read_value(value: "_Dropped", buffer: bytes, at: int, pieces: Iterator[bytes]) -> tuple[bytes, int]:
    """Read a string up to its closing quote; return the piece in which that is, and where."""
    while (end := buffer.find(b'"', at)) < 0:
        value.add(buffer[at:])
        buffer, at = next(pieces, b""), 0
        if not buffer:
            return b"", 0
    value.add(buffer[at:end])
    return buffer, end


class _Dropped:
    """A string of which nothing is kept."""

    def add(self, text: bytes) -> None:
        """Take the next part of the string."""

    def text(self) -> bytes:
        """Return what is kept."""
        return b""


class _Hex(_Dropped):
    """A script, of which at most its substitute is kept if it is long."""

    def __init__(self) -> None:
        self._rest = b""
        self._size = 0
        self._hash = hashlib.sha256()

    def add(self, text: bytes) -> None:
        self._rest += text
        if self._size or len(self._rest) > 2 * LARGEST_KEPT:
            even = len(self._rest) // 2 * 2
            script = bytes.fromhex(self._rest[:even].decode("ascii"))
            self._hash.update(script)
            self._size += len(script)
            self._rest = self._rest[even:]

    def text(self) -> bytes:
        if not self._size:
            return self._rest
        if self._rest:
            raise ValueError("a script has half a byte")
        return substitute(self._size, self._hash.digest()).hex().encode()

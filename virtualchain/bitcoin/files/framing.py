"""Files of framed records, as bitcoind keeps blocks and undo data: message start, length, bytes, the next.

Nothing says where such a file's last record ends: it may be followed by zeros that are reserved for what
comes, by the first half of a record, or by what a crash left behind. So records are looked for from one end
to the next, and where none stands, from the next message start on.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from virtualchain.bitcoin.networks import NETWORKS, Network
from virtualchain.errors import MissingData, NodeError

KEY_SIZE: Final = 8
"""Bytes of the key that obfuscates the files of a data folder; it lies in `xor.dat`."""
_FRAME_SIZE: Final = 8
"""Message start and length."""
_STRETCH: Final = 1 << 20
"""Bytes that are searched at once for the next message start."""
_XOR_STRETCH: Final = 1 << 14
"""Bytes that are taken as one number: the longer it is the faster, until it leaves the processor's cache."""


@dataclass(frozen=True, slots=True)
class Framing:
    """What the records of one kind of file look like."""

    network: Network
    key: bytes
    """What every byte is XORed with, by its place in the file; empty for plain files."""
    smallest: int
    """The fewest bytes that a record can have."""
    largest: int
    """The most bytes that a record can have."""
    head: int
    """How many of a record's first bytes are given with it; without a trailer, the last eight of these are
    never all zero."""
    trailer: int = 0
    """How many bytes, never all zero, stand behind each record that its length does not count."""


class Frame(NamedTuple):
    """Where a record's bytes lie, and the first of them."""

    offset: int
    length: int
    head: bytes


class FramedFile:
    """One file whose records are found as they are appended."""

    __slots__ = ("_at", "_framing", "_path", "_seen", "_size", "rewound")

    def __init__(self, path: Path, framing: Framing) -> None:
        self._path = path
        self._framing = framing
        self._at = 0
        """Behind the last record that was found."""
        self._size = -1
        self._seen = b""
        """What stood there then."""
        self.rewound = False
        """Whether the last look began at the start again."""

    def new_frames(self) -> Iterator[Frame]:
        """Find the records that were not given before; none where the file is gone.

        A node that crashed writes over what it does not remember. Where its records no longer begin where the
        last one ended, the file is read from its start again, and all of them are given.

        Raises NodeError for a file that cannot be read or is another network's.
        """
        self.rewound = False
        try:
            with _opened(self._path) as file:
                size = os.fstat(file).st_size
                end = _FRAME_SIZE + self._framing.head
                seen = os.pread(file, end, self._at)
                if size == self._size and seen == self._seen:
                    return
                self._size = -1
                if size < self._at or (any(seen[:4]) and not self._begins(seen)):
                    self._at, self.rewound = 0, True
                for frame in self._frames(file, size):
                    if not self._is_written(file, frame):
                        return
                    self._at = frame.offset + frame.length + self._framing.trailer
                    yield frame
                self._size, self._seen = size, os.pread(file, end, self._at)
        except FileNotFoundError:
            return

    def _begins(self, seen: bytes) -> bool:
        """Tell whether a record begins with these bytes, which stand behind the last one."""
        start = self._framing.network.message_start[: len(seen)]
        return unveil(seen[:4], self._at, self._framing.key) == start

    def is_unchanged(self, size: int) -> bool:
        """Tell whether a file of this size can hold nothing new: it ended with its last record before."""
        return size == self._size == self._at

    def _frames(self, file: int, size: int) -> Iterator[Frame]:
        framing, at = self._framing, self._at
        while at + _FRAME_SIZE < size:
            head = unveil(os.pread(file, _FRAME_SIZE + framing.head, at), at, framing.key)
            length = int.from_bytes(head[4:_FRAME_SIZE], "little")
            end = at + _FRAME_SIZE + length + framing.trailer
            is_record = head[:4] == framing.network.message_start
            if is_record and framing.smallest <= length <= framing.largest and end <= size:
                yield Frame(at + _FRAME_SIZE, length, head[_FRAME_SIZE:])
                at = end
            else:
                self._refuse_other_network(head[:4])
                found = self._next_start(file, at + 1)
                if found is None:
                    return
                at = found

    def _is_written(self, file: int, frame: Frame) -> bool:
        """Tell whether so much of a record is written that it stays here; space is reserved before that."""
        trailer = self._framing.trailer
        length = trailer or 8
        end = frame.offset + (frame.length + trailer if trailer else self._framing.head)
        return any(os.pread(file, length, end - length))

    def _refuse_other_network(self, start: bytes) -> None:
        for other in NETWORKS.values():
            if start == other.message_start and other != self._framing.network:
                raise NodeError(
                    f"{self._path} holds blocks of {other.name} among those of {self._framing.network.name}: "
                    "give the files of one network"
                )

    def _next_start(self, file: int, at: int) -> int | None:
        """Search the next message start, from `at` on."""
        start = self._framing.network.message_start
        while len(veiled := os.pread(file, _STRETCH, at)) >= len(start):
            # Zeros are not veiled when they are reserved, and there are many of them.
            if veiled.count(0) < len(veiled):
                found = unveil(veiled, at, self._framing.key).find(start)
                if found >= 0:
                    return at + found
            at += len(veiled) - len(start) + 1
        return None


def read_part(path: Path, offset: int, length: int, key: bytes) -> bytes:
    """Read so many bytes of a file; safe from several threads at once.

    Raises MissingData where the file is gone or shorter, NodeError where it cannot be read.
    """
    try:
        with _opened(path) as file:
            veiled = os.pread(file, length, offset)
    except FileNotFoundError as error:
        raise MissingData(
            f"{path} is gone: pruned by the node, or moved; use files of the whole chain, or a node"
        ) from error
    if len(veiled) < length:
        raise MissingData(f"{path} ends before byte {offset + length}: was it cut, or is it another one now?")
    return unveil(veiled, offset, key)


def unveil(veiled: bytes, offset: int, key: bytes) -> bytes:
    """Take the key off bytes that stand at `offset` in their file."""
    if not key:
        return veiled
    turn = offset % len(key)
    pattern = (key[turn:] + key[:turn]) * (min(len(veiled), _XOR_STRETCH) // len(key) + 1)
    mask = int.from_bytes(pattern[:_XOR_STRETCH], "little")
    stretches = (veiled[at : at + _XOR_STRETCH] for at in range(0, len(veiled), _XOR_STRETCH))
    return b"".join(
        (int.from_bytes(stretch, "little") ^ (mask & (1 << 8 * len(stretch)) - 1)).to_bytes(
            len(stretch), "little"
        )
        for stretch in stretches
    )


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a file by number, so that reading needs no place of its own in it; raises FileNotFoundError."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NodeError(
            f"{path} cannot be read: {error.strerror}; run as the user whose node it is, or give a copy"
        ) from error
    try:
        yield file
    except OSError as error:
        raise NodeError(f"{path} cannot be read: {error.strerror}") from error
    finally:
        os.close(file)

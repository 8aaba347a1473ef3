"""Files of framed records, as bitcoind stores blocks and undo data: message start, length, bytes, repeated.

Nothing marks the end of such a file's last record: it may be followed by zeros that are reserved for later
records, by half a record, or by the remains of a crash. So each record is expected where the previous one
ended, and if there is none, the search continues at the next message start.

What a search finds may be what a stranger wrote: a transaction can hold a message start, a length and
whatever looks like a record. So from the first gap on, a record is only marked as `searched`, and whoever
reads the file must have another reason to believe it.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from virtualchain.bitcoin.networks import Network, every_network
from virtualchain.errors import MissingData, NodeError

KEY_SIZE: Final = 8
"""Bytes of the key in `xor.dat`, which obfuscates the files of a data folder."""
FRAME_SIZE: Final = 8
"""Message start and length."""
_SEARCH_SIZE: Final = 1 << 20
"""Bytes that are searched at once for the next message start."""
_XOR_SIZE: Final = 1 << 14
"""Bytes that are XORed as one number: larger is faster, until it no longer fits the processor's cache."""
_SETTLING: Final = 2 * 10**9
"""Nanoseconds after a change in which another one may have the same time, as clocks of file systems tick."""


@dataclass(frozen=True, slots=True)
class Framing:
    """The form of the records in one kind of file."""

    network: Network
    key: bytes
    """Each byte is XORed with a byte of the key, by its offset in the file; empty for plain files."""
    smallest: int
    """The fewest bytes that a record can have."""
    largest: int
    """The most bytes that a record can have."""
    head: int
    """How many of a record's first bytes a `Frame` includes; without a trailer, the last eight of them are
    never all zero."""
    trailer: int = 0
    """How many bytes, never all zero, follow each record without being counted in its length."""


class Frame(NamedTuple):
    """Where a record's bytes are in its file, and the first of them."""

    offset: int
    length: int
    head: bytes
    searched: bool
    """Whether it, or a record before it, was found by searching."""


class FramedFile:
    """One file whose records are found as they are appended.

    `accept` decides about each record that was found by searching: if it is one, the search continues after
    it, otherwise inside. Without `accept`, such records are all yielded, even if one is inside another.
    """

    __slots__ = ("_accept", "_count", "_framing", "_path", "_seen", "_settled", "rewound")

    def __init__(self, path: Path, framing: Framing, accept: Callable[[Frame], bool] | None = None) -> None:
        self._path = path
        self._framing = framing
        self._accept = accept
        self._count = 0
        """How many records were yielded."""
        self._seen = hashlib.sha256()
        """Their places and first bytes."""
        self._settled: tuple[int, ...] | None = None
        """What distinguishes the file from a changed one; None while it may change without showing it."""
        self.rewound = False
        """Whether the last call of `new_frames` read the file from its start again."""

    def new_frames(self) -> Iterator[Frame]:
        """Find the records that were not yielded before; there are none if the file is gone.

        After a crash, a node overwrites the records that it does not remember, wherever they were. If the
        records that were yielded are not all in their places any longer, all records are yielded again.

        Raises NodeError if the file cannot be read or belongs to another network.
        """
        self.rewound = False
        try:
            with _opened(self._path) as file:
                status = os.fstat(file)
                if self.is_unchanged(status):
                    return
                self._settled = None
                frames, again = self._frames(file, status.st_size), hashlib.sha256()
                for frame in islice(frames, self._count):
                    again.update(_described(frame))
                if again.digest() != self._seen.digest():
                    self.rewound, self._count, self._seen = True, 0, hashlib.sha256()
                    frames = self._frames(file, status.st_size)
                for frame in frames:
                    self._seen.update(_described(frame))
                    self._count += 1
                    yield frame
                if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLING:
                    self._settled = _identity(status)
        except FileNotFoundError:
            return

    def is_unchanged(self, status: os.stat_result) -> bool:
        """Check that nothing was written to the file, now in this status, since all of it was read."""
        return self._settled == _identity(status)

    def _frames(self, file: int, size: int) -> Iterator[Frame]:
        framing, at, searched = self._framing, 0, False
        while at + FRAME_SIZE < size:
            head = deobfuscate(os.pread(file, FRAME_SIZE + framing.head, at), at, framing.key)
            length = int.from_bytes(head[4:FRAME_SIZE], "little")
            end = at + FRAME_SIZE + length + framing.trailer
            is_record = head[:4] == framing.network.message_start
            if is_record and framing.smallest <= length <= framing.largest and end <= size:
                frame = Frame(at + FRAME_SIZE, length, head[FRAME_SIZE:], searched)
                if not searched:
                    if not self._is_written(file, frame):
                        return
                    yield frame
                    at = end
                    continue
                if self._accept is None:
                    if self._is_written(file, frame):
                        yield frame
                elif self._accept(frame):
                    yield frame
                    at = end
                    continue
            elif not searched:
                self._reject_other_network(head[:4])
            searched = True
            next_start = self._next_start(file, at + 1)
            if next_start is None:
                return
            at = next_start

    def _is_written(self, file: int, frame: Frame) -> bool:
        """Check whether a record is written far enough to stay where it is: space is reserved before that."""
        trailer = self._framing.trailer
        length = trailer or 8
        end = frame.offset + (frame.length + trailer if trailer else self._framing.head)
        return any(os.pread(file, length, end - length))

    def _reject_other_network(self, start: bytes) -> None:
        if start == self._framing.network.message_start:
            return
        for other in every_network():
            if start == other.message_start:
                raise NodeError(
                    f"{self._path} holds blocks of {other.name} among those of {self._framing.network.name}: "
                    "use the files of one network"
                )

    def _next_start(self, file: int, at: int) -> int | None:
        """Find the next message start at or after `at`."""
        start = self._framing.network.message_start
        while len(obfuscated := os.pread(file, _SEARCH_SIZE, at)) >= len(start):
            # Reserved space is zeros that are not obfuscated, and there are many of them.
            if obfuscated.count(0) < len(obfuscated):
                position = deobfuscate(obfuscated, at, self._framing.key).find(start)
                if position >= 0:
                    return at + position
            at += len(obfuscated) - len(start) + 1
        return None


def _described(frame: Frame) -> bytes:
    return b"%d %d " % (frame.offset, frame.length) + frame.head


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_part(path: Path, offset: int, length: int, key: bytes) -> bytes:
    """Read `length` bytes of a file; safe to use from several threads at once.

    Raises MissingData if the file is gone or too short, NodeError if it cannot be read.
    """
    try:
        with _opened(path) as file:
            obfuscated = os.pread(file, length, offset)
    except FileNotFoundError as error:
        raise MissingData(
            f"{path} is gone: the node pruned it, or it was moved; use files of the whole chain, or a node"
        ) from error
    if len(obfuscated) < length:
        raise MissingData(f"{path} ends before byte {offset + length}: was it truncated or replaced?")
    return deobfuscate(obfuscated, offset, key)


def deobfuscate(obfuscated: bytes, offset: int, key: bytes) -> bytes:
    """Remove the key from bytes at `offset` in their file."""
    if not key:
        return obfuscated
    shift = offset % len(key)
    pattern = (key[shift:] + key[:shift]) * (min(len(obfuscated), _XOR_SIZE) // len(key) + 1)
    mask = int.from_bytes(pattern[:_XOR_SIZE], "little")
    whole = len(obfuscated) - len(obfuscated) % _XOR_SIZE
    pieces = [
        (int.from_bytes(obfuscated[at : at + _XOR_SIZE], "little") ^ mask).to_bytes(_XOR_SIZE, "little")
        for at in range(0, whole, _XOR_SIZE)
    ]
    rest = obfuscated[whole:]
    last = int.from_bytes(rest, "little") ^ int.from_bytes(pattern[: len(rest)], "little")
    return b"".join([*pieces, last.to_bytes(len(rest), "little")])


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a descriptor for reads at an offset, which threads can share; raises FileNotFoundError."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NodeError(
            f"{path} cannot be read: {error.strerror}; run as the user whose node it is, or use a copy"
        ) from error
    try:
        yield file
    except OSError as error:
        raise NodeError(f"{path} cannot be read: {error.strerror}") from error
    finally:
        os.close(file)

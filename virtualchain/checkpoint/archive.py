"""The file of a checkpoint: a plain tar, written and read in place.

The same members give the same bytes: no owner, no time, and no compression, which would differ between
builds of zlib. Reading believes nothing that the file says of itself: only plain members, whole, each once,
and nothing behind the end. Nothing is ever unpacked to a disk.
"""

import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from virtualchain.errors import InvalidCheckpoint, UsageError

_BLOCK: Final = 512
_LONGEST_LINE: Final = 2**30
"""Bytes: PostgreSQL writes no longer row."""
_PIECE: Final = 2**20
_MOST_MEMBERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Written:
    """What a member turned out to be."""

    size: int
    """Bytes."""
    sha256: str


class Member:
    """A member that is being written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append to the member."""
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)

    def written(self) -> Written:
        """Give size and digest of what was written so far."""
        return Written(self._size, self._digest.hexdigest())


class Writer:
    """A file under way; it takes its name only when it is whole."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @contextmanager
    def member(self, name: str) -> Iterator[Member]:
        """Open the next member; its size is filled in behind it."""
        start = self._file.tell()
        self._file.write(_header(name, 0))
        member = Member(self._file)
        yield member
        size = member.written().size
        self._file.write(bytes(-size % _BLOCK))
        end = self._file.tell()
        self._file.seek(start)
        self._file.write(_header(name, size))
        self._file.seek(end)


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """Write a file, whole or not at all; one of that name is replaced.

    Raises UsageError where it cannot be written.
    """
    draft = path.with_name(f".{path.name}.new")
    try:
        draft.unlink(missing_ok=True)
        with draft.open("xb") as file:
            yield Writer(file)
            file.write(bytes(2 * _BLOCK))
        draft.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


class Reader:
    """An open file, and where its members lie."""

    def __init__(self, file: BinaryIO, members: Mapping[str, tuple[int, int]]) -> None:
        self._file = file
        self._members = members

    @property
    def names(self) -> list[str]:
        """Give the members' names, in the order of the file."""
        return list(self._members)

    def size(self, name: str) -> int:
        """Give the bytes of a member."""
        return self._members[name][1]

    def content(self, name: str, limit: int) -> bytes:
        """Give a whole member of at most `limit` bytes."""
        start, size = self._members[name]
        if size > limit:
            raise InvalidCheckpoint(
                f"its member {name} has {size} bytes: no checkpoint has more than {limit}"
            )
        self._file.seek(start)
        return self._file.read(size)

    def pieces(self, name: str) -> Iterator[bytes]:
        """Give a member piece by piece."""
        start, left = self._members[name]
        self._file.seek(start)
        while left:
            piece = self._file.read(min(left, _PIECE))
            left -= len(piece)
            yield piece

    def lines(self, name: str) -> Iterator[bytes]:
        """Give the lines of a member, each with its end."""
        start, left = self._members[name]
        self._file.seek(start)
        while left:
            line = self._file.readline(min(left, _LONGEST_LINE))
            left -= len(line)
            if not line.endswith(b"\n"):
                raise InvalidCheckpoint(f"its member {name} has a line without an end")
            yield line


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """Open a file; UsageError where it cannot be opened, InvalidCheckpoint where it is no checkpoint."""
    try:
        with path.open("rb") as file:
            yield Reader(file, _members(file))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except InvalidCheckpoint as error:
        raise InvalidCheckpoint(f"{path}: {error}") from error


def _members(file: BinaryIO) -> dict[str, tuple[int, int]]:
    """Find where each member begins, and its size."""
    end = file.seek(0, 2)
    found: dict[str, tuple[int, int]] = {}
    place = 0
    while True:
        file.seek(place)
        header = file.read(_BLOCK)
        if header == bytes(_BLOCK):
            break
        info = _parsed(header)
        place += _BLOCK
        padding = -info.size % _BLOCK
        if info.size + padding > end - place:
            raise InvalidCheckpoint(f"it is cut off in its member {info.name}")
        file.seek(place + info.size)
        if file.read(padding) != bytes(padding):
            raise InvalidCheckpoint(f"there is something behind its member {info.name}")
        if info.name in found:
            raise InvalidCheckpoint(f"it has two members {info.name}")
        if len(found) == _MOST_MEMBERS:
            raise InvalidCheckpoint(f"it has more than {_MOST_MEMBERS} members")
        found[info.name] = (place, info.size)
        place += info.size + padding
    if end - place != 2 * _BLOCK or file.read(_BLOCK + 1) != bytes(_BLOCK):
        raise InvalidCheckpoint("it does not end where it says")
    return found


def _parsed(header: bytes) -> tarfile.TarInfo:
    if len(header) < _BLOCK:
        raise InvalidCheckpoint("it is cut off, or no checkpoint at all")
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise InvalidCheckpoint("it is no checkpoint: not a tar as these are") from error
    if header != _header(info.name, max(info.size, 0)):
        raise InvalidCheckpoint(f"it is no checkpoint: its member {info.name!r} is not a plain one")
    return info


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    try:
        header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
    except ValueError as error:
        raise InvalidCheckpoint(f"it is no checkpoint: its member {name!r} cannot be") from error
    return header

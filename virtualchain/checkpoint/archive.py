"""The file of a checkpoint: a plain tar, written and read in place.

The same members yield the same bytes: there is no owner, no time, and no compression, which would differ
between builds of zlib. The reader trusts nothing that the file says about itself: it accepts only plain,
complete members, each once, and nothing after the end. Nothing is ever unpacked to disk.
"""

import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from virtualchain.errors import InvalidCheckpoint, UsageError, quoted

_BLOCK: Final = 512
_LONGEST_LINE: Final = 2**30
"""Bytes: PostgreSQL writes no row longer than that."""
_PIECE: Final = 2**20
"""Bytes read at once."""
_MOST_MEMBERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Written:
    """Size and digest of a member that was written."""

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
        """Return size and digest of what was written so far."""
        return Written(self._size, self._digest.hexdigest())


class Writer:
    """A file that is being written; it gets its name only once it is complete."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @contextmanager
    def member(self, name: str) -> Iterator[Member]:
        """Open the next member; its size is filled in once it is complete."""
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
    """Write a file, completely or not at all; an existing file of that name is replaced.

    Raises UsageError if it cannot be written.
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


def layout(sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Return where the content of each member begins, and the size of the file, from the members' sizes."""
    offset, starts = 0, {}
    for name, size in sizes.items():
        starts[name] = offset + _BLOCK
        offset += _BLOCK + size + -size % _BLOCK
    return starts, offset + 2 * _BLOCK


def header(name: str, size: int) -> tuple[bytes, int]:
    """Return the header of a member, and how many bytes before the content it begins."""
    return _header(name, size), _BLOCK


class Reader:
    """An open file, and the offsets of its members."""

    def __init__(self, file: BinaryIO, members: Mapping[str, tuple[int, int]]) -> None:
        self._file = file
        self._members = members

    @property
    def names(self) -> list[str]:
        """The members' names, in the order of the file."""
        return list(self._members)

    def size(self, name: str) -> int:
        """Return the size of a member in bytes."""
        return self._members[name][1]

    def content(self, name: str, limit: int) -> bytes:
        """Return the content of a member of at most `limit` bytes."""
        start, size = self._members[name]
        if size > limit:
            raise InvalidCheckpoint(f"its member {name} has {size} bytes; the limit is {limit}")
        self._file.seek(start)
        return self._file.read(size)

    def stretch(self, name: str, offset: int, size: int) -> bytes:
        """Return `size` bytes of a member, from `offset`."""
        self._file.seek(self._members[name][0] + offset)
        return self._file.read(size)

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the content of a member piece by piece."""
        start, left = self._members[name]
        self._file.seek(start)
        while left:
            piece = self._file.read(min(left, _PIECE))
            left -= len(piece)
            yield piece

    def whole_lines(self, name: str) -> Iterator[bytes]:
        """Yield the content of a member in pieces that end with a newline."""
        start, left = self._members[name]
        self._file.seek(start)
        while left:
            piece = self._file.read(min(left, _PIECE))
            if not piece.endswith(b"\n"):
                piece += self._file.readline(min(left - len(piece), _LONGEST_LINE))
            left -= len(piece)
            if not piece.endswith(b"\n"):
                raise InvalidCheckpoint(f"its member {name} has a line without a newline")
            yield piece

    def lines(self, name: str) -> Iterator[bytes]:
        """Yield the lines of a member, each with its newline."""
        start, left = self._members[name]
        self._file.seek(start)
        while left:
            line = self._file.readline(min(left, _LONGEST_LINE))
            left -= len(line)
            if not line.endswith(b"\n"):
                raise InvalidCheckpoint(f"its member {name} has a line without a newline")
            yield line


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """Open a file; raises UsageError if it cannot be read, InvalidCheckpoint if it is not a checkpoint."""
    try:
        with path.open("rb") as file:
            yield Reader(file, _members(file))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except InvalidCheckpoint as error:
        raise InvalidCheckpoint(f"{path}: {error}") from error


def _members(file: BinaryIO) -> dict[str, tuple[int, int]]:
    """Find the offset and the size of each member."""
    end = file.seek(0, 2)
    members: dict[str, tuple[int, int]] = {}
    offset = 0
    while True:
        file.seek(offset)
        header = file.read(_BLOCK)
        if header == bytes(_BLOCK):
            break
        info = _parse_header(header)
        offset += _BLOCK
        padding = -info.size % _BLOCK
        if info.size + padding > end - offset:
            raise InvalidCheckpoint(f"it is cut off in its member {info.name}")
        file.seek(offset + info.size)
        if file.read(padding) != bytes(padding):
            raise InvalidCheckpoint(f"there is data after its member {info.name}")
        if info.name in members:
            raise InvalidCheckpoint(f"it has two members {info.name}")
        if len(members) == _MOST_MEMBERS:
            raise InvalidCheckpoint(f"it has more than {_MOST_MEMBERS} members")
        members[info.name] = (offset, info.size)
        offset += info.size + padding
    if end - offset != 2 * _BLOCK or file.read(_BLOCK + 1) != bytes(_BLOCK):
        raise InvalidCheckpoint("it does not end with two empty blocks")
    return members


def _parse_header(header: bytes) -> tarfile.TarInfo:
    if len(header) < _BLOCK:
        raise InvalidCheckpoint("it is cut off, or not a checkpoint")
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise InvalidCheckpoint("it is not a checkpoint: not a tar file") from error
    if header != _header(info.name, max(info.size, 0)):
        raise InvalidCheckpoint(f"it is not a checkpoint: its member {quoted(info.name)} is not a plain one")
    return info


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    try:
        header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
    except ValueError as error:
        raise InvalidCheckpoint(f"it is not a checkpoint: its member {quoted(name)} is invalid") from error
    return header

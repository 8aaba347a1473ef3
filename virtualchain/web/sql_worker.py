"""The process in which a stranger's statement runs: whatever it returns, only this process can run out of memory.

It reads one request a line from standard input, and writes an answer in frames: a letter, four bytes of length,
and so many bytes. `H` has the columns and types as JSON, `D` a part of the result, `Z` ends it with numbers as
JSON, and `E` ends it with an error as JSON.
"""

import csv
import io
import json
import os
import resource
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, Final

import psycopg

from virtualchain.errors import DatabaseUnavailable, UsageError, VirtualchainError
from virtualchain.reading import views
from virtualchain.reading.plain import finite, json_text, plain_text, refuse_same_names

_MEMORY: Final = 1 << 30
"""Bytes of address space."""
_WORN: Final = 400_000
"""Kilobytes of memory after which the process ends, and another one takes its place."""
_PART: Final = 256 * 1024
"""Bytes that are collected before they are passed on."""
FRAME: Final = struct.Struct(">cI")
_KINDS: Final = (
    (views.QueryRejected, "rejected"),
    (views.BlockNotShown, "block"),
    (UsageError, "usage"),
    (views.QueryTooSlow, "slow"),
    (DatabaseUnavailable, "unavailable"),
    (VirtualchainError, "store"),
)
"""What an error is called in a frame."""
_TOO_LARGE: Final = "a value of the result is too large to be read here: select a part of it, such as left(…, 1000)"


def main() -> None:
    """Answer requests until standard input ends."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing else may write between the frames
    for line in sys.stdin.buffer:
        try:
            _answer(json.loads(line), out)
        except MemoryError:
            _write_error(out, UsageError(_TOO_LARGE))
        out.flush()
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _WORN:
            return


def _answer(request: dict[str, Any], out: BinaryIO) -> None:
    try:
        with views.snapshot(request["url"]) as connection:
            _run(connection, request, out)
    except VirtualchainError as error:
        # The driver's own words, if it is this process that has no memory left.
        _write_error(out, UsageError(_TOO_LARGE) if "out of memory for query" in str(error) else error)
    except psycopg.Error as error:
        # The driver refuses what needs another protocol, such as COPY.
        _write_error(out, UsageError(f"this statement cannot be run here: {' '.join(str(error).split())}"))


def _run(connection: psycopg.Connection, request: dict[str, Any], out: BinaryIO) -> None:
    """Run the statement, and write its rows as they arrive."""
    columns, types, rows = views.stream(
        connection, request["statement"], as_of=request["as_of"], timeout=request["timeout"]
    )
    form = request["form"]
    if form == "json":
        refuse_same_names(columns)
    _write(out, b"H", json.dumps({"columns": columns, "types": types}).encode())
    write = {"rows": _lists, "csv": _csv, "json": _objects}[form]
    limit, most = request["limit"], request["bytes"]
    count = length = 0
    part = io.BytesIO()
    has_more = False

    def counted() -> Iterator[Sequence[Any]]:
        nonlocal count, has_more
        for row in rows:
            if count == limit:
                has_more = True
                return
            count += 1
            yield [_value(value) for value in row]

    for text in write(columns, counted()):
        part.write(text.encode("utf-8", "backslashreplace"))
        if length + part.tell() > most:
            has_more = True
            break
        if part.tell() >= _PART:
            length += part.tell()
            _write(out, b"D", part.getvalue())
            part = io.BytesIO()
    _write(out, b"D", part.getvalue())
    _write(out, b"Z", json.dumps({"rows": count, "has_more": has_more}).encode())


def _value(value: Any) -> Any:  # noqa: ANN401 - whatever a column holds
    """Return a value as JSON can have it: bytes as PostgreSQL writes them, which a query can compare with."""
    match value:
        case bytes():
            return f"\\x{value.hex()}"
        case list():
            return [_value(item) for item in value]
    return finite(value)


def _lists(_: Sequence[str], rows: Iterator[Sequence[Any]]) -> Iterator[str]:
    """Write a row a line, as an array of texts and nulls."""
    for row in rows:
        yield json.dumps([None if value is None else plain_text(value) for value in row]) + "\n"


def _csv(columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> Iterator[str]:
    """Write a line of names, then the rows, as RFC 4180 says; null is an empty field."""
    line = io.StringIO(newline="")
    writer = csv.writer(line, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if value is None else plain_text(value) for value in row])
        yield line.getvalue()
        line.seek(0)
        line.truncate()
    yield line.getvalue()


def _objects(columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> Iterator[str]:
    """Write an array of objects, one a line."""
    separator = "[\n"
    for row in rows:
        yield separator + json_text(dict(zip(columns, row, strict=True)))
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def _write_error(out: BinaryIO, error: VirtualchainError) -> None:
    kind = next(name for kind, name in _KINDS if isinstance(error, kind))
    position = error.position if isinstance(error, views.QueryRejected) else None
    _write(out, b"E", json.dumps({"kind": kind, "message": str(error), "position": position}).encode())


def _write(out: BinaryIO, kind: bytes, content: bytes) -> None:
    out.write(FRAME.pack(kind, len(content)) + content)


if __name__ == "__main__":
    main()

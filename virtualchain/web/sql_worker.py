"""The process in which a stranger's statement runs: a result that is too large harms nothing else.

It reads one request a line from standard input, and writes an answer in frames: a letter, four bytes of
length, and so many bytes. `H` has the columns and types as JSON, `D` a part of the result; `Z` ends it, with
what there is to say about all of it, and so does `E`, with an error.
"""

import csv
import io
import json
import math
import os
import resource
import struct
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, Final

import psycopg

from virtualchain.errors import DatabaseUnavailable, UsageError, VirtualchainError
from virtualchain.reading import views
from virtualchain.reading.json_text import json_text, plain_text, refuse_same_names

_MEMORY: Final = 1 << 30
"""Bytes of address space."""
_WORN: Final = 400_000
"""Kilobytes of memory that the process may gain before it ends, and another one takes its place."""
_AT_START: Final = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
"""What the system counts at the start, which may be as much as the process had that started this one."""
_PART: Final = 256 * 1024
"""Bytes that are collected before they are passed on."""
_CELLS: Final = 20_000
"""Values of a result that a page shows: each has a cost there."""
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
_TOO_LARGE: Final = (
    "a value of the result is too large to be read here: select a part of it, such as left(…, 1000)"
)


def main() -> None:
    """Answer requests until standard input ends."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing else may write between the frames
    while not _is_worn() and (line := sys.stdin.buffer.readline()):
        try:
            _answer(json.loads(line), out)
        except MemoryError:
            _write_error(out, UsageError(_TOO_LARGE))
        out.flush()


def _is_worn() -> bool:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _AT_START + _WORN


def _answer(request: dict[str, Any], out: BinaryIO) -> None:
    try:
        with (
            views.snapshot(request["url"]) as connection,
            views.stream(
                connection, request["statement"], as_of=request["as_of"], timeout=request["timeout"]
            ) as (columns, types, rows),
        ):
            _run(columns, types, rows, request, out)
    except views.QueryTooSlow:
        seconds = f"{request['timeout']:g}"
        error: VirtualchainError = views.QueryTooSlow(
            f"the query was canceled because it took more than {seconds} seconds: narrow it"
        )
        _write_error(out, error)
    except VirtualchainError as caught:
        _write_error(out, _explained(caught))
    except MemoryError:
        raise
    except Exception as bug:  # noqa: BLE001 - the server reports it: only it knows where its log goes
        report = {"kind": "bug", "message": "".join(traceback.format_exception(bug)), "ends": True}
        _write(out, b"E", json.dumps(report).encode())


def _explained(error: VirtualchainError) -> VirtualchainError:
    """Return an error in words that fit this place."""
    cause = error.__cause__
    if isinstance(cause, psycopg.Error):
        if cause.sqlstate == views.NOT_SHOWN:
            return views.BlockNotShown(views.complaint(cause))
        if cause.sqlstate is None and "out of memory" in str(cause):
            return UsageError(_TOO_LARGE)
    return error


def _run(
    columns: Sequence[str],
    types: Sequence[str],
    rows: Iterator[Sequence[Any]],
    request: dict[str, Any],
    out: BinaryIO,
) -> None:
    """Write the rows as they arrive."""
    form = request["form"]
    if form == "json":
        refuse_same_names(columns, "ask for CSV")
    _write(out, b"H", json.dumps({"columns": columns, "types": types}).encode())
    write = {"rows": _lists, "csv": _csv, "json": _objects}[form]
    limit, most = request["limit"], request["bytes"]
    if form == "rows":
        limit = min(limit, max(1, _CELLS // max(1, len(columns))))
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
    _write(out, b"Z", json.dumps({"has_more": has_more, "ends": _is_worn()}).encode())


def _value(value: Any) -> Any:  # noqa: ANN401 - whatever a column holds
    """Return a value as JSON can have it: bytes as PostgreSQL writes them, which a query can compare with."""
    match value:
        case bytes():
            return f"\\x{value.hex()}"
        case list():
            return [_value(item) for item in value]
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


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
    report = {"kind": kind, "message": str(error), "position": position, "ends": _is_worn()}
    _write(out, b"E", json.dumps(report).encode())


def _write(out: BinaryIO, kind: bytes, content: bytes) -> None:
    out.write(FRAME.pack(kind, len(content)) + content)


if __name__ == "__main__":
    main()

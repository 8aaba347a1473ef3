"""One statement of whoever asks, in a session and a process of its own.

The session is a reader's, its transaction is read-only, and the statement has a time limit. How large a value
is that it returns nobody knows before: so what receives it is a process with little memory, which may die.
"""

import json
import logging
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Final, Literal

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from virtualchain.errors import DatabaseUnavailable, StoreError, UsageError
from virtualchain.reading.views import BlockNotShown, QueryRejected
from virtualchain.web.sessions import Busy, TooSlow
from virtualchain.web.sql_worker import FRAME

_LOG: Final = logging.getLogger(__name__)
TIMEOUT: Final = 10.0
"""Seconds that a statement may take."""
SHOWN: Final = 1000
"""Rows that a page shows."""
EXPORTED: Final = 100_000
"""Rows that a file may have."""
LONGEST: Final = 20_000
"""Characters of a statement."""
_SHOWN_BYTES: Final = 4 * 1024 * 1024
_EXPORTED_BYTES: Final = 32 * 1024 * 1024
_GRACE: Final = 5.0
"""Seconds, beyond its time, after which a process is killed."""
_AT_ONCE: Final = 2
_WAIT: Final = 1.0
"""Seconds for which a statement waits until there are fewer than that."""
_IN_MEMORY: Final = 1024 * 1024
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Result:
    """The first rows of a result, as texts; null is None."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[list[str | None]]
    has_more: bool


class Export:
    """A whole result as a file, which is deleted once it was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.length = file.tell()
        """Bytes."""
        file.seek(0)

    def close(self) -> None:
        """Delete the file, whether it was read or not."""
        self._file.close()

    def chunks(self) -> Iterator[bytes]:
        """Yield the content."""
        with self._file as file:
            while chunk := file.read(_CHUNK):
                yield chunk


def run(
    url: str, statement: str, as_of: str | None = None, timeout: float = TIMEOUT, limit: int = SHOWN
) -> Result:
    """Run one statement, and return its first rows.

    `url` is a reader's. Raises UsageError for a statement that the database refuses, as QueryRejected with
    the place of the mistake; TooSlow; Busy if others are running; StoreError.
    """
    rows = bytearray()
    header, end = _BOX.run(_request(url, statement, as_of, timeout, "rows", limit, _SHOWN_BYTES), rows.extend)
    read = [json.loads(line) for line in bytes(rows).splitlines()]
    return Result(tuple(header["columns"]), tuple(header["types"]), read, end["has_more"])


def export(
    url: str,
    statement: str,
    form: Literal["csv", "json"],
    as_of: str | None = None,
    timeout: float = TIMEOUT,
) -> Export:
    """Run one statement, and return all of its rows as CSV or as a JSON array of objects.

    Raises the same as `run`, and UsageError for a result that is too large, and, as JSON, for two columns of
    the same name.
    """
    file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed by who reads it
    try:
        request = _request(url, statement, as_of, timeout, form, EXPORTED, _EXPORTED_BYTES)
        _, end = _BOX.run(request, file.write)
        if end["has_more"]:
            raise UsageError(
                f"the result has more than {EXPORTED:,} rows or {_EXPORTED_BYTES >> 20} MiB: add a LIMIT, or "
                "use `virtualchain sql`"
            )
    except BaseException:
        file.close()
        raise
    return Export(file)


def _request(
    url: str, statement: str, as_of: str | None, timeout: float, form: str, limit: int, most: int
) -> dict[str, Any]:
    if not statement.strip():
        raise UsageError("there is no statement")
    if len(statement) > LONGEST:
        raise UsageError(f"the statement has {len(statement):,} characters, and {LONGEST:,} is the most")
    if "\0" in statement:
        raise UsageError("the statement has a NUL character")
    return {
        "url": url,
        "statement": statement,
        "as_of": as_of or None,
        "timeout": timeout,
        "form": form,
        "limit": limit,
        "bytes": most,
    }


class Download(StreamingResponse):
    """Answers with an export, and deletes its file, even if the client is gone before the end."""

    def __init__(self, exported: Export, media_type: str, headers: dict[str, str]) -> None:
        """Take the export, which nothing else must read."""
        length = {"Content-Length": str(exported.length)}
        super().__init__(exported.chunks(), media_type=media_type, headers={**headers, **length})
        self._exported = exported

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._exported.close()


class _Box:
    """The processes, which are started when they are needed and kept for the next statement."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._idle: list[subprocess.Popen[bytes]] = []

    def run(
        self, request: dict[str, Any], receive: Callable[[bytes], object]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Have a process run a statement; pass its result to `receive`; return its header and its end."""
        if not self._slots.acquire(timeout=_WAIT):
            raise Busy(f"{_AT_ONCE} statements are running already: try again in a moment")
        try:
            process = self._take()
            timer = threading.Timer(request["timeout"] + _GRACE, process.kill)
            timer.start()
            try:
                header, end = _converse(process, request, receive)
            except BaseException:
                _end(process)
                raise
            finally:
                timer.cancel()
            self._return(process, ends=end["ends"])
        finally:
            self._slots.release()
        if "message" in end:
            raise _error(end)
        return header, end

    def _take(self) -> "subprocess.Popen[bytes]":
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.poll() is None:
                    return process
        return subprocess.Popen(
            [sys.executable, "-m", "virtualchain.web.sql_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def _return(self, process: "subprocess.Popen[bytes]", *, ends: bool) -> None:
        if ends:
            _end(process)
            return
        with self._lock:
            self._idle.append(process)

    def close(self) -> None:
        """End the processes that wait."""
        with self._lock:
            for process in self._idle:
                _end(process)
            self._idle.clear()


_BOX: Final = _Box()
close: Final = _BOX.close
"""Ends the processes that wait for statements; they also end with this one."""


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None, "both are pipes"
        with suppress(BrokenPipeError):
            pipe.close()


def _converse(
    process: "subprocess.Popen[bytes]", request: dict[str, Any], receive: Callable[[bytes], object]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Send a request, and receive the frames of its answer: its header, its parts, its end or an error."""
    assert process.stdin is not None, "it is a pipe"
    assert process.stdout is not None, "it is a pipe"
    header: dict[str, Any] = {}
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        while True:
            kind, length = FRAME.unpack(_read(process.stdout, FRAME.size))
            content = _read(process.stdout, length)
            if kind == b"D":
                receive(content)
            elif kind == b"H":
                header = json.loads(content)
            else:
                return header, json.loads(content)
    except (OSError, EOFError) as error:
        raise UsageError(
            "the statement was stopped, because its result needs too much memory or time: select less"
        ) from error


def _read(stream: IO[bytes], length: int) -> bytes:
    content = stream.read(length)
    if len(content) < length:
        raise EOFError("the process has ended")
    return content


def _error(report: dict[str, Any]) -> Exception:
    message = report["message"]
    if report["kind"] == "bug":
        _LOG.error("a statement failed because of a bug: please report it\n%s", message)
        message = "the statement failed because of a bug, which the server's log describes"
    match report["kind"]:
        case "rejected":
            return QueryRejected(message, report["position"])
        case "block":
            return BlockNotShown(message)
        case "usage":
            return UsageError(message)
        case "slow":
            return TooSlow(message)
        case "unavailable":
            return DatabaseUnavailable(message)
    return StoreError(message)

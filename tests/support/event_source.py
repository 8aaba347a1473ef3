"""A client of server-sent events, and a program that keeps tables by them."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Event:
    """An event; `id` is the last one that was sent, as browsers have it."""

    id: str
    kind: str
    data: Any


class EventSource:
    """One connection to a stream, read by hand, so that a test decides how fast."""

    def __init__(self, base: str, path: str, last: str | None = None, *, timeout: float = 20.0) -> None:
        place = urlsplit(base)
        self.socket = socket.create_connection((place.hostname, place.port), timeout=timeout)
        resume = "" if last is None else f"Last-Event-ID: {last}\r\n"
        head = f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\nAccept: text/event-stream\r\n{resume}\r\n"
        self.socket.sendall(head.encode())
        self._file = self.socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers = {}
        while (line := self._file.readline().rstrip(b"\r\n")) != b"":
            name, _, value = line.decode().partition(": ")
            self.headers[name.lower()] = value
        self.last = last or ""
        self.lines = self._lines()
        """The lines of the stream, without the chunks that carry them, until it ends."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def body(self) -> bytes:
        """Return the body of an answer that is not a stream."""
        return self._file.read(int(self.headers["content-length"]))

    def _lines(self) -> Iterator[str]:
        rest = b""
        while True:
            size = int(self._file.readline() or b"0", 16)
            if not size:
                return
            rest += self._file.read(size)
            self._file.readline()
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield line.decode("ascii")

    def __iter__(self) -> Iterator[Event]:
        kind, data = "message", ""
        for line in self.lines:
            name, _, value = line.partition(": ")
            if name == "id":
                self.last = value
            elif name == "event":
                kind = value
            elif name == "data":
                data += value
            elif line == "" and data:
                yield Event(self.last, kind, json.loads(data))
                kind, data = "message", ""


@dataclass
class Replica:
    """Tables that are kept by events, each of which must fit the one before."""

    knows_all: bool = True
    """Whether the events are those from the first block on."""
    blocks: list[dict[str, Any]] = field(default_factory=list)
    rollbacks: int = 0
    rows: dict[tuple[str, str, str], Any] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Apply an event."""
        data = event.data
        assert event.id == data["position"]
        assert event.kind == data["event"]
        if event.kind == "rollback":
            self.rollbacks += 1
            while self.blocks and self.blocks[-1]["block_id"] > data["block_id"]:
                for change in self.blocks.pop()["changes"]:
                    self._put(change, change["new"], change["old"])
            if self.blocks:
                assert self.blocks[-1]["block_hash"] == data["block_hash"]
            return
        assert event.kind == "block"
        if self.blocks:
            assert data["block_id"] == self.blocks[-1]["block_id"] + 1
        self.blocks.append(data)
        for change in data["changes"]:
            self._put(change, change["old"], change["new"])

    def _put(self, change: dict[str, Any], old: Any, new: Any) -> None:
        row = change["app"], change["table"], json.dumps(change["key"], sort_keys=True)
        assert not self.knows_all or self.rows.get(row) == old, (row, old)
        if new is None:
            self.rows.pop(row, None)
        else:
            self.rows[row] = new

    def table(self, name: str) -> list[Any]:
        """Return the rows of a table, in the order of their keys."""
        return [row for (_, table, _), row in sorted(self.rows.items()) if table == name]

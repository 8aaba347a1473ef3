"""What a program that follows a deployment asks of it: which blocks came, what they did, and which went."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from virtualchain.model import Json
from virtualchain.store.database import connect_reader, is_pooled, pin_transaction
from virtualchain.store.sql import queries

_Q = queries("live")


@dataclass(frozen=True, slots=True)
class Change:
    """What a block did to a row of an app's projection; `old` and `new` are its columns.

    Values are as PostgreSQL writes them in JSON: bytes are text, a backslash, x, and hex.
    """

    app: str
    table: str
    action: str
    """insert, update or delete."""
    key: Json
    old: Json | None
    new: Json | None


@dataclass(frozen=True, slots=True)
class AcceptedOp:
    """An op that an app accepted; `fields` is a list where the commit made several of it."""

    app: str
    vtxindex: int
    txindex: int
    txid: str
    opcode: bytes
    payload: bytes
    fields: Json | list[Json]


@dataclass(frozen=True, slots=True)
class BlockEvent:
    """A block was taken: its ops and what it did to projections, read in the same moment as its hash."""

    block_id: int
    block_hash: str
    time: datetime
    ops: tuple[AcceptedOp, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class RollbackEvent:
    """Every block above `block_id` was undone; `block_hash` is None where nothing is left."""

    block_id: int
    block_hash: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """How far the apps have come, and the last block of which it is forgotten what it did; else -1."""

    last: int
    pruned: int


class Live:
    """A session that looks at a deployment again and again, and may be told when that is worth it."""

    def __init__(self, url: str) -> None:
        """Open the session, and listen where that can be: neither on a standby nor behind a pooler."""
        self.connection = connect_reader(url)
        set_json_loads(partial(json.loads, parse_float=Decimal), self.connection)
        self.connection.read_only = True
        self.connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        try:
            self.listens = not is_pooled(self.connection)
            if self.listens:
                self.connection.execute(_Q["listen"])
        except psycopg.errors.ReadOnlySqlTransaction:
            self.listens = False
        except BaseException:
            self.connection.close()
            raise

    @contextmanager
    def moment(self) -> Iterator[None]:
        """Let everything inside be seen as of one moment, and at the present block."""
        with self.connection.transaction():
            pin_transaction(self.connection)
            self.connection.execute(_Q["now"])
            yield

    def wait(self, seconds: float) -> bool:
        """Wait for a notification; False where none came in time."""
        return any(True for _ in self.connection.notifies(timeout=seconds, stop_after=1))

    def place(self, apps: Sequence[str] | None) -> Place:
        """Tell where the apps stand: the last of those named, or the first of all."""
        [row] = self._rows("place", apps=_list(apps))
        return Place(**row)

    def rollbacks(self, seen: int) -> tuple[int, int | None]:
        """Give the number of the last rollback, and the lowest fork of those behind number `seen`."""
        [row] = self._rows("rollbacks", seen=seen)
        return row["last"], row["deepest"]

    def hashes(self, block_ids: Sequence[int]) -> dict[int, str]:
        """Give the hashes of those of some blocks that are here."""
        return {row["block_id"]: row["hash"] for row in self._rows("hashes", block_ids=list(block_ids))}

    def blocks(self, first: int, last: int, apps: Sequence[str] | None) -> list[BlockEvent]:
        """Give a stretch of blocks, with what they did."""
        wanted = {"first": first, "last": last, "apps": _list(apps)}
        ops = _by_block(self._rows("ops", **wanted))
        changes = _by_block(self._rows("changes", **wanted))
        return [
            BlockEvent(
                row["block_id"],
                row["hash"],
                row["time"],
                tuple(AcceptedOp(**op) for op in ops.get(row["block_id"], ())),
                tuple(Change(**change) for change in changes.get(row["block_id"], ())),
            )
            for row in self._rows("blocks", first=first, last=last)
        ]

    def _rows(self, query: str, **wanted: object) -> list[dict[str, Any]]:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(_Q[query], wanted).fetchall()


def _by_block(rows: Sequence[Mapping[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["block_id"], []).append(
            {key: value for key, value in row.items() if key != "block_id"}
        )
    return found


def _list(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)

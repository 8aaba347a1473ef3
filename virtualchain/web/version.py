"""Which state of the deployment an answer shows, so that an answer can be kept until there is another."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

import anyio.to_thread
from psycopg.rows import dict_row

from virtualchain.errors import VirtualchainError
from virtualchain.store.sql import queries
from virtualchain.web.sessions import Sessions

_Q = queries("web")
FRESH: Final = 0.1
"""Seconds for which a version that was read counts as the present one, however many requests come."""


@dataclass(frozen=True, slots=True)
class Version:
    """The state that the pages show, but for pending inputs."""

    block_id: int | None
    """The last block on the tape; None if there is none."""
    block_hash: str | None
    reorg_id: int
    """The number of the last rollback; 0 if there was none."""
    fork_block_id: int | None
    blocks_undone: int | None
    ops_undone: int | None
    """What that rollback undid."""
    digest: str
    """Another one for each other state."""


class Versions:
    """Reads the version when it is asked for, at most every `FRESH` seconds."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._lock = asyncio.Lock()
        self._known: Version | None = None
        self._read_at = float("-inf")
        self._expired = 0

    def expire(self) -> None:
        """Have it read again for the next request: a client is about to learn of something newer."""
        self._expired += 1
        self._read_at = float("-inf")

    async def current(self) -> Version | None:
        """Return the version that the database had a moment ago; None if it cannot be read."""
        if time.monotonic() - self._read_at < FRESH:
            return self._known
        async with self._lock:
            while time.monotonic() - self._read_at >= FRESH:
                began, expired = time.monotonic(), self._expired
                try:
                    self._known = await anyio.to_thread.run_sync(self._read)
                except VirtualchainError:
                    self._known = None
                if self._expired != expired:
                    continue
                self._read_at = began if self._known is not None else time.monotonic()
                break
            return self._known

    def _read(self) -> Version:
        with self._sessions.snapshot() as connection, connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(_Q["version"]).fetchone()
        assert row is not None, "the query has one row"
        return Version(
            row["block_id"],
            row["hash"],
            row["reorg_id"] or 0,
            row["fork_block_id"],
            row["blocks_undone"],
            row["ops_undone"],
            row["digest"],
        )

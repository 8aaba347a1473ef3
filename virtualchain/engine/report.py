"""What the writer reports of itself, for whoever looks at the database: `virtualchain.writer` and `progress`.

Nothing is derived from it. Its statements are of their own, between blocks, so that no block waits for them
or is undone with them; a fault of the database in one is a fault of the session. Times are the database's;
the clock here only counts seconds.
"""

import time
from collections.abc import Collection
from contextlib import suppress
from typing import Final

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb

from virtualchain.bitcoin.source import Tip
from virtualchain.engine.measures import Measures, installed_version
from virtualchain.engine.options import Progress
from virtualchain.store.patience import Patience, Session
from virtualchain.store.pipeline import pipeline_of
from virtualchain.store.sql import queries

_Q = queries("report")
EVERY: Final = 10.0
"""Seconds between two reports, at least."""
_SOON: Final = 1.0
"""Seconds between two reports, at least, if the second one has news and the writer is about to wait."""
_LONGEST: Final = 1_000
"""Characters of what is waited for: a node's own words may be in it."""


class Report:
    """What one writer reports, through all of its sessions."""

    def __init__(self, measures: Measures) -> None:
        self._measures = measures
        self._counted = self._totals()
        """What was counted until the last sample."""
        self._began = time.monotonic()
        self._due = self._began
        self._noted_at = self._began
        self._noted: tuple[Tip | None, str | None] = (None, None)
        self._tip: Tip | None = None
        self._stops_for: str | None = None

    def begin(self, connection: psycopg.Connection, confirmations: int, apps: Collection[str]) -> None:
        """Record in a new session how the writer was started: its K, and the apps whose code it has."""
        age = time.monotonic() - self._began
        parameters = {
            "confirmations": confirmations,
            "apps": sorted(apps),
            "age": age,
            "version": installed_version(),
            "metrics": self._metrics(),
        }
        connection.execute(_Q["begin"], parameters)
        self._due = time.monotonic()

    def know(self, tip: Tip, place: int, is_disputed: bool) -> None:
        """Take note of the node's last block, which of several nodes it is, and if another one disagrees."""
        self._tip = tip if tip.block_id >= 0 else None
        self._measures.know(tip.block_id, place, is_disputed=is_disputed)

    def stop_for(self, decision: str) -> None:
        """Take note of what an operator must decide before a writer can go on."""
        self._stops_for = decision

    def count(self, progress: Progress) -> None:
        """Count a block, if it is new to the tape, and what became of its inputs."""
        if progress.app is None:
            self._measures.take(progress.block, progress.inputs)
        for app, tally in progress.tallies.items():
            self._measures.judge(app, progress.block.block_id, tally.accepted, tally.rejected)

    def write(
        self, connection: psycopg.Connection, waits_for: str | None = None, *, is_idle: bool = False
    ) -> None:
        """Write the report if it is due, or if the writer is about to wait and has news.

        Waits for blocks in flight. Raises psycopg.Error.
        """
        now = time.monotonic()
        if now >= self._due:
            self._due = now + EVERY
            self._note(connection, waits_for, now)
            self._sample(connection)
        elif is_idle and (self._tip, waits_for) != self._noted and now - self._noted_at >= _SOON:
            self._note(connection, waits_for, now)

    def end(self, connection: psycopg.Connection) -> None:
        """Record that the writer ends in order, if the session can still do so; a silent server gets 5 s."""
        if connection.closed:
            return
        assert isinstance(connection, Session), "a session of `database`"
        connection.patience = Patience(may_continue=lambda: False)
        with suppress(psycopg.Error):
            pipeline_of(connection).leave()
            if connection.info.transaction_status == TransactionStatus.IDLE:
                self._sample(connection)
                stops_for = None if self._stops_for is None else _storable(self._stops_for)
                connection.execute(_Q["end"], {"stops_for": stops_for, "metrics": self._metrics()})

    def _note(self, connection: psycopg.Connection, waits_for: str | None, now: float) -> None:
        parameters = {
            "node_block_id": None if self._tip is None else self._tip.block_id,
            "node_hash": None if self._tip is None else self._tip.hash,
            "waits_for": None if waits_for is None else _storable(waits_for),
            "metrics": self._metrics(),
        }
        connection.execute(_Q["note"], parameters)
        self._noted, self._noted_at = (self._tip, waits_for), now

    def _sample(self, connection: psycopg.Connection) -> None:
        totals = self._totals()
        inputs, ops, rejections = (now - then for now, then in zip(totals, self._counted, strict=True))
        parameters = {
            "node_block_id": None if self._tip is None else self._tip.block_id,
            "inputs": inputs,
            "ops": ops,
            "rejections": rejections,
        }
        connection.execute(_Q["sample"], parameters)
        self._counted = totals

    def _totals(self) -> tuple[int, int, int]:
        measures = self._measures
        return measures.inputs, sum(measures.ops.values()), sum(measures.refusals.values())

    def _metrics(self) -> Jsonb:
        return Jsonb([sample.as_json() for sample in self._measures.samples()])


def _storable(text: str) -> str:
    """Return text as the database can store it."""
    return text[:_LONGEST].replace("\0", "").encode("utf-8", "replace").decode()

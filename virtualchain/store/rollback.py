"""Undo blocks: bring tape, log and every build's projections back to what they were after a block."""

from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

from virtualchain.model import Reorg
from virtualchain.store.builds import Build, builds
from virtualchain.store.history import History
from virtualchain.store.projections import projections
from virtualchain.store.sql import queries
from virtualchain.store.tape import Tape

_Q = queries("rollback")
_TRUNCATE = (
    "truncate_rejections",
    "truncate_snapshots",
    "truncate_state_files",
    "lower_tracking",
    "forget_unexpected",
)


@dataclass(frozen=True, slots=True)
class Undone:
    """What a rollback undid: blocks, ops of live builds, rows of projections removed or put back."""

    blocks: int
    ops: int
    rows: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Ops of live builds, and rows of projections removed or put back."""

    ops: int
    rows: int

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.ops + other.ops, self.rows + other.rows)


NOTHING: Final = Counts(0, 0)


def count_replaced(connection: psycopg.Connection, old: Build, new: Build, fork_block_id: int) -> Counts:
    """Count what it undoes to replace a live build by one that ends at the fork; both must still exist."""
    place = {"app": old.app, "build": old.name, "fork": fork_block_id}
    row = connection.execute(_Q["count_ops"], place).fetchone()
    rows = 0
    if old.keeps_tables and new.keeps_tables:
        before, after = (projections(connection, build.tables) for build in (old, new))
        for ours, theirs in zip(before, after, strict=True):
            statement = sql.SQL(_Q["count_rows"]).format(
                old=ours.table, new=theirs.table, fork=sql.Literal(fork_block_id)
            )
            changed = connection.execute(statement).fetchone()
            rows += 0 if changed is None else changed[0]
    return Counts(0 if row is None else row[0], rows)


def undo(connection: psycopg.Connection, fork_block_id: int, replaced: Counts = NOTHING) -> Undone:
    """Undo every block above the fork, in the caller's transaction; `replaced` is counted with the rest.

    The history of every build above it must reach down to it. Other processes that advance builds of their
    own hold the blocks that they work on: this waits for them.
    """
    connection.execute(_Q["defer_constraints"])
    blocks = Tape(connection).truncate(fork_block_id)
    ops, rows = replaced.ops, replaced.rows
    for build in builds(connection):
        if not build.is_above(fork_block_id):
            continue
        assert build.lowest_rollback <= fork_block_id, f"the history of {build.tables} ends above the fork"
        if build.keeps_tables:
            rows += History(connection, projections(connection, build.tables)).undo(fork_block_id)
        place = {"app": build.app, "build": build.name, "fork": fork_block_id}
        dropped_ops = connection.execute(_Q["truncate_ops"], place).rowcount
        ops += dropped_ops if build.is_live else 0
        for query in _TRUNCATE:
            connection.execute(_Q[query], place)
    connection.execute(_Q["check_constraints"])
    return Undone(blocks, ops, rows)


def record(connection: psycopg.Connection, reorg: Reorg, undone: Undone, seconds: float) -> None:
    """Keep a rollback for `virtualchain.reorgs`."""
    connection.execute(
        _Q["record"],
        {
            "fork": reorg.fork_block_id,
            "old_block_id": reorg.old_tip.block_id,
            "old_hash": reorg.old_tip.hash,
            "new_block_id": reorg.new_tip and reorg.new_tip.block_id,
            "new_hash": reorg.new_tip and reorg.new_tip.hash,
            "depth": reorg.depth,
            "blocks": undone.blocks,
            "ops": undone.ops,
            "rows": undone.rows,
            "seconds": seconds,
            "cause": reorg.cause,
        },
    )

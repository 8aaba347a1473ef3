"""Undo blocks: bring tape, log and every build's projections back to what they were after a block."""

from dataclasses import dataclass

import psycopg

from virtualchain.model import Reorg
from virtualchain.store.builds import builds
from virtualchain.store.history import History
from virtualchain.store.projections import projections
from virtualchain.store.sql import queries
from virtualchain.store.tape import Tape

_Q = queries("rollback")
_TRUNCATE = ("truncate_rejections", "truncate_snapshots", "truncate_state_files")


@dataclass(frozen=True, slots=True)
class Undone:
    """What a rollback undid: blocks, ops of live builds, rows of projections removed or put back."""

    blocks: int
    ops: int
    rows: int


def undo(connection: psycopg.Connection, fork_block_id: int) -> Undone:
    """Undo every block above the fork, in the caller's transaction.

    The history of every build above it must reach down to it. Other processes that advance builds of their
    own hold the blocks that they work on: this waits for them.
    """
    connection.execute(_Q["defer_constraints"])
    blocks = Tape(connection).truncate(fork_block_id)
    ops = rows = 0
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

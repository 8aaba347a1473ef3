"""Free what the tape keeps of old inputs, beside a writer.

An app that has taken a block needs its inputs only to be derived again. Their rows stay, with place, id,
magics and fee, which ops and rejections refer to; what is large goes: the raw transaction, what it spends,
and what shows that it is in its block. A part is one transaction, in which the blocks also stop to count as
searched: whatever derives an app from the tape finds that it has to search them again, at the node, or that
it cannot.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import psycopg

from virtualchain.errors import UsageError
from virtualchain.store.builds import Build, lock_builds
from virtualchain.store.database import connect_migrator
from virtualchain.store.tape import Tape

_MOST: Final = 2000
"""Inputs in one transaction, during which no block is taken: some hundredths of a second."""
_VACUUM: Final = 50_000
"""Inputs after which their old rows are made room for the next ones."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was dropped, or would be."""

    before: int
    """Of blocks below this one nothing is left."""
    inputs: int
    size: int
    """Bytes, as they are stored."""
    is_complete: bool = True
    """False if it was ended early: then `before` is how far it came."""


def prune(
    url: str,
    *,
    before: int | None = None,
    keep: int | None = None,
    dry_run: bool = False,
    may_continue: Callable[[], bool] = lambda: True,
) -> Pruned:
    """Prune the inputs of all blocks below `before`, or of all but the last `keep` blocks.

    With `dry_run`, nothing is changed. A writer may run meanwhile; what is interrupted is continued by the
    next call. Raises UsageError if the tape does not reach that far, or an app still needs these inputs.
    """
    with closing(connect_migrator(url)) as connection:
        connection.autocommit = True
        tape = Tape(connection)
        tip, bottom = tape.tip(), tape.bottom()
        if tip is None or bottom is None:
            raise UsageError("the tape is empty: there is nothing to prune")
        if before is None:
            before = max(tip.block_id + 1 - (keep or 0), bottom.block_id)
        if before > tip.block_id + 1:
            raise UsageError(f"the tape ends at block {tip.block_id}: prune before block {before} later")
        first, last = bottom.block_id, before - 1
        with connection.transaction():
            _require_taken(lock_builds(connection), last)
        inputs, size = tape.prunable(first, last)
        if dry_run:
            return Pruned(before, inputs, size)
        return Pruned(*_prune(connection, first, last, may_continue), size, is_complete=may_continue())


def _prune(
    connection: psycopg.Connection, first: int, last: int, may_continue: Callable[[], bool]
) -> tuple[int, int]:
    """Prune part by part; return the first block that is left, and how many inputs were pruned."""
    tape = Tape(connection)
    total = unvacuumed = 0
    while first <= last and may_continue():
        with connection.transaction():
            _require_taken(lock_builds(connection), last)  # who advances a build waits until the part is done
            until = tape.prune_part(first, last, _MOST)
            count = tape.prune(first, until)
        first, total, unvacuumed = until + 1, total + count, unvacuumed + count
        if unvacuumed >= _VACUUM or (first > last and unvacuumed):
            tape.vacuum()
            unvacuumed = 0
    return first, total


def _require_taken(builds: Sequence[Build], last: int) -> None:
    """Raise UsageError if a build has still to take a block up to `last`."""
    for build in builds:
        if build.block_id < last and build.base_block_id < last:
            which = f"app {build.app}" if build.is_live else f"build {build.name} of app {build.app}"
            raise UsageError(
                f"{which} is at block {build.block_id} and needs the inputs of the blocks after it: let it "
                f"catch up, or remove it, or prune before block {build.block_id + 1}"
            )

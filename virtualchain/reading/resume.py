"""What comes after a position, read without anything but the position: in any transaction, on any server."""

from virtualchain.errors import StoreError, UsageError
from virtualchain.reading.events import Available, BlockEvent, Reader, RollbackEvent
from virtualchain.reading.position import Position


class NotThere(UsageError):
    """What follows the position cannot be read: it was pruned, or the deployment never had that block."""


class NotReached(StoreError):
    """The tape ends below the position, as on a standby that lags: the same request may succeed later."""


def present(reader: Reader, apps: list[str] | None) -> Position:
    """Return the position after the last block that the named apps, or the first of all, have taken."""
    last = reader.available(apps).last
    return Position(last) if last < 0 else reader.place(last)


def read_after(
    reader: Reader, apps: list[str] | None, after: Position, most: int
) -> list[BlockEvent | RollbackEvent]:
    """Return what follows a position: a rollback, or up to `most` blocks; nothing if there is nothing yet.

    Raises NotThere and NotReached.
    """
    rollback = find_undone(reader, after)
    if rollback is not None:
        return [rollback]
    available = reader.available(apps)
    refuse_pruned(available, after.block_id + 1)
    last = min(available.last, after.block_id + most)
    return [] if last <= after.block_id else [*reader.blocks(after.block_id + 1, last, apps)]


def refuse_pruned(available: Available, first: int) -> None:
    """Raise NotThere if the changes of a block are no longer kept."""
    if first <= available.pruned:
        raise NotThere(f"history is kept from block {available.pruned + 1} on: begin there, not with {first}")


def find_undone(reader: Reader, after: Position) -> RollbackEvent | None:
    """Return the rollback that undid the block of a position, None if that is on the tape.

    Raises NotReached if the tape does not reach that block yet, and NotThere if it has another block there,
    which no rollback explains.
    """
    last, deepest = reader.rollbacks(after.rollbacks or 0)
    was_undone = deepest is not None and deepest < after.block_id
    if after.block_hash is None:
        was_undone = was_undone and after.rollbacks is not None
    elif reader.hashes([after.block_id]).get(after.block_id) == after.block_hash:
        return None
    elif not was_undone and reader.tip() < after.block_id:
        raise NotReached(f"the tape ends below block {after.block_id}: waiting for it")
    elif not was_undone:
        raise NotThere(
            f"position {after} is not of this deployment, which never had that block: read the tables "
            "again, and continue from there"
        )
    if not was_undone or deepest is None:
        return None
    return RollbackEvent(deepest, reader.hashes([deepest]).get(deepest), last)

"""Which calls of callbacks can be undone alone: those that a block was found to need it for.

A rejected call must leave nothing behind, and a failed statement ends a transaction, so such a call needs a
savepoint, in front of which all statements before it are waited for. Few blocks have one. A block is judged
without; a call that must be undone has the block judged again, up to there as before.
"""

from dataclasses import dataclass
from typing import Self


class NeedsCare(Exception):
    """A call must be undone alone, or a statement that was sent ahead has failed.

    `call` is that call's number; it is None if the statement was sent at the block's end.
    """

    def __init__(self, call: int | None) -> None:
        super().__init__(call)
        self.call = call


@dataclass(frozen=True, slots=True)
class Care:
    """The calls of one block that have a savepoint: one, and all from a certain one on.

    Calls are counted from 0, in the order in which a block's callbacks run.
    """

    call: int | None = None
    start: int | None = None

    def covers(self, call: int) -> bool:
        """Return whether a call has a savepoint."""
        return call == self.call or (self.start is not None and call >= self.start)

    @property
    def is_complete(self) -> bool:
        """Return whether every call has one."""
        return self.start == 0

    def after(self, needed: NeedsCare) -> Self:
        """Return what to judge the block with next: the second call that needs it will not be the last."""
        if needed.call is None or self.start is not None:
            return type(self)(start=0)
        if self.call is None:
            return type(self)(call=needed.call)
        return type(self)(call=self.call, start=needed.call)


NO_CARE = Care()
FULL_CARE = Care(start=0)

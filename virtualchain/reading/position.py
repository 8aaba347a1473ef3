"""`Position`: how far a program is that follows a deployment, as one line of text that it can keep."""

import re
from dataclasses import dataclass
from typing import Final, Self

from virtualchain.errors import UsageError, quoted

_TEXT: Final = re.compile(
    "(?P<block>-1|[0-9]{1,10})(?:-(?P<hash>[0-9a-f]{64})(?:-(?P<last>[0-9]{1,18}))?|--(?P<alone>[0-9]{1,18}))?"
)
_HIGHEST: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two events: everything up to a block is known, and nothing above it.

    As text it is `HEIGHT-HASH-NUMBER`, `HEIGHT--NUMBER` if no block was left, or `HEIGHT` alone.
    """

    block_id: int
    """The last block that is known; -1 if none is."""
    block_hash: str | None = None
    """Its hash; None: whatever the tape has there."""
    rollbacks: int | None = None
    """Number of the rollback (`virtualchain.reorgs.reorg_id`) after which this was so; 0 if there was none.

    None if it is not known: then the block may have been undone by any rollback that there ever was.
    """

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        known = self.block_hash or ""
        number = "" if self.rollbacks is None else f"-{self.rollbacks}"
        return f"{self.block_id}-{known}{number}" if known or number else str(self.block_id)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a position; raises UsageError if the text is not one."""
        match = _TEXT.fullmatch(text)
        if match is None or int(match["block"]) > _HIGHEST:
            raise UsageError(
                f"{quoted(text)} is not a position: write a block's height, or the `position` of an event"
            )
        number = match["last"] or match["alone"]
        return cls(int(match["block"]), match["hash"], None if number is None else int(number))

"""When names become free to be etched: the shorter, the later."""

from typing import Final

from virtualchain.examples.runes.names import FIRST_RESERVED, first_of, name_of
from virtualchain.examples.runes.params import LONGEST_FREE_NAME, U32_MAX, UNLOCK_INTERVAL, UNLOCK_STEPS

_FIRST_FREE: Final = first_of(LONGEST_FREE_NAME)


def minimum_at(height: int, first_block: int) -> int:
    """Return the number of the shortest name that can be etched at a height.

    From one interval's end to the next, it falls in a straight line from the first name of a length to the
    first name of the length below. `first_block` is the height at which the protocol begins.
    """
    offset = min(height + 1, U32_MAX)
    if offset < first_block:
        return _FIRST_FREE
    if offset >= first_block + UNLOCK_STEPS * UNLOCK_INTERVAL:
        return 0
    step, progress = divmod(offset - first_block, UNLOCK_INTERVAL)
    start = first_of(LONGEST_FREE_NAME - step)
    end = first_of(LONGEST_FREE_NAME - 1 - step)
    return start - (start - end) * progress // UNLOCK_INTERVAL


def unlock_height(number: int, first_block: int) -> int | None:
    """Return the first height at which a name can be etched; None if it is reserved."""
    if number >= FIRST_RESERVED:
        return None
    if number >= _FIRST_FREE:
        return 0
    length = len(name_of(number))
    start, end = first_of(length + 1), first_of(length)
    progress = ((start - number) * UNLOCK_INTERVAL - 1) // (start - end)
    return first_block + (UNLOCK_STEPS - length) * UNLOCK_INTERVAL + progress

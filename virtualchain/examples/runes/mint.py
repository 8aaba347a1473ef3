"""When a mint is accepted."""

from virtualchain.examples.runes.entry import Entry
from virtualchain.examples.runes.params import U64_MAX
from virtualchain.examples.runes.runestone import Terms


def mint_problem(entry: Entry | None, height: int) -> str | None:
    """Return why a rune cannot be minted in a block at `height`; None if it can."""
    if entry is None:
        return "there is no such rune"
    if entry.terms is None:
        return "the rune has no terms"
    start, end = mint_window(entry.terms, entry.id.block)
    if start is not None and height < start:
        return f"minting starts at block {start}"
    if end is not None and height >= end:
        return f"minting ended at block {end}"
    cap = entry.terms.cap or 0
    return None if entry.mints < cap else f"all {cap} mints are used"


def mint_window(terms: Terms, etched: int) -> tuple[int | None, int | None]:
    """Return the first height at which minting is open, and the first at which it is closed again.

    `etched` is the height of the etching. If there are two limits, the narrower one counts; None: no limit.
    """
    starts = [terms.height_start, _offset(etched, terms.offset_start)]
    ends = [terms.height_end, _offset(etched, terms.offset_end)]
    return (
        max((start for start in starts if start is not None), default=None),
        min((end for end in ends if end is not None), default=None),
    )


def _offset(etched: int, offset: int | None) -> int | None:
    return None if offset is None else min(etched + offset, U64_MAX)

"""When an etching is accepted, and what becomes of it."""

from virtualchain.examples.runes.entry import Entry
from virtualchain.examples.runes.names import FIRST_RESERVED, name_of, reserved
from virtualchain.examples.runes.rune_id import RuneId
from virtualchain.examples.runes.runestone import Cenotaph, Etching, Runestone
from virtualchain.examples.runes.unlock import minimum_at


def etched_name(artifact: Runestone | Cenotaph | None) -> int | None:
    """Return the number of the name that a message wants to etch; None if it names none."""
    if isinstance(artifact, Cenotaph):
        return artifact.etching
    return None if artifact is None or artifact.etching is None else artifact.etching.rune


def is_etching(artifact: Runestone | Cenotaph | None) -> bool:
    """Check whether a message wants to etch a rune; a cenotaph only etches one that it names."""
    return artifact is not None and artifact.etching is not None


def name_problem(number: int, height: int, first_block: int) -> str | None:
    """Return why nobody can etch a name in a block at `height`; None if somebody can.

    `first_block` is the height at which the protocol begins.
    """
    if number >= FIRST_RESERVED:
        return "the name is reserved"
    minimum = minimum_at(height, first_block)
    return None if number >= minimum else f"names are free from {name_of(minimum)} on"


def entry_of(
    artifact: Runestone | Cenotaph, rune_id: RuneId, etching: str, number: int, timestamp: int
) -> Entry:
    """Make the entry of an accepted etching; a cenotaph's has a name only.

    `etching` is the txid, `number` counts the runes before it.
    """
    name = etched_name(artifact)
    rune = reserved(rune_id) if name is None else name
    if not isinstance(artifact, Runestone):
        return Entry(rune_id, etching, number, rune, timestamp)
    described = artifact.etching or Etching()
    return Entry(
        id=rune_id,
        etching=etching,
        number=number,
        rune=rune,
        timestamp=timestamp,
        spacers=described.spacers or 0,
        divisibility=described.divisibility or 0,
        symbol=described.symbol,
        terms=described.terms,
        premine=described.premine or 0,
        turbo=described.turbo,
    )

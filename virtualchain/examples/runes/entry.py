"""What the state knows of a rune."""

from dataclasses import dataclass

from virtualchain.examples.runes.names import name_of, with_spacers
from virtualchain.examples.runes.rune_id import RuneId
from virtualchain.examples.runes.runestone import Terms


@dataclass(frozen=True, slots=True)
class Entry:
    """A rune that was etched."""

    id: RuneId
    etching: str
    """The txid of the transaction that etched it."""
    number: int
    """How many runes were etched before it."""
    rune: int
    """The number of its name."""
    timestamp: int
    """The time in its block's header, in Unix seconds."""
    spacers: int = 0
    divisibility: int = 0
    symbol: int | None = None
    """A code point."""
    terms: Terms | None = None
    """None: it cannot be minted."""
    premine: int = 0
    mints: int = 0
    """How often it was minted."""
    burned: int = 0
    turbo: bool = False

    @property
    def name(self) -> str:
        """The name, without spacers."""
        return name_of(self.rune)

    @property
    def spaced_name(self) -> str:
        """The name as it is shown."""
        return with_spacers(self.rune, self.spacers)

    @property
    def supply(self) -> int:
        """The amount that was ever made, what was burned included."""
        minted = 0 if self.terms is None else self.mints * (self.terms.amount or 0)
        return self.premine + minted

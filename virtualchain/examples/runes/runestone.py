"""What a transaction says: a runestone, or, if it is malformed, a cenotaph."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from virtualchain.examples.runes.rune_id import RuneId


class Flaw(StrEnum):
    """What makes a message a cenotaph."""

    OPCODE = "opcode"
    INVALID_SCRIPT = "invalid-script"
    VARINT = "varint"
    TRUNCATED_FIELD = "truncated-field"
    TRAILING_INTEGERS = "trailing-integers"
    EDICT_RUNE_ID = "edict-rune-id"
    EDICT_OUTPUT = "edict-output"
    SUPPLY_OVERFLOW = "supply-overflow"
    UNRECOGNIZED_FLAG = "unrecognized-flag"
    UNRECOGNIZED_EVEN_TAG = "unrecognized-even-tag"


class Edict(NamedTuple):
    """An amount of a rune that an output is to have; the number of all outputs means each of them."""

    id: RuneId
    amount: int
    output: int


@dataclass(frozen=True, slots=True)
class Terms:
    """How much may be minted, how often and when; every limit may be absent."""

    amount: int | None = None
    """What each mint yields."""
    cap: int | None = None
    """How many mints there may be; absent: none."""
    height_start: int | None = None
    height_end: int | None = None
    """The first height at which minting is open, and the first at which it is closed."""
    offset_start: int | None = None
    offset_end: int | None = None
    """The same, counted from the block of the etching."""

    @property
    def mintable(self) -> int:
        """The amount that all mints together may yield."""
        return (self.cap or 0) * (self.amount or 0)


@dataclass(frozen=True, slots=True)
class Etching:
    """A new rune, as its message describes it; None stands for a field that is absent."""

    divisibility: int | None = None
    premine: int | None = None
    rune: int | None = None
    """The number of its name."""
    spacers: int | None = None
    symbol: int | None = None
    """A code point."""
    terms: Terms | None = None
    turbo: bool = False

    @property
    def supply(self) -> int:
        """The largest amount that there can ever be."""
        return (self.premine or 0) + (0 if self.terms is None else self.terms.mintable)


@dataclass(frozen=True, slots=True)
class Runestone:
    """A well-formed message."""

    edicts: tuple[Edict, ...] = ()
    etching: Etching | None = None
    mint: RuneId | None = None
    pointer: int | None = None
    """The output that receives what no edict gives away."""


@dataclass(frozen=True, slots=True)
class Cenotaph:
    """A malformed message: it burns every rune that the transaction spends or mints."""

    flaw: Flaw
    """The first flaw."""
    etching: int | None = None
    """The number of the name that it etches, with nothing else."""
    mint: RuneId | None = None

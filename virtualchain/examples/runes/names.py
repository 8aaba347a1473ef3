"""Names of runes: numbers written in letters, and the spacers between the letters.

The letters are a bijective base 26: A is 0, Z is 25, AA is 26. Spacers are for the eye; two names that differ
in spacers only are the same.
"""

from typing import Final

from virtualchain.examples.runes.params import RESERVED_LETTERS, U128_MAX
from virtualchain.examples.runes.rune_id import RuneId

SPACER: Final = "•"
_SPACERS: Final = frozenset({SPACER, "."})
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class InvalidName(ValueError):
    """Text that is not a name; `kind` says what is wrong with it."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"not the name of a rune: {kind}")
        self.kind = kind


def name_of(number: int) -> str:
    """Write a number as a name."""
    letters = []
    number += 1
    while number > 0:
        number, letter = divmod(number - 1, len(_LETTERS))
        letters.append(_LETTERS[letter])
    return "".join(reversed(letters))


def number_of(name: str) -> int:
    """Read a name without spacers as a number; raises InvalidName (`character`, `range`, `empty`)."""
    if not name:
        raise InvalidName("empty")
    number = -1
    for character in name:
        letter = _LETTERS.find(character)
        if letter < 0:
            raise InvalidName("character")
        number = (number + 1) * len(_LETTERS) + letter
        if number > U128_MAX:
            raise InvalidName("range")
    return number


def first_of(length: int) -> int:
    """Return the number of the first name of a length: as many letters A."""
    return number_of("A" * length)


FIRST_RESERVED: Final = first_of(RESERVED_LETTERS)
"""The number from which on no name can be chosen."""


def reserved(rune_id: RuneId) -> int:
    """Return the number of the name that an etching without a name gets."""
    return FIRST_RESERVED + (rune_id.block << 32 | rune_id.tx)


def with_spacers(number: int, spacers: int) -> str:
    """Write a name with its spacers: bit i puts one after letter i, but none follows the last letter."""
    name = name_of(number)
    return "".join(
        letter + SPACER if spacers >> place & 1 and place < len(name) - 1 else letter
        for place, letter in enumerate(name)
    )


def parse_spaced(text: str) -> tuple[int, int]:
    """Read a name with spacers, `•` or `.`; return its number and its spacers.

    Raises InvalidName (also `leading-spacer`, `double-spacer`, `trailing-spacer`).
    """
    letters, spacers = "", 0
    for character in text:
        if character not in _SPACERS:
            letters += character
            if character not in _LETTERS:
                raise InvalidName("character")
            continue
        if not letters:
            raise InvalidName("leading-spacer")
        bit = 1 << len(letters) - 1
        if spacers & bit:
            raise InvalidName("double-spacer")
        spacers |= bit
    if letters and spacers >> len(letters) - 1:
        raise InvalidName("trailing-spacer")
    return number_of(letters), spacers

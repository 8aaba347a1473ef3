"""The rune that is there before the first block of mainnet."""

from collections.abc import Sequence
from typing import Final

from virtualchain.examples.runes.entry import Entry
from virtualchain.examples.runes.params import U128_MAX
from virtualchain.examples.runes.rune_id import RuneId
from virtualchain.examples.runes.runestone import Terms

UNCOMMON_GOODS: Final = Entry(
    id=RuneId(1, 0),
    etching="00" * 32,
    number=0,
    rune=2_055_900_680_524_219_742,
    timestamp=0,
    spacers=128,
    symbol=0x29C9,
    terms=Terms(amount=1, cap=U128_MAX, height_start=840_000, height_end=1_050_000),
    turbo=True,
)
"""UNCOMMON•GOODS, which anyone can mint until the next halving but one."""


def initial_entries(network: str) -> Sequence[Entry]:
    """Return the runes that are there before the first block of a network."""
    return [UNCOMMON_GOODS] if network == "mainnet" else []

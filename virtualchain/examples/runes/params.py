"""The protocol's numbers, and what differs between networks, as data.

The values are those of docs/protocol/runes.md. Heights are Bitcoin block heights.
"""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from virtualchain.errors import UsageError, quoted

U32_MAX: Final = 2**32 - 1
U64_MAX: Final = 2**64 - 1
U128_MAX: Final = 2**128 - 1

FIRST_BLOCK: Final[Mapping[str, int]] = MappingProxyType(
    {"mainnet": 840_000, "testnet3": 2_520_000, "testnet4": 0, "signet": 0, "regtest": 0}
)
"""The height at which the protocol begins, by network; blocks below it are ignored."""


def first_block_of(network: str) -> int:
    """Return the height at which it begins on a network, such as `signet` or `signet-0a1b2c3d`.

    Raises UsageError for a network without it.
    """
    name = network.partition("-")[0]
    if name not in FIRST_BLOCK:
        raise UsageError(
            f"there is no network {quoted(network)} with runes: {', '.join(FIRST_BLOCK)} have them"
        )
    return FIRST_BLOCK[name]


# Messages.

MAX_VARINT_BYTES: Final = 19
"""The most bytes of an integer, of which the last has two bits only: 18 * 7 + 2 = 128."""
MAX_DIVISIBILITY: Final = 38
"""The most digits after the point: 10^38 is the largest power of ten below 2^128."""
MAX_SPACERS: Final = 2**27 - 1
"""A bit for each gap between the letters of the longest name."""
MAX_SYMBOL: Final = 0x10FFFF
SURROGATES: Final = range(0xD800, 0xE000)
"""Code points that are not characters."""


class Tag(IntEnum):
    """What an integer of a message stands in front of. Even tags must be known, odd ones need not."""

    BODY = 0
    DIVISIBILITY = 1
    FLAGS = 2
    SPACERS = 3
    RUNE = 4
    SYMBOL = 5
    PREMINE = 6
    CAP = 8
    AMOUNT = 10
    HEIGHT_START = 12
    HEIGHT_END = 14
    OFFSET_START = 16
    OFFSET_END = 18
    MINT = 20
    POINTER = 22


class Flag(IntEnum):
    """The bits of the integer with the tag FLAGS; the last two count only beside the first."""

    ETCHING = 1
    TERMS = 2
    TURBO = 4


KNOWN_FLAGS: Final = Flag.ETCHING | Flag.TERMS | Flag.TURBO


# Names.

LONGEST_FREE_NAME: Final = 13
"""Names of this many letters and more can be etched from the first block on."""
UNLOCK_INTERVAL: Final = 17_500
"""The number of blocks over which the names of one length become free."""
UNLOCK_STEPS: Final = 12
"""The number of these intervals: after the last one, all names are free."""
RESERVED_LETTERS: Final = 27
"""Names of this many letters and more are reserved for etchings without a name."""

# Commitments.

COMMIT_CONFIRMATIONS: Final = 6
"""The confirmations, its own block included, that the output of a commitment needs."""

"""How long a first sync of mainnet takes, computed from what was measured on a chain that resembles it.

Reading ahead runs in threads beside the database, but both need Python's lock, so that their times add up.
The sum is therefore that of taking all blocks without an input, at the measured bytes a second, and of
applying all ops, at the measured ops a second. Only the first depends on the source.
"""

from dataclasses import dataclass
from typing import Final

BYTES: Final = 640e9
"""Bytes of mainnet's blocks."""
OPS: Final = 300e6
"""Ops of the busiest protocol: as many as there are runestones."""


@dataclass(frozen=True)
class Estimate:
    """Hours of a first sync from one source."""

    source: str
    blocks: float
    """Hours for fetching and scanning all blocks, and taking those without an input."""
    ops: float
    """Hours for applying all ops."""

    @property
    def hours(self) -> float:
        """Hours in all."""
        return self.blocks + self.ops


def estimate(bytes_per_second: dict[str, float], ops_per_second: float) -> list[Estimate]:
    """Estimate the first sync from each source, by its rate in a sync that finds no input."""
    return [
        Estimate(source, BYTES / rate / 3600, OPS / ops_per_second / 3600)
        for source, rate in bytes_per_second.items()
    ]

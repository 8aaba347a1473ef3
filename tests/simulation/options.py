"""What is settled at the start of a simulation."""

from dataclasses import dataclass
from random import Random

from tests.simulation.apps import APPS


@dataclass(frozen=True)
class Options:
    """How the engine and the node of a simulation are set."""

    history: int | None = 10
    confirmations: int = 0
    rest: bool = True
    spent: bool = True
    apps: tuple[str, ...] = APPS
    """All that are there in the end."""
    join: tuple[str, ...] = ()
    """Those that are not there at first."""

    @classmethod
    def of(cls, dice: Random) -> "Options":
        """Choose."""
        apps = dice.choice((APPS, APPS, ("plain", "tally"), ("plain", "early"), ("late", "tally", "plain")))
        join = tuple(name for name in apps if name in {"early", "late", "tally"} and dice.random() < 0.4)
        return cls(
            history=dice.choice((10, 10, 10, 1000, 1000, None)),
            confirmations=dice.choice((0, 0, 0, 1, 3)),
            rest=dice.random() < 0.7,
            spent=dice.random() < 0.8,
            apps=apps,
            join=join,
        )

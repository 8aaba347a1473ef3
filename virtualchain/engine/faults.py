"""Faults of the database: how often they came, how long to pause, and when an app is to blame."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import psycopg

from virtualchain.store.failures import is_transient, may_be_of_a_value

Place = tuple[str, int]
"""An app, and the block at which it is its turn."""


class Retry(NamedTuple):
    """What follows a fault: pauses in seconds, one an attempt, and whether an app is to be halted then."""

    pauses: Sequence[float]
    condemns: bool


class Faults:
    """Counts the faults since the last block."""

    def __init__(self, pauses: Sequence[float]) -> None:
        self._pauses = pauses
        self._failures = 0
        self._stuck: Counter[Place] = Counter()
        """How often the database failed in an app's turn, by place: others' blocks change nothing."""
        self._condemned: set[Place] = set()
        """The places after whose last failure the app was to be halted."""

    def clear(self) -> None:
        """Count from zero again, because a block was taken."""
        self._failures = 0

    def add(self, error: psycopg.Error, place: Place | None) -> Retry | None:
        """Count a fault, in an app's turn or not; return None if nothing is to be tried again.

        A fault that comes again and again in one app's turn, at one block, and may be due to values, has that
        app halted alone, once.
        """
        failures = self._failures if place is None else max(self._failures, self._stuck[place])
        is_last = not is_transient(error) or failures >= len(self._pauses)
        is_final = place is None or place in self._condemned or not may_be_of_a_value(error)
        if is_last and is_final:
            return None
        self._failures += 1
        if place is not None:
            self._stuck[place] += 1
            if is_last:
                self._condemned.add(place)
        return Retry(self._pauses[failures:] or self._pauses, condemns=is_last)

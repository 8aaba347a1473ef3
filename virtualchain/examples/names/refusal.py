"""How a rule is written: what it needs, and what is said where that is missing."""

from typing import TypeVar

T = TypeVar("T")


class Refused(ValueError):
    """An operation that a rule refuses; the message says why."""


def needs(condition: bool, otherwise: str) -> None:
    """Refuse the operation unless `condition` holds."""
    if not condition:
        raise Refused(otherwise)


def needs_some(thing: T | None, otherwise: str) -> T:
    """Refuse the operation unless there is such a thing; give it."""
    if thing is None:
        raise Refused(otherwise)
    return thing

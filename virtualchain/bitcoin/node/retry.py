"""Patience with a node that is busy, starting or restarting."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from virtualchain.errors import NodeUnavailable

T = TypeVar("T")

PAUSES: Final = (0.0, 0.1, 0.3, 1.0)
"""Seconds before each further attempt. The first comes at once: it meets a connection dropped while idle."""

LONGEST: Final = 5.0
"""Seconds after which a fault is raised, whatever attempts are left: a time-out has used them up."""


def patiently(ask: Callable[[], T]) -> T:
    """Ask, and ask again where the node is unavailable; the last attempt's NodeUnavailable is raised.

    For questions only: what is asked twice must mean the same as once.
    """
    deadline = time.monotonic() + LONGEST
    for pause in PAUSES:
        try:
            return ask()
        except NodeUnavailable:
            if time.monotonic() > deadline:
                raise
        time.sleep(pause)
    return ask()

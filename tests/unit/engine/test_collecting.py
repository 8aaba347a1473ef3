"""How often a process that runs an engine looks for cycles."""

import gc
from collections.abc import Iterator

import pytest

from virtualchain.engine.deployment import _collect_rarely


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the collector as it was."""
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)


@pytest.mark.parametrize(("first", "then"), [(700, 50_000), (50_001, 50_001), (0, 0)])
def test_cycles_are_looked_for_rarely(first: int, then: int) -> None:
    """Who has it looked for less often, or never, is not overruled; nor are the other thresholds."""
    others = gc.get_threshold()[1:]
    gc.set_threshold(first, *others)
    _collect_rarely()
    assert gc.get_threshold() == (then, *others)

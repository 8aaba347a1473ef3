"""Patience: how often and how long a question is asked again."""

import pytest

from virtualchain.bitcoin.node import retry
from virtualchain.bitcoin.node.retry import patiently
from virtualchain.errors import MissingData, NodeUnavailable


def test_patiently_pauses_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pause comes between two attempts, and the last attempt's error is the one that is raised."""
    events: list[object] = []

    def fail() -> None:
        events.append("asked")
        raise NodeUnavailable(f"attempt {events.count('asked')}")

    monkeypatch.setattr(retry, "PAUSES", (0.25, 0.5))
    monkeypatch.setattr("virtualchain.bitcoin.node.retry.time.sleep", events.append)
    with pytest.raises(NodeUnavailable, match="attempt 3"):
        patiently(fail)
    assert events == ["asked", 0.25, "asked", 0.5, "asked"]


def test_patiently_raises_other_errors_at_once() -> None:
    """An error that stays is not asked for again."""
    asked = []

    def fail() -> None:
        asked.append(1)
        raise MissingData("pruned")

    with pytest.raises(MissingData):
        patiently(fail)
    assert len(asked) == 1


def test_patiently_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that took longer than all patience was the last one, whatever pauses are left."""
    now = iter([0.0, retry.LONGEST + 1])
    monkeypatch.setattr("virtualchain.bitcoin.node.retry.time.monotonic", lambda: next(now))
    asked = []

    def fail() -> None:
        asked.append(1)
        raise NodeUnavailable("timed out")

    with pytest.raises(NodeUnavailable):
        patiently(fail)
    assert len(asked) == 1

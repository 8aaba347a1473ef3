"""The test kit's own checks: no transaction halts the app, and no machine disagrees with another."""

import pytest

from tests.support.runes_chain import ETCHING, TERMS, runestone, script_of
from virtualchain.examples.runes import app
from virtualchain.testing import check_determinism, check_poison, determinism

PREFIX = b"\x6a\x5d"
SAMPLES = [
    script.removeprefix(PREFIX)
    for script in (
        runestone(flags=ETCHING | TERMS, premine=100, cap=5, amount=7, symbol=0x1F600),
        runestone(mint=(1, 1)),
        runestone([(1, 1, 5, 0), (0, 0, 0, 1)], pointer=0),
        runestone([(0, 0, 5, 1)], flags=ETCHING, premine=9, rune=2**80),
        script_of([24, 1]),
    )
]


def carry(payload: bytes) -> bytes:
    """Build the script of a runestone output."""
    return PREFIX + payload


def test_hostile_transactions(database_url: str) -> None:
    """Every case that has a runestone output is an op; none is rejected, and none halts the app."""
    report = check_poison(app, SAMPLES[:2], database_url=database_url, carry=carry)
    assert report.accepted > 250
    assert report.refused == 0


def test_machines_agree(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes, plans, heaps, forks and versions of PostgreSQL arrive at the same rows and hashes."""
    monkeypatch.setattr(determinism, "_MOST_CASES", 50)
    report = check_determinism(app, SAMPLES[:3], database_url=database_url, carry=carry)
    assert report.accepted > 30
    assert len(report.machines) >= 2

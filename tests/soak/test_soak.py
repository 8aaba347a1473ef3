"""A short soak runs, and its report says what grew."""

import json
from dataclasses import replace
from datetime import date

import pytest

from tests.soak.__main__ import main
from tests.soak.measuring import Sample
from tests.soak.report import growth, page, table

DAY = Sample(
    day=7,
    event="restart",
    height=1_000,
    ops=2_000,
    memory=70_000_000,
    handles=13,
    threads=3,
    sessions=1,
    server_memory=9_000_000,
    log_lines=100,
    database=11_000_000,
    log_tables=4_000_000,
    accounts_table=40_000,
    dead=0.25,
    write_ahead_log=16_000_000,
    restarts=1,
)


def test_a_few_days_end_with_the_hashes_of_an_undisturbed_deployment(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Forks, a restart and a kill -9 change nothing, and each day is measured."""
    assert main(["--weeks", "1", "--day", "4", "--minutes", "0.05", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["differences"] == []
    first = report["days"][0]
    assert (first["event"], first["sessions"]) == ("fork of unconfirmed blocks", 1)
    assert first["memory"] > 20_000_000 < first["database"] * 10
    assert first["accounts_table"] > 8_000


def test_what_grows_shows() -> None:
    """Memory that grew by a half between the second and the last third is reported as such."""
    days = [replace(DAY, day=day, memory=100 if day <= 6 else 150) for day in range(1, 10)]
    ratios = growth(days)
    assert ratios["memory of `run`"] == 1.5
    assert set(ratios.values()) == {1, 1.5}


def test_the_page_has_a_line_for_each_week() -> None:
    """It names what differs and what was not tried."""
    days = [replace(DAY, day=day) for day in range(1, 15)]
    assert table(days).count("\n") == 3
    text = page(days, ["another hash"], ["full disk"], date(2026, 11, 27))
    assert "did **not** end alike: another hash" in text
    assert "Not tried: full disk." in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 120
    assert "found nothing" in page(days, [], [], date(2026, 11, 27))

"""What another process finds around it: nothing that an app may look at is as in this one."""

import json
import subprocess
import sys
import time

import pytest

from virtualchain.testing import surroundings
from virtualchain.testing.surroundings import described, foreign_environment

LOOK = """
import json, locale, os, sys, time
own = {name: os.environ.get(name) for name in ("MY_OWN", "USER", "TZ")}
print(json.dumps({**own, "time": time.time(), "hash": hash("a"), "zone": time.timezone,
    "locale": os.environ["LC_ALL"], "steady": time.monotonic()}))
"""


def test_another_process_differs_in_all_that_an_app_may_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash seed, time zone, locale, user and clock; variables of one's own are gone, PATH is not."""
    monkeypatch.setenv("MY_OWN", "5")
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    environment = foreign_environment(shifts_clock=True)
    assert "PATH" in environment
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, check=True
    )
    there = json.loads(done.stdout)
    assert there["MY_OWN"] is None
    assert there["USER"] == "somebody"
    assert environment["PYTHONHASHSEED"] not in {"1", "random"}
    assert there["zone"] in {20700, -20700, -34200, 34200}
    assert f"the locale {there['locale']}" in described()
    days = (there["time"] - time.time()) / 86_400
    assert round(days) == (0 if surroundings._clock() is None else 400)
    assert abs(there["steady"] - time.monotonic()) < 3_600  # waits are as long as ever


def test_without_libfaketime_the_clock_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report does not claim more than was done."""
    monkeypatch.setattr(surroundings, "_clock", lambda: None)
    assert "FAKETIME" not in foreign_environment(shifts_clock=True)
    assert "the same clock, for want of libfaketime" in described()
    monkeypatch.undo()
    assert "FAKETIME" not in foreign_environment()

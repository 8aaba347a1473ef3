"""The targets of `python -m tests.fuzz`, run on their seeds and some changed ones."""

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.__main__ import NAMES
from tests.fuzz.targets import TARGETS


def test_the_command_knows_every_target() -> None:
    """Its list of names, which it does not import, is complete."""
    assert tuple(TARGETS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_target_holds_on_its_seeds(name: str) -> None:
    """No seed fails, unchanged, cut off, or with a changed byte."""
    target, dice = TARGETS[name], Random(7)
    for seed in target.seeds:
        target.run(seed)
        for _ in range(20):
            changed = bytearray(seed)
            changed[dice.randrange(len(seed))] = dice.randrange(256)
            target.run(bytes(changed))
            target.run(seed[: dice.randrange(len(seed))])


def test_a_failure_can_be_run_again(tmp_path: Path) -> None:
    """`--input FILE` runs one target on one file."""
    file = tmp_path / "fields-crash"
    file.write_bytes(TARGETS["fields"].seeds[0])
    command = [sys.executable, "-m", "tests.fuzz", "--target", "fields", "--input", str(file)]
    result = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr

"""Measurements in processes of their own: so the peak memory of each is that of the measurement alone."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def measured(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a program of this folder; return the JSON that it prints."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments]
    process = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(process.stdout)
    return result

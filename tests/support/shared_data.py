"""Access to real data that is too large for the repository."""

from pathlib import Path

import pytest


def shared(path: str) -> Path:
    """Return the path of a file in the shared data folder; skip the test if it is missing."""
    root = Path(__file__).parents[3] / "shared" / "data"
    file = root / path
    if not file.exists():
        pytest.skip(f"shared/data/{path} is missing")
    return file

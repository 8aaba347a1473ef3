"""Where tests find the real data that is too large to live in the project."""

from pathlib import Path

import pytest


def shared(path: str) -> Path:
    """Find a file of the shared data folder, or skip the test where it is not here."""
    root = Path(__file__).parents[3] / "shared" / "data"
    file = root / path
    if not file.exists():
        pytest.skip(f"shared/data/{path} is not here")
    return file

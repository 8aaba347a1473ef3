"""A way to damage the deployment of `tests.support.damage`."""

from typing import Any

import pytest


def case(name: str, statement: str, message: str, **place: Any) -> Any:
    """Describe a damage: the statement that does it, and the fault that it must be."""
    return pytest.param(statement, message, place, id=name)

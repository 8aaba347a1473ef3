"""Fixtures that tests of the engine share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.foreseeing import Foreseeing
from virtualchain.app.declarations import read_contract
from virtualchain.engine.options import Listener, Options
from virtualchain.engine.versions import build_beside


@pytest.fixture
def make_build(database_url: str, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that makes a build of an app beside the live build."""

    def make(app: object, build: str, **options: Any) -> Any:
        settings = Options(state_folder=tmp_path)
        return build_beside(database_url, read_contract(app), build, settings, Listener(**options))

    return make


@pytest.fixture
def foresee(database_url: str) -> Foreseeing:
    """Return a function that judges transactions as the next block."""
    return Foreseeing(database_url)

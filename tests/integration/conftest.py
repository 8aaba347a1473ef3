"""What the engine's tests share: an app that accepts everything, and engines on a fake node."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from virtualchain import StateEngine
from virtualchain.testing import FakeNode

Rows = list[dict[str, Any]]


@pytest.fixture
def query(database_url: str) -> Callable[..., Rows]:
    """Return a function that asks the test's database in a session of its own."""

    def ask(statement: str, parameters: Any = None) -> Rows:
        with psycopg.connect(database_url, row_factory=dict_row) as connection:
            return connection.execute(statement.encode(), parameters).fetchall()

    return ask


@pytest.fixture
def run(database_url: str, fake_node: FakeNode) -> Callable[..., int]:
    """Return a function that runs apps on the fake node up to its tip, in an engine of its own."""

    def build(*apps: object, to: int | None = None, **options: Any) -> int:
        settings = {"database": database_url, "source": fake_node.url, "confirmations": 0, **options}
        with StateEngine(*apps, **settings) as engine:
            return engine.build(to)

    return build

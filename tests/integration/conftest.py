"""Fixtures that integration tests share: queries, and engines on a fake node."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from virtualchain import StateEngine
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Rows = list[dict[str, Any]]
Query = Callable[..., Rows]
Run = Callable[..., int]


@pytest.fixture
def query(database_url: str) -> Callable[..., Rows]:
    """Return a function that queries the test's database in a session of its own."""

    def execute(statement: str, parameters: Any = None) -> Rows:
        with psycopg.connect(database_url, row_factory=dict_row) as connection:
            return connection.execute(statement.encode(), parameters).fetchall()

    return execute


@pytest.fixture
def run(database_url: str, fake_node: FakeNode, tmp_path: Path) -> Callable[..., int]:
    """Return a function that runs apps on the fake node up to its tip and returns the last block.

    Each call opens an engine of its own. Files of apps with an opaque state go into a folder of the test.
    """

    def build(*apps: object, to: int | None = None, **options: Any) -> int:
        settings: dict[str, Any] = {
            "database": database_url,
            "source": fake_node.url,
            "confirmations": 0,
            "state_folder": tmp_path,
            **options,
        }
        with StateEngine(*apps, **settings) as engine:
            return engine.build(to)

    return build


@pytest.fixture
def fresh_index(database_server: DatabaseServer, fake_node: FakeNode) -> Iterator[Callable[..., str]]:
    """Return a function that runs apps on the fake node into a new database and returns its URL."""
    urls: list[str] = []

    def index(*apps: object, **options: Any) -> str:
        urls.append(database_server.clone())
        settings: dict[str, Any] = {
            "database": urls[-1],
            "source": fake_node.url,
            "confirmations": 0,
            **options,
        }
        with StateEngine(*apps, **settings) as engine:
            engine.build()
        return urls[-1]

    yield index
    for url in urls:
        database_server.drop(url)

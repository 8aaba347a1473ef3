"""Fixtures and an option for pytest, available to every project that has virtualchain installed.

pytest imports this module in each of its runs, so the module only declares them; a fixture imports what it
needs when it is used.
"""

# Imports inside of functions, for that reason:
# ruff: noqa: PLC0415

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from virtualchain.testing import FakeNode
    from virtualchain.testing.bitcoind import Bitcoind
    from virtualchain.testing.database import DatabaseServer


_UPDATE_GOLDEN = "VIRTUALCHAIN_UPDATE_GOLDEN"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option with which `check_golden` writes its files again."""
    parser.getgroup("virtualchain").addoption(
        "--update-golden",
        action="store_true",
        help="write the files of check_golden again, instead of comparing with them",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Pass the option on to `check_golden`; each worker of pytest-xdist does so for itself."""
    if config.getoption("update_golden"):
        os.environ[_UPDATE_GOLDEN] = "1"


@pytest.fixture(scope="session")
def database_server() -> "Iterator[DatabaseServer]":
    """Run one throw-away PostgreSQL server for the whole session."""
    from virtualchain.testing.database import running_server

    with running_server() as server:
        yield server


@pytest.fixture
def database_url(database_server: "DatabaseServer") -> Iterator[str]:
    """Yield the URL of a new database with virtualchain's schema."""
    url = database_server.clone()
    yield url
    database_server.drop(url)


@pytest.fixture
def empty_database_url(database_server: "DatabaseServer") -> Iterator[str]:
    """Yield the URL of a new, empty database."""
    url = database_server.create()
    yield url
    database_server.drop(url)


@pytest.fixture
def fake_node() -> "Iterator[FakeNode]":
    """Yield a fake Bitcoin node on regtest with 101 empty blocks, so that names have coins to spend."""
    from virtualchain.testing import FakeNode

    node = FakeNode()
    yield node
    node.close()


@pytest.fixture(scope="session")
def bitcoind() -> "Iterator[Bitcoind]":
    """Yield a real Bitcoin node on regtest, shared by the whole session; skips if there is no bitcoind."""
    node = _start_bitcoind()
    yield node
    node.stop()


@pytest.fixture
def bitcoind_factory() -> "Iterator[Callable[..., Bitcoind]]":
    """Yield a function that starts more nodes for one test, with arguments such as `-loadblock=FILE`."""
    nodes: list[Bitcoind] = []

    def start(*arguments: str) -> "Bitcoind":
        nodes.append(_start_bitcoind(*arguments))
        return nodes[-1]

    yield start
    for node in nodes:
        node.stop()


def _start_bitcoind(*arguments: str) -> "Bitcoind":
    from virtualchain.testing.bitcoind import Bitcoind, find_bitcoind

    program = find_bitcoind()
    if program is not None:
        return Bitcoind(program, *arguments)
    reason = "no bitcoind: name one in the environment variable BITCOIND, or put it on PATH"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (in CI these tests must run)")
    pytest.skip(reason)

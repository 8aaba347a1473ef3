"""Folders and servers for the tests of the embedded server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import reachable_folder
from virtualchain.store.embedded.server import EmbeddedServer


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder for one test's server."""
    with reachable_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedServer]:
    """Set up a server that every test of a file leaves as it was."""
    with reachable_folder() as folder:
        yield EmbeddedServer(folder, durable=False)


@pytest.fixture
def server(shared: EmbeddedServer) -> EmbeddedServer:
    """Start the shared server."""
    shared.start()
    return shared

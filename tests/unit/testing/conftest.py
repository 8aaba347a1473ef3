"""A fake node and a connection to it."""

from collections.abc import Iterator

import pytest

from tests.support.node_client import NodeClient
from virtualchain.testing import FakeNode


@pytest.fixture
def node() -> Iterator[FakeNode]:
    """Yield a fake node."""
    with FakeNode() as started:
        yield started


@pytest.fixture
def client(node: FakeNode) -> Iterator[NodeClient]:
    """Yield a connection to it."""
    with NodeClient(node.url) as connected:
        yield connected

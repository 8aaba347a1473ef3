"""A node that follows a script, and no pauses between attempts."""

from collections.abc import Iterator

import pytest

from tests.unit.bitcoin.node.scripted import Scripted
from virtualchain.bitcoin.node import retry
from virtualchain.bitcoin.node.login import NodeUrl, find_login, read_url
from virtualchain.bitcoin.node.rest import Rest
from virtualchain.bitcoin.node.rpc import Rpc
from virtualchain.testing import FakeNode


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask three times in all, at once."""
    monkeypatch.setattr(retry, "PAUSES", (0.0, 0.0))


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """Give a server that says what it is told to."""
    server = Scripted()
    yield server
    server.close()


@pytest.fixture
def where(scripted: Scripted) -> NodeUrl:
    """Give the server's address, with a login in it."""
    return read_url(f"http://alice:secret@{scripted.address}")


@pytest.fixture
def rpc(where: NodeUrl) -> Iterator[Rpc]:
    """Give a client of the server's JSON-RPC."""
    client = Rpc(where, find_login(where, None, None))
    yield client
    client.close()


@pytest.fixture
def rest(where: NodeUrl) -> Iterator[Rest]:
    """Give a client of the server's REST interface."""
    client = Rest(where)
    yield client
    client.close()


@pytest.fixture
def node() -> Iterator[FakeNode]:
    """Give a node with 150 blocks, the last of them with some inputs."""
    with FakeNode(premine=149) as running:
        running.mine([running.send(b"id?%d" % number) for number in range(3)])
        yield running

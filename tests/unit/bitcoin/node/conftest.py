"""A scripted server with clients for it, a fake node, and no pauses between attempts."""

from collections.abc import Iterator

import pytest

from tests.unit.bitcoin.node.fakes import ScriptedServer
from virtualchain.bitcoin.node import client
from virtualchain.bitcoin.node.client import Rest, Rpc
from virtualchain.bitcoin.node.login import NodeUrl, find_login, read_url
from virtualchain.testing import FakeNode


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make three attempts in all, without pauses."""
    monkeypatch.setattr(client, "RETRY_PAUSES", (0.0, 0.0))


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """Run a server that follows a script."""
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture
def url(scripted: ScriptedServer) -> NodeUrl:
    """Return the server's URL, with a login in it."""
    return read_url(f"http://alice:secret@{scripted.address}")


@pytest.fixture
def rpc(url: NodeUrl) -> Iterator[Rpc]:
    """Make a client of the server's JSON-RPC."""
    rpc = Rpc(url, find_login(url, None, None))
    yield rpc
    rpc.close()


@pytest.fixture
def rest(url: NodeUrl) -> Iterator[Rest]:
    """Make a client of the server's REST interface."""
    rest = Rest(url)
    yield rest
    rest.close()


@pytest.fixture
def node() -> Iterator[FakeNode]:
    """Run a node with 150 blocks, the last of them with some inputs."""
    with FakeNode(premine=149) as running:
        running.mine([running.send(b"id?%d" % number) for number in range(3)])
        yield running

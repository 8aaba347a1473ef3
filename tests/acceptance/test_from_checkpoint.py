"""The commands from one deployment that publishes to another that begins with what it published."""

import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.acceptance.conftest import Inside
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

APP = ("--app", "virtualchain.examples.notary")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print nothing: the requests are no output of the test."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Serve the folder `web`; return its URL."""
    (tmp_path / "web").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "web"))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_publish_show_and_begin(
    inside: Inside,
    fake_node: FakeNode,
    database_url: str,
    database_server: DatabaseServer,
    tmp_path: Path,
    web: str,
) -> None:
    """A deployment that begins with a published checkpoint has the same digests; the next sync goes on."""
    inside.set(
        VIRTUALCHAIN_DATABASE=database_url,
        VIRTUALCHAIN_BITCOIN=fake_node.url,
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    fake_node.mine([])
    inside("sync", *APP)
    public = json.loads(inside("--json", "checkpoint", "keygen", str(tmp_path / "key")).out)["public_key"]
    folder = str(tmp_path / "web")
    done = inside("--json", "checkpoint", "publish", folder, "--sign", str(tmp_path / "key"))
    [made] = json.loads(done.out)["checkpoints"]
    shown = json.loads(inside("--json", "checkpoint", "show", web, "--trust", public).out)
    assert (shown["valid"], shown["block_id"], shown["signers"]) == (True, made["block_id"], [public])
    other = database_server.clone()
    try:
        inside.set(VIRTUALCHAIN_DATABASE=other)
        begin = ("sync", *APP, "--from-checkpoint", web, "--trust", public, "--json")
        refused = inside("sync", *APP, "--from-checkpoint", web, "--trust", "00" * 32, code=1)
        assert "not by a trusted key" in refused.err
        first = inside(*begin)
        assert f"continues after block {made['block_id']}" in first.err
        assert json.loads(first.out)["apps"][0]["state_hash"] == shown["state_hash"]
        fake_node.mine([])
        again = inside(*begin)
        assert "is installed already" in again.err
        assert json.loads(again.out)["apps"][0]["block_id"] == made["block_id"] + 1
        applied = inside("--json", "checkpoint", "apply", web, *APP)
        assert json.loads(applied.out)["block_id"] == made["block_id"]
    finally:
        database_server.drop(other)

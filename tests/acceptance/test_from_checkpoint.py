"""The commands from one deployment that publishes to another that begins with what it published."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
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


def test_a_state_node_begins_with_what_was_published(
    inside: Inside,
    fake_node: FakeNode,
    database_url: str,
    database_server: DatabaseServer,
    tmp_path: Path,
    web: str,
) -> None:
    """It joins the tape after the newest checkpoint of its branch; the upstream itself is left alone.

    The upstream has pruned what comes before.
    """
    inside.set(VIRTUALCHAIN_DATABASE=database_url, VIRTUALCHAIN_BITCOIN=fake_node.url)
    inside.set(XDG_CACHE_HOME=str(tmp_path / "cache"))
    every_block = ("--confirmations", "0")
    with ExitStack() as stack:

        def database() -> str:
            stack.callback(database_server.drop, url := database_server.clone())
            return url

        crawler, follower, other = database(), database(), database()
        fake_node.mine(n=3)
        inside("sync", *APP, *every_block)
        publish = ("checkpoint", "publish", str(tmp_path / "web"), "--every", "2", "--keep", "1")
        inside(*publish)
        fake_node.mine()
        inside("sync", *APP, *every_block)
        inside(*publish)
        fake_node.reorg(1, 2, [fake_node.send(b"ntc" + bytes(32))])
        inside("sync", *APP, *every_block)
        inside("sync", *APP, *every_block, "--no-apply", "--database", crawler)
        inside("prune", "--before", "105", "--database", crawler)

        begin = ("sync", *APP, "--from-checkpoint", web, "--json")
        inside.set(VIRTUALCHAIN_BITCOIN="", VIRTUALCHAIN_TAPE=crawler)
        assert "of this deployment itself" in inside(*begin, "--database", crawler, code=2).err
        assert not json.loads(inside("status", "--json", "--database", crawler).out)["apps"]
        done = inside(*begin, "--database", follower)
        last = fake_node.height
        assert f"does not begin with the checkpoint of block {last - 1}" in done.err
        assert f"continues after block {last - 2}" in done.err
        [app] = json.loads(done.out)["apps"]
        shown = json.loads(inside("status", *APP, "--json", "--database", database_url).out)
        assert app["state_hash"] == shown["apps"][0]["state_hash"]

        index = tmp_path / "web" / "index.json"
        entries = json.loads(index.read_bytes())
        del entries["checkpoints"][0]
        index.write_text(json.dumps(entries))
        refused = inside(*begin, "--database", other, code=4)
        assert "begins with none of the checkpoints" in refused.err
        assert not json.loads(inside("status", "--json", "--database", other).out)["apps"]

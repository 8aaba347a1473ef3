"""Failures of the node and the database: one line that says what helps, and exit code 3."""

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.acceptance.conftest import Inside, check_one_line
from tests.support.servers import value
from virtualchain.bitcoin.node import client
from virtualchain.cli import progress
from virtualchain.engine import engine as indexer
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer
from virtualchain.testing.fakenode import rpc

APP = ("--app", "virtualchain.examples.notary")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between two attempts."""
    monkeypatch.setattr(client, "RETRY_PAUSES", (0.01,))
    monkeypatch.setattr(indexer, "PAUSES", (0.01,))


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Mount a file system of 160 MB, which the embedded server's user can reach; only root can do this."""
    folder = Path(tempfile.mkdtemp(prefix="virtualchain-tests-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=160m,mode=711", "tmpfs", str(folder)]
    try:
        if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            pytest.skip("only root can mount a small file system, and not everywhere")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
    finally:
        folder.rmdir()


def fill(file: Path) -> None:
    """Write to a file until the disk is full."""
    with file.open("wb", buffering=0) as opened, suppress(OSError):
        while opened.write(bytes(65536)):
            pass


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("warming_up", "(code -28): it is starting, try again in a while"),
        ("busy", "is busy: Work queue depth exceeded"),
        ("refuse", "is it running?"),
        ("garbage", "is not a Bitcoin node: it answers with HTTP status 200"),
    ],
)
def test_a_node_in_trouble(
    inside: Inside, fake_node: FakeNode, database_url: str, fault: str, complaint: str
) -> None:
    """The line says what is wrong with the node, and `status` still shows the rest."""
    common = ("--bitcoin", fake_node.url, "--database", database_url)
    fake_node.fail(fault, None)
    check_one_line(inside("sync", *APP, *common, code=3), complaint)
    assert complaint in inside("status", *common).err


@pytest.mark.parametrize("method", ["getblockchaininfo", "getblockheader", "getblock"])
def test_a_node_that_is_too_old(
    inside: Inside, database_url: str, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The line has the missing method and the required version."""
    monkeypatch.delitem(rpc.METHODS, method)
    with FakeNode(rest=False) as node:
        done = inside("sync", *APP, "--bitcoin", node.url, "--database", database_url, code=3)
    check_one_line(done, "virtualchain needs Bitcoin Core 25 or later")
    assert f"answers '{method}" in done.err


def test_a_slow_sync_without_rest_gets_a_hint(
    inside: Inside, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node without REST suffices; if the sync takes long, one line says how to make it faster."""
    with FakeNode(rest=False) as node:
        common = ("sync", *APP, "--bitcoin", node.url, "--database", database_url)
        assert inside(*common).err == ""
        monkeypatch.setattr(progress, "_REPEAT", 0.0)
        node.mine(n=5)
        lines = inside(*common).err.splitlines()
    assert sum("REST is off at" in line for line in lines) == 1
    assert "rest=1 in its bitcoin.conf" in lines[0]
    assert lines[1].startswith("virtualchain: block ")


@pytest.mark.usefixtures("impatient")
def test_a_missing_cookie_file(inside: Inside, fake_node: FakeNode, tmp_path: Path) -> None:
    """The line has the path of the file."""
    common = ("--bitcoin", fake_node.url, "--database", "postgresql://u@127.0.0.1:1/x", "--cookie", "none")
    done = inside("sync", *APP, *common, code=3)
    check_one_line(done, f"no cookie file {tmp_path / 'none'}")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[virtualchain\n", "virtualchain.toml: is not TOML: Expected ']'"),
        ("[virtualchain]\nbitcon = 'x'\n", "[virtualchain] does not know bitcon; allowed: bitcoin, blocks"),
        ("[virtualchain]\nconfirmations = 'six'\n", "confirmations must be a whole number"),
        ("[apps]\nuse = 'x'\n", "apps must be tables, one [[apps]] for each"),
    ],
)
def test_an_invalid_settings_file(inside: Inside, tmp_path: Path, text: str, complaint: str) -> None:
    """The line has the path of the file, and what is allowed."""
    (tmp_path / "virtualchain.toml").write_text(text)
    check_one_line(inside("status", code=2), complaint)


def test_a_user_without_rights(
    inside: Inside, fake_node: FakeNode, database_server: DatabaseServer, database_url: str
) -> None:
    """A user who may not create or read a deployment gets one line that says what to do."""
    with psycopg.connect(database_server.url, autocommit=True) as admin:
        admin.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
    empty = database_server.create()
    try:
        for url, commands in (
            (empty, [("migrate",), ("sync", *APP)]),
            (
                database_url,
                [
                    *(("sync", *APP), ("status",), ("ops",), ("sql", "SELECT 1"), ("watch",)),
                    *(("consensus",), ("resume", "notary")),
                ],
            ),
        ):
            where = urlsplit(url)
            place = where.netloc.rpartition("@")[2]
            stranger = where._replace(netloc=f"stranger:stranger@{place}").geturl()
            for command in commands:
                done = inside(*command, "--bitcoin", fake_node.url, "--database", stranger, code=3)
                check_one_line(done, "permission denied")
                reads = url == database_url and command[0] != "sync"
                assert ("`virtualchain db grant-reader stranger`, run as the" in done.err) == reads
                assert ("have it granted, or use the URL of the database's owner" in done.err) != reads
    finally:
        database_server.drop(empty)
        with psycopg.connect(database_server.url, autocommit=True) as admin:
            admin.execute("DROP ROLE stranger")


@pytest.mark.usefixtures("impatient")
def test_a_full_disk(inside: Inside, fake_node: FakeNode, small_disk: Path) -> None:
    """Once there is space again, the same command continues after the last committed block.

    Whether the start finds the disk full, or a block does after some attempts, depends on the pages in use.
    """
    inside.set(VIRTUALCHAIN_HOME=str(small_disk / "home"))
    common = ("sync", *APP, "--bitcoin", fake_node.url)
    inside(*common, "--to", 3)
    filler = small_disk / "filler"
    try:
        fill(filler)
        fake_node.mine(n=1000)
        done = inside(*common, code=3)
        assert done.out == ""
        last = done.err.splitlines()[-1]
        assert "No space left on device" in last
        assert "(the database's disk is full: free some space there, and start again" in last
        assert "Traceback" not in done.err
        filler.unlink()
        inside(*common)
        url = EmbeddedServer(small_disk / "home" / "postgresql").url
        assert value(url, "SELECT block_id FROM virtualchain.apps") == fake_node.height - 6
    finally:
        filler.unlink(missing_ok=True)
        inside("db", "stop")


def test_standard_output_on_a_full_disk(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    """A full disk below standard output is reported without a traceback, as a failure and not a bug."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("virtualchain.cli.read.write_rows", fail)
    monkeypatch.setattr("virtualchain.cli.process._discard_output", lambda: None)
    check_one_line(
        inside("ops", "--database", database_url, code=3), "No space left on device: free some space"
    )

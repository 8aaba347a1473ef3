"""The command `doctor`, as an operator and a program read it."""

import json
import socket
import time

import psycopg
import pytest

from tests.acceptance.conftest import Commands, Inside
from virtualchain.operating.doctor.examination import CHECKS
from virtualchain.testing import FakeNode
from virtualchain.testing.fakenode import rpc
from virtualchain.testing.fakenode.rpc import Method

SECRETS = ("password", "hunter2")


def test_a_deployment_is_examined(inside: Inside, fake_node: FakeNode, database_url: str) -> None:
    """Text and JSON say the same; warnings do not count as a failure, and a problem does."""
    inside.set(VIRTUALCHAIN_DATABASE=database_url, VIRTUALCHAIN_BITCOIN=fake_node.url)
    inside("--app", "apps", "--confirmations", 0, "sync")
    done = inside("doctor", "--app", "apps", "--json", code=1)  # a server of the tests has fsync off
    printed = json.loads(done.out)
    assert [check["name"] for check in printed["checks"]] == [*CHECKS]
    assert {*printed} == {"verdict", "checks"}
    assert {*printed["checks"][0]} == {"name", "verdict", "observed", "advice", "link"}
    by_name = {check["name"]: check for check in printed["checks"]}
    assert (printed["verdict"], by_name["durability"]["verdict"]) == ("problem", "problem")
    assert (by_name["apps"]["observed"], by_name["missing-code"]["verdict"]) == ("notes", "ok")
    done = inside("--app", "apps", "doctor", code=1)
    lines = done.out.splitlines()
    place = lines.index(f"problem  durability: {by_name['durability']['observed']}")
    assert lines[place + 1] == f"         {by_name['durability']['advice']} (docs/doctor.md#durability)"
    assert " 1 problem, " in lines[-1]
    assert not any(secret in done.out + done.err for secret in SECRETS)


def test_warnings_are_no_failure(
    inside: Inside, fake_node: FakeNode, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a problem the exit code is 0; what a node says reaches the terminal in visible characters."""
    from virtualchain.operating.doctor import server

    monkeypatch.setattr(server, "_DANGEROUS", ())
    hostile = {"warnings": ["\x1b]0;owned\x07"], "version": 1 << 20, "subversion": "\x1b[2J"}
    monkeypatch.setitem(rpc.METHODS, "getnetworkinfo", Method((), lambda _: {"connections": 1, **hostile}))
    done = inside("doctor", "--bitcoin", fake_node.url, "--database", database_url)
    assert "warning  node-warnings: '\\x1b]0;owned\\x07'" in done.out
    assert "\x1b" not in done.out
    assert " 0 problems, " in done.out


def test_nothing_is_there(inside: Inside) -> None:
    """On a machine with nothing set up, node and database are the problems, and nothing is started."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    inside.set(VIRTUALCHAIN_HOME=str(inside.folder / "home"))
    done = inside("doctor", "--bitcoin", f"http://user:hunter2@127.0.0.1:{port}", code=1)
    problems = [line.split()[1] for line in done.out.splitlines() if line.startswith("problem")]
    assert problems == ["database:", "node:"]
    assert "the embedded server was never started" in done.out
    assert "skipped  the database was not reached: " in done.out
    assert not (inside.folder / "home").exists()
    assert not any(secret in done.out + done.err for secret in SECRETS)


def test_a_wrong_password_and_settings_that_cannot_be_read(
    inside: Inside, fake_node: FakeNode, database_url: str
) -> None:
    """The one is a problem that shows no password, the other wrong usage, as with every command."""
    with psycopg.connect(database_url) as connection:
        secret = connection.info.password
    wrong = database_url.replace(f":{secret}@", ":hunter2@")
    node = fake_node.url.replace("password", "hunter2")
    done = inside("doctor", "--bitcoin", node, "--database", wrong, code=1)
    assert "problem  database:" in done.out
    assert not any(word in done.out + done.err for word in (secret, *SECRETS[1:]))
    inside("doctor", "--confirmations", "x", code=2)


def test_a_server_that_hangs(cli: Commands, fake_node: FakeNode) -> None:
    """The command ends, with all other checks made, while the server's port accepts and stays silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://user:hunter2@127.0.0.1:{silent.getsockname()[1]}/name?connect_timeout=2"
        began = time.monotonic()
        done = cli("doctor", "--bitcoin", fake_node.url, "--database", url, code=1)
        assert time.monotonic() - began < 25
    assert "problem  database:" in done.out
    assert "ok       node-rest: on" in done.out
    assert "hunter2" not in done.out + done.err

"""The fixtures that virtualchain provides for pytest."""

import http.client
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.servers import value
from virtualchain import App, StateEngine
from virtualchain.errors import NodeError, NodeUnavailable
from virtualchain.testing import FakeNode, bitcoind, plugin
from virtualchain.testing.bitcoind import Bitcoind, find_bitcoind
from virtualchain.testing.database import DatabaseServer


def test_database_has_the_schema_and_is_each_tests_own(
    database_url: str, empty_database_url: str, database_server: DatabaseServer
) -> None:
    """One database has the schema, one is empty, and a test's changes stay in its own."""
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE mine (a integer)")
    schemas = "SELECT count(*) FROM information_schema.schemata WHERE schema_name IN ('vc', 'virtualchain')"
    assert value(database_url, schemas) == 2
    assert value(empty_database_url, schemas) == 0
    other = database_server.clone()
    assert value(other, "SELECT to_regclass('mine') IS NULL AND to_regclass('vc.blocks') IS NOT NULL") is True
    with psycopg.connect(other):
        database_server.drop(other)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(other)


def test_engine_in_tests_is_not_a_superuser(database_url: str) -> None:
    """Tests run with the privileges that the embedded server grants, so missing grants show."""
    assert value(database_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False


def test_fake_node_is_ready(fake_node: FakeNode) -> None:
    """It listens under its URL."""
    assert fake_node.url.startswith("http")


@pytest.mark.node
def test_bitcoind_takes_another_port_if_its_own_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program may take a port after it was found to be free; if all are taken, the error says so."""
    program = find_bitcoind()
    assert program is not None
    free = bitcoind._free_port
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        ports = iter([taken, taken])
        monkeypatch.setattr(bitcoind, "_free_port", lambda: next(ports, None) or free())
        node = Bitcoind(program)
        try:
            assert node.port != taken
            assert node.rpc("getblockcount") == 0
        finally:
            node.stop()
        monkeypatch.setattr(bitcoind, "_free_port", lambda: taken)
        with pytest.raises(NodeError, match="Unable to start HTTP server"):
            Bitcoind(program)


@pytest.mark.node
def test_bitcoind_mines_and_answers_rest(bitcoind: Bitcoind) -> None:
    """The session's node runs on regtest with REST, and wallet calls work."""
    height = bitcoind.rpc("getblockcount")
    bitcoind.rpc("createwallet", "plugin")
    address = bitcoind.rpc("getnewaddress", wallet="plugin")
    (mined,) = bitcoind.rpc("generatetoaddress", 1, address)
    bitcoind.wait_for_height(height + 1)
    bitcoind.rpc("unloadwallet", "plugin")
    connection = http.client.HTTPConnection("127.0.0.1", bitcoind.port)
    connection.request("GET", f"/rest/blockhashbyheight/{height + 1}.hex")
    assert connection.getresponse().read().decode().strip() == mined
    connection.close()
    with pytest.raises(NodeError, match="Block height out of range"):
        bitcoind.rpc("getblockhash", 10**6)
    with pytest.raises(NodeError, match="not 1000000, after"):
        bitcoind.wait_for_height(10**6, timeout=0)


@pytest.mark.node
def test_the_engine_runs_on_bitcoind(bitcoind_factory: Callable[..., Bitcoind], database_url: str) -> None:
    """Its URL is all that the engine needs, or the port and the cookie file; inputs are sent in one line."""
    node = bitcoind_factory()
    app = App("notes", magic=b"nt")
    app.add(b"o", parse=lambda payload: {"text": payload.decode()})
    txid = node.send(b"ntoHello")
    [block_hash] = node.mine()
    plain = f"http://127.0.0.1:{node.port}"
    logins: list[dict[str, Any]] = [
        {"source": node.url},
        {"source": plain, "cookie": node.cookie},
        {"source": plain, "cookie": str(node.cookie)},
        {"source": node.url, "cookie": node.cookie},
    ]
    for login in logins:
        with StateEngine(app, database=database_url, confirmations=0, **login) as engine:
            assert engine.build() == node.rpc("getblockcount")
    sent = "SELECT array_agg(txid || (fields ->> 'text')) FROM virtualchain.ops"
    assert value(database_url, sent) == [f"{txid}Hello"]
    assert value(database_url, "SELECT block_hash FROM virtualchain.ops") == block_hash
    with pytest.raises(NodeError, match="no cookie file"):
        StateEngine(app, database=database_url, source=plain, cookie=node.datadir / "none")
    node.restart()
    node.send(b"ntoagain")
    node.mine(2)
    with StateEngine(app, database=database_url, source=node.url, confirmations=0) as engine:
        assert engine.build() == node.rpc("getblockcount")
    assert value(database_url, "SELECT count(*) FROM virtualchain.ops") == 2


@pytest.mark.node
def test_factory_takes_arguments_and_cleans_up(bitcoind_factory: Callable[..., Bitcoind]) -> None:
    """More nodes start with the test's arguments, independently, and leave no files."""
    node = bitcoind_factory("-uacomment=second")
    assert "second" in node.rpc("getnetworkinfo")["subversion"]
    assert node.cookie.is_file()
    node.stop()
    assert not node.datadir.exists()
    with pytest.raises(NodeUnavailable, match="does not answer getblockcount"):
        node.rpc("getblockcount")
    with pytest.raises(NodeError, match=r"bitcoind exited with 1: .*nonsense"):
        bitcoind_factory("-nonsense")


def test_missing_bitcoind_skips_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a bitcoind, a test is skipped with the reason; in CI it fails."""
    monkeypatch.delenv("BITCOIND", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    # Both are caught each time: an uncaught skip would skip this test instead of failing it.
    either = (pytest.skip.Exception, pytest.fail.Exception)
    with pytest.raises(either, match="no bitcoind") as outcome:
        plugin._start_bitcoind()
    assert outcome.type is pytest.skip.Exception
    monkeypatch.setenv("CI", "true")
    with pytest.raises(either, match="in CI these tests must run") as outcome:
        plugin._start_bitcoind()
    assert outcome.type is pytest.fail.Exception


def test_bitcoind_is_searched_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """BITCOIND, a program or folder, overrides PATH and the cache; a wrong value is an error."""
    program = tmp_path / ".cache" / "virtualchain-bitcoind" / "bin" / "bitcoind"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("BITCOIND", raising=False)
    assert find_bitcoind() == program
    other = tmp_path / "bitcoind"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_bitcoind() == other
    for named in (program, program.parent):
        monkeypatch.setenv("BITCOIND", str(named))
        assert find_bitcoind() == program
    monkeypatch.setenv("BITCOIND", str(tmp_path / "nowhere"))
    with pytest.raises(NodeError, match="BITCOIND does not name a program"):
        find_bitcoind()


def test_plugin_is_cheap_to_import() -> None:
    """Pytest imports the plugin in every project's runs, so it imports only pytest."""
    source = Path(plugin.__file__).read_text()
    check = "import sys, types; sys.modules['virtualchain'] = types.ModuleType('virtualchain'); "
    check += "exec(compile(sys.stdin.read(), 'plugin', 'exec')); assert 'psycopg' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], input=source, text=True, check=True)

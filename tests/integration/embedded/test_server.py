"""The embedded server starts, is found again, survives crashes, and never signals another process."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from tests.support.servers import postmaster, value
from virtualchain.errors import StoreError
from virtualchain.store.embedded import server as embedded
from virtualchain.store.embedded.host import server_account
from virtualchain.store.embedded.installation import find_binaries
from virtualchain.store.embedded.server import EmbeddedServer

START = (
    "import sys; from pathlib import Path; from virtualchain.store.embedded.server import EmbeddedServer; "
)
START += "print(EmbeddedServer(Path(sys.argv[1]), durable=False).start())"


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition on another process is true."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_start_returns_a_working_url_and_a_second_start_changes_nothing(server: EmbeddedServer) -> None:
    """Starting a running server returns the same URL and does not touch the process."""
    pid = postmaster(server)
    again = EmbeddedServer(server.folder)
    assert again.start() == server.url
    assert postmaster(server) == pid
    assert value(server.url, "SELECT current_database()") == "virtualchain"
    assert server.status().running
    server.stop()
    server.stop()
    assert not server.status().running


def test_text_is_utf8_and_sorts_by_bytes(server: EmbeddedServer) -> None:
    """The database's locale is C, so no library update can change the order of text."""
    assert value(server.url, "SHOW server_encoding") == "UTF8"
    ordered = "SELECT string_agg(v, '' ORDER BY v) FROM unnest(ARRAY['é', 'b', 'Z', 'a', '€', '_']) v"
    assert value(server.url, ordered) == "Z_abé€"
    locale = "SELECT concat_ws(' ', datlocprovider, datlocale, datcollate, datctype) FROM pg_database"
    assert value(server.url, f"{locale} WHERE datname = current_database()") == "c C C"
    assert value(server.url, f"{locale} WHERE datname = 'template1'") == "c C C"


def test_roles_have_passwords_and_the_engine_is_not_a_superuser(server: EmbeddedServer) -> None:
    """The engine's role can create databases and roles only; nobody connects without a password."""
    rights = "SELECT ARRAY[rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls] FROM pg_roles"
    assert value(server.url, f"{rights} WHERE rolname = current_user") == [False, True, True, False, False]
    address = server.status().address
    assert address is not None
    assert address.socket is not None
    for host in ("127.0.0.1", str(address.socket)):
        for user in ("postgres", "virtualchain"):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(host=host, port=address.port, user=user, dbname="postgres", password="guess")
    for role in ("postgres", "virtualchain"):
        assert (server.folder / f"{role}.password").stat().st_mode & 0o777 == 0o600


def test_its_own_databases_are_recognized(server: EmbeddedServer, folder: Path) -> None:
    """A URL is one of this server's if address, user and password are; other parameters do not count."""
    url = server.start()
    assert server.database_at(url) == "virtualchain"
    assert server.database_at(server.url_for("än other/%") + "?connect_timeout=9") == "än other/%"
    for other in (url.replace("127.0.0.1", "127.0.0.2"), url.replace("virtualchain:", "virtualchain:x", 1)):
        assert server.database_at(other) is None
    assert EmbeddedServer(folder.parent / "none").database_at(url) is None
    for file in server.folder.glob("*.password"):
        file.rename(file.with_suffix(".hidden"))
    assert server.database_at(url) is None
    for file in server.folder.glob("*.hidden"):
        file.rename(file.with_suffix(".password"))


def test_socket_takes_connections(server: EmbeddedServer) -> None:
    """The server also listens on a socket in its own folder."""
    address = server.status().address
    assert address is not None
    url = f"{server.url}?host={quote(str(address.socket))}"
    assert value(url, "SELECT inet_server_addr() IS NULL") is True


def test_settings_of_a_durable_server(server: EmbeddedServer) -> None:
    """Outside tests every commit is flushed; the server listens on loopback only."""
    assert value(server.url, "SHOW fsync") == "off"
    server.stop()
    url = EmbeddedServer(server.folder).start()
    expected = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "jit": "off"}
    expected |= {
        "listen_addresses": "127.0.0.1",
        "max_wal_size": "2GB",
        "password_encryption": "scram-sha-256",
    }
    assert {name: value(url, f"SHOW {name}") for name in expected} == expected
    server.stop()


def test_dropped_database_is_created_again(server: EmbeddedServer) -> None:
    """A start creates the database again if someone has dropped it."""
    with psycopg.connect(server.url_for("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE virtualchain")
    assert value(server.start(), "SELECT current_database()") == "virtualchain"


def test_two_processes_that_start_at_once_share_one_server(folder: Path) -> None:
    """The second process waits, then finds the server of the first."""
    command = [sys.executable, "-c", START, str(folder)]
    starts = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    urls = {start.communicate(timeout=60)[0] for start in starts}
    assert len(urls) == 1
    assert urls == {EmbeddedServer(folder).url + "\n"}
    assert (folder / "run" / "server.log").read_text().count("LOG:  starting PostgreSQL") == 1


def test_killed_server_recovers_what_was_committed(server: EmbeddedServer) -> None:
    """After a SIGKILL of the postmaster, the next start recovers and keeps the address."""
    with psycopg.connect(server.url, options="-c synchronous_commit=on") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    url = server.url
    os.kill(postmaster(server), signal.SIGKILL)
    assert EmbeddedServer(server.folder, durable=False).start() == url
    assert value(url, "SELECT answer FROM kept") == 42


def test_start_waits_for_a_server_that_is_stopping(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start waits for a server that is stopping, however long it takes, and then starts it."""
    monkeypatch.setattr(embedded, "_GRACE", 0.1)
    pid = postmaster(server)
    connection = psycopg.connect(server.url)
    os.kill(pid, signal.SIGTERM)  # ends when the last session does
    wait_until(lambda: not server.status().running)
    with ThreadPoolExecutor(1) as background:
        start = background.submit(EmbeddedServer(server.folder, durable=False).start)
        with pytest.raises(TimeoutError):
            start.result(timeout=0.5)
        connection.close()
        assert start.result(timeout=60) == server.url
    assert postmaster(server) != pid


def test_port_that_is_taken_is_replaced(server: EmbeddedServer) -> None:
    """The port is reused if it is free; otherwise another one is chosen and saved."""
    first = server.url
    server.stop()
    assert server.start() == first
    server.stop()
    address = server.status().address
    assert address is not None
    with socket.create_server(("127.0.0.1", address.port)):
        second = server.start()
    assert second != first
    assert EmbeddedServer(server.folder).url == second
    assert value(second, "SELECT 1") == 1


def test_process_that_reuses_an_old_pid_is_never_signaled(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a stale pid file names an unrelated process, neither stop nor start touches that process."""
    monkeypatch.setattr(embedded, "_GRACE", 0.2)
    pid_file = server.folder / "data" / "postmaster.pid"
    content = pid_file.read_text()
    server.stop()
    account = server_account()
    user = account.uid if account else None
    with subprocess.Popen(["sleep", "60"], user=user) as stranger:
        pid_file.write_text(content.replace(content.split()[0], str(stranger.pid), 1))
        pid_file.chmod(0o600)
        if account:
            os.chown(pid_file, account.uid, account.gid)
        assert not server.status().running
        server.stop()
        with pytest.raises(StoreError, match=rf"(?s)does not start.*{stranger.pid}"):
            server.start()
        assert stranger.poll() is None
        stranger.kill()
    assert value(server.start(), "SELECT 1") == 1


def test_failed_initdb_leaves_nothing_half_made(folder: Path) -> None:
    """If initdb fails midway, or was killed earlier, the next start begins from scratch."""
    real = find_binaries(None, server_account())
    broken = folder.parent / "broken"
    broken.mkdir()
    for program in ("postgres", "pg_ctl"):
        (broken / program).symlink_to(real / program)
    script = '[ "$1" = --version ] && exit 0; for last; do :; done; mkdir "$last"; echo no space >&2; exit 1'
    (broken / "initdb").write_text(f"#!/bin/sh\n{script}\n")
    (broken / "initdb").chmod(0o755)
    with pytest.raises(StoreError, match="initdb: no space"):
        EmbeddedServer(folder, binaries=broken).start()
    assert sorted(path.name for path in folder.iterdir()) == ["run", "server.lock"]
    (folder / "initdb-killed" / "data").mkdir(parents=True)
    EmbeddedServer(folder, durable=False).start()
    assert not list(folder.glob("initdb-*"))


def test_error_includes_the_end_of_the_log(server: EmbeddedServer) -> None:
    """If PostgreSQL does not start, the user sees its message."""
    server.stop()
    configuration = server.folder / "data" / "postgresql.conf"
    working = configuration.read_text()
    configuration.write_text(f"{working}shared_buffers = rather_many\n")
    with pytest.raises(StoreError, match='invalid value for parameter "shared_buffers"'):
        server.start()
    configuration.write_text(working)


def test_data_of_another_major_version_is_refused(server: EmbeddedServer) -> None:
    """Programs of one major version refuse data of another; the message says what to do."""
    server.stop()
    version = server.folder / "data" / "PG_VERSION"
    true_version = version.read_text()
    for data, advice in (
        ("14", "made by PostgreSQL 14.*`virtualchain db upgrade` moves.*VIRTUALCHAIN_PG_BIN"),
        ("99", "made by PostgreSQL 99.*VIRTUALCHAIN_PG_BIN.*`virtualchain export FOLDER`.*advance"),
    ):
        version.write_text(f"{data}\n")
        with pytest.raises(StoreError, match=advice):
            server.start()
    version.write_text(true_version)


def test_long_folder_gets_a_socket_elsewhere(folder: Path) -> None:
    """A socket's path has a length limit; the substitute folder is removed when the server stops."""
    deep = folder / ("d" * 60) / ("e" * 60)
    server = EmbeddedServer(deep, durable=False)
    server.start()
    try:
        address = server.status().address
        assert address is not None
        assert address.socket is not None
        assert deep not in address.socket.parents
        assert value(f"{server.url}?host={address.socket}", "SELECT 1") == 1
    finally:
        server.stop()
    assert not address.socket.exists()

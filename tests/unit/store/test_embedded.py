"""The embedded server's choices that need no server: folders, ports, files."""

import os
import pwd
import socket
from pathlib import Path
from types import SimpleNamespace

import platformdirs
import pytest

from virtualchain.errors import StoreError, UsageError
from virtualchain.store.embedded import host as _host
from virtualchain.store.embedded.address import choose, drop_socket, remembered
from virtualchain.store.embedded.host import home, make_folder, write_private
from virtualchain.store.embedded.server import EmbeddedServer


def test_home_of_root_of_users_and_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's server lies with the system's data, a user's with theirs, and VIRTUALCHAIN_HOME moves both."""
    monkeypatch.delenv("VIRTUALCHAIN_HOME", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert home() == Path("/var/lib/virtualchain")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert home() == platformdirs.user_data_path("virtualchain", appauthor=False)
    monkeypatch.setenv("VIRTUALCHAIN_HOME", "elsewhere")
    assert home() == Path.cwd() / "elsewhere"
    assert EmbeddedServer().folder == Path.cwd() / "elsewhere" / "postgresql"


def test_server_account_is_postgres_else_nobody_else_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root runs the server as somebody else, and says so where there is nobody; users run it themselves."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    users = dict.fromkeys(("nobody", "postgres"), SimpleNamespace(pw_uid=7, pw_gid=8))
    monkeypatch.setattr(pwd, "getpwnam", users.__getitem__)
    assert _host.server_account() == _host.Account("postgres", 7, 8)
    del users["postgres"]
    assert _host.server_account() == _host.Account("nobody", 7, 8)
    users.clear()
    with pytest.raises(UsageError, match="does not run as root"):
        _host.server_account()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _host.server_account() is None


def test_folders_that_were_there_keep_their_permissions(tmp_path: Path) -> None:
    """Only what we make gets permissions from us."""
    ours = tmp_path / "theirs" / "a" / "b"
    (tmp_path / "theirs").mkdir(mode=0o750)
    make_folder(ours)
    make_folder(ours)
    assert (tmp_path / "theirs").stat().st_mode & 0o777 == 0o750
    expected = 0o755 if os.geteuid() == 0 else 0o700
    assert {path.stat().st_mode & 0o777 for path in (ours, ours.parent)} == {expected}
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="set VIRTUALCHAIN_HOME"):
        make_folder(tmp_path / "file" / "below")


def test_private_file_is_private_from_its_first_byte(tmp_path: Path) -> None:
    """A password is never readable by others, and a leftover of a crash is no hindrance."""
    (tmp_path / "secret.new").write_text("half")
    write_private(tmp_path / "secret", "one")
    write_private(tmp_path / "secret", "two")
    assert (tmp_path / "secret").read_text() == "two"
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_program_gets_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the server's programs is bare: PG… would steer them, the rest is not theirs."""
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("VIRTUALCHAIN_BITCOIN", "http://user:secret@node")
    seen = _host.run(["env"], None).stdout.splitlines()
    assert {line.partition("=")[0] for line in seen} <= {
        "PATH",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "LC_ALL",
    }
    assert "LC_ALL=C" in seen
    with pytest.raises(StoreError, match="/no/such/program cannot be run: No such file"):
        _host.run(["/no/such/program"], None)


def test_port_is_kept_while_it_is_free(tmp_path: Path) -> None:
    """The next start takes the same port unless another program has it."""
    state = tmp_path / "server.json"
    assert remembered(state) is None
    first = choose(state, tmp_path, None)
    assert first.socket == tmp_path
    assert choose(state, tmp_path, None) == first == remembered(state)
    with socket.create_server(("127.0.0.1", first.port)):
        assert choose(state, tmp_path, None).port != first.port


def test_temporary_socket_folder_goes_with_the_server(tmp_path: Path) -> None:
    """Where our folder's name is too long for a socket, a private short one stands in, one at a time."""
    state, long = tmp_path / "server.json", tmp_path / ("d" * 120)
    first, second = choose(state, long, None).socket, choose(state, long, None).socket
    assert first is not None
    assert second is not None
    assert not first.exists()
    assert second.stat().st_mode & 0o777 == 0o700
    drop_socket(state, long)
    assert not second.exists()
    drop_socket(state, long)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"port": "x", "socket": null}'])
def test_damaged_state_file_is_named(tmp_path: Path, content: str) -> None:
    """A state file that cannot be read is an error with its path, not a guess."""
    (tmp_path / "server.json").write_text(content)
    with pytest.raises(StoreError, match=r"server\.json cannot be read"):
        remembered(tmp_path / "server.json")


def test_server_that_was_never_started(tmp_path: Path) -> None:
    """It is not running, has no URL, and stopping it does nothing."""
    server = EmbeddedServer(tmp_path / "never")
    assert not server.status().running
    server.stop()
    with pytest.raises(StoreError, match="ever started"):
        _ = server.url
    assert not server.folder.exists()


@pytest.mark.parametrize("name", ['say "so"', "$HOME", "`id`", "back\\slash", "two\nlines"])
def test_folder_that_a_shell_would_read_is_refused(tmp_path: Path, name: str) -> None:
    """pg_ctl puts the folder between double quotes into a shell command, so what acts there is refused."""
    with pytest.raises(UsageError, match="must not hold"):
        EmbeddedServer(tmp_path / name)

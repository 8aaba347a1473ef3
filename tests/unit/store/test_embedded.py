"""Parts of the embedded server that need no running server: folders, ports, files."""

import os
import pwd
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import platformdirs
import pytest

from virtualchain.errors import StoreError, UsageError
from virtualchain.store.embedded import host
from virtualchain.store.embedded.address import choose_address, drop_socket_folder, last_address
from virtualchain.store.embedded.host import home, make_folder, write_private
from virtualchain.store.embedded.server import EmbeddedServer


def test_home_of_root_of_users_and_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's server is in a system folder, a user's in their own; VIRTUALCHAIN_HOME overrides both."""
    monkeypatch.delenv("VIRTUALCHAIN_HOME", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert home() == Path("/var/lib/virtualchain")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert home() == platformdirs.user_data_path("virtualchain", appauthor=False)
    monkeypatch.setenv("VIRTUALCHAIN_HOME", "elsewhere")
    assert home() == Path.cwd() / "elsewhere"
    assert EmbeddedServer().folder == Path.cwd() / "elsewhere" / "postgresql"


def test_server_account_is_postgres_else_nobody_else_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root runs the server as another user and fails if there is none; other users run it as themselves."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    users = dict.fromkeys(("nobody", "postgres"), SimpleNamespace(pw_uid=7, pw_gid=8))
    monkeypatch.setattr(pwd, "getpwnam", users.__getitem__)
    assert host.server_account() == host.Account("postgres", 7, 8)
    del users["postgres"]
    assert host.server_account() == host.Account("nobody", 7, 8)
    users.clear()
    with pytest.raises(UsageError, match="does not run as root"):
        host.server_account()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert host.server_account() is None


def test_existing_folders_keep_their_permissions(tmp_path: Path) -> None:
    """Only the folders that we make get our permissions."""
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
    """Others can never read a password, and a leftover of a crash does no harm."""
    (tmp_path / "secret.new").write_text("half")
    write_private(tmp_path / "secret", "one")
    write_private(tmp_path / "secret", "two")
    assert (tmp_path / "secret").read_text() == "two"
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_program_receives_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs get a minimal environment: PG… variables would affect them, and others may be secret."""
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("VIRTUALCHAIN_BITCOIN", "http://user:secret@node")
    seen = host.run(["env"], None).stdout.splitlines()
    assert {line.partition("=")[0] for line in seen} <= {
        "PATH",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "LC_ALL",
    }
    assert "LC_ALL=C" in seen
    with pytest.raises(StoreError, match="/no/such/program cannot be run: No such file"):
        host.run(["/no/such/program"], None)


def test_port_is_kept_while_it_is_free(tmp_path: Path) -> None:
    """The next start uses the same port unless another program has taken it."""
    state = tmp_path / "server.json"
    assert last_address(state) is None
    with TemporaryDirectory(dir="/tmp") as name:  # short enough for a socket
        folder = Path(name)
        first = choose_address(state, folder, None)
        assert first.socket == folder
        assert choose_address(state, folder, None) == first == last_address(state)
        with socket.create_server(("127.0.0.1", first.port)):
            assert choose_address(state, folder, None).port != first.port


def test_temporary_socket_folder_is_removed_with_the_server(tmp_path: Path) -> None:
    """If the folder's path is too long for a socket, a short private folder replaces it, one at a time."""
    state, long = tmp_path / "server.json", tmp_path / ("d" * 120)
    first, second = choose_address(state, long, None).socket, choose_address(state, long, None).socket
    assert first is not None
    assert second is not None
    assert not first.exists()
    assert second.stat().st_mode & 0o777 == 0o700
    drop_socket_folder(state, long)
    assert not second.exists()
    drop_socket_folder(state, long)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"port": "x", "socket": null}'])
def test_damaged_state_file_is_named(tmp_path: Path, content: str) -> None:
    """A state file that cannot be read is an error that names it."""
    (tmp_path / "server.json").write_text(content)
    with pytest.raises(StoreError, match=r"server\.json cannot be read"):
        last_address(tmp_path / "server.json")


def test_server_that_was_never_started(tmp_path: Path) -> None:
    """It is not running, has no URL, and stopping it does nothing."""
    server = EmbeddedServer(tmp_path / "never")
    assert not server.status().running
    server.stop()
    with pytest.raises(StoreError, match="ever started"):
        _ = server.url
    assert not server.folder.exists()


@pytest.mark.parametrize("name", ['say "so"', "$HOME", "`id`", "back\\slash", "two\nlines"])
def test_folder_with_shell_characters_is_refused(tmp_path: Path, name: str) -> None:
    """pg_ctl quotes the folder in a shell command, so characters that are special in quotes are refused."""
    with pytest.raises(UsageError, match="must not contain"):
        EmbeddedServer(tmp_path / name)

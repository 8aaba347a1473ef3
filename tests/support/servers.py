"""What the tests of the embedded server share: where it may lie, and a look into it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from virtualchain.store.embedded.server import EmbeddedServer


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """Make a folder that the server's user can reach (pytest's own is private); stop what runs there.

    Its name goes through shells and lists of PostgreSQL, so it is not a plain one.
    """
    base = Path(tempfile.mkdtemp(prefix="virtualchain-tests-"))
    base.chmod(0o711)
    yield base / "it's a folder"
    EmbeddedServer(base / "it's a folder").stop()
    shutil.rmtree(base)


def value(url: str, statement: str) -> object:
    """Give the first value that a statement returns."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else None


def postmaster(server: EmbeddedServer) -> int:
    """Give the process number of a running server."""
    return int((server.folder / "data" / "postmaster.pid").read_text().split()[0])

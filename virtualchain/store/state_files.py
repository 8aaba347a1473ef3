"""The files that apps save if they keep their own state: one copy in the database, one in a folder.

The copy in the database is written in the block's transaction and is authoritative. The file is for the app
to read: it is moved into place after the commit, and rewritten from the database whenever the app is loaded.
"""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from virtualchain.store.embedded.host import home
from virtualchain.store.sql import queries

_Q = queries("state_files")
LARGEST_STATE: Final = 2**30 - 2**16
"""Bytes of the largest state that the database can hold and send."""
_SUFFIXES: Final = (".state", ".new")
"""Of a saved file, and of the draft that is to replace it."""


def default_folder(url: str) -> Path:
    """Return the folder for the saved files of the deployment in the database at `url`."""
    parameters = conninfo_to_dict(url)
    service = parameters.get("service") or os.environ.get("PGSERVICE")  # it may name all the others
    address = ":".join(str(parameters.get(name) or "") for name in ("host", "port", "dbname"))
    if service:
        address += f":{service}"
    digest = sha256(address.encode()).hexdigest()[:8]
    return _parent() / f"{parameters.get('dbname') or 'default'}-{digest}"


def _parent() -> Path:
    return home() / "state"


def state_file(folder: Path, schema: str, build: str, *, is_live: bool) -> Path:
    """Return the file of a build of the app with this schema, whether or not it exists."""
    return folder / f"{schema}{'' if is_live else f'.{build}'}.state"


def discard(folder: Path, schema: str, build: str, *, is_live: bool) -> None:
    """Remove the file of a build that is no more, and its draft, as far as that is possible."""
    file = state_file(folder, schema, build, is_live=is_live)
    with suppress(OSError):
        for suffix in _SUFFIXES:
            file.with_suffix(suffix).unlink(missing_ok=True)
        if folder.parent == _parent():
            folder.rmdir()  # only if it is empty


def sweep(folder: Path, schema: str, builds: Mapping[str, bool]) -> None:
    """Remove the files of all builds but `builds`, which say whether they are live, as far as possible.

    Only in a folder that `default_folder` chose: in another one, the other files may be the user's.
    """
    if folder.parent != _parent():
        return
    kept = [state_file(folder, schema, build, is_live=is_live) for build, is_live in builds.items()]
    with suppress(OSError):
        for file in folder.glob(f"{schema}.*"):
            if file.with_suffix(_SUFFIXES[0]) not in kept:
                file.unlink(missing_ok=True)


def forget(url: str) -> None:
    """Remove all saved files of the deployment in a database that is dropped."""
    shutil.rmtree(default_folder(url), ignore_errors=True)


class StateFiles:
    """The saved state of one build of an app."""

    def __init__(self, connection: psycopg.Connection, app: str, build: str, file: Path) -> None:
        self._connection = connection
        self._key = {"app": app, "build": build}
        self._file = file
        self._pending: bytes | None = None

    @property
    def draft(self) -> Path:
        """Where the app writes; the file is moved into place after the commit."""
        return self._file.with_suffix(_SUFFIXES[1])

    def read_draft(self) -> bytes:
        """Return what the app wrote; raise ValueError if that is too much to be stored."""
        size = self.draft.stat().st_size
        if size > LARGEST_STATE:
            raise ValueError(f"the saved state has {size} bytes, and at most {LARGEST_STATE} can be stored")
        return self.draft.read_bytes()

    def latest(self) -> bytes | None:
        """Return the last saved state; None if there is none."""
        row = self._connection.execute(_Q["latest"], self._key, binary=True).fetchone()
        return None if row is None else bytes(row[0])

    def restore(self, content: bytes | None) -> Path | None:
        """Write `content` to the file and return its path; if it is None, remove the file and return None."""
        self._pending = None
        if content is None:
            self._file.unlink(missing_ok=True)
            return None
        self._place(content)
        return self._file

    def keep(self, block_id: int, content: bytes) -> None:
        """Store what the app saved after a block, in the block's transaction."""
        self._connection.execute(_Q["keep"], {**self._key, "block_id": block_id, "content": content})
        self._pending = content

    def prune(self, oldest: int) -> None:
        """Drop states that are only needed to go back below block `oldest`."""
        self._connection.execute(_Q["prune"], {**self._key, "oldest": oldest})

    def settle(self) -> None:
        """Move the last stored state into place; call this only once its transaction is on disk."""
        if self._pending is not None:
            self._place(self._pending)
            self._pending = None

    def remove(self) -> None:
        """Remove the file; the copies in the database stay."""
        self._pending = None
        for file in (self._file, self.draft):
            file.unlink(missing_ok=True)

    def _place(self, content: bytes) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self.draft.write_bytes(content)
        self.draft.replace(self._file)

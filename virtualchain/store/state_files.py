"""The files that apps with a state of their own save: a copy in the database, and one in a folder.

The copy in the database is written in the block's transaction and is the truth. The file is for the app
to read; it follows behind the commit, and is written anew from the database whenever an app is loaded.
"""

from hashlib import sha256
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from virtualchain.store.embedded.host import home
from virtualchain.store.sql import queries

_Q = queries("state_files")


def default_folder(url: str) -> Path:
    """Give the folder for the saved files of the deployment in the database at `url`."""
    where = conninfo_to_dict(url)
    place = ":".join(str(where.get(name) or "") for name in ("host", "port", "dbname"))
    return home() / "state" / f"{where.get('dbname') or 'default'}-{sha256(place.encode()).hexdigest()[:8]}"


class StateFiles:
    """What one build of an app saved."""

    def __init__(self, connection: psycopg.Connection, app: str, build: str, file: Path) -> None:
        self._connection = connection
        self._key = {"app": app, "build": build}
        self._file = file
        self._pending: bytes | None = None

    @property
    def draft(self) -> Path:
        """Where the app is to write; it is moved into place behind the commit."""
        return self._file.with_suffix(".new")

    def latest(self) -> bytes | None:
        """Give what was kept last; None where nothing was."""
        row = self._connection.execute(_Q["latest"], self._key).fetchone()
        return None if row is None else bytes(row[0])

    def restore(self, content: bytes | None) -> Path | None:
        """Write the file with what was kept last and give its path; None where nothing was kept."""
        self._pending = None
        if content is None:
            self._file.unlink(missing_ok=True)
            return None
        self._place(content)
        return self._file

    def keep(self, block_id: int, content: bytes) -> None:
        """Keep what the app saved behind a block, in the block's transaction."""
        self._connection.execute(_Q["keep"], {**self._key, "block_id": block_id, "content": content})
        self._pending = content

    def prune(self, oldest: int) -> None:
        """Drop what is only needed to go back below a block."""
        self._connection.execute(_Q["prune"], {**self._key, "oldest": oldest})

    def settle(self) -> None:
        """Move what was kept last into place: only once its transaction is on disk."""
        if self._pending is not None:
            self._place(self._pending)
            self._pending = None

    def remove(self) -> None:
        """Remove the file; what the database has stays."""
        self._pending = None
        for file in (self._file, self.draft):
            file.unlink(missing_ok=True)

    def _place(self, content: bytes) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self.draft.write_bytes(content)
        self.draft.replace(self._file)

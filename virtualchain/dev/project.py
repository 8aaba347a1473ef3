"""The folder of an app that is being written: its settings, and what `virtualchain dev` keeps there."""

import fcntl
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from virtualchain.app.declarations import schema_name
from virtualchain.errors import InvalidApp, StoreError, UsageError, WriterBusy
from virtualchain.settings import load

FOLDER: Final = Path(".virtualchain") / "dev"
"""Where everything is kept, below the project's folder."""
_LONGEST: Final = 30
"""Characters of the folder's name in that of the database."""


class Project:
    """A project's folder, locked for this process."""

    def __init__(self, flags: Mapping[str, object]) -> None:
        """Find the folder: that of virtualchain.toml, or the working directory.

        `flags` are the command line's options. Raises UsageError for settings that are wrong, and if no app
        is named; WriterBusy if another process has the folder.
        """
        self._flags = flags
        settings = load(flags, os.environ, Path.cwd())
        self.config = settings.config
        self.folder = (Path.cwd() if settings.config is None else settings.config.parent).resolve()
        self.kept = self.folder / FOLDER
        self.app()
        try:
            self.kept.mkdir(parents=True, exist_ok=True)
            (self.kept / ".gitignore").write_text("*\n", encoding="utf-8")
            self._lock = os.open(self.kept / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            self._take_lock()
        except OSError as error:
            raise StoreError(f"{self.kept} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Let another process have the folder."""
        os.close(self._lock)

    def app(self) -> str:
        """Return what names the app now, in the settings as they are now; raises UsageError."""
        apps = load(self._flags, os.environ, Path.cwd()).apps
        if len(apps) == 1:
            return apps[0].use
        if apps:
            names = ", ".join(app.use for app in apps)
            raise UsageError(f"dev runs one app, and the settings name {names}: name one with --app")
        raise UsageError(
            "name the app with --app, for example --app ./guestbook.py, or in virtualchain.toml: "
            '[[apps]] with use = "guestbook"; `virtualchain init` makes a project that has one'
        )

    @property
    def chain(self) -> Path:
        """The file with the chain."""
        return self.kept / "chain"

    @property
    def name(self) -> str:
        """A name for the project's databases: that of its folder, and a digest of its path."""
        digest = sha256(str(self.folder).encode()).hexdigest()[:8]
        try:
            words = schema_name(self.folder.name[:_LONGEST])
        except InvalidApp:
            words = "app"
        return f"dev_{words}_{digest}"

    def tell_database(self, url: str) -> None:
        """Write the database's URL to a file, for other commands; raises StoreError."""
        file = self.kept / "database"
        draft = file.with_name("database.new")
        try:
            draft.unlink(missing_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # it holds a password
            with os.fdopen(descriptor, "w", encoding="utf-8") as target:
                target.write(url + "\n")
            draft.replace(file)
        except OSError as error:
            raise StoreError(
                f"{file} cannot be written: {error.strerror}; other commands do not find the database until "
                "you mend that and write `reload`"
            ) from error

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._lock, 20).decode("ascii", "replace").strip()
            os.close(self._lock)
            raise WriterBusy(
                f"another `virtualchain dev` is at work in {self.folder} (process {holder or 'unknown'}): "
                "use its prompt or its page, or end it first"
            ) from error
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"{os.getpid()}\n".encode())

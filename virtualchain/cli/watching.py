"""Says that a file has changed which a running command has read, and goes on using as it was."""

import hashlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from virtualchain.cli.output import say
from virtualchain.notices import Notice

if TYPE_CHECKING:
    from virtualchain.cli.options import Options

EVERY: Final = 10.0
"""Seconds between two looks."""


@contextmanager
def watching(options: "Options") -> Iterator[None]:
    """Watch the files that the settings and the apps came from, from a thread of its own."""
    ended = threading.Event()
    watch = Watch(read_files(options), say)
    thread = threading.Thread(target=watch.follow, args=(ended,), name="files", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def read_files(options: "Options") -> set[Path]:
    """Return the files that are read once: settings, values, secrets, certificates, and the apps' code."""
    settings = options.settings
    named = [settings.config, settings.cacert, *settings.value_files]
    named += [webhook.secret_file for webhook in settings.webhooks]
    code = [Path(file) for file in options.files().values() if file is not None]
    folders = [file.parent for file in code if file.name == "__init__.py"]
    loaded = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    modules = [Path(file) for file in loaded if file is not None]
    within = [file for file in modules if any(folder in file.parents for folder in folders)]
    return {file for file in (*named, *code, *within) if file is not None}


class Watch:
    """Files as they were when this object was made; `report` is called once for each that has changed."""

    def __init__(self, files: Iterable[Path], report: Callable[[str], object]) -> None:
        self._report = report
        self._seen = {file: (_stamp(file), _digest(file)) for file in sorted(files)}

    def follow(self, ended: threading.Event, every: float = EVERY) -> None:
        """Look again and again until `ended` is set."""
        while not ended.wait(every):
            self.look()

    def look(self) -> None:
        """Report each file whose content is another one now."""
        for file, (stamp, digest) in list(self._seen.items()):
            now = _stamp(file)
            if now == stamp:
                continue
            if _digest(file) == digest:
                self._seen[file] = now, digest
                continue
            del self._seen[file]
            state = "is gone" if now is None else "has changed"
            message = f"{file} {state}: this process still uses what it read at its start, until a restart"
            self._report(Notice(message, "file_changed", file=str(file)))


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """Return what differs, as a rule, if the content does; None if there is no such file."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _digest(file: Path) -> bytes | None:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:
        return None

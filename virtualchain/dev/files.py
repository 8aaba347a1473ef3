"""The files of an app, and whether one of them has changed on disk.

They are those that a process of the app has read, and what lies beside them: a file that is missing may be
the one that mends the app.
"""

import os
import sys
import sysconfig
import time
from collections.abc import Iterable, Sequence
from importlib.util import cache_from_source
from pathlib import Path
from typing import Final

KINDS: Final = (".py", ".sql", ".toml", ".html", ".jinja", ".j2", ".json", ".csv", ".wasm", ".wat")
"""Of files beside those that were read."""
_MOST: Final = 5_000
"""Files that are looked at, however many there are beside the app's."""
_INSTALLED: Final = tuple(
    {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(__file__).parents[1]),
        "/proc/",
        "/sys/",
    }
)
_EXAMPLES: Final = str(Path(__file__).parents[1] / "examples")

Looks = dict[str, tuple[int, int, int] | None]
"""Of each file the time of its last change, its size and its number; None if it is not there."""


class Reading:
    """Notes the files that this process reads, but for those of Python and of installed packages."""

    def __init__(self) -> None:
        self._read: set[str] = set()
        sys.addaudithook(self._note)

    def files(self) -> list[str]:
        """Return the files that were read so far, and those of the modules that were imported."""
        modules = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
        known = {*self._read, *(file for file in modules if isinstance(file, str))}
        return sorted(file for file in map(os.path.abspath, known) if is_own(file))

    def _note(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and str(arguments[1]) in {"r", "rb"}:
            self._read.add(arguments[0])


def is_own(file: str) -> bool:
    """Return whether a file may be the app's: not Python's, an installed package's, or a compiled module."""
    if file.endswith((".pyc", ".so")) or not file.startswith("/"):
        return False
    return file.startswith(_EXAMPLES) or not file.startswith(_INSTALLED)


def look(files: Iterable[str], folders: Iterable[Path]) -> Looks:
    """Look at files, and at those of `KINDS` in their folders and in `folders`, but not further below."""
    looks: Looks = {file: _look(file) for file in files}
    places = {os.path.dirname(file) for file in looks} | {str(folder) for folder in folders}  # noqa: PTH120 - text, often
    for place in sorted(places):
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if len(looks) >= _MOST:
                        return looks
                    if entry.name.endswith(KINDS) and not entry.name.startswith("."):
                        looks.setdefault(entry.path, _look(entry.path))
        except OSError:
            continue
    return looks


class Watched:
    """The files of one app: how they were when it was loaded, and whether they still are."""

    def __init__(self, folder: Path, kept: Path, config: Path | None) -> None:
        """Watch what is in `folder`, and `config`; `kept` is a folder whose files do not count."""
        self._folder = folder
        self._kept = str(kept)
        self._read = [] if config is None else [str(config)]
        self._then: Looks = {}
        self._last: Looks = {}
        self._began = 0

    def begin(self) -> None:
        """Note how the files are, right before the app is loaded."""
        self._began = time.time_ns()
        self._then = self._look()
        forget_compiled(self._then)

    def note(self, read: Sequence[str]) -> None:
        """Watch files that the app has read as well; one that was written meanwhile counts as changed."""
        new = [file for file in read if file not in self._read and not file.startswith(self._kept)]
        if new:
            self._read = sorted({*self._read, *new})
            fresh = {file: look for file, look in self._look().items() if file not in self._then}
            self._then |= {
                file: None if look is not None and look[0] >= self._began else look
                for file, look in fresh.items()
            }

    def have_changed(self) -> bool:
        """Return whether a file is another than when the app was loaded."""
        return self._look() != self._then

    def have_settled(self) -> bool:
        """Return whether a file has changed, and none since the last call: editors write in steps."""
        last, self._last = self._last, self._look()
        return last == self._last != self._then

    def _look(self) -> Looks:
        return look(self._read, [self._folder])


def forget_compiled(files: Iterable[str]) -> None:
    """Remove what Python has compiled of these files.

    It takes a module for unchanged if its size and the second of its last change are the same.
    """
    for file in files:
        if file.endswith(".py"):
            try:
                Path(cache_from_source(file)).unlink(missing_ok=True)
            except (OSError, NotImplementedError):
                continue


def _look(file: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(file)  # noqa: PTH116 - many files, many times a second
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino

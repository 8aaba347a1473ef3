"""What differs around another process: hash seed, time zone, locale, clock, environment and folder.

An app must not notice any of it.
"""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

_ZONES: Final = ("<NPT>-05:45", "<MART>09:30")
"""Time zones in the form that needs no data; one of them is not this process's."""
_KEPT: Final = (
    *("PATH", "HOME", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "VIRTUAL_ENV", "XDG_CACHE_HOME"),
    *("LD_", "DYLD_", "PYTHON", "PG", "VIRTUALCHAIN_", "COVERAGE_", "SSL_"),
)
"""Beginnings of the variables that Python, its libraries and the engine need: no app's are among them."""
_AHEAD: Final = 400
"""Days."""
_CLOCKS: Final = ("libfaketime.so.1", "libfaketime.1.dylib")
_CLOCK_FOLDERS: Final = ("/usr/lib", "/usr/local/lib", "/usr/lib64", "/opt/homebrew/lib")


def other_hash_seed(number: int = 1) -> int:
    """Return a PYTHONHASHSEED that is not this process's."""
    own = os.environ.get("PYTHONHASHSEED", "random")
    return number + (own == str(number)) * 1_000


def foreign_environment(hash_seed: int | None = None, *, shifts_clock: bool = False) -> dict[str, str]:
    """Return the environment of another process, in which all that `described` lists differs.

    The clock does only if it `shifts_clock`: that makes the process slower by a third.
    """
    kept = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
    language = _other_locale()
    clock = _clock()
    shifted = (
        {}
        if clock is None or not shifts_clock
        else {
            "LD_PRELOAD" if sys.platform != "darwin" else "DYLD_INSERT_LIBRARIES": str(clock),
            "FAKETIME": f"+{_AHEAD}d",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    )
    return {
        **kept,
        **shifted,
        "PYTHONHASHSEED": str(other_hash_seed() if hash_seed is None else hash_seed),
        "TZ": next(zone for zone in _ZONES if zone != os.environ.get("TZ")),
        "LANG": language,
        "LC_ALL": language,
        "USER": "somebody",
        "LOGNAME": "somebody",
    }


def described() -> tuple[str, ...]:
    """List what differs in another process here."""
    clock = "the same clock, for want of libfaketime" if _clock() is None else f"a clock {_AHEAD} days ahead"
    return (
        *("another hash seed", "another time zone", f"the locale {_other_locale()}", clock),
        *("no environment variables but those of Python, PostgreSQL and virtualchain", "another folder"),
    )


def import_path() -> list[str]:
    """Return where modules are found, for a process in another folder."""
    return [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 - "" is the current folder


@cache
def _clock() -> Path | None:
    """Find libfaketime, which shifts the clock of a program."""
    if "faketime" in os.environ.get("LD_PRELOAD", ""):
        return None  # this process's own clock is shifted already
    for folder in map(Path, _CLOCK_FOLDERS):
        for name in _CLOCKS:
            for place in (folder / "faketime", *folder.glob("*/faketime")):
                if (place / name).exists():
                    return place / name
    return None


@cache
def _other_locale() -> str:
    """Return an installed locale that is not this process's, preferably of a language."""
    own = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "C")
    program = shutil.which("locale")
    listed = (
        []
        if program is None
        else subprocess.run(  # noqa: S603 - the system's own program
            [program, "-a"], capture_output=True, text=True, errors="replace", check=False
        ).stdout.split()
    )
    languages = [name for name in listed if name.lower().endswith(("utf8", "utf-8")) and name[:2] != "C."]
    others = [name for name in sorted(languages) if _bare(name) != _bare(own)]
    turkish = [name for name in others if name.startswith("tr_")]  # whose i is none in upper case
    return next(iter([*turkish, *others]), "POSIX" if own == "C" else "C")


def _bare(locale: str) -> str:
    return locale.lower().replace("-", "")

"""Chooses how a command writes what it says, and makes events of what libraries and Python say.

The format is chosen before anything can be wrong with the command line, so that an error in it has the
format, too.
"""

import logging
import os
import sys
import threading
import tomllib
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO, cast, get_args

from virtualchain.cli.output import choose_log, is_for_programs, line_of, say
from virtualchain.notices import Level, LogFormat, Notice

_LEVELS: Final = get_args(Level)
_OPTIONS: Final = ("log_format", "log_level", "config")


# The choice


def set_up(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Choose format and level as the settings will have them, and catch what others would write.

    A value that is not allowed is left for the settings to report.
    """
    chosen = {**_in_file(arguments, environ), **_in_environment(environ), **_in_arguments(arguments)}
    log_format = _allowed(chosen.get("log_format"), get_args(LogFormat), "text")
    lowest = _allowed(chosen.get("log_level"), _LEVELS, "debug")
    choose_log(cast("LogFormat", log_format), cast("Level", lowest))
    if is_for_programs():
        _catch_others()


def _allowed(value: object, allowed: Sequence[str], otherwise: str) -> str:
    return value if isinstance(value, str) and value in allowed else otherwise


def _in_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """Return the options as they stand on the command line; the last one counts."""
    options = {}
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, is_joined, value = argument.partition("=")
        key = name.removeprefix("--").replace("-", "_")
        if name.startswith("--") and key in _OPTIONS:
            options[key] = value if is_joined else following
    return options


def _in_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key in _OPTIONS if (value := environ.get(f"VIRTUALCHAIN_{key.upper()}"))}


def _in_file(arguments: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the table of virtualchain.toml, if it can be read; what is wrong with it is reported later."""
    named = {**_in_environment(environ), **_in_arguments(arguments)}.get("config", "virtualchain.toml")
    with suppress(OSError, ValueError, RuntimeError):
        table = tomllib.loads(Path(named).expanduser().read_text(encoding="utf-8")).get("virtualchain")
        return table if isinstance(table, dict) else {}
    return {}


# What others say


def _catch_others() -> None:
    """Make events of the lines that libraries, Python and threads would write by themselves."""
    root = logging.getLogger()
    root.addHandler(_Handler())
    warnings.showwarning = _show_warning
    sys.excepthook = _show_error
    sys.unraisablehook = lambda ignored: _show_error(
        ignored.exc_type, ignored.exc_value, ignored.exc_traceback
    )
    threading.excepthook = lambda ended: _show_error(ended.exc_type, ended.exc_value, ended.exc_traceback)


class _Handler(logging.Handler):
    """Writes the records of Python's logging as events; those of psycopg repeat what we report ourselves."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        if record.name.partition(".")[0] == "psycopg":
            return
        level = record.levelname.lower()
        level = {"critical": "error"}.get(level, level)
        shown = cast("Level", level if level in _LEVELS else "info")
        error = record.exc_info[1] if record.exc_info else None
        say(Notice(record.getMessage(), "log", shown, logger=record.name), error)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del file, line
    fields = {"category": category.__name__, "file": filename, "line": lineno}
    say(Notice(str(message), "python_warning", **fields))


def _show_error(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None = None
) -> None:
    del trace
    if not issubclass(kind, SystemExit):
        text = "".join(traceback.format_exception_only(kind, error)).strip()
        say(Notice(text, "bug", error=kind.__name__), error)


def write_past_streams(descriptor: int, notice: Notice) -> None:
    """Write an event past Python's own streams, whose locks another thread may hold."""
    line = line_of(notice)
    os.write(descriptor, line if isinstance(line, bytes) else line.encode())

"""What a command writes: results as JSON, CSV or columns on standard output.

On standard error, it says what happens: lines for people, or one JSON object for each event. docs/logs.md
describes the events, and `virtualchain.cli.log` chooses the format.

Nothing is truncated or wrapped, because a hash must survive copying. If the columns do not fit the terminal,
each row takes several lines instead. There may be many rows, so they are written as they arrive.
"""

import csv
import json
import math
import shutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, Final, get_args

import click

from virtualchain.notices import Level, LogFormat, Notice, notice_of
from virtualchain.reading.json_text import json_text, plain_text, refuse_same_names

_LOOK_AHEAD: Final = 500
"""How many rows determine the widths of the columns."""
_GAP: Final = "  "

Row = Sequence[Any]


class _Log:
    """How this process writes what it says."""

    format: LogFormat = "text"
    lowest: Level = "debug"


def choose_log(log_format: LogFormat, lowest: Level) -> None:
    """Choose how everything is written from now on that is said, and the lowest level that is."""
    _Log.format, _Log.lowest = log_format, lowest


def log_arguments() -> list[str]:
    """Return the arguments by which another process writes as this one does."""
    return ["--log-format", _Log.format, "--log-level", _Log.lowest]


def say(message: str, error: BaseException | None = None) -> None:
    """Report something to the operator, with the traceback of `error`."""
    notice = notice_of(message)
    if is_heard(notice.level):
        click.echo(line_of(notice, error), err=True, nl=False)


def is_for_programs() -> bool:
    """Return whether what is said is written as JSON."""
    return _Log.format == "json"


def is_heard(level: Level) -> bool:
    """Return whether events of this level are written."""
    levels = get_args(Level)
    return levels.index(level) >= levels.index(_Log.lowest)


def line_of(notice: Notice, error: BaseException | None = None) -> bytes | str:
    """Write an event as it appears on standard error, with the end of the line."""
    trace = "" if error is None else "".join(traceback.format_exception(error))
    if _Log.format == "text":
        return trace + "".join(f"virtualchain: {visible(line)}\n" for line in notice.splitlines())
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = {"time": now, "level": notice.level, "event": notice.event, "message": str(notice)}
    shown = {**event, **notice.fields, **({"traceback": trace} if trace else {})}
    text = json.dumps(shown, ensure_ascii=False, default=str)
    # What is not printable could only be in a text, where JSON's escapes are at home.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text).encode() + b"\n"


def visible(text: str) -> str:
    """Escape control characters: text from the chain or a server must not control the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, thing: str) -> str:
    """Write a number of things, with the plural if there is not exactly one."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def write_rows(columns: Sequence[str], rows: Iterable[Row], *, as_json: bool, as_csv: bool = False) -> None:
    """Write rows in the requested format."""
    write = write_json_rows if as_json else write_csv if as_csv else write_table
    write(columns, rows)


def write_json(value: object) -> None:
    """Write one value as indented JSON."""
    click.echo(json_text(value, indent=2))


def write_json_line(value: object) -> None:
    """Write one value as JSON on one line, as an element of a stream."""
    click.echo(json_text(value))


def write_json_rows(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write an array of objects, one a line; raises UsageError if two columns have the same name."""
    refuse_same_names(columns, "use --csv")
    separator = "[\n"
    for row in rows:
        keyed = dict(zip(columns, map(_finite, row), strict=True))
        click.echo(separator + json_text(keyed), nl=False)
        separator = ",\n"
    click.echo("[]" if separator == "[\n" else "\n]")


def write_csv(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a line of column names, then the rows, as RFC 4180 says; null is an empty field."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([("" if value is None else plain_text(value)) for value in row] for row in rows)


def write_table(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write aligned columns, or one field a line if the terminal is too narrow for them."""
    columns = [visible(name) for name in columns]
    texts = ([visible("" if value is None else plain_text(value)) for value in row] for row in rows)
    first_rows = list(islice(texts, _LOOK_AHEAD))
    widths = [max(map(len, column)) for column in zip(columns, *first_rows, strict=True)]
    if sys.stdout.isatty() and sum(widths) + len(_GAP) * (len(widths) - 1) > _terminal_width():
        _write_records(columns, chain(first_rows, texts))
        return
    click.secho(_line(columns, widths), bold=True)
    for row in chain(first_rows, texts):
        click.echo(_line(row, widths))


def write_fields(title: str, fields: Mapping[str, object]) -> None:
    """Write a title and the fields below it, one a line; None is a dash."""
    click.secho(visible(title), bold=True)
    width = max(map(len, fields))
    for name, value in fields.items():
        click.echo(f"{_GAP}{name.ljust(width)}{_GAP}{'-' if value is None else visible(plain_text(value))}")


def moment(iso: str) -> str:
    """Write a time for people; `iso` is one in JSON's form, such as 2026-11-26T04:21:30Z."""
    return f"{iso.removesuffix('Z').replace('T', ' ')} UTC"


def duration(seconds: float) -> str:
    """Write a duration for people, with about two digits."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _write_records(columns: Sequence[str], rows: Iterator[Row]) -> None:
    width = max(map(len, columns))
    for number, row in enumerate(rows, 1):
        click.secho(f"- {number} -", dim=True)
        for name, value in zip(columns, row, strict=True):
            click.echo(f"{click.style(name.ljust(width), bold=True)}{_GAP}{value}")


def _line(row: Row, widths: Sequence[int]) -> str:
    return _GAP.join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _terminal_width() -> int:
    return shutil.get_terminal_size().columns


def _finite(value: object) -> object:
    """Convert floats that JSON cannot express to text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

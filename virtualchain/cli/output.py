"""How results are written: JSON and CSV for programs, columns for people.

Nothing is cut off or wrapped: a hash must survive copying. Where the columns do not fit a terminal, each row
is written over several lines instead. Rows may be many, so they are written as they come.
"""

import csv
import json
import math
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import chain, islice
from typing import Any, Final

import click

from virtualchain.cli.failures import visible
from virtualchain.errors import UsageError

_LOOK_AHEAD: Final = 500
"""Rows whose widths decide the columns."""
_GAP: Final = "  "
_DIGITS: Final = 300
"""Numerics of more digits are text in JSON: few readers take such numbers."""

Row = Sequence[Any]


def write_rows(columns: Sequence[str], rows: Iterable[Row], *, as_json: bool, as_csv: bool = False) -> None:
    """Write rows in the form that was asked for."""
    write = write_json_rows if as_json else write_csv if as_csv else write_table
    write(columns, rows)


def write_json(value: object) -> None:
    """Write one value as JSON, on lines of its own."""
    click.echo(json.dumps(value, indent=2, default=_plain))


def write_json_line(value: object) -> None:
    """Write one value as JSON on one line, for streams."""
    click.echo(json.dumps(value, default=_plain))


def write_json_rows(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write an array of objects keyed by column, an object a line; UsageError for two of one name."""
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise UsageError(f"two columns are named {twice[0]}: give them different names with AS, or use --csv")
    before = "[\n"
    for row in rows:
        keyed = dict(zip(columns, map(_finite, row), strict=True))
        click.echo(before + json.dumps(keyed, default=_plain), nl=False)
        before = ",\n"
    click.echo("[]" if before == "[\n" else "\n]")


def write_csv(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write RFC 4180 lines behind a line of column names; null is an empty field."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([("" if value is None else _text(value)) for value in row] for row in rows)


def write_table(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write rows below each other, or where a terminal is too narrow for that, one field a line."""
    texts = ([visible("" if value is None else _text(value)) for value in row] for row in rows)
    start = list(islice(texts, _LOOK_AHEAD))
    widths = [max(map(len, column)) for column in zip(columns, *start, strict=True)]
    if sys.stdout.isatty() and sum(widths) + len(_GAP) * (len(widths) - 1) > _terminal_width():
        _write_records(columns, chain(start, texts))
        return
    click.secho(_line(columns, widths), bold=True)
    for row in chain(start, texts):
        click.echo(_line(row, widths))


def write_fields(title: str, fields: Mapping[str, object]) -> None:
    """Write one thing: its title, and what there is to say about it; what is None is a dash."""
    click.secho(visible(title), bold=True)
    width = max(map(len, fields))
    for name, value in fields.items():
        click.echo(f"{_GAP}{name.ljust(width)}{_GAP}{'-' if value is None else visible(_text(value))}")


def opcode_text(opcode: bytes) -> str:
    """Write an opcode for people: the character where it is one, else hex."""
    character = opcode.decode("latin-1")
    return character if character.isascii() and character.isprintable() else f"0x{opcode.hex()}"


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


def _text(value: object) -> str:
    """Write a value for people: as PostgreSQL does, but bytes as bare hex and JSON for what is nested."""
    match value:
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case bool():
            return "true" if value else "false"
        case dict() | list():
            return json.dumps(value, ensure_ascii=False, default=_plain)
    return str(value)


def _finite(value: object) -> object:
    """Turn floats that JSON cannot write into text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: object) -> object:
    """Turn what JSON does not have into what it has: bytes to hex, numerics to numbers, others to text."""
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) < _DIGITS:
        return int(value) if value == value.to_integral_value() else float(value)
    return _text(value)

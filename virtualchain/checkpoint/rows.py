r"""Rows as `COPY` writes them, and the state hash that they have.

A line is a row: columns between tabs, `\N` for null, and the few escapes that COPY itself writes. Other
spellings of the same row are refused, so that rows and bytes go together.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from virtualchain.consensus.state_hash import EMPTY, row_element, update_number
from virtualchain.errors import InvalidCheckpoint

_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_ESCAPED: Final = re.compile(r"\\(.?)", re.DOTALL)
_RAW: Final = re.compile("[\b\f\r\v\0]")
"""What COPY does not write as it is, beside the tab and the line's end, which divide."""
_AT_ONCE: Final = 1_000
"""Rows whose product is made before the number is reduced once more."""


def read_row(line: bytes) -> list[str | None]:
    """Give the columns of a line, null as None; ValueError for what COPY does not write."""
    text = line.decode("utf-8").removesuffix("\n")
    if _RAW.search(text):
        raise ValueError("a control character is not escaped")
    if "\\" not in text:
        return list(text.split("\t"))
    return [_column(column) if "\\" in column else column for column in text.split("\t")]


def _column(text: str) -> str | None:
    return None if text == "\\N" else _ESCAPED.sub(_unescaped, text)


def _unescaped(found: re.Match[str]) -> str:
    plain = _ESCAPES.get(found[1])
    if plain is None:
        raise ValueError(f"there is no escape {found[0]}")
    return plain


class Rows:
    """Takes in the rows of an app's tables, and keeps the number under their state hash."""

    def __init__(self) -> None:
        self.number = EMPTY

    def take(self, table: str, columns: int, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Pass the lines of one table on, each taken in.

        Raises InvalidCheckpoint, which names table and row, for a line that is no row of so many columns.
        """
        elements: list[int] = []
        for place, line in enumerate(lines, 1):
            try:
                row = read_row(line)
            except ValueError as error:
                raise InvalidCheckpoint(f"row {place} of table {table} is none: {error}") from error
            if len(row) != columns:
                raise InvalidCheckpoint(f"row {place} of table {table} has {len(row)} columns, not {columns}")
            elements.append(row_element(table, row))
            if len(elements) == _AT_ONCE:
                self._add(elements)
            yield line
        self._add(elements)

    def _add(self, elements: list[int]) -> None:
        self.number = update_number(self.number, elements, ())
        elements.clear()

"""What the database returns as JSON, a page at a time, and the cursors between pages."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, LiteralString

import psycopg
from psycopg.rows import tuple_row

from virtualchain.errors import UsageError
from virtualchain.model import Json
from virtualchain.reading.mistakes import explained, require_text

MOST_ROWS = 1000
"""The most rows of a page."""
WRONG_CURSOR = "the cursor is not one of this list, with these filters and in this order"
"""What is wrong with a cursor that cannot be used."""
_DEEPEST = 100
"""The level from which on values are text, if Python cannot parse all of them."""
_BRACKET_OR_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_INT_DIGITS = 4000
"""Digits of the largest number that becomes an int; Python's own limit is a little higher."""


@dataclass(frozen=True, slots=True)
class Item:
    r"""An object in JSON, as PostgreSQL wrote it: numbers have all their digits, bytes are `\x` and hex."""

    text: str

    @property
    def value(self) -> Json:
        """The object. Fractions, and numbers that are too long for an int, are Decimals.

        What is nested so deeply that Python's parser refuses it is the text of its JSON.
        """
        try:
            return _parse(self.text)
        except RecursionError:
            return _parse(_shallow(self.text))

    @property
    def json(self) -> bytes:
        """Its bytes."""
        return self.text.encode()


@dataclass(frozen=True, slots=True)
class Page:
    """Some objects in order, and the cursor of those that follow; None if these are the last."""

    items: tuple[Item, ...]
    next: str | None

    @property
    def rows(self) -> list[Json]:
        """The objects; see `Item.value`."""
        return [item.value for item in self.items]

    @property
    def json(self) -> bytes:
        """A JSON array of them."""
        return b"[" + b",\n".join(item.json for item in self.items) + b"]"


def read_page(
    connection: psycopg.Connection, query: LiteralString, parameters: Mapping[str, object], limit: int
) -> Page:
    """Read a page by a query that returns JSON texts, how many rows there are up to `limit` + 1, and cursors.

    The cursor of a row is a number, or a JSON array, which is encoded. A row whose text is null is the place
    from which the next page continues to search. Raises UsageError for a block that
    cannot be shown, and for a limit that is not from 1 to `MOST_ROWS`.
    """
    if not 1 <= limit <= MOST_ROWS:
        raise UsageError(f"limit is not a number from 1 to {MOST_ROWS}: {limit}")
    rows = _fetch(connection, query, {**parameters, "limit": limit + 1})
    shown = rows[:limit]
    items = tuple(Item(text) for text, _, _ in shown if text is not None)
    if not shown or (rows[0][1] <= len(shown) and shown[-1][0] is not None):
        return Page(items, None)
    cursor: str = shown[-1][2]
    return Page(items, _encode(cursor) if cursor.startswith("[") else cursor)


def read_items(
    connection: psycopg.Connection, query: LiteralString, parameters: Mapping[str, object]
) -> list[Item]:
    """Read all rows of a query that returns JSON texts."""
    return [Item(row[0]) for row in _fetch(connection, query, parameters)]


def read_item(
    connection: psycopg.Connection,
    query: LiteralString,
    parameters: Mapping[str, object],
    blamed: str = "the request",
) -> Item | None:
    """Read the one row of such a query; None if there is none.

    Raises UsageError for values that do not fit; `blamed` has them.
    """
    rows = _fetch(connection, query, parameters, blamed)
    return Item(rows[0][0]) if rows else None


def write_cursor(*values: object) -> str:
    """Write the cursor after a row with these values, which are not for people to read."""
    return _encode(json.dumps(values, ensure_ascii=False, separators=(",", ":")))


def decode_cursor(text: str) -> list[Any]:
    """Return the values of a cursor; raises UsageError if it is not one."""
    try:
        values = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise UsageError(WRONG_CURSOR) from error
    if not isinstance(values, list):
        raise UsageError(WRONG_CURSOR)
    for value in values:
        if isinstance(value, str):
            require_text("the cursor", value)
        elif isinstance(value, int) and not -1 <= value < 2**31:
            raise UsageError(WRONG_CURSOR)
    return values


def read_cursor(text: str, *types: type) -> list[Any]:
    """Return the values of a cursor; raises UsageError if it is not one with values of these types."""
    values = decode_cursor(text)
    if [type(value) for value in values] != list(types):
        raise UsageError(WRONG_CURSOR)
    return values


def _fetch(
    connection: psycopg.Connection,
    query: LiteralString,
    parameters: Mapping[str, object],
    blamed: str = "the request",
) -> list[tuple[Any, ...]]:
    with explained(blamed), connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query, parameters).fetchall()


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _parse(text: str) -> Json:
    value: Json = json.loads(text, parse_float=Decimal, parse_int=_integer)
    return value


def _shallow(text: str) -> str:
    """Return JSON in which what is nested too deeply is text."""
    parts, kept, start, depth = [], 0, 0, 0
    for token in _BRACKET_OR_TEXT.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == _DEEPEST:
                start = token.start()
        elif token[0] in "]}":
            if depth == _DEEPEST:
                parts += [text[kept:start], json.dumps(text[start : token.end()])]
                kept = token.end()
            depth -= 1
    return "".join([*parts, text[kept:]])


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) < _INT_DIGITS else Decimal(digits)

"""What the database says about a mistake of whoever asks, as a UsageError in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from virtualchain.errors import UsageError
from virtualchain.reading.views import HIGHEST, NOT_SHOWN, BlockNotShown, complaint

_MISTAKES = ("42725", "42804", "42846", "42883")
"""SQLSTATEs of values and operators that do not fit a column's type; so are all of class 22."""


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Raise BlockNotShown for such a block, and UsageError for values that do not fit; `what` has them."""
    try:
        yield
    except psycopg.Error as error:
        state = error.sqlstate or ""
        if state == NOT_SHOWN:
            raise BlockNotShown(complaint(error)) from error
        if state.startswith("22") or state in _MISTAKES:
            raise UsageError(f"{what}: {complaint(error)}") from error
        raise


def require_text(what: str, text: str) -> str:
    """Return a text; raise UsageError if PostgreSQL cannot hold it."""
    if "\0" in text:
        raise UsageError(f"{what} has a NUL byte, which no text in the database has")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} cannot be encoded as UTF-8") from error
    return text


def require_height(block_id: int | None) -> None:
    """Raise UsageError for a number that cannot be a block's height; -1 is before the first, None is any."""
    if block_id is not None and not -1 <= block_id <= HIGHEST:
        raise UsageError(f"not a block's height: {block_id}")

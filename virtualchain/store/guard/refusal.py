"""How a statement is refused: the error, and the page that explains the rule."""

from collections.abc import Iterable, Iterator
from typing import Final, Literal

from virtualchain.errors import UsageError

Section = Literal["one-statement", "own-tables", "row-order", "sql-text", "versions", "volatile-functions"]
_PAGE: Final = "docs/mistakes.md"


class ForbiddenStatement(UsageError):
    """A statement that reducers may not run, because its result may depend on more than values."""


def forbidden(complaint: str, statement: str, section: Section) -> ForbiddenStatement:
    """Return the error for a statement; `section` is that of the page which explains the rule."""
    return ForbiddenStatement(
        f"{complaint}, so this statement may not run: {short(statement)} ({_PAGE}#{section})"
    )


def in_section(section: Section, complaints: Iterable[str]) -> Iterator[tuple[str, Section]]:
    """Yield complaints with the section that explains them."""
    return ((complaint, section) for complaint in complaints)


def short(statement: str) -> str:
    """Return a statement on one line, as messages name it."""
    text = " ".join(statement.split())
    return text if len(text) <= 200 else f"{text[:199]}…"

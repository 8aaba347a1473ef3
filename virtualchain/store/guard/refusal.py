"""How a statement is refused: the error, and the statement as messages name it."""

from virtualchain.errors import UsageError


class ForbiddenStatement(UsageError):
    """A statement that reducers may not run, because its result may depend on more than values."""


def short(statement: str) -> str:
    """Return a statement on one line, as messages name it."""
    text = " ".join(statement.split())
    return text if len(text) <= 200 else f"{text[:199]}…"

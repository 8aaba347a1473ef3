"""The DDL of an app's projections as fingerprints see it: without comments and layout."""

import re
from collections.abc import Mapping
from typing import Final

QUOTED: Final = r"""[eE]'(?:[^'\\]|\\.|'')*'|'[^']*'|"[^"]*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$"""
"""A literal or a name in quotes, of any kind."""
_PART: Final = re.compile(rf"(?P<quoted>{QUOTED})|(?:\s|--[^\n]*|/\*.*?\*/)+", re.DOTALL)
_STATEMENT: Final = re.compile(rf"(?:{QUOTED}|[^;])*+(?:;|\Z)", re.DOTALL)
_COMMENT: Final = re.compile(r"\s*COMMENT\s+ON\s", re.IGNORECASE)
_NAME: Final = r'[A-Za-z_]\w*|"(?:[^"]|"")+"'
_CREATED: Final = re.compile(rf"\s*CREATE TABLE (?:IF NOT EXISTS )?(?P<table>{_NAME})", re.IGNORECASE)
_REWORDABLE: Final = re.compile(
    rf"(?P<start>\s*COMMENT ON (?P<kind>TABLE|COLUMN) (?P<table>{_NAME})(?:\.(?P<column>{_NAME}))? IS )"
    r"'(?:[^']|'')*'(?P<end>\s*;?)",
    re.IGNORECASE,
)


def bare_sql(text: str) -> str:
    """Strip comments from SQL, and collapse white space outside quotes to single blanks."""
    return _PART.sub(lambda part: part["quoted"] or " ", text).strip()


def without_comments(text: str) -> str:
    """Strip comments from SQL as `bare_sql` does, and the COMMENT statements as well."""
    return "".join(item for item in _statements(text) if _COMMENT.match(item) is None).strip()


def with_comments(text: str, comments: Mapping[tuple[str, ...], str | None]) -> str:
    """Replace the texts of COMMENT statements on tables and columns by others, by table and column.

    A statement stays as it is if there is no comment for its object, or if it is written in another way.
    """

    def reworded(statement: str) -> str:
        match = _REWORDABLE.fullmatch(statement)
        if match is None:
            return statement
        place = tuple(map(_unquoted, filter(None, (match["table"], match["column"]))))
        comment = comments.get(place)
        if comment is None or (match["kind"].lower() == "column") != (len(place) == 2):
            return statement
        return f"{match['start']}'{comment.replace(chr(39), chr(39) * 2)}'{match['end']}"

    return "".join(map(reworded, _statements(text)))


def table_names(text: str) -> list[str]:
    """Return the names of the tables that SQL creates, in order."""
    matches = (_CREATED.match(statement) for statement in _statements(text))
    return [_unquoted(match["table"]) for match in matches if match is not None]


def _statements(text: str) -> list[str]:
    """Split bare SQL after each semicolon that ends a statement."""
    return [match[0] for match in _STATEMENT.finditer(bare_sql(text))]


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()

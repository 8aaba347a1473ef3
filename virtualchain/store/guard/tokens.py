"""The tokens of a statement: what the parser and the server, or two servers, might read differently."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from sqlglot import Token, TokenType

from virtualchain.store.guard.parameters import PARAMETER

DIALECT: Final = "postgres"
"""How sqlglot names PostgreSQL's dialect."""

STRINGS: Final = frozenset(
    {
        TokenType.STRING,
        TokenType.BYTE_STRING,
        TokenType.HEREDOC_STRING,
        TokenType.NATIONAL_STRING,
        TokenType.RAW_STRING,
        TokenType.UNICODE_STRING,
    }
)
NUMBER: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
"""A number that every version of PostgreSQL reads."""

_DEEPEST_SYNTAX: Final = 30
"""Levels of parentheses, CASE and the like: every stack, Python's and the server's, has room for them."""
_MOST_DIMENSIONS: Final = 6
"""Levels of brackets: those that an array may have."""


def text_complaints(text: str, tokens: Sequence[Token], parameters: int) -> Iterator[str]:
    """Yield what the parser and the server, or two versions of the server, might read differently."""
    if re.search(r"[^\S \t\n\r\f]", text):
        yield "it contains a space that is not one everywhere (use spaces, tabs and line ends)"
    places = {token.text for token in tokens if token.token_type not in STRINGS}
    if not all(f"{PARAMETER}{place}" in places for place in range(1, parameters + 1)):
        yield "a parameter stands inside a literal, a name or a comment (move it out of the quotes)"
    depth = dimensions = 0
    for token, after in zip(tokens, [*tokens[1:], None], strict=False):
        word = text[token.start : token.end + 1]
        beside = None if after is None or after.start != token.end + 1 else after
        if token.token_type in STRINGS:
            continue
        if word == "$":
            yield "$ is no parameter (write %s or %(name)s)"
        is_number = token.token_type is TokenType.NUMBER
        if word[0].isdigit() and (not NUMBER.fullmatch(word) or (is_number and beside and is_word(beside))):
            yield "such a number is read by newer versions of PostgreSQL only (write decimal digits)"
        is_escape = word.lower() == "u" and beside is not None and beside.token_type is TokenType.AMP
        if is_escape and text[token.end + 2 : token.end + 3] == '"':
            yield "a name is written with escapes (write its letters)"
        depth += {"(": 1, "[": 1, "case": 1, ")": -1, "]": -1, "end": -1}.get(word.lower(), 0)
        dimensions += {"[": 1, "]": -1}.get(word, 0)
        if depth > _DEEPEST_SYNTAX or dimensions > _MOST_DIMENSIONS:
            yield f"it is nested deeper than {_DEEPEST_SYNTAX} parentheses or {_MOST_DIMENSIONS} brackets"


def is_word(token: Token) -> bool:
    """Return whether a token is a keyword or a name."""
    return token.token_type is TokenType.IDENTIFIER or (
        token.token_type not in STRINGS and re.fullmatch(r"[A-Za-z_]\w*", token.text) is not None
    )

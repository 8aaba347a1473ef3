"""Literals that a server reads by its version or its clock.

The server turns an untyped literal into whatever type it needs, so a literal must be harmless as any type.
"""

import re
from collections.abc import Iterator
from typing import Final

from sqlglot import Token, TokenType, exp

from virtualchain.app.fields import DEEPEST, parse_json
from virtualchain.store.guard.tokens import NUMBER, STRINGS

_CLOCK_WORDS: Final = re.compile(r"\b(now|today|tomorrow|yesterday)\b", re.IGNORECASE)
"""Words in literals that date and time types read by the clock."""
_NEW_NUMBER: Final = re.compile(
    r"[+-]?(0x_?[0-9a-f][0-9a-f_]*|0o_?[0-7][0-7_]*|0b_?[01][01_]*|[0-9]+_[0-9_]*(\.[0-9_]*)?(e[+-]?[0-9_]+)?"
    r"|[0-9.]+(e[+-]?)?[0-9]+_[0-9_]*(e[+-]?[0-9_]+)?)",
    re.IGNORECASE,
)
"""Numbers in text that are read since PostgreSQL 16, and errors before."""
_LIST: Final = re.compile(r"[\s{}\[\](),\":=]+")
"""What separates the parts of an array, a range or a row in text."""
_EMPTY_LISTS: Final = re.compile(r"\s*(\[[\d\s:\[\]+-]*=\s*)?\{\s*\{[\s{},]*")
"""An array of empty arrays, which is an empty one since PostgreSQL 17."""
_INFINITY: Final = re.compile(r"\s*[{(\[]?\s*[+-]?\s*infinity\b", re.IGNORECASE)
"""An interval, or a date with a sign, since PostgreSQL 17."""
_INFINITE_PART: Final = re.compile(r"\binfinity\b", re.IGNORECASE)
"""The same in a list."""
_MOMENT: Final = re.compile(
    r"[0-9]\s*(us|ms|[usmhdwyc]|usec|msec|sec|min|hour|hr|day|week|mon|month|year|yr|dec|cent|mil"
    r"|microsec|millisec)[a-z]*\b|[0-9][-/:.][0-9].*[a-z]|^\s*[+-]?P[T0-9]|\bago\b"
    r"|(?<![a-z])[ymdhsj]\s*[0-9]|[0-9]\s*j\b|:\s*[a-z]|\bepoch\s*\S|^\s*[a-z]+\s+[0-9]+[-:]",
    re.IGNORECASE | re.DOTALL,
)
"""What is read as an interval, or as a time with a zone, by rules of the server's or its host's."""
_ISO_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}(:[0-9]{2})?)?)?"
)
_ESCAPES: Final = re.compile(r"(?:[^\\]|\\[\\'nrt])*", re.DOTALL)
"""Escapes in E'…' that every reader reads alike."""


def literal_complaints(token: Token, before: TokenType | None, source: str) -> Iterator[str]:
    """Yield what is wrong with a literal; `before` is the kind of the token before it."""
    if _CLOCK_WORDS.search(token.text):
        yield f"the literal '{token.text}' may be the clock's (pass text as a parameter)"
    has_escapes = token.token_type in {
        TokenType.BYTE_STRING,
        TokenType.NATIONAL_STRING,
        TokenType.UNICODE_STRING,
    }
    if before in STRINGS or (has_escapes and not _ESCAPES.fullmatch(source)):
        yield f"a string literal is written in parts or with escapes ('{token.text}'; pass a parameter)"
    if token.token_type is TokenType.UNICODE_STRING:
        yield f"a string literal is written with escapes ('{token.text}'; pass a parameter)"
    parts = [part for part in _LIST.split(token.text.replace("\\", "")) if part]
    is_list = (token.text.lstrip()[:1] in {"{", "[", "("} and not _is_object(token.text)) or all(
        NUMBER.fullmatch(part.lstrip("+-")) or _NEW_NUMBER.fullmatch(part) for part in parts
    )
    if is_list and any(map(_NEW_NUMBER.fullmatch, parts)):
        yield (
            f"how '{token.text}' is read as a number depends on the server's version "
            "(pass text as a parameter)"
        )
    if (
        _INFINITY.match(token.text)
        or (is_list and _INFINITE_PART.search(token.text))
        or _EMPTY_LISTS.fullmatch(token.text)
    ):
        yield f"how '{token.text}' is read depends on the server's version (pass text as a parameter)"
    depth = deepest = 0
    for character in token.text:
        depth += {"[": 1, "{": 1, "(": 1, "]": -1, "}": -1, ")": -1}.get(character, 0)
        deepest = max(depth, deepest)
    if deepest > DEEPEST:
        yield f"a literal is nested deeper than {DEEPEST} (pass a parameter)"


def moment_complaints(token: Token) -> Iterator[str]:
    """Yield what is wrong with a literal that might be read as a date, a time or an interval."""
    if _MOMENT.search(token.text) and not _ISO_MOMENT.fullmatch(token.text):
        yield f"how '{token.text}' is read as a time depends on the server (write ISO 8601)"


def is_json(node: exp.Expr | None) -> bool:
    """Return whether an expression is a literal that is JSON for every reader."""
    return isinstance(node, exp.Literal) and node.is_string and _is_json(node.name)


def _is_object(text: str) -> bool:
    """Return whether a literal is a JSON object, which is no array."""
    return text.lstrip().startswith("{") and _is_json(text)


def _is_json(text: str) -> bool:
    try:
        parse_json(text.encode())
    except ValueError:
        return False
    return True

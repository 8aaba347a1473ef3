"""Keywords that depend on the clock, the session or the server's version, and where literals stand.

They are looked for in the tokens: sqlglot's tree may hide them, since it has names of its own for keywords.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from sqlglot import Token, TokenType

from virtualchain.store.guard.catalog import Table
from virtualchain.store.guard.literals import literal_complaints, moment_complaints
from virtualchain.store.guard.refusal import Section, in_section
from virtualchain.store.guard.tokens import STRINGS, is_word

_SESSION_WORDS: Final = frozenset(
    """
    current_catalog current_date current_role current_schema current_time current_timestamp current_user
    localtime localtimestamp session_user system_user user
    """.split()
)
"""Keywords whose value is the clock's or the session's."""
_NEWER_WORDS: Final = frozenset({("matched", "by"), ("returning", "with")})
"""Pairs of words that only newer versions of PostgreSQL know."""
_TIME_TYPE: Final = re.compile(r"date|time|interval|tsrange|tstzrange|tsmultirange|tstzmultirange")


def word_complaints(
    tokens: Sequence[Token], text: str, tables: Iterable[Table]
) -> Iterator[tuple[str, Section]]:
    """Yield what is wrong with the words and literals of a statement on these tables."""
    padded = [None, *tokens, None]
    reads_moments = _reads_moments(tokens, tables)
    for before, token, after in zip(padded, tokens, padded[2:], strict=False):
        kind = None if before is None else before.token_type
        word = token.text.lower()
        is_call = after is not None and after.token_type is TokenType.L_PAREN
        if token.token_type in STRINGS:
            yield from in_section(
                "sql-text", literal_complaints(token, kind, text[token.start : token.end + 1])
            )
            yield from in_section("sql-text", moment_complaints(token) if reads_moments else ())
        elif not is_word(token):
            continue
        elif kind is TokenType.DOT and is_call:
            yield f"{token.text} is called with a schema (name built-in functions alone)", "own-tables"
        elif before is not None and (before.text.lower(), word) in _NEWER_WORDS:
            words = f"{before.text.upper()} {token.text.upper()}"
            yield f"only newer versions of PostgreSQL have {words} (write what version 15 takes)", "versions"
        elif word == "operator" and is_call:
            yield "OPERATOR() names an operator by its schema (write the operator alone)", "own-tables"
        elif (
            word in _SESSION_WORDS
            and token.token_type is not TokenType.IDENTIFIER
            and kind not in {TokenType.DOT, TokenType.ALIAS}
        ):
            instead = "pass state.block_time, or what else is meant, as a parameter"
            yield f"{token.text} is the clock's or the session's ({instead})", "volatile-functions"


def _reads_moments(tokens: Sequence[Token], tables: Iterable[Table]) -> bool:
    """Return whether a literal might be read as a date, a time or an interval."""
    types = (kind for table in tables for kind in table.columns.values())
    return any(map(_TIME_TYPE.match, types)) or any(
        re.match(r"make_|justify_|age$|date_|isfinite|interval", token.text.lower()) for token in tokens
    )

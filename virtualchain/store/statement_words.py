"""What a statement's words show: keywords, literals and function calls that may depend on more than values.

They are looked for in the tokens, since the syntax tree may hide them: sqlglot has names of its own for
functions and keywords.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

from sqlglot import Token, TokenType

_SESSION_WORDS: Final = frozenset(
    """
    current_catalog current_date current_role current_schema current_time current_timestamp current_user
    localtime localtimestamp session_user system_user user
    """.split()
)
"""Keywords whose value is the clock's or the session's."""
_CLOCK_WORDS: Final = re.compile(r"\b(now|today|tomorrow|yesterday)\b", re.IGNORECASE)
"""Words in literals that date and time types read by the clock."""
_SYNTAX: Final = frozenset(
    """
    all and any array as between by case conflict distinct do else except exists filter from group
    having in insert intersect into is join key lateral like ilike limit materialized not of offset on
    or order over partition returning row select set some then union using values when where with within
    """.split()
)
"""Words that may come before a parenthesis and call nothing."""
_SPECIAL_FORMS: Final = frozenset(
    """
    cast coalesce greatest grouping least nullif overlay position substring trim
    """.split()
)
"""Functions that are part of the grammar, and depend on their arguments alone."""
_TYPE_MODIFIERS: Final = frozenset({"bit", "char", "character", "decimal", "numeric", "varchar", "varying"})
"""Types that may be followed by a length in parentheses."""
_ALLOWED_FUNCTIONS: Final = frozenset({"generate_series", "length", "lower", "upper"})
"""Functions whose name also stands for a variant that the catalog does not call immutable, out of reach here
because no value has that variant's type."""
_EXCLUDED_FUNCTIONS: Final = frozenset(
    """
    acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh casefold cbrt corr cos cosd cosh cot
    cotd covar_pop covar_samp cume_dist degrees erf erfc exp gamma hash_array hash_array_extended
    hash_record hashtext hashtextextended is_normalized jsonb_path_exists jsonb_path_match
    jsonb_path_query jsonb_path_query_array jsonb_path_query_first lgamma ln log log10 normalize numnode
    percent_rank percentile_cont phraseto_tsquery pi plainto_tsquery pow power querytree radians
    regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy
    setweight sin sind sinh sqrt strip tan tand tanh to_tsquery to_tsvector ts_delete ts_filter ts_rank
    ts_rank_cd tsquery_phrase tsvector_to_array websearch_to_tsquery width_bucket
    """.split()
)
"""Immutable functions whose results are floats or differ between versions of PostgreSQL."""
_ORDERED_AGGREGATES: Final = frozenset(
    """
    array_agg json_agg json_object_agg jsonb_agg jsonb_object_agg string_agg xmlagg json_agg_strict
    jsonb_agg_strict any_value
    """.split()
)
"""Aggregates whose result depends on the order of their input."""
_STRINGS: Final = frozenset(
    {
        TokenType.STRING,
        TokenType.BYTE_STRING,
        TokenType.HEREDOC_STRING,
        TokenType.NATIONAL_STRING,
        TokenType.RAW_STRING,
        TokenType.UNICODE_STRING,
    }
)


class Words:
    """The tokens of one statement; a complaint is a clause that a sentence can go on from."""

    def __init__(
        self,
        tokens: Sequence[Token],
        ctes: Collection[str],
        are_immutable: Callable[[frozenset[str]], Mapping[str, bool]],
    ) -> None:
        """Take the names of the statement's WITH queries, and what `Catalog.are_immutable` says."""
        self._tokens = tokens
        self._ctes = ctes
        self._are_immutable = are_immutable

    def complaints(self) -> Iterator[str]:
        """Yield what is wrong: keywords and literals first, then functions."""
        yield from self._words()
        yield from self._functions()

    def _words(self) -> Iterator[str]:
        """Look at keywords, literals, and the form of calls."""
        padded = [None, *self._tokens, None]
        for before, token, after in zip(padded, self._tokens, padded[2:], strict=False):
            kind = None if before is None else before.token_type
            word = token.text.lower()
            is_call = after is not None and after.token_type is TokenType.L_PAREN
            if token.token_type in _STRINGS:
                yield from _string(token, kind)
            elif not _is_word(token):
                continue
            elif kind is TokenType.DOT and is_call:
                yield f"{token.text} is called with a schema (name built-in functions alone)"
            elif word == "operator" and is_call:
                yield "OPERATOR() names an operator by its schema"
            elif (
                word in _SESSION_WORDS
                and token.token_type is not TokenType.IDENTIFIER
                and kind not in {TokenType.DOT, TokenType.ALIAS}
            ):
                yield f"{token.text} is the clock's or the session's"

    def _functions(self) -> Iterator[str]:
        calls = dict(self._calls())
        known = self._are_immutable(frozenset(calls)) if calls else {}
        for name in sorted(calls):
            if name in _EXCLUDED_FUNCTIONS:
                yield f"the results of {name} differ between versions of PostgreSQL, or are floats"
            elif name not in known:
                yield f"{name} is not a built-in function"
            elif not known[name] and name not in _ALLOWED_FUNCTIONS:
                yield f"{name} may depend on the clock, the session, chance or settings"
            elif name in _ORDERED_AGGREGATES and not calls[name]:
                yield f"the result of {name} depends on the order of rows (add ORDER BY inside)"

    def _calls(self) -> Iterator[tuple[str, bool]]:
        """Yield the functions that are called, and whether all calls of each name an order of rows inside."""
        ordered: dict[str, bool] = {}
        for place, token in enumerate(self._tokens[:-1]):
            if self._tokens[place + 1].token_type is not TokenType.L_PAREN or not _is_word(token):
                continue
            is_quoted = token.token_type is TokenType.IDENTIFIER
            name = token.text if is_quoted else token.text.lower()
            if self._is_no_call(place, name, is_quoted=is_quoted):
                continue
            ordered[name] = ordered.get(name, True) and self._has_order(place + 1)
        return iter(ordered.items())

    def _is_no_call(self, place: int, name: str, *, is_quoted: bool) -> bool:
        """Return whether a word before a parenthesis is syntax, a type, a table, or an alias with columns."""
        if not is_quoted and name in _SYNTAX | _SPECIAL_FORMS:
            return True
        before = self._tokens[place - 1] if place else None
        if before is None:
            return False
        if before.token_type is TokenType.DCOLON or (before.text.lower() == "as" and name in _TYPE_MODIFIERS):
            return name in _TYPE_MODIFIERS
        is_after_name = _is_word(before) and before.text.lower() not in _SYNTAX | {"recursive", "distinct"}
        is_alias = before.token_type in {TokenType.R_PAREN, TokenType.ALIAS, TokenType.INTO}
        return is_after_name or is_alias or name in self._ctes

    def _has_order(self, place: int) -> bool:
        """Return whether ORDER BY stands directly inside the parenthesis at a place."""
        depth = 0
        for token in self._tokens[place:]:
            depth += {TokenType.L_PAREN: 1, TokenType.R_PAREN: -1}.get(token.token_type, 0)
            if depth == 0:
                return False
            if depth == 1 and token.text.lower().split()[:1] == ["order"]:
                return True
        return False


def _string(token: Token, before: TokenType | None) -> Iterator[str]:
    if _CLOCK_WORDS.search(token.text):
        yield f"the literal '{token.text}' may be the clock's (pass text as a parameter)"
    if before in _STRINGS or (token.token_type is not TokenType.STRING and "\\" in token.text):
        yield f"a string literal is written in parts or with escapes ('{token.text}')"


def _is_word(token: Token) -> bool:
    return token.token_type is TokenType.IDENTIFIER or (
        token.token_type not in _STRINGS and re.fullmatch(r"[A-Za-z_]\w*", token.text) is not None
    )

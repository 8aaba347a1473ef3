"""The functions that a statement calls: built-in ones, whose results depend on their arguments alone.

They are looked for in the tokens: sqlglot's tree may hide them, since it has names of its own for functions.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from sqlglot import Token, TokenType

from virtualchain.store.guard.catalog import AreImmutable
from virtualchain.store.guard.refusal import Section
from virtualchain.store.guard.tokens import is_word

_SYNTAX: Final = frozenset(
    """
    all and any array as between both by case conflict cube distinct do else escape except exists filter
    first for from group groups having ilike in insert intersect into is join key lateral leading like
    limit materialized next not of offset on or order over partition placing range recursive returning
    rollup row rows select set some symmetric then trailing union using values variadic when where with
    within
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
    acos acosd acosh any_value any_value_transfn array_reverse array_sort asin asind asinh atan atan2
    atan2d atand atanh bytea_larger bytea_smaller casefold cbrt corr cos cosd cosh cot cotd covar_pop
    covar_samp crc32 crc32c cume_dist date_add date_subtract degrees erf erfc exp gamma
    gist_translate_cmptype_common icu_unicode_version interval_accum interval_accum_inv interval_avg
    interval_combine interval_sum is_normalized json_object_agg_strict json_object_agg_unique
    json_object_agg_unique_strict jsonb_object_agg_strict jsonb_object_agg_unique
    jsonb_object_agg_unique_strict jsonb_path_exists jsonb_path_match jsonb_path_query
    jsonb_path_query_array jsonb_path_query_first jsonb_set_lax lgamma ln log log10 make_interval
    normalize numeric_exp numeric_ln numeric_log numeric_power numeric_sqrt numnode percent_rank
    percentile_cont phraseto_tsquery pi plainto_tsquery pow power querytree quote_ident radians
    record_larger record_smaller regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope
    regr_sxx regr_sxy regr_syy setweight sin sind sinh sqrt strip tan tand tanh timezone to_bin to_oct
    to_tsquery to_tsvector ts_delete ts_filter ts_lexize ts_rank ts_rank_cd tsquery_phrase
    tsvector_to_array unicode_assigned unicode_version uuid_extract_timestamp uuid_extract_version
    websearch_to_tsquery width_bucket xml_is_well_formed_content xml_is_well_formed_document xmltext
    """.split()
)
"""Immutable functions whose results are floats or differ between versions of PostgreSQL, or that only some
versions have."""
_UNSTABLE: Final = re.compile(r"hash|^reg\w+send$|^pg_|_opr$|^jsonpath_|^acl|^makeacl")
"""In the names of functions whose result is an internal of the server's, or depends on its catalogs."""
_ORDERED_AGGREGATES: Final = frozenset(
    """
    array_agg json_agg json_object_agg jsonb_agg jsonb_object_agg string_agg xmlagg json_agg_strict
    jsonb_agg_strict
    """.split()
)
"""Aggregates whose result depends on the order of their input."""


_INSTEAD: Final = {
    **dict.fromkeys(
        ("clock_timestamp", "now", "statement_timestamp", "timeofday", "transaction_timestamp"),
        "pass state.block_time",
    ),
    **dict.fromkeys(
        ("gen_random_uuid", "nextval", "random", "uuidv4", "uuidv7"),
        "derive it from txid and vtxindex, as md5 or sha256 of them",
    ),
    **dict.fromkeys(("concat", "concat_ws", "format"), "write coalesce(a, '') || b"),
    **dict.fromkeys(
        ("json_build_object", "jsonb_build_object", "row_to_json", "to_json", "to_jsonb"),
        "pass virtualchain.Jsonb({…})",
    ),
    **dict.fromkeys(("json_agg", "jsonb_agg"), "write array_agg(x ORDER BY id)"),
    **dict.fromkeys(("cbrt", "pow", "power", "sqrt"), "use whole numbers, or math.isqrt in Python"),
    "array_to_string": "write string_agg(x, ',' ORDER BY id)",
    "to_char": "write lpad(n::text, 3, '0')",
}
"""What to write instead of a function."""
_IN_PYTHON: Final = "compute it in Python, and pass the value"


def function_complaints(
    tokens: Sequence[Token], are_immutable: AreImmutable
) -> Iterator[tuple[str, Section]]:
    """Yield what is wrong with the functions that a statement calls."""
    calls, aliases = _calls(tokens)
    known = are_immutable(frozenset(calls)) if calls else {}
    for name in sorted(calls):
        if name not in known and name in aliases:
            continue
        if name in _EXCLUDED_FUNCTIONS or _UNSTABLE.search(name):
            reason = f"the results of {name} differ between versions of PostgreSQL, or are floats"
            yield f"{reason} ({_INSTEAD.get(name, _IN_PYTHON)})", "versions"
        elif name not in known:
            yield f"{name} is not a built-in function ({_IN_PYTHON})", "volatile-functions"
        elif not known[name] and name not in _ALLOWED_FUNCTIONS:
            reason = f"{name} may depend on the clock, the session, chance or settings"
            yield f"{reason} ({_INSTEAD.get(name, _IN_PYTHON)})", "volatile-functions"
        elif name in _ORDERED_AGGREGATES and not calls[name]:
            yield f"the result of {name} depends on the order of rows (add ORDER BY inside)", "row-order"


def _calls(tokens: Sequence[Token]) -> tuple[dict[str, bool], frozenset[str]]:
    """Return the functions that are called, and whether all calls of each name an order of rows inside.

    Some of them may be aliases with a list of columns, which only the server's catalog can tell: those are
    returned, too.
    """
    ordered: dict[str, bool] = {}
    sure: set[str] = set()
    for place, token in enumerate(tokens[:-1]):
        if tokens[place + 1].token_type is not TokenType.L_PAREN or not is_word(token):
            continue
        is_quoted = token.token_type is TokenType.IDENTIFIER
        name = token.text if is_quoted else token.text.lower()
        if _is_no_call(tokens, place, name, is_quoted=is_quoted):
            continue
        ordered[name] = ordered.get(name, True) and _has_order(tokens, place + 1)
        if not _may_be_alias(tokens[place - 1] if place else None):
            sure.add(name)
    return ordered, frozenset(ordered.keys() - sure)


def _is_no_call(tokens: Sequence[Token], place: int, name: str, *, is_quoted: bool) -> bool:
    """Return whether a word before a parenthesis is syntax, a type, a table, or a query of WITH."""
    if not is_quoted and name in _SYNTAX | _SPECIAL_FORMS:
        return True
    before = tokens[place - 1] if place else None
    if before is None:
        return False
    if before.token_type is TokenType.DCOLON or (before.text.lower() == "as" and name in _TYPE_MODIFIERS):
        return name in _TYPE_MODIFIERS
    return before.token_type in {TokenType.ALIAS, TokenType.INTO} or _names_query(tokens, place)


def _names_query(tokens: Sequence[Token], place: int) -> bool:
    """Return whether a name and its list of columns are followed by a query, as in WITH."""
    depth = 0
    for end in range(place + 1, len(tokens)):
        depth += {TokenType.L_PAREN: 1, TokenType.R_PAREN: -1}.get(tokens[end].token_type, 0)
        if depth == 0:
            rest = [each.text.lower() for each in tokens[end + 1 : end + 4]]
            return rest[:2] in (["as", "("], ["as", "materialized"]) or rest == ["as", "not", "materialized"]
    return False


def _may_be_alias(before: Token | None) -> bool:
    """Return whether what follows a token may be an alias with a list of columns, as after a table's name."""
    return before is not None and (
        before.token_type is TokenType.R_PAREN or (is_word(before) and before.text.lower() not in _SYNTAX)
    )


def _has_order(tokens: Sequence[Token], place: int) -> bool:
    """Return whether ORDER BY stands directly inside the parenthesis at a place."""
    depth = 0
    for token in tokens[place:]:
        depth += {TokenType.L_PAREN: 1, TokenType.R_PAREN: -1}.get(token.token_type, 0)
        if depth == 0:
            return False
        if depth == 1 and token.text.lower().split()[:1] == ["order"]:
            return True
    return False

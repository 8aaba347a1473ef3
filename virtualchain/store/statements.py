"""What reducers may say in SQL: a look at each statement's syntax, once, before it runs.

A statement may run if its result depends on values alone: on the rows of the app's projections and on its
parameters, not on the server's version, clock, host, plan or settings (docs/determinism.md). The look also
decides whether an error of the statement may reject an input. That is so if no plan can change whether the
error is raised.
"""

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.errors import SqlglotError

from virtualchain.errors import UsageError
from virtualchain.store.literals import (
    STRINGS,
    is_json,
    is_word,
    literal_complaints,
    moment_complaints,
    text_complaints,
)
from virtualchain.store.row_order import RowOrder, assigned_columns
from virtualchain.store.sources import PARAMETER, Catalog, Reader, Table, depth, parameter, scopes

_DIALECT: Final = "postgres"
"""How sqlglot names PostgreSQL's dialect."""

_LONGEST: Final = 100_000
"""Characters of a statement: what is longer was put together from values."""
_KINDS: Final = (exp.Select, exp.SetOperation, exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Values)
_STARTS: Final = frozenset({"select", "insert", "update", "delete", "merge", "values", "with", "("})
_SYSTEM_COLUMNS: Final = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
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
_LONGEST_CHAIN: Final = 1_000
"""Levels of a syntax tree, in which each operator of a chain is one."""
_SYNTAX: Final = frozenset(
    """
    all and any array as between by case conflict cube distinct do else except exists filter from group
    having in insert intersect into is join key lateral like ilike limit materialized not of offset on or
    order over partition returning rollup row select set some then union using values when where with within
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
    acos acosd acosh any_value array_reverse array_sort asin asind asinh atan atan2 atan2d atand atanh
    casefold cbrt corr cos cosd cosh cot cotd covar_pop covar_samp crc32 crc32c cume_dist degrees erf erfc
    exp gamma icu_unicode_version is_normalized jsonb_path_exists jsonb_path_match jsonb_path_query
    jsonb_path_query_array jsonb_path_query_first jsonb_set_lax lgamma ln log log10 normalize numeric_exp
    numeric_ln numeric_log numeric_power numeric_sqrt numnode percent_rank percentile_cont
    phraseto_tsquery pi plainto_tsquery pow power querytree quote_ident radians regr_avgx regr_avgy
    regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy setweight sin sind sinh sqrt
    strip tan tand tanh timezone to_bin to_oct to_tsquery to_tsvector ts_delete ts_filter ts_rank
    ts_rank_cd tsquery_phrase tsvector_to_array unicode_assigned unicode_version uuid_extract_timestamp
    uuid_extract_version websearch_to_tsquery width_bucket xml_is_well_formed_content
    xml_is_well_formed_document xmltext
    """.split()
)
"""Immutable functions whose results are floats or differ between versions of PostgreSQL, or that only some
versions have."""
_HASH: Final = re.compile(r"hash")
"""In the names of functions whose result is an internal of the server's."""
_ORDERED_AGGREGATES: Final = frozenset(
    """
    array_agg json_agg json_object_agg jsonb_agg jsonb_object_agg string_agg xmlagg json_agg_strict
    jsonb_agg_strict
    """.split()
)
"""Aggregates whose result depends on the order of their input."""

_TEXT_TYPES: Final = frozenset(
    {"text", "varchar", "character varying", "char", "character", "bpchar", "name"}
)
_READABLE_TYPES: Final = _TEXT_TYPES | {"bytea", "uuid"}
"""Types that text may be cast to: how they are read depends on the text alone."""
_NUMBER_TYPES: Final = frozenset({"smallint", "integer", "bigint", "numeric", "boolean"})
_ALIASES: Final = {
    "int": "integer",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "decimal": "numeric",
    "bool": "boolean",
    "character varying": "varchar",
    "character": "char",
    "bpchar": "char",
}
_NUMBERS: Final = (
    exp.Abs,
    exp.Avg,
    exp.Boolean,
    exp.Ceil,
    exp.Count,
    exp.DenseRank,
    exp.Floor,
    exp.Length,
    exp.Ntile,
    exp.Null,
    exp.Predicate,
    exp.Rank,
    exp.Round,
    exp.RowNumber,
    exp.Sign,
    exp.StrPosition,
    exp.Sum,
)
"""Expressions that are numbers or booleans, whatever they are made of."""
_TOTAL: Final = (
    exp.And,
    exp.Any,
    exp.Between,
    exp.Boolean,
    exp.Coalesce,
    exp.Column,
    exp.EQ,
    exp.GT,
    exp.GTE,
    exp.Identifier,
    exp.In,
    exp.Is,
    exp.LT,
    exp.LTE,
    exp.Literal,
    exp.NEQ,
    exp.Not,
    exp.Null,
    exp.NullSafeEQ,
    exp.NullSafeNEQ,
    exp.Or,
    exp.Paren,
    exp.Tuple,
    exp.Where,
)
"""Expressions that never fail, whatever the values."""
_NUMERIC_ERRORS: Final = (
    exp.Abs,
    exp.Add,
    exp.Alias,
    exp.DataType,
    exp.Div,
    exp.From,
    exp.Greatest,
    exp.IntDiv,
    exp.Least,
    exp.Length,
    exp.Lower,
    exp.Mod,
    exp.Mul,
    exp.Neg,
    exp.Returning,
    exp.Star,
    exp.Sub,
    exp.Table,
    exp.TableAlias,
    exp.Upper,
)
"""Expressions, and parts of a statement, that fail only with the errors that may reject an input."""
_NESTED: Final = (exp.Select, exp.SetOperation, exp.Subquery, exp.With, exp.Merge, exp.Join, exp.Lateral)
_PER_PLAN: Final = (exp.Limit, exp.Offset, exp.Distinct, exp.Group, exp.Having, exp.Order, exp.Window)
"""What lets a plan choose for which rows the output is computed."""
_CONDITIONAL: Final = (exp.And, exp.Case, exp.Coalesce, exp.Filter, exp.If, exp.Or)
"""What lets a plan choose which of its parts are computed at all."""


_UNSOUND: Final[tuple[tuple[type[exp.Expr] | tuple[type[exp.Expr], ...], str], ...]] = (
    ((exp.Command, exp.Into, exp.Create, exp.Drop, exp.Copy), "it does more than read and write rows"),
    (exp.TableSample, "TABLESAMPLE depends on chance and on where rows are stored"),
    (exp.AtTimeZone, "AT TIME ZONE depends on the host's time zones"),
    ((exp.Pow, exp.Sqrt, exp.Cbrt), "powers and roots are floats"),
    (
        (exp.JSONBPathExists, exp.MatchAgainst),
        "jsonpath and text search differ between versions of PostgreSQL",
    ),
    (exp.JSON, "only newer versions of PostgreSQL have IS JSON"),
    (exp.JSONKeyValue, "only newer versions of PostgreSQL have this form of JSON_OBJECT"),
    (exp.Interval, "how text is read as an interval depends on the server's version"),
)
"""Syntax whose result may depend on more than values."""


class ForbiddenStatement(UsageError):
    """A statement that reducers may not run, because its result may depend on more than values."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that may run: what the server gets, and what its parameters and errors may be."""

    text: str
    """With $1, $2 … for its parameters."""
    parameters: tuple[str | int, ...]
    """The name or position of each parameter, in the order of the numbers."""
    not_text: frozenset[int]
    """Places of parameters whose cast would have the server read text: they must not be text."""
    writes: bool
    """Whether it is anything but a query."""
    may_reject: bool
    """Whether a value that does not fit rejects the input: no plan can change whether that is noticed."""


def examine(statement: str, catalog: Catalog, *, has_parameters: bool) -> Statement:
    """Look at a statement; raise ForbiddenStatement, which says what and why, if reducers may not run it."""
    try:
        with ThreadPoolExecutor(1) as thread:  # its stack is empty, however deep the caller's is
            return thread.submit(_examine, statement, catalog, has_parameters=has_parameters).result()
    except (SqlglotError, RecursionError) as error:
        raise ForbiddenStatement(
            f"this statement cannot be analyzed, so it may not run: {short(statement)}"
        ) from error


def _examine(statement: str, catalog: Catalog, *, has_parameters: bool) -> Statement:
    if len(statement) > _LONGEST:
        raise ForbiddenStatement(
            f"a statement has at most {_LONGEST} characters (pass a list as one parameter): "
            f"{short(statement)}"
        )
    numbered, readable, parameters = _number_parameters(statement, has_parameters=has_parameters)
    tokens = sqlglot.tokenize(readable, read=_DIALECT)
    for complaint in text_complaints(readable, tokens, len(parameters)):
        raise ForbiddenStatement(f"{complaint}, so this statement may not run: {short(statement)}")
    is_allowed = bool(tokens) and tokens[0].text.lower() in _STARTS
    trees = [tree for tree in sqlglot.parse(readable, read=_DIALECT) if tree] if is_allowed else []
    if len(trees) != 1 or not isinstance(trees[0], _KINDS):
        raise ForbiddenStatement(
            "a reducer runs one SELECT, INSERT, UPDATE, DELETE, MERGE or VALUES at a time (transaction, "
            f"settings and schema are the engine's), so this may not run: {short(statement)}"
        )
    (tree,) = trees
    for identifier in tree.find_all(exp.Identifier):
        if not identifier.quoted:  # as the server reads it
            identifier.set("this", identifier.name.lower() if identifier.name.isascii() else identifier.name)
    look = _Look(tree, tokens, readable, catalog)
    for complaint in look.complaints():
        raise ForbiddenStatement(f"{complaint}, so this statement may not run: {short(statement)}")
    writes = tree.find(exp.Insert, exp.Update, exp.Delete, exp.Merge) is not None
    return Statement(numbered, parameters, frozenset(look.not_text), writes, look.has_safe_shape())


def short(statement: str) -> str:
    """Return a statement on one line, as messages name it."""
    text = " ".join(statement.split())
    return text if len(text) <= 200 else f"{text[:199]}…"


def _number_parameters(statement: str, *, has_parameters: bool) -> tuple[str, str, tuple[str | int, ...]]:
    """Rewrite psycopg's placeholders: as $1 … for the server, and as names that sqlglot reads as columns."""
    parameters: list[str | int] = []
    if not has_parameters:
        return statement, statement, ()

    def place(match: re.Match[str]) -> int:
        name: str | int = match["name"] if match["name"] is not None else len(parameters)
        if isinstance(name, int) or name not in parameters:
            parameters.append(name)
        return parameters.index(name) + 1

    server: list[str] = []
    reader: list[str] = []
    last = 0
    for match in re.finditer(r"%(?:%|(?:\((?P<name>[^)]*)\))?(?P<form>[sbt]))", statement):
        between = statement[last : match.start()]
        around = (
            statement[max(0, match.start() - 1) : match.start()] + statement[match.end() : match.end() + 1]
        )
        if match["form"] is not None and re.search(r"[\w$]", around):
            raise ForbiddenStatement(
                f"a parameter is part of a word, so this may not run: {short(statement)}"
            )
        number = None if match["form"] is None else place(match)
        server += [between, "%" if number is None else f"${number}"]
        reader += [between, "%" if number is None else f"{PARAMETER}{number}"]
        last = match.end()
    server.append(statement[last:])
    reader.append(statement[last:])
    return "".join(server), "".join(reader), tuple(parameters)


class _Look:
    """One look at a syntax tree; a complaint is a clause that a sentence can go on from."""

    def __init__(self, tree: exp.Expr, tokens: list[Token], text: str, catalog: Catalog) -> None:
        self._tree = tree
        self._tokens = tokens
        self._text = text
        self._catalog = catalog
        self._reader = Reader(tree, catalog)
        self._rows = RowOrder(tree, catalog, self._reader)
        self.not_text: set[int] = set()

    def complaints(self) -> Iterator[str]:
        """Yield what is wrong, the gravest first."""
        if depth(self._tree) > _LONGEST_CHAIN:
            yield f"it has a chain of more than {_LONGEST_CHAIN} operators (pass a list as one parameter)"
        for node in self._tree.walk():
            yield from self._node(node)
        yield from self._words()
        yield from self._functions()
        yield from self._rows.complaints()

    def _node(self, node: exp.Expr) -> Iterator[str]:
        for kinds, complaint in _UNSOUND:
            if isinstance(node, kinds):
                yield complaint
        match node:
            case exp.Table():
                yield from self._table(node)
            case exp.Column() | exp.Dot():
                yield from self._column(node)
            case exp.Lock() if node.args.get("wait") is not None:
                yield "NOWAIT and SKIP LOCKED depend on other sessions"
            case exp.Collate() if node.expression.name not in {"C", "POSIX"}:
                yield f"the collation {node.expression.name} depends on the host"
            case exp.Cast():
                yield from self._cast(node)
        yield from self._newer(node)

    def _newer(self, node: exp.Expr) -> Iterator[str]:
        """Look for what only newer versions of PostgreSQL have."""
        match node:
            case exp.Subquery() | exp.Values() if isinstance(node.parent, exp.From | exp.Join):
                if not node.alias:
                    yield "only newer versions of PostgreSQL take a subquery in FROM without a name"
            case exp.Merge() if node.args.get("returning") is not None:
                yield "only newer versions of PostgreSQL have MERGE … RETURNING"
            case exp.Column() if node.find_ancestor(exp.Returning) and node.table in {"old", "new"}:
                yield "only newer versions of PostgreSQL have old and new in RETURNING"
            case exp.Anonymous() if "strip_nulls" in node.name.lower() and len(node.expressions) > 1:
                yield f"only newer versions of PostgreSQL have {node.name} with two arguments"
            case exp.Is() if node.expression.name == "normalized":
                yield "what is normalized depends on the server's version of Unicode"
            case exp.Max() | exp.Min() | exp.Reverse():
                value = node.this.unnest()
                is_row = isinstance(value, exp.Tuple) or (
                    isinstance(value, exp.Column)
                    and not value.table
                    and value.name in {table.alias_or_name for table in self._tree.find_all(exp.Table)}
                )
                is_bytes = isinstance(value, exp.Column) and self._origin(value) == "bytea"
                if is_row or is_bytes or (isinstance(value, exp.Anonymous) and value.name.lower() == "row"):
                    yield f"only newer versions of PostgreSQL have {node.key} of such a value"

    def _table(self, node: exp.Table) -> Iterator[str]:
        if not isinstance(node.this, exp.Identifier):
            return  # a function in FROM
        if node.args.get("db") is not None:
            yield f"{node.sql(_DIALECT)} lies outside the app's tables (name its own without a schema)"
        elif node.name not in self._catalog.tables and node.name not in self._reader.ctes:
            yield f"{node.name} is not a projection of the app"

    def _column(self, node: exp.Expr) -> Iterator[str]:
        parts = [part for part in node.find_all(exp.Identifier) if part.parent is node]
        if not parts:
            return
        if isinstance(node, exp.Column) and node.args.get("db") is not None:
            yield f"{node.sql(_DIALECT)} names a schema"
        name = (parts[0] if isinstance(node, exp.Column) else parts[-1]).name
        if name in _SYSTEM_COLUMNS:
            yield f"the system column {name} depends on where rows are stored"

    # Text that the server would read.

    def _cast(self, node: exp.Cast) -> Iterator[str]:
        target = _type_name(node.to)
        element = target.removesuffix("[]")
        element = _ALIASES.get(
            self._catalog.domains.get(element, element), self._catalog.domains.get(element, element)
        )
        if element in self._catalog.enums or element in _READABLE_TYPES:
            return
        if element not in _NUMBER_TYPES | {"jsonb"}:
            yield f"a cast to {target} depends on the server's version, clock or settings"
        elif not (element == target == "jsonb" and is_json(node.this)) and not self._is_no_text(
            node.this, element
        ):
            yield (
                f"text would be read as {target}, which depends on the server's version (read it in Python, "
                "and pass the value)"
            )

    def _is_no_text(self, node: exp.Expr | None, target: str) -> bool:  # noqa: C901, PLR0911 - one rule a kind of syntax
        """Return whether an expression surely is not text; parameters are noted, to be checked later."""
        match node:
            case exp.Column() if (place := parameter(node)) is not None:
                self.not_text.add(place)
                return True
            case exp.Column():
                origin = self._origin(node)
                if isinstance(origin, exp.Expr):
                    return self._is_no_text(origin, target)
                kinds = {"jsonb"} if target == "jsonb" else _NUMBER_TYPES
                return origin is not None and origin.removesuffix("[]") in kinds
            case exp.Literal():
                return not node.is_string
            case exp.Cast():
                return _type_name(node.to).removesuffix("[]") in _NUMBER_TYPES
            case exp.Add() | exp.Sub() | exp.Mul() | exp.Div() | exp.Mod() | exp.IntDiv():
                return True  # there is no arithmetic on text
            case (
                exp.Paren() | exp.Neg() | exp.Max() | exp.Min() | exp.Window() | exp.Bracket() | exp.Filter()
            ):
                return self._is_no_text(node.this, target)
            case exp.Coalesce() | exp.Greatest() | exp.Least():
                return all(self._is_no_text(each, target) for each in [node.this, *node.expressions])
            case exp.Case():
                values = [branch.args["true"] for branch in node.args["ifs"]]
                values += [node.args["default"]] if node.args.get("default") is not None else []
                return all(self._is_no_text(each, target) for each in values)
            case exp.Array():
                return all(self._is_no_text(each, target) for each in node.expressions)
            case exp.Subquery() if isinstance(node.this, exp.Select):
                return all(self._is_no_text(each.unalias(), target) for each in node.this.expressions)
        return isinstance(node, _NUMBERS)

    def _origin(self, column: exp.Column) -> str | exp.Expr | None:
        """Return the type of a column, or what a query computes it from, if that is certain."""
        for node in scopes(column):
            if isinstance(node, exp.Insert) and column.table == "excluded":
                table = self._catalog.tables.get(node.find(exp.Table).name)  # type: ignore[union-attr]  # INTO names one
                return None if table is None else table.columns.get(column.name)
            scope = self._reader.scope(node)
            if scope.has_column(column):
                return scope.origin(column)
        return None

    # Functions.

    def _words(self) -> Iterator[str]:
        """Look at words that sqlglot's tree may hide: it has names of its own for functions and keywords."""
        padded = [None, *self._tokens, None]
        reads_moments = self._reads_moments()
        for before, token, after in zip(padded, self._tokens, padded[2:], strict=False):
            kind = None if before is None else before.token_type
            word = token.text.lower()
            is_call = after is not None and after.token_type is TokenType.L_PAREN
            if token.token_type in STRINGS:
                yield from literal_complaints(token, kind, self._text[token.start : token.end + 1])
                yield from moment_complaints(token) if reads_moments else ()
            elif not is_word(token):
                continue
            elif kind is TokenType.DOT and is_call:
                yield f"{token.text} is called with a schema (name built-in functions alone)"
            elif before is not None and (before.text.lower(), word) in _NEWER_WORDS:
                yield f"only newer versions of PostgreSQL have {before.text.upper()} {token.text.upper()}"
            elif word == "operator" and is_call:
                yield "OPERATOR() names an operator by its schema"
            elif (
                word in _SESSION_WORDS
                and token.token_type is not TokenType.IDENTIFIER
                and kind not in {TokenType.DOT, TokenType.ALIAS}
            ):
                yield f"{token.text} is the clock's or the session's"

    def _reads_moments(self) -> bool:
        """Return whether a literal might be read as a date, a time or an interval."""
        tables = (self._catalog.tables.get(table.name) for table in self._tree.find_all(exp.Table))
        types = (kind for table in tables if table is not None for kind in table.columns.values())
        return any(map(_TIME_TYPE.match, types)) or any(
            re.match(r"make_|justify_|age$|date_|isfinite|interval", token.text.lower())
            for token in self._tokens
        )

    def _functions(self) -> Iterator[str]:
        calls = dict(self._calls())
        known = self._catalog.are_immutable(frozenset(calls)) if calls else {}
        for name in sorted(calls):
            if name in _EXCLUDED_FUNCTIONS or _HASH.search(name):
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
            if self._tokens[place + 1].token_type is not TokenType.L_PAREN or not is_word(token):
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
        is_after_name = is_word(before) and before.text.lower() not in _SYNTAX | {"recursive", "distinct"}
        is_alias = before.token_type in {TokenType.R_PAREN, TokenType.ALIAS, TokenType.INTO}
        return is_after_name or is_alias or name in self._reader.ctes

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

    def _target(self) -> Table | None:
        tree = self._tree
        table = tree.find(exp.Table) if isinstance(tree, exp.Insert | exp.Update | exp.Delete) else None
        return None if table is None else self._catalog.tables.get(table.name)

    # Errors.

    def has_safe_shape(self) -> bool:
        """Return whether no plan, and no order of rows, can change if a value of this statement fails."""
        tree = self._tree
        body = [node for node in tree.walk() if node is not tree]
        guarded = [node for node in body if isinstance(node, _CONDITIONAL) or node is tree.args.get("where")]
        if any(isinstance(node, _NESTED) for node in body) or not all(map(_never_fails, guarded)):
            return False
        match tree:
            case exp.Select():
                scope = self._reader.scope(tree)
                return (
                    not any(isinstance(node, (*_PER_PLAN, exp.AggFunc)) for node in body)
                    and all(isinstance(table.this, exp.Identifier) for table in tree.find_all(exp.Table))
                    and (scope.has_one_row(tree) or self._fails_alike(body))
                )
            case exp.Insert():
                conflict = tree.args.get("conflict")
                return isinstance(tree.expression, exp.Values) and (
                    conflict is None or all(map(_never_fails, conflict.find_all(exp.Where)))
                )
            case exp.Update():
                is_alone = tree.args.get("from_") is None
                return is_alone and (self._rows.is_one_row(tree) or self._updates_alike(tree, body))
            case exp.Delete():
                is_alone = not tree.args.get("using")
                return is_alone and (self._rows.is_one_row(tree) or self._fails_alike(body))
        return isinstance(tree, exp.Values)

    def _fails_alike(self, nodes: Iterable[exp.Expr]) -> bool:
        """Return whether rows fail with the same errors only, so that it does not matter which is first."""
        return all(
            isinstance(node, (*_TOTAL, *_NUMERIC_ERRORS))
            or (isinstance(node, exp.Cast) and _type_name(node.to) in _NUMBER_TYPES)
            for node in nodes
        )

    def _updates_alike(self, update: exp.Update, nodes: Iterable[exp.Expr]) -> bool:
        """Return whether no row can violate a constraint where another has a value that does not fit."""
        table = self._target()
        if table is None or not self._fails_alike(nodes):
            return False
        assigned = {column.name for column in assigned_columns(update)}
        read = {column.name for part in update.expressions for column in part.expression.find_all(exp.Column)}
        may_be_null = not all(name in table.required or name.startswith(PARAMETER) for name in read)
        return not assigned & table.checked and not (may_be_null and assigned & table.required)


def _never_fails(node: exp.Expr) -> bool:
    return all(isinstance(part, _TOTAL) for part in node.walk())


def _type_name(kind: exp.DataType) -> str:
    text = re.sub(r"\(.*?\)", "", kind.sql(_DIALECT).lower()).strip().strip('"')
    element = text.removesuffix("[]")
    return _ALIASES.get(element, element) + ("[]" if text.endswith("[]") else "")

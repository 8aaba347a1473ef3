"""What reducers may say in SQL: a look at each statement's syntax, once, before it runs.

A statement may run if its result depends on values alone: on the rows of the app's projections and on its
parameters, not on the server's version, clock, host, plan or settings (docs/determinism.md). The look also
decides whether an error of the statement may reject an input. That is so if no plan can change whether the
error is raised.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.errors import SqlglotError

from virtualchain.errors import UsageError

# How sqlglot names PostgreSQL's dialect, and a parameter in the text that it reads.
_DIALECT: Final = "postgres"
_PARAMETER: Final = "vc_parameter_"

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
_PLAIN_NUMBER: Final = re.compile(r"\s*[+-]?[0-9]{1,1000}(\.[0-9]{1,1000})?\s*")

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
_NESTED: Final = (exp.Select, exp.SetOperation, exp.Subquery, exp.With, exp.Merge, exp.Join, exp.Lateral)
_PER_PLAN: Final = (exp.Limit, exp.Offset, exp.Distinct, exp.Group, exp.Having, exp.Order, exp.Window)
"""What lets a plan choose for which rows the output is computed."""
_CONDITIONAL: Final = (exp.And, exp.Case, exp.Coalesce, exp.Filter, exp.If, exp.Or)
"""What lets a plan choose which of its parts are computed at all."""


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
_UNSOUND: Final[tuple[tuple[type[exp.Expr] | tuple[type[exp.Expr], ...], str], ...]] = (
    ((exp.Command, exp.Into, exp.Create, exp.Drop, exp.Copy), "it does more than read and write rows"),
    (exp.TableSample, "TABLESAMPLE depends on chance and on where rows are stored"),
    (exp.AtTimeZone, "AT TIME ZONE depends on the host's time zones"),
    ((exp.Pow, exp.Sqrt, exp.Cbrt), "powers and roots are floats"),
    (exp.Interval, "how text is read as an interval depends on the server's version"),
)
"""Syntax whose result may depend on more than values."""


class ForbiddenStatement(UsageError):
    """A statement that reducers may not run, because its result may depend on more than values."""


@dataclass(frozen=True, slots=True)
class Table:
    """A projection as statements see it: types by column, the primary key, keys checked row by row."""

    columns: Mapping[str, str]
    key: tuple[str, ...]
    unique: tuple[frozenset[str], ...]
    """Of each unique index that is not deferrable, its columns; empty for one on expressions."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """What statements of one app may name."""

    tables: Mapping[str, Table]
    enums: frozenset[str] = frozenset()
    are_immutable: Callable[[frozenset[str]], Mapping[str, bool]] = field(default=lambda _: {})
    """By name whether all built-in functions of that name are immutable; unknown names are left out."""


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
    if len(statement) > _LONGEST:
        raise ForbiddenStatement(
            f"a statement has at most {_LONGEST} characters (pass a list as one parameter): "
            f"{short(statement)}"
        )
    numbered, readable, parameters = _number_parameters(statement, has_parameters=has_parameters)
    try:
        tokens = sqlglot.tokenize(readable, read=_DIALECT)
        is_allowed = bool(tokens) and tokens[0].text.lower() in _STARTS
        trees = [tree for tree in sqlglot.parse(readable, read=_DIALECT) if tree] if is_allowed else []
    except (SqlglotError, RecursionError) as error:
        raise ForbiddenStatement(
            f"this statement cannot be analyzed, so it may not run: {short(statement)}"
        ) from error
    if len(trees) != 1 or not isinstance(trees[0], _KINDS):
        raise ForbiddenStatement(
            "a reducer runs one SELECT, INSERT, UPDATE, DELETE, MERGE or VALUES at a time (transaction, "
            f"settings and schema are the engine's), so this may not run: {short(statement)}"
        )
    look = _Look(trees[0], tokens, catalog)
    for complaint in look.complaints():
        raise ForbiddenStatement(f"{complaint}, so this statement may not run: {short(statement)}")
    writes = trees[0].find(exp.Insert, exp.Update, exp.Delete, exp.Merge) is not None
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

    server, reader, last = [], [], 0
    for match in re.finditer(r"%(?:%|(?:\((?P<name>[^)]*)\))?(?P<form>[sbt]))", statement):
        between = statement[last : match.start()]
        number = None if match["form"] is None else place(match)
        server += [between, "%" if number is None else f"${number}"]
        reader += [between, "%" if number is None else f"{_PARAMETER}{number}"]
        last = match.end()
    server.append(statement[last:])
    reader.append(statement[last:])
    return "".join(server), "".join(reader), tuple(parameters)


class _Look:
    """One look at a syntax tree; a complaint is a clause that a sentence can go on from."""

    def __init__(self, tree: exp.Expr, tokens: list[Token], catalog: Catalog) -> None:
        self._tree = tree
        self._tokens = tokens
        self._catalog = catalog
        self._ctes = {cte.alias for cte in tree.find_all(exp.CTE)}
        self.not_text: set[int] = set()

    def complaints(self) -> Iterator[str]:
        """Yield what is wrong, the gravest first."""
        for node in self._tree.walk():
            yield from self._node(node)
        yield from self._words()
        yield from self._functions()
        yield from self._order_of_rows()

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
            case exp.Literal() if node.is_string and not _PLAIN_NUMBER.fullmatch(node.this):
                if self._is_beside_number(node):
                    yield f"how '{node.this}' is read as a number depends on the server's version"

    def _table(self, node: exp.Table) -> Iterator[str]:
        if not isinstance(node.this, exp.Identifier):
            return  # a function in FROM
        if node.args.get("db") is not None:
            yield f"{node.sql(_DIALECT)} lies outside the app's tables (name its own without a schema)"
        elif node.name not in self._catalog.tables and node.name not in self._ctes:
            yield f"{node.name} is not a projection of the app"

    def _column(self, node: exp.Expr) -> Iterator[str]:
        parts = [part for part in node.find_all(exp.Identifier) if part.parent is node]
        if not parts:
            return
        name = (parts[0] if isinstance(node, exp.Column) else parts[-1]).name
        if name in _SYSTEM_COLUMNS:
            yield f"the system column {name} depends on where rows are stored"

    # Text that the server would read.

    def _cast(self, node: exp.Cast) -> Iterator[str]:
        target = _type_name(node.to)
        element = target.removesuffix("[]")
        is_app_type = element in self._catalog.enums
        if is_app_type or element in _READABLE_TYPES:
            return
        if element not in _NUMBER_TYPES | {"jsonb"}:
            yield f"a cast to {target} depends on the server's version, clock or settings"
        elif not self._is_no_text(node.this, element):
            yield (
                f"text would be read as {target}, which depends on the server's version (read it in Python, "
                "and pass the value)"
            )

    def _is_no_text(self, node: exp.Expr | None, target: str) -> bool:  # noqa: PLR0911 - one rule a kind of syntax
        """Return whether an expression surely is not text; parameters are noted, to be checked later."""
        match node:
            case exp.Column() if (place := _parameter(node)) is not None:
                self.not_text.add(place)
                return True
            case exp.Column():
                types = {
                    table.columns[node.name]
                    for table in self._catalog.tables.values()
                    if node.name in table.columns
                }
                kinds = {"jsonb"} if target == "jsonb" else _NUMBER_TYPES
                return bool(types) and types <= kinds
            case exp.Literal():
                return not node.is_string
            case exp.Null() | exp.Boolean() | exp.Count() | exp.Sum() | exp.Avg() | exp.Predicate():
                return True
            case exp.Cast():
                return _type_name(node.to).removesuffix("[]") in _NUMBER_TYPES
            case exp.Paren() | exp.Neg() | exp.Max() | exp.Min() | exp.Abs():
                return self._is_no_text(node.this, target)
            case exp.Add() | exp.Sub() | exp.Mul() | exp.Div() | exp.Mod() | exp.IntDiv():
                return True  # there is no arithmetic on text
            case exp.Coalesce():
                return all(self._is_no_text(each, target) for each in [node.this, *node.expressions])
            case exp.Array():
                return all(self._is_no_text(each, target) for each in node.expressions)
        return False

    def _is_beside_number(self, node: exp.Literal) -> bool:
        """Return whether the server would read a string literal as a number."""
        parent = node.parent
        if isinstance(parent, exp.In | exp.Between):
            return _parameter(parent.this) is None and self._is_no_text(parent.this, "numeric")
        if isinstance(parent, exp.Tuple) and isinstance(parent.parent, exp.Values):
            return self._inserted_type(parent.parent, parent.expressions.index(node)) in _NUMBER_TYPES
        if isinstance(parent, exp.Binary) and not isinstance(parent, exp.DPipe | exp.JSONExtract):
            other = parent.expression if parent.this is node else parent.this
            return (
                isinstance(other, exp.Column | exp.Count | exp.Sum)
                and _parameter(other) is None
                and self._is_no_text(other, "numeric")
            )
        return False

    def _inserted_type(self, values: exp.Values, place: int) -> str | None:
        insert = values.parent
        if not isinstance(insert, exp.Insert):
            return None
        table = self._target()
        if table is None:
            return None
        names = [column.name for column in insert.this.expressions] or list(table.columns)
        return table.columns.get(names[place]) if place < len(names) else None

    # Functions.

    def _words(self) -> Iterator[str]:
        """Look at words that sqlglot's tree may hide: it has names of its own for functions and keywords."""
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
        known = self._catalog.are_immutable(frozenset(calls)) if calls else {}
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

    # Rows whose order matters.

    def _target(self) -> Table | None:
        tree = self._tree
        table = tree.find(exp.Table) if isinstance(tree, exp.Insert | exp.Update | exp.Delete) else None
        return None if table is None else self._catalog.tables.get(table.name)

    def _order_of_rows(self) -> Iterator[str]:
        for update in self._tree.find_all(exp.Update):
            merge = update.find_ancestor(exp.Merge)
            table = self._catalog.tables.get((update if merge is None else merge).this.name)
            if table is not None:
                yield from self._update(update, table)
        for insert in self._tree.find_all(exp.Insert):
            source, conflict = insert.expression, insert.args.get("conflict")
            if conflict is None or not isinstance(source, exp.Select | exp.SetOperation):
                continue
            is_one_row = source.find(exp.AggFunc) and not source.find(exp.Group, exp.Subquery, exp.Window)
            if source.args.get("order") is None and not is_one_row:
                yield (
                    "which row meets the conflict first depends on the order of rows (add ORDER BY to the "
                    "SELECT)"
                )

    def _update(self, node: exp.Update, table: Table) -> Iterator[str]:
        assigned = {target.name for target in _assigned(node)}
        touched = frozenset().union(*(key for key in table.unique if key & assigned))
        may_touch = any(not key for key in table.unique)  # an expression may name any column
        if not (touched or may_touch) or self._is_by_whole_key(node, table):
            return
        columns = ", ".join(sorted(assigned & touched or assigned))
        yield (
            f"it may change {columns} of several rows, and whether their unique key holds meanwhile depends "
            "on the order of rows (update by the whole primary key, or declare the constraint DEFERRABLE)"
        )

    def _is_by_whole_key(self, node: exp.Update, table: Table) -> bool:
        where = node.args.get("where")
        if where is None or node.args.get("from_") is not None or node.args.get("from") is not None:
            return False
        conditions = list(where.this.flatten()) if isinstance(where.this, exp.And) else [where.this]
        fixed = set()
        for condition in conditions:
            if isinstance(condition, exp.EQ):
                for one, other in (
                    (condition.this, condition.expression),
                    (condition.expression, condition.this),
                ):
                    is_value = isinstance(other, exp.Literal) or _parameter(other) is not None
                    if isinstance(one, exp.Column) and is_value and _parameter(one) is None:
                        fixed.add(one.name)
        return fixed >= set(table.key)

    # Errors.

    def has_safe_shape(self) -> bool:
        """Return whether no plan can change if a value of this statement fails."""
        tree = self._tree
        body = [node for node in tree.walk() if node is not tree]
        guarded = [node for node in body if isinstance(node, _CONDITIONAL) or node is tree.args.get("where")]
        if any(isinstance(node, _NESTED) for node in body) or not all(map(_never_fails, guarded)):
            return False
        if isinstance(tree, exp.Select):
            return not any(isinstance(node, (*_PER_PLAN, exp.AggFunc)) for node in body) and all(
                isinstance(table.this, exp.Identifier) for table in tree.find_all(exp.Table)
            )
        if isinstance(tree, exp.Insert):
            conflict = tree.args.get("conflict")
            return isinstance(tree.expression, exp.Values) and (
                conflict is None or all(map(_never_fails, conflict.find_all(exp.Where)))
            )
        if isinstance(tree, exp.Update):
            return not (tree.args.get("from_") or tree.args.get("from"))
        return isinstance(tree, exp.Delete | exp.Values) and not tree.args.get("using")


def _never_fails(node: exp.Expr) -> bool:
    return all(isinstance(part, _TOTAL) for part in node.walk())


def _assigned(node: exp.Update) -> Iterator[exp.Expr]:
    for assignment in node.expressions:
        target = assignment.this
        yield from target.expressions if isinstance(target, exp.Tuple) else [target]


def _parameter(node: exp.Expr) -> int | None:
    """Return the place of a parameter, from 0; None for anything else."""
    if isinstance(node, exp.Column) and node.name.startswith(_PARAMETER) and not node.table:
        return int(node.name.removeprefix(_PARAMETER)) - 1
    return None


def _type_name(kind: exp.DataType) -> str:
    text = re.sub(r"\(.*?\)", "", kind.sql(_DIALECT).lower()).strip().strip('"')
    element = text.removesuffix("[]")
    return _ALIASES.get(element, element) + ("[]" if text.endswith("[]") else "")


def _string(token: Token, before: TokenType | None) -> Iterator[str]:
    if _CLOCK_WORDS.search(token.text):
        yield f"the literal '{token.text}' may be the clock's (pass text as a parameter)"
    if before in _STRINGS or (token.token_type is not TokenType.STRING and "\\" in token.text):
        yield f"a string literal is written in parts or with escapes ('{token.text}')"


def _is_word(token: Token) -> bool:
    return token.token_type is TokenType.IDENTIFIER or (
        token.token_type not in _STRINGS and re.fullmatch(r"[A-Za-z_]\w*", token.text) is not None
    )

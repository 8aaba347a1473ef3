"""What reducers may say in SQL: a look at each statement's syntax, once, before it runs.

A statement may run if its result depends on values alone: on the rows of the app's projections and on its
parameters, not on the server's version, clock, host, plan or settings (docs/determinism.md). The look also
decides whether an error of the statement may reject an input. That is so if no plan can change whether the
error is raised.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import sqlglot
from sqlglot import Token, exp
from sqlglot.errors import SqlglotError

from virtualchain.errors import UsageError
from virtualchain.store.catalog import Catalog, Table
from virtualchain.store.statement_shape import has_safe_shape
from virtualchain.store.statement_words import Words

# How sqlglot names PostgreSQL's dialect, and a parameter in the text that it reads.
_DIALECT: Final = "postgres"
_PARAMETER: Final = "vc_parameter_"

_LONGEST: Final = 100_000
"""Characters of a statement: what is longer was put together from values."""
_KINDS: Final = (exp.Select, exp.SetOperation, exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Values)
_STARTS: Final = frozenset({"select", "insert", "update", "delete", "merge", "values", "with", "("})
_SYSTEM_COLUMNS: Final = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
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
    if _PARAMETER in statement:
        raise ForbiddenStatement(
            f"{_PARAMETER} stands for parameters, so this may not run: {short(statement)}"
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
    return Statement(numbered, parameters, frozenset(look.not_text), writes, has_safe_shape(trees[0]))


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
        yield from Words(self._tokens, self._ctes, self._catalog.are_immutable).complaints()
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
        target = insert.this  # a table, or one with a list of columns
        table = self._catalog.tables.get((target.this if isinstance(target, exp.Schema) else target).name)
        if table is None:
            return None
        names = [column.name for column in target.expressions] or list(table.columns)
        return table.columns.get(names[place]) if place < len(names) else None

    # Rows whose order matters.

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
        if where is None or node.args.get("from_") is not None:
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

"""What a statement reads from, and which of its rows are one row: columns, their types, and keys.

`Scope` answers two questions about a SELECT, UPDATE, DELETE or MERGE: which source a column belongs to, and
what is fixed once some columns are known. A row of a table is fixed by its key; equations in WHERE and ON
carry that from one source to the next. Whatever is not certain counts as not fixed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from sqlglot import exp

from virtualchain.store.guard.catalog import Catalog
from virtualchain.store.guard.parameters import parameter
from virtualchain.store.guard.tokens import DIALECT

_ROW_FUNCTIONS: Final = (
    "unnest",
    "series",
    "elements",
    "each",
    "keys",
    "matches",
    "table",
    "subscripts",
    "explode",
)
"""Parts of the names of functions that return several rows."""

Place = tuple[str, str]
"""The alias of a source, and one of its columns."""


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of FROM or USING, or the table that is written."""

    alias: str
    columns: frozenset[str] | None
    """None if they are not known."""
    keys: tuple[frozenset[str], ...] = ()
    weak_keys: tuple[frozenset[str], ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    """Types by column, as far as they are known."""
    outputs: Mapping[str, exp.Expr] = field(default_factory=dict)
    """What the columns of a query are computed from."""
    names: frozenset[str] = frozenset()
    """What columns may be named, if not all are known."""


def conjuncts(node: exp.Expr | None) -> list[exp.Expr]:
    """Return the conditions that AND joins."""
    if node is None:
        return []
    return list(node.flatten()) if isinstance(node, exp.And) else [node]


def scopes(node: exp.Expr) -> Iterator[exp.Expr]:
    """Yield the statement or query that a node stands in, and those around it, the innermost first."""
    at: exp.Expr | None = node
    while at is not None:
        if isinstance(at, exp.Select | exp.Update | exp.Delete | exp.Merge | exp.Insert):
            yield at
        at = at.parent


def depth(tree: exp.Expr) -> int:
    """Return the levels of a syntax tree."""
    levels, level = 0, [tree]
    while level:
        levels += 1
        level = [child for node in level for child in node.iter_expressions()]
    return levels


class Reader:
    """Reads the sources of one statement's queries."""

    def __init__(self, tree: exp.Expr, catalog: Catalog) -> None:
        self._tree = tree
        self._catalog = catalog
        self._built_in: dict[str, bool] = {}
        self.ctes: dict[str, exp.Expr] = {cte.alias: cte for cte in tree.find_all(exp.CTE)}

    def scope(self, node: exp.Expr) -> "Scope":
        """Return the scope of a SELECT, UPDATE, DELETE, MERGE or INSERT."""
        parts = list(_parts(node))
        return Scope([self.source(part) for part, _ in parts], node, parts)

    def source(self, node: exp.Expr) -> Source:  # noqa: C901, PLR0911 - one kind of entry a case
        """Return one entry of FROM or USING, or the table that is written."""
        alias = node.args.get("alias")
        names = [column.name for column in alias.columns] if isinstance(alias, exp.TableAlias) else []
        name = node.alias_or_name
        inner = node.this if isinstance(node, exp.Lateral) else node
        match inner:
            case exp.Table() if isinstance(inner.this, exp.Identifier):
                cte = self.ctes.get(inner.name)
                table = self._catalog.tables.get(inner.name)
                if cte is not None:
                    own = [column.name for column in cte.args["alias"].columns]
                    is_recursive = any(scope is cte.this for scope in scopes(inner)) or inner.name in {
                        other.name for other in cte.this.find_all(exp.Table)
                    }
                    if is_recursive:
                        return self._recursive(name, cte.this, names or own)
                    return self._query(name, cte.this, names or own)
                if table is None:
                    return Source(name, None)
                if names:
                    renamed = [*names, *list(table.columns)[len(names) :]]
                    types = dict(zip(renamed, table.columns.values(), strict=False))
                    return Source(name, None, types=types, names=frozenset(renamed))
                return Source(name, frozenset(table.columns), table.keys, table.weak_keys, table.columns)
            case exp.Subquery():
                return self._query(name, inner.this, names)
            case exp.Values():
                one_row = (frozenset[str](),) if len(inner.expressions) == 1 else ()
                numbered = {f"column{number}" for number in range(len(names) + 1, 100)}
                return Source(name, frozenset(names) or None, one_row, names=frozenset({*names, *numbered}))
            case exp.Unnest():
                number = inner.args.get("offset") or node.args.get("offset")
                columns = names or ([] if self._is_built_in(name) else [name])
                types = {
                    column: part.to.expressions[0].sql(DIALECT).lower()
                    for column, part in zip(columns, inner.expressions, strict=False)
                    if isinstance(part, exp.Cast) and part.to.expressions
                }
                if not number:
                    return Source(name, frozenset(columns), types=types)
                ordinal = number.name if isinstance(number, exp.Identifier) else "ordinality"
                types[ordinal] = "bigint"
                return Source(name, frozenset([*columns, ordinal]), (frozenset({ordinal}),), types=types)
            case exp.Table() if isinstance(inner.this, exp.ExplodingGenerateSeries | exp.GenerateSeries):
                column = names[0] if names else name
                types = {column: "bigint"}  # or numeric; in any case not text
                return Source(name, frozenset({column}), (frozenset({column}),), types=types)
        # What a function returns: its columns are as listed, or else named as usual.
        stated = {*names, "key", "value", "ordinality"} | ({name} if not self._is_built_in(name) else set())
        return Source(name, None, names=frozenset(stated))

    def is_column(self, column: exp.Column) -> bool:
        """Return whether `source.name` surely names a column: else it may be a call of a function."""
        columns = self._named
        for node in scopes(column):
            if isinstance(node, exp.Insert) and column.table == "excluded":
                table = self._catalog.tables.get(node.find(exp.Table).name)  # type: ignore[union-attr]  # INTO names one
                columns = frozenset(() if table is None else table.columns)
                break
            source = next((each for each in self.scope(node).sources if each.alias == column.table), None)
            if source is not None:
                columns = source.names if source.columns is None else source.columns
                break
        return column.name in columns

    @cached_property
    def _named(self) -> frozenset[str]:
        """The names of the tables' columns, and those that the statement gives and no function has."""
        aliases = self._tree.find_all(exp.TableAlias)
        stated = frozenset(
            {alias.alias for alias in self._tree.find_all(exp.Alias)}
            | {column.name for alias in aliases for column in alias.columns}
        )
        columns = {name for table in self._catalog.tables.values() for name in table.columns}
        return frozenset(columns | {name for name in stated if not self._is_built_in(name)})

    def _is_built_in(self, name: str) -> bool:
        """Return whether the server has a function or a type of this name."""
        if name not in self._built_in:
            self._built_in[name] = bool(self._catalog.are_immutable(frozenset({name})))
        return self._built_in[name]

    def origin(self, column: exp.Column) -> str | exp.Expr | None:
        """Return the type of a column, or what a query computes it from, if that is certain."""
        for node in scopes(column):
            if isinstance(node, exp.Insert) and column.table == "excluded":
                table = self._catalog.tables.get(node.find(exp.Table).name)  # type: ignore[union-attr]  # INTO names one
                return None if table is None else table.columns.get(column.name)
            scope = self.scope(node)
            if scope.has_column(column):
                return scope.origin(column)
        return None

    def _query(self, alias: str, query: exp.Expr, names: Sequence[str]) -> Source:
        outputs = outputs_of(query)
        known = frozenset(names) | self._names_of(query)
        if outputs is None:
            return Source(alias, None, names=known)
        columns = [*names, *(name for name, _ in outputs[len(names) :])]
        if len(columns) > len(outputs) or len(set(columns)) < len(columns) or "" in columns:
            return Source(alias, None, names=known)
        by_name = {name: value for name, (_, value) in zip(columns, outputs, strict=True)}
        return Source(
            alias,
            frozenset(columns),
            tuple(self._keys(query, outputs, columns)),
            outputs=by_name if isinstance(query, exp.Select) else {},
        )

    def _recursive(self, alias: str, query: exp.Expr, names: Sequence[str]) -> Source:
        """Return a recursive query, whose columns have the types of its first part."""
        outputs = outputs_of(query) or []
        columns = [*names, *(name for name, _ in outputs[len(names) :])]
        values = {name: value for name, (_, value) in zip(columns, outputs, strict=False) if name}
        return Source(alias, None, outputs=values, names=frozenset(columns) | self._names_of(query))

    def _names_of(self, query: exp.Expr) -> frozenset[str]:
        """Return what a query's columns may be named, with the names that the server gives."""
        while isinstance(query, exp.SetOperation | exp.Subquery):
            query = query.this
        returned = query if isinstance(query, exp.Select) else query.args.get("returning")
        parts = [] if returned is None else returned.expressions
        names = {name for part in parts for name in _default_names(part)}
        is_listed = bool(parts) and not any(part.is_star for part in parts)
        return frozenset(names) if is_listed else self._named | names

    def _keys(
        self, query: exp.Expr, outputs: Sequence[tuple[str, exp.Expr]], columns: Sequence[str]
    ) -> Iterator[frozenset[str]]:
        """Yield sets of a query's columns that no two of its rows share."""
        if isinstance(query, exp.SetOperation) and query.args.get("distinct"):
            yield frozenset(columns)
        if not isinstance(query, exp.Select):
            return
        scope, limit, distinct = self.scope(query), query.args.get("limit"), query.args.get("distinct")
        if scope.has_one_row(query) or (isinstance(limit, exp.Limit) and limit.expression.name == "1"):
            yield frozenset()
        group, first_of = query.args.get("group"), None if distinct is None else distinct.args.get("on")
        if distinct is not None and first_of is None:
            yield frozenset(columns)
        texts = {expression.sql(): name for (_, expression), name in zip(outputs, columns, strict=True)}
        is_plain = group is not None and not any(
            value for name, value in group.args.items() if name != "expressions"
        )
        for apart in (first_of, group if is_plain else None):
            named = [] if apart is None else [texts.get(part.sql()) for part in apart.expressions]
            if named and None not in named:
                yield frozenset(name for name in named if name)
        if group is not None:
            return
        if not returns_rows(query.expressions) and scope.is_total(scope.fix(value for _, value in outputs)):
            yield frozenset(columns)


class Scope:
    """The sources of one query or statement, and the equations between them."""

    def __init__(
        self, sources: Sequence[Source], node: exp.Expr, parts: Sequence[tuple[exp.Expr, exp.Join | None]]
    ) -> None:
        self.sources = sources
        self._shared: set[str] = set()
        condition = node.args.get("on" if isinstance(node, exp.Merge) else "where")
        self._equations = [(one, other, "") for one, other in _equations(condition)]
        for number, ((_, join), source) in enumerate(zip(parts, sources, strict=True)):
            if join is None:
                continue
            side = join.side.upper()
            if side in {"", "LEFT"}:
                only = source.alias if side else ""
                self._equations += [(one, other, only) for one, other in _equations(join.args.get("on"))]
            for shared in join.args.get("using") or ():
                self._shared.add(shared.name)
                for earlier in sources[:number]:
                    pair = (exp.column(shared.name, earlier.alias), exp.column(shared.name, source.alias))
                    if side in {"", "LEFT"} and (earlier.columns is None or shared.name in earlier.columns):
                        self._equations.append((*pair, source.alias if side else ""))

    def place(self, column: exp.Column) -> Place | bool:
        """Return where a column belongs; True if to an outer scope, with one value; False if unsure."""
        if parameter(column) is not None:
            return True
        if column.table:
            return (column.table, column.name) if column.table in {s.alias for s in self.sources} else True
        owners = [
            source for source in self.sources if source.columns is None or column.name in source.columns
        ]
        if not owners:
            return True
        if len(owners) > 1 and not (column.name in self._shared and all(owner.columns for owner in owners)):
            return False
        return (owners[0].alias, column.name) if owners[0].columns is not None else False

    def origin(self, column: exp.Column) -> str | exp.Expr | None:
        """Return the type of a column of this scope, or what it is computed from, if that is certain."""
        place = self.place(column)
        if isinstance(place, bool):
            return None
        source = next(source for source in self.sources if source.alias == place[0])
        return source.types.get(place[1]) or source.outputs.get(place[1])

    def has_column(self, column: exp.Column) -> bool:
        """Return whether a column may be of this scope."""
        return self.place(column) is not True

    def has_one_row(self, query: exp.Select) -> bool:
        """Return whether a query returns at most one row, whatever is stored."""
        if query.args.get("group") is not None or returns_rows(query.expressions):
            return False
        aggregates = (node for part in query.expressions for node in part.find_all(exp.AggFunc))
        if any(node.find_ancestor(exp.Select, exp.Window) is query for node in aggregates):
            return True
        return self.is_total(self.fix(()))

    def fix(self, known: Iterable[exp.Expr], whole: Iterable[str] = ()) -> set[Place | str]:
        """Return what is fixed once expressions are known, and the row of each source in `whole`.

        A source whose row is fixed is returned as its alias.
        """
        fixed: set[Place | str] = set(whole)
        equal: set[Place] = set()  # by an equation, so it is not null
        for expression in known:
            for node in expression.expressions if isinstance(expression, exp.Tuple) else [expression]:
                place = self.place(node) if isinstance(node, exp.Column) else False
                if not isinstance(place, bool):
                    fixed.add(place)
        before = -1
        while before < len(fixed) + len(equal):
            before = len(fixed) + len(equal)
            for source in self.sources:
                for keys, places in ((source.keys, fixed), (source.weak_keys, equal)):
                    if any(all((source.alias, name) in places for name in key) for key in keys):
                        fixed.add(source.alias)
            derived = set(self._derive(fixed))
            fixed |= derived
            equal |= derived
        return fixed

    def _derive(self, fixed: set[Place | str]) -> Iterator[Place]:
        """Yield the columns that equal something fixed."""
        for one, other, only in self._equations:
            for target, value in ((one, other), (other, one)):
                place = self.place(target) if isinstance(target, exp.Column) else False
                if not isinstance(place, bool) and only in {"", place[0]} and self.is_fixed(value, fixed):
                    yield place

    def is_fixed(self, expression: exp.Expr, fixed: set[Place | str]) -> bool:
        """Return whether an expression has one value once these places and sources are fixed."""
        for node in expression.walk():
            if isinstance(node, exp.AggFunc | exp.Window):
                return False
            if isinstance(node, exp.Star):
                table = node.parent.table if isinstance(node.parent, exp.Column) else ""
                if not all(
                    self._is_whole(source, fixed) for source in self.sources if table in {"", source.alias}
                ):
                    return False
            elif isinstance(node, exp.Column) and not isinstance(node.this, exp.Star):
                place = self.place(node)
                if place is False or not (place is True or place in fixed or place[0] in fixed):
                    return False
        return True

    def is_total(self, fixed: set[Place | str]) -> bool:
        """Return whether the row of every source is fixed."""
        return all(source.alias in fixed for source in self.sources)

    def _is_whole(self, source: Source, fixed: set[Place | str]) -> bool:
        return source.alias in fixed or (
            source.columns is not None and all((source.alias, name) in fixed for name in source.columns)
        )


def outputs_of(query: exp.Expr) -> list[tuple[str, exp.Expr]] | None:
    """Return the names and expressions of a query's columns; None if they are not listed."""
    while isinstance(query, exp.SetOperation | exp.Subquery):
        query = query.this
    if not isinstance(query, exp.Select) or any(part.is_star for part in query.expressions):
        return None
    # For sqlglot, the name of count(*) is a star.
    names = (part.alias_or_name for part in query.expressions)
    return [
        ("count" if name == "*" else name, part.unalias())
        for name, part in zip(names, query.expressions, strict=True)
    ]


def _default_names(expression: exp.Expr) -> Iterator[str]:
    """Yield what the server may name a column of a query."""
    if expression.alias_or_name:
        yield expression.alias_or_name
    inner = expression.unnest()
    while isinstance(inner, exp.Window | exp.Filter | exp.WithinGroup):
        inner = inner.this.unnest()
    match inner:
        case exp.Cast():
            yield from _default_names(inner.this)
        case exp.Anonymous():
            yield inner.name.lower()
        case exp.Func():
            yield inner.sql_name().lower()
        case exp.Subquery():
            yield from (name for each in inner.selects for name in _default_names(each))


def returns_rows(expressions: Iterable[exp.Expr]) -> bool:
    """Return whether a select list may turn one row into several."""
    for expression in expressions:
        for node in expression.find_all(exp.Func):
            name = node.name if isinstance(node, exp.Anonymous) else node.sql_name()
            if any(part in name.lower() for part in _ROW_FUNCTIONS):
                return True
    return False


def _parts(node: exp.Expr) -> Iterator[tuple[exp.Expr, exp.Join | None]]:
    """Yield what a query or statement reads from, or writes, with the join that adds it."""
    target = node.args.get("this") if not isinstance(node, exp.Select) else None
    if isinstance(target, exp.Schema):
        target = target.this
    start, using = node.args.get("from_"), node.args.get("using")
    roots = [target, start and start.this, *(using if isinstance(using, list) else [using])]
    for root in roots:
        if isinstance(root, exp.Expr):
            yield root, None
            yield from ((join.this, join) for join in root.args.get("joins") or ())
    yield from ((join.this, join) for join in node.args.get("joins") or ())
    yield from ((lateral, None) for lateral in node.args.get("laterals") or ())


def _equations(condition: exp.Expr | None) -> Iterator[tuple[exp.Expr, exp.Expr]]:
    if isinstance(condition, exp.Where):
        condition = condition.this
    for part in conjuncts(condition):
        inner = part.unnest()
        if isinstance(inner, exp.And):
            yield from _equations(inner)
        elif isinstance(inner, exp.EQ):
            one, other = inner.this.unnest(), inner.expression.unnest()
            if isinstance(one, exp.Tuple) and isinstance(other, exp.Tuple):
                yield from zip(one.expressions, other.expressions, strict=False)
            elif not isinstance(other, exp.Any | exp.All) and not isinstance(one, exp.Any | exp.All):
                yield one, other

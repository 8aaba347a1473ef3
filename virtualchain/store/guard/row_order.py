"""Where the order of rows decides a statement's result: what must be fixed by keys, and is not.

The database stores and visits rows in an order of its own, which differs between nodes. Wherever that order
chooses a row, the rows to choose from must differ in a key, or be alike.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from sqlglot import exp

from virtualchain.store.guard.catalog import Catalog, Table
from virtualchain.store.guard.sources import Reader, Scope, outputs_of, returns_rows

_BY_KEY: Final = "add columns to ORDER BY until no two rows share them, such as the primary key"
_RANKING: Final = (
    exp.FirstValue,
    exp.Lag,
    exp.LastValue,
    exp.Lead,
    exp.NthValue,
    exp.Ntile,
    exp.RowNumber,
)
"""Window functions that tell rows apart which ORDER BY does not."""


class RowOrder:
    """Finds where the order of rows matters in one statement; a complaint is a clause."""

    def __init__(self, tree: exp.Expr, catalog: Catalog, reader: Reader) -> None:
        self._tree = tree
        self._catalog = catalog
        self._reader = reader

    def complaints(self) -> Iterator[str]:
        """Yield where the order of rows matters."""
        for node in self._tree.walk():
            match node:
                case exp.Select() | exp.SetOperation() | exp.Subquery() | exp.Values():
                    yield from self._limit(node)
                case exp.Window() if node.args.get("over"):
                    yield from self._window(node)
                case exp.Array():
                    yield from self._array(node)
                case exp.ArrayAgg() | exp.GroupConcat() | exp.JSONObjectAgg() | exp.JSONBObjectAgg():
                    yield from self._aggregate(node)
                case exp.Insert():
                    yield from self._insert(node)
                case exp.Update():
                    yield from self._update(node)
                case exp.Delete() if node.args.get("using") and node.args.get("returning"):
                    yield from self._matches(node, node.args["returning"].expressions)

    def _limit(self, query: exp.Expr) -> Iterator[str]:
        distinct, limit = query.args.get("distinct"), query.args.get("limit")
        first_of = distinct.args.get("on") if isinstance(distinct, exp.Distinct) else None
        if first_of is not None and not self._is_distinct(query, [*_order(query), first_of]):
            yield f"DISTINCT ON chooses by the order of rows ({_BY_KEY})"
        options = limit.args.get("limit_options") if isinstance(limit, exp.Fetch) else None
        is_all = isinstance(limit, exp.Limit) and limit.expression.name.upper() == "ALL"
        if limit is None or is_all or (options is not None and options.args.get("with_ties")):
            limit = None
        if (limit is None and query.args.get("offset") is None) or isinstance(query.parent, exp.Exists):
            return
        if not self._is_distinct(query, _order(query)):
            yield f"LIMIT and OFFSET choose by the order of rows ({_BY_KEY})"

    def _is_distinct(self, query: exp.Expr, known: Sequence[exp.Expr]) -> bool:
        """Return whether rows of a query that agree in known expressions are one row, or alike."""
        outputs = outputs_of(query)
        if not isinstance(query, exp.Select):
            named = {part.name for part in known}
            return outputs is not None and all(
                {name, str(number)} & named for number, (name, _) in enumerate(outputs, 1)
            )
        known = list(_resolved(known, outputs or []))
        texts = {expression.sql() for expression in known}
        scope = self._reader.scope(query)
        fixed = scope.fix(known)
        if scope.has_one_row(query) or (
            _is_one_each(query, scope, known) and not returns_rows(query.expressions)
        ):
            return True
        return all(
            part.unalias().sql() in texts or scope.is_fixed(part.unalias(), fixed)
            for part in query.expressions
        )

    def _window(self, window: exp.Window) -> Iterator[str]:
        query = window.find_ancestor(exp.Select)
        if query is None:
            return
        named = {each.name: each for each in query.args.get("windows") or ()}
        base = named.get(window.alias, window)
        function = window.this.this if isinstance(window.this, exp.IgnoreNulls) else window.this
        frame = window.args.get("spec") or base.args.get("spec")
        is_counted = frame is not None and str(frame.args.get("kind")).upper() == "ROWS"
        is_list = isinstance(function, exp.ArrayAgg | exp.GroupConcat)
        if not (isinstance(function, _RANKING) or is_counted or is_list):
            return
        known = [*(base.args.get("partition_by") or ()), *_order(base), *_order(window)]
        if not _is_one_each(query, self._reader.scope(query), known):
            yield f"a window function depends on rows that its ORDER BY does not tell apart ({_BY_KEY})"

    def _array(self, array: exp.Array) -> Iterator[str]:
        for query in array.expressions:
            is_query = isinstance(query, exp.Select | exp.SetOperation)
            if is_query and not self._is_distinct(query, _order(query)):
                yield f"the array of a query depends on the order of rows ({_BY_KEY})"

    def _aggregate(self, aggregate: exp.Expr) -> Iterator[str]:
        parts, query = list(aggregate.iter_expressions()), aggregate.find_ancestor(exp.Select)
        order = next((part for part in parts if isinstance(part, exp.Order)), None)
        if query is None or order is None:
            return  # without ORDER BY, its name is complained of
        value = order.this
        values = [*(value.expressions if isinstance(value, exp.Distinct) else [value])]
        values += [part for part in parts if part is not order]  # a separator, or a key
        group = query.args.get("group")
        known = [*_order(order), *(group.expressions if group else ())]
        scope = self._reader.scope(query)
        fixed = scope.fix(known)
        texts = {expression.sql() for expression in known}
        if scope.is_total(fixed) or all(
            each.sql() in texts or scope.is_fixed(each, fixed) for each in values
        ):
            return
        yield f"the order of rows that ORDER BY does not tell apart shows in {aggregate.key} ({_BY_KEY})"

    def _insert(self, insert: exp.Insert) -> Iterator[str]:
        source, conflict = insert.expression, insert.args.get("conflict")
        while isinstance(source, exp.Subquery):
            source = source.this
        if conflict is None or not isinstance(source, exp.Select | exp.SetOperation):
            return
        keys = {
            key.this.name
            for key in conflict.args.get("conflict_keys") or ()
            if isinstance(key.this, exp.Column)
        }
        names = [column.name for column in insert.this.expressions] or self._columns(insert)
        outputs = outputs_of(source) or []
        by_key = [value for name, (_, value) in zip(names, outputs, strict=False) if name in keys]
        is_by_key = bool(keys) and len(by_key) == len(keys)
        is_distinct = (
            isinstance(source, exp.Select)
            and is_by_key
            and _is_one_each(source, self._reader.scope(source), by_key)
        )
        is_whole = bool(outputs) and len(by_key) == len(outputs)  # rows with one key are alike
        if not (is_distinct or is_whole or self._is_distinct(source, _order(source))):
            yield (
                "which row meets the conflict first depends on the order of rows (add ORDER BY to the "
                "SELECT, by columns that no two rows share)"
            )

    def _columns(self, insert: exp.Insert) -> list[str]:
        table = self._catalog.tables.get(insert.this.name)
        return [] if table is None else list(table.columns)

    def _update(self, update: exp.Update) -> Iterator[str]:
        merge = update.find_ancestor(exp.Merge) if update.args.get("this") is None else None
        target = (update if merge is None else merge).this
        if merge is None and update.args.get("from_") is not None:
            returning = update.args.get("returning")
            values = [each.expression for each in update.expressions]
            yield from self._matches(update, [*values, *(returning.expressions if returning else ())])
        table = self._catalog.tables.get(target.name) if isinstance(target, exp.Table) else None
        if table is not None:
            yield from self._unique(update, table, is_one_row=self.is_one_row(merge or update))

    def _matches(self, node: exp.Expr, values: Iterable[exp.Expr]) -> Iterator[str]:
        """Complain if several rows may match one row of the target, and the values differ between them."""
        scope = self._reader.scope(node)
        fixed = scope.fix((), whole=[scope.sources[0].alias])
        if not scope.is_total(fixed) and not all(scope.is_fixed(value, fixed) for value in values):
            kind = "UPDATE … FROM" if isinstance(node, exp.Update) else "DELETE … USING"
            yield (
                f"several rows may match one row in {kind}, and their order decides (join by the whole key "
                "of each table in it, group the rows, or use MERGE, which allows one match only)"
            )

    def _unique(self, update: exp.Update, table: Table, *, is_one_row: bool) -> Iterator[str]:
        assigned = {target.name for target in assigned_columns(update)}
        touched = frozenset().union(*(key for key in table.unique if key & assigned))
        may_touch = any(not key for key in table.unique)  # an expression may name any column
        if is_one_row or not (touched or may_touch):
            return
        columns = ", ".join(sorted(assigned & touched or assigned))
        yield (
            f"it may change {columns} of several rows, and whether their unique key holds meanwhile depends "
            "on the order of rows (update by the whole primary key, or declare the constraint DEFERRABLE)"
        )

    def is_one_row(self, node: exp.Update | exp.Delete | exp.Merge) -> bool:
        """Return whether at most one row is changed."""
        scope = self._reader.scope(node)
        return scope.sources[0].alias in scope.fix(())


def assigned_columns(update: exp.Update) -> Iterator[exp.Expr]:
    """Yield the columns that an UPDATE assigns to."""
    for assignment in update.expressions:
        target = assignment.this
        yield from target.expressions if isinstance(target, exp.Tuple) else [target]


def _order(node: exp.Expr) -> list[exp.Expr]:
    order = node if isinstance(node, exp.Order) else node.args.get("order")
    return (
        []
        if order is None
        else [part.this if isinstance(part, exp.Ordered) else part for part in order.expressions]
    )


def _resolved(known: Iterable[exp.Expr], outputs: Sequence[tuple[str, exp.Expr]]) -> Iterator[exp.Expr]:
    """Yield what ORDER BY names: a number or a name of the output stands for its expression."""
    by_name = {name: value for name, value in outputs if name}
    for part in known:
        for each in part.expressions if isinstance(part, exp.Tuple) else [part]:
            if _is_number(each) and 0 < int(each.name) <= len(outputs):
                yield outputs[int(each.name) - 1][1]
            elif isinstance(each, exp.Column) and not each.table:
                yield by_name.get(each.name, each)
            else:
                yield each


def _is_number(node: exp.Expr) -> bool:
    return isinstance(node, exp.Literal) and not node.is_string and node.name.isdecimal()


def _is_one_each(query: exp.Select, scope: Scope, known: Sequence[exp.Expr]) -> bool:
    """Return whether known expressions tell the rows, or the groups, of a query apart."""
    fixed = scope.fix(known)
    group = query.args.get("group")
    if group is None:
        return scope.is_total(fixed)
    if not group.expressions or any(value for name, value in group.args.items() if name != "expressions"):
        return False  # ROLLUP and the like
    texts = {expression.sql() for expression in known}
    outputs = outputs_of(query) or []
    parts = [
        part if isinstance(part, exp.Column) and scope.has_column(part) else next(_resolved([part], outputs))
        for part in group.expressions
    ]
    return all(part.sql() in texts or scope.is_fixed(part, fixed) for part in parts)

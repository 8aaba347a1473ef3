"""The shape of a statement whose errors may reject an input: no plan can change whether one is raised.

For which rows an expression is computed, and whether at all, may be the planner's choice, which differs
between servers. Nothing that can fail may stand in such a place.
"""

from collections.abc import Iterable
from typing import Final

from sqlglot import exp

from virtualchain.store.guard.casts import NUMBER_TYPES, type_name
from virtualchain.store.guard.catalog import Catalog
from virtualchain.store.guard.parameters import PARAMETER
from virtualchain.store.guard.row_order import RowOrder, assigned_columns
from virtualchain.store.guard.sources import Reader

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


def has_safe_shape(tree: exp.Expr, catalog: Catalog, reader: Reader, rows: RowOrder) -> bool:
    """Return whether no plan, and no order of rows, can change if a value of this statement fails."""
    body = [node for node in tree.walk() if node is not tree]
    where = tree.args.get("where")

    def is_guarded(node: exp.Expr) -> bool:
        return isinstance(node, _CONDITIONAL) or node is where

    guarded = filter(is_guarded, tree.walk(prune=is_guarded))  # what is inside one is looked at with it
    if any(isinstance(node, _NESTED) for node in body) or not all(map(_never_fails, guarded)):
        return False
    match tree:
        case exp.Select():
            scope = reader.scope(tree)
            return (
                not any(isinstance(node, (*_PER_PLAN, exp.AggFunc)) for node in body)
                and all(isinstance(table.this, exp.Identifier) for table in tree.find_all(exp.Table))
                and (scope.has_one_row(tree) or _fails_alike(body))
            )
        case exp.Insert():
            conflict = tree.args.get("conflict")
            return isinstance(tree.expression, exp.Values) and (
                conflict is None or all(map(_never_fails, conflict.find_all(exp.Where)))
            )
        case exp.Update():
            is_alone = tree.args.get("from_") is None
            return is_alone and (rows.is_one_row(tree) or _updates_alike(tree, body, catalog))
        case exp.Delete():
            is_alone = not tree.args.get("using")
            return is_alone and (rows.is_one_row(tree) or _fails_alike(body))
    return isinstance(tree, exp.Values)


def _fails_alike(nodes: Iterable[exp.Expr]) -> bool:
    """Return whether rows fail with the same errors only, so that it does not matter which is first."""
    return all(
        isinstance(node, (*_TOTAL, *_NUMERIC_ERRORS))
        or (isinstance(node, exp.Cast) and type_name(node.to) in NUMBER_TYPES)
        for node in nodes
    )


def _updates_alike(update: exp.Update, nodes: Iterable[exp.Expr], catalog: Catalog) -> bool:
    """Return whether no row can violate a constraint where another has a value that does not fit."""
    target = update.find(exp.Table)
    table = None if target is None else catalog.tables.get(target.name)
    if table is None or not _fails_alike(nodes):
        return False
    assigned = {column.name for column in assigned_columns(update)}
    read = {column.name for part in update.expressions for column in part.expression.find_all(exp.Column)}
    may_be_null = not all(name in table.required or name.startswith(PARAMETER) for name in read)
    return not assigned & table.checked and not (may_be_null and assigned & table.required)


def _never_fails(node: exp.Expr) -> bool:
    return all(isinstance(part, _TOTAL) for part in node.walk())

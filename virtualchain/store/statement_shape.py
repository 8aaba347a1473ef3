"""The shape of a statement whose errors may reject an input: no plan can change whether a value fails.

For which rows an expression is computed, and whether at all, may be the planner's choice, which differs
between servers. Nothing that can fail may stand in such a place.
"""

from typing import Final

from sqlglot import exp

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


def has_safe_shape(tree: exp.Expr) -> bool:
    """Return whether no plan can change if a value of this statement fails."""
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
        return not tree.args.get("from_")
    return isinstance(tree, exp.Delete | exp.Values) and not tree.args.get("using")


def _never_fails(node: exp.Expr) -> bool:
    return all(isinstance(part, _TOTAL) for part in node.walk())

"""Casts: text that the server would read as another type, by rules of its version, clock or settings."""

import re
from collections.abc import Iterator
from typing import Final

from sqlglot import exp

from virtualchain.store.guard.catalog import Catalog
from virtualchain.store.guard.literals import is_json
from virtualchain.store.guard.parameters import parameter
from virtualchain.store.guard.sources import Reader
from virtualchain.store.guard.tokens import DIALECT

_TEXT_TYPES: Final = frozenset(
    {"text", "varchar", "character varying", "char", "character", "bpchar", "name"}
)
_READABLE_TYPES: Final = _TEXT_TYPES | {"bytea", "uuid"}
"""Types that text may be cast to: how they are read depends on the text alone."""
NUMBER_TYPES: Final = frozenset({"smallint", "integer", "bigint", "numeric", "boolean"})
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
NUMBERS: Final = (
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


class Casts:
    """Looks at the casts of one statement; a complaint is a clause."""

    def __init__(self, catalog: Catalog, reader: Reader) -> None:
        self._catalog = catalog
        self._reader = reader
        self.not_text: set[int] = set()
        """Places of parameters whose cast would have the server read text, among the casts looked at."""

    def complaints(self, node: exp.Cast) -> Iterator[str]:
        """Yield what is wrong with one cast."""
        target = type_name(node.to)
        element = target.removesuffix("[]")
        element = _ALIASES.get(
            self._catalog.domains.get(element, element), self._catalog.domains.get(element, element)
        )
        if element in self._catalog.enums or element in _READABLE_TYPES:
            return
        if element not in NUMBER_TYPES | {"jsonb"}:
            reason = f"a cast to {target} depends on the server's version, clock or settings"
            yield f"{reason} (read it in Python, and pass the value)"
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
                origin = self._reader.origin(node)
                if isinstance(origin, exp.Expr):
                    return self._is_no_text(origin, target)
                kinds = {"jsonb"} if target == "jsonb" else NUMBER_TYPES
                return origin is not None and origin.removesuffix("[]") in kinds
            case exp.Literal():
                return not node.is_string
            case exp.Cast():
                return type_name(node.to).removesuffix("[]") in NUMBER_TYPES
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
        return isinstance(node, NUMBERS)


def type_name(kind: exp.DataType) -> str:
    """Return the name of a type, without a length, the same for all its aliases."""
    text = re.sub(r"\(.*?\)", "", kind.sql(DIALECT).lower()).strip().strip('"')
    element = text.removesuffix("[]")
    return _ALIASES.get(element, element) + ("[]" if text.endswith("[]") else "")

"""What only newer versions of PostgreSQL have, and how they read what they all have."""

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Final

from sqlglot import exp

from virtualchain.store.guard.casts import NUMBERS, type_name
from virtualchain.store.guard.catalog import Catalog
from virtualchain.store.guard.parameters import parameter
from virtualchain.store.guard.sources import Reader

_IN_PYTHON: Final = "(do it in Python, and pass the value)"
_OF_BYTES: Final = frozenset({"bit_count", "encode", "get_bit", "get_byte", "md5", "octet_length"})
"""Functions that take bytes, and return none."""
_TEXT_OR_BYTES: Final = (
    exp.DPipe,
    exp.Decode,
    exp.JSONExtractScalar,
    exp.MD5,
    exp.Replace,
    exp.SHA2Digest,
    exp.Trim,
)
"""Expressions that are text or bytes, whatever they are made of."""
_ROW_SOURCES: Final = (exp.Table, exp.Subquery, exp.Values, exp.Lateral)
"""What a name in FROM may stand for, which also names its whole row."""
_MAKES_BYTES: Final = re.compile(r"convert_to|decode|sha\d+(digest)?|\w+send")
"""Functions that return bytes, whatever they take."""


class Newer:
    """Looks at the nodes of one statement's tree; a complaint is a clause."""

    def __init__(self, tree: exp.Expr, catalog: Catalog, reader: Reader) -> None:
        self._tree = tree
        self._catalog = catalog
        self._reader = reader

    def complaints(self, node: exp.Expr) -> Iterator[str]:  # noqa: C901 - one rule a kind of syntax
        """Yield what is wrong with one node."""
        match node:
            case exp.Subquery() | exp.Values() if isinstance(node.parent, exp.From | exp.Join):
                if not node.alias:
                    yield "only newer versions of PostgreSQL take a subquery in FROM without AS (name it)"
            case exp.Merge() if node.args.get("returning") is not None:
                yield "only newer versions of PostgreSQL have MERGE … RETURNING (query the rows)"
            case exp.Column() if self._is_old_or_new(node):
                yield "only newer versions of PostgreSQL have old and new in RETURNING (name columns)"
            case exp.Kwarg() | exp.PropertyEQ():
                yield "what arguments are named depends on the server's version (pass them by their place)"
            case exp.Anonymous() if "strip_nulls" in node.name.lower() and len(node.expressions) > 1:
                yield f"only newer versions of PostgreSQL have {node.name} with two arguments (pass one)"
            case exp.Is() if node.expression.name == "normalized":
                yield f"what is normalized depends on the server's version of Unicode {_IN_PYTHON}"
            case exp.Max() | exp.Min() | exp.Reverse() if self._is_row_or_bytes(node.this):
                yield f"only newer versions of PostgreSQL have {node.key} of such a value (use ORDER BY)"
            case exp.Cast() if self._is_bytes(type_name(node.to)):
                if not self._is_text_or_bytes(node.this):
                    yield f"only newer versions of PostgreSQL cast numbers to bytea {_IN_PYTHON}"

    def _is_old_or_new(self, node: exp.Column) -> bool:
        if not {node.table, node.name} & {"old", "new"} or node.find_ancestor(exp.Returning) is None:
            return False
        return bool(node.table) or self._reader.origin(node) is None

    def _is_row_or_bytes(self, node: exp.Expr | None) -> bool:  # noqa: PLR0911 - one rule a kind of syntax
        """Return whether an expression may be a row, bytes or an array of them."""
        if node is None or isinstance(node, NUMBERS):
            return False
        match node:
            case exp.Tuple() | exp.Star():
                return True
            case exp.Column():
                return isinstance(node.this, exp.Star) or self._is_row_or_bytes_column(node)
            case exp.Cast():
                return self._is_bytes(type_name(node.to))
            case exp.Subquery() | exp.Select():
                return any(self._is_row_or_bytes(each.unalias()) for each in node.selects)
            case exp.Case():
                branches = [branch.args["true"] for branch in node.args["ifs"]]
                return any(map(self._is_row_or_bytes, [*branches, node.args.get("default")]))
            case exp.Func():
                name = _function(node)
                if name in _OF_BYTES:
                    return False
                if name == "row" or _MAKES_BYTES.fullmatch(name):
                    return True
        return any(map(self._is_row_or_bytes, node.iter_expressions()))

    def _is_row_or_bytes_column(self, node: exp.Column) -> bool:
        if parameter(node) is not None:
            return False
        origin = self._reader.origin(node)
        if isinstance(origin, exp.Expr):
            return self._is_row_or_bytes(origin)
        if origin is not None:
            return self._is_bytes(origin)
        if not node.table and node.name in self._sources:
            return True
        return self._has_bytes or any(
            self._is_bytes(table.columns.get(node.name, "")) for table in self._catalog.tables.values()
        )

    def _is_bytes(self, kind: str) -> bool:
        """Return whether a type is bytea, an array of it, or a domain made of it."""
        element = kind.removesuffix("[]")
        return self._catalog.domains.get(element, element).removesuffix("[]") == "bytea"

    @cached_property
    def _sources(self) -> frozenset[str]:
        """The names of all that the statement reads from, each of which also names its whole row."""
        return frozenset(each.alias_or_name for each in self._tree.find_all(*_ROW_SOURCES))

    @cached_property
    def _has_bytes(self) -> bool:
        """Whether the statement has bytes anywhere, of which a column may be whose type is not known."""
        return (
            any(self._is_bytes(type_name(cast.to)) for cast in self._tree.find_all(exp.Cast))
            or any(_MAKES_BYTES.fullmatch(_function(call)) for call in self._tree.find_all(exp.Func))
            or any(
                isinstance(origin := self._reader.origin(column), str) and self._is_bytes(origin)
                for column in self._tree.find_all(exp.Column)
            )
        )

    def _is_text_or_bytes(self, node: exp.Expr | None) -> bool:  # noqa: PLR0911 - one rule a kind of syntax
        """Return whether an expression surely is text or bytes, or an array of one."""
        match node:
            case exp.Column():
                origin = self._reader.origin(node)
                if isinstance(origin, exp.Expr):
                    return self._is_text_or_bytes(origin)
                return parameter(node) is not None or (origin is not None and self._is_readable(origin))
            case exp.Cast():
                return self._is_readable(type_name(node.to))
            case exp.Literal():
                return node.is_string
            case (
                exp.Paren()
                | exp.Bracket()
                | exp.Lower()
                | exp.Upper()
                | exp.Max()
                | exp.Min()
                | exp.Substring()
            ):
                return self._is_text_or_bytes(node.this)
            case exp.Coalesce() | exp.Array():
                return all(map(self._is_text_or_bytes, node.iter_expressions()))
        return isinstance(node, _TEXT_OR_BYTES)

    def _is_readable(self, kind: str) -> bool:
        return self._is_bytes(kind) or kind.removesuffix("[]") in {"text", "varchar", "character varying"}


def _function(node: exp.Func) -> str:
    """Return the name of a function, or of what sqlglot takes it for."""
    return node.name.lower() if isinstance(node, exp.Anonymous) else node.key

"""Syntax whose result may depend on more than values, in the tree of a statement."""

from collections.abc import Iterator
from typing import Final

from sqlglot import exp

from virtualchain.store.guard.casts import Casts
from virtualchain.store.guard.catalog import Catalog
from virtualchain.store.guard.newer import Newer
from virtualchain.store.guard.refusal import Section, in_section
from virtualchain.store.guard.sources import Reader, depth
from virtualchain.store.guard.tokens import DIALECT

_LONGEST_CHAIN: Final = 1_000
"""Levels of a syntax tree, in which each operator of a chain is one."""
_SYSTEM_COLUMNS: Final = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
_IN_PYTHON: Final = "(do it in Python, and pass the value)"
_UNSOUND: Final[tuple[tuple[type[exp.Expr] | tuple[type[exp.Expr], ...], str, Section], ...]] = (
    (
        (exp.Command, exp.Into, exp.Create, exp.Drop, exp.Copy),
        "it does more than read and write rows (declare tables in the projections)",
        "one-statement",
    ),
    (
        exp.TableSample,
        "TABLESAMPLE depends on chance and on where rows are stored (choose rows by their keys)",
        "row-order",
    ),
    (
        exp.AtTimeZone,
        "AT TIME ZONE depends on the host's time zones (keep seconds in a bigint)",
        "volatile-functions",
    ),
    (
        (exp.Pow, exp.Sqrt, exp.Cbrt),
        "powers and roots are floats (use whole numbers, or math.isqrt in Python)",
        "versions",
    ),
    (
        (exp.JSONBPathExists, exp.MatchAgainst),
        f"jsonpath and text search differ between versions of PostgreSQL {_IN_PYTHON}",
        "versions",
    ),
    (exp.JSON, f"only newer versions of PostgreSQL have IS JSON {_IN_PYTHON}", "versions"),
    (
        exp.JSONKeyValue,
        "only newer versions of PostgreSQL have this form of JSON_OBJECT (pass virtualchain.Jsonb({…}))",
        "versions",
    ),
    (
        exp.Interval,
        "how text is read as an interval depends on the server's version (keep seconds in a bigint)",
        "sql-text",
    ),
)
"""Syntax whose result may depend on more than values."""


class Syntax:
    """Looks at the nodes of one statement's tree; a complaint is a clause that a sentence can go on from."""

    def __init__(self, tree: exp.Expr, catalog: Catalog, reader: Reader, casts: Casts) -> None:
        self._tree = tree
        self._catalog = catalog
        self._reader = reader
        self._casts = casts
        self._newer = Newer(tree, catalog, reader)

    def complaints(self) -> Iterator[tuple[str, Section]]:
        """Yield what is wrong, from the top of the tree down, with the section that explains it."""
        if depth(self._tree) > _LONGEST_CHAIN:
            limit = f"it has a chain of more than {_LONGEST_CHAIN} operators (pass a list as one parameter)"
            yield limit, "versions"
        for node in self._tree.walk():
            yield from self._node(node)

    def _node(self, node: exp.Expr) -> Iterator[tuple[str, Section]]:
        for kinds, complaint, section in _UNSOUND:
            if isinstance(node, kinds):
                yield complaint, section
        match node:
            case exp.Table():
                yield from in_section("own-tables", self._table(node))
            case exp.CTE() if self._hides(node.alias):
                yield (
                    f"a query of WITH is named {node.alias} (give it a name that nothing else has)",
                    "own-tables",
                )
            case exp.Column() | exp.Dot():
                yield from in_section("own-tables", self._column(node))
                if self._may_call(node):
                    complaint = (
                        f"{node.sql(DIALECT)} may call a function (name a column of a table in FROM: t.x)"
                    )
                    yield complaint, "volatile-functions"
            case exp.Lock() if node.args.get("wait") is not None:
                yield "NOWAIT and SKIP LOCKED depend on other sessions (leave them out)", "one-statement"
            case exp.Collate() if node.expression.name not in {"C", "POSIX"}:
                name = node.expression.name
                yield f'the collation {name} depends on the host (leave it out, or write "C")', "versions"
            case exp.Cast():
                yield from in_section("sql-text", self._casts.complaints(node))
        yield from in_section("versions", self._newer.complaints(node))

    def _table(self, node: exp.Table) -> Iterator[str]:
        if not isinstance(node.this, exp.Identifier):
            return  # a function in FROM
        if node.args.get("db") is not None:
            yield f"{node.sql(DIALECT)} lies outside the app's tables (name its own without a schema)"
        elif node.name not in self._catalog.tables and node.name not in self._reader.ctes:
            yield f"{node.name} is not a projection of the app (declare it, or name one of its tables)"

    def _column(self, node: exp.Expr) -> Iterator[str]:
        parts = [part for part in node.find_all(exp.Identifier) if part.parent is node]
        if not parts:
            return
        if isinstance(node, exp.Column) and node.args.get("db") is not None:
            yield f"{node.sql(DIALECT)} names a schema (name the table alone)"
        name = (parts[0] if isinstance(node, exp.Column) else parts[-1]).name
        if name in _SYSTEM_COLUMNS:
            yield f"the system column {name} depends on where rows are stored (use the primary key)"

    def _hides(self, name: str) -> bool:
        """Return whether a query of WITH may be taken for something else if it is not in reach."""
        others = sum(cte.alias == name for cte in self._tree.find_all(exp.CTE)) > 1
        table = name.removesuffix("_history").removesuffix("_births")
        return others or name.startswith("pg_") or table in self._catalog.tables

    def _may_call(self, node: exp.Column | exp.Dot) -> bool:
        """Return whether a name after a dot may be a function's, as in `(x).f` and `t.f`."""
        if isinstance(node, exp.Dot):
            return not isinstance(node.expression, exp.Star)
        return bool(node.table) and not isinstance(node.this, exp.Star) and not self._reader.is_column(node)

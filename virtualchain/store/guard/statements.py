"""What reducers may say in SQL: a look at each statement's syntax, once, before it runs.

A statement may run if its result depends on values alone: on the rows of the app's projections and on its
parameters, not on the server's version, clock, host, plan or settings (docs/determinism.md). The look also
decides whether an error of the statement may reject an input. That is so if no plan can change whether the
error is raised.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from inspect import currentframe
from itertools import chain
from typing import Final

import sqlglot
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError

from virtualchain.store.guard.casts import Casts
from virtualchain.store.guard.catalog import Catalog
from virtualchain.store.guard.functions import function_complaints
from virtualchain.store.guard.parameters import number_parameters
from virtualchain.store.guard.refusal import forbidden, in_section
from virtualchain.store.guard.row_order import RowOrder
from virtualchain.store.guard.shape import has_safe_shape
from virtualchain.store.guard.sources import Reader
from virtualchain.store.guard.syntax import Syntax
from virtualchain.store.guard.tokens import DIALECT, text_complaints
from virtualchain.store.guard.words import word_complaints

_ONE_VALUE: Final = (exp.Cast, exp.Coalesce, exp.Case, exp.Lower, exp.Upper, exp.Length, exp.Abs)
"""Functions that return one value; others may return several."""
_LONGEST: Final = 100_000
"""Characters of a statement: what is longer was put together from values."""
_UNREADABLE: Final = (
    SqlglotError,
    RecursionError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""How an analysis fails. `parse` must not take one of them for its own: a ValueError rejects the input."""
_SHALLOW: Final = 200
"""Frames of a stack, of 1,000 that Python allows. A thread takes longer than to look at a short statement."""
_KINDS: Final = (exp.Select, exp.SetOperation, exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Values)
_STARTS: Final = frozenset({"select", "insert", "update", "delete", "merge", "values", "with", "("})


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
    affects: int | None = None
    """How many rows it affects, if that does not depend on the tables' rows."""


def examine(statement: str, catalog: Catalog, *, has_parameters: bool) -> Statement:
    """Look at a statement; raise ForbiddenStatement, which says what and why, if reducers may not run it."""
    try:
        if _is_shallow():
            with suppress(RecursionError):
                return _examine(statement, catalog, has_parameters=has_parameters)
        with ThreadPoolExecutor(1) as thread:  # its stack is empty, however deep the caller's is
            return thread.submit(_examine, statement, catalog, has_parameters=has_parameters).result()
    except _UNREADABLE as error:
        raise forbidden("it cannot be analyzed (write it in a simpler way)", statement, "versions") from error


def _is_shallow() -> bool:
    """Return whether the caller's stack leaves room for all but the deepest statements."""
    frame = currentframe()
    for _ in range(_SHALLOW):
        if frame is None:
            return True
        frame = frame.f_back
    return False


def _examine(statement: str, catalog: Catalog, *, has_parameters: bool) -> Statement:
    if "\0" in statement:
        raise forbidden("it has a null character (leave it out)", statement, "versions")
    if len(statement) > _LONGEST:
        limit = f"a statement has at most {_LONGEST} characters (pass a list as one parameter)"
        raise forbidden(limit, statement, "versions")
    numbered, readable, parameters = number_parameters(statement, has_parameters=has_parameters)
    tokens = sqlglot.tokenize(readable, read=DIALECT)
    for complaint in text_complaints(readable, tokens, len(parameters)):
        raise forbidden(complaint, statement, "sql-text")
    parser = Dialect.get_or_raise(DIALECT).parser()
    is_allowed = bool(tokens) and tokens[0].text.lower() in _STARTS
    trees = [tree for tree in parser.parse(tokens, readable) if tree] if is_allowed else []
    if len(trees) != 1 or not isinstance(trees[0], _KINDS):
        kinds = "a reducer runs one SELECT, INSERT, UPDATE, DELETE, MERGE or VALUES at a time"
        engines = "transaction, settings and schema are the engine's"
        raise forbidden(f"{kinds} ({engines})", statement, "one-statement")
    (tree,) = trees
    for identifier in tree.find_all(exp.Identifier):
        if not identifier.quoted:  # as the server reads it
            identifier.set("this", identifier.name.lower() if identifier.name.isascii() else identifier.name)
    reader = Reader(tree, catalog)
    casts, rows = Casts(catalog, reader), RowOrder(tree, catalog, reader)
    tables = [
        catalog.tables[table.name] for table in tree.find_all(exp.Table) if table.name in catalog.tables
    ]
    complaints = chain(  # the gravest first
        Syntax(tree, catalog, reader, casts).complaints(),
        word_complaints(tokens, readable, tables),
        function_complaints(tokens, catalog.are_immutable),
        in_section("row-order", rows.complaints()),
    )
    for complaint, section in complaints:
        raise forbidden(complaint, statement, section)
    writes = tree.find(exp.Insert, exp.Update, exp.Delete, exp.Merge) is not None
    may_reject = has_safe_shape(tree, catalog, reader, rows)
    return Statement(
        numbered, parameters, frozenset(casts.not_text), writes, may_reject, affects=_affected_rows(tree)
    )


def _affected_rows(tree: exp.Expr) -> int | None:
    """Count the rows of an INSERT that adds or updates each of them; None for any other statement."""
    if not isinstance(tree, exp.Insert) or not isinstance(tree.expression, exp.Values):
        return None
    if not all(isinstance(each, _ONE_VALUE) for each in tree.expression.find_all(exp.Func)):
        return None  # it may return several values, which makes several rows of one
    conflict = tree.args.get("conflict")
    if conflict is not None and (conflict.args["action"].name != "DO UPDATE" or conflict.args["where"]):
        return None
    return len(tree.expression.expressions)

"""The source of functions and classes, reduced to what it does.

`Sources` finds an object's syntax tree in the file that it was loaded from. `canonical` writes a tree as text
that is the same for every Python version, and that comments, layout, line numbers, docstrings and annotations
of functions do not change.
"""

import ast
import copy
import linecache
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, Final

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_SKIPPED: Final = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
"""Fields that follow from their place, or say nothing to the interpreter."""


@dataclass(frozen=True, slots=True)
class _Field:
    """An annotated assignment in the body of a class, where the annotation counts: it may declare a field."""

    node: ast.AnnAssign


@dataclass(frozen=True, slots=True)
class Names:
    """What a piece of source names: each name with the attributes that are taken of it, and its imports."""

    paths: Mapping[str, frozenset[tuple[str, ...]]]
    """By name, the attributes that follow it; an empty path for a use of the name alone."""
    imports: tuple[ast.Import | ast.ImportFrom, ...]


class Sources:
    """Finds the source of functions and classes; each file is read once."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def function(self, function: FunctionType) -> Function | None:
        """Return a function's tree; None if its source is not at hand."""
        code = function.__code__
        definitions = _definitions(self._text(code.co_filename, function.__globals__))
        matches = [node for node in definitions.functions.get(code.co_firstlineno, ()) if _fits(node, code)]
        if len(matches) > 1:  # several lambdas on one line: the innermost that holds all of the code
            lambdas = [node for node in matches if isinstance(node, ast.Lambda) and _holds(node, code)]
            return max(lambdas, key=lambda node: _span(node.body)[0], default=None)
        return matches[0] if matches else None

    def class_(self, kind: type, module: Mapping[str, Any]) -> ast.ClassDef | None:
        """Return the tree of a class that `module`, a module's names, defines; None if it is not at hand.

        If a module defines the name more than once, the methods decide, and then the last definition.
        """
        lines = [
            item.__code__.co_firstlineno
            for item in vars(kind).values()
            if isinstance(item, FunctionType) and item.__globals__ is module
        ]
        matches = _definitions(self._text(str(module.get("__file__")), module)).classes.get(kind.__name__, ())
        holders = [
            node for node in matches if any(node.lineno <= line <= (node.end_lineno or 0) for line in lines)
        ]
        if holders:  # the innermost, should a class of the same name be nested in it
            return max(holders, key=lambda node: node.lineno)
        return matches[-1] if matches else None

    def imported(self, module: Mapping[str, Any]) -> Mapping[str, str]:
        """Return where a module imports names from: by name, `package.module:name`, a dot for each level."""
        return _definitions(self._text(str(module.get("__file__")), module)).origins

    def _text(self, file: str, module: Mapping[str, Any]) -> str:
        if file not in self._texts:
            linecache.checkcache(file)
            self._texts[file] = "".join(linecache.getlines(file, dict(module)))
        return self._texts[file]


@dataclass(frozen=True, slots=True)
class _Definitions:
    """What a file defines: functions by the first line of their code, classes and imports by name."""

    functions: Mapping[int, Sequence[Function]]
    classes: Mapping[str, Sequence[ast.ClassDef]]
    origins: Mapping[str, str]


@lru_cache(maxsize=256)
def _definitions(source: str) -> _Definitions:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _Definitions({}, {}, {})
    functions: dict[int, list[Function]] = {}
    classes: dict[str, list[ast.ClassDef]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            functions.setdefault(_first_line(node), []).append(node)
        elif isinstance(node, ast.ClassDef):
            classes.setdefault(node.name, []).append(node)
    return _Definitions(functions, classes, _origins(tree))


def _origins(tree: ast.Module) -> dict[str, str]:
    origins: dict[str, str] = {}
    for node in tree.body:
        for statement in ast.walk(node) if isinstance(node, ast.If | ast.Try) else [node]:
            if isinstance(statement, ast.Import):
                for alias in statement.names:
                    origins[alias.asname or alias.name.split(".")[0]] = alias.name
            elif isinstance(statement, ast.ImportFrom):
                origin = "." * statement.level + (statement.module or "")
                for alias in statement.names:
                    origins[alias.asname or alias.name] = f"{origin}:{alias.name}"
    return origins


def _first_line(node: Function) -> int:
    """Return the line that a function's code begins with: that of its first decorator, if it has one."""
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return decorators[0].lineno if decorators else node.lineno


def _fits(node: Function, code: CodeType) -> bool:
    """Check the name and the number of parameters: the file may have changed after it was loaded."""
    name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
    parameters = node.args
    positional = len(parameters.posonlyargs) + len(parameters.args)
    expected = (code.co_name, code.co_argcount, code.co_kwonlyargcount)
    return (name, positional, len(parameters.kwonlyargs)) == expected


def _holds(node: ast.Lambda, code: CodeType) -> bool:
    """Check whether all of a lambda's instructions come from this lambda's body."""
    first, last = _span(node.body)
    spans = [
        ((line, column), (end_line, end_column))
        for line, end_line, column, end_column in code.co_positions()
        if line is not None and end_line is not None and column is not None and end_column is not None
    ]
    inner = [(start, end) for start, end in spans if start != end]
    return bool(inner) and all(first <= start and end <= last for start, end in inner)


def _span(node: ast.expr) -> tuple[tuple[int, int], tuple[int, int]]:
    return (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)


# Writing


def canonical(tree: ast.AST) -> str:
    """Write a tree as text; of a function, the decorators are left out: it is the result that counts."""
    parts: list[str] = []
    waiting: list[object] = [tree]
    while waiting:  # not recursive: a long sum is a deep tree
        item = waiting.pop()
        if isinstance(item, str):
            parts.append(item)
        elif isinstance(item, ast.Constant):
            parts.append(f"{type(item.value).__name__}:{constant(item.value)}")
        elif isinstance(item, ast.AST | _Field):
            pieces: list[object] = [f"{_kind(item)}("]
            for name, value in _fields(item, is_top=item is tree):
                pieces += [f"{name}=", value, ","]
            waiting += reversed([*pieces, ")"])
        elif isinstance(item, list):
            waiting += reversed(["[", *(part for value in item for part in (value, ",")), "]"])
        else:
            parts.append(ascii(item))  # a name, which cannot hold what separates, or a number
    return "".join(parts)


def constant(value: object) -> str:
    """Write a number, text or bytes so that neither Unicode's version nor the length matters."""
    return hex(value) if type(value) is int else ascii(value)


def names(tree: ast.AST) -> Names:
    """Collect what a tree names, wherever the name is bound."""
    paths: dict[str, set[tuple[str, ...]]] = {}
    imports: list[ast.Import | ast.ImportFrom] = []
    waiting: list[object] = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
            continue
        path: list[str] = []
        while isinstance(item, ast.Attribute):
            path.append(item.attr)
            item = item.value
        if isinstance(item, ast.Name):
            paths.setdefault(item.id, set()).add(tuple(reversed(path)))
        elif isinstance(item, ast.Import | ast.ImportFrom):
            imports.append(item)
        elif isinstance(item, ast.AST | _Field):
            waiting += [value for _, value in _fields(item, is_top=item is tree)]
    imports.sort(key=lambda node: (node.lineno, node.col_offset))
    return Names({name: frozenset(taken) for name, taken in paths.items()}, tuple(imports))


def class_without(tree: ast.ClassDef, names: AbstractSet[str]) -> ast.ClassDef:
    """Return the tree of a class without the statements that bind nothing but some of these names."""
    if not names:
        return tree
    shorter = copy.copy(tree)
    shorter.body = [
        statement for statement in tree.body if not (bound := bound_names([statement])) or bound - names
    ]
    return shorter


def bound_names(body: Iterable[ast.stmt]) -> set[str]:
    """Return the names that the body of a class binds."""
    bound: set[str] = set()
    waiting: list[ast.AST] = [*body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return bound


def _kind(item: "ast.AST | _Field") -> str:
    return "Field" if isinstance(item, _Field) else type(item).__name__


def _fields(item: "ast.AST | _Field", *, is_top: bool) -> Iterator[tuple[str, object]]:
    """Yield the fields of a node that count, in order; those that are empty are left out."""
    if isinstance(item, _Field):
        yield from _present(ast.iter_fields(item.node))
        return
    skipped = set(_SKIPPED)
    if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
        skipped |= {"returns", "type_params"} | ({"decorator_list"} if is_top else set())
    elif isinstance(item, ast.arg | ast.AnnAssign):
        skipped.add("annotation")
    for name, value in _present(ast.iter_fields(item)):
        if name in skipped:
            continue
        if name == "body" and isinstance(value, list):
            statements = _without_docstring(item, value)
            yield name, [_marked(item, statement) for statement in statements]
        elif name == "values" and isinstance(item, ast.JoinedStr):
            yield name, _merged(item.values)
        else:
            yield name, value


def _present(fields: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in fields if value is not None and value != [])


def _marked(owner: ast.AST, statement: ast.AST) -> "ast.AST | _Field":
    if isinstance(owner, ast.ClassDef) and isinstance(statement, ast.AnnAssign):
        return _Field(statement)
    return statement


def _without_docstring(owner: ast.AST, body: list[ast.stmt]) -> list[ast.stmt]:
    documented = isinstance(owner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module)
    first = body[0]
    is_docstring = (
        documented
        and isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    return body[1:] if is_docstring else body


def _merged(values: list[ast.expr]) -> list[ast.expr]:
    """Join adjacent pieces of text in an f-string, which Python versions cut differently."""
    merged: list[ast.expr] = []
    for value in values:
        last = merged[-1] if merged else None
        if isinstance(value, ast.Constant) and isinstance(last, ast.Constant):
            merged[-1] = ast.Constant(str(last.value) + str(value.value))
        elif not (isinstance(value, ast.Constant) and value.value == ""):
            merged.append(value)
    return merged

"""Where a function depends on the order of a set: that of text differs with each process."""

import ast
from collections.abc import Callable, Iterator
from typing import Final

from virtualchain.app.source import Function

_ORDERED: Final = frozenset(
    {"ascii", "enumerate", "filter", "format", "iter", "list", "map", "next", "repr", "str", "tuple", "zip"}
)
"""Builtins that keep the order of what they get."""
_BY_KEY: Final = frozenset({"max", "min", "sorted"})
"""Builtins that keep the order of what has the same key."""
_ORDERED_METHODS: Final = frozenset({"extend", "extendleft", "fromkeys", "join"})
_UNORDERED: Final = frozenset(
    {"all", "any", "dict", "frozenset", "len", "max", "min", "set", "sorted", "sum"}
)
"""Builtins whose result does not depend on the order of what they get, or only as a dict does."""
_SET_METHODS: Final = frozenset({"copy", "difference", "intersection", "symmetric_difference", "union"})
_SET_TYPES: Final = frozenset({"set", "frozenset", "AbstractSet", "Set", "FrozenSet"})


class SetOrder:
    """Finds the places; `is_set` says whether a name or a call is a set for reasons beyond the function."""

    def __init__(self, tree: Function, is_set: Callable[[ast.expr], bool]) -> None:
        self._tree = tree
        self._is_known_set = is_set
        self._locals: set[str] = set()
        assigned: dict[str, list[ast.expr | None]] = {}
        for node in ast.walk(tree):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    assigned.setdefault(name, []).append(value)
                case ast.AnnAssign(target=ast.Name(id=name), value=value, annotation=kind):
                    assigned.setdefault(name, []).append(_typed(kind) or value)
                case ast.arg(arg=name, annotation=kind):
                    assigned.setdefault(name, []).append(None if kind is None else _typed(kind))
        for name, values in assigned.items():  # in the order of the code: one may be made of another
            if all(value is not None and self._is_set(value) for value in values):
                self._locals.add(name)
        self._unordered = {
            id(argument)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _UNORDERED
            if not (node.func.id in _BY_KEY and _has_key(node))
            for argument in node.args
        }

    def at(self, node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
        """Yield what depends on the order of a set in one node: what it is, and where."""
        match node:
            case ast.For(iter=source) if self._is_set(source):
                yield f"for … in {ast.unparse(source)}", node
            case ast.ListComp() | ast.GeneratorExp() | ast.DictComp() if id(node) not in self._unordered:
                for part in node.generators:
                    if self._is_set(part.iter):
                        yield f"for … in {ast.unparse(part.iter)}", node
            case ast.Assign(targets=[ast.Tuple() | ast.List()], value=source) if self._is_set(source):
                yield ast.unparse(node), node
            case ast.List(elts=parts, ctx=ast.Load()) | ast.Tuple(elts=parts, ctx=ast.Load()):
                if any(isinstance(part, ast.Starred) and self._is_set(part.value) for part in parts):
                    yield ast.unparse(node), node
            case ast.FormattedValue(value=source) if self._is_set(source):
                yield f"the text of {ast.unparse(source)}", node
            case ast.Call() if self._keeps_order(node):
                yield ast.unparse(node), node

    def _keeps_order(self, call: ast.Call) -> bool:
        """Return whether the result of a call depends on the order of a set that it gets."""
        match call:
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in _ORDERED:
                return id(call) not in self._unordered and any(map(self._is_set, arguments))
            case ast.Call(func=ast.Name(id=name), args=[source]) if name in _BY_KEY and _has_key(call):
                return self._is_set(source)
            case ast.Call(func=ast.Attribute(value=owner, attr="pop"), args=[]):
                return self._is_set(owner)
            case ast.Call(func=ast.Attribute(attr=method), args=[source, *_]) if method in _ORDERED_METHODS:
                return self._is_set(source)
            case ast.Call(func=ast.Name(id="reduce") | ast.Attribute(attr="reduce"), args=[_, source, *_]):
                return self._is_set(source)
        return False

    def returns_set(self) -> bool:
        """Return whether the function returns a set, and nothing else."""
        returned = [node.value for node in ast.walk(self._tree) if isinstance(node, ast.Return)]
        return bool(returned) and all(value is not None and self._is_set(value) for value in returned)

    def _is_set(self, node: ast.expr) -> bool:
        match node:
            case ast.Set(elts=elements):
                return not all(
                    isinstance(each, ast.Constant) and isinstance(each.value, int) for each in elements
                )
            case ast.BinOp(left=left, right=right, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor()):
                return any(self._is_set(each) or _is_view(each) for each in (left, right))
            case ast.Call(func=ast.Attribute(value=owner, attr=method)) if method in _SET_METHODS:
                return self._is_set(owner)
        is_named = isinstance(node, ast.Name) and node.id in self._locals
        return is_named or isinstance(node, ast.SetComp) or self._is_known_set(node)


def _has_key(call: ast.Call) -> bool:
    """Return whether a call has a key that does not name the element itself to tell equal ones apart."""
    return any(each.arg == "key" and not _tells_apart(each.value) for each in call.keywords)


def _tells_apart(key: ast.expr) -> bool:
    match key:
        case ast.Lambda(args=ast.arguments(args=[ast.arg(arg=element)]), body=ast.Tuple(elts=parts)):
            return any(isinstance(part, ast.Name) and part.id == element for part in parts)
    return False


def _is_view(node: ast.expr) -> bool:
    """Return whether an expression is the keys or items of a dict, of which an operator makes a set."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (node.func.attr in {"items", "keys"} and not node.args)
    )


def _typed(annotation: ast.expr) -> ast.expr | None:
    """Return an expression that is a set, if an annotation says that a value is one."""
    base = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    name = base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else None
    return ast.SetComp(ast.Name("each"), []) if name in _SET_TYPES else None

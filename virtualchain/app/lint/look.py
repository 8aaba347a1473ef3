"""A look at the code of an app's callbacks, before it runs: what it names, and what it changes.

The code is what belongs to the app's identity (`virtualchain.app.code`): the callbacks, and what they name in
the same package. Names are followed to the objects that they stand for, so that it does not matter how a
function was imported. What the look cannot follow is caught when it runs (`virtualchain.engine.guard`).
"""

import ast
from collections.abc import Iterator, Mapping, MutableMapping, MutableSequence, MutableSet
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from io import IOBase
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final
from weakref import WeakKeyDictionary

from virtualchain.app.code import Code, closure_of, package
from virtualchain.app.contract import Contract
from virtualchain.app.lint.names import (
    UNKNOWN,
    Index,
    Instance,
    Ruled,
    builtin,
    find_member,
    member,
    module_named,
)
from virtualchain.app.lint.rules import (
    FLOATS,
    HASH,
    INJECTION,
    NEEDS_ARGUMENTS,
    SET_ORDER,
    STATE,
    TIME_ZONE,
    Rule,
)
from virtualchain.app.lint.sets import SetOrder
from virtualchain.app.source import Function, Sources
from virtualchain.errors import InvalidApp

_OUTSIDE: Final = frozenset({"db_continue", "proceed", "get_db_state", "db_save"})
"""Callbacks that decide no verdict, or that files are for."""
_MUTABLE: Final = (MutableMapping, MutableSequence, MutableSet)
_CHANGES: Final = frozenset(
    """
    add append appendleft clear discard extend extendleft insert pop popitem popleft remove reverse rotate
    setdefault sort subtract update
    """.split()
)
"""Methods that change what they are called on."""
_STATEMENTS: Final = frozenset({"execute", "one", "query"})
"""Methods that take a statement."""
_STATE: Final = frozenset({"db_state", "state"})
"""What the state is called."""
_DATETIME_ZONE: Final = 8
"""With so many arguments, `datetime` has a time zone."""
_TIME_ZONE_AT: Final = {"datetime.datetime.fromtimestamp": 1}
"""Methods that are allowed with a time zone, and the place of that argument."""


_looked_at: WeakKeyDictionary[Code, "list[Finding]"] = WeakKeyDictionary()
"""What was found already."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake in an app's code, and where it is."""

    rule: Rule
    what: str
    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Write where it is, what is wrong, and what to write instead."""
        return f"{self.file}, line {self.line}, in {self.function}: {self.rule.complaint(self.what)}"


def guarded_code(contract: Contract) -> Code:
    """Return the code that decides an app's verdicts."""
    roots = {name: function for name, function in contract.code.functions.items() if name not in _OUTSIDE}
    return Code(roots, without=contract.code.without)


def require_no_mistake(contract: Contract) -> None:
    """Raise InvalidApp, which names the line, if an app's callbacks do what they must not do."""
    if contract.code not in _looked_at:
        _looked_at[contract.code] = look(contract)
    findings = _looked_at[contract.code]
    if findings:
        others = sorted({f"{each.file}, line {each.line}" for each in findings[1:]})
        more = f"; see also {'; '.join(others)}" if others else ""
        raise InvalidApp(f"app {contract.name}: {findings[0]}{more}")


def look(contract: Contract) -> list[Finding]:
    """Find what an app's callbacks must not do, as far as their code shows it, in the order of the code."""
    index, sources = Index(), Sources()
    code = guarded_code(contract)
    owners = {
        root.__func__: root.__self__ for root in code.functions.values() if isinstance(root, MethodType)
    }
    findings: dict[tuple[str, int], Finding] = {}
    for described in {id(each): each for each, _ in code.describe()}.values():
        function = described.__func__ if isinstance(described, MethodType) else described
        if not isinstance(function, FunctionType):
            continue
        tree = sources.function(function)
        if tree is not None:
            owner = owners.get(function) if contract.get_state is None else None
            for finding in _Look(function, tree, index, sources, owner).findings():
                findings.setdefault((finding.file, finding.line), finding)
    return sorted(findings.values(), key=lambda each: (each.file, each.line))


class _Look:
    """Looks at one function; `owner` is the app's object that it is a method of, if it is one's callback."""

    def __init__(
        self,
        function: FunctionType,
        tree: Function,
        index: Index,
        sources: Sources,
        owner: object,
        callers: tuple[FunctionType, ...] = (),
    ) -> None:
        self._function = function
        self._tree = tree
        self._index = index
        self._sources = sources
        self._callers = callers or (function,)
        self._globals: Mapping[str, Any] = function.__globals__
        self._closure = closure_of(function)
        self._local = _local_names(tree)
        self._defaults = _mutable_defaults(function, tree)
        self._imported = _imports(tree)
        parameters = tree.args.posonlyargs + tree.args.args
        self._self = parameters[0].arg if owner is not None and parameters else None
        self._owner = owner

    def findings(self) -> Iterator[Finding]:
        """Yield the mistakes, in no particular order."""
        defaults = (
            *(self._function.__defaults__ or ()),
            *(self._function.__kwdefaults__ or {}).values(),
        )
        for ruled in filter(None, map(self._index.find, defaults)):
            yield self._finding(ruled.rule, ruled.name, self._tree)
        order = SetOrder(self._tree, self._is_set)
        body = self._tree.body if isinstance(self._tree.body, list) else [self._tree.body]
        waiting: list[tuple[ast.AST, int | None]] = [(each, None) for each in body]
        while waiting:
            node, arguments = waiting.pop()  # with how many it is called, if it is
            node = _plain_attribute(node)
            yield from (self._finding(SET_ORDER, what, at) for what, at in order.at(node))
            yield from self._changes(node)
            yield from self._inexact(node)
            yield from self._calls(node)
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
                hit, rest = self._follow(node)
                enough = None if hit is None else NEEDS_ARGUMENTS.get(hit.name)
                if hit is not None and (enough is None or (arguments is not None and arguments < enough)):
                    call = "()" if callable(self._meaning(node)) and arguments == 0 else ""
                    yield self._finding(hit.rule, f"{hit.name}{call}", node)
                waiting += [(each, None) for each in rest]
                continue
            if isinstance(node, ast.Call):
                if not self._is_zoned(node):
                    waiting.append((node.func, len(node.args) + len(node.keywords)))
                waiting += [(each, None) for each in (*node.args, *node.keywords)]
                continue
            waiting += [(each, None) for each in _children(node)]

    def _finding(self, rule: Rule, what: str, node: ast.AST) -> Finding:
        code = self._function.__code__
        line = getattr(node, "lineno", code.co_firstlineno)
        return Finding(rule, what, code.co_filename, line, code.co_qualname)

    # What names mean

    def _follow(self, node: ast.expr) -> tuple[Ruled | None, list[ast.AST]]:
        """Follow a chain of attributes from its beginning; return the first find, or what else to look at."""
        chain: list[ast.Attribute] = []
        start: ast.expr = node
        while isinstance(start, ast.Attribute):
            chain.append(start)
            start = start.value
        value = self._meaning(start)
        hit = self._index.find(value) if isinstance(start, ast.Name) else None
        if hit is not None and not (isinstance(value, ModuleType) and chain):
            return self._unless_in_hash(hit), []
        for link in reversed(chain):
            if value is UNKNOWN:
                break
            hit = find_member(value, link.attr)
            value = member(value, link.attr)
            hit = hit or (None if isinstance(value, ModuleType) else self._index.find(value))
            if hit is not None:
                return hit, []
        return None, [] if isinstance(start, ast.Name) else [start]

    def _unless_in_hash(self, hit: Ruled) -> Ruled | None:
        """Allow `hash` where an object's own hash is computed."""
        return None if self._function.__name__ == "__hash__" and hit.name == "builtins.hash" else hit

    def _meaning(self, node: ast.expr) -> object:
        """Return what an expression stands for, if it is a name, attributes of one, or a new object."""
        match node:
            case ast.Name(id=name):
                return self._value_of(name)
            case ast.Attribute(value=inner, attr=attribute):
                owner = self._meaning(inner)
                return UNKNOWN if owner is UNKNOWN else member(owner, attribute)
            case ast.Call(func=function):
                kind = self._meaning(function)
                return Instance(kind) if isinstance(kind, type) else UNKNOWN
        return UNKNOWN

    def _value_of(self, name: str) -> object:
        if name == self._self:
            return self._owner
        if name in self._imported:
            return _imported_value(self._imported[name])
        if name in self._defaults:
            return self._defaults[name]
        if name in self._local:
            return UNKNOWN
        if name in self._closure:
            return self._closure[name]
        return self._globals[name] if name in self._globals else builtin(name)

    def _is_set(self, node: ast.expr) -> bool:
        """Return whether an expression is one of the module's sets, or makes one."""
        value = self._meaning(node)
        if isinstance(value, Instance):
            return issubclass(value.of, set | frozenset)
        if isinstance(node, ast.Call):
            return self._returns_set(self._meaning(node.func))
        return isinstance(value, set | frozenset) and not all(isinstance(each, int) for each in value)

    def _returns_set(self, function: object) -> bool:
        """Return whether a function of the app's own returns a set."""
        function = function.__func__ if isinstance(function, MethodType) else function
        if not isinstance(function, FunctionType) or function in self._callers:
            return False
        if package(function.__module__) != package(self._function.__module__):
            return False
        tree = self._sources.function(function)
        if not isinstance(tree, ast.FunctionDef):
            return False
        called = _Look(function, tree, self._index, self._sources, None, (*self._callers, function))
        return SetOrder(tree, called._is_set).returns_set()

    def _is_zoned(self, call: ast.Call) -> bool:
        """Return whether a call has the time zone without which it would be a mistake."""
        if not isinstance(call.func, ast.Attribute):
            return False
        hit = find_member(self._meaning(call.func.value), call.func.attr)
        place = None if hit is None else _TIME_ZONE_AT.get(hit.name)
        return place is not None and (
            len(call.args) > place or any(each.arg == "tz" for each in call.keywords)
        )

    # What is called

    def _calls(self, node: ast.AST) -> Iterator[Finding]:
        """Yield calls that are wrong by what they are called on, or with."""
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Call() as made, attr="timestamp")) if self._meaning(
                made.func
            ) is datetime and not _has_zone(made):
                yield self._finding(TIME_ZONE, f"{ast.unparse(node.func)} of a time without a zone", node)
            case ast.Call(func=ast.Attribute(attr="__hash__")) if self._function.__name__ != "__hash__":
                yield self._finding(HASH, ast.unparse(node.func), node)
            case ast.Call(func=ast.Attribute(value=owner, attr="set")) if isinstance(
                self._meaning(owner), ContextVar
            ):
                yield self._finding(STATE, f"changing {ast.unparse(owner)}", node)
            case ast.Call(func=ast.Name(id="setattr" | "delattr"), args=[owner, *_]) if self._is_lasting(
                owner
            ):
                yield self._finding(STATE, f"changing {ast.unparse(owner)}", node)
            case ast.Call() if self._keeps_answers(node):
                yield self._finding(STATE, f"remembering {ast.unparse(node)}", node)
            case ast.Call(func=ast.Attribute(attr=method), args=[statement, *_]) if method in _STATEMENTS:
                for value in self._inserted(statement):
                    yield self._finding(INJECTION, ast.unparse(value), statement)

    def _keeps_answers(self, call: ast.Call) -> bool:
        """Return whether a function is passed the state and remembers its results."""
        passes_state = any(isinstance(each, ast.Name) and each.id in _STATE for each in call.args)
        return passes_state and hasattr(self._meaning(call.func), "cache_parameters")

    def _inserted(self, statement: ast.expr) -> Iterator[ast.expr]:
        """Yield the fields of ops and rows that are put into the text of a statement."""
        match statement:
            case ast.JoinedStr(values=parts):
                inserted = [part.value for part in parts if isinstance(part, ast.FormattedValue)]
            case ast.BinOp(left=left, op=ast.Add() | ast.Mod(), right=right):
                inserted = [left, right]
            case ast.Call(func=ast.Attribute(attr="format"), args=arguments, keywords=named):
                inserted = [*arguments, *(each.value for each in named)]
            case _:
                return
        for node in (each for part in inserted for each in ast.walk(part)):
            match node:
                case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str())) if (
                    name in self._local
                ):
                    yield node

    def _inexact(self, node: ast.AST) -> Iterator[Finding]:
        """Yield what depends on the machine although no name says so."""
        match node:
            case ast.BinOp(op=ast.Pow(), right=exponent) if _is_fraction(exponent):
                yield self._finding(FLOATS, ast.unparse(node), node)
            case ast.Call(func=ast.Name(id="pow"), args=[_, exponent]) if _is_fraction(exponent):
                yield self._finding(FLOATS, ast.unparse(node), node)
            case ast.Call(func=ast.Attribute(attr="astimezone"), args=[], keywords=[]):
                yield self._finding(TIME_ZONE, ast.unparse(node), node)

    # What is changed

    def _changes(self, node: ast.AST) -> Iterator[Finding]:
        """Yield changes of what outlives the call: a module's names and values, classes, the handler."""
        match node:
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                outer = [name for name in names if name in self._closure or isinstance(node, ast.Global)]
                for name in outer:
                    yield self._finding(STATE, f"changing {name}", node)
            case ast.Attribute(ctx=ast.Store() | ast.Del(), value=owner) if self._is_lasting(owner):
                yield self._finding(STATE, f"changing {ast.unparse(node)}", node)
            case ast.Subscript(ctx=ast.Store() | ast.Del(), value=owner) if self._is_lasting(owner):
                yield self._finding(STATE, f"changing {ast.unparse(owner)}", node)
            case ast.Call(func=ast.Attribute(value=owner, attr=method)) if (
                method in _CHANGES and isinstance(self._meaning(owner), _MUTABLE) and self._is_lasting(owner)
            ):
                yield self._finding(STATE, f"changing {ast.unparse(owner)}", node)
            case ast.Name(ctx=ast.Load()) | ast.Attribute(ctx=ast.Load(), value=ast.Name()):
                value = node.value if isinstance(node, ast.Attribute) else node
                for each in (node, value):
                    meaning = self._meaning(each)
                    if isinstance(meaning, Iterator) and not isinstance(meaning, IOBase):
                        yield self._finding(STATE, f"changing {ast.unparse(each)}", node)

    def _is_lasting(self, node: ast.expr) -> bool:
        """Return whether an expression is an object that was there before the call."""
        value = self._meaning(node)
        return value is not UNKNOWN and not isinstance(value, Instance)


def _plain_attribute(node: ast.AST) -> ast.AST:
    """Write `getattr(owner, 'name')` as `owner.name`."""
    match node:
        case ast.Call(
            func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str(name)), *_], keywords=[]
        ) if name.isidentifier():
            return ast.copy_location(ast.Attribute(owner, name, ast.Load()), node)
    return node


def _is_fraction(node: ast.expr) -> bool:
    """Return whether an exponent is a float that is written in the code."""
    match node:
        case ast.Constant(value=float()):
            return True
        case ast.UnaryOp(operand=operand):
            return _is_fraction(operand)
        case ast.BinOp(op=ast.Div()):
            return True
    return False


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a node that run when it does: no annotations."""
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "type_params"}:
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield each


def _local_names(tree: Function) -> set[str]:
    """Return the names that a function, or a function inside of it, binds."""
    bound: set[str] = set()
    declared: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                bound.add(name)
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                bound.add(name)
            case ast.MatchMapping(rest=str(name)):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound |= set() if node is tree else {name}
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                declared |= set(names)
    return bound - declared


def _mutable_defaults(function: FunctionType, tree: Function) -> dict[str, object]:
    """Return the lists, dicts and the like that parameters have by default, if they are never bound again."""
    plain = [each.arg for each in tree.args.posonlyargs + tree.args.args]
    defaults = dict(zip(reversed(plain), reversed(function.__defaults__ or ()), strict=False))
    defaults |= function.__kwdefaults__ or {}
    stored = {each.id for each in ast.walk(tree) if isinstance(each, ast.Name) and not _is_load(each)}
    return {
        name: value for name, value in defaults.items() if isinstance(value, _MUTABLE) and name not in stored
    }


def _is_load(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Load)


def _has_zone(call: ast.Call) -> bool:
    """Return whether a call of `datetime` has a zone."""
    return len(call.args) >= _DATETIME_ZONE or any(each.arg in {"tzinfo", None} for each in call.keywords)


def _imports(tree: Function) -> dict[str, tuple[str, str | None]]:
    """Return what a function imports, by name: a module, and what it takes of it."""
    imported: dict[str, tuple[str, str | None]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.split(".")[0]
                imported[alias.asname or name] = name, None
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            for alias in node.names:
                imported[alias.asname or alias.name] = node.module, alias.name
    return imported


def _imported_value(origin: tuple[str, str | None]) -> object:
    module = module_named(origin[0])
    if module is None:
        return UNKNOWN
    return module if origin[1] is None else vars(module).get(origin[1], UNKNOWN)

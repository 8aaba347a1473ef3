"""A digest of an app's code: of functions, and of everything in the same package that they name.

It follows from the source (see `virtualchain.app.source`): from the functions themselves, the values of their
closures and defaults, and the functions, classes and values of the same package that they name, and so on.
Files, line numbers, comments, hash seeds and Python versions do not matter. What comes from another package
counts by its name only. Of a function whose source is not at hand, the compiled form counts, which is that of
one Python version; for a digest that must outlast that, only its name does. No code of the app runs, except
that modules of its package are imported that a function imports.
"""

import ast
import functools
import hashlib
import importlib
import inspect
import re
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property, singledispatchmethod
from pathlib import PurePath
from struct import Struct
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    UnionType,
)
from typing import Any, Final, ForwardRef, TypeGuard, Union, get_args, get_origin
from uuid import UUID

from virtualchain.app.source import Names, Sources, bound_names, canonical, class_without, constant, names

_FORMULA: Final = "virtualchain code 1"
_PLAIN: Final = (bool, int, float, complex, str, bytes, range, type(None), type(...), type(NotImplemented))
_WRITTEN: Final = (Decimal, Fraction, date, datetime, time, timedelta, UUID)
"""Types whose text is the value, on every Python version."""
_ENGINE: Final = "virtualchain"
_EXAMPLES: Final = "virtualchain.examples."
_DATACLASS: Final = "__dataclass_params__"
_EMPTY: Final = object()


class Code:
    """Some functions and what belongs to them; `digest` is computed once, when it is first asked for.

    If it is `lasting`, no Python version changes the digest; then functions without source count by name.
    `without` are methods, by class and name, that do not count as parts of their classes.
    """

    def __init__(
        self,
        roots: Mapping[str, object],
        *,
        lasting: bool = False,
        without: Collection[tuple[type, str]] = (),
    ) -> None:
        self._lasting = lasting
        self.without = without
        self.functions: Mapping[str, object] = dict(roots)
        """The functions themselves, by the names that they were passed with."""

    @cached_property
    def digest(self) -> str:
        """The SHA-256 (hex) of the code."""
        digest = hashlib.sha256(_FORMULA.encode())
        for _, line in self.describe():
            digest.update(b"\n" + line.encode())
        return digest.hexdigest()

    def describe(self, sources: Sources | None = None) -> Iterator[tuple[object, str]]:
        """Describe the code as it is now, in lines, each with the function, class or object that it is of.

        `sources` has the files that were read before: without it, they are read as they are on the disk now.
        """
        return _Walk(self.functions, lasting=self._lasting, without=self.without, sources=sources).lines()


def package(module: str) -> str | None:
    """Return the package that a module's code belongs to; None for the engine's own.

    It is the outermost package. Each of the examples that come with the engine is a package of its own.
    """
    if module.startswith(_EXAMPLES):
        return _EXAMPLES + module.removeprefix(_EXAMPLES).split(".")[0]
    outermost = module.split(".", maxsplit=1)[0]
    return None if outermost == _ENGINE else outermost


class _Walk:
    """One walk over the code that belongs to some functions, each object once, in an order that is fixed."""

    def __init__(
        self,
        roots: Mapping[str, object],
        *,
        lasting: bool,
        without: Collection[tuple[type, str]],
        sources: Sources | None = None,
    ) -> None:
        self._roots = roots
        self._lasting = lasting
        self._without = without
        homes = {package(_home(root)) for root in roots.values()}
        self._packages = {home for home in homes if home is not None and home not in sys.stdlib_module_names}
        self._numbers: dict[tuple[int, int], int] = {}
        self._kept: list[object] = []  # while an object lives, its id is its own
        self._waiting: deque[tuple[object, Callable[[], Iterator[str]]]] = deque()
        self._open: set[int] = set()
        self._sources = Sources() if sources is None else sources

    def lines(self) -> Iterator[tuple[object, str]]:
        for name, root in sorted(self._roots.items()):
            yield None, f"{name}={self.value(root)}"
        while self._waiting:
            described, lines = self._waiting.popleft()
            for line in lines():
                yield described, line

    # Values

    def value(self, value: object) -> str:
        """Describe a value; functions, classes and objects of the app's package by number."""
        if type(value) in _PLAIN:
            return f"{type(value).__name__}:{constant(value)}"
        if id(value) in self._open:
            return "cycle"
        self._open.add(id(value))
        try:
            return self._describe(value)
        finally:
            self._open.remove(id(value))

    def _values(self, values: Iterable[object]) -> str:
        return ",".join(map(self.value, values))

    def _named(self, values: Mapping[str, object]) -> str:
        return ",".join(f"{name}={self.value(value)}" for name, value in sorted(values.items()))

    def _number(self, value: object, lines: Callable[[], Iterator[str]], owner: object = None) -> str:
        """Return the number of an object; the first time, have it described later."""
        key = id(value), id(owner)
        if key not in self._numbers:
            self._numbers[key] = len(self._numbers)
            self._kept += [value, owner]
            self._waiting.append((value, lines))
        return f"#{self._numbers[key]}"

    @singledispatchmethod
    def _describe(self, value: object) -> str:
        if get_origin(value) is not None:
            return self._alias(value)
        if type(value) in _WRITTEN:
            return f"{_label(value)} {value!s}"
        wrapped = getattr(value, "__wrapped__", _EMPTY) if isinstance(value, _WRAPPERS) else _EMPTY
        if wrapped is not _EMPTY:
            return f"{_label(value)}({self.value(wrapped)})"
        if self._is_own(type(value)):
            return self._number(value, lambda: self._object(value))
        if is_dataclass(value) and getattr(type(value), _DATACLASS).frozen:
            state = {item.name: getattr(value, item.name, None) for item in fields(value)}
            return f"{_label(value)}({self._named(state)})"
        return _label(value)

    def _alias(self, value: object) -> str:
        """Describe a parametrized type: the classes of unions and of their parts differ between versions."""
        origin: Any = get_origin(value)
        name = "union" if origin in {Union, UnionType} else self.value(origin)
        return f"alias {name}[{self._values(get_args(value))}]"

    @_describe.register(list)
    @_describe.register(tuple)
    @_describe.register(deque)
    def _sequence(self, value: Iterable[object]) -> str:
        return f"{self.value(type(value))}[{self._values(value)}]"

    @_describe.register(set)
    @_describe.register(frozenset)
    def _set(self, value: Iterable[object]) -> str:
        return f"{self.value(type(value))}{{{self._values(sorted(value, key=_rank))}}}"

    @_describe.register(dict)
    @_describe.register(MappingProxyType)
    def _mapping(self, value: Mapping[object, object]) -> str:
        # Not in their order, which may come from that of a set: that differs between processes.
        keys = sorted(value, key=_rank)
        items = ",".join(f"{self.value(key)}:{self.value(value[key])}" for key in keys)
        return f"{self.value(type(value))}{{{items}}}"

    @_describe.register
    def _enum(self, value: Enum) -> str:
        return f"{self.value(type(value))}.{value.name}"

    @_describe.register
    def _pattern(self, value: re.Pattern) -> str:  # type: ignore[type-arg]  # singledispatch needs a class
        return f"pattern:{value.flags}:{value.pattern!a}"

    @_describe.register
    def _layout(self, value: Struct) -> str:
        return f"struct:{value.format!a}"

    @_describe.register
    def _reference(self, value: ForwardRef) -> str:
        return f"reference:{value.__forward_arg__!a}"

    @_describe.register
    def _path(self, value: PurePath) -> str:
        return f"path:{value.name!a}"  # where it is installed says nothing

    @_describe.register
    def _module(self, value: ModuleType) -> str:
        if not self._is_own(value):
            return f"module {value.__name__}"
        return self._number(value, lambda: self._whole_module(value))

    @_describe.register(functools.partial)
    @_describe.register(functools.partialmethod)
    def _partial(self, value: Any) -> str:  # noqa: ANN401 - either of them
        parts = self.value(value.func), self._values(value.args), self._named(value.keywords)
        return f"partial({';'.join(parts)})"

    @_describe.register
    def _cached_property(self, value: cached_property) -> str:  # type: ignore[type-arg]
        return f"cached_property({self.value(value.func)})"

    @_describe.register
    def _property(self, value: property) -> str:
        return f"property({self._values([value.fget, value.fset, value.fdel])})"

    @_describe.register(staticmethod)
    @_describe.register(classmethod)
    def _unbound(self, value: Any) -> str:  # noqa: ANN401 - either of them
        return f"{type(value).__name__}({self.value(value.__func__)})"

    @_describe.register
    def _builtin(self, value: BuiltinFunctionType) -> str:
        owner = value.__self__
        of = "" if owner is None or isinstance(owner, ModuleType) else f" of {self.value(owner)}"
        return f"{_label(value)}{of}"

    @_describe.register
    def _class(self, value: type) -> str:
        if not self._is_own(value):
            return _label(value)
        return self._number(value, lambda: self._class_lines(value))

    @_describe.register
    def _method(self, value: MethodType) -> str:
        if not isinstance(value.__func__, FunctionType):
            return f"method({self.value(value.__func__)},{self.value(value.__self__)})"
        return self._bound(value.__func__, value.__self__)

    @_describe.register
    def _function(self, value: FunctionType) -> str:
        return self._bound(value, None)

    def _bound(self, function: FunctionType, owner: object) -> str:
        if self._is_own(function):
            return self._number(function, lambda: self._function_lines(function, owner), owner)
        # A decorator of another package: what it decorates may be in its closure.
        return f"{_label(function)}({self._named(closure_of(function))})"

    def _is_own(self, value: object) -> bool:
        return package(_home(value)) in self._packages

    # Descriptions of what has a number

    def _function_lines(self, function: FunctionType, owner: object) -> Iterator[str]:
        tree = self._sources.function(function)
        yield "function " + (self._compiled(function.__code__) if tree is None else canonical(tree))
        yield f"defaults {self._values(function.__defaults__ or ())}"
        yield f"by name {self._named(function.__kwdefaults__ or {})}"
        yield f"closure {self._named(closure_of(function))}"
        is_global = set(_global_names(function.__code__))
        module = function.__globals__
        if tree is None:
            yield from self._globals({name: frozenset({()}) for name in is_global}, module)
            return
        used = names(tree)
        yield from self._globals({name: used.paths[name] for name in used.paths if name in is_global}, module)
        yield from self._local_imports(used, module)
        first = next(iter(function.__code__.co_varnames[: function.__code__.co_argcount]), None)
        if owner is not None and first is not None:
            yield from self._taken(owner, used.paths.get(first, ()))

    def _compiled(self, code: CodeType) -> str:
        return f"without source {code.co_qualname}" if self._lasting else _compiled(code)

    def _class_lines(self, kind: type) -> Iterator[str]:
        loaded = sys.modules.get(kind.__module__)
        module = {} if loaded is None else vars(loaded)
        skipped = {name for owner, name in self._without if owner is kind}
        tree = self._sources.class_(kind, module)
        tree = None if tree is None else class_without(tree, skipped)
        yield f"class {self._values(kind.__bases__)},{self.value(type(kind))}"
        if tree is not None:
            yield canonical(tree)
            yield from self._globals(names(tree).paths, module)
        bound = set(vars(kind)) if tree is None else bound_names(tree.body)
        for name, value in sorted(vars(kind).items()):
            if name in skipped:
                continue
            if isinstance(value, FunctionType):
                # What a decorator such as `dataclass` adds follows from the class's own source.
                has_source = tree is None or self._sources.function(value) is not None
                counts = (tree is not None and name in bound) or (self._is_own(value) and has_source)
            elif tree is None and isinstance(value, staticmethod | classmethod):
                # As for functions: which ones a named tuple or an enum has follows from Python's version.
                counts = self._is_own(value.__func__)
            else:
                counts = name in bound and not issubclass(kind, Enum) and not _is_internal(name, value)
            if counts:
                yield f"{name}={self.value(value)}"
        if issubclass(kind, Enum):
            yield f"members {self._named({name: item.value for name, item in kind.__members__.items()})}"

    def _object(self, value: object) -> Iterator[str]:
        kind = type(value)
        yield f"object of {self.value(kind)}"
        for base in (int, float, complex, str, bytes):
            if isinstance(value, base):
                yield ascii(base.__repr__(value))
        if _is_engines(kind):
            return  # what the engine keeps there is not the app's
        yield self._named(_state(value))

    def _whole_module(self, module: ModuleType) -> Iterator[str]:
        yield "module"
        names_here = [name for name in vars(module) if not name.startswith("__")]
        yield from self._globals({name: frozenset({()}) for name in names_here}, vars(module))

    # Names

    def _globals(
        self, paths: Mapping[str, Iterable[tuple[str, ...]]], module: Mapping[str, Any]
    ) -> Iterator[str]:
        """Describe what a piece of code means by these names; builtins and unknown names say nothing."""
        origins = self._sources.imported(module)
        for name in sorted(paths):
            if name.startswith("__") or name not in module:
                continue
            value, origin = module[name], origins.get(name)
            if origin is not None and not self._is_own_origin(origin):
                plain = f" {self.value(value)}" if type(value) in _PLAIN else ""
                yield f"{name} from {origin}{plain}"
            elif isinstance(value, ModuleType):
                for path in sorted(paths[name]):
                    yield f"{'.'.join((name, *path))} is {self._along(value, path)}"
            elif _is_engines(type(value)):
                yield from self._taken(value, paths[name])
            else:
                yield f"{name} is {self.value(value)}"

    def _along(self, value: object, path: tuple[str, ...]) -> str:
        """Describe what a path of attributes leads to, from a module through its submodules."""
        for attribute in path:
            if not isinstance(value, ModuleType) or not self._is_own(value):
                break
            value = vars(value).get(attribute)
        return self.value(value)

    def _taken(self, owner: object, paths: Iterable[tuple[str, ...]]) -> Iterator[str]:
        """Describe the attributes that code takes of an object, or all of it if it is used as a whole."""
        for path in sorted(paths):
            if not path:
                yield f"whole {self.value(owner)}"
                continue
            attribute = inspect.getattr_static(owner, path[0], None)
            if isinstance(attribute, FunctionType) and not isinstance(owner, type):
                yield f"its {path[0]} is {self._bound(attribute, owner)}"
            elif isinstance(attribute, classmethod) and isinstance(attribute.__func__, FunctionType):
                kind = owner if isinstance(owner, type) else type(owner)
                yield f"its {path[0]} is {self._bound(attribute.__func__, kind)}"
            elif isinstance(attribute, property):
                accessors = [
                    item for item in (attribute.fget, attribute.fset) if isinstance(item, FunctionType)
                ]
                yield f"its {path[0]} is {','.join(self._bound(item, owner) for item in accessors)}"
            elif isinstance(attribute, MemberDescriptorType):
                yield f"its {path[0]} is {self.value(getattr(owner, path[0], None))}"
            else:
                yield f"its {path[0]} is {self.value(attribute)}"

    def _local_imports(self, used: Names, module: Mapping[str, Any]) -> Iterator[str]:
        """Describe what a function imports from its own package when it runs."""
        here = str(module.get("__package__") or "")
        for statement in used.imports:
            for alias in statement.names:
                if isinstance(statement, ast.ImportFrom):
                    origin = "." * statement.level + (statement.module or "")
                    if self._is_own_origin(origin):
                        value = self.value(_member(origin, alias.name, here))
                        yield f"import {origin}:{alias.name} is {value}"
                elif self._is_own_origin(alias.name):
                    loaded = _load(alias.name, here)
                    outermost, *_ = alias.name.split(".")
                    start = loaded if alias.asname else sys.modules.get(outermost)
                    for path in sorted(used.paths.get(alias.asname or outermost, ())):
                        yield f"import {alias.name}, {'.'.join(path)} is {self._along(start, path)}"

    def _is_own_origin(self, origin: str) -> bool:
        module = origin.split(":", maxsplit=1)[0]
        return module.startswith(".") or package(module) in self._packages


_WRAPPERS: Final = (type(functools.lru_cache(lambda: None)),)


def methods_named(name: str, kind: type) -> frozenset[tuple[type, str]]:
    """Return a method of a class and those that it overrides, as `Code` takes them as `without`."""
    return frozenset((owner, name) for owner in kind.__mro__ if name in vars(owner))


def _home(value: object) -> str:
    """Return the name of the module that a function, class or object belongs to."""
    if isinstance(value, MethodType):
        return _home(value.__func__)
    if isinstance(value, functools.partial):
        return _home(value.func)
    if isinstance(value, _WRAPPERS):
        return _home(value.__wrapped__)
    if isinstance(value, FunctionType):  # a wrapper has the `__module__` of what it wraps
        return str(value.__globals__.get("__name__"))
    if isinstance(value, ModuleType):
        return value.__name__
    return str((value if isinstance(value, type) else type(value)).__module__)


def _label(value: object) -> str:
    """Name something of another package, or its type: by the outermost package and its own name.

    Modules within a package, and modules in C under another name, differ between Python versions.
    """
    named: Any = value if isinstance(value, type | FunctionType | BuiltinFunctionType) else type(value)
    outermost = str(getattr(named, "__module__", None)).split(".")[0].lstrip("_")
    return f"{type(named).__name__} {outermost}.{named.__name__}"


def _rank(value: object) -> tuple[str, str]:
    """Return what an element of a set, or a key, is sorted by, before it has a number."""
    if isinstance(value, Enum):
        return _label(value), value.name
    if isinstance(value, tuple | frozenset):
        return _label(value), ascii(
            [_rank(item) for item in value] if isinstance(value, tuple) else sorted(map(_rank, value))
        )
    return _label(value), constant(value) if type(value) in _PLAIN else str(
        getattr(value, "__qualname__", "")
    )


def _is_engines(kind: type) -> bool:
    """Check whether a class is the engine's, or derived from one: `App` and `StateEngine` are."""
    return any(package(base.__module__) is None for base in kind.__mro__)


def _is_internal(name: str, value: object) -> bool:
    """Check whether an attribute of a class is the interpreter's."""
    is_descriptor = isinstance(value, MemberDescriptorType | GetSetDescriptorType)
    return is_descriptor or (name.startswith("__") and name.endswith("__")) or name == "_abc_impl"


def _state(value: object) -> dict[str, object]:
    """Return an object's attributes, without what a cached property remembers."""
    state: dict[str, object] = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        for name, item in vars(kind).items():
            if isinstance(item, MemberDescriptorType) and hasattr(value, name):
                state.setdefault(name, getattr(value, name))
            elif isinstance(item, cached_property):
                state.pop(name, None)
    return state


def closure_of(function: FunctionType) -> dict[str, object]:
    """Return the values of a function's closure by name; None for one that is not bound yet."""
    values: dict[str, object] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # not bound yet
            values[name] = None
    return values


def _inner(code: CodeType) -> Iterator[CodeType]:
    return (item for item in code.co_consts if _is_code(item))


def _is_code(item: object) -> TypeGuard[CodeType]:
    return isinstance(item, CodeType)


def _global_names(code: CodeType) -> Iterator[str]:
    """Yield the names that code, and the code inside of it, does not bind; attributes are among them."""
    yield from code.co_names
    for item in _inner(code):
        yield from _global_names(item)


def _compiled(code: CodeType) -> str:
    """Describe compiled code, which only the same Python version compiles to the same."""
    constants = [
        _compiled(item) if _is_code(item) else constant(item)
        for item in code.co_consts
        if not isinstance(item, frozenset)
    ]
    sets = [sorted(map(constant, item)) for item in code.co_consts if isinstance(item, frozenset)]
    parts = (code.co_code.hex(), constants, sets, code.co_names, code.co_varnames, code.co_freevars)
    return f"compiled {sys.implementation.cache_tag} {parts!a}"


def _member(origin: str, name: str, here: str) -> object:
    """Return what `from origin import name` binds in a module of package `here`; None if that fails."""
    loaded = _load(origin, here)
    if loaded is not None and name in vars(loaded):
        return vars(loaded)[name]
    return _load(f"{origin}{'' if origin.endswith('.') else '.'}{name}", here)


def _load(origin: str, here: str) -> ModuleType | None:
    try:
        return importlib.import_module(origin, here or None)
    except Exception:  # noqa: BLE001 - a module may raise anything; then the function will, too
        return None

"""What names in an app's code mean: the objects of Python's library that the rules are about."""

import builtins
import importlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Final

from virtualchain.app.lint.rules import CHANCE, RULES, TIME_ZONE, Rule, rule_of_name

UNKNOWN: Final = object()
"""What a name means that cannot be followed."""


@dataclass(frozen=True, slots=True)
class Instance:
    """An object that does not exist yet, of a class: what a call of the class returns."""

    of: type


@dataclass(frozen=True, slots=True)
class Ruled:
    """Something that a rule is about, and its full name."""

    name: str
    rule: Rule


def module_named(name: str) -> ModuleType | None:
    """Return a module if it is loaded, or if a rule is about it and it can be imported."""
    loaded, root = sys.modules.get(name), name.split(".", maxsplit=1)[0]
    if loaded is None and root in _RULED and root in sys.stdlib_module_names:
        try:
            return importlib.import_module(name)
        except ImportError:  # not on this platform
            return None
    return loaded


_MADE_BEFORE: Final = (CHANCE, TIME_ZONE)
"""Rules that objects break as well which were made of a class at import: a generator with a seed, a zone."""


class Index:
    """What the rules say about objects, whatever name they go by in the app's code."""

    def __init__(self) -> None:
        self._ruled: dict[int, tuple[object, Ruled]] = {}
        for name, value in ruled():
            rule = rule_of_name(name)
            if rule is not None:
                self._ruled.setdefault(id(value), (value, Ruled(name.removesuffix(".*"), rule)))

    def find(self, value: object) -> Ruled | None:
        """Return what the rules say about an object; None if it is allowed."""
        while isinstance(value, partial):
            value = value.func
        hit = self._ruled.get(id(value)) or self._ruled.get(id(type(value)))
        if hit is None or (hit[0] is not value and hit[1].rule not in _MADE_BEFORE):
            return None
        return hit[1]


def find_member(owner: object, attribute: str) -> Ruled | None:
    """Return what the rules say about an attribute of a module, a class or an instance; None if allowed."""
    if isinstance(owner, ModuleType):
        name = f"{owner.__name__}.{attribute}"
        rule = None if attribute.startswith("__") else rule_of_name(name)
        return None if rule is None else Ruled(name, rule)
    kind = owner.of if isinstance(owner, Instance) else owner
    for base in kind.__mro__ if isinstance(kind, type) else ():
        name = f"{base.__module__.split('.')[0]}.{base.__qualname__}.{attribute}"
        rule = rule_of_name(name)
        if rule is not None and name in rule.methods:
            return Ruled(name, rule)
    return None


def member(owner: object, attribute: str) -> object:
    """Return an attribute of an object without running code of the object's."""
    if isinstance(owner, Instance):
        return UNKNOWN
    if isinstance(owner, ModuleType):
        return vars(owner).get(attribute, UNKNOWN)
    value = inspect.getattr_static(owner, attribute, UNKNOWN)
    return UNKNOWN if isinstance(value, property) else value


def builtin(name: str) -> object:
    """Return what a name means that no module defines."""
    return vars(builtins).get(name, UNKNOWN)


def ruled() -> Iterator[tuple[str, object]]:
    """Yield what rules name, if its module is loaded, by its full name."""
    for rule in RULES:
        for listed in rule.names:
            owner, _, attribute = listed.rpartition(".")
            module = sys.modules.get(owner)
            if module is None:
                continue
            space = vars(module)
            if attribute == "*":
                yield listed, module
            names = [each for each in space if not each.startswith("_")] if attribute == "*" else [attribute]
            for name in names:
                if name in space and _is_modules_own(space[name], owner, named=attribute != "*"):
                    yield f"{owner}.{name}", space[name]


_RULED: Final = frozenset(name.split(".")[0] for rule in RULES for name in rule.names)


def _is_modules_own(value: object, module: str, *, named: bool) -> bool:
    """Return whether a module made something, or a rule names it: what it imports does not count."""
    if isinstance(value, ModuleType) or value is None or isinstance(value, bool | int | str | float):
        return False
    home = str(getattr(value, "__module__", None) or getattr(type(value), "__module__", ""))
    return named or f"{home.lstrip('_')}.".startswith(f"{module}.")

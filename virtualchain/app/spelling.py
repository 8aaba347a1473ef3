"""Find functions that an author meant as callbacks but named otherwise: the engine would never call them."""

import re
import sys
from collections.abc import Collection
from difflib import get_close_matches
from types import ModuleType
from typing import Final
from warnings import catch_warnings, simplefilter

from virtualchain.app.code import package

_HANDLER: Final = frozenset({"parse", "check", "commit", "encode"})
_HOOKS: Final = frozenset({"scan", "final", "proceed"})
_PREFIX: Final = re.compile("^(db|get|find)_")
_CLOSE: Final = 0.8
"""How close to `find_payload` a name is an error; other names that begin with `find_` are the app's own."""


def uncalled_in_handler(handler: object) -> str | None:
    """Describe the first public function of a handler that no step calls; None if there is none.

    Public means without a leading underscore. What holds a function or a class counts, be it a method, an
    attribute or a property, and inherited ones count, too, unless the base is one of Python's own.
    """
    own = _names(handler, _own_classes(handler)) - _HANDLER
    for name in sorted(own):
        if not name.startswith("_") and _is_callable(handler, name):
            hint = (
                f"register it with @app.{name}, outside of the class"
                if name in _HOOKS
                else _hint(name, _HANDLER, "begin its name with an underscore if only the handler calls it")
            )
            return f"has {name}, which is none of parse, check, commit and encode: {hint}"
    return None


def uncalled_in_implementation(implementation: object, callbacks: Collection[str]) -> str | None:
    """Describe the first function that is named like a callback but is none; None if there is no such one.

    A name is like a callback's if it begins with `db_` or `get_`, or misspells `find_payload`. What a class
    inherits from virtualchain or from Python itself is not the author's.
    """
    own = (
        set(vars(implementation))
        if isinstance(implementation, ModuleType)
        else _names(implementation, _own_classes(implementation))
    )
    for name in sorted(own - set(callbacks)):
        misspelled = name.startswith("find_") and get_close_matches(name, ["find_payload"], cutoff=_CLOSE)
        if (name.startswith(("db_", "get_")) or misspelled) and _is_callable(implementation, name):
            hint = _hint(name, callbacks, "begin its name with an underscore if only the app calls it")
            return f"has {name}, which is not a callback: {hint}"
    return None


def _own_classes(instance: object) -> list[type]:
    """List the classes of an object that are neither Python's nor virtualchain's, except for its examples."""
    return [cls for cls in type(instance).__mro__ if not _is_library(cls.__module__)]


def _is_library(module: str) -> bool:
    home = package(module)
    return home is None or home in sys.stdlib_module_names


def _names(instance: object, own: Collection[type]) -> set[str]:
    """Return the names that an object and its own classes define, without those that a library's base has."""
    inherited = {name for cls in type(instance).__mro__ if cls not in own for name in vars(cls)}
    return {*getattr(instance, "__dict__", ()), *(name for cls in own for name in vars(cls))} - inherited


def _is_callable(instance: object, name: str) -> bool:
    try:
        with catch_warnings():  # Python 3.13 has one for a `partial`, which a filter may make an error
            simplefilter("ignore")
            return callable(getattr(instance, name, None))
    except Exception:  # noqa: BLE001 - a property of the app's that fails is not a function
        return False


def _hint(name: str, known: Collection[str], otherwise: str) -> str:
    """Name the nearest known name, if one is near: one that it begins, or else one spelled alike."""
    words = {_PREFIX.sub("", item): item for item in sorted(known)}
    word = _PREFIX.sub("", name)
    near = [item for item in words if item.startswith(word)] or get_close_matches(word, words, n=1)
    return f"did you mean {words[near[0]]}? If not, {otherwise}" if near else otherwise

"""The guard of callbacks: what a callback must not do is caught when it does it, with the line.

Three nets, each for what the others miss. A look at the code, before the first block
(`virtualchain.app.lint.look`). Python's audit hooks, which report files, sockets, processes and threads. And
replacements of functions that no hook reports, such as `time.time`, wherever a module has them. After some
blocks the values that the code names are compared with those before, to find state outside of the tables.

What the engine does on behalf of a callback is allowed, and so is what Python's import, a debugger, coverage
or logging does. It is a lint against mistakes, not a sandbox. Nothing of it exists while it is off.
"""

import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache, update_wrapper
from types import FrameType, FunctionType, MethodType
from typing import Any, Final

from virtualchain.app.code import package
from virtualchain.app.contract import Callback, Contract
from virtualchain.app.lint.look import guarded_code, require_no_mistake
from virtualchain.app.lint.names import ruled
from virtualchain.app.lint.rules import (
    CHANCE,
    CLOCK,
    ENVIRONMENT,
    LOCALE,
    NEEDS_ARGUMENTS,
    STATE,
    TIME_ZONE,
    Rule,
    rule_of_event,
    rule_of_name,
)
from virtualchain.app.source import Sources
from virtualchain.engine.halting import halt
from virtualchain.errors import UsageError

_REPLACED: Final = (CLOCK, TIME_ZONE, CHANCE, ENVIRONMENT, LOCALE)
_WITHOUT_EVENT: Final = frozenset({"_thread.start_new_thread", "os.access", "os.lstat", "os.stat"})
"""What is replaced: functions that no audit event reports."""
_METHODS: Final = (
    (os._Environ, "__getitem__", "os.environ", ENVIRONMENT),  # noqa: SLF001 - os.environ has no public class
    (os._Environ, "__iter__", "os.environ", ENVIRONMENT),  # noqa: SLF001 - as above
    (random.Random, "seed", "random.Random", CHANCE),
)
_TOOLS: Final = frozenset(
    """
    IPython _pydev_bundle _pydevd_bundle _pydevd_frame_eval _pytest bdb coverage debugpy hypothesis ipdb
    linecache logging pdb pudb pydevd pydevd_file_utils traceback warnings weakref zipimport
    """.split()
)
"""Modules and packages that may do on behalf of a callback what the callback may not."""
_IMPORT: Final = "importlib._bootstrap"
_WAY: Final = ("virtualchain.app.", "virtualchain.lib.", "virtualchain.testing.")
"""Rooms of the engine that call the author's functions; what others of its rooms do is not the author's."""
_WASM: Final = "virtualchain.app.wasm"
"""The room that calls a WebAssembly module: what it does to that end is the engine's."""


class ForbiddenCall(UsageError):
    """A callback did what two nodes would not find the same."""


class _Running(threading.local):
    """What this thread runs."""

    is_guarded = False
    """Whether a callback runs."""
    error: ForbiddenCall | None = None
    """What it did first, even if it caught the error."""


_running = _Running()


class Guard:
    """Watches the callbacks of one app; raises InvalidApp if their code shows a mistake already."""

    def __init__(self, contract: Contract) -> None:
        require_no_mistake(contract)
        self._contract = contract
        self._code = guarded_code(contract)
        self._sources = Sources()  # a file that is edited meanwhile changes nothing of what runs
        self._keeps_state = contract.get_state is not None
        self._before: list[tuple[object, str]] | None = None
        self._blocks = 0
        self._guarded = replace(
            contract,
            parse=_guarded(contract.parse),
            check=_guarded(contract.check),
            commit=_guarded(contract.commit),
            scan=None if contract.scan is None else _guarded(contract.scan),
            final=None if contract.final is None else _guarded(contract.final),
            keys=None if contract.keys is None else _Guarded(contract.keys),
        )

    @contextmanager
    def watching(self, block_id: int) -> Iterator[Contract]:
        """Yield the app's contract with callbacks that are watched; they are called inside only.

        Raises AppHalted at the end if what the code names has changed. That is looked at after the first,
        second, fourth … of the blocks, because it takes longer than they do.
        """
        _install()
        if self._before is None and not self._keeps_state:
            self._before = list(self._code.describe(self._sources))
        with _REPLACEMENTS:
            yield self._guarded
        self._blocks += 1
        if self._before is not None and self._blocks & (self._blocks - 1) == 0:
            self._require_unchanged(block_id)

    def _require_unchanged(self, block_id: int) -> None:
        before, self._before = self._before or [], list(self._code.describe(self._sources))
        for (owner, line), (_, line_now) in zip(before, self._before, strict=False):
            if line != line_now:
                error = ForbiddenCall(STATE.complaint(f"changing {_changed(line, line_now)}{_of(owner)}"))
                raise halt(self._contract, block_id, "a callback", None, error) from error


def _changed(line: str, line_now: str) -> str:
    """Name what differs between two descriptions, such as `CACHE is …` or `count=…,total=…`."""
    name, separator, _ = line.partition(" is ")
    if separator:
        return name.removeprefix("its ")
    parts = zip(line.split(","), line_now.split(","), strict=False)
    part = next((old or new for old, new in parts if old != new), line_now)
    return part.partition("=")[0].rpartition(" ")[2] or "an attribute"


def _of(owner: object) -> str:
    """Describe where something is named."""
    if isinstance(owner, FunctionType):
        code = owner.__code__
        return f", which {code.co_qualname} names ({code.co_filename}, line {code.co_firstlineno}),"
    kind = owner if isinstance(owner, type) else type(owner)
    return f" of {kind.__module__}.{kind.__qualname__}"


def _guarded(callback: Callback) -> Callback:
    return callback if callback.is_sandboxed else replace(callback, function=_Guarded(callback.function))


class _Guarded:
    """A callback that is watched while it runs."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: object, **named: object) -> Any:  # noqa: ANN401 - what a callback returns
        """Call it; raise what it did first, even if it has caught the error."""
        running = _running
        outer = running.is_guarded, running.error
        running.is_guarded, running.error = True, None
        try:
            return self._function(*arguments, **named)
        finally:
            error = running.error
            running.is_guarded, running.error = outer
            if error is not None:
                raise error


_BOUNDARY: Final = _Guarded.__call__.__code__


def _catch(rule: Rule, what: str) -> None:
    """Raise ForbiddenCall, unless the engine or a tool does it for the callback."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - how Python's own tracebacks begin
    modules: list[str] = []
    while frame is not None and frame.f_code is not _BOUNDARY:
        if frame.f_code.co_name == "__del__":  # the interpreter calls it, whenever it collects garbage
            return
        modules.append(str(frame.f_globals.get("__name__")))
        frame = frame.f_back
    while modules and modules[-1].startswith(_WAY) and not modules[-1].startswith(_WASM):
        modules.pop()
    if any(map(_is_allowed, modules)):
        return
    running = _running
    running.error = running.error or ForbiddenCall(rule.complaint(what))
    raise running.error


@lru_cache(maxsize=4096)
def _is_allowed(module: str) -> bool:
    """Return whether what a module does is not the callback's doing."""
    return package(module) is None or module.split(".", maxsplit=1)[0] in _TOOLS or module.startswith(_IMPORT)


# Audit hooks


@lru_cache(maxsize=1)
def _install() -> None:
    """Add the hook; none can be removed again, so that happens once, when a guard is first used."""
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _running.is_guarded:
        rule = _rule_of_event(event)
        if rule is not None:
            _catch(rule, f"open({arguments[0]!r})" if event == "open" else event)


_rule_of_event = lru_cache(maxsize=4096)(rule_of_event)


# Replacements


class _Replacements:
    """Functions that are replaced, wherever a module has them, while a block is judged in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._modules = 0
        """How many modules there were when they were last searched."""
        self._by_id: dict[int, tuple[object, Callable[..., Any]]] = {}
        """By its id, what is replaced, and by what."""
        self._places: list[tuple[dict[str, Any], str, object, object]] = []
        """A module's names, one of them, what it is and what it becomes."""

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth > 1:
                return
            if self._modules != len(sys.modules):
                self._search()
            for space, name, _, replacement in self._places:
                space[name] = replacement
            for kind, method, _, replaced in _replaced_methods():
                setattr(kind, method, replaced)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth:
                return
            for space, name, original, replacement in self._places:
                if space.get(name) is replacement:
                    space[name] = original
            for kind, method, before, _after in _replaced_methods():
                setattr(kind, method, before)

    def _search(self) -> None:
        """Find in which modules the functions are, by whatever names; the engine's own are left alone."""
        for full_name, value in ruled():
            rule = rule_of_name(full_name)
            if not callable(value) or isinstance(value, type) or rule is None:
                continue
            if rule in _REPLACED or full_name in _WITHOUT_EVENT:
                self._by_id.setdefault(id(value), (value, _replacement(rule, full_name, value)))
        self._places = []
        for module in list(sys.modules.values()):
            space: dict[str, Any] = getattr(module, "__dict__", {})
            if package(str(space.get("__name__"))) is None:
                continue
            for name, value in list(space.items()):
                known = self._by_id.get(id(value))
                if known is not None:
                    self._places.append((space, name, value, known[1]))
        self._modules = len(sys.modules)


_REPLACEMENTS: Final = _Replacements()


class _Replacement:
    """What is called in place of a function, and calls it unless a callback runs.

    Like a function in C, it is no method where a class has it: a module that is imported while a block is
    judged may keep it for good, as in `class Timer: now = time.monotonic`.
    """

    def __init__(self, rule: Rule, name: str, function: Callable[..., Any]) -> None:
        self._what = rule, name, NEEDS_ARGUMENTS.get(name)
        self._function = function
        with suppress(AttributeError):  # not everything that can be called has a name
            update_wrapper(self, function)

    def __call__(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the function takes
        """Call the function, unless a callback does."""
        if _running.is_guarded:
            rule, name, enough = self._what
            if enough is None or len(arguments) < enough:
                _catch(rule, name)
        return self._function(*arguments, **named)


class _MethodReplacement(_Replacement):
    """The same for what is a method where a class has it."""

    def __get__(self, instance: object, owner: type | None = None) -> object:
        return self if instance is None else MethodType(self, instance)


def _replacement(rule: Rule, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    kind = _MethodReplacement if hasattr(function, "__get__") else _Replacement
    return kind(rule, name, function)


@lru_cache(maxsize=1)
def _replaced_methods() -> list[tuple[type, str, object, object]]:
    """Return a class, the name of a method, what it is and what it becomes, of each that is replaced."""
    return [
        (kind, name, vars(kind)[name], _replacement(rule, what, vars(kind)[name]))
        for kind, name, what, rule in _METHODS
    ]

"""Send an app to another Python process: what can be imported there by its name, everything else by value.

pickle sends functions and classes by name only, and most apps of tests are made inside a function: their
callbacks are closures. Here those are sent as their code and what they refer to. Modules are imported in the
other process, as on another machine, so nothing that this process has changed in them goes along.
"""

import builtins
import dataclasses
import importlib
import importlib.util
import io
import marshal
import pickle
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

_Reduced = tuple[Any, ...]
_LEFT_OUT: Final = frozenset(
    {
        *("__dict__", "__weakref__", "__slots__", "__qualname__", "__module__", "_abc_impl"),
        *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__firstlineno__"),
    }
)
"""Attributes that a new class gets on its own, or does not need."""
_MARKERS: Final = ("MISSING", "_FIELD", "_FIELD_CLASSVAR", "_FIELD_INITVAR")
"""Values of the module dataclasses that are compared by identity."""


@dataclasses.dataclass(frozen=True, slots=True)
class Parcel:
    """A value for another process, and where its modules are."""

    content: bytes
    files: Mapping[str, str]
    """By name, the file of each module that must be imported there, if it has one."""


def pack(value: object) -> Parcel:
    """Pack a value; raise any exception if some part of it cannot be sent."""
    buffer = io.BytesIO()
    packer = _Packer(buffer, protocol=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of iterators that can still be pickled
        packer.dump(value)
    return Parcel(buffer.getvalue(), packer.files)


def unpack(parcel: Parcel) -> Any:  # noqa: ANN401 - what was packed
    """Unpack a value, importing what it refers to."""
    for name in parcel.files:
        _import(name, parcel.files)
    return pickle.loads(parcel.content)  # noqa: S301 - see the import


class _Packer(pickle.Pickler):
    """Pickles what pickle cannot send."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.files: dict[str, str] = {}

    def reducer_override(self, value: Any) -> Any:  # noqa: ANN401 - any value
        match value:
            case types.FunctionType() | type() if self._is_named_by_name(value):
                return NotImplemented  # pickle sends it by its name
            case types.FunctionType():
                return self._function(value)
            case type():
                return self._class(value)
            case types.ModuleType():
                return self._module(value)
            case _:
                return _reduced(value)

    def _module(self, module: types.ModuleType) -> _Reduced:
        if sys.modules.get(module.__name__) is module:
            self._note(module.__name__)
            return importlib.import_module, (module.__name__,)
        return _make_module, (module.__name__,), _attributes(module)

    def _is_named_by_name(self, value: types.FunctionType | type) -> bool:
        if value.__module__ == "builtins":
            return True
        named: object = sys.modules.get(value.__module__)
        for part in value.__qualname__.split("."):
            named = getattr(named, part, None)
        if named is value:
            self._note(value.__module__)
        return named is value

    def _note(self, name: str) -> None:
        """Note the file of a module that the other process will import."""
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None:
            self.files.setdefault(name, file)

    def _function(self, function: types.FunctionType) -> _Reduced:
        module = sys.modules.get(function.__module__ or "")
        if module is not None and vars(module) is function.__globals__:
            self._note(module.__name__)
            home: str | dict[str, Any] = module.__name__
        else:
            names = _names(function.__code__)
            home = {name: value for name, value in function.__globals__.items() if name in names}
        state = (
            home,
            [_filled(cell) for cell in function.__closure__ or ()],
            {
                "__defaults__": function.__defaults__,
                "__kwdefaults__": function.__kwdefaults__,
                "__qualname__": function.__qualname__,
                "__module__": function.__module__,
            },
            dict(vars(function)),
        )
        module_name = home if isinstance(home, str) else ""
        made = (marshal.dumps(function.__code__), module_name, function.__closure__)
        return _make_function, made, state, None, None, _fill_function

    def _class(self, kind: type) -> _Reduced:
        slots = vars(kind).get("__slots__")
        body = {
            name: value
            for name, value in vars(kind).items()
            if name not in _LEFT_OUT and not isinstance(value, types.MemberDescriptorType)
        }
        head = {"__qualname__": kind.__qualname__, "__module__": kind.__module__}
        if slots is not None:
            head["__slots__"] = slots
        made = (type(kind), kind.__name__, kind.__bases__, head)
        return _make_class, made, (body,), None, None, _fill_class


def _reduced(value: Any) -> Any:  # noqa: ANN401 - any value
    """Reduce a part of a function or a class that pickle cannot send."""
    match value:
        case types.CellType():
            return _make_cell, ()  # the functions that share it say what it holds
        case staticmethod() | classmethod():
            return type(value), (value.__func__,)
        case property():
            return property, (value.fget, value.fset, value.fdel, value.__doc__)
        case types.MappingProxyType():
            return _make_mapping_proxy, (dict(value),)
    for name in _MARKERS:
        if value is getattr(dataclasses, name, None):
            return getattr, (dataclasses, name)
    return NotImplemented


def _attributes(module: types.ModuleType) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if not name.startswith("__")}


def _names(code: types.CodeType) -> set[str]:
    """Return the names that a function, and the functions inside it, may look up in their module."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return {*code.co_names}.union(*map(_names, inner))


def _filled(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # the name is not bound yet
        return ()


def _make_cell() -> types.CellType:
    return types.CellType()


def _make_module(name: str) -> types.ModuleType:
    return types.ModuleType(name)


def _make_mapping_proxy(mapping: dict[Any, Any]) -> types.MappingProxyType[Any, Any]:
    return types.MappingProxyType(mapping)


def _make_function(
    code: bytes, module: str, closure: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    home = vars(sys.modules[module]) if module else {"__builtins__": builtins}
    return types.FunctionType(marshal.loads(code), home, closure=closure)  # noqa: S302 - see the import


def _fill_function(
    function: types.FunctionType,
    state: tuple[str | dict[str, Any], list[tuple[Any, ...]], dict[str, Any], dict[str, Any]],
) -> None:
    home, contents, attributes, own = state
    if isinstance(home, dict):
        function.__globals__.update(home)
    for cell, filled in zip(function.__closure__ or (), contents, strict=True):
        for content in filled:
            cell.cell_contents = content
    for name, value in attributes.items():
        setattr(function, name, value)
    vars(function).update(own)


def _make_class(kind: Callable[..., type], name: str, bases: tuple[type, ...], head: dict[str, Any]) -> type:
    return kind(name, bases, dict(head))


def _fill_class(kind: type, state: tuple[dict[str, Any]]) -> None:
    for name, value in state[0].items():
        setattr(kind, name, value)


def _import(name: str, files: Mapping[str, str]) -> None:
    """Import a module by its name, or if that is not named there, from its file."""
    if name == "__main__":
        # The program that is running there is another one: this module's part of it must not run.
        _load("__mp_main__", name, files[name])
        return
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        if name not in files:
            raise
        _load(name, name, files[name])


def _load(run_name: str, name: str, file: str) -> None:
    spec = importlib.util.spec_from_file_location(run_name, file)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"module {name} cannot be imported from {file}", name=name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = sys.modules[run_name] = module
    spec.loader.exec_module(module)

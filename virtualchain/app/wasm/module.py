"""A WebAssembly module, checked: what it may import, what it exports, and what its sandbox can do."""

import hashlib
from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from virtualchain.errors import InvalidApp, VirtualchainError

if TYPE_CHECKING:
    import wasmtime

IMPORTS: Final = {
    "next": (2, 1),
    "get": (6, 1),
    "put": (4, 0),
    "delete": (4, 0),
    "accept": (2, 0),
    "refuse": (2, 0),
    "want": (4, 0),
    "is_text": (2, 1),
}
"""The functions of `virtualchain` that a module may import: how many i32 they take and return."""
_ENTRY: Final = ["i32", "i64", "i32"]
_LARGEST_MODULE: Final = 1 << 20
_MOST_PAGES: Final = 256
_STACK: Final = 256 * 1024
_MOST_TABLE_ELEMENTS: Final = 10_000
_LARGEST_FUNCTION: Final = 64 * 1024
_MOST_WORK: Final = 1 << 25
"""The bytes of each function times its parameters and variables, together: compilers take time and memory
for each variable at each place."""
_TYPES: Final = 1
_FUNCTIONS: Final = 3
_TABLES: Final = 4
_START: Final = 8
_CODE: Final = 10
"""The numbers of sections: of types, of functions by their types, of tables, of the function that runs by
itself, and of the functions' code."""

_SETTINGS: Final = {
    "consume_fuel": True,
    "cranelift_nan_canonicalization": True,
    "max_wasm_stack": _STACK,
    "parallel_compilation": False,
    "wasm_exceptions": False,
    "wasm_function_references": False,
    "wasm_gc": False,
    "wasm_memory64": False,
    "wasm_multi_memory": False,
    "wasm_multi_value": False,
    "wasm_relaxed_simd": False,
    "wasm_simd": False,
    "wasm_stack_switching": False,
    "wasm_tail_call": False,
    "wasm_threads": False,
}
"""What may differ between machines is off, or has one result: the bits of a NaN. So is what lets few bytes
become much code: several results."""


class ModuleFailed(VirtualchainError):
    """A module did what it may not, or came to no end: that is never a verdict, it halts the app."""


@dataclass(frozen=True)
class Module:
    """A module by its digest; it is compiled when it is first needed, once in each process."""

    sha256: str
    """Of the module: the fingerprint and the code digest have it."""
    code: InitVar[bytes]
    name: InitVar[str]

    def __post_init__(self, code: bytes, name: str) -> None:
        """Keep what follows from the digest, or does not matter."""
        vars(self).update(bytes_=code, file=name)

    @classmethod
    def of(cls, code: bytes, name: str) -> "Module":
        """Check a module; raises InvalidApp, with what it may not have, or lacks."""
        if len(code) > _LARGEST_MODULE:
            raise InvalidApp(f"{name} has {len(code)} bytes; a module has at most {_LARGEST_MODULE}")
        module = cls(hashlib.sha256(code).hexdigest(), code, name)
        for problem in module._problems():
            raise InvalidApp(f"{name} {problem}")
        return module

    @cached_property
    def compiled(self) -> "tuple[wasmtime.Engine, wasmtime.Module]":
        """The module, ready for instances."""
        wasmtime = _wasmtime()
        config = wasmtime.Config()
        for setting, value in _SETTINGS.items():
            if not isinstance(getattr(type(config), setting, None), property):
                raise InvalidApp(f"this version of wasmtime has no setting {setting}: install a newer one")
            setattr(config, setting, value)
        engine = wasmtime.Engine(config)
        file = vars(self)["file"]
        if not vars(self)["bytes_"].startswith(b"\0asm"):  # wasmtime would take text, too
            raise InvalidApp(f"{file} is not a WebAssembly module")
        code = vars(self)["bytes_"]
        try:
            wasmtime.Module.validate(engine, code)
            for problem in _costly(code):  # before the compiler sees it
                raise InvalidApp(f"{file} {problem}")
            return engine, wasmtime.Module(engine, code)
        except wasmtime.WasmtimeError as error:
            reason = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
            raise InvalidApp(f"{file} is not a module that may run here: {reason}") from error

    @cached_property
    def wants_keys(self) -> bool:
        """Whether it names the rows that it will need, with an export `keys`."""
        return any(export.name == "keys" for export in self.compiled[1].exports)

    def store(self, fuel: int) -> "wasmtime.Store":
        """Return a new sandbox for one call."""
        store: wasmtime.Store = _wasmtime().Store(self.compiled[0])
        store.set_fuel(fuel)
        store.set_limits(
            memory_size=_MOST_PAGES << 16,
            table_elements=_MOST_TABLE_ELEMENTS,
            instances=1,
            tables=1,
            memories=1,
        )
        return store

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is compiled, which no other process takes."""
        return {name: value for name, value in vars(self).items() if name not in {"compiled", "wants_keys"}}

    def _problems(self) -> list[str]:
        exports = {item.name: item.type for item in self.compiled[1].exports}
        problems = [*self._wrong_imports(), *_wrong_memory(exports.get("memory"))]
        code = vars(self)["bytes_"]
        if any(section == _START for section, _ in _sections(code)):
            problems.append("has a start function: what is to be done belongs into block")
        if not all(least == most for least, most in _tables(code)):
            problems.append("has a table that can grow: minimum and maximum must be the same")
        for name in ("block", *(["keys"] if "keys" in exports else [])):
            function = exports.get(name)
            if not isinstance(function, _wasmtime().FuncType):
                problems.append(f"has no exported function {name}")
            elif [str(kind) for kind in function.params] != _ENTRY or function.results:
                problems.append(f"exports {name} with other parameters: it takes (i32, i64, i32)")
        return problems

    def _wrong_imports(self) -> Iterator[str]:
        for item in self.compiled[1].imports:
            shape = IMPORTS.get(item.name or "")
            if item.module != "virtualchain" or shape is None:
                yield (
                    f"imports {item.module}.{item.name}: a module has nothing but the functions "
                    f"{', '.join(IMPORTS)} of virtualchain"
                )
            elif not isinstance(item.type, _wasmtime().FuncType) or _shape(item.type) != shape:
                yield f"imports {item.name} with other parameters: it has {_described(*shape)}"


def _wrong_memory(memory: Any) -> Iterator[str]:  # noqa: ANN401 - whatever has that name
    if not isinstance(memory, _wasmtime().MemoryType):
        yield "has no export memory"
    elif memory.limits.max != memory.limits.min or memory.limits.min > _MOST_PAGES:
        yield (
            f"has a memory that can grow, or of more than {_MOST_PAGES} pages: whether it can grow depends "
            "on the machine, so minimum and maximum must be the same (--initial-memory and --max-memory of "
            "wasm-ld)"
        )


def _sections(code: bytes) -> Iterator[tuple[int, int]]:
    """Yield the number of each section of a module that has been validated, and where its content begins."""
    at = 8
    while at < len(code):
        section, (size, at) = code[at], _number(code, at + 1)
        yield section, at
        at += size


def _tables(code: bytes) -> list[tuple[int, int | None]]:
    """Return minimum and maximum of each table; None if there is none."""
    limits = []
    for section, start in _sections(code):
        count, at = _number(code, start) if section == _TABLES else (0, start)
        for _ in range(count):
            has_most = code[at + 1] & 1  # after the type of the elements
            least, at = _number(code, at + 2)
            most: int | None = None
            if has_most:
                most, at = _number(code, at)
            limits.append((least, most))
    return limits


def _costly(code: bytes) -> Iterator[str]:
    """Yield why the compiler could take too much time or memory for a module that has been validated."""
    places = dict(_sections(code))
    if _CODE not in places:
        return
    parameters = _parameters(code, places[_TYPES])
    _, kind_at = _number(code, places[_FUNCTIONS])
    count, at = _number(code, places[_CODE])
    work = 0
    for _ in range(count):
        kind, kind_at = _number(code, kind_at)
        size, at = _number(code, at)
        if size > _LARGEST_FUNCTION:
            yield f"has a function of {size} bytes; one has at most {_LARGEST_FUNCTION}"
        work += size * (parameters[kind] + _variables(code, at))
        at += size
    if work > _MOST_WORK:
        yield (
            "has too many variables in large functions: the bytes of each function times its parameters and "
            f"variables are {work} together, and may be {_MOST_WORK}"
        )


def _parameters(code: bytes, at: int) -> list[int]:
    """Return how many parameters functions of each type take."""
    parameters = []
    kinds, at = _number(code, at)
    for _ in range(kinds):
        taken, at = _number(code, at + 1)  # after what says that it is a function's
        returned, at = _number(code, at + taken)
        at += returned
        parameters.append(taken)
    return parameters


def _variables(code: bytes, at: int) -> int:
    """Return how many variables a function has."""
    groups, at = _number(code, at)
    variables = 0
    for _ in range(groups):
        count, at = _number(code, at)
        variables += count
        at += 1
    return variables


def _number(code: bytes, at: int) -> tuple[int, int]:
    """Read an unsigned LEB128 number; return it, and the place after it."""
    value = shift = 0
    while True:
        byte, at = code[at], at + 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _shape(function: "wasmtime.FuncType") -> tuple[int, int] | None:
    kinds = {str(kind) for kind in (*function.params, *function.results)}
    return (len(function.params), len(function.results)) if kinds == {"i32"} else None


def _described(takes: int, returns: int) -> str:
    return f"({', '.join(['i32'] * takes)}) -> ({', '.join(['i32'] * returns)})"


def _wasmtime() -> Any:  # noqa: ANN401 - the package
    try:
        import wasmtime  # noqa: PLC0415 - only these apps need it
    except ImportError as error:
        raise InvalidApp("this app is a WebAssembly module: pip install 'virtualchain[wasm]'") from error
    return wasmtime

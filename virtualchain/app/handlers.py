"""Handlers: the functions that an app registers for an opcode, and the heights from which they apply."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from virtualchain.app.field_types import Fields
from virtualchain.errors import InvalidApp

T = TypeVar("T")

_LEADING: Final = {
    "parse": ("payload",),
    "keys": ("op",),
    "check": ("op", "state"),
    "commit": ("op", "state"),
    "scan": ("ops", "state"),
    "final": ("ops", "state"),
    "proceed": ("block_id", "consensus_hash"),
}
"""By step, the arguments that come first, by position."""

_OPTIONAL: Final = {
    "parse": {"block_id", "opcode", "senders", "inputs", "outputs", "fee", "state"},
    "keys": {"block_id"},
    "check": {"block_id", "opcode", "txid", "vtxindex", "checked"},
    "commit": {"block_id", "opcode", "txid", "vtxindex"},
    "scan": {"block_id"},
    "final": {"block_id"},
    "proceed": set[str](),
}
"""By step, the arguments that a function receives by name if its signature has them."""

_RESULTS: Final = {
    "parse": "a dict, None or Rejected",
    "check": "True, False or Rejected",
    "commit": "None, a dict, a list of dicts, False or Rejected",
}
_WRONG_RESULTS: Final = {
    "parse": frozenset({"bool", "bytes", "float", "int", "list", "set", "str", "tuple"}),
    "check": frozenset({"bytes", "dict", "float", "int", "list", "set", "str", "tuple"}),
    "commit": frozenset({"bytes", "float", "int", "set", "str", "tuple"}),
}
"""By step, types that an annotation may name although the engine takes none of their values."""
_PAGE: Final = "docs/mistakes.md"

Keys = Mapping[str, Iterable[object]]
"""Keys of rows, by table; a key of several columns is a tuple."""

Encode = Callable[..., bytes]
"""Writes what follows magic and opcode in a payload, from fields by name."""
_ASKED_BY_BUILD_INPUT: Final = frozenset({"outputs", "sender"})
"""What an encoder cannot take as a field: `build_input` asks for it on its own account."""

SPEND: Final = None
"""The key of what belongs to transactions without a payload, in place of an opcode."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Returned (not raised) by parse, check or commit: the input is rejected, and `reason` is recorded."""

    reason: str

    def __post_init__(self) -> None:
        """Convert the reason to text; it may be an exception."""
        object.__setattr__(self, "reason", str(self.reason))

    def __bool__(self) -> bool:
        """Return False, as a check that rejects does."""
        return False


@dataclass(frozen=True, slots=True)
class _Step:  # this name is in the code digests of apps with `proceed`
    """A function of an app, and the named arguments that its signature has."""

    function: Callable[..., Any]
    named_arguments: frozenset[str]

    def __call__(self, *positional: object, **named: object) -> Any:  # noqa: ANN401 - what a callback returns
        """Call it with its leading arguments, and with those of the others that it names."""
        if not self.named_arguments:
            return self.function(*positional)
        return self.function(*positional, **{name: named[name] for name in self.named_arguments})


Step = _Step


@dataclass(frozen=True, slots=True)
class Handler:
    """What an app does with an opcode."""

    parse: Step
    check: Step | None
    commit: Step | None
    fields: Fields | None
    keys: Step | None
    encode: Encode | None
    requires_fresh_hash: bool | str | None
    """None: as the app declares it."""


class Activations(Generic[T]):
    """Rules by activation height: each applies from its block until the next one's."""

    def __init__(self) -> None:
        self._by_height: dict[int, T] = {}
        self._heights: list[int] = []
        """Newest first."""

    def add(self, from_block: int, rule: T) -> bool:
        """Let a rule apply from a block on; return False if another one starts there."""
        if from_block in self._by_height:
            return False
        self._by_height[from_block] = rule
        self._heights = sorted(self._by_height, reverse=True)
        return True

    def at(self, block_id: int) -> T | None:
        """Return the rule that applies at a block; None before the first."""
        for from_block in self._heights:
            if from_block <= block_id:
                return self._by_height[from_block]
        return None

    def all(self) -> list[tuple[int, T]]:
        """Return all rules, each after its activation height, in order."""
        return sorted(self._by_height.items(), key=lambda item: item[0])


def make_step(app: str, kind: str, function: Callable[..., Any]) -> Step:
    """Check that a function of an app can be called at a step; raises InvalidApp, which names its line."""
    if not callable(function):
        raise InvalidApp(f"app {app}: {kind} is {function!r}: it must be a function")
    parameters = list(inspect.signature(function).parameters.values())
    names = [each.name for each in parameters]
    leading, optional = _LEADING[kind], _OPTIONAL[kind]
    first, others = parameters[: len(leading)], parameters[len(leading) :]
    is_in_order = all(
        each.kind is not each.KEYWORD_ONLY
        and (each.name == leading[place] or each.name not in {*leading, *optional})
        for place, each in enumerate(first)
    )
    is_by_name = all(each.name in optional and each.kind is not each.POSITIONAL_ONLY for each in others)
    if len(first) < len(leading) or not is_in_order or not is_by_name:
        by_name = f" and, by name, any of {', '.join(sorted(optional))}" if optional else ""
        raise InvalidApp(
            f"app {app}: {kind} is called with ({', '.join(leading)}){by_name}; "
            f"{_described_function(function)} takes ({', '.join(names)}) ({_PAGE}#signature)"
        )
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        word = "yield" if inspect.isgeneratorfunction(function) else "async"
        raise InvalidApp(
            f"app {app}: {kind} returns its result at once; {_described_function(function)} has {word}: "
            f"write a plain function ({_PAGE}#signature)"
        )
    annotation = inspect.signature(function).return_annotation
    returned = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    if returned in _WRONG_RESULTS.get(kind, ()):
        raise InvalidApp(
            f"app {app}: {kind} returns {_RESULTS[kind]}; {_described_function(function)} says that it "
            f"returns {returned} ({_PAGE}#signature)"
        )
    return Step(function, frozenset(names[len(leading) :]))


def _described_function(function: Callable[..., Any]) -> str:
    """Name a function, with the file and line where it begins, if it has one."""
    name = getattr(function, "__qualname__", repr(function))
    code = getattr(inspect.unwrap(function), "__code__", None)
    return name if code is None else f"{name} ({code.co_filename}, line {code.co_firstlineno})"


def check_encoder(app: str, code: bytes | None, encode: Encode) -> Encode:
    """Return an encoder that can be called with fields by name; raises InvalidApp for any other."""
    if code is SPEND:
        raise InvalidApp(f"app {app}: {described(code)} have nothing to encode")
    if not callable(encode):
        raise InvalidApp(f"app {app}: encode is {encode!r}: it must be a function")
    try:
        parameters = inspect.signature(encode).parameters.values()
    except ValueError as error:
        raise InvalidApp(f"app {app}: encode of {described(code)} has no signature") from error
    unnamed = [item.name for item in parameters if item.kind in {item.POSITIONAL_ONLY, item.VAR_POSITIONAL}]
    taken = [item.name for item in parameters if item.name in _ASKED_BY_BUILD_INPUT]
    if unnamed or taken:
        reason = f"{unnamed[0]} cannot be passed by name" if unnamed else f"{taken[0]} is not a field's name"
        raise InvalidApp(f"app {app}: encode of {described(code)} is called with fields by name: {reason}")
    return encode


def opcode_name(code: bytes | None) -> str:
    """Return what an opcode is called in declarations: its hex; "spend" if there is no payload."""
    return "spend" if code is None else code.hex()


def described(code: bytes | None) -> str:
    """Name an opcode in a message."""
    if code is None:
        return "transactions without a payload"
    return f"opcode {code!r}" if code else "payloads"

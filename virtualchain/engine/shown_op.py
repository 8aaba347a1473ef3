"""An op as callbacks see it: its fields, and what the engine adds, which is never hashed or stored."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Final, SupportsIndex

from virtualchain.model import Json

_SENDERS: Final = "virtualchain_senders"
ENGINE_KEYS: Final = (
    "virtualchain_txid",
    "virtualchain_txindex",
    "virtualchain_opcode",
    _SENDERS,
    "virtualchain_fee",
    "virtualchain_outputs",
    "virtualchain_is_spend",
    "virtualchain_spends",
)
"""What the engine adds to an op, in this order."""
_ADDED: Final = frozenset(ENGINE_KEYS)


class ShownOp(dict[str, Any]):
    """A dict that makes the senders, in their place, when somebody looks at them.

    To look is to ask for them, or to do what concerns the dict as a whole, such as iterating or comparing.
    An op without `make` has what it was given, as a dict has.
    """

    __slots__ = ("_make",)

    def __init__(
        self, op: Iterable[Any] = (), make: Callable[[], list[Json]] | None = None, /, **named: object
    ) -> None:
        super().__init__(op, **named)
        self._make = make

    @property
    def has_senders(self) -> bool:
        """Whether they were made."""
        return self._make is None

    def complete(self) -> None:
        """Make the senders, unless they were made."""
        if self._make is not None:
            senders = self._make()  # if that fails, nothing has changed
            self._make = None
            names = list(dict.__iter__(self))
            following = {name: dict.pop(self, name) for name in names[names.index("virtualchain_fee") :]}
            dict.__setitem__(self, _SENDERS, senders)
            dict.__ior__(self, following)

    def __missing__(self, name: str) -> Any:  # noqa: ANN401 - what the op holds
        """Make the senders if they are asked for."""
        if name != _SENDERS or self.has_senders:
            raise KeyError(name)
        self.complete()
        return self[name]

    def __contains__(self, name: object) -> bool:
        """Return whether the op has a key."""
        return dict.__contains__(self, name) or (name == _SENDERS and not self.has_senders)

    def __len__(self) -> int:
        """Return how many keys it has."""
        return dict.__len__(self) + (not self.has_senders)

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - what the op holds
        """Return the value of a key, or a default."""
        if name == _SENDERS:
            self.complete()
        return dict.get(self, name, default)

    def __setitem__(self, name: str, value: object) -> None:
        """Set the value of a key."""
        if name == _SENDERS:
            self.complete()
        dict.__setitem__(self, name, value)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """Have it copied and pickled as a dict."""
        return dict, (), None, None, iter({**self}.items())  # apart, as the op may be in one of its values


def _completing(name: str) -> Callable[..., Any]:
    """Return a method of dict that makes the senders first."""
    method = getattr(dict, name)

    @wraps(method)
    def call(op: ShownOp, /, *arguments: object, **named: object) -> object:
        op.complete()
        for other in arguments:
            if type(other) is ShownOp:
                other.complete()  # dict compares with what is there
        return method(op, *arguments, **named)

    return call


for _name in (
    *("__delitem__", "__eq__", "__ior__", "__iter__", "__ne__", "__or__", "__repr__", "__reversed__"),
    *("__ror__", "clear", "copy", "items", "keys", "pop", "popitem", "setdefault", "update", "values"),
):
    setattr(ShownOp, _name, _completing(_name))
ShownOp.__name__ = "dict"  # which errors of an app's code say, such as AttributeError


def fields_of(op: Json) -> Json:
    """Return an op without what the engine has added."""
    items = dict.items(op) if type(op) is ShownOp else op.items()
    return {name: value for name, value in items if name not in _ADDED}


def is_as_made(op: ShownOp, again: ShownOp) -> bool:
    """Return whether an op is equal to what is made `again`, also in the order of its keys."""
    if op.has_senders:
        again.complete()
    return dict.__eq__(op, again) and list(dict.__iter__(op)) == list(dict.__iter__(again))

"""Functions that the engine would never call, because their names are not those of callbacks."""

import functools
import types
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import pytest

from tests.support import plain_app
from tests.unit.app.test_contract import Plain
from virtualchain import App, StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.errors import InvalidApp


class Good:
    """A handler with nothing but a parse."""

    def parse(self, payload: bytes) -> dict[str, Any]:
        """Accept any payload."""
        return {"payload": payload.hex()}


def function(*arguments: object) -> None:
    """Do nothing."""


class WithInstanceAttribute(Good):
    """A handler that gets a function when it is made."""

    def __init__(self) -> None:
        self.chek = function


@dataclass
class WithField(Good):
    """A handler with a field that holds a function."""

    checker: Any = function


class Mixin:
    """A base whose method is misspelled."""

    def comit(self) -> None:
        """Never run."""


def handler(**attributes: Any) -> type:
    """Make a handler class with further attributes."""
    return type("Handler", (Good,), attributes)


@pytest.mark.parametrize(
    ("cls", "name", "hint"),
    [
        (handler(chek=function), "chek", "did you mean check?"),
        (handler(Check=function), "Check", "did you mean check?"),
        (handler(comit=staticmethod(function)), "comit", "did you mean commit?"),
        (handler(commits=classmethod(function)), "commits", "did you mean commit?"),
        (handler(check_=property(lambda self: function)), "check_", "did you mean check?"),
        (handler(checks=functools.partial(function)), "checks", "did you mean check?"),
        (handler(prase=functools.cached_property(lambda self: function)), "prase", "did you mean parse?"),
        (handler(Checker=type("Checker", (), {})), "Checker", "did you mean check?"),
        (handler(owner_of=function), "owner_of", "begin its name with an underscore if only the handler"),
        (handler(final=function), "final", "register it with @app.final, outside of the class"),
        (handler(scan=function), "scan", "register it with @app.scan"),
        (type("Handler", (Good, Mixin), {}), "comit", "did you mean commit?"),
        (WithInstanceAttribute, "chek", "did you mean check?"),
        (WithField, "checker", "did you mean check?"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_function_that_no_step_calls_is_an_error(cls: Any, name: str, hint: str) -> None:
    """Methods of any kind, inherited ones and attributes count; the error names app, class and opcode."""
    app = App("x", magic=b"x")
    message = f"app x: {cls.__name__}, the handler of opcode b'a', has {name}, which is none of .*{hint}"
    with pytest.raises(InvalidApp, match=message):
        app.opcode(b"a")(cls)
    assert app.get_opcodes() == ()


def test_what_only_the_handler_itself_uses_is_its_own() -> None:
    """These are constants, names with an underscore, properties with values, and what Python's bases have."""
    app = App("x", magic=b"x")

    class Abstract(ABC):
        @abstractmethod
        def parse(self, payload: bytes) -> dict[str, Any]: ...

    class Shape(Protocol):
        limit: ClassVar[int]

    @app.opcode(b"a")
    @dataclass
    class Constants(Good, Abstract, Shape):
        limit: ClassVar[int] = 5
        chek: ClassVar[None] = None
        words: list[str] = field(default_factory=list)
        _helper = staticmethod(function)

        def _check_more(self) -> None: ...

        @property
        def size(self) -> int:
            return 5

        @property
        def broken(self) -> int:
            raise RuntimeError("never asked for")

    class Pair(NamedTuple):
        first: int = 1

    @app.opcode(b"b")
    class Tuple(Pair, Good):
        pass

    assert app.get_opcodes() == (b"a", b"b")
    assert (Constants.limit, Tuple.__name__) == (5, "Tuple")


@pytest.mark.parametrize("wrong", [5, b"check", object()])
def test_a_step_that_is_not_a_function_is_an_error(wrong: Any) -> None:
    """It is named with what it is."""
    with pytest.raises(InvalidApp, match=r"app x: check is .*: it must be a function"):
        App("x", magic=b"x").opcode(b"a")(handler(check=wrong))


MISSPELLED = {
    "db_chek": "did you mean db_check?",
    "db_comit": "did you mean db_commit?",
    "db_scan": "did you mean db_scan_block?",
    "db_open": "not a callback: begin its name",
    "get_opfeilds": "did you mean get_opfields?",
    "get_initial_snapshot": "did you mean get_initial_snapshots?",
    "get_owner": "begin its name with an underscore if only the app calls it",
    "find_paylaod": "did you mean find_payload?",
}


@pytest.mark.parametrize("kind", ["module", "class", "object", "attribute"])
@pytest.mark.parametrize("name", MISSPELLED)
def test_a_misspelled_callback_is_an_error(kind: str, name: str) -> None:
    """The error names the nearest callback, whatever kind of implementation has the function."""
    callbacks = {key: value for key, value in vars(plain_app).items() if key.startswith(("get_", "db_"))}
    implementation: Any
    if kind == "module":
        implementation = types.ModuleType("an_app")
        vars(implementation).update({**callbacks, name: function})
    elif kind == "object":
        implementation = types.SimpleNamespace(**callbacks, **{name: function})
    elif kind == "class":
        implementation = type("Wrong", (Plain,), {name: function})
    else:
        implementation = Plain()
        setattr(implementation, name, function)
    with pytest.raises(InvalidApp, match=f"has {name}, which is not a callback") as raised:
        read_contract(implementation)
    assert MISSPELLED[name] in str(raised.value)


def test_a_misspelled_required_callback_is_named_with_the_right_one() -> None:
    """The hint comes before the complaint that a callback is missing."""
    required = {
        key: value for key, value in vars(Plain).items() if key.startswith(("get_", "db_parse", "db_comm"))
    }
    with pytest.raises(InvalidApp, match=r"the app Wrong has db_chek, .* did you mean db_check\?"):
        read_contract(type("Wrong", (), {**required, "db_chek": required["db_commit"]}))


def test_other_names_of_an_implementation_are_its_own() -> None:
    """Constants, names with an underscore, and other words are not looked at."""
    own = {"get_limit": 5, "db_name": "x", "_get_owner": function, "find_owner": function, "owner": function}
    assert read_contract(type("Own", (Plain,), own)).name == "plain"


def test_a_subclass_of_the_engine_has_the_engines_methods() -> None:
    """They may be overridden, too; misspelled callbacks of the subclass are errors all the same."""

    def subclass(**own: Any) -> Any:
        callbacks = {key: value for key, value in vars(Plain).items() if key.startswith(("get_", "db_"))}
        cls: Any = type("Engine", (StateEngine,), {**callbacks, **own})
        return cls.__new__(cls)

    assert read_contract(subclass()).name == "plain"
    assert read_contract(subclass(get_consensus_at=function)).name == "plain"
    with pytest.raises(InvalidApp, match=r"has get_opfeilds, .* did you mean get_opfields\?"):
        read_contract(subclass(get_opfeilds=function))
    with pytest.raises(InvalidApp, match="lacks get_virtual_chain_name"):
        read_contract(StateEngine.__new__(StateEngine))

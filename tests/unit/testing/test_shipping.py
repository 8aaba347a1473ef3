"""Sending an app to another process: what is made inside a function arrives there as it is here."""

import dataclasses
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from virtualchain import App, StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.testing.cases import Lowered
from virtualchain.testing.shipping import pack, unpack


def sent(value: Any) -> Any:
    """Send a value and return what arrives."""
    return unpack(pack(value))


def test_functions_share_what_they_enclose() -> None:
    """Two closures over one variable still share it, and no longer share it with the original."""
    total = 0

    def add(n: int = 1, *, twice: bool = False) -> int:
        nonlocal total
        total += 2 * n if twice else n
        return total

    def read() -> int:
        return total

    there_add, there_read = sent((add, read))
    assert (there_add(), there_add(2, twice=True), there_read(), read()) == (1, 5, 5, 0)
    assert (there_add.__name__, there_add.__qualname__) == (add.__name__, add.__qualname__)


def test_a_function_may_refer_to_itself_and_to_what_is_not_bound_yet() -> None:
    """Recursion, a variable without a value, and globals of its module."""

    def count(n: int) -> Any:
        return json.dumps(n) if n == 0 else count(n - 1)

    def early() -> int:
        return late

    there = sent(early)
    with pytest.raises(NameError):
        there()
    late = 3
    assert (sent(count)(3), sent(early)()) == ("0", late)


def test_classes_made_inside_a_function() -> None:
    """Bases, dataclasses with slots, properties, static and class methods, super and metaclasses."""

    class Base:
        kind = "base"

        def __init__(self, n: int) -> None:
            self.n = n

        @property
        def twice(self) -> int:
            return 2 * self.n

        @staticmethod
        def fixed() -> str:
            return "fixed"

        @classmethod
        def made(cls, n: int) -> Any:
            return cls(n)

    class Derived(Base):
        def __init__(self, n: int) -> None:
            super().__init__(n + 1)

    @dataclasses.dataclass(frozen=True, slots=True)
    class Point:
        x: int
        names: list[str] = dataclasses.field(default_factory=list)

    base, derived, point, here = sent((Base, Derived, Point, Derived(4)))
    assert issubclass(derived, base)
    assert (derived.made(3).twice, derived.fixed(), derived.kind, here.twice) == (8, "fixed", "base", 10)
    assert isinstance(here, derived)
    assert dataclasses.asdict(point(2)) == {"x": 2, "names": []}
    assert dataclasses.replace(point(2), x=5).x == 5


def a_module() -> types.ModuleType:
    """Make a module that cannot be imported."""
    module = types.ModuleType("made_up_by_a_test")
    exec("LIMIT = 5\ndef limit():\n    return LIMIT", vars(module))
    return module


def test_apps_of_every_kind() -> None:
    """An `App` with handlers of both kinds, a class, an engine's subclass, a lowered app and a module."""
    app = App("one", magic=b"on")

    @app.opcode(b"a")
    class Handler:
        def parse(self, payload: bytes) -> dict[str, Any]:
            return {"size": len(payload)}

    app.add(b"b", parse=lambda payload, senders: {"n": len(senders)})
    there = sent(app)
    contract = read_contract(there)
    assert contract.fingerprint() == read_contract(app).fingerprint()
    assert there.db_parse(1, b"a", b"xyz", [], [], [], 0, None) == {"size": 3}
    assert there.db_parse(1, b"b", b"", [1, 2], [], [], 0, None) == {"n": 2}
    assert read_contract(sent(Lowered(app))).start == 0
    module = sent(a_module())
    assert module.limit() == 5
    assert sent(json) is json

    class Mine(StateEngine):
        def get_virtual_chain_name(self) -> str:
            return f"mine {super().__class__.__name__}"

    assert issubclass(sent(Mine), StateEngine)
    assert sent(Mine) is not Mine


def test_what_cannot_be_sent(tmp_path: Path) -> None:
    """An open file, a generator, and a function of a module that exists no more."""

    def generator() -> Iterator[int]:
        yield 1

    with (tmp_path / "file").open("w") as file:
        for value in (lambda: file, generator()):
            with pytest.raises(TypeError):
                pack(value)

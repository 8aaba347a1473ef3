"""The digest of an app's code follows what the code does, not how or where it is written."""

import os
import subprocess
import sys
from collections import namedtuple
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from struct import Struct
from typing import Any, Final, Literal, Optional, Union
from uuid import UUID

import pytest

import virtualchain
from virtualchain.app.code import Code

# The engine's dependencies are not needed, so the package is entered without its first module.
SCRIPT: Final = """
import json, sys, types
engine = types.ModuleType("virtualchain")
engine.__path__ = [sys.argv[1]]
sys.modules["virtualchain"] = engine
from virtualchain.app.code import Code
for folder in sys.argv[2:]:
    for name in [name for name in sys.modules if name.split(".")[0] in ("shop", "elsewhere")]:
        del sys.modules[name]
    sys.path.insert(0, folder)
    import shop
    print(Code({"root": shop.root}).digest)
    sys.path.remove(folder)
"""

SHOP: Final = '''
"""A shop."""
import functools
import json as js
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256
from types import MappingProxyType

from elsewhere import foreign
from shop import deep
from shop.deep import prices
from .rules import Base, allowed, LIMIT

TAX = {"b": 19, "a": (7, 1.5), "c": {"x", "y", "z"}}
KINDS = frozenset({"tea", "coffee", "cake", "bread"})
PATTERN = re.compile(r"[a-z]+", re.I)


class Size(Enum):
    SMALL = 1
    LARGE = 2


@dataclass(frozen=True, slots=True)
class Order:
    """An order."""
    kind: str
    size: Size = Size.SMALL
    notes: tuple[str, ...] = field(default=())

    def total(self) -> int:
        return price(self.kind) * 3


class Counter(Base):
    step: int = 2

    def __init__(self, start: int) -> None:
        self.start = start

    def __call__(self, outputs: list[object]) -> bytes | None:
        """Find it."""
        limit: int = self.start + self.step
        return self.helper(outputs)[:limit]

    def helper(self, outputs):
        return super().helper(outputs) + self.bonus + self.made(2)

    def unused(self):
        return 1

    @property
    def bonus(self):
        return b"+"

    @classmethod
    def made(cls, n):
        return cls.__name__.encode() * n * cls.step


def price(kind: str) -> float:
    """Compute a price."""
    if not allowed(kind) or not PATTERN.fullmatch(kind):
        raise ValueError(f"no {kind!r:>{LIMIT}}" "here" f"{LIMIT}")
    return sum(value if isinstance(value, int) else value[0] for value in [TAX["b"], TAX["a"]])


def make(n, *, word="w"):
    def find(outputs, last=LIMIT):
        from .deep import late
        import shop.deep.prices as cheap
        with opened(n) as it:
            match outputs:
                case [first, *_] if first in KINDS:
                    return bytes(late(it)) + word.encode() + cheap.BASE
        return foreign(outputs) or sha256(js.dumps(TAX).encode()).digest()[: Order("tea").total()]
    return find


@contextmanager
def opened(n):
    yield n + deep.prices.BASE[0]


@functools.lru_cache
def cached(n):
    return n + prices.EXTRA


FIRST, SECOND = (lambda a: a + 1), (lambda a: a + 2)
PICK = {"one": lambda outputs: make(1), "two": lambda outputs: lambda x: FIRST(x)}
partial = functools.partial(make(5), last=4)


def loop(n):
    return back(n - 1)


def back(n):
    return loop(n) if n else 0


def root(outputs):
    """Find the payload."""
    size: Size = Size.LARGE  # the larger one
    return (Counter(3)(outputs), make(4)(outputs), cached(2), SECOND(1), PICK["two"](0), partial(outputs),
            loop(3), size.value, int(KINDS is not None), MappingProxyType(TAX))
'''
FILES: Final = {
    "shop/__init__.py": SHOP,
    "shop/rules.py": """
LIMIT = 30
NAMES = ["tea"]

def allowed(kind):
    return kind in NAMES and len(kind) < LIMIT

class Base:
    prefix = b"p"

    def helper(self, outputs):
        return self.prefix
""",
    "shop/deep/__init__.py": """
from . import prices
from .later import late
""",
    "shop/deep/later.py": "def late(n):\n    return [n, *range(n)]\n",
    "shop/deep/prices.py": "BASE = b'7'\nEXTRA = 3\nOTHER = 4\n",
    "elsewhere.py": "def foreign(outputs):\n    return None\n",
}


@pytest.fixture
def digests(tmp_path: Path) -> Any:
    """Return a function that writes variants of the package, and returns the digest of each."""

    def compute(*variants: Mapping[str, str], python: str = sys.executable, **environment: str) -> list[str]:
        folders = []
        for files in variants:
            folder = tmp_path / f"v{len(list(tmp_path.iterdir()))}"
            for name, text in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text, encoding="utf-8")
            folders.append(str(folder))
        engine = str(Path(virtualchain.__file__).parent)
        process = subprocess.run(
            [python, "-W", "ignore", "-c", SCRIPT, engine, *folders],
            capture_output=True,
            check=False,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        )
        assert process.returncode == 0, process.stderr
        return process.stdout.split()

    return compute


def changed(file: str, old: str, new: str) -> dict[str, str]:
    """Return the files with one text replaced."""
    assert FILES[file].count(old) == 1, old
    return {**FILES, file: FILES[file].replace(old, new)}


def test_layout_comments_and_annotations_do_not_matter(digests: Any) -> None:
    """Neither what a reader sees only, nor what the functions do not name, nor other packages change it."""
    shop = "shop/__init__.py"
    variants = [
        FILES,
        changed(shop, "# the larger one", "# bigger, by far"),
        changed(shop, '"""Find the payload."""', '"""Find it\n\n    or not."""\n'),
        changed(shop, '    """Compute a price."""\n', ""),
        changed(shop, '"""An order."""', "'''Something.'''"),
        changed(shop, "\n\nclass Size", "\n\n\n\n# Sizes\nclass Size"),
        changed(shop, "def price(kind: str) -> float:", "def price(kind):"),
        changed(shop, "    limit: int = self.start", "    limit: 'whatever' = self.start"),
        changed(
            shop,
            "return (Counter(3)(outputs), make(4)(outputs),",
            "return (\n  Counter(3)(outputs),\n\nmake(4)(outputs),",
        ),
        changed(shop, '"""A shop."""', '"""A shop."""\nUNUSED = 5\ndef nobody(): return UNUSED'),
        changed(shop, 'TAX = {"b": 19, "a": (7, 1.5),', 'TAX = {"a": (7, 1.5), "b": 19,'),
        changed("shop/deep/prices.py", "OTHER = 4", "OTHER = 5"),
        changed("shop/rules.py", 'NAMES = ["tea"]', "NAMES = ['t'\n   'ea']  # all"),
        changed("elsewhere.py", "return None", "return b'x'"),
    ]
    assert len(set(digests(*variants))) == 1


CHANGES: Final = {
    "a statement of the function": ("shop/__init__.py", "Size.LARGE  #", "Size.SMALL  #"),
    "a default": ("shop/__init__.py", "last=LIMIT", "last=LIMIT + 1"),
    "a default by name": ("shop/__init__.py", 'word="w"', 'word="v"'),
    "a value in a closure": ("shop/__init__.py", "make(5)", "make(6)"),
    "an argument of a partial": ("shop/__init__.py", "last=4", "last=5"),
    "a number in another module": ("shop/rules.py", "LIMIT = 30", "LIMIT = 31"),
    "a list in another module": ("shop/rules.py", '["tea"]', '["tea", "cake"]'),
    "a value in a dict": ("shop/__init__.py", "(7, 1.5)", "(7, 1.25)"),
    "a value in a set": ("shop/__init__.py", '"x", "y", "z"', '"x", "y", "q"'),
    "a frozen set": ("shop/__init__.py", '"cake", "bread"', '"cakes", "bread"'),
    "a pattern": ("shop/__init__.py", "[a-z]+", "[a-y]+"),
    "a flag": ("shop/__init__.py", "re.I)", "re.S)"),
    "an enum's value": ("shop/__init__.py", "LARGE = 2", "LARGE = 3"),
    "a field's default": ("shop/__init__.py", "= Size.SMALL\n", "= Size.LARGE\n"),
    "a field": ("shop/__init__.py", "    kind: str\n", "    kind: str\n    more: int\n"),
    "the options of a decorator": ("shop/__init__.py", "frozen=True, ", ""),
    "a method of a dataclass": ("shop/__init__.py", "price(self.kind) * 3", "price(self.kind) * 4"),
    "a method that self names": ("shop/__init__.py", "+ self.bonus +", "+ self.bonus * 2 +"),
    "a property that self names": ("shop/__init__.py", 'return b"+"', 'return b"-"'),
    "a class method": ("shop/__init__.py", "* n * cls.step", "* n"),
    "an attribute of the class": ("shop/__init__.py", "step: int = 2", "step: int = 3"),
    "an inherited method": ("shop/rules.py", "return self.prefix", "return self.prefix[1:]"),
    "an inherited attribute": ("shop/rules.py", 'b"p"', 'b"q"'),
    "a function of another module": ("shop/rules.py", "kind in NAMES and", "kind in NAMES or"),
    "a function imported when it runs": ("shop/deep/later.py", "[n, *range(n)]", "[*range(n), n]"),
    "a module imported when it runs": ("shop/deep/prices.py", "b'7'", "b'8'"),
    "a value taken of a module": ("shop/deep/prices.py", "EXTRA = 3", "EXTRA = 33"),
    "a decorated function": ("shop/__init__.py", "yield n + deep", "yield n - deep"),
    "a cached function": ("shop/__init__.py", "return n + prices", "return n - prices"),
    "the second lambda of a line": ("shop/__init__.py", "a + 2)", "a + 3)"),
    "the first lambda of a line": ("shop/__init__.py", "a + 1)", "a - 1)"),
    "a lambda inside a lambda": ("shop/__init__.py", "lambda x: FIRST(x)", "lambda x: -FIRST(x)"),
    "a lambda in a dict": (
        "shop/__init__.py",
        '"one": lambda outputs: make(1)',
        '"one": lambda outputs: make(2)',
    ),
    "a function that calls back": ("shop/__init__.py", "loop(n) if n else 0", "loop(n) if n else 1"),
    "the format of a text": ("shop/__init__.py", "!r:>", "!r:<"),
    "the origin of a name": ("shop/__init__.py", "import sha256", "import sha512 as sha256"),
    "the kind of a number": ("shop/deep/prices.py", "EXTRA = 3", "EXTRA = 3.0"),
}


def test_whatever_the_code_does_matters(digests: Any) -> None:
    """Each change of the functions, and of what they name in the package, changes the digest."""
    plain, *others = digests(FILES, *(changed(*change) for change in CHANGES.values()))
    same = [name for name, digest in zip(CHANGES, others, strict=True) if digest == plain]
    assert same == []
    assert len(set(others)) == len(others)


def test_the_process_does_not_matter(digests: Any) -> None:
    """Hash seed, optimization and folder do not change the digest."""
    assert (
        len(
            {
                *digests(FILES, FILES),
                *digests(FILES, PYTHONHASHSEED="1"),
                *digests(FILES, PYTHONHASHSEED="22"),
                *digests(FILES, PYTHONOPTIMIZE="2"),
            }
        )
        == 1
    )


def pythons() -> list[str]:
    """Find other Python versions that are installed beside this one."""
    versions: dict[str, str] = {}
    for path in sorted(Path(sys.base_prefix).parent.glob("*/bin/python3")):
        command = [str(path), "-c", "import sys; print(*sys.version_info[:2])"]
        version = subprocess.run(command, capture_output=True, check=False, text=True).stdout.strip()
        if version and tuple(map(int, version.split())) >= (3, 11):
            versions.setdefault(version, str(path))
    return list(versions.values())


def test_the_python_version_does_not_matter(digests: Any) -> None:
    """All Python versions that are installed compute the same digest."""
    others = pythons()
    if len(others) < 2:
        pytest.skip("only one Python version is installed")
    assert len({digest for python in others for digest in digests(FILES, python=python)}) == 1


def test_compiled_code_counts_if_there_is_no_source() -> None:
    """A function without source has a digest, which follows its code, its constants and inner functions."""

    def make(text: str, name: str = "find") -> Any:
        scope: dict[str, Any] = {"__name__": "shop", "helper": len}
        exec(text, scope)
        return Code({"root": scope[name]}).digest

    text = (
        "def find(outputs):\n    x = [n + {} for n in outputs]\n"
        "    return b'a' if 'u' in {{'t', 'u'}} else x\n"
    )
    assert make(text.format(1)) == make("\n\n" + text.format(1))
    assert len({make(text.format(1)), make(text.format(2)), make(text.format(1).replace("'t'", "'s'"))}) == 3
    assert make("find = lambda outputs: helper(outputs)") != make("find = lambda outputs: outputs")


def test_values_that_hold_themselves_are_described() -> None:
    """Neither a list that holds itself nor a value nested far deeper than usual stops the digest."""
    ring: list[Any] = [1]
    ring.append(ring)
    assert Code({"root": lambda outputs: ring}).digest != Code({"root": lambda outputs: [1]}).digest


def test_a_long_expression_is_described(digests: Any) -> None:
    """A sum of thousands of terms, a deep tree, has a digest."""
    long = "def root(outputs):\n    return " + " + ".join(["1"] * 900) + "\n"
    first, second = digests({"shop/__init__.py": long}, {"shop/__init__.py": long.replace("1\n", "2\n")})
    assert first != second


def test_objects_count_by_their_class_and_attributes() -> None:
    """A rule that is an object of the app's differs by its class's code and by its own values."""

    class Rule:
        def __init__(self, n: int) -> None:
            self.n = n

        def __call__(self, outputs: Any) -> bytes:
            return bytes(self.n)

    class Other(Rule):
        def __call__(self, outputs: Any) -> bytes:
            return bytes(self.n + 1)

    values = [Rule(1), Rule(1), Rule(2), Other(1)]
    one, same, two, other = (Code({"root": value}).digest for value in values)
    assert one == same
    assert len({one, two, other}) == 3
    assert Code({"root": Rule(1).__call__}).digest != Code({"root": Rule(2).__call__}).digest


_VALUES: Final[dict[str, tuple[Any, Any]]] = {
    "a layout of bytes": (Struct(">IH"), Struct("<IH")),
    "a decimal number": (Decimal("0.1"), Decimal("0.10")),
    "a fraction": (Fraction(1, 3), Fraction(2, 3)),
    "a duration": (timedelta(days=14), timedelta(days=15)),
    "a time": (datetime(2009, 1, 3, tzinfo=UTC), datetime(2009, 1, 4, tzinfo=UTC)),
    "a date": (date(2009, 1, 3), date(2009, 1, 4)),
    "an identifier": (UUID(int=1), UUID(int=2)),
    "a union": (int | None, int | str),
    "an old union": (Optional[int], Optional[str]),  # noqa: UP045 - as people write it
    "a parametrized type": (list[int], list[str]),
    "a literal": (Literal["a"], Literal["b"]),
    "a type that is named later": (Optional["Size"], Optional["Color"]),  # noqa: F821 - by purpose
    "a named tuple": (namedtuple("P", "x y"), namedtuple("P", "x z")),  # noqa: PYI024 - as people write it
}


def digest_of(value: Any) -> str:
    """Return the digest of a function that names a value."""
    return Code({"root": lambda outputs: value}).digest


@pytest.mark.parametrize("kind", _VALUES)
def test_constants_count_by_their_value(kind: str) -> None:
    """A constant that is changed changes the digest, whatever its type."""
    one, other = _VALUES[kind]
    assert digest_of(one) != digest_of(other)


def test_unions_count_by_their_parts() -> None:
    """However a union is written: Python versions have other classes for that."""
    assert digest_of(int | None) == digest_of(Optional[int]) == digest_of(Union[int, None])  # noqa: UP007, UP045


def test_generated_methods_do_not_count() -> None:
    """Which methods a named tuple has follows from the version of Python, here from an added one."""
    plain, other = (namedtuple("P", "x y") for _ in range(2))  # noqa: PYI024 - as people write it
    other.__replace__ = other._replace  # type: ignore[attr-defined] # as since Python 3.13
    assert digest_of(plain) == digest_of(other)


def test_a_lasting_digest_leaves_out_compiled_code() -> None:
    """A function without source counts by its name then, but what has source counts as always."""

    def make(text: str) -> Any:
        scope: dict[str, Any] = {"__name__": "shop"}
        exec(text, scope)
        return scope["find"]

    one, other = make("def find(outputs):\n    return 1\n"), make("def find(outputs):\n    return 2\n")
    assert Code({"root": one}).digest != Code({"root": other}).digest
    assert Code({"root": one}, lasting=True).digest == Code({"root": other}, lasting=True).digest
    lambdas = (lambda outputs: one), (lambda outputs: [one])
    assert len({Code({"root": item}, lasting=True).digest for item in lambdas}) == 2

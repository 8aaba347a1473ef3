"""Apps of many kinds whose fingerprints are recorded: nothing below may change, not even a constant."""

# They are written in every way that Python has, and nobody runs them:
# mypy: ignore-errors

import functools
import json
import re
import struct
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntFlag, StrEnum
from fractions import Fraction
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Optional, Protocol, TypeVar, Union, cast

from virtualchain import (
    App,
    Boolean,
    Hex,
    Integer,
    Jsonb,
    List,
    Rejected,
    StateEngine,
    Text,
    first_op_return,
    last_op_return,
    parse_json,
)

# The guest book of the README.

guestbook = App(
    "guestbook",
    magic=b"gb",
    projections="""
        CREATE TABLE entries (
            block_id integer NOT NULL, -- where it was signed
            vtxindex integer NOT NULL,
            message text NOT NULL,
            PRIMARY KEY (block_id, vtxindex)
        );
        COMMENT ON TABLE entries IS 'what was signed';
    """,
)


@guestbook.opcode(b"s", fields=["author", "message"])
class Sign:
    """Sign the book."""

    def parse(self, payload: bytes, senders: Any) -> Any:
        """Read the message."""
        if not senders[0]["addresses"]:
            return Rejected("the sender has no address")
        return {"author": senders[0]["addresses"][0], "message": payload.decode()}

    def check(self, op: Any, state: Any) -> Any:
        """Accept three entries of an author."""
        signed = state.one("SELECT count(*) AS n FROM entries WHERE author = %s", [op["author"]])
        return signed["n"] < 3 or Rejected("an author may sign three times")

    def commit(self, op: Any, state: Any, block_id: int, vtxindex: int) -> None:
        """Keep the entry."""
        state.execute("INSERT INTO entries VALUES (%s, %s, %s)", [block_id, vtxindex, op["message"]])


# All that can be declared.

declared = App(
    "all-of-it",
    magic=(b"a1", "a2"),
    projections="CREATE TABLE t (k text PRIMARY KEY)",
    version="2.0",
    first_block_id=700_000,
    initial_snapshots={699_999: "ab" * 16},
    valid_transaction_window=30,
    confirmations=3,
    payload_rule=first_op_return(b"a1"),
    max_payload=75,
    strict_code=True,
)
FIELDS = {
    "amount": Integer(0, 21_000_000 * 10**8),
    "owner": Hex(20),
    "memo": Text(80),
    "final": Boolean(),
    "parts": List(Integer(-1, 7)),
}
TOO_LATE = Rejected("too late")


@declared.opcode(b"\x01", fields=FIELDS)
class Move:
    """Move something."""

    limit: ClassVar[int] = 5

    def parse(self, payload: bytes) -> Any:
        """Read JSON."""
        return parse_json(payload)

    def check(self, op: Any, state: Any, block_id: int, checked: Any) -> Any:
        """Compare with constants of all kinds."""
        if block_id > self._last:
            return TOO_LATE
        return FIELDS["memo"] != FIELDS["owner"] and len(checked) < self.limit and declared.name != op

    def commit(self, op: Any, state: Any) -> Any:
        """Keep JSON."""
        state.execute("INSERT INTO t VALUES (%s)", [Jsonb(op)])

    @property
    def _last(self) -> int:
        return 800_000


declared.add(b"\x01", parse=lambda payload: None, from_block=710_000, fields=[])
declared.add(b"\x02", parse=lambda payload: {"n": len(payload)}, fields=None)


@declared.scan(from_block=705_000)
def scan(ops: Any, state: Any) -> None:
    """Look at the ops."""
    for op in ops:
        op.setdefault("seen", True)


@declared.final
def final(ops: Any, state: Any, block_id: int) -> None:
    """Look at the state."""
    state.query("SELECT k FROM t ORDER BY k")


@declared.proceed
def proceed(block_id: int, consensus_hash: str) -> bool:
    """Always continue."""
    return not (block_id < 0 and consensus_hash)


# All that code is made of.

T = TypeVar("T")
Number = int | float
Maybe = Optional[int]
Either = Union[str, "Sequence[int]"]
Handler = Callable[[int, str], list[int]]
HEADER = struct.Struct(">IH")
PATTERN = re.compile(r"(?P<word>[a-z]+)\s*$", re.IGNORECASE | re.ASCII)
TABLE = MappingProxyType({"b": (1, 2.5, b"\x00\xff"), "a": frozenset({"x", "y"}), "ü": -(2**70)})
EPOCH = datetime(2009, 1, 3, 18, 15, 5, tzinfo=UTC)
SHARE = Fraction(1, 3), Decimal("0.10"), timedelta(days=14), range(3), ..., 1e300, 2j
PLACES = PurePosixPath("/etc/places.txt")
Point = namedtuple("Point", "x y", defaults=[0])


class Color(Enum):
    """Colors."""

    RED = "r"
    GREEN = "g"

    @property
    def code(self) -> str:
        """The color's letter."""
        return self.value.upper()


class Level(StrEnum):
    """Levels."""

    LOW = "low"


Mode = Enum("Mode", "ON OFF")


class Right(IntFlag):
    """Rights."""

    READ = 1
    WRITE = 2


class Shape(Protocol):
    """Anything with an area."""

    def area(self) -> int: ...


class Pair(NamedTuple):
    """Two numbers."""

    left: int
    right: int = 2


@dataclass(frozen=True, slots=True, order=True)
class Coin:
    """A coin."""

    value: int
    tags: tuple[str, ...] = ()
    notes: dict[str, int] = field(default_factory=dict, compare=False)

    def area(self) -> int:
        """Compute something."""
        return self.value * 2


@dataclass
class Purse:
    """Coins."""

    coins: list[Coin] = field(default_factory=list)
    _most: ClassVar[int] = 9

    @classmethod
    def of(cls, *values: int) -> "Purse":
        """Make a purse."""
        return cls([Coin(value) for value in values])

    @staticmethod
    def empty() -> int:
        """Return nothing."""
        return 0

    @functools.cached_property
    def total(self) -> int:
        """The sum of the coins."""
        return sum(coin.value for coin in self.coins) + self.empty()


class Base:
    """A base class."""

    prefix = b"p"

    def name(self) -> bytes:
        """Return the name."""
        return self.prefix


class Derived(Base):
    """A class with its own name."""

    __slots__ = ("extra",)

    def __init__(self, extra: int) -> None:
        self.extra = extra

    def name(self) -> bytes:
        """Return the name, longer."""
        return super().name() + bytes(self.extra)


PURSE = Purse.of(1, 2)
DERIVED = Derived(3)


def counting(function: Callable[..., T]) -> Callable[..., T]:
    """Decorate a function."""

    @functools.wraps(function)
    def counted(*arguments: Any, **named: Any) -> T:
        return function(*arguments, **named)

    return counted


@counting
def area(shape: Shape, *, scale: int = 1) -> int:
    """Compute an area."""
    return shape.area() * scale


@functools.lru_cache(maxsize=8)
def fibonacci(n: int) -> int:
    """Compute a number of Fibonacci."""
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


twice = functools.partial(area, scale=2)
FIRST, SECOND = (lambda a: a + 1), (lambda a: a + 2)


def words(text: str, last: int = 3, /, *more: str, end: str = "!") -> Iterable[str]:
    """Split a text."""
    match text.split(maxsplit=last):
        case []:
            return []
        case ["x", *rest] if rest:
            return [f"{text!r:>{last}} {len(rest):04d}{end}", *rest]
        case [first, -1 | None | Color.RED, {"k": value, **others}]:
            return [first, str(value), *others]
        case str() as whole:
            return [whole]
        case _:
            return [*more, f"{last = }"]


def parse_everything(payload: bytes, senders: Any, inputs: Any, fee: int) -> Any:
    """Use everything above."""
    from json import dumps

    total, squares = 0, {n: n**2 for n in range(4) if n % 2}
    while (size := len(payload)) > total:
        total += size
        if total > 1_000:
            break
    else:
        total = -1
    try:
        serial, kind = HEADER.unpack(payload[:6])
    except struct.error as error:
        return Rejected(f"bad header: {error}")
    except (KeyError, ValueError):
        raise
    finally:
        del size
    with suppress(ZeroDivisionError):
        total //= kind
    assert serial >= 0, "a number is not negative"
    values: dict[str, Any] = {
        "color": [Color.RED.code, Level.LOW, Right.READ | Right.WRITE, Color("g") is Color.GREEN, Mode.ON],
        "coins": [PURSE.total, area(Coin(5)), twice(Coin(6)), Pair(1)._asdict(), Point(1)],
        "name": DERIVED.name().hex(),
        "table": [*TABLE, *SHARE, EPOCH, PLACES.name, isinstance(serial, Number), cast(Maybe, None)],
        "others": [cast(Either, "e"), cast(Handler, FIRST)(1), SECOND(2), fibonacci(10), squares],
        "counts": [Counter("ab"), OrderedDict(a=1), defaultdict(list), json.loads("{}"), dumps([])],
    }
    matched = PATTERN.search(payload[6:].decode())
    word = matched["word"] if matched and not inputs else None
    return {"v": str(values), "w": [*words(word or "x y", 2, end="?")], "s": senders[0:1], "f": fee and total}


everything = App("everything", magic=b"ev")
everything.add(b"e", parse=parse_everything)


# Payload rules: one that is shipped, and some of an app's own.


def _second(outputs: Sequence[Any]) -> bytes | None:
    scripts = [bytes.fromhex(output["script_pubkey"]) for output in outputs]
    payloads = [script[2:] for script in scripts if script[:1] == b"\x6a" and not PATTERN.match("x")]
    return payloads[1] if len(payloads) > 1 else None


def _with_rule(name: str, rule: Any) -> App:
    app = App(name, magic=b"ru", payload_rule=rule)
    app.add(b"o", parse=lambda payload: {"text": payload.decode()}, fields=["text"])
    return app


def _either(first: Any, second: Any) -> Any:
    return lambda outputs: first(outputs) or second(outputs)


class Rule:
    """A payload rule that is an object."""

    def __init__(self, skip: int) -> None:
        self.skip = skip

    def __call__(self, outputs: Sequence[Any]) -> bytes | None:
        """Find the payload."""
        payload = last_op_return(outputs[self.skip :])
        return payload and payload[::-1]


shipped_rule = _with_rule("shipped", last_op_return)
own_rule = _with_rule("own", _second)
closure_rule = _with_rule("closure", _either(_second, first_op_return(b"ru")))
object_rule = _with_rule("object", Rule(1))

_SOURCELESS: dict[str, Any] = {"__name__": __name__}
exec("def find(outputs):\n    return outputs and None\n", _SOURCELESS)
sourceless_rule = _with_rule("sourceless", _SOURCELESS["find"])


# Without App.


class Published:
    """The published callbacks, with an opaque state."""

    def get_virtual_chain_name(self) -> str:
        """Return the name."""
        return "published"

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "0.1"

    def get_first_block_id(self) -> int:
        """Return the first block."""
        return 5

    def get_magic_bytes(self) -> str:
        """Return the magic."""
        return "pu"

    def get_opcodes(self) -> str:
        """Return the opcodes."""
        return "ab"

    def get_opfields(self) -> dict[str, list[str]]:
        """Return the fields."""
        return {"a": ["name", "n"]}

    def get_db_state(self, filename: str | None = None) -> dict[str, int]:
        """Make a state, or load it."""
        return {} if filename is None else json.loads(open(filename).read())

    def db_parse(self, block_id: int, opcode: bytes, payload: bytes, *rest: Any) -> Any:
        """Parse an op."""
        return {"name": payload.decode(), "n": block_id}

    def db_check(
        self, block_id: int, opcode: bytes, op: Any, txid: str, vtxindex: int, checked: Any, db_state: Any
    ) -> bool:
        """Check an op."""
        return op["name"] not in db_state

    def db_commit(
        self, block_id: int, opcode: bytes, op: Any, txid: str, vtxindex: int, db_state: Any
    ) -> None:
        """Keep an op."""
        db_state[op["name"]] = block_id

    def db_save(self, block_id: int, filename: str, db_state: Any) -> None:
        """Save the state."""
        with open(filename, "w") as file:
            json.dump(db_state, file)


class Engine(StateEngine):
    """A subclass of the engine with the callbacks."""

    get_virtual_chain_name = staticmethod(lambda: "engine")
    get_virtual_chain_version = staticmethod(lambda: "1")
    get_first_block_id = staticmethod(lambda: 1)
    get_magic_bytes = staticmethod(lambda: b"en")
    get_opcodes = staticmethod(lambda: [b"x"])

    def db_parse(self, block_id: int, opcode: bytes, payload: bytes, *rest: Any) -> Any:
        """Parse an op."""
        return {"text": payload.decode(), "last": self.get_consensus_at(block_id - 1)}

    def db_check(self, block_id: int, opcode: bytes, op: Any, txid: str, vtxindex: int, checked: Any) -> bool:
        """Check an op."""
        return self._is_good(op) and self.get_current_block() < block_id

    def db_commit(self, block_id: int, opcode: bytes, op: Any, txid: str, vtxindex: int) -> Any:
        """Accept an op."""
        return op

    def _is_good(self, op: Any) -> bool:
        return op["text"] != "bad"


APPS: dict[str, object] = {
    "guestbook": guestbook,
    "declared": declared,
    "everything": everything,
    "shipped_rule": shipped_rule,
    "own_rule": own_rule,
    "closure_rule": closure_rule,
    "object_rule": object_rule,
    "sourceless_rule": sourceless_rule,
    "published": Published,
    "engine": Engine,
}

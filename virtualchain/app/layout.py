"""Layouts: payloads described field by field, from which reading, writing and the fields' types follow.

A layout is text such as `sender sender, recipient recipient, amount u64, memo text(..40)`: names with types,
in the order of the bytes. With `json:` in front, the payload is a JSON object with these fields instead.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter, Signature
from typing import Any, Final

from virtualchain.app.field_types import Boolean, FieldType, Hex, Integer, Text
from virtualchain.app.fields import parse_json
from virtualchain.app.handlers import Rejected
from virtualchain.errors import InvalidApp
from virtualchain.model import Json

COMPLETE: Final = frozenset({"ALL", "DEFAULT"})
"""The hash types of signatures that cover the whole transaction."""
OWNED: Final = frozenset(
    {"pubkeyhash", "scripthash", "witness_v0_keyhash", "witness_v0_scripthash", "witness_v1_taproot"}
)
"""The types of output that only an owner can spend."""
TYPES: Final = (
    "u8, u16, u32, u64, varint, bool, bytes(20), bytes(..75), bytes, text(..40), text, sender and recipient"
)
_JSON: Final = "json:"
_ITEM: Final = re.compile(
    r"(?P<name>[a-z_][a-z0-9_]*)\s+(?P<type>[a-z]+[0-9]*)(?:\s*\(\s*(?P<upto>\.\.)?\s*(?P<size>[0-9]+)\s*\))?"
)
_INTEGERS: Final = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
_AROUND: Final = {"sender": "senders", "recipient": "outputs"}
"""What is read from the transaction, not from the payload, by what `parse` is passed."""
_LONGEST_ADDRESS: Final = 100
_LONGEST_REST: Final = 4_000_000
"""Bytes of a field without a size: what a block can hold."""
_LARGEST_SIZE: Final = 0xFFFF


class _Reader:
    """The bytes of a payload, from the first to the last."""

    def __init__(self, payload: bytes) -> None:
        self._left = payload

    def take(self, count: int) -> bytes:
        """Take so many bytes; raise ValueError if there are fewer."""
        if count > len(self._left):
            raise ValueError(f"{count - len(self._left)} bytes are missing")
        taken, self._left = self._left[:count], self._left[count:]
        return taken

    def rest(self) -> bytes:
        """Take all that is left."""
        return self.take(len(self._left))

    def varint(self) -> int:
        """Take a number of up to 64 bits in groups of 7, the lowest first, in its shortest form."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 64 or (byte == 0 and shift):
                    break
                return value
        raise ValueError("it is not a number of 64 bits in its shortest form")


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a layout."""

    name: str
    type: str
    is_most: bool
    """Whether `size` is the most that there may be, and a length comes first."""
    size: int | None

    @property
    def kind(self) -> FieldType:
        """The type of the op's field."""
        match self.type:
            case "bool":
                return Boolean()
            case "bytes":
                return Hex(self.size or _LONGEST_REST)
            case "text":
                return Text(self.size or _LONGEST_REST)
            case "sender" | "recipient":
                return Text(_LONGEST_ADDRESS)
            case "varint":
                return Integer(0, (1 << 64) - 1)
        return Integer(0, (1 << 8 * _INTEGERS[self.type]) - 1)

    def read(self, reader: _Reader) -> Any:  # noqa: ANN401 - a value of the field's type
        """Read the value from a payload; raise ValueError if it is not there."""
        match self.type:
            case "varint":
                return reader.varint()
            case "bool":
                value = reader.take(1)[0]
                if value > 1:
                    raise ValueError(f"{value} is neither 0 nor 1")
                return value == 1
            case "bytes":
                return self._read_bytes(reader).hex()
            case "text":
                return self._read_bytes(reader).decode()
        return int.from_bytes(reader.take(_INTEGERS[self.type]))

    def write(self, value: Any) -> bytes:  # noqa: ANN401 - as above
        """Write a value that fits the field's type."""
        match self.type:
            case "varint":
                return _varint(value)
            case "bool":
                return bytes([value])
            case "bytes":
                return self._with_length(bytes.fromhex(value))
            case "text":
                return self._with_length(value.encode())
        return int(value).to_bytes(_INTEGERS[self.type])

    def problem(self, value: object) -> str | None:
        """Return why a value does not fit; None if it does."""
        problem = self.kind.problem(value)
        if problem is None and self.type == "bytes" and not self.is_most and self.size is not None:
            count = len(str(value)) // 2
            return None if count == self.size else f"{count} bytes, not {self.size}"
        return problem

    @property
    def _length(self) -> int:
        return 1 if self.size is not None and self.size <= 0xFF else 2

    def _read_bytes(self, reader: _Reader) -> bytes:
        if self.size is None:
            return reader.rest()
        if not self.is_most:
            return reader.take(self.size)
        count = int.from_bytes(reader.take(self._length))
        if count > self.size:
            raise ValueError(f"{count} bytes; the most are {self.size}")
        return reader.take(count)

    def _with_length(self, value: bytes) -> bytes:
        return (len(value).to_bytes(self._length) if self.is_most else b"") + value


def _varint(value: int) -> bytes:
    groups = []
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _fields(layout: str) -> Iterator[_Field]:
    for item in layout.removeprefix(_JSON).split(","):
        match = _ITEM.fullmatch(item.strip())
        problem = "is not a name and a type" if match is None else _problem(match)
        if match is None or problem:
            raise InvalidApp(f"layout: {item.strip()!r} {problem}; types are {TYPES}")
        size = None if match["size"] is None else int(match["size"])
        yield _Field(match["name"], match["type"], match["upto"] is not None, size)


def _problem(item: re.Match[str]) -> str | None:
    """Return what is wrong with an item that has the form of a field."""
    if item["type"] not in {*_INTEGERS, "varint", "bool", "bytes", "text", *_AROUND}:
        return f"has no type {item['type']!r}"
    if item["size"] is None:
        return None
    if item["type"] not in {"bytes", "text"} or not 0 < int(item["size"]) <= _LARGEST_SIZE:
        return f"cannot have that size: bytes and text have one, from 1 to {_LARGEST_SIZE}"
    if item["type"] == "text" and item["upto"] is None:
        return f"needs text(..{item['size']}): the bytes of text vary"
    return None


@dataclass(frozen=True)
class ReadLayout:  # its name and its field are in the code digests of apps
    """The `parse` of a layout; `write` is its `encode`."""

    layout: str
    """The layout, in one form however it was written."""

    @classmethod
    def of(cls, layout: str) -> "ReadLayout":
        """Read a layout; raises InvalidApp, which names the item that is wrong."""
        is_json = layout.lstrip().startswith(_JSON)
        bare = " ".join(layout.split()).removeprefix(_JSON).strip().removesuffix(",")
        fields = list(_fields(bare))
        names = [field.name for field in fields]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidApp(f"layout: it has {twice[0]} twice")
        of_payload = [field for field in fields if field.type not in _AROUND]
        for field in of_payload[:-1]:
            if field.type in {"bytes", "text"} and field.size is None and not is_json:
                raise InvalidApp(
                    f"layout: {field.name} {field.type} takes all that is left, and {of_payload[-1].name} "
                    f"follows; write {field.type}(..40), which begins with its length"
                )
        items = ", ".join(
            f"{field.name} {field.type}"
            + ("" if field.size is None else f"({'..' if field.is_most else ''}{field.size})")
            for field in fields
        )
        return cls((_JSON + " " if is_json else "") + items)

    @cached_property
    def _fields(self) -> tuple[_Field, ...]:
        return tuple(_fields(self.layout))

    @cached_property
    def _of_payload(self) -> tuple[_Field, ...]:
        return tuple(field for field in self._fields if field.type not in _AROUND)

    @property
    def _is_json(self) -> bool:
        return self.layout.startswith(_JSON)

    @property
    def types(self) -> dict[str, FieldType]:
        """The fields of an op, with their types."""
        return {field.name: field.kind for field in self._fields}

    @cached_property
    def __signature__(self) -> Signature:
        """What it is called with: only what the layout reads of the transaction."""
        around = dict.fromkeys(_AROUND[field.type] for field in self._fields if field.type in _AROUND)
        names = ("payload", *around)
        return Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names])

    def __call__(
        self, payload: bytes, senders: list[Json] | None = None, outputs: list[Json] | None = None
    ) -> Json | Rejected:
        """Read an op from a payload and the transaction around it; say why, if it has none."""
        op: Json = {}
        for field in self._fields:
            if field.type in _AROUND:
                address = _sender(senders or []) if field.type == "sender" else _recipient(outputs or [])
                if isinstance(address, Rejected):
                    return address
                op[field.name] = address
        op |= self._read_json(payload) if self._is_json else self._read_bytes(payload)
        return {field.name: op[field.name] for field in self._fields}

    def _read_bytes(self, payload: bytes) -> Json:
        reader = _Reader(payload)
        values: Json = {}
        for field in self._of_payload:
            try:
                values[field.name] = field.read(reader)
            except ValueError as error:
                reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
                raise ValueError(f"field {field.name!r}: {reason}") from error
        left = len(reader.rest())
        if left:
            raise ValueError(f"{left} bytes too many")
        return values

    def _read_json(self, payload: bytes) -> Json:
        values = parse_json(payload)
        names = [field.name for field in self._of_payload]
        if not isinstance(values, dict) or set(values) != set(names):
            raise ValueError(f"it is not a JSON object with {', '.join(names) or 'no fields'}")
        for field in self._of_payload:
            problem = field.problem(values[field.name])
            if problem is not None:
                raise ValueError(f"field {field.name!r}: {problem}")
        return dict(values)


@dataclass(frozen=True)
class WriteLayout:
    """The `encode` of a layout: fields by name become the bytes that `ReadLayout` reads."""

    read: ReadLayout

    @cached_property
    def __signature__(self) -> Signature:
        """What it is called with: the fields of the payload."""
        fields = self.read._of_payload  # noqa: SLF001 - the two sides of one layout
        return Signature([Parameter(field.name, Parameter.KEYWORD_ONLY) for field in fields])

    def __call__(self, **values: object) -> bytes:
        """Write the payload; raises ValueError for a value that does not fit."""
        for field in self.read._of_payload:  # noqa: SLF001 - as above
            problem = field.problem(values[field.name])
            if problem is not None:
                raise ValueError(f"field {field.name!r}: {problem}")
        if self.read._is_json:  # noqa: SLF001 - as above
            return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
        return b"".join(field.write(values[field.name]) for field in self.read._of_payload)  # noqa: SLF001


def _sender(senders: list[Json]) -> str | Rejected:
    """Return the address that the first input spends from, if its owner signed the whole transaction."""
    if not senders or not senders[0]["addresses"]:
        return Rejected("the sender has no address")
    if not senders[0]["sighash"] or not COMPLETE.issuperset(senders[0]["sighash"]):
        return Rejected("the sender did not sign the whole transaction")
    return str(senders[0]["addresses"][0])


def _recipient(outputs: list[Json]) -> str | Rejected:
    """Return the address of the first output that only an owner can spend."""
    for output in outputs:
        if output["type"] in OWNED and output["addresses"]:
            return str(output["addresses"][0])
    return Rejected("no output pays a recipient")

"""The contract between an implementation and the engine: read and checked once, before the first block.

An implementation is a module, class or object with the callbacks of the published API. `read_contract`
turns it into a `Contract`, which holds normalized values and passes each callback the arguments it takes.
"""

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

from virtualchain.app.builder import App
from virtualchain.app.code import Code
from virtualchain.app.ddl import bare_sql, with_comments, without_comments
from virtualchain.app.field_types import Fields, FieldType, described, read_fields
from virtualchain.app.spelling import uncalled_in_implementation
from virtualchain.errors import InvalidApp
from virtualchain.model import DEFAULT_RULE, FindPayload, PayloadRule

_REQUIRED: Final = (
    "get_virtual_chain_name",
    "get_virtual_chain_version",
    "get_first_block_id",
    "get_magic_bytes",
    "get_opcodes",
    "db_parse",
    "db_check",
    "db_commit",
)
_CALLBACKS: Final = (
    "db_parse",
    "db_scan_block",
    "db_check",
    "db_commit",
    "db_final",
    "db_continue",
    "find_payload",
    "get_db_state",
    "db_save",
)
"""Those whose code decides verdicts or the state."""
_OPTIONAL: Final = (
    "get_activations",
    "get_confirmations",
    "get_db_state",
    "get_initial_snapshots",
    "get_max_payload",
    "get_opfields",
    "get_projections",
    "get_strict_code",
    "get_valid_transaction_window",
    "find_payload",
    "db_continue",
    "db_final",
    "db_save",
    "db_scan_block",
)
_RESERVED: Final = frozenset({"vc", "virtualchain", "public", "information_schema"})
_HASH = re.compile(r"[0-9a-f]{32}")
_LARGEST: Final = 2**31 - 1
"""The largest integer that an app may declare: the database stores 32 bits."""

DEFAULT_WINDOW: Final = 24
"""S of an app that does not declare it: the number of blocks for which a consensus hash stays valid."""


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback of an implementation; it receives `db_state` if its signature has room for it."""

    function: Callable[..., Any]
    takes_state: Literal["by position", "by name", "never"]

    def __call__(self, *arguments: object, db_state: object) -> Any:  # noqa: ANN401 - what a callback returns
        """Call it with the arguments of the published API, in order."""
        match self.takes_state:
            case "by position":
                return self.function(*arguments, db_state)
            case "by name":
                return self.function(*arguments, db_state=db_state)
            case "never":
                return self.function(*arguments)


@dataclass(frozen=True, slots=True)
class Contract:
    """The normalized declarations of an implementation, and its callbacks."""

    name: str
    version: str
    schema: str
    first_block_id: int
    magics: tuple[bytes, ...]
    opcodes: frozenset[bytes]
    opfields: Mapping[bytes, Fields]
    activations: Mapping[int, Mapping[str, Fields | None]]
    """By activation height, the opcodes (hex) with their hashed fields; if empty, `opfields` applies."""
    initial_snapshots: Mapping[int, str]
    window: int
    confirmations: int | None
    projections: str
    max_payload: int | None
    find_payload: FindPayload | None
    parse: Callback
    scan: Callback | None
    check: Callback
    commit: Callback
    final: Callback | None
    proceed: Callable[[int, str], object] | None
    get_state: Callable[..., object] | None
    """Creates or loads an opaque state; None for a SQL app."""
    save: Callback | None
    code: Code
    """The functions above, and what they name."""
    rule: str
    """Name of the payload rule: the shipped rule's, or for one of the app's own a digest of its code."""
    strict_code: bool = False
    """Whether the app is refused if its code changed and its version did not."""
    base_block_hash: str | None = None
    """Hash of the block before the first processed one, if a checkpoint determines it."""

    @property
    def start(self) -> int:
        """The first processed block: at or above `first_block_id`, and above every initial snapshot."""
        return max(self.first_block_id, *(block_id + 1 for block_id in self.initial_snapshots), 0)

    def hashed_fields(self, block_id: int, opcode: bytes, op: Mapping[str, object]) -> Sequence[str]:
        """Return the fields of an op that enter the consensus hash, in order: all, sorted, if undeclared."""
        declared = self._fields(block_id, opcode)
        return sorted(op) if declared is None else tuple(declared)

    def field_types(self, block_id: int, opcode: bytes) -> Mapping[str, FieldType]:
        """Return the types of an opcode's fields; none if they were declared without."""
        declared = self._fields(block_id, opcode)
        return declared if isinstance(declared, Mapping) else {}

    def _fields(self, block_id: int, opcode: bytes) -> Fields | None:
        declared = self.opfields.get(opcode)
        for from_block, rules in self.activations.items():
            if from_block <= block_id and opcode.hex() in rules:
                declared = rules[opcode.hex()]
        return declared

    def fingerprint(self) -> str:
        """Compute the SHA-256 (hex) of all declarations that the app's verdicts and digests depend on.

        Comments and layout of the DDL do not count, nor do its COMMENT statements.
        """
        declared = self._declared(without_comments(self.projections))
        if self.rule != DEFAULT_RULE:
            declared["payload_rule"] = self.rule
        return _digest(declared)

    def former_fingerprint(self, comments: Mapping[tuple[str, ...], str | None] | None = None) -> str:
        """Compute the fingerprint as version 0.1.0 did: without the payload rule, and with comments.

        `comments` are the comments that the tables have, by table or by table and column, if those of
        `projections` may have been reworded since.
        """
        projections = self.projections if comments is None else with_comments(self.projections, comments)
        return _digest(self._declared(bare_sql(projections)))

    def function(self, callback: str, opcode: bytes | None, block_id: int) -> object:
        """Return the author's function that a callback calls at a block; None if there is none.

        That of an `App` is the one that was registered for the opcode, at the newest height up to the block.
        """
        step = callback.removeprefix("db_").removesuffix("_block")
        kind = step if opcode is None else f"{opcode.hex()} {step}"
        heights = {
            int(height): function
            for name, function in self.code.functions.items()
            for start, _, height in [name.rpartition(" ")]
            if start == kind and int(height) <= block_id
        }
        return heights[max(heights)] if heights else self.code.functions.get(callback)

    @property
    def has_own_rule(self) -> bool:
        """Whether the payload rule is a function of the app's."""
        return self.find_payload is not None and not isinstance(self.find_payload, PayloadRule)

    def code_digest(self) -> str:
        """Compute the SHA-256 (hex) of the callbacks' code, and of what it names in the same package."""
        return self.code.digest

    def _declared(self, projections: str) -> dict[str, object]:
        declared: dict[str, object] = {
            "version": self.version,
            "first_block_id": self.first_block_id,
            "magics": [magic.hex() for magic in self.magics],
            "opcodes": sorted(code.hex() for code in self.opcodes),
            "opfields": {code.hex(): list(fields) for code, fields in self.opfields.items()},
            "initial_snapshots": {str(block): value for block, value in self.initial_snapshots.items()},
            "window": self.window,
            "max_payload": self.max_payload,
            "projections": projections,
        }
        if set(self.activations) - {0}:
            declared["activations"] = {
                str(block): {key: None if fields is None else list(fields) for key, fields in rules.items()}
                for block, rules in self.activations.items()
            }
        if types := self._described_types():
            declared["field_types"] = types
        return declared

    def _described_types(self) -> list[list[Any]]:
        """List the declared types with activation height and opcode, for the fingerprint."""
        newest = {code.hex(): fields for code, fields in self.opfields.items()}
        return [
            [block_id, code, *field]
            for block_id, rules in [(None, newest), *self.activations.items()]
            for code, fields in sorted(rules.items())
            for field in described(fields)
        ]


def read_contract(implementation: object) -> Contract:
    """Read and check the declarations of an implementation.

    A class is instantiated, see `instance_of`. An optional callback that returns None counts as missing.
    Raises InvalidApp, which names the callback and the problem.
    """
    implementation = instance_of(implementation)
    reader = _DeclarationReader(implementation)
    name = reader.text("get_virtual_chain_name")
    find_payload = reader.optional_function("find_payload", 1)
    return Contract(
        name=name,
        version=reader.version(),
        schema=schema_name(name),
        first_block_id=reader.integer("get_first_block_id"),
        magics=reader.magics(),
        opcodes=reader.opcodes(),
        opfields=reader.opfields(),
        activations=reader.activations(),
        initial_snapshots=reader.initial_snapshots(),
        window=reader.window(),
        confirmations=reader.optional_integer("get_confirmations"),
        projections=reader.projections(),
        max_payload=reader.optional_integer("get_max_payload"),
        find_payload=find_payload,
        parse=reader.callback("db_parse", 7),
        scan=reader.optional_callback("db_scan_block", 2),
        check=reader.callback("db_check", 6),
        commit=reader.callback("db_commit", 5),
        final=reader.optional_callback("db_final", 2),
        proceed=reader.optional_function("db_continue", 2),
        get_state=getattr(implementation, "get_db_state", None),
        save=reader.optional_callback("db_save", 2),
        code=reader.code(),
        rule=_rule_name(find_payload),
        strict_code=reader.strict_code(),
    )


def instance_of(implementation: object) -> object:
    """Return the object that has the callbacks: a class is instantiated without arguments.

    A class that is more than an app, as `StateEngine` is, has `__virtualchain_app__`, which makes an object
    for its callbacks alone. Raises InvalidApp if instantiating it fails.
    """
    if not isinstance(implementation, type):
        return implementation
    try:
        return getattr(implementation, "__virtualchain_app__", implementation)()
    except Exception as error:
        name = implementation.__name__
        raise InvalidApp(f"cannot instantiate the app {name}: {_summary(error)}") from error


def schema_name(name: str) -> str:
    """Return the schema of an app: its name in lower case, with `_` for all but a-z and 0-9.

    Raises InvalidApp if the name is reserved, contains `__` or an unprintable character, or is longer than
    40 bytes.
    """
    schema = re.sub(r"[^a-z0-9]", "_", name.lower())
    fits = 1 <= len(schema) <= 40 and "__" not in schema and name.isprintable()
    if not fits or schema in _RESERVED or schema.startswith("pg_"):
        raise InvalidApp(
            f"app {name!r} cannot have the schema {schema!r}: a name has 1 to 40 characters, no two in a row "
            f"that are not letters or digits, and is none of {', '.join(sorted(_RESERVED))} and pg_…"
        )
    return schema


def _rule_name(find_payload: FindPayload | None) -> str:
    if find_payload is None:
        return DEFAULT_RULE
    if isinstance(find_payload, PayloadRule):
        return find_payload.name
    return f"code:{Code({'find_payload': find_payload}, lasting=True).digest}"


def _digest(declared: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class _DeclarationReader:
    """Reads the declarations of one implementation, which every error message names."""

    def __init__(self, implementation: object) -> None:
        self._implementation = implementation
        kind = getattr(implementation, "__name__", None) or type(implementation).__name__
        file = getattr(implementation, "__file__", None) if isinstance(implementation, ModuleType) else None
        self._label = f"the app {kind}" + ("" if file is None else f" ({file})")
        complaint = uncalled_in_implementation(implementation, (*_REQUIRED, *_OPTIONAL))
        if complaint is not None:
            raise self._invalid(complaint)
        missing = [name for name in _REQUIRED if not callable(getattr(implementation, name, None))]
        if missing:
            raise self._invalid(f"lacks {', '.join(missing)}: every implementation needs these callbacks")
        self._label = f"app {self.text('get_virtual_chain_name')!r}"

    def _invalid(self, complaint: str) -> InvalidApp:
        return InvalidApp(f"{self._label} {complaint}")

    def call(self, name: str, default: object = None) -> Any:  # noqa: ANN401 - what a callback returns
        function = getattr(self._implementation, name, None)
        try:
            value = None if function is None else function()
        except Exception as error:
            raise self._invalid(f"fails in {name} with {_summary(error)}") from error
        return default if value is None else value

    def text(self, name: str) -> str:
        value = self.call(name)
        if not isinstance(value, str):
            raise self._invalid(f"{name} returns {value!r}: it must be a str")
        return value

    def version(self) -> str:
        version = str(self.call("get_virtual_chain_version"))
        if not version.isprintable():
            raise self._invalid(f"get_virtual_chain_version returns {version!r}: it must be printable")
        return version

    def integer(self, name: str) -> int:
        value = self.call(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
            raise self._invalid(f"{name} returns {value!r}: it must be an integer from 0 to {_LARGEST}")
        return value

    def optional_integer(self, name: str) -> int | None:
        return None if self.call(name) is None else self.integer(name)

    def window(self) -> int:
        value = self.optional_integer("get_valid_transaction_window")
        return DEFAULT_WINDOW if value is None else value

    def magics(self) -> tuple[bytes, ...]:
        value = self.call("get_magic_bytes")
        values = [value] if isinstance(value, bytes | str) else value
        magics = [self._bytes("get_magic_bytes", item) for item in self._iterable("get_magic_bytes", values)]
        if not magics or len(set(magics)) < len(magics):
            raise self._invalid(
                f"get_magic_bytes returns {value!r}: it must be one magic, or several different ones"
            )
        return tuple(magics)

    def opcodes(self) -> frozenset[bytes]:
        value = self.call("get_opcodes")
        if isinstance(value, bytes | str):
            value = [bytes([byte]) for byte in self._bytes("get_opcodes", value)]
        codes = frozenset(self._opcode("get_opcodes", item) for item in self._iterable("get_opcodes", value))
        if not codes:
            raise self._invalid("get_opcodes returns no opcode")
        return codes

    def opfields(self) -> dict[bytes, Fields]:
        value = self.call("get_opfields", {})
        if not isinstance(value, Mapping):
            raise self._invalid(f"get_opfields returns {value!r}: it must be a dict of opcode to field names")
        return {
            self._opcode("get_opfields", key): self._fields("get_opfields", key, fields)
            for key, fields in value.items()
        }

    def activations(self) -> dict[int, dict[str, Fields | None]]:
        value: dict[int, dict[str, object]] = self.call("get_activations", {})
        for block_id in value:
            if not isinstance(block_id, int) or not 0 <= block_id <= _LARGEST:
                raise self._invalid(f"has rules from block {block_id!r} on: it must be a height")
        return {
            block_id: {
                key: None if fields is None else self._fields("get_activations", key, fields)
                for key, fields in rules.items()
            }
            for block_id, rules in sorted(value.items())
        }

    def _fields(self, name: str, key: object, fields: object) -> Fields:
        try:
            return read_fields(fields)
        except TypeError as error:
            raise self._invalid(f"{name} returns {fields!r} for {key!r}: {error}") from error

    def initial_snapshots(self) -> dict[int, str]:
        value = self.call("get_initial_snapshots", {})
        if not isinstance(value, Mapping):
            raise self._invalid(f"get_initial_snapshots returns {value!r}: it must be a dict")
        for block_id, consensus_hash in value.items():
            # An app that starts with the genesis block may name a hash for the place before it, -1.
            is_height = isinstance(block_id, int) and -1 <= block_id <= _LARGEST
            if not is_height or not _HASH.fullmatch(str(consensus_hash)):
                raise self._invalid(
                    f"get_initial_snapshots returns {block_id!r}: {consensus_hash!r}; it must be a height "
                    "and a consensus hash of 32 hex digits"
                )
        return dict(sorted(value.items()))

    def projections(self) -> str:
        value = self.call("get_projections")
        if value is None:
            return ""
        if isinstance(value, Path) or (
            isinstance(value, str) and value.endswith(".sql") and "\n" not in value
        ):
            try:
                return Path(value).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise self._invalid(f"cannot read its projections from {str(value)!r}: {error}") from error
        if not isinstance(value, str):
            raise self._invalid(
                f"get_projections returns {value!r}: it must be SQL or the path of a .sql file"
            )
        return value

    def callback(self, name: str, arguments: int) -> Callback:
        function = getattr(self._implementation, name)
        values = [None] * arguments
        if _accepts(function, *values, None):
            return Callback(function, "by position")
        if _accepts(function, *values, db_state=None):
            return Callback(function, "by name")
        if _accepts(function, *values):
            return Callback(function, "never")
        raise self._uncallable(name, arguments + 1)

    def optional_callback(self, name: str, arguments: int) -> Callback | None:
        if getattr(self._implementation, name, None) is None:
            return None
        return self.callback(name, arguments)

    def optional_function(self, name: str, arguments: int) -> Callable[..., Any] | None:
        """Read a callback that receives no state."""
        function: Callable[..., Any] | None = getattr(self._implementation, name, None)
        if function is not None and not _accepts(function, *[None] * arguments):
            raise self._uncallable(name, arguments)
        return function

    def code(self) -> Code:
        """Collect the functions that the app consists of: its callbacks, and what those of an App call."""
        callbacks = {name: getattr(self._implementation, name, None) for name in _CALLBACKS}
        handlers = self._implementation.functions() if isinstance(self._implementation, App) else {}
        functions = {name: item for name, item in {**callbacks, **handlers}.items() if item is not None}
        return Code(functions, lasting=self.strict_code())

    def strict_code(self) -> bool:
        value = self.call("get_strict_code", default=False)
        if not isinstance(value, bool):
            raise self._invalid(f"get_strict_code returns {value!r}: it must be True or False")
        return value

    def _uncallable(self, name: str, arguments: int) -> InvalidApp:
        function = getattr(self._implementation, name)
        if not callable(function):
            return self._invalid(f"has {name} = {function!r}: it must be a function")
        count = "1 argument" if arguments == 1 else f"{arguments} arguments"
        return self._invalid(f"has {name}{inspect.signature(function)}: it is called with {count}")

    def _iterable(self, name: str, value: object) -> Sequence[object]:
        if not isinstance(value, Iterable):
            raise self._invalid(f"{name} returns {value!r}: it must be bytes, or several of them")
        return list(value)

    def _bytes(self, name: str, value: object) -> bytes:
        if isinstance(value, str) and value.isascii():
            return value.encode("ascii")
        if not isinstance(value, bytes):
            raise self._invalid(f"{name} returns {value!r}: it must be bytes or ASCII text")
        return value

    def _opcode(self, name: str, value: object) -> bytes:
        code = self._bytes(name, value)
        if len(code) != 1:
            raise self._invalid(f"{name} returns {value!r}: an opcode must be one byte")
        return code


def _accepts(function: Callable[..., Any], *arguments: None, **named: None) -> bool:
    """Check whether a function accepts these arguments; without a signature, any callable counts."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return callable(function)
    try:
        signature.bind(*arguments, **named)
    except TypeError:
        return False
    return True

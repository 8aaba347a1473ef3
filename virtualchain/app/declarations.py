"""What an implementation declares: read and checked once, before the first block.

An implementation is a module, class or object with the callbacks of the published API. `read_contract`
turns it into a `Contract`.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from virtualchain.app.builder import App
from virtualchain.app.code import Code, methods_named
from virtualchain.app.contract import Callback, Contract, no_encoder
from virtualchain.app.field_types import Fields, read_fields
from virtualchain.app.freshness import FreshFields, read_fresh_fields
from virtualchain.app.pages import Page, read_pages
from virtualchain.app.spelling import uncalled_in_implementation
from virtualchain.errors import InvalidApp
from virtualchain.model import DEFAULT_RULE, FindPayload, PayloadRule, arguments_of

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
    "db_keys",
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
    "get_expected_snapshots",
    "get_initial_snapshots",
    "get_max_payload",
    "get_needs",
    "get_opfields",
    "get_pages",
    "get_projections",
    "get_requires_fresh_hash",
    "get_strict_code",
    "get_tracked",
    "get_valid_transaction_window",
    "find_payload",
    "db_continue",
    "db_encode",
    "db_final",
    "db_keys",
    "db_save",
    "db_scan_block",
)
_RESERVED: Final = frozenset({"vc", "virtualchain", "public", "information_schema"})
_HASH = re.compile(r"[0-9a-f]{32}")
_LARGEST: Final = 2**31 - 1
"""The largest integer that an app may declare: the database stores 32 bits."""

DEFAULT_WINDOW: Final = 24
"""S of an app that does not declare it: the number of blocks for which a consensus hash stays valid."""


def read_contract(implementation: object, network: str | None = None) -> Contract:
    """Read and check the declarations of an implementation, as they are on a network.

    A class is instantiated, see `instance_of`. An optional callback that returns None counts as missing.
    Without a network, the contract is not for running: its first block may be that of any. Raises InvalidApp,
    which names the callback and the problem, and UsageError if the app is not for this network.
    """
    implementation = instance_of(implementation)
    reader = _DeclarationReader(implementation)
    name = reader.text("get_virtual_chain_name")
    find_payload = reader.payload_rule()
    first_block_ids = reader.first_block_ids()
    contract = Contract(
        name=name,
        version=reader.version(),
        schema=schema_name(name),
        first_block_id=min(first_block_ids.values())
        if first_block_ids
        else reader.integer("get_first_block_id"),
        first_block_ids=first_block_ids,
        magics=reader.magics(),
        opcodes=reader.opcodes(),
        opfields=reader.opfields(),
        activations=reader.activations(),
        initial_snapshots=reader.initial_snapshots(),
        expected_snapshots=reader.expected_snapshots(),
        window=reader.window(),
        confirmations=reader.optional_integer("get_confirmations"),
        projections=reader.projections(),
        max_payload=reader.optional_integer("get_max_payload"),
        find_payload=find_payload,
        parse=reader.callback("db_parse", 7),
        parse_needs=reader.parse_needs(),
        keys=reader.optional_function("db_keys", 3),
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
        tracks=reader.tracks(),
        needs=reader.needs(),
        check_sees_ops=reader.check_sees_ops(),
        encoder=reader.encoder(),
        opcode_names=reader.opcode_names(),
        fresh_fields=reader.fresh_fields(),
        pages=reader.pages(),
    )
    _check_fresh_fields(contract)
    return (contract if network is None else contract.on(network)).identified()


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


def _check_fresh_fields(contract: Contract) -> None:
    """Check that fields which must be fresh hashes can be that; raises InvalidApp."""
    for opcode, rules in contract.fresh_fields.items():
        for block_id in sorted({0, *contract.activations, *(block_id for block_id, _ in rules)}):
            name = contract.fresh_field(block_id, opcode)
            kind = None if name is None else contract.field_rules(block_id, opcode).types.get(name)
            if kind is not None and kind.problem("0" * 32) is not None:
                raise InvalidApp(
                    f"app {contract.name!r}: field {name!r} of opcode {opcode!r} must be a fresh consensus "
                    f"hash, 32 hex digits, and is declared as {kind}"
                )


def _rule_name(find_payload: FindPayload | None) -> str:
    if find_payload is None:
        return DEFAULT_RULE
    if isinstance(find_payload, PayloadRule):
        return find_payload.name
    without = methods_named("write", type(find_payload))
    digest = Code({"find_payload": find_payload}, lasting=True, without=without).digest
    patterns = [pattern.hex() for pattern in getattr(find_payload, "patterns", ())]
    marks = [
        f" patterns:{','.join(patterns)}" if patterns else "",
        " coinbase" if _takes_coinbase(find_payload) else "",
    ]
    return f"code:{digest}{''.join(marks)}"


def _takes_coinbase(find_payload: FindPayload) -> bool:
    return bool(getattr(find_payload, "coinbase", False))


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
        if value is None:
            if isinstance(self._implementation, App) and b"" not in self._implementation.codes:
                raise self._invalid("has no handler: register one for all payloads, with @app.opcode()")
            return frozenset({b""})
        if isinstance(value, bytes | str):
            value = [bytes([byte]) for byte in self._bytes("get_opcodes", value)]
        codes = frozenset(self._opcode("get_opcodes", item) for item in self._iterable("get_opcodes", value))
        if not codes:
            raise self._invalid("get_opcodes returns no opcode")
        return codes

    def opfields(self) -> dict[bytes | None, Fields]:
        value = self.call("get_opfields", {})
        if not isinstance(value, Mapping):
            raise self._invalid(f"get_opfields returns {value!r}: it must be a dict of opcode to field names")
        declared: dict[bytes | None, Fields] = {}
        for key, fields in value.items():
            code = key if key in {None, b"", ""} else self._opcode("get_opfields", key)
            declared[b"" if code == "" else code] = self._fields("get_opfields", key, fields)
        if not isinstance(self._implementation, App) and b"" in declared:
            declared.setdefault(None, declared[b""])  # it is the opcode of both
        return declared

    def tracks(self) -> str | None:
        value = self.call("get_tracked")
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise self._invalid(f"get_tracked returns {value!r}: it must be the name of a projection")
        if getattr(self._implementation, "get_db_state", None) is not None:
            raise self._invalid(
                "tracks outputs and has get_db_state: only an app with projections can do that"
            )
        if isinstance(self._implementation, App) and None not in self._implementation.codes:
            raise self._invalid(
                f"tracks {value} and has no handler for transactions without a payload: register one with "
                "@app.spend"
            )
        if self.call("get_max_payload") is not None:
            raise self._invalid(
                "tracks outputs and has a maximum payload: an input that the engine rejects could not move "
                "what it spends; look at the size in parse"
            )
        return value

    def fresh_fields(self) -> FreshFields:
        value = self.call("get_requires_fresh_hash", default=False)
        try:
            declared = read_fresh_fields(value, self.opcodes())
        except TypeError as error:
            raise self._invalid(f"returns {value!r} in get_requires_fresh_hash: {error}") from error
        if declared and not self.window():
            raise self._invalid("requires fresh hashes and has a window of 0: no hash would be fresh")
        if declared and self.call("get_tracked") is not None:
            raise self._invalid(
                "tracks outputs and requires fresh hashes: an input that the engine rejects could not move "
                "what it spends; look at state.is_fresh in commit"
            )
        return declared

    def needs(self) -> frozenset[str]:
        value = self._iterable("get_needs", self.call("get_needs", ()))
        if isinstance(self.call("get_needs"), str) or not set(value) <= {"height"}:
            raise self._invalid(f'get_needs returns {value!r}: it must be a tuple, and may name "height"')
        return frozenset(map(str, value))

    def first_block_ids(self) -> dict[str, int]:
        value = self.call("get_first_block_id")
        if not isinstance(value, Mapping):
            return {}
        for network, block_id in value.items():
            is_height = (
                isinstance(block_id, int) and not isinstance(block_id, bool) and 0 <= block_id <= _LARGEST
            )
            if not isinstance(network, str) or not is_height:
                raise self._invalid(
                    f"get_first_block_id returns {network!r}: {block_id!r}; it must be a network's name and "
                    f"an integer from 0 to {_LARGEST}"
                )
        if not value:
            raise self._invalid("get_first_block_id returns no network")
        return dict(value)

    def payload_rule(self) -> FindPayload | None:
        function: FindPayload | None = getattr(self._implementation, "find_payload", None)
        if function is None or isinstance(function, PayloadRule):
            return function
        if not callable(function) or (arguments_of(function) is None and not _accepts(function, None)):
            raise self._uncallable("find_payload", 1)
        patterns = getattr(function, "patterns", ())
        if not isinstance(patterns, tuple) or not all(isinstance(item, bytes) and item for item in patterns):
            raise self._invalid(
                f"has find_payload.patterns = {patterns!r}: it must be a tuple of bytes, none of them empty"
            )
        return function

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
        return self._snapshots("get_initial_snapshots", self.call("get_initial_snapshots", {}))

    def expected_snapshots(self) -> dict[str | None, dict[int, str]]:
        name = "get_expected_snapshots"
        value = self.call(name, {})
        if not isinstance(value, Mapping) or not any(isinstance(key, str) for key in value):
            return {None: self._snapshots(name, value)}
        if not all(isinstance(key, str) for key in value):
            raise self._invalid(f"{name} returns {value!r}: its keys must be heights, or names of networks")
        return {network: self._snapshots(name, snapshots) for network, snapshots in value.items()}

    def _snapshots(self, name: str, value: object) -> dict[int, str]:
        if not isinstance(value, Mapping):
            raise self._invalid(f"{name} returns {value!r}: it must be a dict")
        for block_id, consensus_hash in value.items():
            # An app that starts with the genesis block may name a hash for the place before it, -1.
            is_height = isinstance(block_id, int) and -1 <= block_id <= _LARGEST
            if not is_height or not _HASH.fullmatch(str(consensus_hash)):
                raise self._invalid(
                    f"{name} returns {block_id!r}: {consensus_hash!r}; it must be a height "
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
                return self._beside(value).read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise self._invalid(f"cannot read its projections from {str(value)!r}: {error}") from error
        if not isinstance(value, str):
            raise self._invalid(
                f"get_projections returns {value!r}: it must be SQL or the path of a .sql file"
            )
        return value

    def _beside(self, path: Path | str) -> Path:
        """Return a path from the folder of the app's code, or as it is if there is no such file there."""
        implementation = self._implementation
        if isinstance(implementation, App):
            code = implementation.declared_in
        else:
            is_code = isinstance(implementation, ModuleType | type)
            try:
                code = inspect.getfile(implementation if is_code else type(implementation))  # type: ignore[arg-type] # it is one of them
            except (TypeError, OSError):  # made by a program, not written in a file
                return Path(path)
        file = Path(code).parent / path
        return file if file.exists() else Path(path)

    def pages(self) -> tuple[Page, ...]:
        try:
            return read_pages(self.call("get_pages", default=()))
        except InvalidApp as error:
            raise InvalidApp(f"{self._label}: {error}") from error

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

    def parse_needs(self) -> frozenset[str]:
        """Return which lists `db_parse` looks at: for an `App`, those that its functions name."""
        if type(self._implementation) is App:
            return self._implementation.parse_needs()
        return frozenset({"senders", "inputs", "outputs"})

    def check_sees_ops(self) -> bool:
        """Return whether `db_check` looks at the ops before: for an `App`, whether a function names them."""
        return type(self._implementation) is not App or self._implementation.check_sees_ops()

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
        # Of an object that runs another one's callbacks, as `virtualchain.lib.python2` does.
        inner = getattr(self._implementation, "__virtualchain_functions__", dict)
        handlers = self._implementation.functions() if isinstance(self._implementation, App) else inner()
        functions = {name: item for name, item in {**callbacks, **handlers}.items() if item is not None}
        return Code(functions, lasting=self.strict_code(), without=self._methods_without_effect())

    def _methods_without_effect(self) -> frozenset[tuple[type, str]]:
        """Name the methods on which no verdict depends: those that write inputs, and `get_pages`."""
        kind, rule = type(self._implementation), getattr(self._implementation, "find_payload", None)
        writing = methods_named("db_encode", kind) | methods_named("write", type(rule))
        if isinstance(self._implementation, App):
            writing |= self._implementation.writing_methods
        return writing | methods_named("get_pages", kind)

    def encoder(self) -> Callable[[int, bytes], Callable[..., object] | None]:
        """Read what writes payloads: by height and opcode, a function of fields; None if there is none."""
        if isinstance(self._implementation, App):
            return self._implementation.encoder
        function = getattr(self._implementation, "db_encode", None)
        if function is None:
            return no_encoder
        if not callable(function):
            raise self._invalid(f"has db_encode = {function!r}: it must be a function")
        return lambda block_id, opcode: partial(function, opcode)  # noqa: ARG005 - it can take the height

    def opcode_names(self) -> Mapping[str, AbstractSet[bytes]]:
        """Read what opcodes are called: in an `App`, like the classes of their handlers."""
        return self._implementation.opcode_names if isinstance(self._implementation, App) else {}

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

"""The contract between an implementation and the engine: normalized declarations, and callbacks."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from virtualchain.app.code import Code
from virtualchain.app.ddl import bare_sql, with_comments, without_comments
from virtualchain.app.field_types import Fields, FieldType, described
from virtualchain.app.freshness import FreshFields
from virtualchain.app.handlers import opcode_name
from virtualchain.app.pages import Page
from virtualchain.errors import UsageError
from virtualchain.model import DEFAULT_RULE, Expected, FindPayload, Json, PayloadRule


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback of an implementation; it receives `db_state` if its signature has room for it."""

    function: Callable[..., Any]
    takes_state: Literal["by position", "by name", "never"]

    @property
    def is_sandboxed(self) -> bool:
        """Whether it only calls a module in a sandbox, as its function says by this attribute.

        It has nothing to do in a block without ops, and there is nothing to watch.
        """
        return bool(getattr(self.function, "is_sandboxed", False))

    def __call__(self, *arguments: object, db_state: object) -> Any:  # noqa: ANN401 - what a callback returns
        """Call it with the arguments of the published API, in order."""
        match self.takes_state:
            case "by position":
                return self.function(*arguments, db_state)
            case "by name":
                return self.function(*arguments, db_state=db_state)
            case "never":
                return self.function(*arguments)


class FieldRules(NamedTuple):
    """What holds for the fields of one opcode's ops at a height."""

    hashed: tuple[str, ...] | None
    """Those that enter the consensus hash, in order; None: all, sorted."""
    types: Mapping[str, FieldType]
    """The types of those that were declared with one."""

    def hashed_fields(self, op: Mapping[str, object]) -> Sequence[str]:
        """Return the fields of an op that enter the consensus hash, in order."""
        return sorted(op) if self.hashed is None else self.hashed


def no_encoder(block_id: int, opcode: bytes) -> None:
    """Return None: the app writes no payloads."""


@dataclass(frozen=True, slots=True)
class Contract:
    """The normalized declarations of an implementation, and its callbacks."""

    name: str
    version: str
    schema: str
    first_block_id: int
    magics: tuple[bytes, ...]
    opcodes: frozenset[bytes]
    """The opcode of payloads; if they have none, that is the empty one."""
    opfields: Mapping[bytes | None, Fields]
    """By opcode; None stands for transactions without a payload."""
    activations: Mapping[int, Mapping[str, Fields | None]]
    """By activation height, the opcodes (hex) with their hashed fields; if empty, `opfields` applies."""
    initial_snapshots: Mapping[int, str]
    window: int
    confirmations: int | None
    projections: str
    max_payload: int | None
    find_payload: FindPayload | None
    parse: Callback
    parse_needs: frozenset[str]
    """Which of senders, inputs and outputs `parse` looks at."""
    keys: Callable[[int, bytes, Json], Mapping[str, Iterable[object]]] | None
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
    check_sees_ops: bool = True
    """Whether `check` looks at the ops that were accepted before."""
    tracks: str | None = None
    """The projection whose outputs are tracked."""
    tracking: str | None = None
    """SHA-256 (hex) of everything that can change the tracked set: what the app declares, and its code."""
    needs: frozenset[str] = frozenset()
    """What else senders shall say: `height`."""
    first_block_ids: Mapping[str, int] = field(default_factory=dict)
    """The app's first block by network, if it declares it so; `on` chooses."""
    expected_snapshots: Mapping[str | None, Mapping[int, str]] = field(default_factory=dict)
    """The consensus hashes that it must have at some blocks, by network; None stands for all of them."""
    encoder: Callable[[int, bytes], Callable[..., object] | None] = no_encoder
    """By height and opcode, what writes a payload's rest from fields; None if nothing does."""
    opcode_names: Mapping[str, AbstractSet[bytes]] = field(default_factory=dict)
    """Opcodes by the names that people may call them, in lower case."""
    fresh_fields: FreshFields = field(default_factory=dict)
    """Which fields must be fresh consensus hashes."""
    pages: tuple[Page, ...] = ()
    """Pages of the app's own in the explorer; they decide nothing."""

    def on(self, network: str) -> "Contract":
        """Return the contract as it is on a network; raises UsageError if the app is not for that one."""
        if not self.first_block_ids:
            return self
        if network not in self.first_block_ids:
            raise UsageError(
                f"app {self.name} does not run on {network}: it declares its first block on "
                f"{', '.join(sorted(self.first_block_ids))}"
            )
        return replace(self, first_block_id=self.first_block_ids[network]).identified()

    def expected(self, network: str) -> list[Expected]:
        """Return the snapshots that the app expects on a network."""
        return [
            Expected(block_id, consensus_hash=consensus_hash)
            for key in (None, network)
            for block_id, consensus_hash in self.expected_snapshots.get(key, {}).items()
        ]

    def identified(self) -> "Contract":
        """Return the contract with its `tracking`: everything else in it must be as the app declares it."""
        if self.tracks is None:
            return self
        return replace(self, tracking=_digest({"rules": self.fingerprint(), "code": self.code_digest()}))

    @property
    def has_opcodes(self) -> bool:
        """Whether an opcode byte follows the magic."""
        return b"" not in self.opcodes

    @property
    def start(self) -> int:
        """The first processed block: at or above `first_block_id`, and above every initial snapshot."""
        return max(self.first_block_id, *(block_id + 1 for block_id in self.initial_snapshots), 0)

    @property
    def sees_other_ops(self) -> bool:
        """Whether a callback looks at an op before or after the op's own turn."""
        return self.check_sees_ops or self.scan is not None or self.final is not None

    def field_rules(self, block_id: int, opcode: bytes | None) -> FieldRules:
        """Return what holds for the fields of an opcode's ops at a height."""
        declared = self._fields(block_id, opcode)
        types = declared if isinstance(declared, Mapping) else {}
        return FieldRules(None if declared is None else tuple(declared), types)

    def fresh_field(self, block_id: int, opcode: bytes | None) -> str | None:
        """Return the field of an opcode's ops that must be a fresh consensus hash; None if none must."""
        rules = () if opcode is None else self.fresh_fields.get(opcode, ())
        return next((field for from_block, field in reversed(rules) if from_block <= block_id), None)

    def _fields(self, block_id: int, opcode: bytes | None) -> Fields | None:
        declared, name = self.opfields.get(opcode), opcode_name(opcode)
        for from_block, rules in self.activations.items():
            if from_block <= block_id and name in rules:
                declared = rules[name]
        return declared

    def fingerprint(self) -> str:
        """Compute the SHA-256 (hex) of all declarations that the app's verdicts and digests depend on.

        Comments and layout of the DDL do not count, nor do its COMMENT statements.
        """
        declared = self._declared(without_comments(self.projections))
        if self.rule != DEFAULT_RULE:
            declared["payload_rule"] = self.rule
        if self.tracks is not None:
            declared["tracks"] = self.tracks
        if self.needs:
            declared["needs"] = sorted(self.needs)
        return _digest(declared)

    def former_fingerprint(self, comments: Mapping[tuple[str, ...], str | None] | None = None) -> str:
        """Compute the fingerprint as version 0.1.0 did: without the payload rule, and with comments.

        `comments` are the comments that the tables have, by table or by table and column, if those of
        `projections` may have been reworded since.
        """
        projections = self.projections if comments is None else with_comments(self.projections, comments)
        return _digest(self._declared(bare_sql(projections)))

    def function(self, callback: str, handler: str | None, block_id: int) -> object:
        """Return the author's function that a callback calls at a block; None if there is none.

        That of an `App` is the one that was registered for the handler's opcode (`opcode_name`), at the
        newest height up to the block.
        """
        step = callback.removeprefix("db_").removesuffix("_block")
        kind = step if handler is None else f"{handler} {step}"
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
            "opfields": {opcode_name(code): list(fields) for code, fields in self.opfields.items()},
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
        if self.fresh_fields:
            declared["requires_fresh_hash"] = {
                opcode.hex(): [[block_id, field] for block_id, field in rules]
                for opcode, rules in self.fresh_fields.items()
            }
        return declared

    def _described_types(self) -> list[list[Any]]:
        """List the declared types with activation height and opcode, for the fingerprint."""
        newest = {opcode_name(code): fields for code, fields in self.opfields.items()}
        return [
            [block_id, code, *field]
            for block_id, rules in [(None, newest), *self.activations.items()]
            for code, fields in sorted(rules.items())
            for field in described(fields)
        ]


def _digest(declared: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()

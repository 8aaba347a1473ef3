"""How an app is written: `App`, the pleasant way, and `Rejected`, a refusal with its reason.

What the engine runs is an *implementation*: any module, class or object with the callbacks of the
published contract (`virtualchain.app.contract` lists and checks them). `App` is one of them.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, overload

from virtualchain.app.timeline import Timeline
from virtualchain.errors import InvalidApp
from virtualchain.model import FindPayload, Json

H = TypeVar("H", bound=type[Any])
F = TypeVar("F", bound=Callable[..., Any])

_EXTRAS: Final = {
    "parse": {"block_id", "opcode", "senders", "inputs", "outputs", "fee", "state"},
    "check": {"block_id", "opcode", "txid", "vtxindex", "checked"},
    "commit": {"block_id", "opcode", "txid", "vtxindex"},
    "scan": {"block_id"},
    "final": {"block_id"},
    "proceed": set[str](),
}
"""Per step the arguments that are passed by name, to a function that names them."""

_POSITIONAL: Final = {"parse": 1, "check": 2, "commit": 2, "scan": 2, "final": 2, "proceed": 2}
"""Per step how many arguments come first, by position."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Returned (not raised) by parse, check or commit: the input is refused, and `reason` is recorded."""

    reason: str

    def __post_init__(self) -> None:
        """Take whatever has a text, such as an exception."""
        object.__setattr__(self, "reason", str(self.reason))

    def __bool__(self) -> bool:
        """Count as false, as a check that returns False does."""
        return False


@dataclass(frozen=True, slots=True)
class _Step:
    """A function of an app, and which of the named arguments it wants."""

    function: Callable[..., Any]
    wants: frozenset[str]

    def __call__(self, *positional: object, **named: object) -> Any:  # noqa: ANN401 - what a callback gives
        return self.function(*positional, **{name: named[name] for name in self.wants})


@dataclass(frozen=True, slots=True)
class _Handler:
    parse: _Step
    check: _Step | None
    commit: _Step | None
    fields: tuple[str, ...] | None


@dataclass
class App:
    """An app in its own words: a name, a magic, projections as SQL, and a handler per opcode.

    ::

        app = App("notary", magic=b"nt", projections="CREATE TABLE documents (…)")

        @app.opcode(b"c", fields=["document", "owner"])
        class Claim:
            def parse(self, payload, senders): ...     # -> dict, or None to drop, or Rejected("why")
            def check(self, op, state): ...            # -> True, or Rejected("why")
            def commit(self, op, state, block_id): ... # the reducer

    Beside the arguments shown first, a function gets by name whatever else it names: `parse` of
    block_id, opcode, senders, inputs, outputs, fee, state; `check` of block_id, opcode, txid, vtxindex,
    checked; `commit` of block_id, opcode, txid, vtxindex. `check` and `commit` may be left out: then
    every parsed op is accepted as it stands.

    Rules that change at an activation height stand beside the old ones: registered again with
    `from_block=`, a handler, `scan` or `final` counts from that block on, until the next one.
    """

    name: str
    magic: bytes | str | Sequence[bytes | str]
    projections: str | None = None
    """DDL of the projections, or the path of a `.sql` file with it."""
    version: str = "1"
    first_block_id: int = 0
    initial_snapshots: Mapping[int, str] = field(default_factory=dict)
    valid_transaction_window: int = 24
    """S: for how many blocks a consensus hash stays valid."""
    confirmations: int | None = None
    """The least confirmations that this app accepts."""
    payload_rule: FindPayload | None = None
    """How a payload is found among the outputs; default: the last OP_RETURN."""
    max_payload: int | None = None
    """The longest payload, in bytes after magic and opcode, that is parsed at all."""

    def __post_init__(self) -> None:
        self._handlers: dict[bytes, Timeline[_Handler]] = {}
        self._hooks: dict[str, Timeline[_Step]] = {"scan": Timeline(), "final": Timeline()}
        # The contract asks an implementation which callbacks it has: None says that it has not.
        self.db_scan_block: Callable[..., Any] | None = None
        self.db_final: Callable[..., Any] | None = None
        self.db_continue: Callable[..., Any] | None = None
        self.find_payload = self.payload_rule

    def opcode(
        self, opcode: bytes, fields: Iterable[str] | None = None, *, from_block: int = 0
    ) -> Callable[[H], H]:
        """Register a class with `parse` and, where needed, `check` and `commit` for one opcode byte.

        `fields` are those that enter the consensus hash, in order; default: all, sorted by name. It counts
        from block `from_block` on, in place of one that counted before.
        """

        def register(handler: H) -> H:
            instance = handler()
            self.add(
                opcode,
                parse=getattr(instance, "parse", None),
                check=getattr(instance, "check", None),
                commit=getattr(instance, "commit", None),
                fields=fields,
                from_block=from_block,
            )
            return handler

        return register

    def add(
        self,
        opcode: bytes,
        *,
        parse: Callable[..., Json | Rejected | None] | None,
        check: Callable[..., bool | Rejected] | None = None,
        commit: Callable[..., Any] | None = None,
        fields: Iterable[str] | None = None,
        from_block: int = 0,
    ) -> None:
        """Register functions for one opcode byte, as `opcode` does for a class.

        Raises InvalidApp where the opcode is not one byte or is taken from that block on, or a function's
        arguments are none that it can be given.
        """
        if not isinstance(opcode, bytes) or len(opcode) != 1:
            raise InvalidApp(f"app {self.name}: an opcode is one byte, not {opcode!r}")
        if parse is None:
            raise InvalidApp(f"app {self.name}: the handler of opcode {opcode!r} has no parse")
        handler = _Handler(
            parse=self._step("parse", parse),
            check=None if check is None else self._step("check", check),
            commit=None if commit is None else self._step("commit", commit),
            fields=None if fields is None else tuple(fields),
        )
        if not self._handlers.setdefault(opcode, Timeline()).add(from_block, handler):
            since = f" from block {from_block} on" if from_block else ""
            raise InvalidApp(f"app {self.name}: opcode {opcode!r} has a handler already{since}")

    @overload
    def scan(self, function: F) -> F: ...
    @overload
    def scan(self, *, from_block: int) -> Callable[[F], F]: ...
    def scan(self, function: F | None = None, *, from_block: int = 0) -> F | Callable[[F], F]:
        """Register `function(ops, state)`, which sees a block's parsed ops before any is judged."""
        self.db_scan_block = lambda block_id, ops, state: self._run("scan", block_id, ops, state)
        return self._hook("scan", function, from_block)

    @overload
    def final(self, function: F) -> F: ...
    @overload
    def final(self, *, from_block: int) -> Callable[[F], F]: ...
    def final(self, function: F | None = None, *, from_block: int = 0) -> F | Callable[[F], F]:
        """Register `function(ops, state)`, called after the block's last commit, before its digests."""
        self.db_final = lambda block_id, ops, state: self._run("final", block_id, ops, state)
        return self._hook("final", function, from_block)

    def proceed(self, function: F) -> F:
        """Register `function(block_id, consensus_hash)`, called after each block; False stops the app."""
        self.db_continue = self._step("proceed", function)
        return function

    def _hook(self, kind: str, function: F | None, from_block: int) -> F | Callable[[F], F]:
        def register(hook: F) -> F:
            if not self._hooks[kind].add(from_block, self._step(kind, hook)):
                raise InvalidApp(f"app {self.name}: {kind} has a function already from block {from_block} on")
            return hook

        return register if function is None else register(function)

    def _run(self, kind: str, block_id: int, ops: list[Json], state: object) -> None:
        step = self._hooks[kind].at(block_id)
        if step is not None:
            step(ops, state, block_id=block_id)

    def _step(self, kind: str, function: Callable[..., Any]) -> _Step:
        names = list(inspect.signature(function).parameters)
        known, first = _EXTRAS[kind], _POSITIONAL[kind]
        unknown = [name for name in names[first:] if name not in known]
        if len(names) < first or unknown:
            shape = ", ".join(
                {"parse": ["payload"], "proceed": ["block_id", "consensus_hash"]}.get(
                    kind, ["ops" if kind in {"scan", "final"} else "op", "state"]
                )
            )
            raise InvalidApp(
                f"app {self.name}: {kind} ({function.__qualname__}) takes ({shape}) and by name any of "
                f"{', '.join(sorted(known)) or 'nothing more'}; it has ({', '.join(names)})"
            )
        return _Step(function, frozenset(names[first:]))

    # The published callbacks, from here on.

    def get_virtual_chain_name(self) -> str:
        """Give the name."""
        return self.name

    def get_virtual_chain_version(self) -> str:
        """Give the version."""
        return self.version

    def get_first_block_id(self) -> int:
        """Give the height of the first input."""
        return self.first_block_id

    def get_magic_bytes(self) -> bytes | str | Sequence[bytes | str]:
        """Give the magic, or several."""
        return self.magic

    def get_opcodes(self) -> tuple[bytes, ...]:
        """Give the opcodes that have a handler, sorted."""
        return tuple(sorted(self._handlers))

    def get_opfields(self) -> dict[bytes, tuple[str, ...]]:
        """Give the hashed fields of the opcodes that declare them, by their newest rules."""
        newest = {code: timeline.steps()[-1][1] for code, timeline in sorted(self._handlers.items())}
        return {code: handler.fields for code, handler in newest.items() if handler.fields is not None}

    def get_activations(self) -> dict[int, dict[str, tuple[str, ...] | None]]:
        """Give what counts from which block on: by opcode its hashed fields, and the hooks by their names."""
        found: dict[int, dict[str, tuple[str, ...] | None]] = {}
        for code, timeline in sorted(self._handlers.items()):
            for from_block, handler in timeline.steps():
                found.setdefault(from_block, {})[code.hex()] = handler.fields
        for kind, hooks in self._hooks.items():
            for from_block, _ in hooks.steps():
                found.setdefault(from_block, {})[kind] = None
        return found

    def get_initial_snapshots(self) -> Mapping[int, str]:
        """Give the consensus hashes to start from."""
        return self.initial_snapshots

    def get_valid_transaction_window(self) -> int:
        """Give S."""
        return self.valid_transaction_window

    def get_confirmations(self) -> int | None:
        """Give the least confirmations."""
        return self.confirmations

    def get_projections(self) -> str | None:
        """Give the DDL."""
        return self.projections

    def get_max_payload(self) -> int | None:
        """Give the longest payload."""
        return self.max_payload

    def db_parse(
        self,
        block_id: int,
        opcode: bytes,
        op_payload: bytes,
        senders: list[Json],
        inputs: list[Json],
        outputs: list[Json],
        fee: int,
        db_state: object,
    ) -> Json | Rejected | None:
        """Hand a payload to its opcode's parse."""
        handler = self._handlers[opcode].at(block_id)
        if handler is None:
            first = self._handlers[opcode].steps()[0][0]
            return Rejected(f"this opcode counts from block {first} on")
        op: Json | Rejected | None = handler.parse(
            op_payload,
            block_id=block_id,
            opcode=opcode,
            senders=senders,
            inputs=inputs,
            outputs=outputs,
            fee=fee,
            state=db_state,
        )
        return op

    def db_check(
        self,
        block_id: int,
        opcode: bytes,
        op: Json,
        txid: str,
        vtxindex: int,
        checked: list[Json],
        db_state: object,
    ) -> bool | Rejected:
        """Hand an op to its opcode's check."""
        handler = self._handlers[opcode].at(block_id)
        check = None if handler is None else handler.check
        return check is None or check(
            op, db_state, block_id=block_id, opcode=opcode, txid=txid, vtxindex=vtxindex, checked=checked
        )

    def db_commit(
        self, block_id: int, opcode: bytes, op: Json, txid: str, vtxindex: int, db_state: object
    ) -> object:
        """Hand an accepted op to its opcode's commit."""
        handler = self._handlers[opcode].at(block_id)
        commit = None if handler is None else handler.commit
        return (
            None
            if commit is None
            else commit(op, db_state, block_id=block_id, opcode=opcode, txid=txid, vtxindex=vtxindex)
        )

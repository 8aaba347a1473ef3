"""How an app is written: `App`, the convenient way, and `Rejected`, a refusal with its reason.

The engine runs *implementations*: modules, classes or objects with the callbacks of the published
contract (`virtualchain.app.contract` lists and checks them). An `App` is one of them: `Callbacks` has them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MethodType
from typing import Any, TypeVar, overload

from virtualchain.app.author import author
from virtualchain.app.callbacks import Callbacks
from virtualchain.app.code import methods_named
from virtualchain.app.field_types import FieldType, read_fields
from virtualchain.app.freshness import fresh_field
from virtualchain.app.handlers import (
    SPEND,
    Activations,
    Encode,
    Handler,
    Keys,
    Rejected,
    Step,
    check_encoder,
    described,
    make_step,
)
from virtualchain.app.layout import ReadLayout, WriteLayout
from virtualchain.app.pages import Page
from virtualchain.app.shapes import Checked, Committed, HasLayout, Hook, Parsed, Parses, ParsesSpends, Proceed
from virtualchain.app.spelling import uncalled_in_handler
from virtualchain.app.sql_steps import SqlCheck, SqlCommit, read_steps
from virtualchain.errors import InvalidApp, UsageError
from virtualchain.model import FindPayload, Json

__all__ = ["App", "Rejected"]

A = TypeVar("A", bound=type[Any])
H = TypeVar("H", bound=type[Parses] | type[HasLayout])
S = TypeVar("S", bound=type[ParsesSpends] | type[HasLayout])
F = TypeVar("F", bound=Hook)
P = TypeVar("P", bound=Proceed)


@dataclass
class App(Callbacks):
    """An app as a declaration: a name, a magic, projections as SQL, and a handler per opcode.

    ::

        app = App("notary", magic=b"nt", projections="CREATE TABLE documents (…)")

        @app.opcode(b"c", fields=["document", "owner"])
        class Claim:
            def parse(self, payload, senders): ...     # -> dict, or None to drop it, or Rejected("why")
            def check(self, op, state): ...            # -> True, or Rejected("why")
            def commit(self, op, state, block_id): ... # the reducer

    After its leading arguments, a function can name any of these and receives them by name: `parse`
    block_id, opcode, senders, inputs, outputs, fee, state; `check` block_id, opcode, txid, vtxindex,
    checked; `commit` block_id, opcode, txid, vtxindex. `check` and `commit` are optional: without them,
    every parsed op is accepted unchanged. With `encode(**fields)`, which returns the bytes that `parse`
    reads, `build_input` writes payloads. A handler has no other public methods. `fields` may have types:
    `fields={"document": Hex(32), "owner": Text(90)}` rejects every input whose parsed fields do not fit.

    Rules can change at an activation height: a handler, `scan` or `final` that is registered again with
    `from_block=` applies from that block until the next one's, and the old one still applies before it.

    State that rides on outputs: with `tracks="table"`, every transaction that spends an output of that
    projection is the app's, too; without a payload it goes to the handler that `spend` registers
    (docs/outputs.md).
    """

    name: str
    magic: bytes | str | Sequence[bytes | str]
    """What payloads start with; if it is empty, whatever the payload rule finds is the app's."""
    projections: str | None = None
    """DDL of the projections, or a `.sql` file that holds it: its path from the folder of the module."""
    version: str = "1"
    first_block_id: int | Mapping[str, int] = 0
    """The height of the first block that can hold inputs: one for all networks, or by a network's name."""
    initial_snapshots: Mapping[int, str] = field(default_factory=dict)
    valid_transaction_window: int = 24
    """S: the number of blocks for which a consensus hash stays valid."""
    confirmations: int | None = None
    """The minimum number of confirmations that this app accepts."""
    payload_rule: FindPayload | None = None
    """How to find payloads in a transaction; by default, the last OP_RETURN."""
    max_payload: int | None = None
    """Payloads longer than this, in bytes after magic and opcode, are rejected unparsed."""
    strict_code: bool = False
    """Whether a change of the code without a new version is refused, not only reported."""
    opcodes: tuple[()] | None = ()
    """None: a payload has no opcode byte, and its handler is registered without one."""
    tracks: str | None = None
    """A projection with `txid text` and `vout integer` in its key: the outputs that the app tracks."""
    needs: Sequence[str] = ()
    """What else senders shall say: "height" adds `height` and `coinbase` of the output that each one was."""
    expected_snapshots: Mapping[int, str] | Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Consensus hashes by block, for all networks or by a network's name: with others, the app stops."""
    requires_fresh_hash: bool | str = False
    """Whether ops need a fresh consensus hash: in the field `consensus_hash`, or in the one named here."""
    pages: Sequence[Page] = ()
    """Pages of the app's own in the explorer; they decide nothing."""

    def __post_init__(self) -> None:
        if self.opcodes not in {(), None}:
            raise InvalidApp(
                f"app {self.name}: opcodes={self.opcodes!r}: opcodes follow from the handlers; None means "
                "that payloads have none"
            )
        self.declared_in = author()[0]
        self._handlers: dict[bytes | None, Activations[Handler]] = {}
        self._names: dict[str, set[bytes]] = {}
        """Opcodes by the names of their handlers' classes, in lower case."""
        self._without: frozenset[tuple[type, str]] = frozenset()
        self._hooks: dict[str, Activations[Step]] = {"scan": Activations(), "final": Activations()}
        # The contract reads which callbacks an implementation has: None means that it has none.
        self.db_scan_block: Callable[..., Any] | None = None
        self.db_final: Callable[..., Any] | None = None
        self.db_continue: Callable[..., Any] | None = None
        self.db_keys: Callable[..., Any] | None = None
        self.find_payload = self.payload_rule

    def opcode(
        self,
        opcode: bytes | None = None,
        fields: Iterable[str] | Mapping[str, FieldType] | None = None,
        *,
        keys: Callable[..., Keys] | None = None,
        requires_fresh_hash: bool | str | None = None,
        from_block: int = 0,
    ) -> Callable[[H], H]:
        """Register a class with `parse` and, optionally, `check`, `commit` and `encode` for one opcode byte.

        In place of methods it may have text: a `layout` in place of parse, and SQL, as for `add`.

        An app with `opcodes=None` registers one for all payloads, without an opcode.

        `fields` names the fields that enter the consensus hash, in order; by default all, sorted by name. As
        a dict from names to types (`Integer`, `Text`, `Hex`, `Boolean`, `List`), it also rejects every input
        whose parsed fields do not fit. The class replaces any earlier one from block `from_block` on.

        `keys(op)` names the rows that `state.table` will be asked for, as a dict from tables to keys: they
        are then read together, for all ops of a block. It only makes that faster.

        `requires_fresh_hash` is that of the app, unless it is set here: True, False or a field's name.

        Raises InvalidApp as `add` does, and if the class has a public function that no step calls.
        """
        code = self._code(opcode)
        return lambda handler: self._register(code, handler, fields, keys, from_block, requires_fresh_hash)

    @overload
    def spend(self, handler: S) -> S: ...
    @overload
    def spend(
        self,
        *,
        fields: Iterable[str] | Mapping[str, FieldType] | None = None,
        keys: Callable[..., Keys] | None = None,
        from_block: int = 0,
    ) -> Callable[[S], S]: ...
    def spend(
        self,
        handler: S | None = None,
        *,
        fields: Iterable[str] | Mapping[str, FieldType] | None = None,
        keys: Callable[..., Keys] | None = None,
        from_block: int = 0,
    ) -> S | Callable[[S], S]:
        """Register a class for transactions that spend a tracked output and have no payload of the app's.

        Its `parse` gets None as payload and `b""` as opcode. The rest is as for `opcode`.
        """
        if handler is not None:
            return self._register(SPEND, handler, fields, keys, from_block)
        return lambda handler: self._register(SPEND, handler, fields, keys, from_block)

    def _register(
        self,
        code: bytes | None,
        handler: A,
        fields: Iterable[str] | Mapping[str, FieldType] | None,
        keys: Callable[..., Keys] | None,
        from_block: int,
        requires_fresh_hash: bool | str | None = None,
    ) -> A:
        instance = handler()
        complaint = uncalled_in_handler(instance)
        if complaint is not None:
            raise InvalidApp(
                f"app {self.name}: {handler.__name__}, the handler of {described(code)}, {complaint} "
                "(docs/mistakes.md#names)"
            )
        self._add(
            code,
            parse=getattr(instance, "parse", None),
            check=getattr(instance, "check", None),
            commit=getattr(instance, "commit", None),
            fields=fields,
            keys=keys,
            encode=getattr(instance, "encode", None),
            layout=getattr(instance, "layout", None),
            requires_fresh_hash=requires_fresh_hash,
            from_block=from_block,
        )
        self._without |= methods_named("encode", handler)
        self._name(code, handler)
        return handler

    def add(
        self,
        opcode: bytes | None = None,
        *,
        parse: Callable[..., Parsed] | None = None,
        check: Callable[..., Checked] | str | Path | None = None,
        commit: Callable[..., Committed] | str | Path | None = None,
        fields: Iterable[str] | Mapping[str, FieldType] | None = None,
        keys: Callable[..., Keys] | None = None,
        encode: Encode | None = None,
        layout: str | None = None,
        requires_fresh_hash: bool | str | None = None,
        from_block: int = 0,
    ) -> None:
        """Register functions for one opcode byte, as `opcode` does for a class.

        A `layout` stands for parse, fields and encode; check and commit may be SQL, or the path of a `.sql`
        file from the folder of the calling module (docs/reducers.md).

        Raises InvalidApp if the opcode is not one byte, if it already has a handler from that block on, if
        `fields` are neither names nor names with types, if `requires_fresh_hash` is neither True, False, nor
        a field's name, or if a function takes an argument that it cannot receive.
        """
        code = self._code(opcode)
        self._add(
            code,
            parse=parse,
            check=check,
            commit=commit,
            fields=fields,
            keys=keys,
            encode=encode,
            layout=layout,
            requires_fresh_hash=requires_fresh_hash,
            from_block=from_block,
        )
        if isinstance(encode, MethodType):
            self._without |= methods_named(encode.__name__, type(encode.__self__))
        if isinstance(parse, MethodType):
            self._name(code, type(parse.__self__))

    def _name(self, code: bytes | None, handler: type) -> None:
        """Let a handler's opcode be called by the name of its class, too."""
        if code is not None:
            self._names.setdefault(handler.__name__.lower(), set()).add(code)

    def _code(self, opcode: bytes | None) -> bytes:
        """Check the opcode of a handler for payloads; without one, it is empty."""
        if self.opcodes is None:
            if opcode is not None:
                raise InvalidApp(
                    f"app {self.name}: its payloads have no opcode (opcodes=None), so a handler is "
                    f"registered without one, not for {opcode!r}"
                )
            return b""
        if not isinstance(opcode, bytes) or len(opcode) != 1:
            raise InvalidApp(
                f"app {self.name}: an opcode must be one byte, as in @app.opcode(b'v'), not {opcode!r}"
            )
        return opcode

    def _add(
        self,
        code: bytes | None,
        *,
        parse: Callable[..., Parsed] | None,
        check: Callable[..., Checked] | str | Path | None,
        commit: Callable[..., Committed] | str | Path | None,
        fields: Iterable[str] | Mapping[str, FieldType] | None,
        keys: Callable[..., Keys] | None,
        encode: Encode | None,
        layout: str | None,
        requires_fresh_hash: bool | str | None,
        from_block: int,
    ) -> None:
        if layout is not None:
            if parse is not None or fields is not None or code is SPEND:
                problem = "no payload" if code is SPEND else "parse or fields, too, which follow from it"
                raise InvalidApp(f"app {self.name}: {described(code)}: a handler with a layout has {problem}")
            with self._named(code):
                read = ReadLayout.of(layout)
            parse, fields, encode = read, read.types, encode or WriteLayout(read)
        if parse is None:
            raise InvalidApp(f"app {self.name}: the handler of {described(code)} has no parse")
        try:
            declared = None if fields is None else read_fields(fields)
        except TypeError as error:
            raise InvalidApp(f"app {self.name}: fields={fields!r} of {described(code)}: {error}") from error
        try:
            fresh_field(False if requires_fresh_hash is None else requires_fresh_hash)
        except TypeError as error:
            raise InvalidApp(f"app {self.name}: requires_fresh_hash of {described(code)}: {error}") from error
        with self._named(code):
            check = read_steps(SqlCheck, check, declared) if isinstance(check, str | Path) else check
            commit = read_steps(SqlCommit, commit, declared) if isinstance(commit, str | Path) else commit
        handler = Handler(
            parse=make_step(self.name, "parse", parse),
            check=None if check is None else make_step(self.name, "check", check),
            commit=None if commit is None else make_step(self.name, "commit", commit),
            fields=declared,
            keys=None if keys is None else make_step(self.name, "keys", keys),
            encode=None if encode is None else check_encoder(self.name, code, encode),
            requires_fresh_hash=requires_fresh_hash,
        )
        if keys is not None:
            self.db_keys = self._keys
        if not self._handlers.setdefault(code, Activations()).add(from_block, handler):
            since = f" from block {from_block} on" if from_block else ""
            raise InvalidApp(f"app {self.name}: {described(code)} already has a handler{since}")

    @contextmanager
    def _named(self, code: bytes | None) -> Iterator[None]:
        """Put the app and the opcode in front of what a declaration is found to have wrong."""
        try:
            yield
        except InvalidApp as error:
            raise InvalidApp(f"app {self.name}: {described(code)}: {error}") from error

    @overload
    def scan(self, function: F) -> F: ...
    @overload
    def scan(self, *, from_block: int) -> Callable[[F], F]: ...
    def scan(self, function: F | None = None, *, from_block: int = 0) -> F | Callable[[F], F]:
        """Register `function(ops, state)`, called with a block's parsed ops before any is checked."""
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

    def proceed(self, function: P) -> P:
        """Register `function(block_id, consensus_hash)`, called after each block; False stops the app."""
        self.db_continue = make_step(self.name, "proceed", function)
        return function

    def _hook(self, kind: str, function: F | None, from_block: int) -> F | Callable[[F], F]:
        def register(hook: F) -> F:
            if not self._hooks[kind].add(from_block, make_step(self.name, kind, hook)):
                raise InvalidApp(f"app {self.name}: {kind} already has a function from block {from_block} on")
            return hook

        return register if function is None else register(function)

    def _run(self, kind: str, block_id: int, ops: list[Json], state: object) -> None:
        step = self._hooks[kind].at(block_id)
        if step is not None:
            step(ops, state, block_id=block_id)

    # Writing inputs.

    def build_input(
        self,
        opcode: bytes | str | None = None,
        /,
        *,
        block_id: int | None = None,
        consensus_hash: str | None = None,
        outputs: int | Sequence[tuple[int, bytes]] = 2,
        sender: bytes | None = None,
        **fields: object,
    ) -> bytes:
        """Write a payload: magic, opcode, and what the handler's `encode` makes of the fields.

        `opcode` is the byte, its hex, or the name of the handler's class in any case. The handler is the one
        that applies at block `block_id`, by default the newest. An encoder with a parameter `consensus_hash`
        needs that of a recent block.

        The payload is parsed again, in a transaction with these other `outputs`: so many that pay somebody,
        or satoshi and script of each. Its only input spends from the script `sender`, by default one with a
        public key hash, and is signed for the whole transaction. Raises UsageError, with the reason, if the
        fields are not those of the encoder, or if the payload is not found, is rejected, or says otherwise.
        """
        from virtualchain.app.encoding import build_input  # noqa: PLC0415 - it reads apps, such as this

        return build_input(
            self,
            opcode,
            block_id=block_id,
            consensus_hash=consensus_hash,
            outputs=outputs,
            sender=sender,
            **fields,
        )

    def build_output(self, payload: bytes) -> bytes:
        """Write the script of an output in which the app's payload rule finds a payload.

        Raises UsageError if the rule does not say how such an output is written, or does not find it.
        """
        from virtualchain.app.encoding import build_output  # noqa: PLC0415 - as above

        return build_output(self, payload)

    @property
    def opcode_names(self) -> Mapping[str, AbstractSet[bytes]]:
        """Opcodes by the names of their handlers' classes, in lower case."""
        return self._names

    @property
    def writing_methods(self) -> frozenset[tuple[type, str]]:
        """The methods that write inputs, by class and name: no verdict depends on them."""
        return self._without

    def encoder(self, block_id: int, opcode: bytes) -> Encode | None:
        """Return the encoder of an opcode's handler at a block; None if it has none.

        Raises UsageError below the first block that the opcode is valid from.
        """
        handler = self._handlers[opcode].at(block_id)
        if handler is None:
            raise UsageError(f"this opcode is valid from block {self._handlers[opcode].all()[0][0]} on")
        return handler.encode

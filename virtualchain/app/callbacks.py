"""The published callbacks of an `App`, as the engine calls them: they follow from what was declared."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from virtualchain.app.field_types import Fields
from virtualchain.app.handlers import SPEND, Activations, Handler, Keys, Rejected, Step, opcode_name
from virtualchain.app.pages import Page
from virtualchain.model import Json


class Callbacks:
    """What every `App` is called by; the attributes are those that `App` documents."""

    name: str
    magic: bytes | str | Sequence[bytes | str]
    projections: str | None
    version: str
    first_block_id: int | Mapping[str, int]
    initial_snapshots: Mapping[int, str]
    valid_transaction_window: int
    confirmations: int | None
    max_payload: int | None
    strict_code: bool
    opcodes: tuple[()] | None
    tracks: str | None
    needs: Sequence[str]
    expected_snapshots: Mapping[int, str] | Mapping[str, Mapping[int, str]]
    requires_fresh_hash: bool | str
    pages: Sequence[Page]
    db_continue: Callable[..., Any] | None
    _handlers: dict[bytes | None, Activations[Handler]]
    _hooks: dict[str, Activations[Step]]

    def get_virtual_chain_name(self) -> str:
        """Return the name."""
        return self.name

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return self.version

    def get_first_block_id(self) -> int | Mapping[str, int]:
        """Return the height of the first block that can hold inputs, or one for each network."""
        return self.first_block_id

    def get_magic_bytes(self) -> bytes | str | Sequence[bytes | str]:
        """Return the magic, or several of them."""
        return self.magic

    def get_opcodes(self) -> tuple[bytes, ...] | None:
        """Return the opcodes that have a handler, sorted; None if payloads have none."""
        return None if self.opcodes is None else tuple(sorted(filter(None, self._handlers)))

    def get_tracked(self) -> str | None:
        """Return the projection whose outputs are tracked."""
        return self.tracks

    def get_needs(self) -> Sequence[str]:
        """Return what else senders shall say."""
        return self.needs

    @property
    def codes(self) -> frozenset[bytes | None]:
        """The opcodes that have a handler, and None if transactions without a payload have one."""
        return frozenset(self._handlers)

    def _by_code(self) -> list[tuple[bytes | None, Activations[Handler]]]:
        return sorted(self._handlers.items(), key=lambda item: (item[0] is None, item[0] or b""))

    def get_opfields(self) -> dict[bytes | None, Fields]:
        """Return, for each opcode that declares them, the fields that its newest rules hash."""
        newest = {code: handlers.all()[-1][1] for code, handlers in self._by_code()}
        return {code: handler.fields for code, handler in newest.items() if handler.fields is not None}

    def get_activations(self) -> dict[int, dict[str, Fields | None]]:
        """Return, by activation height, the opcodes with their hashed fields, and the names of the hooks."""
        activations: dict[int, dict[str, Fields | None]] = {}
        for code, handlers in self._by_code():
            for from_block, handler in handlers.all():
                activations.setdefault(from_block, {})[opcode_name(code)] = handler.fields
        for kind, hooks in self._hooks.items():
            for from_block, _ in hooks.all():
                activations.setdefault(from_block, {})[kind] = None
        return activations

    def get_initial_snapshots(self) -> Mapping[int, str]:
        """Return the consensus hashes that the app starts from."""
        return self.initial_snapshots

    def get_expected_snapshots(self) -> Mapping[int, str] | Mapping[str, Mapping[int, str]]:
        """Return the consensus hashes that the app must have at some blocks."""
        return self.expected_snapshots

    def get_valid_transaction_window(self) -> int:
        """Return S."""
        return self.valid_transaction_window

    def get_confirmations(self) -> int | None:
        """Return the minimum number of confirmations."""
        return self.confirmations

    def get_projections(self) -> str | None:
        """Return the DDL, or the path of the file that holds it."""
        return self.projections

    def get_max_payload(self) -> int | None:
        """Return the maximum payload length."""
        return self.max_payload

    def get_requires_fresh_hash(self) -> dict[int, dict[bytes, bool | str]]:
        """Return, by activation height and opcode, which field must be a fresh consensus hash."""
        required: dict[int, dict[bytes, bool | str]] = {}
        for code, handlers in self._by_code():
            for from_block, handler in handlers.all():
                own = handler.requires_fresh_hash
                if code is not SPEND:
                    required.setdefault(from_block, {})[code] = (
                        self.requires_fresh_hash if own is None else own
                    )
        return required

    def get_strict_code(self) -> bool:
        """Return whether a change of the code needs a new version."""
        return self.strict_code

    def get_pages(self) -> Sequence[Page]:
        """Return the pages."""
        return self.pages

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Return the functions of handlers and hooks, by opcode or kind, step and activation height."""
        functions: dict[str, Callable[..., Any]] = {}
        for code, handlers in self._handlers.items():
            for from_block, handler in handlers.all():
                steps = {
                    "parse": handler.parse,
                    "keys": handler.keys,
                    "check": handler.check,
                    "commit": handler.commit,
                }
                for name, step in steps.items():
                    if step is not None:
                        functions[f"{opcode_name(code)} {name} {from_block}"] = step.function
        for kind, hooks in self._hooks.items():
            functions |= {f"{kind} {from_block}": step.function for from_block, step in hooks.all()}
        if isinstance(self.db_continue, Step):
            functions["proceed"] = self.db_continue.function
        return functions

    def parse_needs(self) -> frozenset[str]:
        """Return which arguments any handler's `parse` takes by name."""
        steps = [handler.parse for handlers in self._handlers.values() for _, handler in handlers.all()]
        return frozenset(name for step in steps for name in step.named_arguments)

    def check_sees_ops(self) -> bool:
        """Return whether any handler's `check` takes the ops that were accepted before."""
        handlers = [handler for rules in self._handlers.values() for _, handler in rules.all()]
        return any(each.check is not None and "checked" in each.check.named_arguments for each in handlers)

    def db_parse(
        self,
        block_id: int,
        opcode: bytes,
        op_payload: bytes | None,
        senders: list[Json],
        inputs: list[Json],
        outputs: list[Json],
        fee: int,
        db_state: object,
    ) -> Json | Rejected | None:
        """Call the parse of a payload's opcode."""
        code = SPEND if op_payload is None else opcode
        handler = self._handlers[code].at(block_id)
        if handler is None:
            first = self._handlers[code].all()[0][0]
            return Rejected(f"this opcode is valid from block {first} on")
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

    def _handler(self, block_id: int, opcode: bytes, op: Json) -> Handler | None:
        is_spend = SPEND in self._handlers and op.get("virtualchain_is_spend")
        return self._handlers[SPEND if is_spend else opcode].at(block_id)

    def _keys(self, block_id: int, opcode: bytes, op: Json) -> Keys:
        """Call the `keys` of an op's opcode."""
        handler = self._handler(block_id, opcode, op)
        keys: Keys = {} if handler is None or handler.keys is None else handler.keys(op, block_id=block_id)
        return keys

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
        """Call the check of an op's opcode."""
        handler = self._handler(block_id, opcode, op)
        check = None if handler is None else handler.check
        return check is None or check(
            op, db_state, block_id=block_id, opcode=opcode, txid=txid, vtxindex=vtxindex, checked=checked
        )

    def db_commit(
        self, block_id: int, opcode: bytes, op: Json, txid: str, vtxindex: int, db_state: object
    ) -> object:
        """Call the commit of an op's opcode."""
        handler = self._handler(block_id, opcode, op)
        commit = None if handler is None else handler.commit
        if commit is None:
            return None
        return commit(op, db_state, block_id=block_id, opcode=opcode, txid=txid, vtxindex=vtxindex)

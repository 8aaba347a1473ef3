"""Judge one block's candidates with an app's callbacks: parse all, scan, check and commit each, final.

A refused call must leave nothing behind, and a failed statement ends a transaction, so such a call
needs a savepoint of its own. Few blocks have one: a block is first judged without, and again with
savepoints as soon as one is needed.
"""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from virtualchain import consensus
from virtualchain.app.builder import Rejected
from virtualchain.app.contract import Callback, Contract
from virtualchain.app.fields import all_to_json, legible, to_json
from virtualchain.bitcoin.block import read_inputs
from virtualchain.engine.states import AppState
from virtualchain.errors import AppHalted, Unserialisable
from virtualchain.model import Block, Input, Json
from virtualchain.store.failures import is_data_error, is_passing, said, told
from virtualchain.store.log import Op, Rejection

T = TypeVar("T")

ENGINE_KEYS: Final = (
    "virtualchain_txid",
    "virtualchain_txindex",
    "virtualchain_opcode",
    "virtualchain_senders",
    "virtualchain_fee",
)
"""What the engine adds to an op for the callbacks to see; never hashed or stored."""

_LONGEST_REASON: Final = 1_000
_LONGEST_TRACEBACK: Final = 20_000
"""Characters that are kept: both may quote what a stranger wrote, as long as it may be."""


class NeedsSavepoints(Exception):
    """One call must be undone alone, and this judge works without savepoints."""


class _Undone(Exception):
    """A call refuses its candidate, and what it wrote must go."""


@dataclass(slots=True)
class Candidate:
    """An input with one of the app's opcodes, on its way through the steps."""

    source: Input
    opcode: bytes
    payload: bytes
    vtxindex: int = -1
    op: Json = field(default_factory=dict)


@dataclass(slots=True)
class Verdicts:
    """What became of a block's candidates, in order; `committed` are the ops as the callbacks see them."""

    ops: list[Op] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    committed: list[Json] = field(default_factory=list)

    def canonical(self) -> Iterator[bytes]:
        """Give the serialised ops that enter the ops hash."""
        return (text for op in self.ops for text in op.canonical)

    def refuse(self, candidate: Candidate, step: str, refusal: Rejected) -> None:
        """Record a refusal; its reason may quote the hostile input, so it is made storable."""
        reason = legible(refusal.reason, _LONGEST_REASON)
        self.rejections.append(Rejection(candidate.source.txindex, candidate.opcode, step, reason))


def halt(contract: Contract, block: Block, callback: str, item: Input | None, error: Exception) -> AppHalted:
    """Describe a failed callback, for the app's row and for the operator."""
    place = f"block {block.block_id}" + (f", transaction {item.txid}" if item else "")
    return AppHalted(
        f"app {contract.name} is halted before {place}: {callback} failed with {told(error)}",
        {
            "block_id": block.block_id,
            "callback": callback,
            "txid": item.txid if item else None,
            "txindex": item.txindex if item else None,
            "error": legible(said(error), _LONGEST_REASON),
            "traceback": legible("".join(traceback.format_exception(error)), _LONGEST_TRACEBACK),
        },
    )


class Judge:
    """Runs the callbacks of one app on one block, inside the app's savepoint.

    With `careful` each call has a savepoint of its own; without, a call that must be undone raises
    NeedsSavepoints. A callback that fails raises AppHalted; a passing fault of the database, psycopg.Error.
    """

    def __init__(self, contract: Contract, state: AppState, block: Block, *, careful: bool) -> None:
        self._contract = contract
        self._state = state
        self._block = block
        self._careful = careful
        self._verdicts = Verdicts()

    def judge(self, candidates: Sequence[Candidate]) -> Verdicts:
        """Take a block's candidates through all steps."""
        parsed = [candidate for candidate in candidates if self._parse(candidate)]
        for vtxindex, candidate in enumerate(parsed):
            candidate.vtxindex = vtxindex
        self._hook("db_scan_block", self._contract.scan, [candidate.op for candidate in parsed])
        for candidate in parsed:
            if self._check(candidate):
                self._commit(candidate)
        self._hook("db_final", self._contract.final, self._verdicts.committed)
        return self._verdicts

    def _parse(self, candidate: Candidate) -> bool:
        item = candidate.source
        limit = self._contract.max_payload
        if limit is not None and len(candidate.payload) > limit:
            size = len(candidate.payload)
            self._verdicts.refuse(
                candidate, "parse", Rejected(f"a payload of {size} bytes; the app takes {limit}")
            )
            return False
        op = self._call("db_parse", candidate, self._run_parse)
        if isinstance(op, Rejected):
            self._verdicts.refuse(candidate, "parse", op)
            return False
        candidate.op = {
            **op,
            "virtualchain_txid": item.txid,
            "virtualchain_txindex": item.txindex,
            "virtualchain_opcode": candidate.opcode,
            "virtualchain_senders": [sender.as_dict() for sender in item.senders],
            "virtualchain_fee": item.fee,
        }
        return True

    def _run_parse(self, candidate: Candidate) -> Json | Rejected:
        item = candidate.source
        try:
            op = self._contract.parse(
                item.block_id,
                candidate.opcode,
                candidate.payload,
                [sender.as_dict() for sender in item.senders],
                [spending.as_dict() for spending in read_inputs(item.raw)],
                [output.as_dict() for output in item.outputs],
                item.fee,
                db_state=self._state.db_state,
            )
            if op is None:
                return Rejected("not parsed")
            if isinstance(op, Rejected):
                return op
            if not isinstance(op, dict):
                raise TypeError(f"db_parse gave a {type(op).__name__}: it should be a dict, or None")
            self._admit(candidate.opcode, op)
        except (ValueError, RecursionError) as error:  # RecursionError: a parser met deep nesting
            return Rejected(str(error) or type(error).__name__)
        return op

    def _admit(self, opcode: bytes, op: Json) -> None:
        """Refuse what could not be stored or hashed before the app builds on it."""
        to_json(op)
        for name in self._contract.hashed_fields(self._block.block_id, opcode, op):
            if name in op:
                consensus.text_of(op[name], name)

    def _check(self, candidate: Candidate) -> bool:
        verdict = self._call("db_check", candidate, self._run_check)
        if isinstance(verdict, Rejected):
            self._verdicts.refuse(candidate, "check", verdict)
        return verdict is True

    def _run_check(self, candidate: Candidate) -> bool | Rejected:
        verdict = self._contract.check(
            self._block.block_id,
            candidate.opcode,
            candidate.op,
            candidate.source.txid,
            candidate.vtxindex,
            self._verdicts.committed,
            db_state=self._state.db_state,
        )
        if verdict is False:
            return Rejected("refused")
        if verdict is True or isinstance(verdict, Rejected):
            return verdict
        raise TypeError(f"db_check gave {verdict!r}: it should be True, False or Rejected")

    def _commit(self, candidate: Candidate) -> None:
        result = self._call("db_commit", candidate, self._run_commit)
        if isinstance(result, Rejected):
            self._verdicts.refuse(candidate, "commit", result)
            return
        ops, op = result
        self._verdicts.committed += ops
        self._verdicts.ops.append(op)

    def _run_commit(self, candidate: Candidate) -> tuple[list[Json], Op]:
        result: Any = self._contract.commit(
            self._block.block_id,
            candidate.opcode,
            candidate.op,
            candidate.source.txid,
            candidate.vtxindex,
            db_state=self._state.db_state,
        )
        if result is False or isinstance(result, Rejected):
            raise _Undone("refused" if result is False else result.reason)
        ops = result if isinstance(result, list) else [candidate.op if result is None else result]
        if not all(isinstance(op, dict) for op in ops):
            raise TypeError(f"db_commit gave {result!r}: it should be None, False, a dict or a list of dicts")
        plain = [{name: value for name, value in op.items() if name not in ENGINE_KEYS} for op in ops]
        try:
            stored = all_to_json(plain)
            canonical = tuple(self._canonical(candidate.opcode, op) for op in plain)
        except Unserialisable as error:
            raise _Undone(str(error)) from error
        return ops, Op(
            vtxindex=candidate.vtxindex,
            txindex=candidate.source.txindex,
            opcode=candidate.opcode,
            payload=candidate.payload,
            fields=stored if isinstance(result, list) else stored[0],
            canonical=canonical,
        )

    def _canonical(self, opcode: bytes, op: Json) -> bytes:
        return consensus.serialize_op(
            opcode, op, self._contract.hashed_fields(self._block.block_id, opcode, op)
        )

    def _hook(self, name: str, callback: Callback | None, ops: list[Json]) -> None:
        if callback is None:
            return
        try:
            callback(self._block.block_id, ops, db_state=self._state.db_state)
            self._reveal_failure()
        except Exception as error:
            if is_passing(error):
                raise
            raise halt(self._contract, self._block, name, None, error) from error

    def _call(
        self, callback: str, candidate: Candidate, run: Callable[[Candidate], T | Rejected]
    ) -> T | Rejected:
        """Run one callback on a candidate: its result, or why the candidate is refused."""
        before = _copied(candidate.op) if self._careful else {}
        try:
            with self._state.savepoint() if self._careful else nullcontext():
                try:
                    result = run(candidate)
                finally:
                    self._reveal_failure()
                return result
        except Exception as error:
            if is_passing(error):
                raise
            if not isinstance(error, _Undone) and not is_data_error(error):
                raise halt(self._contract, self._block, callback, candidate.source, error) from error
            if not self._careful:
                raise NeedsSavepoints from error
            candidate.op.clear()
            candidate.op.update(before)
            return Rejected(str(error) if isinstance(error, _Undone) else told(error))

    def _reveal_failure(self) -> None:
        """Raise the failed statement after which the transaction cannot go on, though the callback hid it."""
        failure = self._state.failure()
        if failure is not None:
            raise failure


def _copied(op: Json) -> Json:
    """Copy an op deeply, but for what an app put into it that cannot be copied."""
    copied: Json = {}
    for name, value in op.items():
        try:
            copied[name] = deepcopy(value)
        except Exception:  # noqa: BLE001 - the value is the app's, and so may be the error
            copied[name] = value
    return copied

"""Judge one block's candidates with an app's callbacks: parse all, scan, check and commit each, final."""

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, Final, Protocol, TypeVar

import psycopg

from virtualchain import consensus
from virtualchain.app.contract import Callback, Contract, FieldRules
from virtualchain.app.field_types import require_types
from virtualchain.app.fields import all_to_json, legible, to_json
from virtualchain.app.handlers import Rejected, opcode_name
from virtualchain.bitcoin.block import MOST_KEPT, read_inputs
from virtualchain.bitcoin.compiled import merkle_rows, outpoints
from virtualchain.bitcoin.transaction import split_outpoints
from virtualchain.consensus.digests import ops_hash_of_digests
from virtualchain.engine.arithmetic import pinned_arithmetic
from virtualchain.engine.candidates import NO_FIELDS, Candidate, Described, Showing
from virtualchain.engine.care import Care, NeedsCare
from virtualchain.engine.freshness import FreshHashes
from virtualchain.engine.halting import LONGEST_REASON, contain, contained, halt
from virtualchain.engine.lookups import Lookups
from virtualchain.engine.options import Tally
from virtualchain.engine.shown_op import fields_of
from virtualchain.engine.states import AppState, TableState
from virtualchain.engine.tracking import Tracked, described
from virtualchain.errors import AppHalted, InvalidOp, Unserializable
from virtualchain.model import Block, Input, Json
from virtualchain.store.failures import Refused, is_rejection, is_transient
from virtualchain.store.log import Op, OpRows, Rejection, RejectionRows
from virtualchain.store.tables import Tables

T = TypeVar("T")

_PAGE: Final = "docs/mistakes.md#results"
_CONTAINED: Final = contained()


class SentAhead(Protocol):
    """The statements of a block that are sent ahead, see `BlockTransaction`."""

    @property
    def is_aborted(self) -> bool:
        """Whether a statement is known to have failed, without waiting for others."""

    def has_failed(self) -> bool:
        """Return whether a statement has failed."""

    @property
    def failed_call(self) -> int | None:
        """The call that sent it."""

    @property
    def may_end_in_flight(self) -> bool:
        """Whether what is sent last need not be waited for."""


class _Undone(Exception):
    """A call rejects its candidate, and what it wrote must be undone."""


@dataclass(slots=True)
class Verdicts:
    """What became of a block's candidates, in order; `committed` are the ops as the callbacks see them."""

    ops: OpRows = field(default_factory=OpRows)
    rejections: RejectionRows = field(default_factory=RejectionRows)
    committed: list[Json] = field(default_factory=list)
    inputs: int = 0
    """How many inputs had one of the app's magics, with or without one of its opcodes."""

    def ops_hash(self) -> str:
        """Compute the digest of the ops."""
        return ops_hash_of_digests(self.ops.digests(), lambda leaves: merkle_rows(b"".join(leaves))[-32:])

    def tally(self) -> Tally:
        """Count what became of the inputs."""
        if not self.rejections:
            return Tally(self.inputs, len(self.ops))
        return Tally(self.inputs, len(self.ops), self.rejections.steps, self.rejections.last_reason)

    def reject(self, candidate: Candidate, step: str, rejected: Rejected) -> None:
        """Record a rejection; its reason may quote the hostile input, so it is made storable."""
        reason = legible(rejected.reason, LONGEST_REASON)
        place = candidate.source.txindex, candidate.opcode
        self.rejections.add(Rejection(*place, step, reason, candidate.payload_index))


def must_judge(contract: Contract, candidates: Sequence[Candidate]) -> bool:
    """Return whether a block with these candidates is anything to the app's callbacks."""
    scans_each = contract.scan is not None and not contract.scan.is_sandboxed
    return bool(candidates or scans_each or contract.final)


def judge(
    contract: Contract,
    state: AppState,
    block: Block,
    candidates: Sequence[Candidate],
    care: Care,
    sent: SentAhead,
    lookups: Lookups,
    tracked: Tracked | None = None,
) -> Verdicts:
    """Run an app's callbacks on a block; calls that `care` does not cover have their statements sent ahead.

    `lookups` answers what consensus hashes are of. `tracked` is there if the app tracks outputs. Raises
    NeedsCare if another call needs care, AppHalted if a callback fails, psycopg.Error for a transient fault
    of the database. Whatever is raised, the caller undoes the app's part of the block.
    """
    state.enter(block)
    turns = None
    if tracked is not None:
        assert isinstance(state, TableState), "only an app with tables tracks outputs"
        tracked.learn(state.db_state.rows)
        turns = _Turns(contract, state.db_state.rows, block, tracked)
    try:
        fresh = FreshHashes(contract, lookups, block.block_id)
        with pinned_arithmetic():
            verdicts = _Judge(contract, state, block, care, fresh, turns).judge(candidates)
    except (AppHalted, psycopg.Error) as error:
        if not care.is_complete and not is_transient(error) and sent.has_failed():
            raise NeedsCare(sent.failed_call) from error
        raise
    try:
        state.leave(in_flight=sent.may_end_in_flight)
    except psycopg.Error as error:
        if is_transient(error):
            raise
        if not care.is_complete:
            raise NeedsCare(sent.failed_call) from error
        raise halt(contract, block.block_id, "a deferred constraint", None, error) from error
    except Exception as error:
        raise halt(contract, block.block_id, "the end of the block", None, error) from error
    if sent.is_aborted and not care.is_complete:  # a callback hid that it read after what had failed
        raise NeedsCare(sent.failed_call)
    return verdicts


class _Judge:
    """Runs the callbacks of one app on one block, inside the app's savepoint.

    A call that must be undone, and has no savepoint, raises NeedsCare. A callback that fails
    raises AppHalted; a transient fault of the database raises psycopg.Error.
    """

    def __init__(
        self,
        contract: Contract,
        state: AppState,
        block: Block,
        care: Care,
        fresh: FreshHashes,
        turns: "_Turns | None",
    ) -> None:
        self._contract = contract
        self._state = state
        self._block = block
        self._care = care
        self._fresh = fresh
        self._turns = turns
        self._calls = 0
        """How many calls were made."""
        self._is_large = False
        """Whether the candidates are so large that what was decoded of one is not kept."""
        self._in_turn = False
        """Whether then an op is complete only in its turn, because nobody looks at it at any other time."""
        self._verdicts = Verdicts()
        self._rules: dict[bytes | None, FieldRules] = {}

    def judge(self, candidates: Sequence[Candidate]) -> Verdicts:
        """Take a block's candidates through all steps."""
        size = sum(len(candidate.source.raw) + len(candidate.source.spent) for candidate in candidates)
        self._is_large = size > MOST_KEPT
        self._in_turn = self._is_large and not self._contract.sees_other_ops
        for candidate in candidates:
            candidate.begin(NO_FIELDS)  # the block may have been judged before, with less care
        self._describe(candidates)
        refused: dict[int, Rejected] = {}
        parsed: list[Candidate] = []
        for place, candidate in enumerate(candidates):
            refusal = self._parse(candidate)
            if refusal is None:
                candidate.vtxindex = len(parsed)
                parsed.append(candidate)
            elif self._turns is None:
                self._verdicts.reject(candidate, "parse", refusal)
            else:
                refused[place] = refusal
        self._read_ahead(parsed)
        self._hook("db_scan_block", self._contract.scan, [candidate.op for candidate in parsed])
        self._fresh.read_ahead(parsed)
        if self._turns is None:
            for candidate in parsed:
                self._judge(candidate)
        else:
            for place, candidate in enumerate(candidates):
                if self._turns.begin(candidate):
                    self._judge(candidate, refused.get(place))
                following = candidates[place + 1].source if place + 1 < len(candidates) else None
                if following is not candidate.source:  # of several payloads the last one ends the turn
                    self._turns.end(candidate)
        self._hook("db_final", self._contract.final, self._verdicts.committed)
        return self._verdicts

    def _describe(self, candidates: Sequence[Candidate]) -> None:
        """Prepare what ops show of their transactions."""
        showing = Showing(with_heights="height" in self._contract.needs, tracks=self._turns is not None)
        for _, of_one in groupby(candidates, lambda candidate: id(candidate.source)):
            first, *others = of_one
            first.showing = Described(first.source, showing, is_shared=True) if others else showing
            for other in others:
                other.showing = first.showing

    def _judge(self, candidate: Candidate, refusal: Rejected | None = None) -> None:
        """Take a candidate through check and commit, unless parse has refused it."""
        if refusal is not None:
            self._verdicts.reject(candidate, "parse", refusal)
            return
        if self._in_turn:
            candidate.complete()
        if self._turns is not None:
            candidate.op["virtualchain_spends"] = self._turns.spends
        if self._check(candidate):
            self._commit(candidate)
        if self._in_turn:
            candidate.begin(NO_FIELDS)
            candidate.source.forget()

    def _parse(self, candidate: Candidate) -> Rejected | None:
        """Have a candidate parsed; return why not, if it is refused."""
        limit = self._contract.max_payload
        if limit is not None and candidate.payload is not None and len(candidate.payload) > limit:
            return Rejected(f"a payload of {len(candidate.payload)} bytes; the app takes {limit}")
        op = self._call("db_parse", candidate, self._run_parse)
        if not isinstance(op, Rejected):
            candidate.begin({**op})
            if not self._in_turn:
                candidate.complete()
        if self._is_large:
            candidate.source.forget()
        return op if isinstance(op, Rejected) else None

    def _run_parse(self, candidate: Candidate) -> Json | Rejected:
        item, needs = candidate.source, self._contract.parse_needs
        try:
            op = self._contract.parse(
                item.block_id,
                candidate.opcode,
                candidate.payload,
                candidate.shown.senders() if "senders" in needs else [],
                [spending.as_dict() for spending in read_inputs(item.raw)] if "inputs" in needs else [],
                [output.as_dict() for output in item.outputs] if "outputs" in needs else [],
                item.fee,
                db_state=self._state.db_state,
            )
            if op is None:
                return Rejected("not parsed")
            if isinstance(op, Rejected):
                return op
            if not isinstance(op, dict):
                raise TypeError(
                    f"db_parse returned a {type(op).__name__}: expected a dict, or None ({_PAGE})"
                )
            self._require_storable(candidate.code, op)
        except InvalidOp:  # a ValueError, but the app's own
            raise
        except ValueError as error:
            return Rejected(str(error) or type(error).__name__)
        return op

    def _require_storable(self, code: bytes | None, op: Json) -> None:
        """Refuse what does not fit its type or cannot be stored or hashed, before the app builds on it."""
        to_json(op)
        rules = self._rules_of(code)
        require_types(op, rules.types)
        for name in rules.hashed_fields(op):
            if name in op and name not in rules.types:
                consensus.text_of(op[name], name)

    def _read_ahead(self, parsed: Sequence[Candidate]) -> None:
        """Read the rows that the app says its ops will need."""
        if self._contract.keys is None:
            return
        keys_by_table: dict[str, list[object]] = {}
        for candidate in parsed:
            if self._in_turn:
                candidate.complete()
            try:
                with _CONTAINED:
                    keys = self._contract.keys(self._block.block_id, candidate.opcode, candidate.op)
                    for table, named in keys.items():
                        keys_by_table.setdefault(table, []).extend(named)
            except Exception as error:
                if is_transient(error):  # of a database that it asked for consensus hashes
                    raise
                raise self._halt("db_keys", candidate, error) from error
            if self._in_turn:
                candidate.shed()
        try:
            self._state.read_ahead(keys_by_table)
        except Exception as error:
            if is_transient(error):
                raise
            raise halt(self._contract, self._block.block_id, "db_keys", None, error) from error

    def _check(self, candidate: Candidate) -> bool:
        stale = self._fresh.rejection(candidate)
        verdict = self._call("db_check", candidate, self._run_check) if stale is None else stale
        if isinstance(verdict, Rejected):
            self._verdicts.reject(candidate, "check", verdict)
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
        raise TypeError(
            f"db_check returned a {type(verdict).__name__}: expected True, False or Rejected ({_PAGE})"
        )

    def _commit(self, candidate: Candidate) -> None:
        result = self._call("db_commit", candidate, self._run_commit)
        if isinstance(result, Rejected):
            self._verdicts.reject(candidate, "commit", result)
            return
        ops, op = result
        if not self._in_turn:
            self._verdicts.committed += ops
        self._verdicts.ops.add(op)

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
        if result is not None and not all(isinstance(op, dict) for op in ops):
            kinds = ", ".join(sorted({type(op).__name__ for op in ops}))
            raise TypeError(
                f"db_commit returned {kinds}: expected None, False, a dict or a list of dicts ({_PAGE})"
            )
        plain = [fields_of(op) for op in ops]
        try:
            stored = all_to_json(plain)
            canonical = tuple([self._canonical(candidate, op) for op in plain])
        except InvalidOp:
            raise
        except Unserializable as error:
            raise _Undone(str(error)) from error
        return ops, Op(
            vtxindex=candidate.vtxindex,
            txindex=candidate.source.txindex,
            opcode=candidate.opcode,
            payload=candidate.payload,
            fields=stored if isinstance(result, list) else stored[0],
            canonical=canonical,
            payload_index=candidate.payload_index,
        )

    def _canonical(self, candidate: Candidate, op: Json) -> bytes:
        rules = self._rules_of(candidate.code)
        serialized = consensus.serialize_op(candidate.opcode, op, rules.hashed_fields(op))
        require_types(op, rules.types)
        return serialized

    def _rules_of(self, code: bytes | None) -> FieldRules:
        rules = self._rules.get(code)
        if rules is None:
            rules = self._rules[code] = self._contract.field_rules(self._block.block_id, code)
        return rules

    def _hook(self, name: str, callback: Callback | None, ops: list[Json]) -> None:
        if callback is None:
            return
        self._begin_call()
        try:
            try:
                with _CONTAINED:
                    callback(self._block.block_id, ops, db_state=self._state.db_state)
                self._state.finish_call()
            finally:
                self._raise_hidden_failure()
        except Exception as error:
            if is_transient(error):
                raise
            raise halt(self._contract, self._block.block_id, name, None, error) from error
        self._state.end_call(None)

    def _call(
        self, callback: str, candidate: Candidate, run: Callable[[Candidate], T | Rejected]
    ) -> T | Rejected:
        """Run one callback on a candidate; return its result, or why the candidate is rejected.

        What a call wrote that rejects its candidate is undone.
        """
        is_careful = self._begin_call()
        before = _copied(candidate.op) if is_careful else {}
        try:
            if is_careful:
                with self._state.savepoint():
                    result = self._contained(run, candidate)
            else:
                result = self._contained(run, candidate)
        except Exception as error:
            if is_transient(error):
                raise
            if not isinstance(error, _Undone) and not is_rejection(error):
                raise self._halt(callback, candidate, error) from error
            if not is_careful:
                if isinstance(error, Refused) and not self._state.wrote():
                    return Rejected(str(error))  # as if the callback had returned it: nothing is to be undone
                raise NeedsCare(self._calls - 1) from error
            self._state.undo()
            candidate.op.clear()
            candidate.op.update(before)
            return Rejected(str(error))
        self._state.end_call(candidate)
        return result

    def _contained(self, run: Callable[[Candidate], T | Rejected], candidate: Candidate) -> T | Rejected:
        """Run one callback; raise _Undone if it rejects its candidate and has written."""
        try:
            try:
                result = run(candidate)
            except BaseException as error:
                contain(error)
                raise
            if not isinstance(result, Rejected):
                self._state.finish_call()
        finally:
            self._raise_hidden_failure()
        if isinstance(result, Rejected) and self._state.wrote():
            raise _Undone(result.reason)
        return result

    def _begin_call(self) -> bool:
        """Count a call; return whether it is to have a savepoint."""
        is_careful = self._care.covers(self._calls)
        self._state.begin_call(self._calls, is_careful=is_careful)
        self._calls += 1
        return is_careful

    def _halt(self, callback: str, candidate: Candidate, error: Exception) -> AppHalted:
        """Describe a failed callback and what it was called with: the payload, or the op that it became."""
        fields = fields_of(candidate.op)
        payload = candidate.payload
        content = (
            "without a payload" if payload is None else f"with the payload {payload.hex() or 'of no bytes'}"
        )
        op = _shown(fields) if candidate.op else content
        source, opcode = candidate.source, candidate.opcode
        name = opcode_name(candidate.code)
        return halt(
            self._contract, self._block.block_id, callback, source, error, opcode=opcode, name=name, op=op
        )

    def _raise_hidden_failure(self) -> None:
        """Raise a failed statement after which the transaction cannot continue, even if a callback hid it."""
        failure = self._state.failure()
        if failure is not None:
            raise failure


class _Turns:
    """What each candidate of an app that tracks outputs spends of them at its turn, and what comes of it."""

    def __init__(self, contract: Contract, rows: Tables, block: Block, tracked: Tracked) -> None:
        self._contract = contract
        self._rows = rows
        self._block = block
        self._tracked = tracked
        self.spends: list[int] = []
        """Which inputs of the candidate spend tracked outputs."""
        self._last: Input | None = None
        self._spent: Collection[bytes] = ()
        """What that transaction spent of tracked outputs when its last payload's turn came."""

    def begin(self, candidate: Candidate) -> bool:
        """Find which inputs of a candidate spend tracked outputs; return whether it is one of the app's.

        It is not if its transaction has no payload, spends nothing that was tracked before the block, and, as
        it turns out, nothing that is tracked by now.
        """
        because: Collection[bytes] = self._tracked.seen[candidate.source.txindex]
        if candidate.source is self._last:  # what was untracked then is untracked now
            because = self._spent
        spent = self._rows.tracked(because) if because else set()
        self._last, self._spent = candidate.source, spent
        if candidate.payload is None and not spent and self._tracked.before.isdisjoint(because):
            return False
        spends = split_outpoints(outpoints(candidate.source.raw, 0)) if spent else []
        self.spends = [n for n, each in enumerate(spends) if each in spent]
        return True

    def end(self, candidate: Candidate) -> None:
        """Check that nothing of what the transaction has spent is tracked any more; raises AppHalted."""
        because = self._tracked.seen[candidate.source.txindex]
        left = self._rows.tracked(because) if because else set()
        if left:
            error = ValueError(
                f"output {described(min(left))} is spent by this transaction, and table "
                f"{self._contract.tracks} still has it: a handler must delete the rows of every output that "
                "its transaction spends, whatever becomes of the input"
            )
            raise halt(self._contract, self._block.block_id, "the tracked outputs", candidate.source, error)


def _shown(fields: Json) -> str:
    """Write an op as JSON, or as Python does if it holds other values, even if one cannot be written."""
    for write in (partial(json.dumps, ensure_ascii=False), str):
        with suppress(Exception):  # the value is the app's, and so may be the error
            return write(fields)
    return f"with the fields {', '.join(map(ascii, fields))}"


def _copied(op: Json) -> Json:
    """Copy an op deeply, except for values of the app's that cannot be copied."""
    copied: Json = {}
    for name, value in op.items():
        try:
            copied[name] = deepcopy(value)
        except Exception:  # noqa: BLE001 - the value is the app's, and so may be the error
            copied[name] = value
    return copied

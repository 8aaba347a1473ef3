"""Check the log of a build: ops against ops hashes, these against consensus hashes, and all against the tape.

What needs the app's code is checked if it is at hand: that an op's fields are those that were hashed, that
every candidate has a verdict. Without it, the same is checked as far as the log shows how its app works.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import psycopg
from psycopg.rows import class_row

from virtualchain import consensus
from virtualchain.app.contract import Contract
from virtualchain.audit.fault import Fault, OnProgress, ignore
from virtualchain.bitcoin.payload import (
    envelopes,
    first_op_return,
    last_op_return,
    payloads,
    runestone,
    split_payload,
    takes_coinbase,
)
from virtualchain.consensus import prior_block_ids
from virtualchain.consensus.series import Series
from virtualchain.errors import StoreError, VirtualchainError
from virtualchain.model import FindPayload, Input
from virtualchain.store.log import AppLog
from virtualchain.store.sql import queries
from virtualchain.store.tape import Tape

_Q = queries("audit")
LOWEST: Final = -1
"""The lowest block with digests: an initial snapshot may stand for the place before the first."""
HIGHEST: Final = 2**31 - 1
"""The highest block id: the database stores them as integers."""
_STRETCH: Final = 500
"""Blocks whose inputs are read from the tape at once."""
_FIRST_RULE: Final = "first_op_return:"
_ENVELOPES_RULE: Final = "envelopes:"


@dataclass(frozen=True, slots=True)
class AuditedBuild:
    """A build of an app as the log describes it, to be checked."""

    app: str
    schema: str
    build: str
    is_live: bool
    magics: list[bytes]
    rule: str
    first_block_id: int
    base_block_id: int
    history_from: int
    block_id: int | None
    """Its last block; None if it has no digests yet."""
    opcodes: list[bytes]
    """Those of payloads in its ops and rejections; of a rejection without one, that is not known."""
    keeps_tables: bool
    tracking: str | None
    """What decides which outputs it tracks; None if it tracks none."""
    tracking_from: int | None
    last_code_digest: str | None
    version: str
    valid_window: int
    confirmations: int | None

    @property
    def place(self) -> dict[str, str]:
        """Name it in a query or a fault."""
        return {"app": self.app, "build": self.build}

    def fault(self, message: str, **place: Any) -> Fault:  # noqa: ANN401 - the fields of Fault
        """Make a fault of this build."""
        return Fault(message, app=self.app, build=self.build, **place)


@dataclass(frozen=True, slots=True)
class _Op:
    block_id: int
    vtxindex: int
    txindex: int
    opcode: bytes
    payload: bytes | None
    payload_index: int
    fields: Any
    canonical: list[bytes]

    @property
    def code(self) -> bytes | None:
        """What its fields are declared under: its opcode, or None without a payload."""
        return None if self.payload is None else self.opcode


@dataclass(frozen=True, slots=True)
class _Rejection:
    block_id: int
    txindex: int
    opcode: bytes
    payload_index: int
    step: str


@dataclass(frozen=True, slots=True)
class _Snapshot:
    block_id: int
    ops_hash: str | None
    consensus_hash: str
    state_hash: str | None
    state_number: bytes | None
    is_on_tape: bool


_Row = TypeVar("_Row", _Op, _Rejection)


class _ByBlock(Generic[_Row]):
    """Hands out rows that arrive in the order of blocks, block by block."""

    def __init__(self, rows: Iterator[_Row]) -> None:
        self._rows: Iterator[_Row] = rows
        self._next: _Row | None = next(rows, None)

    def before(self, block_id: int) -> Iterator[_Row]:
        """Yield the rows of lower blocks that were not taken."""
        while (row := self._next) is not None and row.block_id < block_id:
            self._next = next(self._rows, None)
            yield row

    def take(self, block_id: int) -> list[_Row]:
        """Return the rows of a block; those of lower blocks are skipped."""
        return [row for row in self.before(block_id + 1) if row.block_id == block_id]


def audited_builds(
    connection: psycopg.Connection, first: int = LOWEST, last: int = HIGHEST
) -> list[AuditedBuild]:
    """Return every build of every app, the live one of each first.

    Their opcodes are those in blocks `first` to `last`.
    """
    with connection.cursor(row_factory=class_row(AuditedBuild)) as cursor:
        return cursor.execute(_Q["apps"], {"first": first, "last": last}).fetchall()


def check_homes(connection: psycopg.Connection) -> Iterator[Fault]:
    """Yield the builds of which the log has rows, but which do not exist."""
    for table, app, build in connection.execute(_Q["homeless_rows"]).fetchall():
        yield Fault("there is no such build", app=app, build=build, table=table)


def check_log(
    connection: psycopg.Connection,
    build: AuditedBuild,
    contract: Contract | None = None,
    on_progress: OnProgress = ignore,
    first: int = LOWEST,
    last: int = HIGHEST,
) -> Iterator[Fault]:
    """Yield what is wrong with a build's ops, rejections and digests, in blocks `first` to `last`.

    `contract` is that of the code that made the build, if it is at hand. Must run in a transaction.
    """
    yield from _check_tracking(build, contract)
    yield from _check_declared(build, contract)
    stretch = {**build.place, "first": first, "last": last}
    with (
        connection.cursor("audited_ops", row_factory=class_row(_Op)) as ops,
        connection.cursor("audited_rejections", row_factory=class_row(_Rejection)) as rejections,
        connection.cursor("audited_snapshots", row_factory=class_row(_Snapshot)) as snapshots,
    ):
        audit = _LogAudit(
            connection,
            build,
            contract,
            _ByBlock(iter(ops.execute(_Q["ops"], stretch))),
            _ByBlock(iter(rejections.execute(_Q["rejections"], stretch))),
            first,
            last,
        )
        yield from audit.run(snapshots.execute(_Q["snapshots"], stretch), on_progress)
    for block_id, is_in_log, is_on_tape in connection.execute(_Q["checkpoint"], build.place).fetchall():
        if not is_in_log:
            yield build.fault(
                "its digests are not those of the checkpoint that it began with", block_id=block_id
            )
        if not is_on_tape:
            yield build.fault(
                "the tape has another block than the checkpoint that it began with", block_id=block_id
            )


def _check_tracking(build: AuditedBuild, contract: Contract | None) -> Iterator[Fault]:
    """Check what a build says of the rules and the code by which it tracks outputs."""
    if (build.tracking is None) != (build.tracking_from is None):
        yield build.fault("it does not say from which block on it tracks outputs by which rules")
    elif build.tracking_from is not None:
        first, last = build.base_block_id + 1, max(build.base_block_id, build.block_id or 0) + 1
        if not first <= build.tracking_from <= last:
            yield build.fault(
                f"it cannot have tracked outputs by its rules from block {build.tracking_from} on: it began "
                f"with block {first}, and block {last} is its next one"
            )
    if contract is not None and (
        (build.tracking is None) != (contract.tracking is None)
        or (build.last_code_digest == contract.code_digest() and build.tracking != contract.tracking)
    ):
        yield build.fault("the rules and the code by which it tracks outputs are not those of its app")


def _check_declared(build: AuditedBuild, contract: Contract | None) -> Iterator[Fault]:
    """Compare what a build's row says of its app with what the code of the same fingerprint declares."""
    if contract is None:
        return
    for name, recorded, declared in (
        ("version", build.version, contract.version),
        ("magics", sorted(build.magics), sorted(contract.magics)),
        ("valid_window", build.valid_window, contract.window),
        ("confirmations", build.confirmations, contract.confirmations),
    ):
        if recorded != declared:
            yield build.fault(f"its {name} is {recorded}, but its code declares {declared}", table="apps")


class _LogAudit:
    """Walks through a build's digests, and through ops, rejections and inputs beside them."""

    def __init__(
        self,
        connection: psycopg.Connection,
        build: AuditedBuild,
        contract: Contract | None,
        ops: _ByBlock[_Op],
        rejections: _ByBlock[_Rejection],
        first: int,
        last: int,
    ) -> None:
        self._tape = Tape(connection)
        pruned = self._tape.pruned_until()
        self._pruned = -1 if pruned is None else pruned
        """The last block of which inputs cannot be read."""
        self._log = AppLog(connection, build.app, build.build)
        self._first = first
        self._last = min(last, -1 if build.block_id is None else build.block_id)
        self._build = build
        self._contract = contract
        self._ops = ops
        self._rejections = rejections
        self._series = Series(build.first_block_id)
        self._find_payload = payload_rule(build.rule, contract)
        self._opcodes = frozenset(build.opcodes) if contract is None else contract.opcodes
        self._inputs: dict[int, dict[int, Input]] = {}
        self._inputs_until = -1

    def run(self, snapshots: Iterator[_Snapshot], on_progress: OnProgress) -> Iterator[Fault]:
        """Check the digests of the blocks; `snapshots` may begin with those of the block before the first."""
        before: _Snapshot | None = None
        self._begin_series()
        for snapshot in snapshots:
            if snapshot.block_id < self._first:
                before = snapshot
                continue
            yield from self._check_series(snapshot)
            yield from self._check_state(before, snapshot)
            if snapshot.block_id > self._build.base_block_id:
                yield from self._check_block(snapshot)
            before = snapshot
            if snapshot.block_id % _STRETCH == 0:
                on_progress(
                    f"{self._build.app}: digests of block {snapshot.block_id:,} of {self._build.block_id:,}"
                )
        following = max(self._series.following, self._build.base_block_id + 1, self._first)
        for block_id in range(following, self._last + 1):
            yield self._build.fault("its digests are missing", block_id=block_id)
        yield from self._leftovers(HIGHEST + 1)

    def _begin_series(self) -> None:
        """Continue from the hashes that the log has of the blocks before the first one."""
        if self._first == LOWEST:
            return
        first_block_id = self._build.first_block_id
        earlier = {
            prior
            for block_id in range(max(self._first, first_block_id), self._last + 1)
            for prior in prior_block_ids(block_id, first_block_id)
            if prior < self._first
        }
        self._series.initial |= self._log.consensus_at(sorted(earlier))

    def _check_series(self, snapshot: _Snapshot) -> Iterator[Fault]:
        """Check that a block's consensus hash follows from its ops hash and the hashes before it."""
        series, block_id = self._series, snapshot.block_id
        if snapshot.ops_hash is None:
            if series.has_begun:
                yield self._build.fault("its ops hash is missing", block_id=block_id)
                series.append(snapshot.consensus_hash)
            else:
                yield from self._check_initial(snapshot)
                series.initial[block_id] = snapshot.consensus_hash
            return
        while series.following < block_id:
            yield self._build.fault("its digests are missing", block_id=series.following)
            ops = self._ops.take(series.following)
            self._rejections.take(series.following)
            series.append(series.compute(consensus.ops_hash(text for op in ops for text in op.canonical)))
        if series.following > block_id:
            yield self._build.fault("there are digests of it, but the app began later", block_id=block_id)
            return
        computed = series.compute(snapshot.ops_hash)
        if computed != snapshot.consensus_hash:
            yield self._build.fault(
                f"its consensus hash is {snapshot.consensus_hash}, but its ops hash and the hashes before it "
                f"yield {computed}",
                block_id=block_id,
            )
        series.append(computed)

    def _check_initial(self, snapshot: _Snapshot) -> Iterator[Fault]:
        """Compare a hash that the app began with to the one that its code declares."""
        if self._contract is not None:
            declared = self._contract.initial_snapshots.get(snapshot.block_id)
            if declared is not None and declared != snapshot.consensus_hash:
                yield self._build.fault(
                    f"its initial consensus hash is {snapshot.consensus_hash}; the app declares {declared}",
                    block_id=snapshot.block_id,
                )

    def _check_state(self, before: _Snapshot | None, snapshot: _Snapshot) -> Iterator[Fault]:
        """Check a block's state hash against the number stored with it, or the hash before."""
        build, block_id = self._build, snapshot.block_id
        if not build.keeps_tables or (block_id <= build.base_block_id and snapshot.state_number is None):
            return
        if snapshot.state_number is not None:
            expected = hashlib.sha256(snapshot.state_number).hexdigest()
            if snapshot.state_hash != expected:
                yield build.fault(
                    f"its state hash is {snapshot.state_hash}, but the number stored with it has {expected}",
                    block_id=block_id,
                )
        elif (
            before is not None and before.state_hash is not None and snapshot.state_hash != before.state_hash
        ):
            yield build.fault(
                "its state hash is not that of the block before, but no number is stored with it",
                block_id=block_id,
            )
        elif snapshot.state_hash is None:
            yield build.fault("its state hash is missing", block_id=block_id)

    def _leftovers(self, block_id: int) -> Iterator[Fault]:
        """Yield ops and rejections of blocks below one that have no digests."""
        for op in self._ops.before(block_id):
            yield self._fault_of("there is an op of a block without digests", op)
        for rejection in self._rejections.before(block_id):
            yield self._fault_of("there is a rejection of a block without digests", rejection)

    def _check_block(self, snapshot: _Snapshot) -> Iterator[Fault]:
        block_id = snapshot.block_id
        yield from self._leftovers(block_id)
        if not snapshot.is_on_tape:
            yield self._build.fault("it has digests, but is not on the tape", block_id=block_id)
        ops, rejections = self._ops.take(block_id), self._rejections.take(block_id)
        if snapshot.ops_hash is not None:
            ops_hash = consensus.ops_hash(text for op in ops for text in op.canonical)
            if ops_hash != snapshot.ops_hash:
                yield self._build.fault(
                    f"its ops hash is {snapshot.ops_hash}, but its ops have {ops_hash}", block_id=block_id
                )
        for op in ops:
            yield from self._check_fields(op)
        inputs = self._inputs_of(block_id)
        if block_id <= self._pruned:
            return
        yield from self._check_positions(ops, rejections, inputs)
        candidates = {txindex: self._candidates_of(item) for txindex, item in inputs.items()}
        verdicts: list[_Op | _Rejection] = [*ops, *rejections]
        for row in verdicts:
            yield from self._check_origin(row, inputs, candidates)
        judged = {(row.txindex, row.payload_index) for row in verdicts}
        for txindex, splits in candidates.items():
            for number in splits:
                if (txindex, number) not in judged:
                    yield self._build.fault(
                        "it is a candidate, but there is neither an op nor a rejection of it"
                        + (f", by its payload {number}" if len(splits) > 1 else ""),
                        block_id=block_id,
                        txindex=txindex,
                    )

    def _check_positions(
        self, ops: Sequence[_Op], rejections: Sequence[_Rejection], inputs: Mapping[int, Input]
    ) -> Iterator[Fault]:
        """Check that ops are numbered as the parsed candidates of their block.

        A transaction that may have spent a tracked output, and then did not, has a number and no verdict,
        unless parse refused it: so there may be a range of numbers.
        """
        refused = {(row.txindex, row.payload_index): row.step != "parse" for row in rejections}
        accepted = {(op.txindex, op.payload_index): op for op in ops}
        silent = {(txindex, 0) for txindex, item in inputs.items() if self._build.app in item.tracked_by}
        silent -= {(txindex, 0) for txindex, _ in (*refused, *accepted)}
        lowest = highest = 0
        for place in sorted({*refused, *accepted, *silent}):
            op = accepted.get(place)
            if op is None:
                lowest += refused.get(place, False)
                highest += refused.get(place, True)
            elif place in refused:
                yield self._fault_of("it was accepted, and there is a rejection of it", op)
            elif not lowest <= op.vtxindex <= highest:
                yield self._fault_of(
                    f"it is number {lowest} of the candidates of its block that were parsed", op
                )
                lowest, highest = lowest + 1, highest + 1
            else:
                lowest = highest = op.vtxindex + 1

    def _check_fields(self, op: _Op) -> Iterator[Fault]:
        """Check that an op's fields are those that were serialized for its hash."""
        committed = op.fields if isinstance(op.fields, list) else [op.fields]
        if len(committed) != len(op.canonical):
            yield self._fault_of(f"it has {len(committed)} ops, but {len(op.canonical)} were hashed", op)
            return
        for fields, canonical in zip(committed, op.canonical, strict=True):
            texts = _read_op(canonical, op.opcode)
            if texts is None or not isinstance(fields, dict):
                yield self._fault_of("its opcode or its form is not that of the op that was hashed", op)
            elif self._contract is not None:
                names = self._contract.field_rules(op.block_id, op.code).hashed_fields(fields)
                values = [fields.get(name) for name in names]
                if len(names) != len(texts) or not all(map(_is_text_of, texts, values)):
                    yield self._fault_of("its fields are not those that were hashed", op)
            elif not all(any(_is_text_of(text, value) for value in fields.values()) for text in texts):
                yield self._fault_of("its fields are not those that were hashed", op)

    def _check_origin(
        self,
        row: _Op | _Rejection,
        inputs: Mapping[int, Input],
        candidates: Mapping[int, Mapping[int, tuple[bytes, bytes]]],
    ) -> Iterator[Fault]:
        """Check that a verdict is on a candidate of the tape."""
        item = inputs.get(row.txindex)
        if item is None:
            yield self._fault_of("its transaction is not among the inputs of its block", row)
            return
        is_tracked = self._build.tracking is not None and self._build.app in item.tracked_by
        splits = candidates[row.txindex]
        # Of a rejection, only this is known of whether it had a payload.
        may_be_spend = isinstance(row, _Rejection) and (row.opcode, row.payload_index) == (b"", 0)
        if isinstance(row, _Op) and row.payload is None:
            yield from self._check_spend(row, splits, is_tracked=is_tracked)
        elif may_be_spend and is_tracked and not splits:
            return
        elif self._find_payload is not None and self._opcodes:
            yield from self._check_payload(row, splits.get(row.payload_index) or self._other_split(item, row))

    def _check_spend(
        self, op: _Op, candidates: Mapping[int, tuple[bytes, bytes]], *, is_tracked: bool
    ) -> Iterator[Fault]:
        """Check an op without a payload."""
        if not is_tracked:
            yield self._fault_of("it has no payload, and its transaction spends nothing that is tracked", op)
        elif candidates:
            yield self._fault_of("it has no payload, but its transaction has one of the app", op)
        elif (op.opcode, op.payload_index) != (b"", 0):
            yield self._fault_of("it has no payload, but an opcode or the number of a payload", op)

    def _check_payload(self, row: _Op | _Rejection, split: tuple[bytes, bytes] | None) -> Iterator[Fault]:
        """Compare a verdict with the opcode and the rest of the payload that its transaction has."""
        if split is None:
            yield self._fault_of("its transaction has no payload of the app", row)
            return
        opcode, rest = split
        if opcode != row.opcode:
            yield self._fault_of(
                f"its opcode is {row.opcode.hex()}, but its transaction says {opcode.hex()}", row
            )
        if isinstance(row, _Op) and row.payload != rest:
            yield self._fault_of("its payload is not that of its transaction", row)

    def _candidates_of(self, item: Input) -> Mapping[int, tuple[bytes, bytes]]:
        """Return opcode and rest of an input's payloads that are candidates, by their numbers."""
        splits = (
            (number, split_payload(payload, self._build.magics, self._opcodes))
            for number, payload in enumerate(self._payloads_of(item))
        )
        return {number: split for number, split in splits if split is not None}

    def _other_split(self, item: Input, row: _Op | _Rejection) -> tuple[bytes, bytes] | None:
        """Split a payload whose opcode is none of the app's; None if it has none of the app's magics."""
        payload = dict(enumerate(self._payloads_of(item))).get(row.payload_index, b"")
        for magic in self._build.magics:
            if payload.startswith(magic) and len(payload) > len(magic):
                end = len(magic) + (b"" not in self._opcodes)
                return payload[len(magic) : end], payload[end:]
        return None

    def _payloads_of(self, item: Input) -> Sequence[bytes]:
        """Return an input's payloads; none if it is not the app's, or the rule is unknown or fails."""
        find = self._find_payload
        if find is None or set(self._build.magics).isdisjoint(item.magics):
            return ()
        if not (item.txindex or takes_coinbase(find)):
            return ()
        try:
            return payloads(find, item.raw, item.outputs)
        except Exception:  # noqa: BLE001 - a rule of the app's own may raise anything, and halts the app then
            return ()

    def _inputs_of(self, block_id: int) -> Mapping[int, Input]:
        """Return a block's inputs that may be the app's, by txindex; blocks are asked for in order."""
        if block_id > max(self._inputs_until, self._pruned):
            self._inputs_until = min(block_id + _STRETCH - 1, self._last)
            self._inputs = {}
            magics, app = self._build.magics, self._build.app
            try:
                for item in self._tape.inputs(block_id, self._inputs_until, magics, app):
                    self._inputs.setdefault(item.block_id, {})[item.txindex] = item
            except StoreError:  # one is gone that was not pruned: the audit of the tape names it
                self._pruned = self._inputs_until
        return self._inputs.get(block_id, {})

    def _fault_of(self, message: str, row: _Op | _Rejection) -> Fault:
        vtxindex = row.vtxindex if isinstance(row, _Op) else None
        table = "ops" if isinstance(row, _Op) else "rejections"
        return self._build.fault(
            message, table=table, block_id=row.block_id, txindex=row.txindex, vtxindex=vtxindex
        )


def payload_rule(name: str, contract: Contract | None) -> FindPayload | None:
    """Return a payload rule by its name, or the app's own; None if that is not at hand."""
    if contract is not None:
        return contract.find_payload or last_op_return
    for rule in (last_op_return, runestone):
        if name == rule.name:
            return rule
    if name.startswith(_FIRST_RULE):
        return first_op_return(*map(bytes.fromhex, name.removeprefix(_FIRST_RULE).split(",")))
    if name.startswith(_ENVELOPES_RULE):
        return envelopes(bytes.fromhex(name.removeprefix(_ENVELOPES_RULE)))
    return None


def _read_op(serialized: bytes, opcode: bytes) -> list[bytes] | None:
    """Return the texts of the fields of a serialized op; None if it is not one with this opcode."""
    if not serialized.startswith(opcode):
        return None
    rest = serialized.removeprefix(opcode)
    texts = []
    separator = b":"
    while rest not in {b"", b":"}:
        length, colon, after = rest.removeprefix(separator).partition(b":")
        if not rest.startswith(separator) or not colon or not length.isdigit() or int(length) > len(after):
            return None
        texts.append(after[: int(length)])
        rest, separator = after[int(length) :], b","
    return texts


def _is_text_of(text: bytes, value: object) -> bool:
    """Return whether a hashed text is that of a value as jsonb keeps it: a float may look like an int."""
    try:
        if consensus.text_of(value) == text:
            return True
        return type(value) is int and consensus.text_of(float(value)) == text
    except (VirtualchainError, OverflowError):
        return False

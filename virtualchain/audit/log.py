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
from virtualchain.bitcoin.payload import first_op_return, last_op_return
from virtualchain.consensus.series import Series
from virtualchain.errors import VirtualchainError
from virtualchain.model import FindPayload, Input
from virtualchain.store.sql import queries
from virtualchain.store.tape import Tape

_Q = queries("audit")
_STRETCH: Final = 500
"""Blocks whose inputs are read from the tape at once."""
_FIRST_RULE: Final = "first_op_return:"


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
    """Those of its ops and rejections."""
    keeps_tables: bool

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
    payload: bytes
    fields: Any
    canonical: list[bytes]


@dataclass(frozen=True, slots=True)
class _Rejection:
    block_id: int
    txindex: int
    opcode: bytes
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


def audited_builds(connection: psycopg.Connection) -> list[AuditedBuild]:
    """Return every build of every app, the live one of each first."""
    with connection.cursor(row_factory=class_row(AuditedBuild)) as cursor:
        return cursor.execute(_Q["apps"]).fetchall()


def check_log(
    connection: psycopg.Connection,
    build: AuditedBuild,
    contract: Contract | None = None,
    on_progress: OnProgress = ignore,
) -> Iterator[Fault]:
    """Yield what is wrong with a build's ops, rejections and digests.

    `contract` is that of the code that made the build, if it is at hand. Must run in a transaction.
    """
    with (
        connection.cursor("audited_ops", row_factory=class_row(_Op)) as ops,
        connection.cursor("audited_rejections", row_factory=class_row(_Rejection)) as rejections,
        connection.cursor("audited_snapshots", row_factory=class_row(_Snapshot)) as snapshots,
    ):
        audit = _LogAudit(
            connection,
            build,
            contract,
            _ByBlock(iter(ops.execute(_Q["ops"], build.place))),
            _ByBlock(iter(rejections.execute(_Q["rejections"], build.place))),
        )
        yield from audit.run(snapshots.execute(_Q["snapshots"], build.place), on_progress)
    for block_id, is_in_log, is_on_tape in connection.execute(_Q["checkpoint"], build.place).fetchall():
        if not is_in_log:
            yield build.fault(
                "its digests are not those of the checkpoint that it began with", block_id=block_id
            )
        if not is_on_tape:
            yield build.fault(
                "the tape has another block than the checkpoint that it began with", block_id=block_id
            )


class _LogAudit:
    """Walks through a build's digests, and through ops, rejections and inputs beside them."""

    def __init__(
        self,
        connection: psycopg.Connection,
        build: AuditedBuild,
        contract: Contract | None,
        ops: _ByBlock[_Op],
        rejections: _ByBlock[_Rejection],
    ) -> None:
        self._tape = Tape(connection)
        self._build = build
        self._contract = contract
        self._ops = ops
        self._rejections = rejections
        self._series = Series(build.first_block_id)
        self._find_payload = _payload_rule(build.rule, contract)
        self._opcodes = frozenset(build.opcodes) if contract is None else contract.opcodes
        self._inputs: dict[int, dict[int, Input]] = {}
        self._inputs_until = -1

    def run(self, snapshots: Iterator[_Snapshot], on_progress: OnProgress) -> Iterator[Fault]:
        before: _Snapshot | None = None
        for snapshot in snapshots:
            yield from self._check_series(snapshot)
            yield from self._check_state(before, snapshot)
            if snapshot.block_id > self._build.base_block_id:
                yield from self._check_block(snapshot)
            before = snapshot
            if snapshot.block_id % _STRETCH == 0:
                on_progress(
                    f"{self._build.app}: digests of block {snapshot.block_id:,} of {self._build.block_id:,}"
                )
        yield from self._leftovers(2**31)

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
        yield from self._check_positions(ops, rejections)
        for op in ops:
            yield from self._check_fields(op)
        inputs = self._inputs_of(block_id)
        verdicts: list[_Op | _Rejection] = [*ops, *rejections]
        for row in verdicts:
            yield from self._check_origin(row, inputs)
        judged = {row.txindex for row in verdicts}
        for txindex, item in inputs.items():
            if txindex not in judged and self._opcode_of(item) in self._opcodes:
                yield self._build.fault(
                    "it is a candidate, but there is neither an op nor a rejection of it",
                    block_id=block_id,
                    txindex=txindex,
                )

    def _check_positions(self, ops: Sequence[_Op], rejections: Sequence[_Rejection]) -> Iterator[Fault]:
        """Check that ops are numbered as the parsed candidates of their block."""
        refused = {rejection.txindex: rejection.step != "parse" for rejection in rejections}
        parsed = sorted({op.txindex for op in ops} | {txindex for txindex, was in refused.items() if was})
        numbers = {txindex: number for number, txindex in enumerate(parsed)}
        for op in ops:
            if op.txindex in refused:
                yield self._fault_of("it was accepted, and there is a rejection of it", op)
            elif numbers[op.txindex] != op.vtxindex:
                yield self._fault_of(
                    f"it is number {numbers[op.txindex]} of the candidates of its block that were parsed", op
                )

    def _check_fields(self, op: _Op) -> Iterator[Fault]:
        """Check that an op's fields are those that were serialized for its hash."""
        committed = op.fields if isinstance(op.fields, list) else [op.fields]
        if len(committed) != len(op.canonical):
            yield self._fault_of(f"it has {len(committed)} ops, but {len(op.canonical)} were hashed", op)
            return
        for fields, canonical in zip(committed, op.canonical, strict=True):
            opcode, texts = _read_op(canonical)
            if opcode != op.opcode or texts is None or not isinstance(fields, dict):
                yield self._fault_of("its opcode or its form is not that of the op that was hashed", op)
            elif self._contract is not None:
                names = self._contract.hashed_fields(op.block_id, op.opcode, fields)
                values = [fields.get(name) for name in names]
                if len(names) != len(texts) or not all(map(_is_text_of, texts, values)):
                    yield self._fault_of("its fields are not those that were hashed", op)
            elif not all(any(_is_text_of(text, value) for value in fields.values()) for text in texts):
                yield self._fault_of("its fields are not those that were hashed", op)

    def _check_origin(self, row: _Op | _Rejection, inputs: Mapping[int, Input]) -> Iterator[Fault]:
        """Check that a verdict is on a candidate of the tape."""
        item = inputs.get(row.txindex)
        if item is None:
            yield self._fault_of("its transaction is not among the inputs of its block", row)
            return
        if self._find_payload is None:
            return
        split = self._payload_of(item)
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

    def _opcode_of(self, item: Input) -> bytes | None:
        split = self._payload_of(item)
        return None if split is None else split[0]

    def _payload_of(self, item: Input) -> tuple[bytes, bytes] | None:
        """Return the opcode and what follows it in an input; None if its payload is unknown, or another's."""
        if self._find_payload is None:
            return None
        try:
            payload = self._find_payload([output.as_dict() for output in item.outputs])
        except Exception:  # noqa: BLE001 - a rule of the app's own may raise anything, and halts the app then
            return None
        if not isinstance(payload, bytes):
            return None
        # One magic may be the beginning of another: the first one that an opcode of the app follows counts.
        splits = [
            (payload[len(magic) : len(magic) + 1], payload[len(magic) + 1 :])
            for magic in self._build.magics
            if payload.startswith(magic) and len(payload) > len(magic)
        ]
        return next((split for split in splits if split[0] in self._opcodes), next(iter(splits), None))

    def _inputs_of(self, block_id: int) -> Mapping[int, Input]:
        """Return a block's inputs with a magic of the app, by txindex; blocks are asked for in order."""
        if block_id > self._inputs_until:
            self._inputs_until = block_id + _STRETCH - 1
            self._inputs = {}
            for item in self._tape.inputs(block_id, self._inputs_until, self._build.magics, self._build.app):
                self._inputs.setdefault(item.block_id, {})[item.txindex] = item
        return self._inputs.get(block_id, {})

    def _fault_of(self, message: str, row: _Op | _Rejection) -> Fault:
        vtxindex = row.vtxindex if isinstance(row, _Op) else None
        table = "ops" if isinstance(row, _Op) else "rejections"
        return self._build.fault(
            message, table=table, block_id=row.block_id, txindex=row.txindex, vtxindex=vtxindex
        )


def _payload_rule(name: str, contract: Contract | None) -> FindPayload | None:
    """Return a payload rule by its name, or the app's own; None if that is not at hand."""
    if contract is not None:
        return contract.find_payload or last_op_return
    if name == last_op_return.name:
        return last_op_return
    if name.startswith(_FIRST_RULE):
        return first_op_return(*map(bytes.fromhex, name.removeprefix(_FIRST_RULE).split(",")))
    return None


def _read_op(serialized: bytes) -> tuple[bytes, list[bytes] | None]:
    """Split a serialized op into its opcode and the texts of its fields; None if it is not one."""
    opcode, rest = serialized[:1], serialized[1:]
    texts = []
    separator = b":"
    while rest not in {b"", b":"}:
        length, colon, after = rest.removeprefix(separator).partition(b":")
        if not rest.startswith(separator) or not colon or not length.isdigit() or int(length) > len(after):
            return opcode, None
        texts.append(after[: int(length)])
        rest, separator = after[int(length) :], b","
    return opcode, texts


def _is_text_of(text: bytes, value: object) -> bool:
    """Return whether a hashed text is that of a value as jsonb keeps it: a float may look like an int."""
    try:
        if consensus.text_of(value) == text:
            return True
        return type(value) is int and consensus.text_of(float(value)) == text
    except (VirtualchainError, OverflowError):
        return False

"""Compare what the engine made of a scenario with what was recorded, and say where they first differ."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import psycopg

from virtualchain.examples.names.conformance.scenario import RecordedBlock, RecordedOp, Scenario
from virtualchain.store.sql import queries

_Q = queries("names_conformance")
_NONE = "nothing"


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a run first leaves the recorded one."""

    block_id: int | None
    op: str | None
    """The operation: its opcode and its transaction's place, or its place among the accepted ones."""
    field: str
    recorded: str
    found: str

    def __str__(self) -> str:
        place = [f"block {self.block_id}"] if self.block_id is not None else []
        place += [self.op] if self.op is not None else []
        return f"{', '.join([*place, self.field])}: recorded {self.recorded}, found {self.found}"


@dataclass(slots=True)
class Found:
    """What the engine made of one block."""

    accepted: dict[int, str] = field(default_factory=dict)
    """Opcodes by the transactions' places."""
    refused: dict[int, str] = field(default_factory=dict)
    """Steps and reasons by the transactions' places."""
    canonical: list[bytes] = field(default_factory=list)
    """The serialised operations, in order."""
    ops_hash: str = _NONE
    consensus_hash: str = _NONE
    state_hash: str = _NONE


Log = dict[int, Found]


def read_log(connection: psycopg.Connection, app: str) -> Log:
    """Read what the engine made of each block."""
    log: Log = {}
    wanted = {"app": app}
    for block_id, *digests in connection.execute(_Q["digests"], wanted):
        log[block_id] = Found(ops_hash=digests[0], consensus_hash=digests[1], state_hash=digests[2])
    for block_id, txindex, opcode, canonical in connection.execute(_Q["accepted"], wanted):
        log[block_id].accepted[txindex] = opcode.decode("latin-1")
        log[block_id].canonical += canonical
    for block_id, txindex, step, reason in connection.execute(_Q["refused"], wanted):
        log[block_id].refused[txindex] = f"{step}: {reason}"
    return log


def first_difference(scenario: Scenario, log: Log) -> Difference | None:
    """Give the first difference, in order of blocks; None where there is none."""
    return next((found for block in scenario.blocks for found in _differences(block, log)), None)


def _differences(block: RecordedBlock, log: Log) -> Iterator[Difference]:
    found = log.get(block.block_id, Found())
    for tx in block.txs:
        opcode = found.accepted.get(tx.txindex)
        if (opcode is not None) != tx.is_accepted:
            recorded, ours = ("accepted", "refused") if tx.is_accepted else ("refused", "accepted")
            why = found.refused.get(tx.txindex)
            yield Difference(
                block.block_id,
                f"transaction {tx.txindex}" + (f" ({opcode})" if opcode else ""),
                "verdict",
                recorded,
                f"{ours} ({why})" if why else ours,
            )
    for place in range(max(len(block.ops), len(found.canonical))):
        ours_op = read_canonical(found.canonical[place]) if place < len(found.canonical) else None
        theirs = block.ops[place] if place < len(block.ops) else None
        yield from _op_differences(block.block_id, place, theirs, ours_op)
    for name in ("ops_hash", "consensus_hash"):
        if getattr(block, name) != getattr(found, name):
            yield Difference(block.block_id, None, name, getattr(block, name), getattr(found, name))


def _op_differences(
    block_id: int, place: int, recorded: RecordedOp | None, found: RecordedOp | None
) -> Iterator[Difference]:
    opcodes = [_NONE if op is None else op.opcode for op in (recorded, found)]
    if opcodes[0] != opcodes[1]:
        yield Difference(block_id, f"accepted op {place}", "opcode", *opcodes)
    if recorded is None or found is None:
        return
    for number in range(max(len(recorded.fields), len(found.fields))):
        texts = [repr(op.fields[number][1]) if number < len(op.fields) else _NONE for op in (recorded, found)]
        if texts[0] != texts[1]:
            name = recorded.fields[number][0] if number < len(recorded.fields) else f"field {number}"
            yield Difference(block_id, f"accepted op {place} ({opcodes[0]})", name, *texts)


def read_canonical(canonical: bytes) -> RecordedOp:
    """Take a serialised operation apart; its fields have no names in there."""
    opcode, rest = canonical[:1], canonical[2:]
    fields = []
    while rest:
        length, _, rest = rest.partition(b":")
        fields.append(("", rest[: int(length)].decode()))
        rest = rest[int(length) + 1 :]
    return RecordedOp(opcode.decode("latin-1"), tuple(fields))

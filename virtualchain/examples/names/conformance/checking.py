"""Compare the replays of scenarios with their recordings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from virtualchain.examples.names.conformance.replay import (
    BlockResult,
    Log,
    replay,
    replay_with_forks,
)
from virtualchain.examples.names.conformance.scenario import (
    RecordedBlock,
    RecordedOp,
    Scenario,
    read_canonical,
    read_file,
    read_scenario,
    scenario_name,
)
from virtualchain.testing.conformance.checking import NOTHING, Difference, Suite, Task, cloned_database
from virtualchain.testing.database import DatabaseServer


def _read_tasks(file: Path) -> list[Task]:
    """Read the scenarios of a file; raises MalformedScenario."""
    return [
        Task(str(file), scenario_name(content, number), content)
        for number, content in enumerate(read_file(file), start=1)
    ]


def _compare(task: Task, server: DatabaseServer | None) -> Difference | None:
    """Replay a scenario, with a seed a second time over forks; return the first difference."""
    assert server is not None, "all scenarios need one"
    return _difference(read_scenario(task.content, task.name), server, task.seed)


SUITE: Final = Suite(_read_tasks, _compare)
"""The registry's recordings."""


def _difference(scenario: Scenario, server: DatabaseServer, seed: int | None) -> Difference | None:
    with cloned_database(server) as database:
        straight = replay(scenario, database)
    difference = _first_difference(scenario, straight)
    if difference is not None or seed is None:
        return difference
    with cloned_database(server) as database:
        forked = replay_with_forks(scenario, database, seed)
    return _first_difference(scenario, forked) or _state_difference(straight, forked)


def _first_difference(scenario: Scenario, log: Log) -> Difference | None:
    """Return the first difference between a log and the recording, in order of blocks."""
    return next((difference for block in scenario.blocks for difference in _differences(block, log)), None)


def _state_difference(straight: Log, forked: Log) -> Difference | None:
    """Return the first block after which the tables of the two replays differ."""
    for block_id, result in sorted(straight.items()):
        other = forked[block_id].state_hash if block_id in forked else NOTHING
        if other != result.state_hash:
            return Difference(block_id, None, "state_hash after forks", result.state_hash, other)
    return None


def _differences(block: RecordedBlock, log: Log) -> Iterator[Difference]:
    result = log.get(block.block_id, BlockResult())
    for tx in block.txs:
        opcode = result.accepted.get(tx.txindex)
        if (opcode is not None) != tx.is_accepted:
            recorded, actual = ("accepted", "refused") if tx.is_accepted else ("refused", "accepted")
            reason = result.refused.get(tx.txindex)
            yield Difference(
                block.block_id,
                f"transaction {tx.txindex}" + (f" ({opcode})" if opcode else ""),
                "verdict",
                recorded,
                f"{actual} ({reason})" if reason else actual,
            )
    for index in range(max(len(block.ops), len(result.canonical))):
        recorded_op = block.ops[index] if index < len(block.ops) else None
        actual_op = read_canonical(result.canonical[index]) if index < len(result.canonical) else None
        yield from _op_differences(block.block_id, index, recorded_op, actual_op)
    for name in ("ops_hash", "consensus_hash"):
        if getattr(block, name) != getattr(result, name):
            yield Difference(block.block_id, None, name, getattr(block, name), getattr(result, name))


def _op_differences(
    block_id: int, index: int, recorded: RecordedOp | None, actual: RecordedOp | None
) -> Iterator[Difference]:
    opcodes = [NOTHING if op is None else op.opcode for op in (recorded, actual)]
    if opcodes[0] != opcodes[1]:
        yield Difference(block_id, f"accepted op {index}", "opcode", *opcodes)
    if recorded is None or actual is None:
        return
    for number in range(max(len(recorded.fields), len(actual.fields))):
        texts = [
            repr(op.fields[number][1]) if number < len(op.fields) else NOTHING for op in (recorded, actual)
        ]
        if texts[0] != texts[1]:
            name = recorded.fields[number][0] if number < len(recorded.fields) else f"field {number}"
            yield Difference(block_id, f"accepted op {index} ({opcodes[0]})", name, *texts)

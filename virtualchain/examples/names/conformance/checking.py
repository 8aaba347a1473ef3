"""Check scenarios, one by one or in several processes: compare each replay with its recording."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import psycopg

from virtualchain.errors import VirtualchainError
from virtualchain.examples.names.conformance.replay import (
    NOTHING,
    BlockResult,
    Log,
    cloned_database,
    replay,
    replay_with_forks,
)
from virtualchain.examples.names.conformance.scenario import (
    MalformedScenario,
    RecordedBlock,
    RecordedOp,
    Scenario,
    read_canonical,
    read_file,
    read_scenario,
    scenario_name,
)
from virtualchain.model import Json
from virtualchain.testing.database import DatabaseServer

# Tasks and their results.


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference between a replay and its recording."""

    block_id: int | None
    op: str | None
    """The operation: its transaction's txindex and opcode, or its index among the accepted ones."""
    field: str
    recorded: str
    actual: str

    def as_dict(self) -> Json:
        """Return it for JSON."""
        return {
            "block_id": self.block_id,
            "op": self.op,
            "field": self.field,
            "recorded": self.recorded,
            "found": self.actual,
        }

    def __str__(self) -> str:
        location = [f"block {self.block_id}"] if self.block_id is not None else []
        location += [self.op] if self.op is not None else []
        return f"{', '.join([*location, self.field])}: recorded {self.recorded}, found {self.actual}"


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one scenario, or of a file that cannot be read."""

    file: str
    scenario: str | None
    difference: Difference | None = None
    error: str | None = None

    @property
    def has_passed(self) -> bool:
        """Whether everything was as recorded."""
        return self.difference is None and self.error is None

    def as_dict(self) -> Json:
        """Return it for JSON."""
        return {
            "file": self.file,
            "scenario": self.scenario,
            "passed": self.has_passed,
            "difference": None if self.difference is None else self.difference.as_dict(),
            "error": self.error,
        }

    def __str__(self) -> str:
        label = self.file if self.scenario is None else f"{self.file}: {self.scenario}"
        return f"pass {label}" if self.has_passed else f"FAIL {label}: {self.difference or self.error}"


@dataclass(frozen=True, slots=True)
class Task:
    """One scenario to check."""

    file: str
    number: int
    """Its position in the file, from 1 on."""
    content: object
    """The scenario as the file has it, not validated yet."""
    seed: int | None
    """The seed of the forks for a second replay; None for no second replay."""


def read_tasks(file: str, seed: int | None) -> list[Task | Result]:
    """Read the scenarios of a file; a file that cannot be read yields one failed result."""
    try:
        scenarios = read_file(Path(file))
    except MalformedScenario as error:
        return [Result(file, None, error=str(error))]
    return [Task(file, number, content, seed) for number, content in enumerate(scenarios, start=1)]


def check_all(tasks: Sequence[Task | Result], server: DatabaseServer, jobs: int) -> Iterator[Result]:
    """Check scenarios in at most `jobs` processes, and yield their results in order."""
    jobs = min(jobs, sum(isinstance(task, Task) for task in tasks))
    if jobs <= 1:
        yield from (check(task, server) for task in tasks)
        return
    with ProcessPoolExecutor(
        jobs,
        multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(server.url, server.template()),
    ) as pool:
        futures = [pool.submit(_check_in_worker, task) for task in tasks]
        for task, future in zip(tasks, futures, strict=True):
            try:
                yield future.result()
            except BrokenProcessPool:
                yield Result(task.file, None, error="its process died")


def check(task: Task | Result, server: DatabaseServer) -> Result:
    """Check one scenario; every failure becomes a result."""
    if isinstance(task, Result):
        return task
    name = scenario_name(task.content, task.number)
    try:
        return Result(task.file, name, _difference(read_scenario(task.content, name), server, task.seed))
    except MalformedScenario as error:
        return Result(task.file, name, error=f"malformed: {error}")
    except (VirtualchainError, psycopg.Error) as error:
        return Result(task.file, name, error=" ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001 - a bug here fails one scenario, not all
        return Result(task.file, name, error=f"{type(error).__name__}: {error}")


_servers: list[DatabaseServer] = []
"""The server of a worker process."""


def _start_worker(url: str, template: str) -> None:
    _servers.append(DatabaseServer(url, "conformance", template))


def _check_in_worker(task: Task | Result) -> Result:
    return check(task, _servers[0])


# The comparison.


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

"""Judge scenarios one by one or in several processes: what passes, and where the others differ."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from virtualchain.errors import VirtualchainError
from virtualchain.examples.names.conformance.comparing import Difference, first_difference
from virtualchain.examples.names.conformance.forks import replay_with_forks, state_difference
from virtualchain.examples.names.conformance.running import clone, replay
from virtualchain.examples.names.conformance.scenario import (
    MalformedScenario,
    Scenario,
    name_of,
    read_file,
    read_scenario,
)
from virtualchain.model import Json
from virtualchain.testing.database import DatabaseServer


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one scenario, or of a file that has none: neither field where it passed."""

    file: str
    scenario: str | None
    difference: Difference | None = None
    error: str | None = None

    @property
    def has_passed(self) -> bool:
        """Whether all was as recorded."""
        return self.difference is None and self.error is None

    def as_dict(self) -> Json:
        """Give it for JSON."""
        return {
            "file": self.file,
            "scenario": self.scenario,
            "passed": self.has_passed,
            "difference": None if self.difference is None else asdict(self.difference),
            "error": self.error,
        }

    def __str__(self) -> str:
        where = self.file if self.scenario is None else f"{self.file}: {self.scenario}"
        return f"pass {where}" if self.has_passed else f"FAIL {where}: {self.difference or self.error}"


@dataclass(frozen=True, slots=True)
class Task:
    """One scenario to judge, as it stands at a place in its file."""

    file: str
    place: int
    found: object
    seed: int | None
    """Of the forks that it is replayed with a second time; None for none."""


def read_tasks(file: str, seed: int | None) -> list[Task | Result]:
    """Read the scenarios of a file; one that cannot be read has failed."""
    try:
        scenarios = read_file(Path(file))
    except MalformedScenario as error:
        return [Result(file, None, error=str(error))]
    return [Task(file, place, found, seed) for place, found in enumerate(scenarios, start=1)]


def judge_all(tasks: Sequence[Task | Result], server: DatabaseServer, jobs: int) -> Iterator[Result]:
    """Judge scenarios in `jobs` processes at most; their results come in order."""
    jobs = min(jobs, sum(isinstance(task, Task) for task in tasks))
    if jobs <= 1:
        yield from (judge(task, server) for task in tasks)
        return
    with ProcessPoolExecutor(
        jobs,
        multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(server.url, server.template()),
    ) as pool:
        futures = [pool.submit(_judge_in_worker, task) for task in tasks]
        for task, future in zip(tasks, futures, strict=True):
            try:
                yield future.result()
            except BrokenProcessPool:
                yield Result(task.file, None, error="its process died")


def judge(task: Task | Result, server: DatabaseServer) -> Result:
    """Replay one scenario, and say what became of it, whatever happens."""
    if isinstance(task, Result):
        return task
    name = name_of(task.found, task.place)
    try:
        return Result(task.file, name, _difference(read_scenario(task.found, name), server, task.seed))
    except MalformedScenario as error:
        return Result(task.file, name, error=f"malformed: {error}")
    except (VirtualchainError, psycopg.Error) as error:
        return Result(task.file, name, error=" ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001 - a fault of ours fails one scenario, not all
        return Result(task.file, name, error=f"{type(error).__name__}: {error}")


def _difference(scenario: Scenario, server: DatabaseServer, seed: int | None) -> Difference | None:
    with clone(server) as database:
        straight = replay(scenario, database)
    found = first_difference(scenario, straight)
    if found is not None or seed is None:
        return found
    with clone(server) as database:
        forked = replay_with_forks(scenario, database, seed)
    return first_difference(scenario, forked) or state_difference(straight, forked)


_servers: list[DatabaseServer] = []
"""The server of a worker process."""


def _start_worker(url: str, template: str) -> None:
    _servers.append(DatabaseServer(url, "conformance", template))


def _judge_in_worker(task: Task | Result) -> Result:
    return judge(task, _servers[0])

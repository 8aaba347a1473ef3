"""Check recordings, one by one or in several processes, and report the first difference of each."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from virtualchain.errors import VirtualchainError
from virtualchain.model import Json
from virtualchain.testing.conformance.files import MalformedScenario
from virtualchain.testing.database import DatabaseServer

NOTHING: Final = "nothing"
"""What stands for something that is missing in a difference."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference between a replay and its recording."""

    block_id: int | None
    op: str | None
    """What in the block differs, such as an operation; None for the block itself."""
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
class Task:
    """One recording to check."""

    file: str
    name: str
    """How results call it."""
    content: object
    """The recording as the file has it, not validated yet."""
    seed: int | None = None
    """The seed of the forks for a second replay; None for no second replay."""
    needs_database: bool = True


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one recording, or of a file that cannot be read."""

    file: str
    scenario: str | None
    """None: the file cannot be read."""
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
class Suite:
    """A protocol's recordings. Its functions are sent to worker processes, so they must have a module."""

    read: Callable[[Path], Sequence[Task]]
    """Reads a file; raises MalformedScenario if it is not one of recordings."""
    compare: Callable[[Task, DatabaseServer | None], Difference | None]
    """Finds the first difference; raises MalformedScenario. There is a server for a task that needs one."""


def read_tasks(suite: Suite, file: str) -> list[Task | Result]:
    """Read the recordings of a file; a file that cannot be read yields one failed result."""
    try:
        return list(suite.read(Path(file)))
    except MalformedScenario as error:
        return [Result(file, None, error=str(error))]


def check_all(
    suite: Suite, tasks: Sequence[Task | Result], server: DatabaseServer | None, jobs: int
) -> Iterator[Result]:
    """Check recordings, in at most `jobs` processes if they need a database; yield their results in order."""
    jobs = min(jobs, sum(isinstance(task, Task) and task.needs_database for task in tasks))
    if jobs <= 1 or server is None:
        yield from (check(suite, task, server) for task in tasks)
        return
    with _workers(suite, server, jobs) as pool:
        futures = [
            pool.submit(_check_in_worker, task) if isinstance(task, Task) and task.needs_database else None
            for task in tasks
        ]
        for task, future in zip(tasks, futures, strict=True):
            yield check(suite, task, server) if future is None else _result_of(task, future)


def check(suite: Suite, task: Task | Result, server: DatabaseServer | None) -> Result:
    """Check one recording; every failure becomes a result."""
    if isinstance(task, Result):
        return task
    try:
        return Result(task.file, task.name, suite.compare(task, server))
    except MalformedScenario as error:
        return Result(task.file, task.name, error=f"malformed: {error}")
    except (VirtualchainError, psycopg.Error) as error:
        return Result(task.file, task.name, error=" ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001 - a bug here fails one recording, not all
        return Result(task.file, task.name, error=f"{type(error).__name__}: {error}")


# Worker processes.

_context: list[tuple[Suite, DatabaseServer]] = []
"""The suite and the server of a worker process."""


@contextmanager
def _workers(suite: Suite, server: DatabaseServer, jobs: int) -> Iterator[ProcessPoolExecutor]:
    arguments = (suite, server.url, server.template())
    method = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, method, initializer=_start_worker, initargs=arguments) as pool:
        yield pool


def _start_worker(suite: Suite, url: str, template: str) -> None:
    _context.append((suite, DatabaseServer(url, "conformance", template)))


def _check_in_worker(task: Task) -> Result:
    suite, server = _context[0]
    return check(suite, task, server)


def _result_of(task: Task | Result, future: Future[Result]) -> Result:
    try:
        return future.result()
    except BrokenProcessPool:
        return Result(task.file, None if isinstance(task, Result) else task.name, error="its process died")


@contextmanager
def cloned_database(server: DatabaseServer) -> Iterator[str]:
    """Clone the server's template database, and drop the clone at the end."""
    database = server.clone()
    try:
        yield database
    finally:
        server.drop(database)

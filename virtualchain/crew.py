"""Processes that work for this one: they take jobs, and end with it.

A process that ends over its job costs no more than the job, which another one is given then. A job that has
ended several processes is not tried again.
"""

import multiprocessing
import pickle
import signal
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Final, Generic, NoReturn, Self, TypeVar

from virtualchain.errors import VirtualchainError

J = TypeVar("J")
R = TypeVar("R")

MOST_LOSSES: Final = 3
"""How many processes a job may cost."""
_GRACE: Final = 3.0
"""Seconds that a process has to end."""
# A fork of a process with threads can wait forever for what they hold.
_CONTEXT: Final = multiprocessing.get_context("spawn")


class Lost(VirtualchainError):
    """A process ended over its job; `how` is how the last one did."""

    def __init__(self, how: str, job: Any = None) -> None:  # noqa: ANN401 - whatever a crew is given
        super().__init__(f"a process of this command ended {how}: start the command again")
        self.how = how
        self.job = job


class Crew(Generic[J, R]):
    """Up to `workers` processes that call `function`, which must be a module's own; use it in a `with`.

    They are started when there is work for them. What `function` raises is raised here.
    """

    def __init__(
        self, function: Callable[[J], R], workers: int, is_short: Callable[[J], bool] = lambda _: False
    ) -> None:
        """Begin without processes; a job that `is_short` is done in this one by `in_order`."""
        self._function = function
        self._workers = workers
        self._is_short = is_short
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._all:
            process.end()

    def in_order(self, jobs: Iterable[J]) -> Iterator[R]:
        """Yield the results of jobs in their order; a single one is done in this process.

        Each process has one job at a time, and none is taken before there is a process for it. An error of
        `jobs` is raised after the results of those before. Raises Lost if a process ends.
        """
        failed: list[Exception] = []
        remaining = _until_error(jobs, failed)
        first = list(islice(remaining, 2))
        every: Iterator[J] = chain(first, remaining)
        busy: deque[Callable[[], R]] = deque()
        if len(first) == 1 or self._workers == 1:
            yield from map(self._function, every)
            every = iter(())
        for job in every:
            if len(busy) < self._workers:
                busy.append(self._taking(job))
            else:
                result = busy.popleft()()
                busy.append(self._taking(job))
                yield result
        while busy:
            yield busy.popleft()()
        if failed:
            raise failed[0]

    def as_done(self, jobs: Sequence[J], lost: Callable[[J, str], None]) -> Generator[J, None, None]:
        """Yield each job once it is done, in any order; one whose process ended is given to another.

        `lost` is called with it, and how the process ended. Raises Lost for a job that costs one process
        after another.
        """
        waiting = deque(enumerate(jobs))
        losses = Counter[int]()
        busy: dict[Any, tuple[_Process, int, J]] = {}
        while waiting or busy:
            while waiting and len(busy) < self._workers:
                number, job = waiting.popleft()
                process = self._begin(job)
                busy[process.connection] = process, number, job
            for connection in wait(list(busy)):
                process, number, job = busy.pop(connection)
                try:
                    self._take(process)
                except Lost as error:
                    losses[number] += 1
                    if losses[number] == MOST_LOSSES:
                        raise Lost(error.how, job) from None
                    lost(job, error.how)
                    waiting.appendleft((number, job))
                else:
                    yield job

    def _taking(self, job: J) -> Callable[[], R]:
        """Begin a job, or do one that is short; return what waits for the result."""
        if not self._is_short(job):
            return partial(self._take, self._begin(job))
        try:
            result = self._function(job)
        except Exception as error:  # noqa: BLE001 - it is raised in its turn
            return partial(_raise, error)
        return lambda: result

    def _begin(self, job: J) -> "_Process":
        process = self._idle.pop() if self._idle else _Process(self._function)
        self._all.add(process)
        process.begin(job)
        return process

    def _take(self, process: "_Process") -> R:
        """Wait for a process's result."""
        try:
            error, result = process.connection.recv()
        except (EOFError, OSError):
            self._all.remove(process)
            raise Lost(process.end()) from None
        self._idle.append(process)
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]  # what the function returned


def _raise(error: Exception) -> NoReturn:
    raise error


def _until_error(jobs: Iterable[J], failed: list[Exception]) -> Iterator[J]:
    """Yield jobs; an error that ends them goes into `failed`."""
    try:
        yield from jobs
    except Exception as error:  # noqa: BLE001 - it is raised in its turn
        failed.append(error)


class _Process:
    """A process that does one job after the other."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, function), daemon=True)
        # Ctrl-C on a terminal is for all of its processes, but this one ends the others.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()  # it inherits the mask
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()

    def begin(self, job: object) -> None:
        """Have it do a job; a process that is gone is noticed when its result is waited for."""
        with suppress(OSError):
            self.connection.send(job)

    def end(self) -> str:
        """End it, unless it has ended; return how it did."""
        self.connection.close()
        self._process.terminate()
        self._process.join(_GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        code = self._process.exitcode
        return f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"


def _serve(connection: Connection, function: Callable[[object], object]) -> None:
    """Do the jobs that this process is given, until there is nobody who gives them."""
    with suppress(EOFError, OSError):
        while True:
            job = connection.recv()
            try:
                result = function(job)
            except Exception as error:  # noqa: BLE001 - an app's own code may raise anything
                connection.send((_portable(error), None))
            else:
                connection.send((None, result))


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent to another process."""
    try:
        copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - it was just made
    except Exception:  # noqa: BLE001 - an app's own error may be anything
        return VirtualchainError(f"{type(error).__name__}: {error}")
    return error if type(copied) is type(error) else VirtualchainError(str(error))

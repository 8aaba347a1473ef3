"""Who scans the files: processes on this machine, or a Dask cluster.

A process that ends while it scans costs its file, which another one then scans. A file that has ended several
processes is not tried again.
"""

import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Final

from virtualchain.errors import NodeError, UsageError
from virtualchain.transfer.parts import Job, scan_file

MOST_LOSSES: Final = 3
"""How many processes a file may cost."""
_GRACE: Final = 3.0
"""Seconds that a process has to end."""
# A fork of a process with threads can wait forever for what they hold.
_CONTEXT: Final = multiprocessing.get_context("spawn")

Lost = Callable[[Job, str], None]
"""Called with a file whose worker was lost, and how."""


def scan_here(jobs: Sequence[Job], workers: int, lost: Lost) -> Generator[Job, None, None]:
    """Scan files in so many processes; yield each job once it is done, in any order.

    Raises what a worker raises, and NodeError for a file that costs one process after another. Close the
    generator to end the processes.
    """
    waiting, losses = deque(jobs), Counter[int]()
    crew: dict[Connection, _Process] = {}
    try:
        while waiting or crew:
            while waiting and len(crew) < workers:
                process = _Process()
                crew[process.connection] = process
                process.begin(waiting.popleft())
            for connection in wait(list(crew)):
                process = crew[connection]  # type: ignore[index]  # it is one of ours
                job = process.job
                try:
                    error = process.connection.recv()
                except (EOFError, OSError):
                    del crew[process.connection]
                    how = process.end()
                    losses[job.file] += 1
                    if losses[job.file] == MOST_LOSSES:
                        raise _deadly(job, how) from None
                    lost(job, how)
                    waiting.appendleft(job)
                    continue
                if error is not None:
                    raise error
                if waiting:
                    process.begin(waiting.popleft())
                else:
                    del crew[process.connection]
                    process.end()
                yield job
    finally:
        for process in crew.values():
            process.end()


def name_of(job: Job) -> str:
    """Return the name of a job's block file."""
    return f"blk{job.file:05}.dat"


def _deadly(job: Job, how: str) -> NodeError:
    return NodeError(
        f"{name_of(job)} was not scanned: {MOST_LOSSES} processes ended over it, the last {how}. If the "
        "machine ran out of memory, start the scan again with fewer --workers: it goes on with this file"
    )


class _Process:
    """A process that scans one file after the other, and ends with this one."""

    def __init__(self) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self.job: Job

    def begin(self, job: Job) -> None:
        """Have it scan a file; a process that is gone is noticed when it is waited for."""
        self.job = job
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


def _serve(connection: Connection) -> None:
    """Scan the files that this process is given, until there is nobody who gives them."""
    # Ctrl-C on a terminal is for the process that started this one, too: it ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        while True:
            job: Job = connection.recv()
            try:
                scan_file(job)
            except Exception as error:  # noqa: BLE001 - the app's own code may raise anything
                connection.send(_portable(error))
            else:
                connection.send(None)


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent to another process."""
    try:
        multiprocessing.reduction.ForkingPickler.loads(multiprocessing.reduction.ForkingPickler.dumps(error))
    except Exception:  # noqa: BLE001 - an app's own error may be anything
        return NodeError(f"{type(error).__name__}: {error}")
    return error


def scan_by_dask(address: str, jobs: Sequence[Job]) -> Generator[Job, None, None]:
    """Scan files on a Dask cluster; yield each job once it is done, in any order.

    Its workers must reach the block files and the folder of the scan by the same paths. Raises UsageError
    without Dask or without a cluster at the address, what a worker raises, and NodeError for a file that
    costs one worker after another.
    """
    try:
        from dask.distributed import Client, as_completed  # noqa: PLC0415 - an extra
        from distributed.scheduler import KilledWorker  # noqa: PLC0415 - the same
    except ImportError as error:
        raise UsageError(f"--dask needs Dask ({error}): pip install 'virtualchain[dask]'") from error
    try:
        client = Client(address)
    except (OSError, ValueError) as error:
        raise UsageError(f"there is no Dask scheduler at {address}: {error}") from error
    with client:
        futures = {
            client.submit(scan_file, job, key=f"scan-{job.part}", pure=False, retries=0): job for job in jobs
        }
        try:
            for future in as_completed(list(futures)):
                try:
                    future.result()
                except KilledWorker as error:
                    raise _deadly(futures[future], "on the cluster") from error
                yield futures[future]
        finally:
            client.cancel(list(futures), force=True)

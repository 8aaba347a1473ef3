"""Who scans the files: processes on this machine, or a Dask cluster."""

from collections.abc import Callable, Generator, Sequence

from virtualchain.crew import MOST_LOSSES, Crew, Lost
from virtualchain.errors import NodeError, UsageError
from virtualchain.transfer.parts import Job, scan_file


def scan_here(jobs: Sequence[Job], workers: int, lost: Callable[[str], None]) -> Generator[Job, None, None]:
    """Scan files in so many processes; yield each job once it is done, in any order.

    `lost` is called with what to say of a process that ended. Raises what a worker raises, and NodeError for
    a file that costs one process after another. Close the generator to end the processes.
    """

    def again(job: Job, how: str) -> None:
        lost(f"a process that scanned blk{job.file:05}.dat ended {how}: the file is scanned again")

    with Crew(scan_file, workers) as crew:
        try:
            yield from crew.as_done(jobs, again)
        except Lost as error:
            raise _deadly(error.job, f"ended {error.how}") from None


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
        futures = {client.submit(scan_file, job, key=f"scan-{job.part}", pure=False): job for job in jobs}
        try:
            for future in as_completed(list(futures)):
                try:
                    future.result()
                except KilledWorker as error:
                    raise _deadly(futures[future], "on the cluster") from error
                yield futures[future]
        finally:
            client.cancel(list(futures), force=True)


def _deadly(job: Job, how: str) -> NodeError:
    return NodeError(
        f"blk{job.file:05}.dat was not scanned: it cost {MOST_LOSSES} workers or more, the last {how}. If "
        "they ran out of memory, start the scan again with fewer --workers: it goes on with what is left"
    )

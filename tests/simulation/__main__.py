"""Run simulations from the command line; exit with 1 at the first difference.

    python -m tests.simulation --seed 1 --runs 200 --jobs 2
    python -m tests.simulation --seed 7 --verbose
    python -m tests.simulation --sweep

Each run has its own seed, counted up from the first, from which alone its steps are drawn. A run that failed
can therefore be repeated by its seed, with every step printed. Each job has a database server of its own,
which is also restarted and crashed. At the end, a table shows which fault struck at which step. A sweep lets
every fault strike at each step in turn.
"""

# This is a program and prints:
# ruff: noqa: T201

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import count
from multiprocessing import get_context
from pathlib import Path

from tests.simulation.faults import report
from tests.simulation.steps import NAMES
from tests.simulation.worker import OwnServer, Result, run, start_server


def main() -> int:
    """Run the command and return its exit code: 0 if nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1, help="the first run's seed")
    parser.add_argument("--runs", type=int, default=1, help="the number of runs, each with the next seed")
    parser.add_argument("--minutes", type=float, help="start no run after this time; in place of --runs")
    parser.add_argument("--jobs", type=int, default=1, help="the number of runs at the same time")
    parser.add_argument("--steps", type=int, help="steps of each run (default: drawn from the seed)")
    parser.add_argument(
        "--sweep", nargs="*", metavar="STEP", help="let every fault strike at these steps, or at all"
    )
    parser.add_argument("--verbose", action="store_true", help="print every step as it is performed")
    options = parser.parse_args()
    struck: Counter[tuple[str, str]] = Counter()
    runs = missed = 0
    for result in results(options):
        runs, missed = runs + 1, missed + result.missed
        struck.update(result.struck)
        if not options.verbose:
            for line in result.log if result.error else result.log[-1:]:
                print(line, flush=True)
        if result.error:
            seed = result.seed
            again = f"--sweep {seed!r}" if isinstance(seed, str) else f"--seed {seed}"
            print(f"{result.error}\n{seed} failed: python -m tests.simulation {again} --verbose")
            return 1
    kills = sum(times for (fault, _), times in struck.items() if fault == "kill")
    print(report(struck))
    print(f"{runs} runs, {kills} SIGKILLs, {missed} faults whose step was not reached")
    return 0


def results(options: argparse.Namespace) -> Iterator[Result]:
    """Run the simulations that the options ask for."""
    until = None if options.minutes is None else time.monotonic() + options.minutes * 60
    end = None if until is not None else options.seed + options.runs
    seeds: Iterable[int | str] = count(options.seed) if options.sweep is None else options.sweep or NAMES
    with workers(options.jobs) as pool:
        running: set[Future[Result]] = set()
        for seed in seeds:
            if seed == end or (until is not None and time.monotonic() > until):
                break
            running.add(pool.submit(run, seed, options.steps, options.verbose))
            if len(running) == options.jobs:
                ready, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in ready)
        yield from (future.result() for future in running)


@contextmanager
def workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Start worker processes, each with a database server of its own."""
    context = get_context("spawn")
    folders = [Path(tempfile.mkdtemp(prefix="virtualchain-simulation-")) for _ in range(jobs)]
    queue = context.Queue()
    for folder in folders:
        folder.chmod(0o711)  # the server may run as another user
        queue.put(folder)
    try:
        with ProcessPoolExecutor(
            jobs, mp_context=context, initializer=start_server, initargs=(queue,)
        ) as pool:
            yield pool
    finally:
        for folder in folders:
            OwnServer(folder).close()


if __name__ == "__main__":
    sys.exit(main())

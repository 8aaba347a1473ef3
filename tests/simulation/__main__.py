"""Run simulations from the command line; 1 at the first difference.

    python -m tests.simulation --seed 1 --runs 200 --jobs 2
    python -m tests.simulation --seed 7 --verbose
    python -m tests.simulation --sweep

Each run has its own seed, counted up from the first: its steps are drawn from that alone, so the run that is
named as the one that failed can be run again by itself, with every step told. Each job has a database server
of its own, which is restarted and crashed, too. At the end a table tells which fault met which step. A sweep
has each step meet every fault in turn.
"""

# It is a program, and prints:
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

from tests.simulation.bench import Bench, Result, run, take
from tests.simulation.coverage import report
from tests.simulation.probe import NAMES


def main() -> int:
    """Run from the command line; 0 where nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1, help="the first run's seed")
    parser.add_argument("--runs", type=int, default=1, help="how many runs, each with the next seed")
    parser.add_argument("--minutes", type=float, help="begin no further run after that; in place of --runs")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once")
    parser.add_argument(
        "--steps", type=int, help="how many steps each run has (default: drawn from the seed)"
    )
    parser.add_argument(
        "--sweep", nargs="*", metavar="STEP", help="have these steps, or all, meet every fault"
    )
    parser.add_argument("--verbose", action="store_true", help="tell every step while it is done")
    given = parser.parse_args()
    met: Counter[tuple[str, str]] = Counter()
    done = unmet = 0
    for seed, told, its_met, its_unmet, trouble in results(given):
        done, unmet = done + 1, unmet + its_unmet
        met.update(its_met)
        for text in () if given.verbose else told if trouble else told[-1:]:
            print(text, flush=True)
        if trouble:
            again = f"--sweep {seed!r}" if isinstance(seed, str) else f"--seed {seed}"
            print(f"{trouble}\n{seed} failed: python -m tests.simulation {again} --verbose")
            return 1
    kills = sum(times for (fault, _), times in met.items() if fault == "kill")
    print(report(met))
    print(f"{done} runs, {kills} SIGKILLs, {unmet} faults whose step did not come")
    return 0


def results(given: argparse.Namespace) -> Iterator[Result]:
    """Run simulations until there are no more to run."""
    until = None if given.minutes is None else time.monotonic() + given.minutes * 60
    last = None if until is not None else given.seed + given.runs
    seeds: Iterable[int | str] = count(given.seed) if given.sweep is None else given.sweep or NAMES
    with workers(given.jobs) as pool:
        running: set[Future[Result]] = set()
        for seed in seeds:
            if seed == last or (until is not None and time.monotonic() > until):
                break
            running.add(pool.submit(run, seed, given.steps, given.verbose))
            if len(running) == given.jobs:
                ready, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in ready)
        yield from (each.result() for each in running)


@contextmanager
def workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Return processes, each of which has a bench."""
    context = get_context("spawn")
    folders = [Path(tempfile.mkdtemp(prefix="virtualchain-simulation-")) for _ in range(jobs)]
    queue = context.Queue()
    for folder in folders:
        folder.chmod(0o711)  # the server may run as another user
        queue.put(folder)
    try:
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=take, initargs=(queue,)) as pool:
            yield pool
    finally:
        for folder in folders:
            Bench(folder).close()


if __name__ == "__main__":
    sys.exit(main())

"""Run a deployment for weeks of chain in an hour, let everything happen to it, and report what it used.

    python -m tests.soak [--weeks 26] [--minutes 60] [--seed 1] [--json] [--page]

A day is 144 blocks with a few inputs each; each day something else happens: forks of unconfirmed blocks
and deep ones, restarts, kill -9, a node of another version, restarts and crashes of the database server,
clocks set wrong, a full disk, a disk that hangs. After each day the deployment must have caught up, and is
measured: memory, file handles, threads and sessions of `virtualchain run`, memory of its server process,
lines of its log, size of the database, dead rows, write-ahead log. At the end, hashes must be those of a
deployment that takes the final chain at once, and `virtualchain verify` must find nothing.

It ends after `--weeks` or `--minutes`, whichever comes first. `--page` writes docs/soak.md. For a full disk
it must be able to mount one (as root), and for wrong clocks it needs Debian's `libfaketime`; the report says
what was left out.
"""

# This is a program and prints:
# ruff: noqa: T201

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from random import Random

from tests.soak.measuring import Sample, differences, sample
from tests.soak.report import page, table
from tests.soak.service import DAY, EVENTS, Service


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 1 if the hashes differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--weeks", type=int, default=26, help="weeks of chain (default: 26)")
    parser.add_argument("--minutes", type=float, default=60, help="begin no day after this time")
    parser.add_argument("--seed", type=int, default=1, help="from which everything is drawn")
    parser.add_argument("--day", type=int, default=DAY, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--page", action="store_true", help="write docs/soak.md")
    options = parser.parse_args(arguments)
    samples, differs, left_out = soak(options.weeks * 7, options.minutes * 60, options.seed, options.day)
    if options.page:
        file = Path(__file__).parents[2] / "docs" / "soak.md"
        file.write_text(page(samples, differs, left_out, datetime.now(UTC).date()), encoding="utf-8")
    if options.json:
        days = [asdict(each) for each in samples]
        print(json.dumps({"days": days, "differences": differs, "left_out": left_out}))
    else:
        print(table(samples))
        print("\n".join(differs) or "the hashes are those of an undisturbed deployment")
    return 1 if differs else 0


def soak(
    days: int, seconds: float, seed: int, blocks_a_day: int
) -> tuple[list[Sample], list[str], list[str]]:
    """Let days pass; return their samples, how the end differs, and what was left out."""
    folder = Path(tempfile.mkdtemp(prefix="virtualchain-soak-"))
    folder.chmod(0o711)
    began = time.monotonic()
    with ExitStack() as opened:
        opened.callback(shutil.rmtree, folder)
        service = opened.enter_context(closing(Service(folder, Random(seed))))
        samples: list[Sample] = []
        for day, (event, happen) in zip(range(days), cycle(EVENTS.items()), strict=False):
            if samples and time.monotonic() - began > seconds:
                break
            service.mine(blocks_a_day // 2)
            happen(service)
            service.mine(blocks_a_day - blocks_a_day // 2)
            service.until_caught_up()
            samples.append(sample(service, day + 1, event, samples[-1] if samples else None))
            print(f"day {day + 1}: {event}", file=sys.stderr, flush=True)
        left_out = [] if service.has_own_disk else ["full disk"]
        left_out += [] if service.has_own_clock else ["clock set wrong"]
        return samples, differences(service), left_out


if __name__ == "__main__":
    sys.exit(main())

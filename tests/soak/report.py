"""The report of a soak: a table with a line for each week, and whether anything grew that should not."""

import statistics
import textwrap
from collections.abc import Callable, Sequence
from datetime import date
from typing import Final

from tests.soak.measuring import Sample
from tests.soak.service import EVENTS

_MEGABYTE: Final = 1_000_000
_COLUMNS: Final[dict[str, Callable[[Sample], str]]] = {
    "day": lambda each: str(each.day),
    "block": lambda each: f"{each.height:,}",
    "ops": lambda each: f"{each.ops:,}",
    "memory, MB": lambda each: f"{each.memory / _MEGABYTE:.0f}",
    "handles": lambda each: str(each.handles),
    "threads": lambda each: str(each.threads),
    "sessions": lambda each: str(each.sessions),
    "server process, MB": lambda each: f"{each.server_memory / _MEGABYTE:.0f}",
    "log lines a day": lambda each: f"{each.log_lines:,}",
    "database, MB": lambda each: f"{each.database / _MEGABYTE:.1f}",
    "500 rows, kB": lambda each: f"{each.accounts_table / 1000:.0f}",
    "dead rows, %": lambda each: f"{100 * each.dead:.0f}",
    "WAL, MB": lambda each: f"{each.write_ahead_log / _MEGABYTE:.0f}",
    "started again": lambda each: str(each.restarts),
}
_LEVEL: Final[dict[str, Callable[[Sample], float]]] = {
    "memory of `run`": lambda each: each.memory,
    "file handles": lambda each: each.handles,
    "threads": lambda each: each.threads,
    "sessions": lambda each: each.sessions,
    "memory of its server process": lambda each: each.server_memory,
    "log lines a day": lambda each: each.log_lines,
    "a table of 500 rows": lambda each: each.accounts_table,
    "write-ahead log": lambda each: each.write_ahead_log,
}


_ALIKE: Final = """At the end, all hashes, ops and rejections were those of a deployment that took the final
chain at once, and `virtualchain verify` found nothing."""
_PAGE: Final = """# Years in minutes

`python -m tests.soak --page` writes this page. It lets weeks of chain pass in less than an hour, 144 blocks a
day, and something happens on each day: {happened}.{missing}

Measured on {date}: {last.day} days, {last.height:,} blocks, {last.ops:,} ops of two apps. `run` was started
again {last.restarts} times, after it was killed or had ended because of a fault. {end}

## What was used

After each day the deployment had to catch up; then it was measured. The table has the last day of each week.

{table}

The database grows with its ops. What should stay level is compared here: the median of the last third of the
days, divided by that of the second third.

| | last / second third |
|---|--:|
{ratios}
"""


def table(samples: Sequence[Sample]) -> str:
    """Write the last day of each week as a Markdown table."""
    weeks = [each for each in samples if each.day % 7 == 0] or list(samples)
    lines = [_line(list(_COLUMNS)), _line(["--:"] * len(_COLUMNS))]
    return "\n".join(lines + [_line([show(each) for show in _COLUMNS.values()]) for each in weeks])


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """Return what should stay level: the median of the last third of the days, by that of the second."""
    third = max(len(samples) // 3, 1)
    middle, last = samples[-2 * third : -third] or samples, samples[-third:]
    return {
        name: statistics.median(map(value, last)) / max(statistics.median(map(value, middle)), 1)
        for name, value in _LEVEL.items()
    }


def page(samples: Sequence[Sample], differs: Sequence[str], left_out: Sequence[str], day: date) -> str:
    """Write the page."""
    text = _PAGE.format(
        happened=", ".join(name for name in EVENTS if name not in left_out),
        missing=f" Not tried: {', '.join(left_out)}." if left_out else "",
        date=day,
        last=samples[-1],
        end=f"They did **not** end alike: {'; '.join(differs)}" if differs else _ALIKE,
        table=table(samples),
        ratios="\n".join(f"| {name} | {ratio:.2f} |" for name, ratio in growth(samples).items()),
    )
    parts = text.removesuffix("\n").split("\n\n")
    wrapped = (part if part.startswith("|") else textwrap.fill(part, 120) for part in parts)
    return "\n\n".join(wrapped) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

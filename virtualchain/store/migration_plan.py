"""What an upgrade of the schema is about to do: its steps, what they lock, and how long they may take."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import psycopg

from virtualchain.store.revision import head, known
from virtualchain.store.sql import migrations_root, queries


@dataclass(frozen=True, slots=True)
class Step:
    """A step of an upgrade.

    `locks` are the tables and views that nobody can read from this step on until the upgrade ends, `rows` the
    estimated number of rows of the tables that it reads or writes as a whole, `seconds` what that may take.
    """

    revision: str
    locks: tuple[str, ...]
    rows: Mapping[str, int]
    seconds: float


def plan(connection: psycopg.Connection, revision: str) -> list[Step]:
    """Return the steps from `revision` to the one that this code needs; the tables' sizes are estimated."""
    costs = _costs()
    missing = [step for step in known() if step > revision]
    tables = {table for step in missing for table in costs.get(step, {}).get("microseconds", {})}
    sizes: dict[str, int] = dict(
        connection.execute(queries("migrate")["sizes"], {"tables": sorted(tables)}).fetchall()
    )
    steps = []
    for step in missing:
        per_row = costs.get(step, {}).get("microseconds", {})
        rows = {table: sizes.get(table, 0) for table in per_row}
        seconds = sum(rows[table] * microseconds / 1e6 for table, microseconds in per_row.items())
        steps.append(Step(step, tuple(costs.get(step, {}).get("locks", ())), rows, seconds))
    return steps


def locked(steps: Sequence[Step]) -> list[str]:
    """Return what nobody can read meanwhile, by the names that readers know."""
    return sorted({name.partition(".")[2] for step in steps for name in step.locks})


def describe(steps: Sequence[Step], revision: str) -> str:
    """Describe in one line what the steps do and how long that may take."""
    total = sum(step.seconds for step in steps)
    largest = max(steps, key=lambda step: step.seconds)
    rows = sorted(largest.rows.items(), key=lambda item: item[1])[-1:]
    most = [
        f"{largest.revision} passes over {table}, {number:,} rows" for table, number in rows if total >= 1
    ]
    names = ", ".join(locked(steps))
    waiting = [f"readers of {names} wait meanwhile"] if names else []
    return f"upgrading the schema from {revision} to {head()}: " + "; ".join([_about(total), *most, *waiting])


def _about(seconds: float) -> str:
    """Round a duration generously."""
    if seconds < 2:
        return "about a second"
    if seconds < 90:
        return f"about {seconds:.0f} seconds"
    return f"about {seconds / 60:.0f} minutes"


@cache
def _costs() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads((migrations_root() / "steps.toml").read_text(encoding="utf-8"))

"""Compare the result of a simulation with a fresh index of the node's chain."""

import json
from typing import TYPE_CHECKING, Any

import psycopg

from tests.simulation.apps import make_apps
from tests.support.tables import deployment
from virtualchain import StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.audit.verify import verify

if TYPE_CHECKING:
    from tests.simulation.world import World

_SHOWN = 3
"""How many differing rows of a table are shown."""


def differences(world: "World") -> list[str]:
    """Describe how the simulation's database differs from a fresh index, and what does not fit in it."""
    other = world.server.clone()
    try:
        settings = {**world.settings(), "database": other, "state_folder": world.folder / "fresh"}
        with StateEngine(*make_apps(lambda step: None, world.setup.apps), **settings) as engine:
            engine.build()
            if halted := engine.halted():
                return [f"in the fresh index, apps are halted: {halted}"]
        floor = max(_floor(world.url), _floor(other))
        actual, expected = (
            _tables(url, floor, has_joined=world.has_joined, cut=world.from_checkpoint)
            for url in (world.url, other)
        )
    finally:
        world.server.drop(other)
    lines = [f"table {name} exists on one side only" for name in sorted(actual.keys() ^ expected.keys())]
    for name in sorted(actual.keys() & expected.keys()):
        if actual[name] != expected[name]:
            lines.append(f"{name}: {len(actual[name])} rows, {len(expected[name])} in a fresh index")
            lines += _rows("extra", actual[name], expected[name])
            lines += _rows("missing", expected[name], actual[name])
    apps = [read_contract(app) for app in make_apps(lambda step: None, world.setup.apps)]
    lines += [f"virtualchain verify: {fault}" for fault in verify(world.url, apps).faults]
    if "tally" in world.setup.apps:
        files = [folder / "tally.state" for folder in (world.folder, world.folder / "fresh")]
        states = [file.read_bytes() if file.exists() else b"" for file in files]
        if states[0] != states[1]:
            lines.append(f"the saved file of tally is {states[0]!r} and should be {states[1]!r}")
    return lines


def _floor(url: str) -> int:
    """Return the lowest block to which the history of all apps reaches."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT coalesce(max(history_from), 0) FROM vc.apps").fetchone()
    return int(row[0]) if row else 0


def _tables(url: str, floor: int, *, has_joined: bool, cut: set[str]) -> dict[str, list[str]]:
    """Read what must be equal; apps that are `cut` have no log below the floor, which is their checkpoint."""
    tables = deployment(url, floor)
    for name in ("ops", "rejections", "snapshots", "state_files") if cut else ():
        tables[f"vc.{name}"] = [
            row
            for row in tables[f"vc.{name}"]
            if (fields := json.loads(row))["app"] not in cut or fields["block_id"] > floor
        ]
    if cut:
        tables["vc.apps"] = [row for row in tables["vc.apps"] if json.loads(row)["name"] not in cut]
        tables["vc.checkpoints"] = []
    tables["vc.state_files"] = _comparable_files(tables["vc.state_files"], floor)
    tables["vc.blocks"] = _relative_work(tables["vc.blocks"])
    # The code differs in what its callbacks call, and coverage of outputs in which builds have come and gone.
    tables["vc.apps"] = [
        json.dumps({**json.loads(row), "tracking": None, "tracking_from": None}) for row in tables["vc.apps"]
    ]
    tables["vc.coverage"] = [
        row for row in tables["vc.coverage"] if not json.loads(row)["rule"].startswith("tracking:")
    ]
    # The number of searched ranges and their first blocks depend on when an app joined.
    if has_joined:
        tables["vc.coverage"] = []
    return tables


def _relative_work(rows: list[str]) -> list[str]:
    """Count chain work from the tape's first block, as prepended blocks count backwards."""
    blocks: list[dict[str, Any]] = [json.loads(row) for row in rows]
    first = min((row["chainwork"] for row in blocks), default=0)
    return sorted(json.dumps({**row, "chainwork": row["chainwork"] - first}) for row in blocks)


def _comparable_files(rows: list[str], floor: int) -> list[str]:
    """Keep saved files above the floor, and the last one below it of each app, without its block.

    Older ones may be pruned; if all were, an app starts from scratch and saves its state with its next block.
    """
    files: list[dict[str, Any]] = sorted(map(json.loads, rows), key=lambda row: row["block_id"])
    last = {row["app"]: {**row, "block_id": 0} for row in files if row["block_id"] <= floor}
    later = [row for row in files if row["block_id"] > floor]
    return sorted(json.dumps(row) for row in [*last.values(), *later])


def _rows(label: str, rows: list[str], others: list[str]) -> list[str]:
    """Show the first rows that are not among others."""
    known = set(others)
    only = [row for row in rows if row not in known]
    return [f"  {label}: {row[:400]}" for row in only[:_SHOWN]]

"""Hold what an engine left against a fresh index of the node's chain."""

import json
from typing import TYPE_CHECKING, Any

import psycopg

from tests.simulation.apps import make_apps
from tests.support.tables import deployment
from virtualchain import StateEngine

if TYPE_CHECKING:
    from tests.simulation.world import World

_SHOWN = 3
"""Rows of each table that are told."""


def differences(world: "World") -> list[str]:
    """Return what differs between the simulation's database and a fresh index, with the first rows."""
    other = world.server.clone()
    try:
        settings = {**world.settings(), "database": other, "state_folder": world.folder / "fresh"}
        with StateEngine(*make_apps(lambda app, step: None, world.options.apps), **settings) as engine:
            engine.build()
            if halted := engine.halted():
                return [f"in a fresh index, apps are halted: {halted}"]
        joined = world.was_joined
        floor = max(_floor(world.url), _floor(other))
        found, expected = (_tables(url, floor, joined=joined) for url in (world.url, other))
    finally:
        world.server.drop(other)
    told = [f"table {name} is only on one side" for name in sorted(found.keys() ^ expected.keys())]
    for name in sorted(found.keys() & expected.keys()):
        if found[name] != expected[name]:
            told.append(f"{name}: {len(found[name])} rows, {len(expected[name])} in a fresh index")
            told += _rows("too many", found[name], expected[name])
            told += _rows("missing", expected[name], found[name])
    for name in set(world.options.apps) & {"tally"}:
        files = [folder / f"{name}.state" for folder in (world.folder, world.folder / "fresh")]
        states = [file.read_bytes() if file.exists() else b"" for file in files]
        if states[0] != states[1]:
            told.append(f"the saved file of {name} is {states[0]!r} and should be {states[1]!r}")
    return told


def _floor(url: str) -> int:
    """Return the lowest block that all of a deployment's history reaches."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT coalesce(max(history_from), 0) FROM vc.apps").fetchone()
    return int(row[0]) if row else 0


def _tables(url: str, floor: int, *, joined: bool) -> dict[str, list[str]]:
    tables = deployment(url, floor)
    tables["vc.state_files"] = _standing(tables["vc.state_files"], floor)
    tables["vc.blocks"] = _work_since_first(tables["vc.blocks"])
    # How many stretches were searched, and from where on, depends on when an app joined.
    if joined:
        tables["vc.coverage"] = []
    return tables


def _work_since_first(rows: list[str]) -> list[str]:
    """Count work from the first block on: blocks that were put in front later count backwards."""
    read: list[dict[str, Any]] = [json.loads(row) for row in rows]
    first = min((row["chainwork"] for row in read), default=0)
    return sorted(json.dumps({**row, "chainwork": row["chainwork"] - first}) for row in read)


def _standing(rows: list[str], floor: int) -> list[str]:
    """Leave out saved files that no block from the floor on had, and since when those stand that it had.

    They may be pruned; and where all were, an app begins anew and saves what it has with its next block.
    """
    read: list[dict[str, Any]] = sorted(map(json.loads, rows), key=lambda row: row["block_id"])
    standing = {row["app"]: row for row in read if row["block_id"] <= floor}
    later = [row for row in read if row["block_id"] > floor]
    return sorted(json.dumps(row) for row in [*({**row, "block_id": 0} for row in standing.values()), *later])


def _rows(what: str, these: list[str], those: list[str]) -> list[str]:
    missing = set(those)
    only = [row for row in these if row not in missing]
    return [f"  {what}: {row[:400]}" for row in only[:_SHOWN]]

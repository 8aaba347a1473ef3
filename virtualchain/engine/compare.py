"""Hold two builds of an app against each other: where each stands, its digests, the first difference."""

from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row

from virtualchain.errors import UsageError
from virtualchain.model import Json
from virtualchain.store.builds import Build, builds
from virtualchain.store.projections import Projection, projections
from virtualchain.store.sql import queries

_Q = queries("compare")


@dataclass(frozen=True, slots=True)
class Difference:
    """The first block after which two builds have other digests; `other_…` are the second one's."""

    block_id: int
    consensus_hash: str
    other_consensus_hash: str
    ops_hash: str | None
    other_ops_hash: str | None
    state_hash: str | None
    other_state_hash: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two builds of an app, side by side; the first is the live one."""

    builds: tuple[str, str]
    places: dict[str, Json]
    """By build: block_id, consensus_hash and state_hash of its last block; nothing before its first."""
    rows: dict[str, tuple[int | None, int | None]]
    """By table, how many rows each has; None where it has no such table."""
    difference: Difference | None
    """As far as both have come."""
    verdict: Json | None
    """The first candidate of that block that they judged otherwise: txindex, verdict, other_verdict."""
    row: Json | None
    """Where both stand at one block, the first row that one lacks: table, build that has it, row."""


def first_difference(
    connection: psycopg.Connection, app: str, build: str, other: str, *, with_state: bool = True
) -> Difference | None:
    """Give the first block after which two builds of an app differ, as far as both came; None: they agree.

    Without `with_state`, only what enters the consensus hash counts.
    """
    wanted = {"app": app, "build": build, "other": other, "with_state": with_state}
    with connection.cursor(row_factory=class_row(Difference)) as cursor:
        return cursor.execute(_Q["first_difference"], wanted).fetchone()


def compare(connection: psycopg.Connection, app: str, build: str) -> Comparison:
    """Hold a build of an app against the live one; UsageError where there is no such build."""
    rows = {row.build: row for row in builds(connection) if row.name == app}
    live = next((row for row in rows.values() if row.is_live), None)
    other = rows.get(build)
    if live is None or other is None or other is live:
        there = ", ".join(name for name, row in rows.items() if not row.is_live) or "none"
        raise UsageError(f"app {app} has no build {build} beside its live one; there are: {there}")
    difference = first_difference(connection, app, live.build, build)
    tables = {
        row.build: {item.name: item for item in projections(connection, row.tables)} for row in (live, other)
    }
    names = sorted({name for found in tables.values() for name in found})
    pairs = {name: (tables[live.build].get(name), tables[build].get(name)) for name in names}
    return Comparison(
        builds=(live.build, build),
        places=_places(connection, live, other),
        rows={name: (_count(connection, a), _count(connection, b)) for name, (a, b) in pairs.items()},
        difference=difference,
        verdict=None if difference is None else _first_verdict(connection, live, other, difference.block_id),
        row=_first_row(connection, live, other, pairs) if live.block_id == other.block_id else None,
    )


def _places(connection: psycopg.Connection, live: Build, other: Build) -> dict[str, Json]:
    wanted = {"app": live.name, "builds": [live.build, other.build]}
    with connection.cursor(row_factory=dict_row) as cursor:
        return {row.pop("build"): row for row in cursor.execute(_Q["places"], wanted).fetchall()}


def _count(connection: psycopg.Connection, table: Projection | None) -> int | None:
    if table is None:
        return None
    row = connection.execute(sql.SQL(_Q["count_rows"]).format(table=table.table)).fetchone()
    return None if row is None else int(row[0])


def _first_verdict(connection: psycopg.Connection, live: Build, other: Build, block_id: int) -> Json | None:
    parts = (sql.SQL(_Q["verdicts"]).format(build=sql.Literal(build)) for build in (live.build, other.build))
    verdicts, other_verdicts = parts
    statement = sql.SQL(_Q["first_verdict"]).format(verdicts=verdicts, other_verdicts=other_verdicts)
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, {"app": live.name, "block_id": block_id}).fetchone()


def _first_row(
    connection: psycopg.Connection,
    live: Build,
    other: Build,
    pairs: dict[str, tuple[Projection | None, Projection | None]],
) -> Json | None:
    for name, (ours, theirs) in pairs.items():
        if ours is None or theirs is None or ours.columns != theirs.columns:
            continue
        columns = sql.SQL(", ").join(sql.Identifier("r", column) for column in ours.columns)
        statement = sql.SQL(_Q["first_row"]).format(
            text=sql.SQL("ROW({})::text").format(columns), table=ours.table, other=theirs.table
        )
        found = connection.execute(statement).fetchone()
        if found is not None:
            return {"table": name, "build": other.build if found[1] else live.build, "row": found[0]}
    return None

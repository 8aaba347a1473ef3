"""Compare two builds of an app: how far each has come, its digests, the first difference, all rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row

from virtualchain.errors import UsageError
from virtualchain.model import Json
from virtualchain.store.builds import Build, builds, find_build, live_build
from virtualchain.store.projections import Projection, projections
from virtualchain.store.sql import queries

_Q = queries("compare")
_OF_LOG: Final = {
    "ops_rows": "ops",
    "rejections_rows": "rejections",
    "snapshots_rows": "snapshots",
    "state_files_rows": "state_files",
}
"""The queries for a build's part of the log, with the tables' names."""
_OF_PROJECTION: Final = {"projection_rows": "", "history_rows": "_history", "births_rows": "_births"}
"""The queries for a projection and the tables beside it, with the endings of these tables' names."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first block after which two builds have other digests; `other_…` are the second one's."""

    block_id: int
    block_hash: str
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
    """By build: block_id, consensus_hash and state_hash of its last block, and the block it begins with."""
    rows: dict[str, tuple[int | None, int | None]]
    """By table, how many rows each has; None if it has no such table."""
    difference: Difference | None
    """As far as both have come."""
    verdict: Json | None
    """The first candidate of that block that they judged differently, with both verdicts."""
    transactions: tuple[str, ...]
    """If they judged all alike there, the transactions that they accepted: what these wrote may differ."""
    row: Json | None
    """If both are at the same block, the first row that only one has: table, build that has it, row."""


@dataclass(frozen=True, slots=True)
class RowDifference:
    """A row that two builds do not both have; a row with other values is two of these, with one place."""

    table: str
    """A projection, its history or births, ops, rejections, snapshots or state_files."""
    key: Mapping[str, str | None] | None
    """The texts of the row's primary key; None outside of projections."""
    block_id: int
    """The block of the log, or the one that wrote, or in history replaced, the row."""
    txindex: int | None
    vtxindex: int | None
    is_in_first: bool


def row_differences(
    connection: psycopg.Connection, first: Build, second: Build, most: int, *, log_from: int = -1
) -> Iterator[RowDifference]:
    """Yield the rows in which two builds of an app differ, up to the last block that both have taken.

    That includes the log from block `log_from` on, and history as far back as both keep it; `first` must keep
    its history down to that last block. Of each table, `most` rows at the most.
    """
    last = min(first.block_id, second.block_id)
    limits = {
        "last": sql.Literal(last),
        "log_from": sql.Literal(log_from),
        "oldest": sql.Literal(max(first.history_from, second.history_from)),
        "app": sql.Literal(first.app),
    }
    limit = sql.Literal(most)
    theirs = {table.name: table for table in projections(connection, second.tables)}
    for ours in projections(connection, first.tables):
        if ours.name in theirs:
            for query, ending in _OF_PROJECTION.items():
                parts = [
                    sql.SQL(_Q[query]).format(**_parts(table), **limits)
                    for table in (ours, theirs[ours.name])
                ]
                yield from _different(connection, ours.name + ending, ours.key, parts, limit)
    for query, name in _OF_LOG.items():
        parts = [
            sql.SQL(_Q[query]).format(build=sql.Literal(build.name), **limits) for build in (first, second)
        ]
        yield from _different(connection, name, (), parts, limit)


def _different(
    connection: psycopg.Connection,
    table: str,
    key: tuple[str, ...],
    rows: list[sql.Composed],
    limit: sql.Literal,
) -> Iterator[RowDifference]:
    statement = sql.SQL(_Q["different_rows"]).format(first=rows[0], second=rows[1], limit=limit)
    for values, *place in connection.execute(statement).fetchall():
        yield RowDifference(table, dict(zip(key, values, strict=True)) if values else None, *place)


def _parts(table: Projection) -> dict[str, sql.Composable]:
    return {
        "table": table.table,
        "history": table.history,
        "births": table.births,
        "columns": sql.SQL(", ").join(map(sql.Identifier, table.columns)),
        "texts": table.texts(),
        "key_texts": table.key_texts(),
    }


def first_difference(
    connection: psycopg.Connection, app: str, build: str, other: str, *, with_state: bool = True
) -> Difference | None:
    """Return the first block after which two builds of an app differ, as far as both came, or None.

    Without `with_state`, only what enters the consensus hash counts.
    """
    pair = {"app": app, "build": build, "other": other, "with_state": with_state}
    with connection.cursor(row_factory=class_row(Difference)) as cursor:
        return cursor.execute(_Q["first_difference"], pair).fetchone()


def first_verdict(connection: psycopg.Connection, live: Build, other: str, block_id: int) -> Json | None:
    """Return the first candidate of a block that two builds of an app judged differently, or None.

    It has the keys block_id, txindex, txid, verdict and other_verdict.
    """
    verdicts, other_verdicts = (
        sql.SQL(_Q["verdicts"]).format(build=sql.Literal(build)) for build in (live.name, other)
    )
    statement = sql.SQL(_Q["first_verdict"]).format(verdicts=verdicts, other_verdicts=other_verdicts)
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, {"app": live.app, "block_id": block_id}).fetchone()


def compare(connection: psycopg.Connection, app: str, build: str) -> Comparison:
    """Compare a build of an app with the live one; raise UsageError if there is no such build."""
    live, other = live_build(connection, app), find_build(connection, app, build)
    if live is None or other is None or other.is_live:
        names = ", ".join(row.name for row in builds(connection, app) if not row.is_live) or "none"
        raise UsageError(f"app {app} has no build {build} beside its live one; there are: {names}")
    difference = first_difference(connection, app, live.name, build)
    verdict = None if difference is None else first_verdict(connection, live, build, difference.block_id)
    tables = {
        row.name: {item.name: item for item in projections(connection, row.tables)} for row in (live, other)
    }
    table_names = sorted(tables[live.name].keys() | tables[build].keys())
    pairs = {name: (tables[live.name].get(name), tables[build].get(name)) for name in table_names}
    return Comparison(
        builds=(live.name, build),
        places=_places(connection, live, other),
        rows={name: (_count(connection, a), _count(connection, b)) for name, (a, b) in pairs.items()},
        difference=difference,
        verdict=verdict,
        transactions=()
        if difference is None or verdict is not None
        else _accepted(connection, live, other, difference.block_id),
        row=_first_row(connection, live, other, pairs) if live.block_id == other.block_id else None,
    )


def _places(connection: psycopg.Connection, live: Build, other: Build) -> dict[str, Json]:
    pair = {"app": live.app, "builds": [live.name, other.name]}
    with connection.cursor(row_factory=dict_row) as cursor:
        places = {row.pop("build"): row for row in cursor.execute(_Q["places"], pair).fetchall()}
    return {
        row.name: {"first_block_id": row.base_block_id + 1} | places.get(row.name, {})
        for row in (live, other)
    }


def _count(connection: psycopg.Connection, table: Projection | None) -> int | None:
    if table is None:
        return None
    row = connection.execute(sql.SQL(_Q["count_rows"]).format(table=table.table)).fetchone()
    return None if row is None else int(row[0])


def _accepted(connection: psycopg.Connection, live: Build, other: Build, block_id: int) -> tuple[str, ...]:
    place = {"app": live.app, "builds": [live.name, other.name], "block_id": block_id}
    return tuple(row[0] for row in connection.execute(_Q["accepted"], place))


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
        row = connection.execute(statement).fetchone()
        if row is not None:
            return {"table": name, "build": other.name if row[1] else live.name, "row": row[0]}
    return None

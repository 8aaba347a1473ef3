"""Compare two machines that have run an app over the same blocks, and say where they differ first."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final, Protocol

import psycopg
from psycopg import sql

from virtualchain.store.builds import live_build
from virtualchain.store.database import connect_reader
from virtualchain.store.projections import Projection, build_schema, projections
from virtualchain.store.sql import queries
from virtualchain.testing.machines import Ran
from virtualchain.testing.tracing import Asked, shortened

_Q = queries("testing")
_DIGESTS: Final = "digests"


class Compared(Protocol):
    """One of two that have taken the same blocks."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def url(self) -> str:
        """The URL of its database."""

    @property
    def ran(self) -> Ran:
        """What its run came to."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of two that are compared, if it is no `Machine`."""

    name: str
    url: str
    ran: Ran


Verdicts = list[tuple[int, str | None, str, str]]
"""Block, transaction, verdict and details of each row, in an order that is the same on every machine."""


def verdicts(machine: Compared, above: int = -1) -> Verdicts:
    """Return the verdicts and digests of all blocks above one."""
    with closing(connect_reader(machine.url)) as connection:
        return connection.execute(_Q["verdicts"], {"above": above}).fetchall()


def describe_difference(
    app: str, first: Compared, second: Compared, names: Mapping[str, str], above: int = -1
) -> list[str]:
    """Describe where two machines differ first, in blocks above one: op, statement, table and row.

    `names` describes the transactions. Returns nothing if verdicts, digests and rows are the same.
    """
    difference = _Difference.find(first, second, list(names), above)
    if difference is None:
        row = _first_row(app, first, second, last_block(first))
        complaint = second.ran.complaint or first.ran.complaint
        lines = [f"{first.name} and {second.name} end with other rows", str(row)] if row else []
        return lines + ([complaint] if complaint else [])
    block_id, txid = difference.block_id, difference.txid
    row = _first_row(app, first, second, block_id)
    traces = first.ran.trace, second.ran.trace
    asked = traces[0].first_difference(traces[1], block_id, txid)
    if asked is None and row is not None and (writer := traces[0].writer_of(block_id, row.table, row.key)):
        asked = writer, writer
    if txid is None and asked is not None:
        txid = next((item.txid for item in asked if item is not None), None)
    place = f"{first.name} and {second.name} differ first in block {block_id}"
    lines = [place if txid is None else f"{place}, in {names.get(txid, 'a transaction')} ({txid})"]
    if difference.verdicts is not None:
        lines.append(f"verdict: {difference.verdicts}")
    if asked is not None:
        lines.append(f"statement: {_describe_asked(*asked)}")
    elif second.ran.halt is not None and (last := traces[1].last(block_id, txid)) is not None:
        lines.append(f"last statement: {last}")
    if row is None and asked is None and difference.digests is not None:
        lines.append(f"digests of ops, history and state: {difference.digests}")
    return lines if row is None else [*lines, str(row)]


def halt_alike(first: Ran, second: Ran) -> bool:
    """Return whether an app halted in two runs, at the same place."""
    if first.halt is None or second.halt is None:
        return False
    names = ("block_id", "txid", "callback")
    return [first.halt[name] for name in names] == [second.halt[name] for name in names]


def last_block(machine: Compared) -> int:
    """Return the last block with digests."""
    return max((row[0] for row in verdicts(machine)), default=-1)


@dataclass(frozen=True, slots=True)
class _Difference:
    """The first difference in verdicts or digests."""

    block_id: int
    txid: str | None
    verdicts: str | None
    """Both verdicts, if they are of an op."""
    digests: str | None = None
    """Both digests, if only these differ."""

    @classmethod
    def find(cls, first: Compared, second: Compared, txids: list[str], above: int) -> "_Difference | None":
        pairs = zip_longest(verdicts(first, above), verdicts(second, above))
        one, other = next(((one, other) for one, other in pairs if one != other), (None, None))
        halt = second.ran.halt or first.ran.halt
        if halt is not None:
            reached = [row[0] for row in (one, other) if row is not None]
            if not reached or min(reached) >= halt["block_id"]:
                halted = f"halts in {halt['callback']}: {shortened(halt['error'])}"
                names = " and ".join(item.name for item in (first, second) if item.ran.halt is not None)
                return cls(halt["block_id"], halt["txid"], f"the app {halted} (on {names} only)")
        if one is None and other is None:
            return None
        block_id = min(row[0] for row in (one, other) if row is not None)
        rows = [row if row is not None and row[0] == block_id else None for row in (one, other)]
        if all(row is None or row[2] == _DIGESTS for row in rows):
            texts = ["none" if row is None else row[3] for row in rows]
            return cls(block_id, None, None, " <> ".join(texts))
        # A transaction that only one machine has is compared with the next one of the other.
        known = {txid: place for place, txid in enumerate(txids)}
        txid = min((row[1] for row in rows if row and row[1]), key=lambda item: known.get(item, -1))
        texts = [f"{row[2]} {shortened(row[3])}" if row and row[1] == txid else "none" for row in rows]
        return cls(block_id, txid, " <> ".join(texts))


def _describe_asked(one: Asked | None, other: Asked | None) -> str:
    if one is not None and other is not None and one.statement == other.statement:
        same = one.outcome == other.outcome
        return f"{one.statement} (in {one.step})" if same else f"{one} <> {shortened(other.outcome)}"
    return " <> ".join("none" if item is None else str(item) for item in (one, other))


@dataclass(frozen=True, slots=True)
class _Row:
    """A row that is not the same on two machines: its table, its key, and both values as text."""

    table: str
    key: str
    one: str | None
    other: str | None

    def __str__(self) -> str:
        values = " <> ".join("none" if row is None else shortened(row) for row in (self.one, self.other))
        return f"table {self.table}, row {shortened(self.key)}: {values}"


def _first_row(app: str, first: Compared, second: Compared, block_id: int) -> _Row | None:
    """Return the first row as of a block that differs, if there is one."""
    ours, theirs = (_rows(machine, app, block_id) for machine in (first, second))
    for table, rows in ours.items():
        others = theirs.get(table, {})
        for key in sorted(rows.keys() | others.keys()):
            if rows.get(key) != others.get(key):
                return _Row(table, key, rows.get(key), others.get(key))
    return None


def _rows(machine: Compared, app: str, block_id: int) -> dict[str, dict[str, str]]:
    """Return each table's rows as of a block, by key."""
    with closing(connect_reader(machine.url)) as connection:
        live = live_build(connection, app)
        tables = [] if live is None else projections(connection, build_schema(live.schema, live.name))
        return {table.name: dict(_rows_as_of(connection, table, block_id)) for table in tables}


def _rows_as_of(connection: psycopg.Connection, table: Projection, block_id: int) -> list[tuple[str, str]]:
    names = {"columns": table.columns, "key": table.key}
    lists = {name: sql.SQL(", ").join(map(sql.Identifier, columns)) for name, columns in names.items()}
    statement = sql.SQL(_Q["rows_as_of"]).format(
        table=table.table, history=table.history, block_id=sql.Literal(block_id), **lists
    )
    return connection.execute(statement).fetchall()

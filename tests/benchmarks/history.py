"""The cost of keeping history, for several ways to find the new rows of a block.

    python -m tests.benchmarks.history [--rows 1000000] [--bulk 200000] [--blocks 2000] [--runs 3] [--json]

To undo or hash a block, the engine must find the rows that the block made without scanning the table. The
ways are: `none` keeps no history at all, as a baseline; `key` records births under a primary key of block and
key; `plain`, which the engine uses, records them with an index on the block alone and may record a key twice;
`brin` records nothing and has a BRIN index on the table's since_block. Each way has a table of its own with
the same rows. Bulk is one statement for many rows, single is blocks of ten statements. Undo reverts the last
hundred single blocks. Read reads the rows of one block, as the state hash does after each block. All numbers
are medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql
from rich.table import Table

from tests.benchmarks.environment import temporary_server
from tests.benchmarks.printing import report
from virtualchain.store.database import connect_writer
from virtualchain.store.projections import Projection, install
from virtualchain.store.sql import queries
from virtualchain.testing.database import DatabaseServer

_DDL = "CREATE TABLE entries (id bigint PRIMARY KEY, owner text NOT NULL, n integer NOT NULL)"
_UNDONE = 100
"""The number of blocks of ten changes that are undone."""
Row = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all ways and print the results."""
    parser = argparse.ArgumentParser(description="Measure the cost of keeping history.")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the table before")
    parser.add_argument("--bulk", type=int, default=200_000, help="rows of a bulk statement")
    parser.add_argument("--blocks", type=int, default=2_000, help="blocks of ten single statements")
    parser.add_argument("--runs", type=int, default=3, help="runs of each way (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    with temporary_server() as server:
        measured = measure(server, options.rows, options.bulk, options.blocks, options.runs)
    report(measured, table(measured), as_json=options.json, width=110)


def measure(server: DatabaseServer, rows: int, bulk: int, blocks: int, runs: int) -> dict[str, Row]:
    """Measure each way several times, in turn; return the medians by way and name."""
    runs_by_way: dict[str, list[Row]] = {way: [] for way in WAYS}
    for _ in range(runs):
        for way in WAYS:
            url = server.clone()
            with connect_writer(url) as connection:
                runs_by_way[way].append(_measure(connection, way, rows, bulk, blocks))
    return {
        way: {name: statistics.median(row[name] for row in rows_of_way) for name in rows_of_way[0]}
        for way, rows_of_way in runs_by_way.items()
    }


def table(measured: dict[str, Row]) -> Table:
    """Format the ways side by side."""
    result = Table("", *measured)
    for name in next(iter(measured.values())):
        result.add_row(name, *(f"{row[name]:,.1f}" for row in measured.values()))
    for column in result.columns[1:]:
        column.justify = "right"
    return result


def _measure(connection: psycopg.Connection, way: str, rows: int, bulk: int, blocks: int) -> Row:
    with connection.transaction():
        [projection] = install(connection, "bench", "bench", "1", _DDL)
        WAYS[way](connection, projection)
    run = _Run(connection, projection)
    run.block(
        "INSERT INTO entries SELECT i * 4, 'owner ' || mod(i, 1000), 0 FROM generate_series(1, %s) AS i", rows
    )
    connection.execute("VACUUM ANALYZE bench__1.entries")
    measured = {
        "bulk insert, µs a row": run.block(
            "INSERT INTO entries SELECT i * 4 + 1, 'new', 0 FROM generate_series(1, %s) AS i", bulk
        )
        / bulk,
        "bulk update, µs a row": run.block(
            "UPDATE entries SET n = n + 1 WHERE id <= %s * 4 AND mod(id, 4) = 0", bulk
        )
        / bulk,
        "bulk delete, µs a row": run.block("DELETE FROM entries WHERE id <= %s * 4 AND mod(id, 4) = 1", bulk)
        / bulk,
    }
    singles = range(1, blocks * 10 + 1)
    half = len(singles) // 2
    inserted = [("INSERT INTO entries VALUES (%s * 4 + 2, 'single', 0)", i) for i in singles[:half]]
    updated = [
        ("UPDATE entries SET n = n + 1 WHERE id = mod(%s * 7919, 10000) * 4 + 4", i) for i in singles[half:]
    ]
    measured["single insert, µs a row"] = run.blocks(inserted) / half
    measured["single update, µs a row"] = run.blocks(updated) / half
    if way != "none":
        measured["read, µs a block"] = run.read(way)
        measured[f"undo {_UNDONE} blocks, ms"] = run.undo(way) / 1000
    else:
        measured |= {"read, µs a block": 0.0, f"undo {_UNDONE} blocks, ms": 0.0}
    measured["size of index or births, MB"] = run.size(way) / 1e6
    return measured


class _Run:
    """Writes in blocks and measures the time."""

    def __init__(self, connection: psycopg.Connection, projection: Projection) -> None:
        self._connection = connection
        self._projection = projection
        self._block = 0

    def block(self, statement: str, number: int) -> float:
        """Run one statement in a block of its own; return its microseconds."""
        return self.blocks([(statement, number)])

    def blocks(self, statements: Sequence[tuple[str, int]]) -> float:
        """Run statements, ten in a block; return their microseconds without the blocks' own cost."""
        spent = 0.0
        for at in range(0, len(statements), 10):
            self._block += 1
            with self._connection.transaction():
                self._connection.execute(
                    "SELECT set_config('virtualchain.block_id', %s, true), "
                    "set_config('search_path', 'bench__1', true)",
                    [str(self._block)],
                )
                for statement, number in statements[at : at + 10]:
                    start = time.perf_counter()
                    self._connection.execute(statement.encode(), [number], prepare=True)
                    spent += time.perf_counter() - start
        return spent * 1e6

    def read(self, way: str) -> float:
        """Read the rows of blocks; return the median microseconds."""
        spent = []
        for block in range(self._block - 50, self._block):
            start = time.perf_counter()
            self._connection.execute(self._filled(_READ[way]), [block]).fetchall()
            spent.append(time.perf_counter() - start)
        return statistics.median(spent) * 1e6

    def undo(self, way: str) -> float:
        """Undo the last blocks; return the microseconds."""
        history = queries("history")
        unmake = history["unmake"].replace("$1", "%(fork)s")
        if way == "brin":
            unmake = "DELETE FROM {table} WHERE since_block > %(fork)s"
        rest = [history[name].replace("$1", "%(fork)s") for name in ("put_back", "forget_changes")]
        if way != "brin":
            rest.append(history["forget_births"].replace("$1", "%(fork)s"))
        start = time.perf_counter()
        with self._connection.transaction():
            begin = history["begin_undo"]
            if way == "brin":  # a BRIN index needs bitmap scans
                begin = begin.replace("set_config('enable_bitmapscan', 'off', true)", "''")
            self._connection.execute(begin.encode())
            for statement in [unmake, *rest]:
                self._connection.execute(self._filled(statement), {"fork": self._block - _UNDONE})
        return (time.perf_counter() - start) * 1e6

    def size(self, way: str) -> float:
        """Return the size in bytes of the index or table that finds a block's rows."""
        relation = {"none": None, "brin": "bench__1.entries_since"}.get(way, "bench__1.entries_births")
        row = self._connection.execute(
            "SELECT coalesce(pg_total_relation_size(%s::regclass), 0)", [relation]
        ).fetchone()
        return float(row[0]) if row else 0.0

    def _filled(self, statement: str) -> sql.Composed:
        projection = self._projection
        return sql.SQL(statement).format(
            table=projection.table,
            history=projection.history,
            births=projection.births,
            columns=sql.SQL(", ").join(map(sql.Identifier, projection.columns)),
            key=sql.Identifier("id"),
            same_key=sql.SQL("r.id = b.id"),
        )


_READ: Final = {
    "key": "SELECT * FROM {births} AS b JOIN {table} AS r USING ({key}) "
    "WHERE b.since_block = %s AND r.since_block = b.since_block",
    "plain": "SELECT * FROM (SELECT DISTINCT since_block, {key} FROM {births} WHERE since_block = %s) AS b "
    "JOIN {table} AS r USING ({key}) WHERE r.since_block = b.since_block",
    "brin": "SELECT * FROM {table} WHERE since_block = %s",
}


def _none(connection: psycopg.Connection, projection: Projection) -> None:
    connection.execute(sql.SQL("DROP TRIGGER keep_history ON {}").format(projection.table))
    connection.execute(sql.SQL("ALTER TABLE {} ALTER since_block SET DEFAULT 0").format(projection.table))


def _key(connection: psycopg.Connection, projection: Projection) -> None:
    statement = (
        "DROP INDEX bench__1.entries_births_since_block_idx; ALTER TABLE {} ADD PRIMARY KEY (since_block, id)"
    )
    connection.execute(sql.SQL(statement).format(projection.births))
    _trigger(connection, projection, "INSERT INTO {births} VALUES (block, {new_key}) ON CONFLICT DO NOTHING;")


def _plain(connection: psycopg.Connection, projection: Projection) -> None:
    """Leave the projection as it is."""


def _brin(connection: psycopg.Connection, projection: Projection) -> None:
    _trigger(connection, projection, "NULL;")
    connection.execute(
        sql.SQL(
            "DROP TABLE {births}; CREATE INDEX entries_since ON {table} USING brin (since_block) "
            "WITH (pages_per_range = 16, autosummarize = on)"
        ).format(births=projection.births, table=projection.table)
    )


def _trigger(connection: psycopg.Connection, projection: Projection, birth: str) -> None:
    """Replace the trigger's statement that records a birth."""
    row = connection.execute(
        "SELECT prosrc FROM pg_proc WHERE oid = 'bench__1.entries_keep'::regproc"
    ).fetchone()
    assert row is not None, "the projection is installed"
    before, insert, after = row[0].partition(f"INSERT INTO {projection.births.as_string(connection)}")
    assert insert, "the trigger records births"
    statement = sql.SQL(birth).format(births=projection.births, new_key=sql.SQL("new.id"))
    body = before + statement.as_string(connection) + after.partition(";")[2]
    connection.execute(
        sql.SQL(
            "CREATE OR REPLACE FUNCTION bench__1.entries_keep() RETURNS trigger LANGUAGE plpgsql "
            "SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {}"
        ).format(sql.Literal(body))
    )


WAYS: Final[dict[str, Callable[[Any, Projection], None]]] = {
    "none": _none,
    "key": _key,
    "plain": _plain,
    "brin": _brin,
}


if __name__ == "__main__":
    main()

"""What queries read: views cost what their tables cost, and pruning does not repeat work."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Rows
from tests.integration.reading.test_changes import walk
from tests.support.moving import an_app, story
from tests.support.unguarded import unguarded
from virtualchain import App, StateEngine
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Query = Callable[..., Rows]
Run = Callable[..., int]

ROWS = 100_000
READ = """SELECT sum(idx_tup_read)::int AS read FROM pg_stat_user_indexes
    WHERE schemaname = 'plain__1' AND relname ~ '_(history|births)$'"""


@pytest.fixture(scope="module")
def many(database_server: DatabaseServer) -> Iterator[psycopg.Connection]:
    """Make a deployment with 100,000 rows, each of which was changed once; open a session on it."""
    app = App(
        "many",
        magic=b"mm",
        projections="""CREATE TABLE t (k integer PRIMARY KEY, v text NOT NULL, u integer NOT NULL UNIQUE);
            CREATE TABLE few (id integer PRIMARY KEY, k integer NOT NULL)""",
        first_block_id=100,
    )
    statements = {
        b"1": "INSERT INTO t SELECT n, 'v', n FROM generate_series(1, 100000) AS n",
        b"2": "UPDATE t SET v = v || k",
        b"3": "INSERT INTO few SELECT n, n * 7 FROM generate_series(1, 50) AS n",
    }

    def commit(op: dict[str, Any], state: Any) -> None:
        unguarded(state).execute(statements[op["do"].encode()])

    app.add(b"o", parse=lambda payload: {"do": payload.decode()}, commit=commit)
    url = database_server.clone()
    node = FakeNode()
    for number in statements:
        node.mine([node.send(b"mmo" + number)])
    with StateEngine(app, database=url, source=node.url, confirmations=0) as engine:
        engine.build()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        yield connection
    node.close()
    database_server.drop(url)


def plan(connection: psycopg.Connection, statement: str) -> list[dict[str, Any]]:
    """Run a statement and return the nodes of its plan, with actual figures."""
    row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT json) {statement}".encode()).fetchone()
    assert row is not None
    return walk(row[0][0]["Plan"])


def cost(connection: psycopg.Connection, statement: str) -> float:
    """Return the planner's cost estimate for a statement."""
    return float(plan(connection, statement)[0]["Total Cost"])


SIMPLE = {
    "a key": ("SELECT * FROM many.t WHERE k = 5", 10),
    "a unique value": ("SELECT * FROM many.t WHERE u = 5", 10),
    "the first keys": ("SELECT * FROM many.t ORDER BY k LIMIT 10", 50),
    "the last keys": ("SELECT * FROM many.t ORDER BY k DESC LIMIT 10", 50),
    "a range of keys": ("SELECT * FROM many.t WHERE k BETWEEN 100 AND 200", 300),
    "a join by key": ("SELECT * FROM many.few JOIN many.t USING (k)", 150),
    "an outer join by key": ("SELECT * FROM many.few LEFT JOIN many.t USING (k)", 150),
    "the greatest": ("SELECT max(k) FROM many.t", 50),
}


@pytest.mark.parametrize(("statement", "rows"), SIMPLE.values(), ids=SIMPLE)
def test_keys_are_looked_up_and_history_is_left_alone(
    many: psycopg.Connection, statement: str, rows: int
) -> None:
    """The table's indexes are used if they can answer a query, and no page of history is read."""
    nodes = plan(many, statement)
    for node in nodes:
        if node.get("Relation Name") == "t_history":
            assert node["Actual Loops"] == 0
        if node.get("Relation Name") == "t" and node["Actual Loops"] > 0:
            assert node["Node Type"] in {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}
            assert node["Actual Rows"] * node["Actual Loops"] <= rows
    assert any(node.get("Relation Name") == "t" and node["Actual Loops"] > 0 for node in nodes)


def test_counting_reads_the_table_once(many: psycopg.Connection) -> None:
    """count(*) scans the table and never history, as the One-Time Filters show."""
    nodes = plan(many, "SELECT count(*) FROM many.t")
    read = [node for node in nodes if node.get("Relation Name") and node["Actual Loops"] > 0]
    assert {node["Relation Name"] for node in read} <= {"t", "few"}
    assert sum(round(node["Actual Rows"] * node["Actual Loops"], -2) for node in read) == ROWS
    assert sum("One-Time Filter" in node for node in nodes) == 3
    bare = cost(many, "SELECT count(*) FROM many__1.t")
    assert cost(many, "SELECT count(*) FROM many.t") < 4 * bare


def test_as_of_a_block_keys_are_looked_up_too(many: psycopg.Connection) -> None:
    """Time travel reads the history above its block, and the current table by its index."""
    height = many.execute("SELECT max(block_id) FROM virtualchain.blocks").fetchone()
    assert height
    with many.transaction():
        many.execute("SELECT set_config('virtualchain.as_of', %s, true)", [str(height[0])])
        for node in plan(many, "SELECT * FROM many.few JOIN many.t USING (k)"):
            if node.get("Relation Name") == "t" and node["Actual Loops"] > 0:
                assert "Index" in node["Node Type"]
    with many.transaction():
        many.execute("SELECT set_config('virtualchain.as_of', %s, true)", [str(height[0] - 2)])
        assert many.execute("SELECT v FROM many.t WHERE k = 5").fetchone() == ("v",)
        assert many.execute("SELECT count(*), max(v), min(u) FROM many.t").fetchone() == (ROWS, "v", 1)
        assert many.execute("SELECT count(*) FROM many.few").fetchone() == (0,)


def test_pruning_passes_over_what_a_snapshot_keeps(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """Pruned rows that an open snapshot keeps on disk are not read again by each later pruning."""
    story(fake_node, 1, 20)
    run(an_app(), history=10)
    with psycopg.connect(database_url) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        [before] = reader.execute("SELECT count(*) FROM virtualchain.ops").fetchone() or (0,)
        story(fake_node, 2, 50)
        first = sync_reads(run, query)
        for seed in range(3, 6):
            story(fake_node, seed, 50)
            last = sync_reads(run, query)
        assert reader.execute("SELECT count(*) FROM virtualchain.ops").fetchone() == (before,)
    growth = query("SELECT count(*) AS n FROM plain.marks")[0]["n"]
    assert last < 2.5 * first, (first, last, growth)


def test_pruning_uses_an_index_although_its_plan_is_older_than_the_rows(
    fake_node: FakeNode, query: Query, database_url: str
) -> None:
    """The plans are kept from when there was little history; the blocks have nothing for the app."""
    app = App(
        "grown",
        magic=b"gr",
        projections="CREATE TABLE t (k integer PRIMARY KEY, v integer NOT NULL)",
        first_block_id=fake_node.height,
    )

    def commit(op: dict[str, Any], state: Any) -> None:
        unguarded(state).execute(
            "INSERT INTO t SELECT n, 0 FROM generate_series(1, %s) AS n "
            "ON CONFLICT (k) DO UPDATE SET v = t.v + 1",
            [op["rows"]],
        )

    app.add(b"o", parse=lambda payload: {"rows": int(payload)}, commit=commit)
    with StateEngine(app, database=database_url, source=fake_node.url, confirmations=0, history=20) as engine:
        for rows in (b"3", b"3", b"20000", b"20000"):
            fake_node.mine(n=15)
            fake_node.mine([fake_node.send(b"gro" + rows)])
            fake_node.mine(n=15)
            engine.build()
            if rows == b"3":
                with psycopg.connect(database_url, autocommit=True) as connection:
                    connection.execute("ANALYZE")
    [tables] = query(
        "SELECT sum(n_tup_ins)::int AS written, sum(seq_tup_read)::int AS read FROM pg_stat_user_tables "
        "WHERE schemaname = 'grown__1' AND relname ~ '_(history|births)$'"
    )
    assert tables["written"] >= 60_000
    assert tables["read"] < 1_000


def sync_reads(run: Run, query: Query) -> int:
    """Sync, and return how many entries of history's indexes that has read."""
    before = query(READ)[0]["read"]
    run(an_app(), history=10)
    return int(query(READ)[0]["read"]) - int(before)

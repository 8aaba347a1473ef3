"""Views cost what their tables cost while nobody travels in time: 100,000 rows, as many in history."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.integration.reading.test_changes import walk
from virtualchain import App, StateEngine
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

ROWS = 100_000


@pytest.fixture(scope="module")
def many(database_server: DatabaseServer) -> Iterator[psycopg.Connection]:
    """Give a session on a deployment with a large table, each of whose rows was changed once."""
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
        state.execute(statements[op["do"].encode()])

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
    """Run a statement and give the nodes of its plan, with what they did."""
    row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT json) {statement}".encode()).fetchone()
    assert row is not None
    return walk(row[0][0]["Plan"])


def cost(connection: psycopg.Connection, statement: str) -> float:
    """Give what the planner thinks a statement costs."""
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
    """What the table's indexes answer is answered by them, and of history not a row or page is read."""
    nodes = plan(many, statement)
    for node in nodes:
        if node.get("Relation Name") == "t_history":
            assert node["Actual Loops"] == 0
        if node.get("Relation Name") == "t" and node["Actual Loops"] > 0:
            assert node["Node Type"] in {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}
            assert node["Actual Rows"] * node["Actual Loops"] <= rows
    assert any(node.get("Relation Name") == "t" and node["Actual Loops"] > 0 for node in nodes)


def test_counting_reads_the_table_once(many: psycopg.Connection) -> None:
    """count(*) goes through the table's rows and never looks at history: One-Time Filters say so."""
    nodes = plan(many, "SELECT count(*) FROM many.t")
    read = [node for node in nodes if node.get("Relation Name") and node["Actual Loops"] > 0]
    assert {node["Relation Name"] for node in read} <= {"t", "few"}
    assert sum(round(node["Actual Rows"] * node["Actual Loops"], -2) for node in read) == ROWS
    assert sum("One-Time Filter" in node for node in nodes) == 3
    bare = cost(many, "SELECT count(*) FROM many__1.t")
    assert cost(many, "SELECT count(*) FROM many.t") < 4 * bare


def test_as_of_a_block_keys_are_looked_up_too(many: psycopg.Connection) -> None:
    """Time travel reads the history above its block, and the standing table by its index."""
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

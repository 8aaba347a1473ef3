"""A table of statements has one outcome on every PostgreSQL, plan and heap: the same, or a halt."""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from virtualchain import App, Jsonb, State, StateEngine
from virtualchain.errors import VirtualchainError
from virtualchain.store.failures import is_rejection
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer, embedded_server, installations

TABLES = """
    CREATE TYPE color AS ENUM ('red', 'green', 'blue');
    CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
    CREATE TABLE t (a integer PRIMARY KEY, b text, n numeric, j jsonb, h bytea, f boolean, c color,
        arr integer[], p positive, rank integer UNIQUE, at timestamp, span interval);
    CREATE TABLE accounts (name text PRIMARY KEY, balance numeric(20, 0) NOT NULL DEFAULT 0, owner text);
    CREATE TABLE moves (block_id integer, vtxindex integer, src text, dst text, amount bigint,
        PRIMARY KEY (block_id, vtxindex));
"""
ROWS: list[tuple[Any, list[Any]]] = [
    *(
        (
            "INSERT INTO t VALUES (%s, %s, %s, %s, %s, %s, 'red', %s, %s, %s)",
            [
                a,
                f"name{a % 7}",
                Decimal(a),
                Jsonb({"x": a}),
                bytes([a]),
                a % 2 == 0,
                [a, a + 1],
                a + 1,
                100 - a,
            ],
        )
        for a in range(30)
    ),
    *(("INSERT INTO accounts VALUES (%s, %s, %s)", [f"a{n}", 10 * n, f"o{n % 3}"]) for n in range(12)),
    *(
        (
            "INSERT INTO moves VALUES (%s, %s, %s, %s, %s)",
            [n // 3, n % 3, f"a{n % 5}", f"a{n * 3 % 12}", n + 1],
        )
        for n in range(24)
    ),
]
HEAPS: dict[str, tuple[int, Sequence[bytes]]] = {
    "as written": (0, []),
    "sequential": (1, [b"enable_indexscan=off", b"enable_bitmapscan=off", b"enable_nestloop=off", b"jit=on"]),
    "by index": (2, [b"enable_seqscan=off", b"enable_hashjoin=off", b"enable_hashagg=off"]),
    "by merging": (3, [b"enable_hashjoin=off", b"enable_nestloop=off", b"random_page_cost=0.1"]),
}
"""How rows are stored and read: the seed of their order, and settings of the planner."""

# What stands in the statements below: literals that PostgreSQL 15 does not read, and 18 does.
NUMBERS = ("'1_0'", "'0x1'", "' 0B11 '", "$$0o7$$", "E'1\\x5f0'", "1_0", "0x1")
READERS = (
    "SELECT coalesce(a, {}) AS x FROM t ORDER BY a",
    "SELECT CASE WHEN f THEN a ELSE {} END AS x FROM t ORDER BY a",
    "SELECT ARRAY[a, {}] AS x FROM t ORDER BY a",
    "VALUES (1), ({})",
    "SELECT a FROM t UNION SELECT {} ORDER BY 1",
    "UPDATE t SET (n, b) = ({}, 'x') WHERE a = 1",
    "MERGE INTO t USING (VALUES (99)) AS v (x) ON a = x WHEN NOT MATCHED THEN INSERT (a, p) VALUES (x, {})",
    "SELECT a FROM t ORDER BY a LIMIT {}",
    "SELECT left(b, {}) AS x FROM t ORDER BY a",
    "SELECT a FROM t WHERE (a, b) = ({}, 'name3')",
    "DELETE FROM t WHERE a = {}",
)
NEVER: list[tuple[Any, Any]] = [
    *((reader.format(number), None) for reader in READERS for number in NUMBERS),
    *(
        (statement, None)
        for statement in (
            "UPDATE t SET arr = '{1_0, 0x1}' WHERE a = 1",
            "UPDATE t SET span = 'infinity' WHERE a = 1",
            "UPDATE t SET span = '1 day ago ago' WHERE a = 1",
            "UPDATE t SET at = '2024-05-06 07:08 Europe/Rome' WHERE a = 1",
            "UPDATE t SET at = E'\\156ow' WHERE a = 1",
            "UPDATE t SET j = '" + "[" * 15_000 + "]" * 15_000 + "' WHERE a = 1",
            "SELECT a::integer FROM unnest(ARRAY['1_0'::text]) AS a",
            "SELECT rank::integer FROM (VALUES ('1_0')) AS q (rank)",
            "SELECT CTID::text AS x FROM t WHERE a = 1",
            'SELECT U&"xm\\0069n"::text AS x FROM t WHERE a = 1',
            "SELECT name FROM accounts LIMIT 1",
            "SELECT name FROM accounts ORDER BY owner LIMIT 1",
            "SELECT DISTINCT ON (owner) owner, name FROM accounts ORDER BY owner",
            "SELECT name, row_number() OVER (ORDER BY owner) AS r FROM accounts ORDER BY name",
            "SELECT name, first_value(name) OVER (PARTITION BY owner) AS r FROM accounts ORDER BY name",
            "SELECT ARRAY(SELECT name FROM accounts) AS x",
            "SELECT string_agg(name, ',' ORDER BY owner) AS x FROM accounts",
            "UPDATE accounts SET owner = dst FROM moves WHERE src = name",
            "DELETE FROM accounts USING moves WHERE src = name RETURNING name, amount",
            "INSERT INTO accounts SELECT src || 'x', amount FROM moves ORDER BY src ON CONFLICT DO NOTHING",
            "UPDATE t SET p = a * 200000000 - 400000000",
            "SELECT 100 / (a - 5) AS x, chr(a - 9) AS y FROM t",
            "SELECT * FROM (SELECT 1 AS x)",
            "SELECT any_value(b ORDER BY a) AS x FROM t",
            "SELECT max(h) AS x FROM t",
            "SELECT max(CASE WHEN f THEN h END) AS x FROM t",
            "SELECT max(x) AS x FROM (VALUES (sha256('a'))) AS q (x)",
            "SELECT reverse(h || h) AS x FROM t WHERE a = 1",
            "SELECT a::bytea AS x FROM t WHERE a = 1",
            "SELECT strpos(b, 'n')::bytea AS x FROM t WHERE a = 1",
            "SELECT max(t.*) IS NULL AS x FROM t",
            "SELECT bytea_larger(h, h) AS x FROM t WHERE a = 1",
            "SELECT regexp_count(string => b, pattern => 'n') AS x FROM t WHERE a = 1",
            "SELECT ('1_' || a).int8 AS x FROM t WHERE a = 1",
            "SELECT x.int8 AS x FROM regexp_split_to_table('1_0', ',') AS x",
            "SELECT ('server_version' || '').current_setting AS x",
            "SELECT t.pg_column_size AS x FROM t WHERE a = 1",
            "SELECT '{{}, {}}'::text[] AS x",
            "UPDATE accounts SET owner = 'x' WHERE name = 'a1' RETURNING (old).owner",
            "SELECT quote_ident('system_user') AS x",
            "SELECT b IS JSON AS x FROM t ORDER BY a",
            "SELECT xpath('/a', '<a/>') AS x",
            "UPDATE accounts SET owner = 'x' WHERE name = 'a1' RETURNING old.owner",
            "SELECT $1 AS x",
            "SELECT concat(b, 'x') AS x, concat_ws('-', b, b) AS y FROM t",
            "SELECT format('%s', b) AS x FROM t",
            "SELECT to_char(a, '000') AS x FROM t",
            "SELECT array_to_string(arr, ',') AS x FROM t",
            "SELECT jsonb_build_object('b', b) AS x FROM t",
            "SELECT to_jsonb(b) AS x FROM t",
            "SELECT row_to_json(t) AS x FROM t",
            "SELECT jsonb_agg(b ORDER BY a) AS x FROM t",
            "SELECT jsonb_object_agg(owner, name ORDER BY owner) AS x FROM accounts",
            "SELECT (j ->> 'x')::integer AS x FROM t",
            "SELECT '2024-05-06'::date AS x",
        )
    ),
]
"""Statements that halt an app on every machine."""
ALWAYS: list[tuple[Any, Any]] = [
    (
        (
            "INSERT INTO accounts (name, balance) VALUES (%s, %s) ON CONFLICT (name) "
            "DO UPDATE SET balance = accounts.balance + excluded.balance RETURNING balance"
        ),
        ["a1", 5],
    ),
    ("UPDATE accounts SET balance = greatest(balance - %s, 0) WHERE owner = %s", [5, "o1"]),
    ("UPDATE accounts SET owner = CASE WHEN balance > 20 THEN %s ELSE owner END", ["rich"]),
    (
        (
            "UPDATE accounts SET balance = balance + m.total "
            "FROM (SELECT dst, sum(amount) AS total FROM moves GROUP BY dst) AS m WHERE m.dst = name"
        ),
        None,
    ),
    ("UPDATE t SET b = dst FROM moves WHERE moves.block_id = t.a AND vtxindex = %s", [1]),
    ("UPDATE t SET rank = %s WHERE rank = %s", [500, 99]),
    ("DELETE FROM moves USING accounts WHERE name = src AND balance < %s", [20]),
    (
        (
            "MERGE INTO accounts AS a USING unnest(%s::text[], %s::bigint[]) AS v (name, amount) "
            "ON a.name = v.name "
            "WHEN MATCHED THEN UPDATE SET balance = a.balance + v.amount "
            "WHEN NOT MATCHED THEN INSERT (name, balance) VALUES (v.name, v.amount)"
        ),
        [["a1", "new"], [5, 6]],
    ),
    (
        "WITH gone AS (DELETE FROM moves WHERE block_id < %s RETURNING amount) SELECT sum(amount) FROM gone",
        [3],
    ),
    (
        (
            "WITH RECURSIVE r (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM r WHERE n < 10) "
            "SELECT sum(n) AS s FROM r"
        ),
        None,
    ),
    (
        "SELECT src, array_agg(amount ORDER BY block_id, vtxindex) AS x FROM moves GROUP BY 1 ORDER BY 1",
        None,
    ),
    ("SELECT src, sum(amount) AS s FROM moves GROUP BY src ORDER BY s DESC, src LIMIT 2", None),
    (
        "SELECT a, lag(a) OVER (PARTITION BY b ORDER BY a) AS x, rank() OVER (ORDER BY b) FROM t ORDER BY a",
        None,
    ),
    ("SELECT a, j ->> 'x' AS x, j @> %s AS y FROM t ORDER BY a", [Jsonb({"x": 3})]),
    ("UPDATE t SET j = j || %s, arr = arr || %s::integer WHERE a = %s", [Jsonb({"y": 1}), 7, 3]),
    ("SELECT name FROM accounts WHERE name = ANY(%s) ORDER BY name", [["a1", "a2"]]),
    ("SELECT dst FROM moves WHERE block_id = %s ORDER BY vtxindex DESC LIMIT 1", [2]),
    ("SELECT n FROM generate_series(1, %s) AS n ORDER BY n", [5]),
    ("SELECT encode(sha256(h), 'hex') AS x, lower(b) AS y, round(n / 7, 3) AS z FROM t ORDER BY a", None),
    ("SELECT owner, count(*) AS n FROM accounts GROUP BY ROLLUP (owner) ORDER BY owner NULLS LAST", None),
    ("INSERT INTO t (a, p, c, j, at) VALUES (%s, %s::positive, 'blue', '{}', '2024-05-06 07:08')", [90, 5]),
    (
        "INSERT INTO accounts SELECT %s, balance FROM accounts WHERE name = %s ON CONFLICT (name) DO NOTHING",
        ["copy", "a1"],
    ),
    ("SELECT coalesce(b, '') || 'x' AS x, lpad(a::text, 3, '0') AS y FROM t ORDER BY a", None),
    ("SELECT string_agg(b, ',' ORDER BY a) AS x, array_agg(b ORDER BY a) AS y FROM t", None),
    ("SELECT jsonb_object_agg(owner, balance ORDER BY name) AS x FROM accounts", None),
    ("SELECT avg(amount) AS x, sum(amount) / 7.0 AS y FROM moves", None),
]
"""Ordinary statements, which run on every machine."""
REJECTED: list[tuple[Any, Any]] = [
    ("INSERT INTO t (a) VALUES (%s), (%s)", [2**40, 1]),
    ("UPDATE t SET rank = %s WHERE a = %s", [2**40, 1]),
    ("UPDATE t SET n = n / %s WHERE f", [0]),
    ("SELECT 1 / (a - %s) AS x FROM t", [5]),
]
"""Statements whose values do not fit."""

Outcomes = list[tuple[str, ...]]


def outcome(state: State, statement: Any, parameters: Any) -> tuple[str, ...]:
    """Run a statement and undo it; return what it did, or why it did not."""
    with state._connection.transaction(force_rollback=True):
        try:
            answer = state._send(state._known(statement, parameters), parameters)
            rows = repr(answer.rows() if answer._result().nfields else answer.count)
            tables = [
                state.query("SELECT * FROM t ORDER BY a"),
                state.query("SELECT * FROM accounts ORDER BY name"),
                state.query("SELECT * FROM moves ORDER BY block_id, vtxindex"),
            ]
            result: tuple[str, ...] = ("runs", rows, repr(tables))
        except (VirtualchainError, psycopg.Error) as error:
            result = ("rejects", str(error)) if is_rejection(error) else ("halts",)
    state.failure()
    return result


def run(url: str, node: FakeNode, heap: str, *, has_role: bool) -> Outcomes:
    """Return the outcome of each statement, in a reducer of an app on this database."""
    seed, settings = HEAPS[heap]
    outcomes: Outcomes = []

    def check(_: dict[str, Any], state: State) -> bool:
        for statement, parameters in random.Random(seed).sample(ROWS, len(ROWS)) if seed else ROWS:
            state.execute(statement, parameters)
        for setting in settings:
            state._connection.execute(b"SET LOCAL " + setting)
        outcomes.extend(outcome(state, *case) for case in (*NEVER, *ALWAYS, *REJECTED))
        return True

    app = App("everywhere", magic=b"ev", projections=TABLES)
    app.add(b"o", parse=lambda payload: {"text": payload.decode()}, check=check)
    with StateEngine(app, database=url, source=node.url, confirmations=0) as engine:
        if not has_role:
            with psycopg.connect(url) as connection:
                connection.execute("UPDATE vc.apps SET own_role = false")
        engine.build()
        assert engine.halted() == {}
    return outcomes


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, Outcomes]]:
    """Run all statements on each version, heap and plan, and once without a role of the app's own."""
    by_machine: dict[str, Outcomes] = {}
    with ExitStack() as stack:
        node = stack.enter_context(FakeNode())
        node.mine([node.send(b"evox")])
        for version, binaries in installations().items():
            server = DatabaseServer(stack.enter_context(embedded_server(binaries)))
            for heap in HEAPS:
                by_machine[f"{version}, {heap}"] = run(server.clone(), node, heap, has_role=True)
            by_machine[f"{version}, no role"] = run(server.clone(), node, "as written", has_role=False)
        yield by_machine


@pytest.mark.parametrize(
    ("cases", "first", "expected"),
    [(NEVER, 0, "halts"), (ALWAYS, len(NEVER), "runs"), (REJECTED, len(NEVER) + len(ALWAYS), "rejects")],
    ids=["halt", "run", "reject"],
)
def test_a_statement_has_one_outcome_everywhere(
    outcomes: dict[str, Outcomes], cases: list[tuple[Any, Any]], first: int, expected: str
) -> None:
    """Rows and tables are the same wherever it runs; if it halts, it halts on all machines."""
    for number, (statement, _) in enumerate(cases, first):
        by_machine = {machine: all_of_it[number] for machine, all_of_it in outcomes.items()}
        assert {result[0] for result in by_machine.values()} == {expected}, (statement, by_machine)
        assert len(set(by_machine.values())) == 1, (statement, by_machine)

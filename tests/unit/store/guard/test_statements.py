"""What may run: one statement that reads or writes rows."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.guard_catalog import CATALOG, is_refused
from virtualchain.store.guard.refusal import ForbiddenStatement
from virtualchain.store.guard.statements import examine

ALLOWED = (
    "SELECT count(*) AS n FROM entries WHERE author = %s",
    "INSERT INTO entries VALUES (%s, %s, %s, %s)",
    "INSERT INTO t (a, b) VALUES (%s,%s) ON CONFLICT (a) DO UPDATE SET b = t.b || excluded.b RETURNING b",
    "UPDATE t SET n = n + %s WHERE a = %s",
    "UPDATE t SET rank = %s WHERE a = %s",
    "DELETE FROM t WHERE a = ANY(%s)",
    "SELECT * FROM t ORDER BY a LIMIT 1",
    "SELECT t.*, k.is_number FROM t JOIN kinds AS k ON k.kind = t.b WHERE a > %(x)s AND b LIKE %(y)s",
    (
        "MERGE INTO entries AS n USING unnest(%(a)s::text[], %(b)s::bigint[]) AS e (x, m) "
        "ON n.author = e.x WHEN MATCHED THEN UPDATE SET message = e.m"
    ),
    "SELECT coalesce(max(a), 0) + 1 AS next FROM t",
    "SELECT (SELECT count(*) FROM t) AS c",
    "WITH gone AS (DELETE FROM t WHERE a = %s RETURNING *) INSERT INTO kinds SELECT b, true FROM gone",
    (
        "MERGE INTO t USING (VALUES (%s::integer, %s)) AS s (a, b) ON t.a = s.a "
        "WHEN MATCHED THEN UPDATE SET b = s.b WHEN NOT MATCHED THEN INSERT (a, b) VALUES (s.a, s.b)"
    ),
    "SELECT j ->> 'x' AS x, j -> 'y' AS y FROM t WHERE j @> %s",
    "SELECT b::text, %s::bytea, %s::uuid, a::bigint, n::integer FROM t",
    "SELECT string_agg(b, ',' ORDER BY a) FROM t",
    "SELECT max(encode(b::bytea, 'hex')), max(length(b)), max(a + %s), max(b || 'x') FROM t",
    "SELECT e.key, e.value FROM t, jsonb_each(j) AS e",
    "SELECT x, u.ordinality FROM unnest(%s::text[]) WITH ORDINALITY AS u (x)",
    "WITH RECURSIVE x (length) AS (SELECT 1 UNION ALL SELECT x.length + 1 FROM x) SELECT max(length) FROM x",
    "SELECT v.column1 FROM (VALUES (1)) AS v",
    "WITH c AS (SELECT count(*) FROM t) SELECT c.count FROM c",
    "SELECT m.max FROM (SELECT max(a) FROM t) AS m",
    "SELECT r.rank FROM (SELECT rank() OVER (ORDER BY a) FROM t) AS r",
    "UPDATE t SET val = s.count::text FROM (SELECT n, count(*) FROM t GROUP BY n) AS s WHERE s.n = t.a",
    "SELECT max(v.n) FROM hashes JOIN (VALUES (1), (2)) AS v (n) ON v.n = id",
    "SELECT v.x FROM (SELECT a FROM t) v (x)",
    "WITH x (c) AS NOT MATERIALIZED (SELECT a FROM t), y (c) AS (SELECT c FROM x) SELECT c FROM y",
    "SELECT md5(b)::bytea, trim(b)::bytea, (j ->> 'a')::bytea, substring(b FROM 2)::bytea FROM t",
    """SELECT '{"id": "0x1f", "max": "infinity"}'::jsonb""",
    "INSERT INTO t (a, b) VALUES (1, 'x') ON CONFLICT (a) DO UPDATE SET b = excluded.b, val = t.val",
    "SELECT (b || 'x')::bytea, decode(b, 'hex')::bytea, lower(b)::bytea FROM t",
    "SELECT * FROM generate_series(1, 5) AS g (i)",
    "SELECT sum(a) FILTER (WHERE is_number) OVER (PARTITION BY b ORDER BY a) FROM t",
    "INSERT INTO t (a) SELECT a FROM t ORDER BY a ON CONFLICT DO NOTHING",
    "SELECT lower(b), substring(b FROM 1 FOR 3), length(b), md5(b), left(b, 3) FROM t",
    "SELECT encode(sha256(%s), 'hex')",
    "SELECT ARRAY[1,2,3], ARRAY(SELECT a FROM t ORDER BY a)",
    "SELECT b = 'x_1' FROM t",
    "VALUES (1, 2)",
    "SELECT 1 FROM t WHERE a = 1 FOR UPDATE",
    "SELECT EXISTS (SELECT FROM t WHERE a = %s) AS there",
    "SELECT since_block FROM t",
    "SELECT DISTINCT b FROM t ORDER BY b",
    "SELECT a % 2 FROM t",
    "SELECT row_number() OVER (ORDER BY a), rank FROM t",
    "SELECT 'a' || b || %s FROM t",
    "SELECT 1; ",
    'SELECT b COLLATE "C" FROM t',
    "INSERT INTO t VALUES (1, DEFAULT)",
    "SELECT * FROM t WHERE (a, b) = (%s, %s)",
    "SELECT a::numeric(10,2), %s::varchar(5) FROM t",
    "SELECT nullif(a, 0), greatest(a, 1), position('x' in b), trim(b) FROM t",
    "SELECT jsonb_array_elements(j) FROM t",
    "SELECT x.a FROM (SELECT a FROM t) AS x (a)",
    "SELECT %s::integer + 1",
    "INSERT INTO t (a, n) VALUES (%s, '12.50')",
    "SELECT x, n FROM unnest(%s::text[]) WITH ORDINALITY AS u (x, n) ORDER BY n",
    "SELECT t.a FROM t CROSS JOIN LATERAL (SELECT count(*) AS c FROM kinds WHERE kinds.kind = t.b) AS k",
    "SELECT a AS user FROM t",
    "SELECT a FROM t UNION ALL SELECT a FROM t ORDER BY 1",
    "INSERT INTO t (a, b) VALUES (%s, %s), (%s, %s)",
    "SELECT b FROM t WHERE b IN (%s, %s) AND a BETWEEN %s AND %s",
    "INSERT INTO entries SELECT a, 0, b, val FROM t ORDER BY a",
    "SELECT $$a dollar quoted$$",
    "SELECT %s::color, 'red'::color",
    "-- COMMIT is only a comment here\nSELECT 1",
    "SELECT count(*) FROM T WHERE T.A = 1",
    "SELECT %s::positive, a::positive FROM t",
    "UPDATE t SET rank = %s WHERE rank = %s",
    "UPDATE t SET b = k.kind FROM kinds AS k WHERE k.kind = t.b",
    "UPDATE t SET n = s.x FROM (SELECT b, sum(a) AS x FROM t GROUP BY b) AS s WHERE s.b = t.b",
    "UPDATE t SET n = n + 1 FROM kinds WHERE kinds.is_number = t.is_number",
    "UPDATE t SET b = e.m FROM (VALUES (%s::bigint, %s)) AS e (x, m) WHERE t.a = e.x",
    "DELETE FROM t USING kinds WHERE kinds.is_number = t.is_number RETURNING t.a",
    "INSERT INTO kinds SELECT %s, true WHERE NOT EXISTS (SELECT FROM t) ON CONFLICT (kind) DO NOTHING",
    "INSERT INTO kinds SELECT b, bool_or(is_number) FROM t GROUP BY b ON CONFLICT (kind) DO NOTHING",
    "INSERT INTO kinds SELECT b, true FROM t WHERE a = %s ON CONFLICT (kind) DO NOTHING",
    "SELECT 1 FROM t WHERE b = %s LIMIT 1",
    "SELECT b FROM t WHERE a = %s LIMIT 1",
    "SELECT b FROM t ORDER BY b LIMIT 1",
    "SELECT message FROM entries WHERE block_id = %s ORDER BY vtxindex DESC LIMIT 1",
    "SELECT n.message FROM entries AS n JOIN kinds ON kind = author ORDER BY block_id, vtxindex LIMIT 5",
    "SELECT author, count(*) FROM entries GROUP BY author ORDER BY 2 DESC, 1 LIMIT 3",
    "SELECT EXISTS (SELECT b FROM t LIMIT 1)",
    "SELECT DISTINCT ON (b) b, a FROM t ORDER BY b, n DESC, a",
    "SELECT rank() OVER (ORDER BY n), sum(a) OVER (PARTITION BY b ORDER BY n) FROM t",
    "SELECT lag(n) OVER w FROM t WINDOW w AS (PARTITION BY b ORDER BY a)",
    "SELECT jsonb_object_agg(b, val ORDER BY n, a), jsonb_object_agg(b, 1 ORDER BY b) FROM t",
    "SELECT array_agg(b ORDER BY b), string_agg(b, ',' ORDER BY n, a) FROM t",
    "INSERT INTO t (a, j) VALUES (%s, '{}'), (%s, '{\"x\": [1]}'::jsonb)",
    "SELECT x.n::integer FROM unnest(%s::text[]) WITH ORDINALITY AS x (t, n)",
    "SELECT x.total::bigint FROM (SELECT sum(a) AS total FROM t) AS x",
    "SELECT round(n)::integer, row_number() OVER (ORDER BY a)::integer FROM t",
    "SELECT row_number() OVER (w ORDER BY a) FROM t WINDOW w AS (PARTITION BY b)",
    "INSERT INTO kinds (kind) SELECT DISTINCT b FROM t ON CONFLICT (kind) DO NOTHING",
    "MERGE INTO t USING (VALUES (%s::bigint)) AS v (x) ON a = x WHEN MATCHED THEN UPDATE SET rank = 1",
    "SELECT is_number, count(*) FROM t GROUP BY ROLLUP (is_number) ORDER BY 1",
    "SELECT E'a line\\nand \\'another\\'', '0x', '1st', 'x_1', '10-20', '3 days' FROM kinds",
    "INSERT INTO moments VALUES (%s, '2024-05-06 07:08:09'), (%s, '2024-05-06T07:08Z')",
)

REFUSED = (
    "; COMMIT",
    "COMMIT",
    "SET x = 1",
    "RESET ALL",
    "COPY t FROM STDIN",
    "DO $$ BEGIN END $$",
    "CALL f()",
    "LISTEN x",
    "NOTIFY x",
    "LOCK TABLE t",
    "CREATE TEMP TABLE x (a int)",
    "EXPLAIN SELECT 1",
    "PREPARE x AS SELECT 1",
    "SELECT 1; SELECT 2",
    "VACUUM t",
    "TRUNCATE t",
    "ALTER TABLE t ADD x int",
    "DISCARD ALL",
)


@pytest.mark.parametrize("statement", ALLOWED)
def test_a_statement_on_values_alone_may_run(statement: str) -> None:
    """Ordinary SQL on the app's own tables is let through."""
    examine(statement, CATALOG, has_parameters="%s" in statement or "%(" in statement)


@pytest.mark.parametrize("statement", REFUSED)
def test_anything_but_one_statement_on_rows_is_refused(statement: str) -> None:
    """Transactions, settings and schema are the engine's."""
    is_refused(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "",
        "-- nothing",
        "SELECT x.b::integer FROM (SELECT a FROM t) AS x (a, b)",
        "WITH x (a, b) AS (SELECT a FROM t) SELECT b::integer FROM x",
        f"SELECT b FROM t ORDER BY {'9' * 5_000} LIMIT 1",
    ],
)
def test_a_statement_that_cannot_be_analyzed_is_refused(statement: str) -> None:
    """Another error of the look could be taken for a ValueError of `parse`, which rejects the input."""
    is_refused(statement)


@pytest.mark.parametrize("frames", [0, 100, 150, 200, 600, 900])
@pytest.mark.parametrize(
    ("statement", "is_allowed"),
    [
        ("SELECT a FROM t WHERE b = %s", True),
        ("SELECT " + "1 + " * 900 + "1", True),
        ("SELECT a FROM t WHERE " + "b = 'x' OR " * 900 + "b = %s", True),
        ("SELECT " + "NOT " * 150 + "is_number FROM t", None),
        ("SELECT " + "- " * 300 + "a FROM t", None),
        ("SELECT " + "- " * 3_000 + "a FROM t", False),
    ],
    ids=["short", "sum", "or", "not", "signs", "endless"],
)
def test_the_stack_of_the_caller_does_not_matter(
    frames: int, statement: str, is_allowed: bool | None
) -> None:
    """A statement may run, or may not, however deep the caller is."""

    def outcome(frames: int) -> str:
        if frames:
            return outcome(frames - 1)
        try:
            return repr(examine(statement, CATALOG, has_parameters=True))
        except ForbiddenStatement:
            return ""

    with ThreadPoolExecutor(1) as thread:  # frames are counted from an empty stack
        deep, shallow = (thread.submit(outcome, each).result() for each in (frames, 0))
    assert deep == shallow
    assert is_allowed is None or bool(deep) is is_allowed

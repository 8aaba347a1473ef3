"""Which statements reducers may run, and whose errors may reject an input."""

from collections.abc import Mapping

import pytest

from virtualchain.store.sources import Catalog, Table
from virtualchain.store.statements import ForbiddenStatement, examine

IMMUTABLE = frozenset(
    """
    array_agg count date_larger date_mi encode generate_series isfinite jsonb_array_elements left length lower
    max md5 normalize position row_number sha256 string_agg sum timestamp_mi to_tsvector unnest upper xmlagg
    hashtext jsonb_path_query any_value array_sort bool_or chr first_value lag rank repeat round to_bin
    """.split()
)
"""Built-in functions that the catalog calls immutable."""
OTHERS = frozenset(
    """
    clock_timestamp concat current_setting currval extract gen_random_uuid has_table_privilege
    inet_client_addr jsonb_agg lastval lo_create nextval now obj_description pg_advisory_lock pg_backend_pid
    pg_notify pg_sleep pg_try_advisory_xact_lock query_to_xml random set_config statement_timestamp timeofday
    to_char to_regclass txid_current uuidv7 version
    """.split()
)
"""Built-in functions that it calls stable or volatile."""


def are_immutable(names: frozenset[str]) -> Mapping[str, bool]:
    """Answer as the server's catalog does."""
    return {name: name in IMMUTABLE for name in names & (IMMUTABLE | OTHERS)}


CATALOG = Catalog(
    {
        "t": Table(
            {
                "a": "integer",
                "b": "text",
                "rank": "integer",
                "val": "text",
                "is_number": "boolean",
                "j": "jsonb",
                "since_block": "integer",
                "n": "numeric",
            },
            ("a",),
            (frozenset({"a"}), frozenset({"rank"})),
            keys=(frozenset({"a"}),),
            weak_keys=(frozenset({"rank"}),),
            checked=frozenset({"a", "rank"}),
            required=frozenset({"a", "since_block"}),
        ),
        "kinds": Table(
            {"kind": "text", "is_number": "boolean"},
            ("kind",),
            (frozenset({"kind"}),),
            keys=(frozenset({"kind"}),),
        ),
        "entries": Table(
            {"block_id": "integer", "vtxindex": "integer", "author": "text", "message": "text"},
            ("block_id", "vtxindex"),
            (frozenset({"block_id", "vtxindex"}),),
            keys=(frozenset({"block_id", "vtxindex"}),),
        ),
        "moments": Table({"a": "integer", "at": "timestamp without time zone"}, ("a",), ()),
    },
    frozenset({"color"}),
    {"positive": "integer"},
    are_immutable,
)

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
    "SELECT array_agg(b ORDER BY b), string_agg(b, ',' ORDER BY n, a) FROM t",
    "INSERT INTO t (a, j) VALUES (%s, '{}'), (%s, '{\"x\": [1]}'::jsonb)",
    "SELECT x.n::integer FROM unnest(%s::text[]) WITH ORDINALITY AS x (t, n)",
    "SELECT x.total::bigint FROM (SELECT sum(a) AS total FROM t) AS x",
    "SELECT round(n)::integer, row_number() OVER (ORDER BY a)::integer FROM t",
    "SELECT is_number, count(*) FROM t GROUP BY ROLLUP (is_number) ORDER BY 1",
    "SELECT E'a line\\nand \\'another\\'', '0x', '1st', 'x_1', '10-20', '3 days' FROM kinds",
    "INSERT INTO moments VALUES (%s, '2024-05-06 07:08:09'), (%s, '2024-05-06T07:08Z')",
)

FORBIDDEN = (
    "SELECT val::integer FROM t",
    "SELECT (j ->> 'x')::int FROM t",
    "SELECT '0x1F'::integer",
    "SELECT integer '5'",
    "SELECT now()",
    "SELECT CURRENT_TIMESTAMP",
    "SELECT current_user",
    "SELECT user",
    "SELECT localtime",
    "SELECT 'now'::timestamp",
    "SELECT timestamp 'today'",
    "SELECT date 'now'",
    "SELECT random()",
    "SELECT gen_random_uuid()",
    "SELECT clock_timestamp()",
    "SELECT pg_backend_pid()",
    "SELECT pg_catalog.now()",
    "SELECT set_config('TimeZone', 'UTC', true)",
    "SELECT current_setting('TimeZone')",
    "SELECT ctid FROM t",
    "SELECT t.xmin FROM t",
    "SELECT * FROM vc.ops",
    "SELECT * FROM pg_class",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM t_history",
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
    "SELECT 1 INTO TEMP x",
    "SELECT pg_advisory_lock(1)",
    "SELECT txid_current()",
    "UPDATE t SET rank = rank + 1",
    "UPDATE t SET rank = %s WHERE b = %s",
    "UPDATE t SET a = a + 1",
    "SELECT array_agg(b) FROM t",
    "SELECT jsonb_agg(b) FROM t",
    "SELECT normalize(b) FROM t",
    "SELECT b AT TIME ZONE 'localtime' FROM t",
    'SELECT b COLLATE "en_US" FROM t',
    "SELECT sqrt(a) FROM t",
    "SELECT 2 ^ 3",
    "SELECT a FROM t TABLESAMPLE SYSTEM (10)",
    "SELECT a FROM t FOR UPDATE SKIP LOCKED",
    "INSERT INTO t SELECT a FROM t ON CONFLICT DO NOTHING",
    "EXPLAIN SELECT 1",
    "PREPARE x AS SELECT 1",
    "SELECT 1; SELECT 2",
    "INSERT INTO moments VALUES (1, 'now')",
    "INSERT INTO moments VALUES (1, ' TODAY ')",
    "INSERT INTO t (a) VALUES ('1_000')",
    "SELECT * FROM t WHERE a = '0x1F'",
    "SELECT interval '1 day'",
    "SELECT to_char(a, '999') FROM t",
    "SELECT to_tsvector(b) FROM t",
    "SELECT %s::jsonb ->> 'a' FROM t WHERE val::jsonb = %s",
    'SELECT "now"()',
    'SELECT "random" ()',
    "SELECT nextval('x')",
    "SELECT pg_sleep(1)",
    "SELECT version()",
    "SELECT tableoid::regclass FROM t",
    "SELECT a::float FROM t",
    "SELECT a::date FROM t",
    "SELECT a OPERATOR(pg_catalog.+) 1 FROM t",
    "VACUUM t",
    "TRUNCATE t",
    "ALTER TABLE t ADD x int",
    "SELECT dblink('x')",
    "SELECT * FROM pg_stat_activity",
    "SELECT current_catalog",
    "SELECT session_user, system_user",
    "DISCARD ALL",
    "SELECT pg_notify('x', 'y')",
    "SELECT lo_create(0)",
    "SELECT currval('x')",
    "SELECT inet_client_addr()",
    "SELECT statement_timestamp(), timeofday()",
    "SELECT f(a) FROM t",
    "SELECT a FROM t WHERE b = ANY (SELECT now()::text)",
    "WITH x AS (SELECT random() AS r) SELECT r FROM x",
    "SELECT xmlagg(b) FROM t",
    "SELECT int4('0x1F')",
    "SELECT numeric('1_0')",
    "SELECT text(now)",
    "SELECT date_larger('now', 'today')",
    "SELECT timestamp_mi('tomorrow allballs', '2000-01-01')",
    "SELECT E'no\\x77'",
    "SELECT $$now$$",
    "SELECT date_mi($q$today$q$, '2000-01-01')",
    "SELECT U&'\\006eow'",
    "SELECT 'no' 'w'",
    "SELECT * FROM current_date",
    "SELECT now /* x */ ()",
    "SELECT a FROM t WHERE a IN ('1_0', '2')",
    "SELECT hashtext(b) FROM t",
    "SELECT jsonb_path_query(j, '$.x.datetime()') FROM t",
    "SELECT extract(epoch FROM %s)",
    "SELECT (t).ctid FROM t",
    "SELECT t FROM t_births AS t",
    'SELECT * FROM "t_history"',
    'SELECT pg_catalog."now"()',
    "SELECT a FROM public.t",
    "SELECT (SELECT current_user)",
    "INSERT INTO t SELECT 1 FROM pg_sleep(1)",
    "SELECT uuidv7()",
    "SELECT isfinite('now')",
    "SELECT lastval()",
    "SELECT has_table_privilege('t', 'SELECT')",
    "SELECT to_regclass('t')",
    "SELECT query_to_xml('select 1', true, true, '')",
    "SELECT obj_description(1)",
    "SELECT pg_try_advisory_xact_lock(1)",
    "SELECT concat(a, b) FROM t",
    # Names in upper case, or with escapes.
    "SELECT CTID FROM t",
    "SELECT T.Xmin FROM t",
    "DELETE FROM t WHERE CtId = '(0,1)'",
    'SELECT U&"ct\\0069d" FROM t',
    "SELECT app__1.t.a FROM t",
    # Text that becomes a number or a time without a cast.
    "SELECT coalesce(a, '1_0') FROM t",
    "SELECT CASE WHEN a = 1 THEN a ELSE '0x1' END FROM t",
    "SELECT ARRAY[a, ' 0B1 '] FROM t",
    "VALUES (1), ('0o7')",
    "SELECT a FROM t UNION SELECT '1_000'",
    "UPDATE t SET (n, b) = ('1_0.5', 'x') WHERE a = 1",
    "SELECT a FROM t WHERE a = ANY ('{1, 0x1}')",
    "SELECT a FROM t WHERE (a, n) = ('1_0', 1)",
    "SELECT left(b, '1_0'), a FROM t",
    "SELECT a FROM t ORDER BY a LIMIT '0x1'",
    "SELECT a FROM t WHERE n > '1e1_0'",
    "MERGE INTO t USING kinds ON b = kind WHEN NOT MATCHED THEN INSERT (a) VALUES ('1_0')",
    "SELECT 1_000",
    "SELECT 0x1F",
    "SELECT 0b11, 0o7",
    "SELECT a + E'1\\x5f0' FROM t",
    "SELECT E'\\156ow'",
    "SELECT coalesce(n, 'infinity') FROM t",
    "INSERT INTO moments VALUES (1, '2024-05-06 07:08 CET')",
    "INSERT INTO moments VALUES (1, '2024-05-06 07:08 Europe/Rome')",
    "SELECT at + '1 day' FROM moments",
    "SELECT at - 'P1D' FROM moments",
    # A column's name says nothing about another column of that name.
    "SELECT rank::integer FROM (SELECT j ->> 'x' AS rank FROM t) AS q",
    "SELECT a::integer FROM unnest(%s) AS a",
    "SELECT q.a::integer FROM (VALUES ('1_0')) AS q (a)",
    "WITH q AS (SELECT val AS a FROM t) SELECT a::integer FROM q",
    "SELECT a::integer FROM t AS x (b, a)",
    "SELECT %s::positive + val::positive FROM t",
    "SELECT (j -> 'x')::integer FROM t",
    # Where the order of rows decides.
    "UPDATE entries SET message = e.m FROM unnest(%s::text[], %s::text[]) AS e (x, m) WHERE author = e.x",
    "UPDATE t SET b = message FROM entries WHERE author = t.b",
    "UPDATE t SET b = message FROM entries WHERE block_id = a",
    "UPDATE t SET b = 'x' FROM entries WHERE author = t.b RETURNING message",
    "DELETE FROM t USING entries WHERE author = b RETURNING message",
    "UPDATE t SET b = (SELECT message FROM entries WHERE author = t.b LIMIT 1)",
    "SELECT b FROM t LIMIT 1",
    "SELECT b FROM t ORDER BY n LIMIT 1",
    "SELECT b FROM t ORDER BY rank LIMIT 1",
    "SELECT b FROM t OFFSET 1",
    "SELECT b FROM t FETCH FIRST ROW ONLY",
    "SELECT lower(b) AS b, a FROM t ORDER BY b LIMIT 1",
    "SELECT message FROM entries WHERE author = %s ORDER BY block_id LIMIT 1",
    "SELECT author, count(*) FROM entries GROUP BY author ORDER BY 2 LIMIT 1",
    "SELECT b FROM t WHERE a IN (SELECT vtxindex FROM entries LIMIT 3)",
    "SELECT DISTINCT ON (b) b, a FROM t ORDER BY b",
    "SELECT row_number() OVER () FROM t",
    "SELECT row_number() OVER (ORDER BY n) FROM t",
    "SELECT sum(a) OVER (ORDER BY n ROWS UNBOUNDED PRECEDING) FROM t",
    "SELECT first_value(a) OVER w FROM t WINDOW w AS (PARTITION BY b)",
    "SELECT string_agg(b, ',' ORDER BY n) FROM t",
    "SELECT ARRAY(SELECT b FROM t)",
    "INSERT INTO kinds SELECT b, is_number FROM t ORDER BY b ON CONFLICT (kind) DO NOTHING",
    # What only some versions of PostgreSQL have.
    "SELECT * FROM (SELECT 1)",
    "SELECT * FROM (VALUES (1))",
    "UPDATE t SET b = 'x' WHERE a = 1 RETURNING old.b",
    "MERGE INTO t USING kinds ON b = kind WHEN MATCHED THEN DELETE RETURNING a",
    "MERGE INTO t USING kinds ON b = kind WHEN NOT MATCHED BY SOURCE THEN DELETE",
    "SELECT any_value(b ORDER BY a) FROM t",
    "SELECT b IS JSON FROM t",
    "SELECT b IS NORMALIZED FROM t",
    "SELECT max((a, b)) FROM t",
    "SELECT max(t) FROM t",
    "SELECT array_sort(%s), to_bin(1)",
    "SELECT\v1",
    "SELECT 1 AS\u00a0x",
    # Parameters that the server would not find, and depth.
    "SELECT '%s'",
    "SELECT 1 -- %s",
    "SELECT $1",
    "SELECT 1 LIMIT%s",
    "SELECT " + "(" * 40 + "1" + ")" * 40,
    "SELECT " + "1 + " * 1_200 + "1",
    "SELECT '" + "[" * 70 + "]" * 70 + "'",
)


@pytest.mark.parametrize("statement", ALLOWED)
def test_a_statement_on_values_alone_may_run(statement: str) -> None:
    """Ordinary SQL on the app's own tables is let through."""
    examine(statement, CATALOG, has_parameters="%s" in statement or "%(" in statement)


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_a_statement_that_may_depend_on_more_is_forbidden(statement: str) -> None:
    """The error names the statement and says why."""
    with pytest.raises(ForbiddenStatement, match="may not run"):
        examine(statement, CATALOG, has_parameters="%s" in statement)


@pytest.mark.parametrize(
    ("statement", "safe"),
    [
        ("INSERT INTO t (a) VALUES (%s)", True),
        ("INSERT INTO t (a, b) VALUES (%s, %s) ON CONFLICT (a) DO UPDATE SET b = excluded.b", True),
        ("INSERT INTO t (a) VALUES (%s) ON CONFLICT (a) DO UPDATE SET a = 1 WHERE t.n / %s > 1", False),
        ("INSERT INTO t (a) SELECT a / %s FROM t", False),
        ("INSERT INTO t (a) VALUES ((SELECT max(a) + %s FROM t))", False),
        ("UPDATE t SET n = n / %s WHERE a = %s", True),
        ("UPDATE t SET n = 1 WHERE n / %s > 1", False),
        ("UPDATE t SET n = 1 FROM kinds WHERE a = %s", False),
        ("DELETE FROM t WHERE a = %s", True),
        ("DELETE FROM t WHERE a + 1 = %s", False),
        ("DELETE FROM t USING kinds WHERE a = %s", False),
        ("SELECT 1 / %s", True),
        ("SELECT n / %s FROM t WHERE a = %s", True),
        ("SELECT n / %s FROM t WHERE a = %s::integer", False),
        ("SELECT n / %s FROM t ORDER BY a LIMIT 1", False),
        ("SELECT DISTINCT n / %s FROM t", False),
        ("SELECT n / %s FROM t JOIN kinds ON kind = b", False),
        ("SELECT n / %s FROM t, kinds", False),
        ("SELECT max(n / %s) FROM t", False),
        ("SELECT n / %s FROM (SELECT n FROM t) AS x", False),
        ("WITH x AS (SELECT 1) SELECT 1 / %s", False),
        ("SELECT 1 / %s UNION SELECT 1", False),
        ("SELECT CASE WHEN a = 1 THEN 1 / %s END FROM t", False),
        ("SELECT coalesce(a, 1 / %s) FROM t", False),
        ("SELECT a = 1 AND 1 / %s = 1 FROM t", False),
        ("VALUES (1 / %s)", True),
        ("UPDATE t SET n = n / %s WHERE b = 'x'", True),
        ("UPDATE t SET n = n / %s, rank = a WHERE rank = 1", True),
        ("UPDATE kinds SET kind = %s WHERE kind = 'a'", True),
        ("UPDATE t SET n = n / %s, b = repeat(b, a) WHERE is_number", False),
        ("UPDATE t SET since_block = n / %s WHERE is_number", False),
        ("UPDATE t SET since_block = since_block / %s WHERE is_number", True),
        ("SELECT n / %s, chr(a) FROM t", False),
        ("SELECT n / %s, chr(a) FROM t WHERE a = 1", True),
        ("SELECT n / %s, b::uuid FROM t", False),
        ("DELETE FROM t WHERE is_number RETURNING n / %s", True),
        ("DELETE FROM t WHERE is_number RETURNING n / %s, chr(a)", False),
    ],
)
def test_an_error_rejects_only_if_no_plan_can_change_whether_it_is_raised(statement: str, safe: bool) -> None:
    """Nothing that can fail stands where a plan chooses for which rows it is computed."""
    assert examine(statement, CATALOG, has_parameters=True).may_reject is safe


def test_parameters_are_numbered_once_each() -> None:
    """A name that is used twice is one parameter; %% is a percent sign."""
    known = examine("SELECT %(b)s, %(a)s, 5 %% 3, %(b)s::integer", CATALOG, has_parameters=True)
    assert (known.text, known.parameters) == ("SELECT $1, $2, 5 % 3, $1::integer", ("b", "a"))
    assert known.not_text == {0}
    assert examine("SELECT 5 % 3", CATALOG, has_parameters=False).text == "SELECT 5 % 3"

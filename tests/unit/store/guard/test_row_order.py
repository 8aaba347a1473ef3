"""Where the order of rows decides."""

import pytest

from tests.support.guard_catalog import is_refused

REFUSED = (
    "UPDATE t SET rank = rank + 1",
    "UPDATE t SET rank = %s WHERE b = %s",
    "UPDATE t SET a = a + 1",
    "INSERT INTO t SELECT a FROM t ON CONFLICT DO NOTHING",
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
    "SELECT string_agg(b, val ORDER BY b) FROM t",
    "SELECT jsonb_object_agg(b, val ORDER BY n) FROM t",
    "SELECT jsonb_object_agg(b, val ORDER BY b) FROM t",
    "INSERT INTO kinds (kind, is_number) (SELECT b, is_number FROM t) ON CONFLICT DO NOTHING",
    "SELECT * FROM (SELECT b FROM t UNION ALL SELECT val FROM t LIMIT 2) AS q",
    "SELECT ARRAY(SELECT b FROM t)",
    "INSERT INTO kinds SELECT b, is_number FROM t ORDER BY b ON CONFLICT (kind) DO NOTHING",
)


@pytest.mark.parametrize("statement", REFUSED)
def test_a_choice_by_the_order_of_rows_is_refused(statement: str) -> None:
    """The rows to choose from differ in no key."""
    is_refused(statement)

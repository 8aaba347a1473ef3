"""Whose errors may reject an input."""

import pytest

from tests.support.guard_catalog import CATALOG
from virtualchain.store.guard.statements import examine


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

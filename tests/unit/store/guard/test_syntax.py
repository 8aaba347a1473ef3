"""Syntax whose result may depend on more than values."""

import pytest

from tests.support.guard_catalog import is_refused

REFUSED = (
    "SELECT ctid FROM t",
    "SELECT t.xmin FROM t",
    "SELECT * FROM vc.ops",
    "SELECT * FROM pg_class",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM t_history",
    "SELECT 1 INTO TEMP x",
    "SELECT b AT TIME ZONE 'localtime' FROM t",
    'SELECT b COLLATE "en_US" FROM t',
    "SELECT sqrt(a) FROM t",
    "SELECT 2 ^ 3",
    "SELECT a FROM t TABLESAMPLE SYSTEM (10)",
    "SELECT a FROM t FOR UPDATE SKIP LOCKED",
    "SELECT interval '1 day'",
    "SELECT * FROM pg_stat_activity",
    "SELECT * FROM current_date",
    "SELECT (t).ctid FROM t",
    "SELECT t FROM t_births AS t",
    'SELECT * FROM "t_history"',
    "SELECT a FROM public.t",
    "SELECT CTID FROM t",
    "SELECT T.Xmin FROM t",
    "DELETE FROM t WHERE CtId = '(0,1)'",
    "SELECT app__1.t.a FROM t",
    "SELECT j @? '$.x' FROM t",
    "SELECT b @@ 'x' FROM t",
    "SELECT * FROM (SELECT 1)",
    "SELECT * FROM (VALUES (1))",
    "UPDATE t SET b = 'x' WHERE a = 1 RETURNING old.b",
    "MERGE INTO t USING kinds ON b = kind WHEN MATCHED THEN DELETE RETURNING a",
    "SELECT b IS JSON FROM t",
    "SELECT b IS NORMALIZED FROM t",
    "SELECT max((a, b)) FROM t",
    "SELECT max(t) FROM t",
    "SELECT " + "1 + " * 1_200 + "1",
)


@pytest.mark.parametrize("statement", REFUSED)
def test_syntax_that_may_depend_on_more_than_values_is_refused(statement: str) -> None:
    """Other tables, system columns, collations, and what only some versions of PostgreSQL have."""
    is_refused(statement)

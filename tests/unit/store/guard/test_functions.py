"""Functions whose results may depend on more than their arguments."""

import pytest

from tests.support.guard_catalog import is_refused

REFUSED = (
    "SELECT now()",
    "SELECT random()",
    "SELECT gen_random_uuid()",
    "SELECT clock_timestamp()",
    "SELECT a FROM t WHERE a BETWEEN SYMMETRIC random() AND 5",
    "SELECT substring(b FOR pg_backend_pid()) FROM t",
    "SELECT overlay(b PLACING version() FROM 1) FROM t",
    "SELECT trim(LEADING version() FROM b) FROM t",
    "SELECT num_nulls(VARIADIC current_setting(b)) FROM t",
    "SELECT DISTINCT ON (a) version() FROM t ORDER BY a",
    "SELECT sum(a) OVER (ORDER BY a ROWS pg_backend_pid() PRECEDING) FROM t",
    "SELECT a FROM t ORDER BY a FETCH FIRST pg_backend_pid() ROWS ONLY",
    "WITH hashtext AS (SELECT 1 AS a) SELECT hashtext(b) FROM t",
    "WITH version AS (SELECT 1 AS a) SELECT version() AS x FROM version",
    "WITH array_agg AS (SELECT 1 AS a) SELECT array_agg(b) FROM t",
    "SELECT encode(regclasssend('t'), 'hex')",
    "SELECT pg_size_bytes('1 B')",
    "SELECT jsonb_path_exists_opr(j, '$.a') FROM t",
    "SELECT pg_backend_pid()",
    "SELECT set_config('TimeZone', 'UTC', true)",
    "SELECT current_setting('TimeZone')",
    "SELECT pg_advisory_lock(1)",
    "SELECT txid_current()",
    "SELECT array_agg(b) FROM t",
    "SELECT jsonb_agg(b) FROM t",
    "SELECT normalize(b) FROM t",
    "SELECT to_char(a, '999') FROM t",
    "SELECT to_tsvector(b) FROM t",
    'SELECT "now"()',
    'SELECT "random" ()',
    "SELECT nextval('x')",
    "SELECT pg_sleep(1)",
    "SELECT version()",
    "SELECT dblink('x')",
    "SELECT pg_notify('x', 'y')",
    "SELECT lo_create(0)",
    "SELECT currval('x')",
    "SELECT inet_client_addr()",
    "SELECT statement_timestamp(), timeofday()",
    "SELECT f(a) FROM t",
    "SELECT a FROM t WHERE b = ANY (SELECT now()::text)",
    "WITH x AS (SELECT random() AS r) SELECT r FROM x",
    "SELECT xmlagg(b) FROM t",
    "SELECT text(now)",
    "SELECT now /* x */ ()",
    "SELECT hashtext(b) FROM t",
    "SELECT jsonb_path_query(j, '$.x.datetime()') FROM t",
    "SELECT extract(epoch FROM %s)",
    "INSERT INTO t SELECT 1 FROM pg_sleep(1)",
    "SELECT uuidv7()",
    "SELECT lastval()",
    "SELECT has_table_privilege('t', 'SELECT')",
    "SELECT to_regclass('t')",
    "SELECT query_to_xml('select 1', true, true, '')",
    "SELECT obj_description(1)",
    "SELECT pg_try_advisory_xact_lock(1)",
    "SELECT concat(a, b) FROM t",
    "SELECT any_value(b ORDER BY a) FROM t",
    "SELECT array_sort(%s), to_bin(1)",
)


@pytest.mark.parametrize("statement", REFUSED)
def test_a_function_that_may_depend_on_more_is_refused(statement: str) -> None:
    """However its name is written."""
    is_refused(statement)

"""Literals that a server reads by its version or its clock."""

import pytest

from tests.support.guard_catalog import is_refused

REFUSED = (
    "INSERT INTO moments VALUES (1, 'now')",
    "INSERT INTO moments VALUES (1, ' TODAY ')",
    "INSERT INTO t (a) VALUES ('1_000')",
    "SELECT * FROM t WHERE a = '0x1F'",
    "SELECT int4('0x1F')",
    "SELECT numeric('1_0')",
    "SELECT date_larger('now', 'today')",
    "SELECT timestamp_mi('tomorrow allballs', '2000-01-01')",
    "SELECT E'no\\x77'",
    "SELECT $$now$$",
    "SELECT date_mi($q$today$q$, '2000-01-01')",
    "SELECT U&'\\006eow'",
    "SELECT 'no' 'w'",
    "SELECT a FROM t WHERE a IN ('1_0', '2')",
    "SELECT isfinite('now')",
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
    "SELECT a + E'1\\x5f0' FROM t",
    "SELECT E'\\156ow'",
    "SELECT coalesce(n, 'infinity') FROM t",
    "INSERT INTO moments VALUES (1, '2024-05-06 07:08 CET')",
    "INSERT INTO moments VALUES (1, '2024-05-06 07:08 Europe/Rome')",
    "SELECT at + '1 day' FROM moments",
    "INSERT INTO moments VALUES (1, 'y2020m01d01')",
    "INSERT INTO moments VALUES (1, 'epoch 01:01:01')",
    "INSERT INTO moments VALUES (1, '101010J')",
    "INSERT INTO moments VALUES (1, 'EST 2020-01-01 10:00')",
    "SELECT at - 'D2' FROM moments",
    "SELECT a FROM t WHERE a = ANY ('{0x1F,NULL}')",
    "SELECT a FROM t WHERE a = ANY ('{1_000,null}')",
    "SELECT a FROM t WHERE a <@ '{[0x1,3],empty}'",
    "SELECT a FROM t WHERE a = ANY ('{0\\x1F}')",
    "SELECT at <@ '(,+infinity]' FROM moments",
    "SELECT '{{},{}}'::text[]",
    "SELECT 'a\0b'",
    "SELECT at - 'P1D' FROM moments",
    "SELECT '" + "[" * 70 + "]" * 70 + "'",
)


@pytest.mark.parametrize("statement", REFUSED)
def test_a_literal_that_servers_read_differently_is_refused(statement: str) -> None:
    """Text becomes a number or a time without a cast."""
    is_refused(statement)

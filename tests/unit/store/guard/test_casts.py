"""Casts of text that the server would read."""

import pytest

from tests.support.guard_catalog import is_refused

REFUSED = (
    "SELECT val::integer FROM t",
    "SELECT (j ->> 'x')::int FROM t",
    "SELECT '0x1F'::integer",
    "SELECT integer '5'",
    "SELECT 'now'::timestamp",
    "SELECT timestamp 'today'",
    "SELECT date 'now'",
    "SELECT %s::jsonb ->> 'a' FROM t WHERE val::jsonb = %s",
    "SELECT tableoid::regclass FROM t",
    "SELECT a::float FROM t",
    "SELECT a::date FROM t",
    "SELECT rank::integer FROM (SELECT j ->> 'x' AS rank FROM t) AS q",
    "SELECT a::integer FROM unnest(%s) AS a",
    "SELECT q.a::integer FROM (VALUES ('1_0')) AS q (a)",
    "WITH q AS (SELECT val AS a FROM t) SELECT a::integer FROM q",
    "SELECT a::integer FROM t AS x (b, a)",
    "SELECT %s::positive + val::positive FROM t",
    "SELECT (j -> 'x')::integer FROM t",
)


@pytest.mark.parametrize("statement", REFUSED)
def test_a_cast_that_has_the_server_read_text_is_refused(statement: str) -> None:
    """A column's name says nothing about another column of that name."""
    is_refused(statement)

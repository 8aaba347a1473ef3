"""Keywords that depend on the clock or the session."""

import pytest

from tests.support.guard_catalog import is_refused

REFUSED = (
    "SELECT CURRENT_TIMESTAMP",
    "SELECT current_user",
    "SELECT user",
    "SELECT localtime",
    "SELECT pg_catalog.now()",
    "SELECT a OPERATOR(pg_catalog.+) 1 FROM t",
    "SELECT current_catalog",
    "SELECT session_user, system_user",
    'SELECT pg_catalog."now"()',
    "SELECT (SELECT current_user)",
    "MERGE INTO t USING kinds ON b = kind WHEN NOT MATCHED BY SOURCE THEN DELETE",
)


@pytest.mark.parametrize("statement", REFUSED)
def test_a_word_of_the_clock_or_the_session_is_refused(statement: str) -> None:
    """Whatever it stands in, and however a schema is named."""
    is_refused(statement)

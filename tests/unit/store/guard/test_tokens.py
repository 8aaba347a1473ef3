"""Text that the parser and the server, or two servers, might read differently."""

import pytest

from tests.support.guard_catalog import is_refused

REFUSED = (
    'SELECT U&"ct\\0069d" FROM t',
    "SELECT 1_000",
    "SELECT 0x1F",
    "SELECT 0b11, 0o7",
    "SELECT\v1",
    "SELECT 1 AS\u00a0x",
    "SELECT '%s'",
    "SELECT 1 -- %s",
    "SELECT $1",
    "SELECT 1 LIMIT%s",
    "SELECT " + "(" * 40 + "1" + ")" * 40,
)


@pytest.mark.parametrize("statement", REFUSED)
def test_text_that_is_not_read_alike_everywhere_is_refused(statement: str) -> None:
    """Spaces, numbers, escapes, depth, and parameters where the server would not find them."""
    is_refused(statement)

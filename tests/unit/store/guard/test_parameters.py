"""How parameters are numbered and named."""

from tests.support.guard_catalog import CATALOG
from virtualchain.store.guard.statements import examine


def test_parameters_are_numbered_once_each() -> None:
    """A name that is used twice is one parameter; %% is a percent sign."""
    known = examine("SELECT %(b)s, %(a)s, 5 %% 3, %(b)s::integer", CATALOG, has_parameters=True)
    assert (known.text, known.parameters) == ("SELECT $1, $2, 5 % 3, $1::integer", ("b", "a"))
    assert known.not_text == {0}
    assert examine("SELECT 5 % 3", CATALOG, has_parameters=False).text == "SELECT 5 % 3"

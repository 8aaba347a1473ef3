"""How parameters are numbered and named."""

import pytest

from tests.support.guard_catalog import CATALOG, is_refused
from virtualchain.store.guard.statements import examine


def test_parameters_are_numbered_once_each() -> None:
    """A name that is used twice is one parameter; %% is a percent sign."""
    known = examine("SELECT %(b)s, %(a)s, 5 %% 3, %(b)s::integer", CATALOG, has_parameters=True)
    assert (known.text, known.parameters) == ("SELECT $1, $2, 5 % 3, $1::integer", ("b", "a"))
    assert known.not_text == {0}
    assert examine("SELECT 5 % 3", CATALOG, has_parameters=False).text == "SELECT 5 % 3"


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT vc_parameter_1::integer, %s FROM t",
        'SELECT "vc_parameter_1" FROM t',
        "SELECT VC_Parameter_1 FROM t",
        "SELECT a AS vc_parameter_1 FROM t",
        "SELECT 'vc_parameter_1', %s",
        "SELECT vc_parameter_x FROM t",
        "SELECT vc_parameter_\u00b2 FROM t",
    ],
)
def test_what_is_named_like_a_parameter_is_refused(statement: str) -> None:
    """It would be taken for one, or could not be read as one."""
    is_refused(statement)

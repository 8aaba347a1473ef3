"""What a check advises: what helps against the error at hand, or nothing."""

import pytest

from virtualchain.testing.advice import advice_for


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("TypeError: exceptions must derive from BaseException", "return Rejected"),
        ("AttributeError: 'State' object has no attribute 'block_hash'", "block_time"),
        ("AttributeError: 'int' object has no attribute 'fetchone'", "state.one"),
        ("AttributeError: 'dict' object has no attribute 'n'", 'row["name"]'),
        ("KeyError: 0", 'row["name"]'),
        ("KeyError: 'word'", "not well-formed"),
        ("TypeError: 'float' object is not subscriptable", "what a payload says"),
        ("ValueError: invalid literal for int()", "return `Rejected`"),
    ],
)
def test_the_advice_fits_the_error(error: str, advice: str) -> None:
    """A mistake in how rows and the state are used is not one about payloads."""
    assert advice in str(advice_for(error))


@pytest.mark.parametrize(
    "error",
    [
        "TypeError: db_check returned a NoneType: expected True or False (docs/mistakes.md#results)",
        "TypeError: close() takes 1 positional argument but 2 were given",
        "psycopg.errors.UndefinedColumn: column a does not exist",
    ],
)
def test_there_is_none_if_the_error_says_it(error: str) -> None:
    """Nothing is added to a message that names what to write, or to an error of the call itself."""
    assert advice_for(error) is None

"""What Python computes in callbacks must not depend on the settings of the process and its threads."""

import decimal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_DECIMAL: Final = decimal.Context(
    prec=28,
    rounding=decimal.ROUND_HALF_EVEN,
    Emin=-999_999,
    Emax=999_999,
    capitals=1,
    clamp=0,
    flags=[],
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)
"""Python's default. What an app sets at import applies to one thread, and to all apps there."""
_MOST_DIGITS: Final = 4_300
"""Of an int that is read from text or becomes text: Python's default, which a variable can change."""


@contextmanager
def pinned_arithmetic() -> Iterator[None]:
    """Run callbacks with Python's defaults for `Decimal` and the digits of ints, whatever others have set.

    The limit of digits belongs to the process, and stays as it is then.
    """
    if sys.get_int_max_str_digits() != _MOST_DIGITS:
        sys.set_int_max_str_digits(_MOST_DIGITS)
    with decimal.localcontext(_DECIMAL):
        yield

"""Keys as they are looked up: only those that a row can have."""

from decimal import Decimal

import pytest

from virtualchain.store.columns import Column, Shape

SHAPE = Shape(
    "t",
    (
        Column("a", "int4", -1, "integer", is_required=True),
        Column("b", "numeric", (5 << 16 | 2) + 4, "numeric(5,2)", is_required=True),
    ),
    (0, 1),
    (),
)


@pytest.mark.parametrize(
    ("key", "fitted"),
    [
        ((1, 2), (1, Decimal("2.00"))),
        ((1, Decimal("2.000")), (1, Decimal("2.00"))),
        ((1, Decimal("2.001")), None),  # stored, it would be another
        ((1 << 31, 2), None),
        ((1, 1000), None),
        ((None, 2), None),
        ((1, None), None),
    ],
)
def test_a_key_that_no_row_can_have_is_not_looked_for(
    key: tuple[object, ...], fitted: tuple[object, ...] | None
) -> None:
    """What the server would round, refuse or find unknown is no key."""
    assert SHAPE.find_key(key) == fitted
    assert SHAPE.find_prefix(key[:1]) == (None if key[0] in {None, 1 << 31} else (1,))

"""How a scenario pairs rows with what is expected of them."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from virtualchain.testing.expecting import _agrees, _unmatched

ROWS = st.lists(st.fixed_dictionaries({"a": st.integers(0, 2), "b": st.integers(0, 2)}), max_size=4)
EXPECTED = st.lists(
    st.fixed_dictionaries({}, optional={"a": st.integers(0, 2), "b": st.integers(0, 2)}), max_size=4
)


@given(rows=ROWS, expected=EXPECTED)
def test_as_many_rows_as_possible_are_paired(
    rows: list[dict[str, int]], expected: list[dict[str, int]]
) -> None:
    """However few columns are named, and in whatever order."""
    extra, missing = _unmatched(rows, expected)
    assert len(rows) - len(extra) == len(expected) - len(missing)
    most = 0
    for order in permutations([*expected, *[None] * len(rows)], len(rows)):
        pairs = sum(each is not None and _agrees(each, row) for each, row in zip(order, rows, strict=True))
        most = max(most, pairs)
        if most == min(len(rows), len(expected)):
            break
    assert len(rows) - len(extra) == most

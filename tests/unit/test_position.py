"""Positions of programs that follow a deployment, as text."""

import pytest

from virtualchain import Position
from virtualchain.errors import UsageError

HASH = "0f" * 32


@pytest.mark.parametrize(
    ("text", "position"),
    [
        (f"105-{HASH}-3", Position(105, HASH, 3)),
        (f"105-{HASH}", Position(105, HASH)),
        ("99--7", Position(99, None, 7)),
        ("-1--7", Position(-1, None, 7)),
        ("-1", Position(-1)),
        ("2147483647", Position(2147483647)),
    ],
)
def test_a_position_is_read_as_it_is_written(text: str, position: Position) -> None:
    """Each form of the text stands for one position."""
    assert Position.parse(text) == position
    assert str(position) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "-2", "1-", "1--", "1-5", f"1-{HASH}-", f"1-{HASH[:-1]}-1", f"1-{HASH.upper()}-1"),
        *(
            "2147483648",
            "9" * 5000,
            "1.0",
            "1_0",
            "\u0661",
            "1\x00",
            f"1-{HASH}-{'9' * 19}",
            f"1-{HASH}-1\n1",
        ),
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    """A mistake is named, on one line."""
    with pytest.raises(UsageError, match="is not a position") as refused:
        Position.parse(text)
    assert len(str(refused.value)) < 400
    assert str(refused.value).isprintable()

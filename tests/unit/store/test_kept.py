"""Rows that are kept from block to block: those that were touched last, within their room."""

import random

from virtualchain.store.columns import Column, Shape, Values
from virtualchain.store.kept import Kept, KeptRows

NUMBER = Column("n", "int8", -1, "bigint", is_required=True)
TEXT = Column("text", "text", -1, "text", is_required=False)
SHAPE = Shape("t", (NUMBER, TEXT), (0,), ())
ROOM = 100_000


def keep(rows: KeptRows, number: int, text: str = "") -> None:
    """Keep a row with this key."""
    rows.keep((number,), (number, text), None)


def test_what_was_kept_last_counts() -> None:
    """A row is found as it was kept last, and so is that there is none."""
    rows = KeptRows(SHAPE, ROOM)
    rows.keep((1,), (1, "one"), 7)
    rows.keep((1,), (1, "two"), 8)
    rows.keep((2,), None, None)
    assert rows[(1,)] == Kept((1, "two"), 8)
    assert (2,) in rows
    assert rows[(2,)].row is None
    assert (3,) not in rows
    rows.clear()
    assert (1,) not in rows


def test_rows_of_the_new_generation_hide_old_ones() -> None:
    """An older state of a row never comes back, whatever is dropped."""
    rows, newest = KeptRows(SHAPE, ROOM), dict[int, Values]()
    chance = random.Random(7)
    for turn in range(20_000):
        number = chance.randrange(300)
        newest[number] = (number, str(turn))
        rows.keep((number,), newest[number], None)
        asked = chance.randrange(300)
        if (asked,) in rows:
            assert rows[(asked,)].row == newest[asked]
        assert (number,) in rows


def test_the_room_is_kept_to() -> None:
    """However many rows there are, and however long they get, they take their room and one row at most."""
    rows = KeptRows(SHAPE, ROOM)

    def kept() -> list[Values | None]:
        return [item.row for part in (rows._new, rows._old) for item in part.values()]

    for number in range(10_000):
        keep(rows, number)
    assert 50 < len(kept()) < ROOM // 300
    for number in range(100):
        keep(rows, number, "x" * 30_000)
        assert sum(len(row[1]) for row in kept() if row is not None) < ROOM + 30_000
    rows.clear()
    for turn in range(1_000):  # rows that grow while they are kept
        keep(rows, turn % 10, "x" * turn * 100)
        assert sum(len(row[1]) for row in kept() if row is not None) < ROOM + turn * 100

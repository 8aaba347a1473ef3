"""The arithmetic of the state hash, and the bytes of a row."""

import hashlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.state_hashes import without_gmpy2
from virtualchain.consensus import state_hash
from virtualchain.consensus.state_hash import EMPTY, digest_number, row_element, update_number

PLAIN = without_gmpy2()
ROWS = st.lists(st.tuples(st.text(), st.none() | st.text()), max_size=8)


@given(ROWS, ROWS, st.randoms(use_true_random=False))
def test_order_and_detours_do_not_matter(kept: list[Any], dropped: list[Any], dice: Any) -> None:
    """Rows that are added and removed again leave no trace, in any order."""
    added = [row_element("t", row) for row in kept + dropped]
    dice.shuffle(added)
    removed = [row_element("t", row) for row in dropped]
    straight = update_number(EMPTY, [row_element("t", row) for row in kept], [])
    assert update_number(update_number(EMPTY, added, []), [], removed) == straight
    assert update_number(EMPTY, added, removed) == straight


@given(ROWS, ROWS)
def test_gmpy2_computes_the_same(kept: list[Any], dropped: list[Any]) -> None:
    """The library only saves time."""

    def compute(module: Any) -> bytes:
        added = [module.row_element("t", row) for row in kept + dropped]
        removed = [module.row_element("t", row) for row in dropped]
        return bytes(module.update_number(EMPTY, added, removed))

    assert PLAIN.gmpy2 is None
    assert compute(PLAIN) == compute(state_hash)


def test_a_row_is_hashed_as_the_protocol_says() -> None:
    """One row's number is computed by hand as `docs/protocol/digests.md` defines it."""
    text = '["names","alice","ä\\"\\n",null]'
    number = int.from_bytes(hashlib.shake_256(text.encode()).digest(384), "little") % (2**3072 - 1103717)
    assert row_element("names", ["alice", 'ä"\n', None]) == number
    assert digest_number(EMPTY) == hashlib.sha256((1).to_bytes(384, "little")).hexdigest()


def test_table_and_null_count() -> None:
    """The same columns in another table, or NULL instead of empty text, are a different row."""
    assert len({row_element(*row) for row in (("a", ["1"]), ("b", ["1"]), ("a", [None]), ("a", [""]))}) == 4

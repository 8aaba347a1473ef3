"""Digests of rows by batches are those of one row after the other, however rows are cut and read."""

import random
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.state_hashes import without_gmpy2
from virtualchain.checkpoint import rows as batches
from virtualchain.checkpoint.digests import read_row
from virtualchain.checkpoint.manifest import Table
from virtualchain.checkpoint.rows import Batch, RowDigest, digest_batch
from virtualchain.consensus import state_hash
from virtualchain.consensus.row_proofs import OrderedRows
from virtualchain.consensus.row_tree import RowTree, subtrees
from virtualchain.consensus.state_hash import EMPTY, NumberUpdate, row_element
from virtualchain.crew import Crew
from virtualchain.errors import InvalidCheckpoint

TABLE = Table('wo"rds é', ("word", "n", "note"), ("word",), "projections/1.words")
PLAIN = [r"\N", "x", "é", "", "\x7f", "日本", "N"]
SPECIAL = [r"\\", '"', r"\n", r"\N\N", r"a\N", r"\Nb", "\x01", "\\", r"\t"]
BLOCKS = range(5, 7)


def lines_of(rows: Iterable[Iterable[str]]) -> bytes:
    """Write rows as COPY does."""
    return "".join("\t".join(values) + "\n" for values in rows).encode()


@given(st.lists(st.binary(max_size=3), max_size=70), st.lists(st.integers(1, 20), max_size=10))
def test_subtrees_make_the_tree(rows: list[bytes], sizes: list[int]) -> None:
    """However the rows are cut, the subtrees that they add make the tree that they make one by one."""
    whole, cut = RowTree(), RowTree()
    for row in rows:
        whole.add(row)
    while cut.size < len(rows):
        size = sizes.pop() if sizes else len(rows)
        for level, node in subtrees(cut.size, rows[cut.size : cut.size + size]):
            cut.add_subtree(level, node)
    assert (cut.size, cut.root) == (whole.size, whole.root)


@pytest.mark.parametrize("module", [state_hash, without_gmpy2()], ids=["gmpy2", "plain"])
def test_a_product_is_that_of_the_elements(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With gmpy2 and without, and also if a digest is 0 modulo p, whose element is 1."""
    rows = [state_hash.row_json("t", [str(n), None]) for n in range(50)]
    update = NumberUpdate()
    for n in range(50):
        update.add(row_element("t", [str(n), None]))
    assert module.product(rows).to_bytes(384, "little") == update.after(EMPTY)
    assert module.product([]) == 1
    content = b""

    class Digest:
        def __init__(self, _: bytes) -> None:
            pass

        def digest(self, _: int) -> bytes:
            return content

    monkeypatch.setattr("hashlib.shake_256", Digest)
    for number, expected in ((0, 1), (module.MODULUS, 1), (module.MODULUS + 5, 5), (module.MODULUS - 1, -1)):
        content = number.to_bytes(384, "little")
        assert module.element(b"") == expected % module.MODULUS
        assert module.product([b""]) == expected % module.MODULUS


def test_plain_lines_are_read_as_any_others() -> None:
    """What is read at once is what is read line by line; what is special is read line by line."""
    dice, at_once = random.Random(3), 0
    for _ in range(20_000):
        words = sorted(set(dice.choices(["a", "b", "é", r"z\N", r"\N", "d", "\U0001f600"], k=3)))
        values = dice.choice([PLAIN, PLAIN + SPECIAL])
        rows = [[word, dice.choice(values), dice.choice(values), dice.choice("56")] for word in words]
        batch = Batch(TABLE, 0, BLOCKS, lines_of(rows))
        read = batches._read_plain(batch)
        if read is not None:
            at_once += 1
            assert read == batches._read(batch)
    assert at_once > 1000


@pytest.mark.parametrize(
    "line",
    [
        b"b\t1\t2\t7",
        b"b\t1\t2\t05",
        b"b\t1\t2\t" + "\u0665".encode(),
        b"b\t1\t2\t\\N",
        b"b\t1\t5",
        b"b\t1\t2\t3\t5",
        b"\\N\t1\t2\t5",
        b"a\t1\t2\t5",
        b"A\t1\t2\t5",
        b"b\t\xff\t2\t5",
        b"b\t\\x\t2\t5",
        b"b\t1\r\t2\t5",
        b"b\\\t1\t2\t5",
        b"",
    ],
)
@pytest.mark.parametrize("cut", [False, True])
def test_what_is_wrong_about_a_line(line: bytes, cut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row that COPY would not write in its place is refused by its number, also after a cut."""
    if cut:
        monkeypatch.setattr(batches, "_BATCH", 1)
    rows = RowDigest(BLOCKS)
    with pytest.raises(InvalidCheckpoint, match=r"row 2 of table wo\"rds é is invalid"):
        rows.add(TABLE, [b"a\t1\t2\t5\n", line + b"\n", b"c\t1\t2\t5\n"])


@pytest.mark.parametrize(("workers", "size"), [(1, 1), (1, 100), (1, 10**6), (3, 100), (3, 10**6)])
def test_batches_do_not_show(workers: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Number and summary are those of the rows alone, whoever reads how many of them at once."""
    monkeypatch.setattr(batches, "_BATCH", size)
    dice = random.Random(4)
    notes = ["", r"\N", r"\\", "plain"]
    lines = [lines_of([[f"word {n:04}", str(n), dice.choice(notes), "6"]]) for n in range(300)]
    alone, update = OrderedRows(TABLE.name, TABLE.columns, TABLE.key), NumberUpdate()
    for line in lines:
        update.add(alone.add(read_row(line)[:-1]))
    written: list[bytes] = []
    with Crew(digest_batch, workers) as crew:
        rows = RowDigest(BLOCKS, crew.in_order)
        assert rows.add(TABLE, lines, written.append) == 300
        assert rows.add(Table("empty", ("a",), ("a",), ""), []) == 0
    assert b"".join(written) == b"".join(lines)
    assert (rows.number, rows.tables[0]) == (update.after(EMPTY), alone.summary())
    assert rows.tables[1] == OrderedRows("empty", ("a",), ("a",)).summary()


def test_keys_sort_as_text() -> None:
    """Keys of several columns are compared column by column, and by code points."""
    table = Table("t", ("a", "b"), ("b", "a"), "")
    keys = [("\uffee", "a"), ("\U0001f600", "a"), ("a", "b"), ("aa", "b"), ("é", "b")]
    for first, second in pairwise(keys):

        def one(key: tuple[str, str]) -> bytes:
            return lines_of([[*key, "5"]])

        RowDigest(BLOCKS).add(table, [one(first), one(second)])
        with pytest.raises(InvalidCheckpoint, match="does not come after"):
            RowDigest(BLOCKS).add(table, [one(second), one(first)])

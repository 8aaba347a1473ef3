"""Damaged folders of files in which strangers have hidden records: no block is moved, none is made up."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hostile_files import KEYS, check, check_damaged, hostile, write
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.bitcoin.source import Tip


@pytest.mark.parametrize("undo", [True, False])
@pytest.mark.parametrize("key", KEYS)
def test_undamaged_files_are_read_completely(tmp_path: Path, key: bytes, undo: bool) -> None:
    """The forgeries are only bytes of transactions."""
    made = hostile(key=key, undo=undo)
    write(tmp_path, made.files)
    source = open_blocks(tmp_path)
    assert source.tip() == Tip(made.chain.height, made.chain.tip)
    check(made, source)
    for block_hash, raw in made.raw.items():
        assert source.raw_block(block_hash) == raw
    source.close()


DAMAGES = st.lists(st.binary(min_size=5, max_size=5), max_size=8).map(b"".join)


@settings(deadline=None, max_examples=100)
@given(st.booleans(), st.sampled_from(KEYS), DAMAGES)
def test_no_damage_lets_a_stranger_move_a_block(undo: bool, key: bytes, damage: bytes) -> None:
    """Whatever is cut off, overwritten or inserted, before the files are opened and while they are."""
    with tempfile.TemporaryDirectory() as folder:
        check_damaged(hostile(key=key, undo=undo), damage, Path(folder))

"""Time travel of an app that began with a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.checkpoints import contracts, make, say, words
from virtualchain.checkpoint.apply import apply
from virtualchain.engine.options import Options
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Run = Callable[..., int]


def as_of(url: str, block: int) -> list[tuple[Any, ...]]:
    """Give the app's rows as of a block."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config('virtualchain.as_of', %s, true)", [str(block)])
        return connection.execute("SELECT to_jsonb(w)::text FROM words.words AS w ORDER BY 1").fetchall()


def test_behind_a_checkpoint_each_block_is_shown(
    fake_node: FakeNode, run: Run, database_url: str, database_server: DatabaseServer, tmp_path: Path
) -> None:
    """As where the app was always there; what is before the checkpoint is an error, or not here at all."""
    whole = database_server.clone()
    say(fake_node, "one two", "two", "three", "one", "-two four")
    run(words(), database=whole)
    base = make(whole, tmp_path / "file").block_id
    apply(database_url, tmp_path / "file", contracts(words()), options=Options(state_folder=tmp_path))
    say(fake_node, "four one", "-one", "five", "two")
    run(words(), database=whole)
    last = run(words())
    for block in range(base + 1, last + 1):
        assert as_of(database_url, block) == as_of(whole, block)
    with psycopg.connect(database_url) as connection:
        told = connection.execute("SELECT min(block_id), max(block_id) FROM virtualchain.changes").fetchone()
    assert told == (base + 1, last)
    with pytest.raises(psycopg.Error, match=f"block {base - 3} is not here: the blocks here are"):
        as_of(database_url, base - 3)
    database_server.drop(whole)

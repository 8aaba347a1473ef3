"""Rollbacks below the history: swaps, drops, pins and readers in the middle, and what they count."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query
from tests.integration.engine.test_versions import an_app, mine
from tests.support.listening import once_at
from tests.support.tables import deployment
from virtualchain import StateEngine
from virtualchain.engine import engine as indexer
from virtualchain.engine.rollback import operators_reorg, roll_back
from virtualchain.engine.versions import drop, remove, swap
from virtualchain.errors import DeepFork, UsageError
from virtualchain.store import giving_way
from virtualchain.testing import FakeNode


def shallow(url: str, node: FakeNode, folder: Path, **options: Any) -> StateEngine:
    """Open an engine with a short history."""
    settings = {"database": url, "source": node.url, "confirmations": 0, "state_folder": folder}
    return StateEngine(an_app(), **{**settings, "history": 10, **options})


def follow_to_the_fork(url: str, node: FakeNode, folder: Path) -> int:
    """Take 40 blocks with a text each, then have the node replace 30; return the last block taken."""
    for number in range(40):
        mine(node, b"t%d" % number)
    with shallow(url, node, folder) as engine:
        last = engine.build()
    node.reorg(30)
    return last


def test_a_swap_in_a_deep_rollback_stays(
    fake_node: FakeNode, database_url: str, query: Query, tmp_path: Path, make_build: Callable[..., Any]
) -> None:
    """A build that is swapped in while the old one is derived again stays live, and is undone, too."""
    swapped: list[str] = []
    follow_to_the_fork(database_url, fake_node, tmp_path)
    make_build(an_app("2"), "v2")
    swap_in = once_at(80, lambda: swapped.append(swap(database_url, "texts", "v2").name))
    with shallow(database_url, fake_node, tmp_path, on_catch_up=swap_in) as engine:
        engine.build()
    assert swapped == ["1"]
    assert query("SELECT build FROM vc.apps WHERE is_live") == [{"build": "v2"}]
    fork = fake_node.height - 31
    assert query("SELECT max(block_id) AS last FROM vc.snapshots WHERE build = 'v2'") == [{"last": fork}]
    mine(fake_node, b"after")
    with StateEngine(
        an_app("2"), database=database_url, source=fake_node.url, confirmations=0, state_folder=tmp_path
    ) as engine:
        assert engine.build() == fake_node.height
    assert query("SELECT build FROM vc.apps") == [{"build": "v2"}]


@pytest.mark.parametrize("when", ["refuse_below_pruned", "roll_back"])
def test_a_swap_before_a_deep_rollback_is_a_deep_fork(
    fake_node: FakeNode,
    database_url: str,
    query: Query,
    tmp_path: Path,
    make_build: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    """A build whose history does not reach the fork is swapped in right after the engine has looked."""
    last = follow_to_the_fork(database_url, fake_node, tmp_path)
    mine(fake_node, b"new")
    make_build(an_app("2"), "v2")
    query(f"UPDATE vc.apps SET history_from = {last - 10} WHERE build = 'v2' RETURNING 1")
    original = getattr(indexer, when)

    def swapping(*arguments: Any, **options: Any) -> Any:
        swap(database_url, "texts", "v2")
        return original(*arguments, **options)

    monkeypatch.setattr(indexer, when, swapping)
    with (
        shallow(database_url, fake_node, tmp_path) as engine,
        pytest.raises(DeepFork, match="must be derived again by its own code"),
    ):
        engine.build()
    assert query("SELECT max(block_id) AS last FROM vc.blocks") == [{"last": last}]


@pytest.mark.parametrize("times", [1, 3])
def test_a_drop_in_a_deep_rollback_begins_it_again(
    fake_node: FakeNode,
    database_url: str,
    query: Query,
    tmp_path: Path,
    fresh_index: Callable[..., str],
    times: int,
) -> None:
    """If an operator drops what is being derived, it is derived once more, and the result is the same."""
    dropped: list[str] = []

    def drop_it() -> None:
        [row] = query("SELECT build FROM vc.apps WHERE NOT is_live")
        drop(database_url, "texts", row["build"])
        dropped.append(row["build"])

    follow_to_the_fork(database_url, fake_node, tmp_path)
    mine(fake_node, b"new")
    with shallow(database_url, fake_node, tmp_path, on_catch_up=once_at(80, drop_it, times)) as engine:
        engine.build()
    assert len(dropped) == times
    assert deployment(database_url) == deployment(fresh_index(an_app(), history=10))


def test_an_unfinished_build_is_not_swapped_in(
    fake_node: FakeNode, database_url: str, query: Query, tmp_path: Path
) -> None:
    """What the engine is deriving is refused by name, and goes live when it is complete."""
    refused: list[str] = []

    def try_to_swap() -> None:
        with pytest.raises(UsageError, match="build 2 of app texts is not finished") as caught:
            swap(database_url, "texts", "2")
        refused.append(str(caught.value))

    follow_to_the_fork(database_url, fake_node, tmp_path)
    with shallow(database_url, fake_node, tmp_path, on_catch_up=once_at(80, try_to_swap)) as engine:
        engine.build()
    assert refused
    assert query("SELECT build FROM vc.apps WHERE is_live") == [{"build": "2"}]


def test_a_pin_in_a_deep_rollback_counts(
    fake_node: FakeNode, database_url: str, query: Query, tmp_path: Path
) -> None:
    """If an operator pins a block of the old branch while a rollback is prepared, nothing is undone."""
    pin = "INSERT INTO vc.pins SELECT block_id, hash FROM vc.blocks ORDER BY 1 DESC LIMIT 1 RETURNING 1"
    old = follow_to_the_fork(database_url, fake_node, tmp_path)
    mine(fake_node, b"new")
    with shallow(database_url, fake_node, tmp_path, on_catch_up=once_at(80, lambda: query(pin))) as engine:
        assert engine.build() == old
        assert engine.waits_for is not None
    assert query("SELECT count(*) AS n FROM vc.reorgs") == [{"n": 0}]
    assert query("SELECT max(block_id) AS last FROM vc.snapshots WHERE build = '1'") == [{"last": old}]


def counted(query: Query) -> dict[str, Any]:
    """Read what the last rollback undid."""
    [row] = query("SELECT blocks_undone, ops_undone, rows_undone FROM virtualchain.reorgs")
    return row


def test_a_rollback_below_the_history_counts_what_it_undoes(
    fake_node: FakeNode, database_url: str, query: Query, tmp_path: Path
) -> None:
    """Its row of `reorgs` says the same as that of a rollback by history."""
    for number in range(40):
        mine(fake_node, b"t%d" % (number % 25))
    counts = []
    for history in (1000, 10):
        with shallow(database_url, fake_node, tmp_path, history=history) as engine:
            engine.build()
            tape = engine._deployment.tape
            roll_back(engine._deployment, operators_reorg(tape, fake_node.height - 30))
        counts.append(counted(query))
        remove(database_url, "texts")
        query("DELETE FROM vc.reorgs RETURNING 1")
    assert counts[0] == counts[1]
    assert counts[0]["ops_undone"] == 30
    assert counts[0]["rows_undone"] > 0


def idle_reader(url: str) -> psycopg.Connection[Any]:
    """Open a session that has read a view, and stays in its transaction."""
    reader = psycopg.connect(url, application_name="a dashboard")
    reader.execute("SELECT * FROM texts.texts")
    return reader


def test_an_idle_reader_does_not_make_others_wait_for_a_deep_fork(
    fake_node: FakeNode, database_url: str, query: Query, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rollback gives way, says who holds the views, and is done as soon as the reader is gone."""
    monkeypatch.setattr(indexer, "POLL", 0.05)
    monkeypatch.setattr(giving_way, "_TRIES", 2)
    follow_to_the_fork(database_url, fake_node, tmp_path)
    mine(fake_node, b"new")
    reasons: list[str] = []
    with shallow(database_url, fake_node, tmp_path, on_wait=reasons.append) as engine:
        reader = idle_reader(database_url)
        thread = threading.Thread(target=engine.follow)
        thread.start()
        waits = 0
        while not any("a dashboard" in reason for reason in reasons) or waits < 5:
            assert thread.is_alive()
            with psycopg.connect(database_url, options="-c statement_timeout=3000") as other:
                other.execute("SELECT count(*) FROM texts.texts")
            waits += 1
        assert query("SELECT count(*) AS n FROM vc.reorgs") == [{"n": 0}]
        reader.close()
        while not query("SELECT * FROM virtualchain.ops WHERE fields ->> 'text' = 'new'"):
            assert thread.is_alive()
        engine.stop()
        thread.join(20)
    assert any("idle in transaction" in reason for reason in reasons)

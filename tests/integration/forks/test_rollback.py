"""Deep forks: the engine undoes the blocks of a branch and ends like a fresh index of the winning chain."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.support.moving import an_app, story
from tests.support.tables import deployment
from virtualchain import StateEngine
from virtualchain.engine.rollback import operators_reorg, roll_back
from virtualchain.errors import DeepFork, UsageError
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer


@pytest.fixture
def fresh(fresh_index: Callable[..., str]) -> Callable[..., dict[str, Any]]:
    """Return a function that runs apps on the node's chain in a new database and returns every table."""
    return lambda *apps, **options: deployment(fresh_index(*apps, **options))


@pytest.mark.parametrize("depth", [1, 2, 6, 30])
def test_a_reorg_leaves_what_a_fresh_index_has(
    fake_node: FakeNode, run: Run, fresh: Callable[..., Any], database_url: str, depth: int
) -> None:
    """After a reorg, every table, history, op, snapshot and digest equals that of a fresh index."""
    story(fake_node, 1, 40)
    run(an_app())
    fake_node.reorg(depth)
    run(an_app())
    story(fake_node, 2, 5)
    run(an_app())
    assert deployment(database_url) == fresh(an_app())


def test_forward_and_back_over_the_same_blocks(
    fake_node: FakeNode, run: Run, fresh: Callable[..., Any], database_url: str
) -> None:
    """After several reorgs in a row, the tables equal those of a fresh index."""
    story(fake_node, 3, 20)
    run(an_app())
    for seed, depth in enumerate((3, 1, 7, 4, 12, 2)):
        fake_node.reorg(depth)
        story(fake_node, seed, 2)
        run(an_app())
    assert deployment(database_url) == fresh(an_app())


def test_reorgs_are_recorded(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A reorg is recorded with fork, tips, depth, cause, what was undone and how long it took."""
    story(fake_node, 1, 10)
    old = run(an_app()), fake_node.tip
    fake_node.reorg(3)
    run(an_app())
    [row] = query("SELECT * FROM virtualchain.reorgs")
    assert (row["fork_block_id"], row["old_block_id"], row["old_hash"]) == (old[0] - 3, *old)
    assert (row["new_block_id"], row["new_hash"]) == (fake_node.height, fake_node.tip)
    assert (row["depth"], row["blocks_undone"], row["cause"]) == (3, 3, "work")
    assert row["ops_undone"] > 0
    assert row["rows_undone"] > 0
    assert row["duration"].total_seconds() > 0


def test_listeners_are_notified_of_a_rollback(fake_node: FakeNode, run: Run, database_url: str) -> None:
    """NOTIFY names the last block that stays, and precedes the blocks of the new branch."""
    story(fake_node, 1, 10)
    run(an_app())
    with psycopg.connect(database_url) as connection:
        [fork_hash] = connection.execute(
            "SELECT hash FROM virtualchain.blocks WHERE block_id = %s", [fake_node.height - 2]
        ).fetchone() or [""]
    fake_node.reorg(2)
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("LISTEN virtualchain")
        run(an_app())
        payloads = [notice.payload for notice in listener.notifies(timeout=0.5)]
    assert payloads[0].startswith(f'{{"event" : "rollback", "block_id" : {fake_node.height - 3},')
    assert fork_hash in payloads[0]
    assert len(payloads) == 4


def test_below_the_history_an_app_is_rebuilt(
    fake_node: FakeNode, run: Run, fresh: Callable[..., Any], database_url: str, query: Query
) -> None:
    """With a history of five blocks, a fork of twelve makes a new build replace the old one."""
    story(fake_node, 1, 30)
    run(an_app(), history=5)
    fake_node.reorg(12)
    run(an_app(), history=5)
    assert query("SELECT build, is_live FROM vc.apps") == [{"build": "2", "is_live": True}]
    assert query("SELECT count(*) AS n FROM pg_namespace WHERE nspname LIKE 'plain%'") == [{"n": 2}]
    assert deployment(database_url) == fresh(an_app(), history=5)


def test_pruned_history_does_not_come_back_with_a_rollback(
    fake_node: FakeNode, run: Run, fresh: Callable[..., Any], database_url: str
) -> None:
    """A shorter chain with more work would keep more history, but what was pruned stays pruned."""
    story(fake_node, 1, 30)
    run(an_app(), history=10)
    fake_node.reorg(9, 2, bits=0x200FFFFF)
    run(an_app(), history=10)
    fake_node.reorg(5, 4, bits=0x200FFFFF)
    run(an_app(), history=10)
    assert deployment(database_url) == fresh(an_app(), history=10)


def test_an_older_record_of_births_still_works(
    fake_node: FakeNode, run: Run, fresh: Callable[..., Any], database_url: str, query: Query
) -> None:
    """Tables that record one row per block and key, as older versions did, are undone and hashed alike."""
    story(fake_node, 1, 8)
    run(an_app())
    with psycopg.connect(database_url) as connection:
        for table, key in (("owners", "name"), ("marks", "place")):
            [definition] = connection.execute(
                "SELECT pg_get_functiondef(%s::regproc)", [f"plain__1.{table}_keep"]
            ).fetchone() or [""]
            insert = f'VALUES (block, "new"."{key}")'
            older = definition.replace(insert, f"{insert} ON CONFLICT DO NOTHING")
            assert older != definition
            connection.execute(older.encode())
            connection.execute(
                f"CREATE TABLE t AS SELECT DISTINCT * FROM plain__1.{table}_births; "
                f"DELETE FROM plain__1.{table}_births; "
                f"INSERT INTO plain__1.{table}_births TABLE t; DROP TABLE t; "
                f"ALTER TABLE plain__1.{table}_births ADD PRIMARY KEY (since_block, {key})"
            )
    story(fake_node, 3, 30)
    run(an_app())
    fake_node.reorg(20)
    story(fake_node, 2, 9)
    run(an_app())
    actual, expected = deployment(database_url), fresh(an_app())
    for table in ("plain.owners_births", "plain.marks_births"):
        for dump in (actual, expected):
            dump[table] = sorted(set(dump[table]))
    assert actual == expected


def test_both_ways_of_undoing_are_equal(
    database_server: DatabaseServer, fake_node: FakeNode, database_url: str, run: Run
) -> None:
    """Undoing by history and rebuilding from the tape lead to the same tables and hashes."""
    story(fake_node, 5, 30)
    other = database_server.clone()
    run(an_app(), history=None)
    run(an_app(), history=3, database=other)
    fake_node.reorg(20)
    run(an_app(), history=None)
    run(an_app(), history=None, database=other)
    assert deployment(database_url) == deployment(other)
    database_server.drop(other)


def test_a_reorg_below_an_apps_first_block(
    fake_node: FakeNode, run: Run, fresh: Callable[..., Any], database_url: str
) -> None:
    """The app starts from scratch, and the other one is rolled back to the fork."""
    story(fake_node, 1, 20)
    apps = an_app("early", first_block_id=5), an_app("late", first_block_id=fake_node.height - 2)
    run(*apps)
    fake_node.reorg(10, 12)
    run(*apps)
    assert deployment(database_url) == fresh(*apps)


def test_a_reorg_below_the_tape_itself(
    fake_node: FakeNode, run: Run, fresh: Callable[..., Any], database_url: str
) -> None:
    """If even the tape's first block is replaced, the tape starts from scratch."""
    story(fake_node, 1, 6)
    app = an_app(first_block_id=fake_node.height - 3)
    run(app)
    fake_node.reorg(6)
    story(fake_node, 4, 3)
    run(app)
    assert deployment(database_url) == fresh(app)


def test_a_halted_app_is_rolled_back_with_the_others(fake_node: FakeNode, run: Run, query: Query) -> None:
    """It stays halted below the fork, and once resumed, it ends like the other app."""
    story(fake_node, 1, 10)
    broken = an_app("broken")
    broken.db_final = lambda block_id, ops, state: 1 // 0 if block_id > fake_node.height - 3 else None
    run(broken, an_app())
    fake_node.reorg(5)
    run(an_app("broken"), an_app())
    rows = query("SELECT name, status, block_id FROM virtualchain.apps ORDER BY name")
    assert [row["status"] for row in rows] == ["halted", "running"]
    assert rows[0]["block_id"] == fake_node.height - 6
    query("UPDATE vc.apps SET status = 'running', error = NULL WHERE name = 'broken' RETURNING name")
    run(an_app("broken"), an_app())
    rows = query("SELECT block_id, consensus_hash, state_hash FROM virtualchain.apps")
    assert rows[0] == rows[1]


def test_an_app_that_is_not_loaded_is_rolled_back_too(
    fake_node: FakeNode, run: Run, fresh: Callable[..., Any], database_url: str
) -> None:
    """As its history is in the database, undoing does not need its code."""
    story(fake_node, 1, 10)
    run(an_app("one"), an_app("two"))
    fake_node.reorg(4)
    run(an_app("one"))
    run(an_app("one"), an_app("two"))
    assert deployment(database_url) == fresh(an_app("one"), an_app("two"))


def test_an_app_that_is_not_loaded_cannot_be_rebuilt(
    fake_node: FakeNode, run: Run, database_url: str
) -> None:
    """Below its history, its code is needed: a clear error says so, and nothing changes."""
    story(fake_node, 1, 20)
    run(an_app("one"), an_app("two"), history=3)
    before = deployment(database_url)
    fake_node.reorg(10)
    with pytest.raises(DeepFork, match="the history of app two begins at block"):
        run(an_app("one"), history=3)
    assert {**deployment(database_url), "vc.coverage": ""} == {**before, "vc.coverage": ""}


@pytest.mark.parametrize("policy", ["halt", "checkpoint"])
def test_the_strictest_policy_decides(fake_node: FakeNode, run: Run, database_url: str, policy: str) -> None:
    """If one app's policy asks for an operator, all apps stop, and no row changes."""
    story(fake_node, 1, 10)
    tip = run(an_app("one"), an_app("two"), on_deep_fork={"two": policy})
    before = deployment(database_url)
    fake_node.reorg(3)
    with pytest.raises(DeepFork, match=f"deep fork above block {tip - 3}.*on_deep_fork of two is {policy}"):
        run(an_app("one"), an_app("two"))
    assert deployment(database_url) == before
    run(an_app("one"), an_app("two"), on_deep_fork="rollback")


def test_a_fork_is_undone_without_an_operator_only_up_to_a_depth(
    fake_node: FakeNode, run: Run, database_url: str, query: Query
) -> None:
    """One as deep is undone; a deeper one stops all apps, also at a restart, and as it grows."""
    apps = an_app("one"), an_app("two")
    story(fake_node, 1, 12)
    tip = run(*apps, deepest_rollback=3)
    fake_node.reorg(3, 4)
    assert run(*apps, deepest_rollback=3) == tip + 1
    before = deployment(database_url)
    fake_node.reorg(4)
    for depth in (3, 0):
        for _ in range(2):
            with pytest.raises(DeepFork, match=f"4 blocks were .*--deepest-rollback is {depth}: `virtualch"):
                run(*apps, deepest_rollback=depth)
            fake_node.mine()
    assert deployment(database_url) == before
    [writer] = query("SELECT waits_for, stopped_at FROM virtualchain.writer")
    assert writer["waits_for"].startswith(f"deep fork above block {tip - 3}")
    assert writer["stopped_at"] is not None
    with pytest.raises(DeepFork, match=r"on_deep_fork of two is checkpoint: `virtualchain checkpoint apply"):
        run(*apps, deepest_rollback=3, on_deep_fork={"two": "checkpoint"})
    assert run(*apps, deepest_rollback=4, on_deep_fork="rollback") == fake_node.height
    assert query("SELECT waits_for FROM virtualchain.writer") == [{"waits_for": None}]


def test_a_follower_stops_at_a_fork_that_is_too_deep(
    fake_node: FakeNode, run: Run, database_url: str
) -> None:
    """`follow` raises it like `build`; undone by an operator, the new branch is followed."""
    story(fake_node, 1, 12)
    tip = run(an_app())
    fake_node.reorg(4)
    options: dict[str, Any] = {"source": fake_node.url, "confirmations": 0, "deepest_rollback": 3}
    with (
        StateEngine(an_app(), database=database_url, **options) as engine,
        pytest.raises(DeepFork, match="deepest-rollback is 3"),
    ):
        engine.follow()
    with StateEngine(an_app(), database=database_url, **options) as engine:
        assert roll_back(engine._deployment, operators_reorg(engine._deployment.tape, tip - 4)) is not None
        assert engine.build() == fake_node.height
    with pytest.raises(UsageError, match="deepest_rollback=-1"):
        run(an_app(), deepest_rollback=-1)


def test_a_policy_of_an_app_below_the_fork_does_not_count(fake_node: FakeNode, run: Run) -> None:
    """An app that took none of the undone blocks has no say."""
    story(fake_node, 1, 10)
    late = an_app("late", first_block_id=fake_node.height + 10)
    run(an_app(), late, on_deep_fork={"late": "halt"})
    fake_node.reorg(3)
    assert run(an_app(), late) == fake_node.height


def test_an_invalid_branch_without_a_replacement(
    fake_node: FakeNode, run: Run, fresh: Callable[..., Any], database_url: str, query: Query
) -> None:
    """After a mere invalidateblock, the blocks that the node considers invalid are undone."""
    story(fake_node, 1, 10)
    run(an_app())
    fake_node.invalidate(fake_node.height - 4)
    run(an_app())
    assert query("SELECT cause, new_block_id FROM vc.reorgs") == [{"cause": "invalid", "new_block_id": None}]
    assert deployment(database_url) == fresh(an_app())


def test_a_return_to_the_first_branch(
    fake_node: FakeNode, run: Run, fresh: Callable[..., Any], database_url: str
) -> None:
    """The engine follows a node that leaves a branch and returns to it."""
    story(fake_node, 1, 10)
    run(an_app())
    first = fake_node.chain.tree.tip
    fake_node.reorg(3)
    run(an_app())
    fake_node.chain.tree.activate(first)
    story(fake_node, 2, 3)
    run(an_app())
    assert deployment(database_url) == fresh(an_app())


def test_a_fork_below_the_requested_block(
    fake_node: FakeNode, run: Run, fresh: Callable[..., Any], database_url: str
) -> None:
    """`build(to=…)` follows the node's branch up to a block that was already taken."""
    story(fake_node, 1, 10)
    last = run(an_app())
    fake_node.reorg(5, 8)
    assert run(an_app(), to=last) == last
    taken = deployment(database_url)["vc.blocks"]
    assert len(taken) == last + 1
    assert set(taken) <= set(fresh(an_app())["vc.blocks"])


def test_a_pinned_branch_is_kept(fake_node: FakeNode, run: Run, database_url: str, query: Query) -> None:
    """If the node leaves the pinned block, the engine waits until the pin is removed."""
    story(fake_node, 1, 10)
    run(an_app())
    ours = fake_node.height, fake_node.tip
    query("INSERT INTO vc.pins VALUES (%s, decode(%s, 'hex')) RETURNING block_id", ours)
    before = deployment(database_url)
    fake_node.reorg(3, 9)
    with StateEngine(an_app(), database=database_url, source=fake_node.url, confirmations=0) as engine:
        assert engine.build() == ours[0]
        assert engine.waits_for is not None
        assert f"pinned block {ours[0]}" in engine.waits_for
        assert deployment(database_url) == before
        query("DELETE FROM vc.pins RETURNING block_id")
        assert engine.build() == fake_node.height


def test_a_branch_without_the_pinned_block_is_left(fake_node: FakeNode, run: Run, query: Query) -> None:
    """If the node's chain has the pinned block and our tape lacks it, the pin decides, not the work."""
    story(fake_node, 1, 10)
    run(an_app())
    theirs = fake_node.reorg(3, 4)
    fake_node.chain.tree.activate(fake_node.chain.tree.tip)
    query(
        "INSERT INTO vc.pins VALUES (%s, decode(%s, 'hex')) RETURNING block_id",
        [fake_node.height - 3, theirs[0]],
    )
    assert run(an_app()) == fake_node.height
    assert query("SELECT cause FROM vc.reorgs") == [{"cause": "pin"}]

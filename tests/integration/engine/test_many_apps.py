"""Many apps on one log: they join late, leave, halt and resume, and each ends as it does alone."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from virtualchain import App, State, StateEngine
from virtualchain.engine.options import Listener
from virtualchain.errors import AppHalted
from virtualchain.testing import FakeNode


def an_app(name: str, magic: bytes, **options: Any) -> App:
    """Make an app that counts texts."""
    app = App(
        name,
        magic=magic,
        projections="CREATE TABLE counts (text text PRIMARY KEY, n integer NOT NULL)",
        **options,
    )

    def commit(op: dict[str, Any], state: State) -> None:
        state.execute(
            "INSERT INTO counts VALUES (%s, 1) ON CONFLICT (text) DO UPDATE SET n = counts.n + 1",
            [op["text"]],
        )

    app.add(b"o", parse=lambda payload: {"text": payload.decode()}, commit=commit)
    return app


def mine(node: FakeNode, blocks: int) -> None:
    """Mine blocks with inputs of three apps; every third block has none."""
    for number in range(blocks):
        texts = [b"%so%d" % (magic, number % 5) for magic in (b"aa", b"bb", b"cc")][: number % 3 + 1]
        node.mine([node.send(text) for text in texts] if number % 3 else [])


@pytest.fixture
def alone(fresh_index: Callable[..., str]) -> Callable[[App], list[Any]]:
    """Return a function that runs an app in a database of its own and returns its digests, ops and rows."""
    return lambda app: outcome(fresh_index(app), app.name)


def outcome(url: str, app: str) -> list[Any]:
    """Read an app's digests, ops and rows."""
    statements = {
        "SELECT block_id, ops_hash, consensus_hash, state_hash FROM virtualchain.snapshots WHERE app = %s": [
            app
        ],
        "SELECT block_id, txid, fields FROM virtualchain.ops WHERE app = %s": [app],
        f"SELECT text, n FROM {app}.counts": [],
    }
    with psycopg.connect(url) as connection:
        return [
            connection.execute(f"{statement} ORDER BY 1, 2".encode(), parameters).fetchall()
            for statement, parameters in statements.items()
        ]


def test_an_app_joins_late(
    fake_node: FakeNode, run: Run, database_url: str, alone: Callable[[App], list[Any]]
) -> None:
    """The blocks are searched for the new app's magic, and it ends as it does alone."""
    mine(fake_node, 30)
    run(an_app("one", b"aa"))
    mine(fake_node, 5)
    apps = an_app("one", b"aa"), an_app("two", b"bb")
    assert run(*apps) == fake_node.height
    for app in apps:
        assert outcome(database_url, app.name) == alone(app)


def test_an_app_that_starts_before_the_tape_joins(
    fake_node: FakeNode, run: Run, database_url: str, query: Query, alone: Callable[[App], list[Any]]
) -> None:
    """Blocks are prepended to the tape, and no searched block is fetched again."""
    mine(fake_node, 30)
    run(an_app("late", b"aa", first_block_id=fake_node.height - 9))
    fetched = fake_node.calls["/rest/block"]
    early = an_app("early", b"aa", first_block_id=fake_node.height - 29)
    run(an_app("late", b"aa", first_block_id=fake_node.height - 9), early)
    assert fake_node.calls["/rest/block"] - fetched == 2 * 20  # each once for its header, once for its inputs
    assert query("SELECT min(block_id) AS n FROM vc.blocks") == [{"n": fake_node.height - 29}]
    assert query("SELECT from_block, until_block FROM vc.coverage") == [
        {"from_block": fake_node.height - 29, "until_block": None}
    ]
    assert outcome(database_url, "early") == alone(early)


def test_a_lagging_node_does_not_halt_a_joining_app(
    fake_node: FakeNode, run: Run, database_url: str, query: Query, alone: Callable[[App], list[Any]]
) -> None:
    """A lagging node will have the tape's last blocks again, so the joining app waits."""
    mine(fake_node, 20)
    one, two = an_app("one", b"aa"), an_app("two", b"bb")
    tip = run(one)
    fake_node.fall_behind(5)
    assert run(one, two) == tip
    assert query("SELECT status FROM virtualchain.apps WHERE name = 'two'") == [{"status": "catching_up"}]
    fake_node.catch_up()
    run(one, two)
    assert outcome(database_url, "two") == alone(two)


def test_an_app_that_starts_before_the_tape_waits_while_the_node_is_on_another_branch(
    fake_node: FakeNode, run: Run, database_url: str, query: Query, alone: Callable[[App], list[Any]]
) -> None:
    """A branch that parts in front of the tape and has less work is not followed, and is no error."""
    start = fake_node.height + 1
    mine(fake_node, 20)
    late, early = (
        an_app("late", b"aa", first_block_id=start + 15),
        an_app("early", b"bb", first_block_id=start),
    )
    tip = run(late)
    fake_node.reorg(15, 12)  # it has other blocks in front of the tape
    assert run(late, early) == tip
    assert query("SELECT status FROM virtualchain.apps WHERE name = 'early'") == [{"status": "catching_up"}]
    mine(fake_node, 30)
    assert run(late, early) == fake_node.height
    for app in (late, early):
        assert outcome(database_url, app.name) == alone(app)


def test_an_app_that_the_tape_comes_back_to_does_not_lag(
    fake_node: FakeNode, run: Run, database_url: str, query: Query
) -> None:
    """A rollback to the block that an app has reached, or a kill right there, leave no wrong status."""
    mine(fake_node, 15)
    one, two = an_app("one", b"aa"), an_app("two", b"bb")
    fork = run(one, two)
    mine(fake_node, 5)
    run(one)
    with StateEngine(one, two, database=database_url, source=fake_node.url, confirmations=0) as engine:
        engine._deployment.catch_up(Listener())
    status = "SELECT status FROM virtualchain.apps WHERE name = 'two'"
    assert query(status) == [{"status": "catching_up"}]
    fake_node.reorg(5)
    run(one, two, to=fork)
    assert query(status) == [{"status": "running"}]
    query("UPDATE vc.apps SET status = 'catching_up' WHERE name = 'two' RETURNING 1")
    run(one, two, to=fork)
    assert query(status) == [{"status": "running"}]


def test_a_tape_that_starts_again_later_is_searched_below(
    fake_node: FakeNode, run: Run, query: Query, database_url: str, alone: Callable[[App], list[Any]]
) -> None:
    """If a fork empties the tape and it starts again at a later block, the earlier app's blocks are added."""
    mine(fake_node, 9)
    first = fake_node.height - 5
    early = an_app("early", b"aa", first_block_id=first)
    late = an_app("late", b"bb", first_block_id=first + 3)
    run(early, late)
    fake_node.reorg(8, 3, bits=0x200FFFFF)
    run(early, late, confirmations=1)
    assert query("SELECT * FROM vc.blocks") == []
    mine(fake_node, 9)
    run(late)
    assert query("SELECT min(block_id) AS n FROM vc.blocks") == [{"n": first + 3}]
    run(early, late)
    assert outcome(database_url, "early") == alone(early)


def test_other_apps_continue_while_an_app_joins(fake_node: FakeNode, database_url: str) -> None:
    """The blocks are searched in chunks, and the running app takes new blocks in between."""
    fake_node.mine(n=350)
    with StateEngine(
        an_app("one", b"aa"), database=database_url, source=fake_node.url, confirmations=0
    ) as engine:
        engine.build()
    seen: list[tuple[str, int]] = []

    def mine_more(reason: str) -> None:
        seen.append((reason, engine.get_current_block("one")))
        if len(seen) <= 3:
            fake_node.mine()

    with StateEngine(
        an_app("one", b"aa"),
        an_app("two", b"bb"),
        database=database_url,
        source=fake_node.url,
        confirmations=0,
        on_wait=mine_more,
    ) as engine:
        engine.build()
        assert engine.get_current_block("two") == fake_node.height
    assert [block_id for _, block_id in seen[:4]] == [451, 452, 453, 454]


def test_joining_resumes_where_it_was_interrupted(
    fake_node: FakeNode, run: Run, database_url: str, alone: Callable[[App], list[Any]]
) -> None:
    """Blocks that were already searched are not searched again."""
    fake_node.mine(n=150)
    mine(fake_node, 9)
    one, two = an_app("one", b"aa"), an_app("two", b"bb")
    run(one)

    def interrupt(message: str) -> None:
        if "joins" in message:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run(one, two, on_wait=interrupt)
    fetched = fake_node.calls["/rest/block"]
    run(one, two)
    assert fake_node.calls["/rest/block"] - fetched == fake_node.height + 1 - 100
    assert outcome(database_url, "two") == alone(two)


def test_a_fork_while_an_app_joins(
    fake_node: FakeNode, run: Run, database_url: str, alone: Callable[[App], list[Any]]
) -> None:
    """The inputs and the coverage of undone blocks are removed with them."""
    mine(fake_node, 20)
    one, two = an_app("one", b"aa"), an_app("two", b"bb")
    run(one)

    def fork(_: str) -> None:
        if fake_node.calls["forked"] == 0:
            fake_node.calls["forked"] += 1
            fake_node.reorg(10)
            mine(fake_node, 6)

    run(one, two, on_wait=fork)
    assert outcome(database_url, "two") == alone(two)


def test_a_node_without_the_blocks_halts_the_joining_app(fake_node: FakeNode, run: Run, query: Query) -> None:
    """The other app continues, and the halted one's error asks for a node with all blocks."""
    mine(fake_node, 20)
    one, two = an_app("one", b"aa"), an_app("two", b"bb")
    run(one)
    fake_node.prune(fake_node.height - 5)
    mine(fake_node, 3)
    run(one, two)
    rows = query(
        "SELECT name, status, block_id, error ->> 'error' AS error FROM virtualchain.apps ORDER BY name"
    )
    assert (rows[0]["status"], rows[0]["block_id"]) == ("running", fake_node.height)
    assert rows[1]["status"] == "halted"
    assert "use a node that has all blocks" in rows[1]["error"]
    with pytest.raises(AppHalted, match="never searched for its magic"):
        run(two)

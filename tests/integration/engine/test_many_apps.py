"""Many apps on one log: they join late, leave, halt and resume, and each comes to what it comes to alone."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Rows
from virtualchain import App, State, StateEngine
from virtualchain.errors import AppHalted
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Query = Callable[..., Rows]
Run = Callable[..., int]


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


def story(node: FakeNode, blocks: int) -> None:
    """Mine blocks with inputs of three apps, every third block without any."""
    for number in range(blocks):
        texts = [b"%so%d" % (magic, number % 5) for magic in (b"aa", b"bb", b"cc")][: number % 3 + 1]
        node.mine([node.send(text) for text in texts] if number % 3 else [])


@pytest.fixture
def alone(database_server: DatabaseServer, fake_node: FakeNode) -> Callable[[App], list[Any]]:
    """Return a function that runs an app on a database of its own and gives its snapshots and rows."""

    def index(app: App) -> list[Any]:
        url = database_server.clone()
        with StateEngine(app, database=url, source=fake_node.url, confirmations=0) as engine:
            engine.build()
        found = outcome(url, app.name)
        database_server.drop(url)
        return found

    return index


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
    """Its magic was not looked for: the blocks are searched for it, and it ends as it does alone."""
    story(fake_node, 30)
    run(an_app("one", b"aa"))
    story(fake_node, 5)
    apps = an_app("one", b"aa"), an_app("two", b"bb")
    assert run(*apps) == fake_node.height
    for app in apps:
        assert outcome(database_url, app.name) == alone(app)


def test_an_app_that_starts_before_the_tape_joins(
    fake_node: FakeNode, run: Run, database_url: str, query: Query, alone: Callable[[App], list[Any]]
) -> None:
    """Blocks are put in front of the first one, and no block that was searched is fetched again."""
    story(fake_node, 30)
    run(an_app("late", b"aa", first_block_id=fake_node.height - 9))
    asked = fake_node.calls["/rest/block"]
    early = an_app("early", b"aa", first_block_id=fake_node.height - 29)
    run(an_app("late", b"aa", first_block_id=fake_node.height - 9), early)
    assert fake_node.calls["/rest/block"] - asked == 2 * 20  # each once for its header, once for its inputs
    assert query("SELECT min(block_id) AS n FROM vc.blocks") == [{"n": fake_node.height - 29}]
    assert query("SELECT from_block, until_block FROM vc.coverage") == [
        {"from_block": fake_node.height - 29, "until_block": None}
    ]
    assert outcome(database_url, "early") == alone(early)


def test_a_node_that_lags_halts_no_app_that_joins(
    fake_node: FakeNode, run: Run, database_url: str, query: Query, alone: Callable[[App], list[Any]]
) -> None:
    """It lacks the tape's last blocks now and will have them again: the app waits for it with the others."""
    story(fake_node, 20)
    one, two = an_app("one", b"aa"), an_app("two", b"bb")
    tip = run(one)
    fake_node.fall_behind(5)
    assert run(one, two) == tip
    assert query("SELECT status FROM virtualchain.apps WHERE name = 'two'") == [{"status": "catching_up"}]
    fake_node.catch_up()
    run(one, two)
    assert outcome(database_url, "two") == alone(two)


def test_a_tape_that_begins_anew_later_was_not_searched_before(
    fake_node: FakeNode, run: Run, query: Query, database_url: str, alone: Callable[[App], list[Any]]
) -> None:
    """A fork empties it, and it begins with the app that starts later: the other lacks its first blocks."""
    story(fake_node, 9)
    first = fake_node.height - 5
    early = an_app("early", b"aa", first_block_id=first)
    late = an_app("late", b"bb", first_block_id=first + 3)
    run(early, late)
    fake_node.reorg(8, 3, bits=0x200FFFFF)
    run(early, late, confirmations=1)
    assert query("SELECT * FROM vc.blocks") == []
    story(fake_node, 9)
    run(late)
    assert query("SELECT min(block_id) AS n FROM vc.blocks") == [{"n": first + 3}]
    run(early, late)
    assert outcome(database_url, "early") == alone(early)


def test_others_go_on_while_an_app_joins(fake_node: FakeNode, database_url: str) -> None:
    """Chunk by chunk: the running app takes new blocks in between."""
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


def test_joining_goes_on_where_it_was_broken_off(
    fake_node: FakeNode, run: Run, database_url: str, alone: Callable[[App], list[Any]]
) -> None:
    """What was searched is not searched again."""
    fake_node.mine(n=150)
    story(fake_node, 9)
    one, two = an_app("one", b"aa"), an_app("two", b"bb")
    run(one)

    def break_off(_: str) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(one, two, on_wait=break_off)
    asked = fake_node.calls["/rest/block"]
    run(one, two)
    assert fake_node.calls["/rest/block"] - asked == fake_node.height + 1 - 100
    assert outcome(database_url, "two") == alone(two)


def test_a_fork_while_an_app_joins(
    fake_node: FakeNode, run: Run, database_url: str, alone: Callable[[App], list[Any]]
) -> None:
    """What was searched of the blocks that went is forgotten with them."""
    story(fake_node, 20)
    one, two = an_app("one", b"aa"), an_app("two", b"bb")
    run(one)

    def fork(_: str) -> None:
        if fake_node.calls["forked"] == 0:
            fake_node.calls["forked"] += 1
            fake_node.reorg(10)
            story(fake_node, 6)

    run(one, two, on_wait=fork)
    assert outcome(database_url, "two") == alone(two)


def test_a_node_without_the_blocks_halts_the_one_that_joins(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """The others go on; it can be resumed with a node that has them."""
    story(fake_node, 20)
    one, two = an_app("one", b"aa"), an_app("two", b"bb")
    run(one)
    fake_node.prune(fake_node.height - 5)
    story(fake_node, 3)
    run(one, two)
    rows = query(
        "SELECT name, status, block_id, error ->> 'error' AS error FROM virtualchain.apps ORDER BY name"
    )
    assert (rows[0]["status"], rows[0]["block_id"]) == ("running", fake_node.height)
    assert rows[1]["status"] == "halted"
    assert "use a node that has all blocks" in rows[1]["error"]
    with pytest.raises(AppHalted, match="never searched for its magic"):
        run(two)

"""The engine: following a chain, waiting, restarting, and stopping where it must."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.support.text_app import text_app
from virtualchain import StateEngine
from virtualchain.errors import InvalidApp, NodeError, StoreError, UsageError, WriterBusy
from virtualchain.testing import FakeNode


def mine(node: FakeNode, text: bytes) -> None:
    """Mine one block with one op."""
    node.mine([node.send(b"sto" + text)])


def test_blocks_are_taken_with_k_confirmations(fake_node: FakeNode, run: Run) -> None:
    """With K confirmations, the stable tip is K blocks below the node's tip."""
    fake_node.mine(n=20)
    assert run(text_app(), confirmations=6) == fake_node.height - 6
    assert run(text_app(), confirmations=0) == fake_node.height


def test_build_stops_at_the_requested_block_and_resumes(fake_node: FakeNode, run: Run, query: Query) -> None:
    """`to` is the last processed block; the next build resumes after it, and another finds nothing to do."""
    fake_node.mine(n=20)
    assert run(text_app(), to=7) == 7
    assert run(text_app()) == fake_node.height
    before = query("SELECT * FROM vc.snapshots ORDER BY block_id")
    assert run(text_app()) == fake_node.height
    assert query("SELECT * FROM vc.snapshots ORDER BY block_id") == before
    assert [row["block_id"] for row in before] == list(range(fake_node.height + 1))


def test_an_app_may_start_later_than_another(fake_node: FakeNode, run: Run, query: Query) -> None:
    """The tape starts with the earliest app; the other joins at its own first block."""
    fake_node.mine(n=20)
    run(text_app("early", first_block_id=3), text_app("late", first_block_id=9))
    starts = query("SELECT app, min(block_id) AS first FROM vc.snapshots GROUP BY app ORDER BY app")
    assert starts == [{"app": "early", "first": 3}, {"app": "late", "first": 9}]
    assert query("SELECT min(block_id) AS first FROM vc.blocks") == [{"first": 3}]


def test_an_app_with_the_same_magic_catches_up_along_the_tape(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """As the tape was already searched for its magic, the app is advanced from it, to the same hashes."""
    for number in range(5):
        mine(fake_node, b"%d" % number)
    run(text_app("one"))
    fetched = fake_node.calls["/rest/block"]
    mine(fake_node, b"last")
    run(text_app("one"), text_app("two"))
    assert fake_node.calls["/rest/block"] == fetched + 1
    rows = query("SELECT block_id, count(DISTINCT consensus_hash) AS n FROM vc.snapshots GROUP BY 1")
    assert {row["n"] for row in rows} == {1}
    assert query("SELECT app, count(*) AS n FROM vc.ops GROUP BY 1 ORDER BY 1") == [
        {"app": "one", "n": 6},
        {"app": "two", "n": 6},
    ]


def test_a_halted_app_resumes_along_the_tape(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Fixed and resumed, it catches up from the tape to the state that it would have had."""
    broken, fine = text_app("broken"), text_app("fine")
    broken.db_final = lambda block_id, ops, state: 1 // 0 if ops else None
    for number in range(4):
        mine(fake_node, b"%d" % number)
    run(broken, fine)
    assert query("SELECT status FROM virtualchain.apps ORDER BY name") == [
        {"status": "halted"},
        {"status": "running"},
    ]
    query("UPDATE vc.apps SET status = 'running', error = NULL WHERE name = 'broken' RETURNING name")
    run(text_app("broken"), fine)
    rows = query("SELECT status, block_id, consensus_hash FROM virtualchain.apps")
    assert rows[0] == rows[1]
    assert rows[0]["block_id"] == fake_node.height


def test_a_fork_that_was_not_taken_is_not_noticed(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A fork shorter than K never touches the state."""
    fake_node.mine(n=10)
    run(text_app(), confirmations=3)
    fake_node.reorg(3)
    assert run(text_app(), confirmations=3) == fake_node.height - 3
    tip = query("SELECT hash FROM virtualchain.blocks ORDER BY block_id DESC LIMIT 1")
    assert len(tip) == 1


def test_a_lagging_node_is_waited_for(fake_node: FakeNode, database_url: str) -> None:
    """If the node is below us on our own chain, nothing is done, and the engine says what it waits for."""
    fake_node.mine(n=10)
    with StateEngine(text_app(), database=database_url, source=fake_node.url, confirmations=0) as engine:
        tip = engine.build()
        fake_node.fall_behind(4)
        assert engine.build() == tip
        assert engine.waits_for is not None
        assert f"we are at block {tip}" in engine.waits_for
        fake_node.mine(n=2)
        assert engine.build() == fake_node.height


def test_a_database_follows_one_chain(fake_node: FakeNode, run: Run) -> None:
    """A node of another network is refused before anything is written."""
    run(text_app())
    with FakeNode("signet") as signet, pytest.raises(StoreError, match="follows regtest"):
        run(text_app(), source=signet.url)


def test_a_second_writer_is_refused(fake_node: FakeNode, database_url: str, run: Run) -> None:
    """The second engine's error names the holder of the lock; once the first is closed, it may write."""
    with (
        StateEngine(text_app(), database=database_url, source=fake_node.url),
        pytest.raises(WriterBusy, match="virtualchain writer"),
    ):
        run(text_app())
    run(text_app())


def test_a_lost_connection_is_replaced(fake_node: FakeNode, database_url: str, query: Query) -> None:
    """If the server ends the writer's session between blocks, the engine opens another and continues."""
    fake_node.mine(n=40)
    cut = threading.Event()

    def cut_once(_: object) -> None:
        if not cut.is_set():
            cut.set()
            query(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = "
                "(SELECT oid FROM pg_database WHERE datname = current_database())"
            )

    with StateEngine(
        text_app(), database=database_url, source=fake_node.url, confirmations=0, on_block=cut_once
    ) as engine:
        assert engine.build() == fake_node.height
    assert query("SELECT count(*) AS n FROM vc.snapshots") == [{"n": fake_node.height + 1}]


def test_following_waits_for_blocks_and_stops(fake_node: FakeNode, database_url: str, query: Query) -> None:
    """`follow` takes blocks as they come, survives an unreachable node, and ends with `stop`."""
    with StateEngine(text_app(), database=database_url, source=fake_node.url, confirmations=0) as engine:
        thread = threading.Thread(target=engine.follow)
        thread.start()
        try:
            for text in (b"one", b"two"):
                fake_node.fail("refuse", times=2)
                mine(fake_node, text)
                deadline = time.monotonic() + 30
                while query("SELECT max(block_id) AS n FROM vc.blocks") != [{"n": fake_node.height}]:
                    assert time.monotonic() < deadline, engine.waits_for
                    time.sleep(0.05)
        finally:
            engine.stop()
            thread.join(timeout=20)
    assert not thread.is_alive()


def test_listeners_are_notified_of_blocks_near_the_tip(
    fake_node: FakeNode, database_url: str, run: Run
) -> None:
    """NOTIFY carries event, height and hash, and is sent for the last blocks only."""
    fake_node.mine(n=30)
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("LISTEN virtualchain")
        run(text_app())
        payloads = [notice.payload for notice in listener.notifies(timeout=0.5)]
    assert len(payloads) == 10
    assert payloads[-1] == (
        f'{{"event" : "block", "block_id" : {fake_node.height}, "block_hash" : "{fake_node.tip}"}}'
    )


def test_killed_at_any_moment_nothing_is_lost(fake_node: FakeNode, database_url: str, query: Query) -> None:
    """After several SIGKILLs in the middle of a sync, the result is that of an undisturbed run."""
    for number in range(120):
        mine(fake_node, b"%d" % number)
    program = (
        "import sys; from virtualchain import StateEngine; "
        "from tests.support.text_app import text_app; "
        "StateEngine(text_app(), database=sys.argv[1], source=sys.argv[2], confirmations=0, "
        "wait_for_writer=True).build()"
    )
    arguments = [sys.executable, "-c", program, database_url, fake_node.url]
    for pause in (0.6, 0.8, 1.0, 1.2):
        process = subprocess.Popen(arguments, cwd=Path(__file__).parents[3])
        time.sleep(pause)
        process.kill()
        process.wait()
    assert subprocess.run(arguments, cwd=Path(__file__).parents[3], check=False).returncode == 0
    ids = [row["block_id"] for row in query("SELECT block_id FROM vc.snapshots ORDER BY block_id")]
    assert ids == list(range(fake_node.height + 1))
    assert query("SELECT count(*) AS n FROM vc.ops") == [{"n": 120}]


def test_settings_that_cannot_work_are_refused(database_url: str, fake_node: FakeNode) -> None:
    """Wrong confirmations, windows, names and sources each raise a clear error."""
    settings: dict[str, Any] = {"database": database_url, "source": fake_node.url}
    with pytest.raises(UsageError, match="two apps have the name plain"):
        StateEngine(text_app(), text_app(), **settings)
    with pytest.raises(UsageError, match="only with 3 confirmations"):
        StateEngine(text_app(confirmations=3), confirmations=1, **settings)
    with pytest.raises(UsageError, match="authors can know none of these"):
        StateEngine(text_app(valid_transaction_window=6), confirmations=6, **settings)
    with pytest.raises(InvalidApp, match="lacks get_virtual_chain_name"):
        StateEngine(object(), **settings)
    with pytest.raises(NodeError):
        StateEngine(text_app(), database=database_url, source="http://u:p@127.0.0.1:1")


def test_a_subclass_of_the_engine_is_its_own_app(
    fake_node: FakeNode, database_url: str, query: Query
) -> None:
    """As in the published documentation, the callbacks may be methods of a subclass of the engine."""
    from virtualchain.lib.indexer import StateEngine as Published

    class Mine(Published):
        def get_virtual_chain_name(self) -> str:
            return "mine"

        def get_virtual_chain_version(self) -> str:
            return "1"

        def get_first_block_id(self) -> int:
            return 0

        def get_magic_bytes(self) -> str:
            return "st"

        def get_opcodes(self) -> list[str]:
            return ["o"]

        def db_parse(self, *arguments: Any) -> dict[str, str]:
            return {"text": arguments[2].decode()}

        def db_check(self, *_: Any) -> bool:
            return True

        def db_commit(self, *_: Any) -> None:
            return None

    mine(fake_node, b"hello")
    with Mine(database=database_url, source=fake_node.url, confirmations=0) as engine:
        assert engine.build() == engine.get_current_block()
        known = engine.get_consensus_at(fake_node.height)
        assert known is not None
        assert engine.is_consensus_hash_valid(fake_node.height, known)
        assert engine.get_valid_consensus_hashes(fake_node.height)[-1] == known
        assert len(engine.get_valid_consensus_hashes(fake_node.height)) == 25
    assert query("SELECT fields FROM virtualchain.ops") == [{"fields": {"text": "hello"}}]

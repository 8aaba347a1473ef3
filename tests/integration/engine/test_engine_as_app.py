"""A subclass of `StateEngine` as an app: what its callbacks look up, and who may run it."""

from contextlib import closing
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.support.engine_app import Questions
from tests.support.tables import tables
from virtualchain import App, State, StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.engine.options import QUIET
from virtualchain.engine.rebuild import replay
from virtualchain.errors import InvalidApp, UsageError
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

SNAPSHOTS = """
    SELECT block_id, ops_hash, consensus_hash, state_hash FROM virtualchain.snapshots
    WHERE app = 'questions' ORDER BY block_id
"""
ANSWERS = "SELECT * FROM questions.answers ORDER BY txid"


def ask(node: FakeNode, url: str) -> None:
    """Mine three more blocks of questions about hashes of before, among them the one that is the freshest."""
    with psycopg.connect(url) as connection:
        known = connection.execute("SELECT consensus_hash FROM virtualchain.snapshots ORDER BY block_id")
        hashes = [text for (text,) in known]
    node.mine(node.send(b"qu?" + payload) for payload in (b"-1", b"0", b"1", b"-200", b"-3", b"999999999"))
    node.mine(node.send(f"qu?-2 {text}".encode()) for text in [*hashes[-4:], "00" * 16, "zz", "A" * 32])
    node.mine()


def grow(node: FakeNode, url: str, engine: StateEngine) -> None:
    """Ask questions and take the blocks, a few times."""
    for _ in range(3):
        ask(node, url)
        engine.build()


def without_role(url: str) -> None:
    """Have the app's callbacks run under the engine's own role."""
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE vc.apps SET own_role = false")


@pytest.mark.parametrize("has_role", [True, False])
def test_callbacks_look_up_hashes_before_the_block(
    fake_node: FakeNode, database_url: str, query: Query, has_role: bool
) -> None:
    """With and without a role of the app's own, the answers are those of `State`, and of the recorded log."""
    with Questions(database=database_url, source=fake_node.url, confirmations=0) as engine:
        if not has_role:
            without_role(database_url)
        grow(fake_node, database_url, engine)
        assert engine.halted() == {}
        assert query("SELECT own_role FROM vc.apps") == [{"own_role": has_role}]
        recorded = {row["block_id"]: row["consensus_hash"] for row in query(SNAPSHOTS)}
        ops = query("SELECT block_id, txid, fields FROM virtualchain.ops")
        assert len(ops) > 25
        for op in ops:
            at, block_id = op["fields"]["at"], op["block_id"]
            assert op["fields"]["parsed"] == (recorded.get(at) if at < block_id else None)
            (row,) = query("SELECT * FROM questions.answers WHERE txid = %s", [op["txid"]])
            assert row["last"] == block_id - 1
            first, last = max(at - 5, -1), min(at, block_id - 1)
            assert row["fresh"] == [recorded[item] for item in range(first, last + 1) if item in recorded]
        assert {row["reason"] for row in query("SELECT reason FROM virtualchain.rejections")} == {"stale"}


def test_the_class_the_object_and_the_engine_have_the_same_rows(
    fake_node: FakeNode, database_url: str, database_server: DatabaseServer, run: Run
) -> None:
    """The class runs in another engine without being one: beside another app, after a rollback, replayed."""
    with Questions(database=database_url, source=fake_node.url, confirmations=0) as engine:
        grow(fake_node, database_url, engine)
        expected = tables(database_url)
        for app in (Questions, engine):
            url = database_server.clone()
            run(app, database=url)
            assert tables(url) == expected
            with StateEngine(app, database=url, source=fake_node.url, confirmations=0) as other:
                replay(other._deployment, "questions", QUIET)
                assert other.get_current_block() == fake_node.height
            assert rows(url) == rows(database_url)
            database_server.drop(url)
        fake_node.reorg(4)
        engine.build()
        grow(fake_node, database_url, engine)
    url = database_server.clone()
    bystander = App("bystander", magic=b"qu")
    bystander.add(b"?", parse=lambda payload: {})
    run(bystander, Questions, database=url)
    assert rows(url) == rows(database_url)
    database_server.drop(url)


def rows(url: str) -> list[Any]:
    """Return the app's digests and rows."""
    with closing(psycopg.connect(url)) as connection:
        return [connection.execute(text.encode()).fetchall() for text in (SNAPSHOTS, ANSWERS)]


def test_reading_the_class_opens_nothing() -> None:
    """Its own `__init__` runs, whatever it requires, and the engine's does not."""

    class Fixed(Questions):
        def __init__(self, database: str, source: str) -> None:
            super().__init__(database=database, source=source)
            StateEngine.__init__(self, database="postgresql://127.0.0.1:1/none", source="http://127.0.0.1:1")

    class Counting(Questions):
        def get_first_block_id(self) -> int:
            return self.get_current_block() + 1

    for kind in (Questions, Fixed):
        contract = read_contract(kind)
        assert (contract.name, contract.window) == ("questions", 5)
    with pytest.raises(InvalidApp, match="lacks get_virtual_chain_name"):
        read_contract(StateEngine)
    with pytest.raises(InvalidApp, match="get_first_block_id with UsageError: the app has no blocks yet"):
        read_contract(Counting)
    with pytest.raises(TypeError, match="source"):
        Questions()


def test_a_callback_cannot_ask_about_another_app(
    fake_node: FakeNode, database_url: str, query: Query
) -> None:
    """How far another app has come is no function of the chain; its own app it may ask about."""
    engines: list[StateEngine] = []
    answers: list[Any] = []

    def asking(name: str, about: str | None) -> App:
        app = App(name, magic=b"st")

        def check(op: dict[str, Any], state: State) -> bool:
            answers.append(engines[0].get_consensus_at(state.block_id - 1, about))
            return bool(answers[-1] == state.consensus_hash(state.block_id - 1))

        app.add(b"o", parse=lambda payload: {}, check=check)
        return app

    fake_node.mine([fake_node.send(b"sto")])
    apps = asking("nosy", "modest"), asking("modest", "modest"), asking("plain", None)
    with StateEngine(*apps, database=database_url, source=fake_node.url, confirmations=0) as engine:
        engines.append(engine)
        engine.build()
        assert "cannot ask for consensus hashes of app modest" in str(engine.halted()["nosy"])
        assert list(engine.halted()) == ["nosy"]
        assert [row["app"] for row in query("SELECT app FROM virtualchain.ops ORDER BY app")] == [
            "modest",
            "plain",
        ]
        with pytest.raises(UsageError, match="name one app"):
            engine.get_consensus_at(3)


def test_judged_again_a_block_does_not_see_its_own_hash(
    fake_node: FakeNode, database_url: str, query: Query
) -> None:
    """An app that cannot load its state takes its blocks again, while the log holds them and later ones."""
    seen: list[tuple[Any, ...]] = []

    class Forgetful(Questions):
        get_projections = None  # type: ignore[assignment] # its state is no table

        def get_db_state(self) -> dict[str, int]:
            seen.append((self.get_current_block(),))
            return {}

        def db_check(self, *arguments: Any) -> bool:
            block_id = arguments[0]
            later = [self.get_consensus_at(at) for at in range(block_id, block_id + 5)]
            fresh = self.get_valid_consensus_hashes(block_id + 1)
            seen.append((block_id, self.get_current_block(), *later, *fresh))
            return True

        def db_commit(self, *_: Any) -> None:
            return None

        def db_final(self, *_: Any) -> None:
            return None

    for _ in range(6):
        fake_node.mine([fake_node.send(b"qu?-1")])
    for _ in range(2):
        with Forgetful(database=database_url, source=fake_node.url, confirmations=0) as engine:
            engine.build()
            fake_node.mine([fake_node.send(b"qu?-1")])
            engine.build()
            assert engine.halted() == {}
    first, again = seen[:8], seen[8:]
    assert (first[0], again[0]) == ((101,), (108,))
    assert again[1:8] == first[1:]
    assert all(
        row[:7] == (block_id, block_id - 1, *[None] * 5) for block_id, row in enumerate(first[1:], 102)
    )
    assert [len(row) - 7 for row in first[1:]] == [1, 2, 3, 4, 4, 4, 4]

"""Faults of node and database: the engine recovers from passing ones, and others end in one clear error."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.support.servers import postmaster, reachable_folder
from tests.support.tables import deployment
from virtualchain import App, State, StateEngine
from virtualchain.bitcoin.node import client
from virtualchain.engine import engine as indexer
from virtualchain.errors import NodeError, StoreError, WriterBusy
from virtualchain.store import rollback
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

END_WRITER = """
    SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database =
    (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid = 1986622068
"""
STEPS = ("parse", "scan", "check", "commit", "final", "proceed")


class Victim:
    """An app that calls `strike` once, in one of its steps at one block."""

    def __init__(
        self, step: str = "", block_id: int = -1, strike: Callable[[], object] = lambda: None
    ) -> None:
        self.struck = False

        def strike_at(current_step: str, current_block: int) -> None:
            if (current_step, current_block) == (step, block_id) and not self.struck:
                self.struck = True
                strike()

        def parse(payload: bytes, block_id: int) -> dict[str, Any]:
            strike_at("parse", block_id)
            return {"text": payload.decode()}

        def check(op: dict[str, Any], state: State, block_id: int) -> bool:
            strike_at("check", block_id)
            return True

        def commit(op: dict[str, Any], state: State, block_id: int) -> None:
            state.execute(
                "INSERT INTO texts VALUES (%s, 1) ON CONFLICT (text) DO UPDATE SET n = texts.n + 1",
                [op["text"]],
            )
            strike_at("commit", block_id)
            state.one("SELECT count(*) FROM texts")

        self.app = App(
            "victim",
            magic=b"fa",
            projections="CREATE TABLE texts (text text PRIMARY KEY, n integer NOT NULL)",
        )
        self.app.add(b"o", parse=parse, check=check, commit=commit)
        self.app.scan(lambda ops, state, block_id: strike_at("scan", block_id))
        self.app.final(lambda ops, state, block_id: strike_at("final", block_id))
        self.app.proceed(lambda block_id, consensus_hash: strike_at("proceed", block_id))


def mine(node: FakeNode, blocks: int) -> None:
    """Mine blocks with one op each."""
    for number in range(blocks):
        node.mine([node.send(b"fao%d" % (number % 3))])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between attempts."""
    monkeypatch.setattr(client, "RETRY_PAUSES", (0.01,))
    monkeypatch.setattr(indexer, "POLL", 0.05)
    monkeypatch.setattr(indexer, "PAUSES", (0.05, 0.2))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("step", STEPS)
def test_a_connection_lost_in_a_block(
    fake_node: FakeNode, run: Run, query: Query, database_url: str, fresh_index: Callable[..., str], step: str
) -> None:
    """Whatever the step, the block leaves no trace and is taken again, as if undisturbed."""
    mine(fake_node, 6)
    victim = Victim(step, fake_node.height - 2, lambda: query(END_WRITER))
    reasons: list[str] = []
    assert run(victim.app, on_wait=reasons.append) == fake_node.height
    assert victim.struck
    assert any("the database failed" in reason for reason in reasons)
    assert deployment(database_url) == deployment(fresh_index(Victim().app))


@pytest.mark.usefixtures("impatient")
def test_a_fault_that_passes_while_proceed_asks(fake_node: FakeNode, run: Run, query: Query) -> None:
    """An app may ask for consensus hashes there; that the database fails meanwhile does not halt it."""
    mine(fake_node, 3)

    def fail() -> None:
        raise psycopg.errors.DiskFull("no space left")

    victim = Victim("proceed", fake_node.height - 1, fail)
    reasons: list[str] = []
    assert run(victim.app, on_wait=reasons.append) == fake_node.height
    assert any("no space left" in reason for reason in reasons)
    assert query("SELECT status FROM virtualchain.apps") == [{"status": "running"}]


@pytest.mark.usefixtures("impatient")
def test_a_connection_lost_in_a_rollback(
    fake_node: FakeNode,
    run: Run,
    query: Query,
    database_url: str,
    fresh_index: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rollback that loses its connection leaves no trace, and is done again."""
    mine(fake_node, 8)
    run(Victim().app)
    fake_node.reorg(4)
    mine(fake_node, 1)
    cut = threading.Event()

    def cut_once(*arguments: Any) -> None:
        if not cut.is_set():
            cut.set()
            query(END_WRITER)
        rollback.record(*arguments)

    monkeypatch.setattr("virtualchain.engine.rollback.record", cut_once)
    run(Victim().app)
    assert cut.is_set()
    assert len(query("SELECT * FROM vc.reorgs")) == 1
    assert deployment(database_url) == deployment(fresh_index(Victim().app))


@pytest.mark.parametrize("mode", ["fast", "immediate", "kill"])
def test_a_database_that_restarts(fake_node: FakeNode, mode: str, fresh_index: Callable[..., str]) -> None:
    """If the database stops within a block, orderly or not, the engine waits for it, and nothing is lost."""
    mine(fake_node, 12)
    with reachable_folder() as folder:
        server = EmbeddedServer(folder)
        url = server.start()

        def restart() -> None:
            pid = postmaster(server)
            os.kill(pid, {"fast": signal.SIGINT, "immediate": signal.SIGQUIT, "kill": signal.SIGKILL}[mode])
            threading.Timer(1.0, server.start).start()

        victim = Victim("commit", fake_node.height - 5, restart)
        try:
            with StateEngine(victim.app, database=url, source=fake_node.url, confirmations=0) as engine:
                assert engine.build() == fake_node.height
            assert victim.struck
            assert deployment(url) == deployment(fresh_index(Victim().app))
        finally:
            server.stop()


@pytest.mark.usefixtures("impatient")
def test_a_database_that_stays_away_ends_the_run(
    fake_node: FakeNode, database_server: DatabaseServer
) -> None:
    """After some attempts, one error says what failed; the next run resumes."""
    mine(fake_node, 3)
    with reachable_folder() as folder:
        server = EmbeddedServer(folder, durable=False)
        url = server.start()
        victim = Victim("commit", fake_node.height, server.stop)
        with (
            StateEngine(victim.app, database=url, source=fake_node.url, confirmations=0) as engine,
            pytest.raises(StoreError, match=r"cannot be opened|the database failed"),
        ):
            engine.build()
        try:
            server.start()
            with StateEngine(Victim().app, database=url, source=fake_node.url, confirmations=0) as engine:
                assert engine.build() == fake_node.height
        finally:
            server.stop()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["refuse", "cut", "busy", "warming_up", "slow"])
def test_the_engine_recovers_from_a_passing_fault_of_the_node(
    fake_node: FakeNode, run: Run, database_url: str, fresh_index: Callable[..., str], kind: str
) -> None:
    """A fault of any request is retried, and no block is missed."""
    mine(fake_node, 5)
    fake_node.fail(kind, 1)
    fake_node.fail(kind, 1, on="/rest/block/")
    assert run(Victim().app) == fake_node.height
    assert deployment(database_url) == deployment(fresh_index(Victim().app))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("kind", "on"),
    [
        ("garbage", "getblockchaininfo"),
        ("garbage", "/rest/headers"),
        ("truncate", "/rest/block/"),
        ("wrong_block", "/rest/block/"),
    ],
)
def test_a_node_that_garbles_its_answers(
    fake_node: FakeNode, database_url: str, fresh_index: Callable[..., str], kind: str, on: str
) -> None:
    """`build` ends with a clear error; `follow` tries again, and gives up in the end."""
    mine(fake_node, 5)
    with StateEngine(Victim().app, database=database_url, source=fake_node.url, confirmations=0) as engine:
        fake_node.fail(kind, 2, on=on)
        with pytest.raises(NodeError):
            engine.build()
        fake_node.heal()
        engine.build(to=3)
        fake_node.fail(kind, 2, on=on)
        thread = threading.Thread(target=engine.follow)
        thread.start()
        while thread.is_alive() and tip(database_url) < fake_node.height:
            thread.join(0.05)
        assert thread.is_alive()
        engine.stop()
        thread.join(20)
    assert deployment(database_url) == deployment(fresh_index(Victim().app))
    with StateEngine(Victim().app, database=database_url, source=fake_node.url, confirmations=0) as engine:
        mine(fake_node, 1)
        fake_node.fail(kind, None, on=on)
        with pytest.raises(NodeError):
            engine.follow()
        assert engine.waits_for is not None
    fake_node.heal()


def tip(url: str) -> int:
    """Read the height of the tape's last block."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT max(block_id) FROM vc.blocks").fetchone()
    return int(row[0]) if row else -1


def test_a_killed_writer_frees_the_lock(fake_node: FakeNode, database_url: str) -> None:
    """Another writer is refused while the first lives, and may write as soon as it is dead."""
    program = (
        "import sys; from virtualchain import StateEngine; "
        "from tests.integration.engine.test_faults import Victim; "
        "e = StateEngine(Victim().app, database=sys.argv[1], source=sys.argv[2], confirmations=0); "
        "print('ready', flush=True); e.follow()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, database_url, fake_node.url],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    settings: dict[str, Any] = {"database": database_url, "source": fake_node.url, "confirmations": 0}
    with pytest.raises(WriterBusy, match=f"virtualchain writer .*:{process.pid}"):
        StateEngine(Victim().app, **settings)
    process.kill()
    process.communicate()
    with StateEngine(Victim().app, wait_for_writer=True, **settings) as engine:
        assert engine.build() == fake_node.height


def test_a_session_that_ends_slowly_is_waited_for(
    fake_node: FakeNode, run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the server frees the lock of the engine's lost session late, the engine waits for it."""
    monkeypatch.setattr(indexer, "PAUSES", (0.1, 0.2, 0.5, 1.0))
    fake_node.mine([fake_node.send(b"fao1")])
    lingering = psycopg.connect(database_url, autocommit=True)
    timer = threading.Timer(0.5, lingering.close)

    def cut() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(END_WRITER.encode())
        lingering.execute("SELECT pg_advisory_lock(1986622068, 1667784041)")
        timer.start()

    victim = Victim("commit", fake_node.height, cut)
    assert run(victim.app) == fake_node.height
    assert victim.struck
    timer.join()


def test_a_writer_without_the_lock_cannot_corrupt_the_tape(
    fake_node: FakeNode, run: Run, database_url: str
) -> None:
    """The parent hash fences writers: the database accepts a block only next to the tape's blocks."""
    mine(fake_node, 3)
    run(Victim().app)
    with psycopg.connect(database_url) as stranger:
        with pytest.raises(psycopg.Error, match="neither its parent nor its child on the tape"):
            stranger.execute(
                "INSERT INTO vc.blocks SELECT block_id + 2, sha256('other'), hash, header, time, 0 "
                "FROM vc.blocks ORDER BY block_id DESC LIMIT 1"
            )
        stranger.rollback()

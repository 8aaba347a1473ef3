"""A fault that one app's values cause, again and again, halts that app alone; blocks reset the count."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.integration.engine.test_faults import END_WRITER, Victim, mine, tip
from tests.simulation.crashes import Tally
from virtualchain import App, State, StateEngine
from virtualchain.bitcoin.node import client
from virtualchain.engine import engine as indexer
from virtualchain.errors import NodeError, StoreError
from virtualchain.store.block_transaction import BlockTransaction
from virtualchain.store.state_files import LARGEST_STATE
from virtualchain.testing import FakeNode

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between attempts."""
    monkeypatch.setattr(client, "RETRY_PAUSES", (0.01,))
    monkeypatch.setattr(indexer, "POLL", 0.05)
    monkeypatch.setattr(indexer, "PAUSES", (0.02, 0.05))


def greedy(error: type[Exception], at: Callable[[int], bool] = lambda _: True) -> App:
    """Make an app whose commits fail at some blocks, like a statement that its values make too costly."""
    app = App("greedy", magic=b"fa", projections="CREATE TABLE t (n integer PRIMARY KEY)")

    def commit(op: dict[str, Any], state: State, block_id: int) -> None:
        state.execute("INSERT INTO t VALUES (%s)", [block_id])
        if at(block_id):
            raise error("a value is to blame")

    app.add(b"o", parse=lambda _: {}, commit=commit)
    return app


OF_A_VALUE = (
    psycopg.errors.OutOfMemory,
    psycopg.errors.ConfigurationLimitExceeded,
    psycopg.errors.DiskFull,
    psycopg.OperationalError,
)


@pytest.mark.parametrize("error", OF_A_VALUE)
def test_an_app_that_fails_each_time_is_halted_alone(
    fake_node: FakeNode, run: Run, query: Query, error: type[Exception]
) -> None:
    """After some attempts, the others take the block without it, and its record says what failed."""
    mine(fake_node, 4)
    stuck = fake_node.height - 1
    reasons: list[str] = []
    run(greedy(error, lambda block: block == stuck), Victim().app, on_wait=reasons.append)
    assert ["trying again" in reason for reason in reasons] == [True, False] * 3  # then: connected again
    assert query("SELECT name, status, block_id FROM virtualchain.apps ORDER BY 1") == [
        {"name": "greedy", "status": "halted", "block_id": stuck - 1},
        {"name": "victim", "status": "running", "block_id": fake_node.height},
    ]
    [row] = query("SELECT error FROM virtualchain.apps WHERE name = 'greedy'")
    assert row["error"]["block_id"] == stuck
    assert "a value is to blame" in row["error"]["error"]


def test_a_disk_that_is_full_halts_no_app(
    fake_node: FakeNode, run: Run, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the server itself has no space left, the run ends, and the apps continue with the next one."""

    def full(_: object) -> None:
        raise psycopg.errors.DiskFull("no space left")

    monkeypatch.setattr("virtualchain.engine.roster.require_space", full)
    mine(fake_node, 2)
    with pytest.raises(StoreError, match="no space left"):
        run(greedy(psycopg.errors.DiskFull), Victim().app)
    assert query("SELECT DISTINCT status FROM virtualchain.apps") == [{"status": "running"}]


@pytest.mark.parametrize(
    "error", [psycopg.errors.TooManyConnections, psycopg.errors.AdminShutdown, psycopg.errors.IoError]
)
def test_a_fault_that_no_value_causes_halts_no_app(
    fake_node: FakeNode, run: Run, query: Query, error: type[Exception]
) -> None:
    """The server's own faults end the run, however often they come at one app's turn."""
    mine(fake_node, 2)
    with pytest.raises(StoreError, match="a value is to blame"):
        run(greedy(error), Victim().app)
    assert query("SELECT DISTINCT status FROM virtualchain.apps") == [{"status": "running"}]


def test_a_lagging_app_does_not_fail_for_ever_while_others_advance(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """Blocks that others take do not set back the count of an app that is stuck at one block."""
    mine(fake_node, 3)
    run(Victim().app)
    attempts: list[int] = []

    def at(block_id: int) -> bool:
        attempts.append(block_id)
        if len(attempts) > 20:
            pytest.fail("it is tried for ever")
        return True

    run(
        greedy(psycopg.errors.OutOfMemory, at),
        Victim().app,
        on_wait=lambda reason: mine(fake_node, 1) if "trying again" in reason else None,
    )
    assert query("SELECT name, status FROM virtualchain.apps ORDER BY 1") == [
        {"name": "greedy", "status": "halted"},
        {"name": "victim", "status": "running"},
    ]
    assert len(attempts) == 3


@pytest.mark.parametrize("method", ["take", "_send"])
def test_ops_that_cannot_be_stored_halt_their_app(
    fake_node: FakeNode, run: Run, query: Query, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """What the database refuses of an app's part of the log, because of its size, is that app's error.

    Large parts are sent in the app's turn, small ones at the block's end with those of others.
    """
    original = getattr(BlockTransaction, method)

    def refuse(self: BlockTransaction, *arguments: Any) -> Any:
        if "greedy" in str((self._rows["ops"], arguments)):
            raise psycopg.errors.ProgramLimitExceeded("it exceeds the maximum")
        return original(self, *arguments)

    monkeypatch.setattr(BlockTransaction, method, refuse)
    mine(fake_node, 2)
    run(greedy(psycopg.Error, lambda _: False), Victim().app)
    assert query("SELECT name, status FROM virtualchain.apps ORDER BY 1") == [
        {"name": "greedy", "status": "halted"},
        {"name": "victim", "status": "running"},
    ]


def test_an_oversize_state_halts_its_app(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A saved state that the database cannot hold is refused before it is sent, or even read."""

    class Oversize(Tally):
        def db_save(self, _: int, filename: str, counts: dict[str, int]) -> None:
            with Path(filename).open("wb") as file:
                file.truncate(LARGEST_STATE + 1)

    fake_node.mine([fake_node.send(b"cro1"), fake_node.send(b"fao1")])
    run(Oversize(), Victim().app)
    [tally, victim] = query("SELECT name, status, error FROM virtualchain.apps ORDER BY 1")
    assert (tally["status"], victim["status"]) == ("halted", "running")
    assert f"{LARGEST_STATE + 1} bytes" in tally["error"]["error"]
    assert tally["error"]["callback"] == "db_save"


def test_faults_are_counted_from_zero_after_each_block(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A session that is lost at every block of one long stretch ends no run."""
    mine(fake_node, 8)
    struck: set[int] = set()

    def strike(block_id: int) -> None:
        if block_id not in struck:
            struck.add(block_id)
            query(END_WRITER)

    app = greedy(psycopg.Error, lambda _: False)
    app.final(lambda ops, state, block_id: strike(block_id))
    app.first_block_id = 95
    assert run(app) == fake_node.height
    assert len(struck) > 5


def test_garbled_answers_are_counted_from_zero_after_each_block(
    fake_node: FakeNode, database_url: str
) -> None:
    """A follower that takes a block between two malformed answers does not give up."""
    engine: StateEngine

    def on_block(progress: Any) -> None:
        if progress.block.block_id <= last - 10:
            return
        fake_node.fail("garbage", 1, on="getblockchaininfo")
        if progress.block.block_id == last:
            fake_node.heal()
            engine.stop()

    settings: dict[str, Any] = {"database": database_url, "source": fake_node.url, "confirmations": 0}
    mine(fake_node, 1)
    last = fake_node.height + 10
    with StateEngine(
        Victim().app, on_block=on_block, on_wait=lambda _: mine_up_to(fake_node, last), **settings
    ) as engine:
        try:
            engine.follow()
        except NodeError:
            pytest.fail(f"it gave up at block {tip(database_url)}")
    assert tip(database_url) == last


def mine_up_to(node: FakeNode, last: int) -> None:
    """Mine one block, unless the chain is that high."""
    if node.height < last:
        mine(node, 1)

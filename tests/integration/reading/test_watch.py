"""`watch`: a program that applies its events has the same rows as the deployment, whatever happens."""

import copy
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import psycopg
import pytest

from tests.integration.conftest import Rows
from tests.integration.reading.test_readers import grant
from tests.support.moving import an_app, story
from tests.support.receivers import Receiver, webhook
from tests.support.servers import reachable_folder, value
from virtualchain import BlockEvent, RollbackEvent, StateEngine, watch
from virtualchain.app.declarations import read_contract
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.options import Listener, Options
from virtualchain.engine.rollback import operators_reorg, roll_back
from virtualchain.errors import StoreError, UsageError
from virtualchain.reading.events import Session
from virtualchain.reading.watch import Watch
from virtualchain.store.embedded.host import server_account
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing import FakeNode
from virtualchain.webhooks.deliverer import Deliverer

Query = Callable[..., Rows]
Run = Callable[..., int]
PATIENCE = 30.0


class Replica:
    """A program that keeps the tables by events, and can undo its changes."""

    def __init__(self) -> None:
        self.blocks: list[BlockEvent] = []
        self.rollbacks: list[RollbackEvent] = []
        self.rows: dict[tuple[str, str, str], dict[str, Any]] = {}

    def take(self, event: BlockEvent | RollbackEvent) -> None:
        """Apply an event, and check that it follows from those before."""
        if isinstance(event, RollbackEvent):
            self.rollbacks.append(event)
            while self.blocks and self.blocks[-1].block_id > event.block_id:
                for change in self.blocks.pop().changes:
                    self._put(change, change.new, change.old)
            if self.blocks:
                assert (self.blocks[-1].block_id, self.blocks[-1].block_hash) == (
                    event.block_id,
                    event.block_hash,
                )
            return
        if self.blocks:
            assert event.block_id == self.blocks[-1].block_id + 1
        self.blocks.append(event)
        for change in event.changes:
            self._put(change, change.old, change.new)

    def _put(self, change: Any, old: Any, new: Any) -> None:
        row = (change.app, change.table, str(change.key))
        assert self.rows.get(row) == old, (row, old)
        if new is None:
            del self.rows[row]
        else:
            self.rows[row] = new


@contextmanager
def following(node: FakeNode, url: str) -> Iterator[None]:
    """Run an engine in a thread that follows the node."""
    with StateEngine(an_app(), database=url, source=node.url, confirmations=0) as engine:
        thread = threading.Thread(target=engine.follow)
        thread.start()
        try:
            yield
        finally:
            engine.stop()
            thread.join()


def expected(query: Query) -> dict[tuple[str, str, str], Any]:
    """Return the deployment's rows as a replica has them."""
    rows: dict[tuple[str, str, str], Any] = {}
    for table, key in (("owners", "name"), ("marks", "place")):
        for row in query(f"SELECT to_jsonb(t) AS row FROM plain.{table} AS t"):
            rows["plain", table, str({key: row["row"][key]})] = row["row"]
    return rows


def consume(events: Watch[Any], replica: Replica, until: str) -> None:
    """Take events until the block with this hash is the last one."""
    deadline = time.monotonic() + PATIENCE
    while not (replica.blocks and replica.blocks[-1].block_hash == until):
        assert time.monotonic() < deadline, "the block does not come"
        replica.take(next(events))


def kill(query: Query) -> None:
    """Terminate every session that reads."""
    query(
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name LIKE 'virtualchain reader%' AND datname = current_database()"""
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_blocks_and_rollbacks_are_returned_as_they_happen(
    fake_node: FakeNode, database_url: str, query: Query, seed: int
) -> None:
    """A replica equals the deployment while the node forks and connections are killed."""
    story(fake_node, seed, 5)
    replica, waits = Replica(), list[str]()
    with following(fake_node, database_url):
        while not query("SELECT FROM virtualchain.apps WHERE block_id >= 106"):
            time.sleep(0.05)
        with watch(database_url, "plain", 0, poll=1.0, on_wait=waits.append) as events:
            consume(events, replica, fake_node.tip)
            assert replica.rows == expected(query)
            for depth in (0, 2, 1, 4, 0, 3):
                if depth:
                    fake_node.reorg(depth)
                story(fake_node, seed + depth, 2)
                if depth in {1, 3}:
                    kill(query)
                consume(events, replica, fake_node.tip)
                assert replica.rows == expected(query)
    assert len(replica.rollbacks) == 4
    assert any("trying again" in reason for reason in waits)
    assert any("connected again to the database" in reason for reason in waits)
    assert (
        sum(len(block.ops) for block in replica.blocks) == query("SELECT count(*) AS n FROM vc.ops")[0]["n"]
    )


def test_a_notification_that_is_missed_costs_a_poll(
    fake_node: FakeNode, database_url: str, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without notifications, as on a standby, polling finds every event."""

    def deaf(self: Session, seconds: float) -> bool:
        time.sleep(seconds)
        return False

    monkeypatch.setattr(Session, "wait", deaf)
    replica = Replica()
    with following(fake_node, database_url):
        while not query("SELECT FROM virtualchain.apps WHERE block_id >= 101"):
            time.sleep(0.05)
        with watch(database_url, from_block=0, poll=0.2) as events:
            for depth in (0, 2, 1):
                if depth:
                    fake_node.reorg(depth)
                story(fake_node, depth, 2)
                consume(events, replica, fake_node.tip)
    assert replica.rows == expected(query)


def test_notifications_wake_it_at_once(fake_node: FakeNode, database_url: str, run: Run) -> None:
    """Although it polls once a minute, it returns a block within seconds."""
    run(an_app())
    with watch(database_url, poll=60.0) as events:
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: seen.extend(islice(events, 2)))
        thread.start()
        time.sleep(0.3)
        story(fake_node, 1, 2)
        run(an_app())
        thread.join(10)
        assert [event.block_id for event in seen] == [102, 103]


def test_a_rollback_while_disconnected_is_returned(
    fake_node: FakeNode, database_url: str, run: Run, query: Query
) -> None:
    """A rollback between two looks is noticed by its hashes, even below the first block returned."""
    story(fake_node, 1, 10)
    run(an_app())
    height = fake_node.height
    with watch(database_url, poll=0.2) as events:
        fake_node.reorg(4)
        story(fake_node, 2, 1)
        run(an_app())
        kill(query)
        returned = list(islice(events, 6))
    [fork] = query("SELECT hash FROM virtualchain.blocks WHERE block_id = %s", [height - 4])
    assert returned[0] == RollbackEvent(height - 4, fork["hash"])
    assert [event.block_id for event in returned[1:]] == list(range(height - 3, height + 2))


def test_a_program_continues_after_any_position(
    fake_node: FakeNode, database_url: str, run: Run, query: Query
) -> None:
    """Wherever a replica was stopped, in whatever branch, it gets what changed since then, and no more."""
    story(fake_node, 1, 6)
    run(an_app())
    replica, stopped = Replica(), dict[str, Replica]()
    with watch(database_url, "plain", 100) as events:
        for depth in (0, 3, 2, 5, 1, 1):
            if depth:
                fake_node.reorg(depth)
            story(fake_node, depth, 2)
            run(an_app())
            while not (replica.blocks and replica.blocks[-1].block_hash == fake_node.tip):
                event = next(events)
                replica.take(event)
                stopped[str(event.position)] = copy.deepcopy(replica)
    assert replica.rows == expected(query)
    assert len(stopped) == len(set(stopped)) > 25
    for position, earlier in stopped.items():
        if position == str(replica.blocks[-1].position):
            continue
        rollbacks = len(earlier.rollbacks)
        with watch(database_url, "plain", after=position) as events:
            consume(events, earlier, fake_node.tip)
        assert earlier.rows == replica.rows, position
        assert len(earlier.rollbacks) <= rollbacks + 1


def test_the_position_of_a_block_is_that_of_its_life(
    fake_node: FakeNode, database_url: str, run: Run
) -> None:
    """It is the same whenever the block is read, and another one if the block was undone in between."""
    story(fake_node, 1, 5)
    run(an_app())
    first = positions(database_url, 103)
    with closing(Deployment(database_url, [read_contract(an_app())], None, Options(history=1000))) as ours:
        roll_back(ours, operators_reorg(ours.tape, 104), Listener())
    run(an_app())
    again = positions(database_url, 103)
    assert again[:2] == first[:2]
    assert [text.rpartition("-") for text in again[2:]] == [
        (text.rpartition("-")[0], "-", "1") for text in first[2:]
    ]


def positions(url: str, first: int) -> list[str]:
    """Return the positions of a few blocks."""
    with watch(url, from_block=first) as events:
        return [str(event.position) for event in islice(events, 4)]


def test_a_position_is_awaited_and_then_compared(
    fake_node: FakeNode, database_url: str, fresh_index: Callable[..., str], run: Run
) -> None:
    """A server that lags gets there first; a block that it never had is named."""
    story(fake_node, 1, 6)
    position = positions(fresh_index(an_app()), 103)[-1]
    strange = f"106-{'ab' * 32}-0"
    run(an_app(), to=104)
    waits: list[str] = []
    with (
        watch(database_url, after=position, poll=0.1, on_wait=waits.append) as events,
        watch(database_url, after=strange, poll=0.1) as others,
    ):
        assert not events._look()
        run(an_app(), to=105)
        assert not events._look()
        assert waits == ["the tape ends below block 106: waiting for it"]
        run(an_app())
        assert next(events).block_id == 107
        with pytest.raises(UsageError, match="never had that block"):
            next(others)
    with pytest.raises(UsageError, match="never had that block"):
        watch(database_url, after=strange)
    with pytest.raises(UsageError, match="either from_block or after"):
        watch(database_url, from_block=1, after="1")
    with watch(database_url, after="104") as events:
        assert next(events).block_id == 105


def test_a_program_may_begin_at_any_block_that_is_kept(
    fake_node: FakeNode, database_url: str, run: Run, query: Query
) -> None:
    """Blocks below the kept history and unknown apps are refused."""
    story(fake_node, 1, 30)
    run(an_app(), history=10)
    [row] = query("SELECT history_from AS lowest FROM virtualchain.apps")
    with watch(database_url, from_block=row["lowest"] + 1) as events:
        assert next(events).block_id == row["lowest"] + 1
    with pytest.raises(UsageError, match=f"is kept from block {row['lowest'] + 1} on"):
        watch(database_url, from_block=row["lowest"])
    with pytest.raises(UsageError, match="has no app nobody; it has plain"):
        watch(database_url, "nobody")
    with pytest.raises(StoreError):
        watch(database_url + "_not")


def test_falling_too_far_behind_is_an_error(fake_node: FakeNode, database_url: str, run: Run) -> None:
    """Changes that were pruned before they were returned are an error, not skipped."""
    story(fake_node, 1, 3)
    run(an_app(), history=10)
    with watch(database_url, poll=0.1) as events:
        story(fake_node, 2, 30)
        run(an_app(), history=10)
        with pytest.raises(StoreError, match="fell too far behind"):
            list(islice(events, 5))


def test_with_apps_named_a_block_is_returned_once_all_have_taken_it(
    fake_node: FakeNode, database_url: str, run: Run, query: Query
) -> None:
    """A halted app delays a watch of that app, but no other watch."""
    story(fake_node, 1, 5)
    last = fake_node.height
    broken = an_app("two")
    broken.db_final = lambda block_id, ops, state: 1 // 0 if block_id > last - 2 else None
    run(an_app("one"), broken)
    with watch(database_url, ["one", "two"], last - 3, poll=0.1) as events:
        assert [event.block_id for event in islice(events, 2)] == [last - 3, last - 2]
        query("UPDATE vc.apps SET status = 'running', error = NULL WHERE name = 'two' RETURNING name")
        run(an_app("one"), an_app("two"))
        both = next(events)
        assert isinstance(both, BlockEvent)
        assert {change.app for change in both.changes} <= {"one", "two"}
        assert both.block_id == last - 1
    with watch(database_url, "one", last) as events:
        event = next(events)
        assert isinstance(event, BlockEvent)
        assert {op.app for op in event.ops} <= {"one"}
    with watch(database_url, from_block=last) as events:
        assert next(events).block_id == last


def test_closing_from_another_thread_ends_the_iteration(database_url: str, run: Run) -> None:
    """A waiting iteration ends, and its session is closed."""
    run(an_app())
    events = watch(database_url, poll=60.0)
    thread = threading.Thread(target=list, args=(events,))
    thread.start()
    time.sleep(0.2)
    events.close()
    thread.join(5)
    assert not thread.is_alive()
    assert events._session is None
    assert list(events) == []


def test_a_watch_ignores_time_travel(database_url: str, run: Run, fake_node: FakeNode) -> None:
    """A watch ignores the session's setting of virtualchain.as_of."""
    story(fake_node, 1, 3)
    run(an_app())
    with watch(f"{database_url}?options=-cvirtualchain.as_of%3D101", from_block=102) as events:
        assert [event.block_id for event in islice(events, 3)] == [102, 103, 104]


@pytest.fixture
def reader_url(fake_node: FakeNode, database_url: str, run: Run) -> Callable[..., str]:
    """Return a function that makes a reader of some apps, of a deployment with the apps one and two."""
    story(fake_node, 1, 6)
    run(an_app("one"), an_app("two"))

    def make(*apps: str) -> str:
        parts = urlsplit(database_url)
        role = f"{parts.path[1:]}:watcher"
        password = grant(database_url, role, *apps, login=True).password
        place = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{quote(role, safe='')}:{password}@{place}").geturl()

    return make


def test_a_watch_names_the_grant_that_is_missing(reader_url: Callable[..., str]) -> None:
    """For an app that is named it ends; without names it leaves such apps out and says so."""
    url = reader_url("one")
    with pytest.raises(StoreError, match=r"may not read the tables of two.*grant-reader \S+ --app two`"):
        watch(url, "two")
    with pytest.raises(StoreError, match="--app two`"):
        watch(url, ["one", "two"])
    reasons: list[str] = []
    with watch(url, from_block=101, on_wait=reasons.append) as events:
        [event] = [event for event in islice(events, 4) if event.block_id == 104]
        assert isinstance(event, BlockEvent)
        assert {change.app for change in event.changes} <= {"one"}
    assert [("two" in reason, "one" in reason) for reason in reasons] == [(True, False)]
    with watch(url, "one", on_wait=reasons.append):
        pass
    with watch(reader_url("one", "two"), on_wait=reasons.append):
        pass
    assert len(reasons) == 1


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [
        ("USAGE ON SCHEMA virtualchain", "permission denied for schema virtualchain"),
        ("SELECT ON virtualchain.apps", "permission denied for view apps"),
        ("SELECT ON virtualchain.reorgs", "permission denied for view reorgs"),
    ],
)
def test_a_watch_without_a_view_names_the_grant(
    reader_url: Callable[..., str], database_url: str, missing: str, complaint: str
) -> None:
    """Whichever right is missing, the error has the command that grants it; also if it is lost later."""
    url = reader_url()
    role = unquote(urlsplit(url).username or "")
    advice = f"{complaint}; `virtualchain db grant-reader {role}`, run as the database's owner, grants it"
    with watch(url, from_block=101, poll=0.05) as events:
        next(events)
        with psycopg.connect(database_url) as connection:
            connection.execute(f'REVOKE {missing} FROM "{role}"'.encode())
        if "apps" not in missing:  # which is read for new blocks only
            with pytest.raises(StoreError, match=re.escape(advice)):
                list(events)
    with pytest.raises(StoreError, match=re.escape(advice)):
        watch(url, from_block=101)


def standby_of(primary: EmbeddedServer, folder: Path) -> EmbeddedServer:
    """Return a standby of a stopped server, which must be started again on the same port."""
    port, password = primary._port(), primary._password("postgres")
    shutil.copytree(
        primary.folder, folder, ignore=shutil.ignore_patterns("server.json", "server.log", ".s.*")
    )
    data = folder / "data"
    with (data / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"primary_conninfo = 'host=127.0.0.1 port={port} user=postgres password={password}'\n")
    (data / "standby.signal").touch()
    if account := server_account():
        for path in (folder / "data", folder / "run"):
            for item in (path, *path.rglob("*")):
                shutil.chown(item, account.uid, account.gid)
    return EmbeddedServer(folder, durable=False)


def test_a_watch_of_a_standby_polls(fake_node: FakeNode) -> None:
    """A standby has no LISTEN, so a watch of it polls; and no webhooks are delivered from it."""
    with reachable_folder() as folder:
        primary = EmbeddedServer(folder, durable=False)
        primary.start()
        primary.stop()
        standby = standby_of(primary, folder.parent / "standby")
        url = primary.start()
        copy = standby.start()
        try:
            story(fake_node, 1, 4)
            with StateEngine(an_app(), database=url, source=fake_node.url, confirmations=0) as engine:
                engine.build()
                deadline = time.monotonic() + PATIENCE
                while value(copy, "SELECT to_regclass('plain.marks')") is None:
                    assert time.monotonic() < deadline, "the standby does not follow"
                    time.sleep(0.1)
                with watch(copy, "plain", 100, poll=0.1) as events:
                    assert events._session is not None
                    assert not events._session.listens
                    assert [event.block_id for event in islice(events, 6)] == [100, 101, 102, 103, 104, 105]
                    fake_node.reorg(2)
                    engine.build()
                    returned = list(islice(events, 3))
                    assert isinstance(returned[0], RollbackEvent)
                    assert [event.block_id for event in returned] == [103, 104, 105]
                reports: list[str] = []
                with Receiver() as receiver, Deliverer(copy, [webhook(receiver)], reports.append):
                    time.sleep(0.3)
                assert len(reports) == 1
                assert "is a standby, which is read-only" in reports[0]
                with psycopg.connect(copy) as connection:
                    connection.execute("SET virtualchain.as_of = '103'")
                    assert connection.execute("SELECT max(block_id) FROM virtualchain.blocks").fetchone() == (
                        103,
                    )
        finally:
            standby.stop()
            primary.stop()

"""`watch`: a program that applies what it is told holds the same rows as the deployment, whatever happens."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pytest

from tests.integration.conftest import Rows
from tests.support.moving import an_app, story
from virtualchain import BlockEvent, RollbackEvent, StateEngine, watch
from virtualchain.errors import StoreError, UsageError
from virtualchain.reading.events import Live
from virtualchain.reading.watch import Watch
from virtualchain.testing import FakeNode

Query = Callable[..., Rows]
Run = Callable[..., int]
PATIENCE = 30.0


class Replica:
    """What a program makes of the events: the tables, and the way back."""

    def __init__(self) -> None:
        self.blocks: list[BlockEvent] = []
        self.rollbacks: list[RollbackEvent] = []
        self.rows: dict[tuple[str, str, str], dict[str, Any]] = {}

    def take(self, event: BlockEvent | RollbackEvent) -> None:
        """Apply an event, and check that it fits those before."""
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
        place = (change.app, change.table, str(change.key))
        assert self.rows.get(place) == old, (place, old)
        if new is None:
            del self.rows[place]
        else:
            self.rows[place] = new


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
    """Give the deployment's rows as a replica has them."""
    found: dict[tuple[str, str, str], Any] = {}
    for table, key in (("owners", "name"), ("marks", "place")):
        for row in query(f"SELECT to_jsonb(t) AS row FROM plain.{table} AS t"):
            found["plain", table, str({key: row["row"][key]})] = row["row"]
    return found


def consume(events: Watch, replica: Replica, until: str) -> None:
    """Take events until the block with this hash is the last one."""
    deadline = time.monotonic() + PATIENCE
    while not (replica.blocks and replica.blocks[-1].block_hash == until):
        assert time.monotonic() < deadline, "the block does not come"
        replica.take(next(events))


def kill(query: Query) -> None:
    """End every session that reads."""
    query(
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name LIKE 'virtualchain reader%' AND datname = current_database()"""
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_blocks_and_rollbacks_are_told_as_they_come(
    fake_node: FakeNode, database_url: str, query: Query, seed: int
) -> None:
    """The node forks, connections are killed: what the program holds is what the deployment holds."""
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
    assert waits
    assert (
        sum(len(block.ops) for block in replica.blocks) == query("SELECT count(*) AS n FROM vc.ops")[0]["n"]
    )


def test_a_notification_that_is_missed_costs_a_poll(
    fake_node: FakeNode, database_url: str, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told anything, as on a standby: looking now and then finds all."""

    def deaf(self: Live, seconds: float) -> bool:
        time.sleep(seconds)
        return False

    monkeypatch.setattr(Live, "wait", deaf)
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
    """With a poll of a minute, a block comes within a second or two."""
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


def test_a_rollback_while_nobody_was_connected_is_told(
    fake_node: FakeNode, database_url: str, run: Run, query: Query
) -> None:
    """Hashes are compared: what happened between two looks counts, also below the first block given."""
    story(fake_node, 1, 10)
    run(an_app())
    height = fake_node.height
    with watch(database_url, poll=0.2) as events:
        fake_node.reorg(4)
        story(fake_node, 2, 1)
        run(an_app())
        kill(query)
        told = list(islice(events, 6))
    [stays] = query("SELECT hash FROM virtualchain.blocks WHERE block_id = %s", [height - 4])
    assert told[0] == RollbackEvent(height - 4, stays["hash"])
    assert [event.block_id for event in told[1:]] == list(range(height - 3, height + 2))


def test_a_program_may_begin_at_any_block_that_is_kept(
    fake_node: FakeNode, database_url: str, run: Run, query: Query
) -> None:
    """From a block on, or from now on; below the kept history, or for an unknown app, it is refused."""
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
    """Nothing is left out in silence: what was pruned before it was given is told."""
    story(fake_node, 1, 3)
    run(an_app(), history=10)
    with watch(database_url, poll=0.1) as events:
        story(fake_node, 2, 30)
        run(an_app(), history=10)
        with pytest.raises(StoreError, match="fell too far behind"):
            list(islice(events, 5))


def test_with_apps_named_a_block_comes_when_all_have_taken_it(
    fake_node: FakeNode, database_url: str, run: Run, query: Query
) -> None:
    """A halted app holds its watch back, and no other one's."""
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
    """Whoever waits is let go, and no session stays behind."""
    run(an_app())
    events = watch(database_url, poll=60.0)
    thread = threading.Thread(target=list, args=(events,))
    thread.start()
    time.sleep(0.2)
    events.close()
    thread.join(5)
    assert not thread.is_alive()
    assert events._live is None
    assert list(events) == []


def test_time_travel_of_the_session_does_not_reach_it(
    database_url: str, run: Run, fake_node: FakeNode
) -> None:
    """A setting that lets views show an old block is none of its business."""
    story(fake_node, 1, 3)
    run(an_app())
    with watch(f"{database_url}?options=-cvirtualchain.as_of%3D101", from_block=102) as events:
        assert [event.block_id for event in islice(events, 3)] == [102, 103, 104]

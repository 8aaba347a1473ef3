"""The API's stream of events misses nothing, whatever happens to the chain, the client and the database."""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest

from tests.support.event_source import Event, EventSource, Replica
from tests.support.moving import an_app, story
from tests.support.servers import reachable_folder
from tests.support.serving import served
from virtualchain import StateEngine
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer
from virtualchain.web import connections, feed

WATCH = "/api/v1/watch"
PATIENCE = 30.0


@contextmanager
def indexing(node: FakeNode, url: str) -> Iterator[StateEngine]:
    """Run an engine that follows the node."""
    with StateEngine(an_app(), database=url, source=node.url, confirmations=0) as engine:
        thread = threading.Thread(target=engine.follow, daemon=True)
        thread.start()
        try:
            yield engine
        finally:
            engine.stop()
            thread.join(PATIENCE)


def build(node: FakeNode, url: str) -> None:
    """Run an engine up to the node's tip."""
    with StateEngine(an_app(), database=url, source=node.url, confirmations=0) as engine:
        engine.build()


def read_json(base: str, path: str) -> Any:
    """Read a path of the API."""
    with urlopen(f"{base}/api/v1/{path}") as response:
        return json.load(response)


def take_until(source: EventSource, replica: Replica, block_hash: str) -> Event:
    """Apply events until a block has come."""
    for event in source:
        replica.take(event)
        if event.data["block_hash"] == block_hash:
            return event
    raise AssertionError("the stream has ended")


def check_rows(base: str, replica: Replica) -> None:
    """Check that the tables are those of the deployment."""
    for name in ("owners", "marks"):
        rows = read_json(base, f"apps/plain/{name}?limit=1000")
        assert sorted(map(_text, replica.table(name))) == sorted(map(_text, rows))


def _text(row: Any) -> str:
    return json.dumps(row, sort_keys=True)


@pytest.fixture
def node() -> Iterator[FakeNode]:
    """Return a node with a few blocks of ops."""
    with closing(FakeNode()) as made:
        story(made, 7, 12)
        yield made


def test_clients_come_and_go_while_the_chain_forks(node: FakeNode, database_url: str) -> None:
    """Whoever resumes where it was, however often, has the deployment's tables in the end."""
    dice = random.Random(3)
    moves = threading.Event()
    with indexing(node, database_url), served(database_url) as base:

        def move() -> None:
            for turn in range(8):
                story(node, 100 + turn, 2)
                time.sleep(0.15)
                node.reorg(dice.randrange(1, 5))
                time.sleep(0.15)
            moves.set()
            story(node, 199, 2)  # for a client that waits for an event

        while read_json(base, "apps")[0]["block_id"] != node.height:
            time.sleep(0.05)
        thread = threading.Thread(target=move)
        thread.start()
        steady, restless = Replica(), Replica()
        last = None
        with EventSource(base, f"{WATCH}?app=plain&from=0") as source:
            while not moves.is_set():
                with EventSource(base, f"{WATCH}?app=plain&from=0", last) as other:
                    for _, event in zip(range(dice.randrange(1, 40)), other, strict=False):
                        restless.take(event)
                        last = other.last
                        if moves.is_set():
                            break
            thread.join()
            story(node, 200, 1)
            take_until(source, steady, node.tip)
            with EventSource(base, f"{WATCH}?app=plain", last) as other:
                take_until(other, restless, node.tip)
        assert steady.rollbacks > 3
        assert restless.rollbacks > 0
        assert steady.blocks == restless.blocks
        check_rows(base, steady)
        check_rows(base, restless)


def test_a_rollback_while_away(node: FakeNode, database_url: str) -> None:
    """It is the first event; a client that began with the present resumes there before any event."""
    build(node, database_url)
    replica = Replica(knows_all=False)
    with served(database_url) as base:
        with EventSource(base, f"{WATCH}?from={node.height - 3}") as source:
            take_until(source, replica, node.tip)
            last = source.last
        with EventSource(base, WATCH) as source:
            for line in source.lines:
                if line.startswith("id: "):
                    present = line.removeprefix("id: ")
                    break
        assert present == last
    node.reorg(2)
    build(node, database_url)
    story(node, 50, 1)
    build(node, database_url)
    with served(database_url) as base, EventSource(base, f"{WATCH}?after={last}") as source:
        events = iter(source)
        first = next(events)
        assert (first.kind, first.data["block_id"]) == ("rollback", replica.blocks[-1]["block_id"] - 2)
        replica.take(first)
        take_until(source, replica, node.tip)
        assert replica.rollbacks == 1


def test_an_event_is_never_older_than_what_is_shown(node: FakeNode, database_url: str) -> None:
    """A client that asks for more as soon as it has an event is not answered with the block before."""
    build(node, database_url)
    with indexing(node, database_url), served(database_url) as base, EventSource(base, WATCH) as source:
        while not next(source.lines).startswith("id: "):
            pass
        for turn in range(12):
            for _ in range(3):
                read_json(base, "apps")  # is kept
            story(node, 300 + turn, 1)
            event = next(iter(source))
            assert read_json(base, "apps")[0]["block_id"] >= event.data["block_id"]


def test_many_clients_share_a_session(
    node: FakeNode, database_url: str, database_server: DatabaseServer
) -> None:
    """A hundred clients have one session between them, which ends with the last of them."""
    build(node, database_url)
    name = database_url.rpartition("/")[2]

    def listening() -> int:
        with psycopg.connect(database_server.url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND query LIKE 'LISTEN%%' OR "
                "datname = %s AND wait_event = 'ClientRead' AND application_name LIKE '%%reader%%'",
                [name, name],
            ).fetchone()
        assert row is not None
        return int(row[0])

    with served(database_url) as base, ExitStack() as stack:
        first = node.height
        sources = [
            stack.enter_context(EventSource(base, f"{WATCH}?app=plain&from={first}")) for _ in range(100)
        ]
        assert {source.status for source in sources} == {200}
        before = listening()
        story(node, 400, 2)
        build(node, database_url)
        seen = [[next(events).id for _ in range(3)] for events in map(iter, sources)]
        assert all(ids == seen[0] for ids in seen)
        assert listening() <= before <= 12


def test_a_client_that_does_not_read_is_cut_off(
    node: FakeNode, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds little, others go on meanwhile, and what it missed it has when it resumes."""
    monkeypatch.setattr(connections, "_STALL_TIME", 0.5)
    monkeypatch.setattr(feed, "_RING_BYTES", 20_000)
    encode = feed.encode
    large = b": " + b"x" * 100_000 + b"\n"
    monkeypatch.setattr(feed, "encode", lambda event: large + encode(event))
    build(node, database_url)
    with served(database_url) as base, indexing(node, database_url):
        quick, slow = EventSource(base, f"{WATCH}?app=plain"), EventSource(base, f"{WATCH}?app=plain")
        with quick, slow:
            replica = Replica(knows_all=False)
            next(slow.lines)
            for turn in range(60):
                story(node, 500 + turn, 1)
                take_until(quick, replica, node.tip)
            lost = Replica(knows_all=False)
            with pytest.raises((OSError, ValueError, StopIteration, AssertionError)):
                take_until(slow, lost, node.tip)
            with EventSource(base, f"{WATCH}?app=plain", slow.last) as again:
                take_until(again, lost, node.tip)
        assert lost.blocks == replica.blocks


def test_the_database_is_killed_and_restarted(node: FakeNode) -> None:
    """Streams stay open meanwhile, new ones wait, and all continue without a gap."""
    with reachable_folder() as folder:
        server = EmbeddedServer(folder, durable=False)
        url = server.start()
        try:
            build(node, url)
            with served(url) as base, EventSource(base, f"{WATCH}?from=100") as source:
                replica = Replica()
                take_until(source, replica, node.tip)
                server.stop()
                deadline = time.monotonic() + PATIENCE
                with EventSource(base, f"{WATCH}?app=plain&from=100") as late:
                    assert late.status == 200
                    server.start()
                    story(node, 600, 2)
                    node.reorg(3)
                    build(node, url)
                    take_until(source, replica, node.tip)
                    other = Replica()
                    take_until(late, other, node.tip)
                assert time.monotonic() < deadline
            assert replica.rollbacks == 1
            assert other.blocks == replica.blocks
        finally:
            server.stop()

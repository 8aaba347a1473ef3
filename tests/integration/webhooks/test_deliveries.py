"""Deliveries: none is lost or out of order, whatever receivers, chain, database and processes do."""

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from tests.integration.conftest import Rows
from tests.integration.reading.test_readers import grant
from tests.integration.reading.test_watch import expected, following, kill
from tests.support.moving import an_app, story
from tests.support.receivers import KEY, PAGE, Receiver, documented, unreliable, webhook
from virtualchain import StateEngine
from virtualchain.errors import StoreError, UsageError
from virtualchain.examples.notary import app as notary
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer
from virtualchain.webhooks import deliverer, messages, worker
from virtualchain.webhooks.cursors import Cursors
from virtualchain.webhooks.deliverer import Deliverer
from virtualchain.webhooks.listing import listed
from virtualchain.webhooks.messages import Webhook

Query = Callable[..., Rows]
Run = Callable[..., int]
FIRST = 102
EVENTS = 500
KILL = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name LIKE 'virtualchain webhooks%' AND datname = current_database()"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pauses be short."""
    monkeypatch.setattr(worker, "_FIRST_PAUSE", 0.004)
    monkeypatch.setattr(worker, "_LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(deliverer, "POLL", 0.2)
    monkeypatch.setattr(deliverer, "_PAUSES", (0.1,))


@pytest.fixture(scope="module")
def long_url(database_server: DatabaseServer) -> Iterator[str]:
    """Yield the URL of a deployment with an op in each of many blocks."""
    node, url = FakeNode(), database_server.clone()
    for number in range(EVENTS):
        node.mine([node.send(f"mvo{'add' if number % 7 else 'note'} {number % 40}".encode())])
    with StateEngine(an_app(), database=url, source=node.url, confirmations=0, history=None) as engine:
        engine.build()
    yield url
    node.close()
    database_server.drop(url)


@contextmanager
def delivering(url: str, *webhooks: Webhook) -> Iterator[list[str]]:
    """Deliver webhooks; yield what is reported."""
    reports: list[str] = []
    with Deliverer(url, webhooks, reports.append):
        yield reports


def state(query: Query, name: str = "plain") -> dict[str, Any]:
    """Return the row of a webhook."""
    [row] = query("SELECT *, encode(block_hash, 'hex') AS hash FROM vc.webhooks WHERE name = %s", [name])
    return row


def has(count: int, receiver: Receiver) -> bool:
    """Return whether a receiver has so many events."""
    return len(receiver.events) >= count


def test_many_events_through_a_receiver_that_fails_and_restarts(long_url: str) -> None:
    """Each event is kept once and in order, and the same id never stands for two contents."""
    with (
        unreliable(1) as receiver,
        delivering(long_url, webhook(receiver, name="many", opcodes=("o",), from_block=0)),
    ):
        for place in (100, 250, 400):
            receiver.wait(partial(has, place))
            receiver.stop()
            time.sleep(0.1)
            receiver.start()
        receiver.wait(lambda receiver: len(receiver.events) >= EVENTS, 60)
        time.sleep(0.2)
    assert receiver.blocks == list(range(FIRST, FIRST + EVENTS))
    assert receiver.complaints == []
    assert len(receiver.attempts) > EVENTS * 1.2
    first_attempts = list(dict.fromkeys(receiver.attempts))
    assert first_attempts == [event["id"] for event in receiver.events]


def hang(number: int) -> None:
    """Answer when nobody waits any more."""
    time.sleep(10)


def test_a_slow_receiver_holds_up_nobody_else(long_url: str) -> None:
    """While one never answers, another gets everything; and both end within a moment."""
    with Receiver(hang) as slow, Receiver() as quick:
        hooks = [
            webhook(slow, name="slow", from_block=0),
            webhook(quick, name="quick", from_block=FIRST + EVENTS - 50),
        ]
        with delivering(long_url, *hooks):
            slow.wait(lambda slow: len(slow.attempts) == 1)
            quick.wait(partial(has, 50))
            started = time.monotonic()
        assert time.monotonic() - started < 3


def test_two_processes_take_turns(long_url: str) -> None:
    """One delivers, and the other continues when it ends; no event is sent twice."""
    first, last = FIRST + EVENTS - 150, FIRST + EVENTS - 1
    others_turn = Event()

    def answer(number: int) -> int:
        if number == 100:  # the first process ends before this answer
            others_turn.wait(30)
        return 204

    with Receiver(answer) as receiver, ExitStack() as second:
        hook = webhook(receiver, name="turns", from_block=first)
        with delivering(long_url, hook):
            receiver.wait(partial(has, 20))
            reports = second.enter_context(delivering(long_url, hook))
            receiver.wait(lambda receiver: bool(reports) and len(receiver.attempts) == 101)
        others_turn.set()
        receiver.wait(partial(has, 150))
    assert reports[0] == "delivered by another process, until it ends: turns"
    assert len(receiver.attempts) == 151  # the one that was interrupted came again
    assert receiver.blocks == list(range(first, last + 1))


def test_filters_choose_what_is_delivered(fake_node: FakeNode, database_url: str, run: Run) -> None:
    """Blocks with nothing that matches are not delivered, and naming one kind leaves out the other."""
    for text in ("add a", "note a", "mumble", "drop a"):
        fake_node.mine([fake_node.send(b"mvo" + text.encode())])
    fake_node.mine()
    run(an_app())
    with Receiver() as receiver:
        hooks = [
            webhook(receiver, name="all", from_block=0),
            webhook(receiver, name="ops", from_block=0, opcodes=("o",)),
            webhook(receiver, name="other", from_block=0, opcodes=("x", "none")),
            webhook(receiver, name="owners", from_block=0, tables=("owners",)),
            webhook(receiver, name="both", from_block=0, opcodes=("x",), tables=("owners", "nothing")),
        ]
        with delivering(database_url, *hooks):
            receiver.wait(lambda receiver: len(receiver.events) >= 10)
            time.sleep(0.3)
    by_name: dict[str, list[Any]] = {hook.name: [] for hook in hooks}
    for event in receiver.events:
        tables = {change["table"] for change in event["changes"]}
        by_name[event["webhook"]].append((event["block_id"], len(event["ops"]), tables))
    everything = {"owners", "marks"}
    assert by_name == {
        "all": [(102, 1, everything), (103, 1, {"marks"}), (105, 1, everything)],
        "ops": [(102, 1, set()), (103, 1, set()), (105, 1, set())],
        "other": [],
        "owners": [(102, 0, {"owners"}), (105, 0, {"owners"})],
        "both": [(102, 0, {"owners"}), (105, 0, {"owners"})],
    }


class Copy:
    """The app's rows, kept by events alone."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.rows: dict[tuple[str, str, str], Any] = {}
        self.ops = 0
        self._blocks: list[dict[str, Any]] = []
        for event in events:
            while (
                event["event"] == "rollback"
                and self._blocks
                and self._blocks[-1]["block_id"] > event["block_id"]
            ):
                block = self._blocks.pop()
                self.ops -= len(block["ops"])
                for change in block["changes"]:
                    self._put(change, change["new"], change["old"])
            if event["event"] == "block":
                assert not self._blocks or self._blocks[-1]["block_id"] < event["block_id"], "out of order"
                self._blocks.append(event)
                self.ops += len(event["ops"])
                for change in event["changes"]:
                    self._put(change, change["old"], change["new"])

    def _put(self, change: dict[str, Any], old: Any, new: Any) -> None:
        row = (change["app"], change["table"], str(change["key"]))
        assert self.rows.get(row) == old, (row, old)
        if new is None:
            del self.rows[row]
        else:
            self.rows[row] = new


@pytest.mark.parametrize("seed", [1, 2])
def test_a_copy_made_by_events_equals_the_tables(
    fake_node: FakeNode, database_url: str, query: Query, seed: int
) -> None:
    """While the node forks, sessions are killed, and the receiver fails, restarts and is replayed to."""
    dice = random.Random(seed)
    story(fake_node, seed, 3)
    with following(fake_node, database_url), unreliable(seed) as receiver:
        while not query("SELECT FROM virtualchain.apps WHERE block_id >= 104"):
            time.sleep(0.02)
        with delivering(database_url, webhook(receiver, from_block=0)) as reports:
            for depth in (0, 2, 1, 4, 0, 3, 5, 1):
                if depth:
                    fake_node.reorg(depth)
                story(fake_node, seed + depth, dice.randrange(1, 3))
                time.sleep(dice.random() / 4)
                if depth % 2:
                    kill(query)
                    query(KILL)
                else:
                    receiver.stop()
                    time.sleep(0.05)
                    receiver.start()

            def is_complete(receiver: Receiver) -> bool:
                row = state(query)
                return (row["hash"], row["part"]) == (fake_node.tip, None)

            fake_node.mine([fake_node.send(b"mvoadd z")])
            receiver.wait(is_complete)
    copy = Copy(receiver.events)
    assert copy.rows == expected(query)
    assert copy.ops == query("SELECT count(*) AS n FROM vc.ops")[0]["n"]
    assert receiver.complaints == []
    assert any(event["event"] == "rollback" for event in receiver.events)
    assert any("webhooks are not delivered" in report for report in reports)


def test_a_block_that_is_undone_while_it_is_retried_is_taken_back(
    fake_node: FakeNode, database_url: str, query: Query, run: Run
) -> None:
    """The receiver may have seen it, so it is sent the rollback, also after a restart."""
    statuses = [204]
    story(fake_node, 1, 4)
    run(an_app())
    with Receiver(lambda number: statuses[0]) as receiver:
        with delivering(database_url, webhook(receiver)):
            statuses[0] = 500
            fake_node.mine([fake_node.send(b"mvoadd a")])
            run(an_app())
            receiver.wait(lambda receiver: len(receiver.attempts) > 2)
            fake_node.reorg(1)
            run(an_app())
            receiver.wait(lambda receiver: "-1/1" in receiver.attempts[-1])
        assert (state(query)["event"], state(query)["part"], state(query)["error"]) == (
            "rollback",
            0,
            "it answered 500 Internal Server Error",
        )
        with delivering(database_url, webhook(receiver)):  # after a restart of ours
            statuses[0] = 204
            fake_node.mine([fake_node.send(b"mvoadd b")])
            run(an_app())
            receiver.wait(lambda receiver: len(receiver.events) > 1)
    assert receiver.blocks == [-105, fake_node.height]
    assert receiver.attempts[-1] == receiver.events[-1]["id"]
    assert len([block for block in receiver.attempts if block.startswith("plain/106-")]) > 2


def test_large_blocks_come_in_parts(
    fake_node: FakeNode, database_url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed is sent again with its number, and what was delivered is not, also after a restart."""
    monkeypatch.setattr(messages, "LARGEST", 1000)
    fake_node.mine([fake_node.send(f"mvoadd {letter}".encode()) for letter in "abcdefgh"])
    run(an_app())
    with Receiver(lambda number: 500 if number in {1, 2, 3} else 204) as receiver:
        for until in (2, 3, 100):
            with delivering(database_url, webhook(receiver, from_block=0)):
                receiver.wait(partial(was_tried, until))
    parts = [event["part"] for event in receiver.events]
    assert is_whole(receiver)
    assert parts == list(range(1, len(parts) + 1))
    assert len(parts) > 3
    assert len({event["position"] for event in receiver.events}) == 1
    assert [op["fields"]["name"] for event in receiver.events for op in event["ops"]] == list("abcdefgh")
    assert sum(len(event["changes"]) for event in receiver.events) == 16
    assert len(receiver.attempts) == len(parts) + 3


def was_tried(attempts: int, receiver: Receiver) -> bool:
    """Return whether a receiver was tried so often, or has all."""
    return len(receiver.attempts) >= attempts or is_whole(receiver)


def is_whole(receiver: Receiver) -> bool:
    """Return whether the last part has come."""
    return bool(receiver.events) and receiver.events[-1]["part"] == receiver.events[-1]["parts"]


def ops_of(receiver: Receiver, name: str) -> int:
    """Return how many ops a webhook has delivered."""
    return sum(len(event["ops"]) for event in receiver.events if event["webhook"] == name)


def test_ops_are_delivered_after_their_changes_were_pruned(
    fake_node: FakeNode, database_url: str, run: Run, query: Query
) -> None:
    """The event says that changes are missing, also to a webhook that wants nothing else."""
    story(fake_node, 1, 30)
    run(an_app(), history=10)
    [kept] = query("SELECT history_from AS block_id FROM virtualchain.apps")
    with Receiver() as receiver:
        hooks = [
            webhook(receiver, name="all", from_block=0),
            webhook(receiver, name="ops", from_block=0, opcodes=("o",)),
            webhook(receiver, name="rows", from_block=0, tables=("owners",)),
        ]
        with delivering(database_url, *hooks):
            total = query("SELECT count(*) AS n FROM vc.ops")[0]["n"]
            receiver.wait(lambda receiver: [ops_of(receiver, name) for name in ("all", "ops")] == [total] * 2)
            receiver.wait(
                lambda receiver: (
                    max(event["block_id"] for event in receiver.events if event["webhook"] == "rows")
                    > kept["block_id"]
                )
            )
    for event in receiver.events:
        assert event["changes_pruned"] == (
            event["webhook"] != "ops" and event["block_id"] <= kept["block_id"]
        )
        assert not (event["changes_pruned"] and event["changes"])
    changed = {
        row["block_id"] for row in query("SELECT block_id FROM vc.snapshots WHERE state_number IS NOT NULL")
    }
    of_rows = {
        event["block_id"]
        for event in receiver.events
        if event["webhook"] == "rows" and event["changes_pruned"]
    }
    assert of_rows == {block_id for block_id in changed if 101 < block_id <= kept["block_id"]}


def test_a_replay_takes_effect_while_events_are_delivered_or_fail(long_url: str) -> None:
    """It begins at its block at once, with the same ids; a later block skips those between."""
    statuses = [204]
    with (
        Receiver(lambda number: statuses[0]) as receiver,
        delivering(long_url, webhook(receiver, name="again", from_block=0)),
    ):
        receiver.wait(lambda receiver: len(receiver.events) > 30)
        replay(long_url, "again", 110)
        receiver.wait(lambda receiver: len(receiver.events) > 60)
        statuses[0] = 503
        receiver.headers = {"Retry-After": "3600"}
        receiver.wait(lambda receiver: receiver.attempts[-1] != receiver.events[-1]["id"])
        count = len(receiver.attempts)
        time.sleep(0.5)
        assert len(receiver.attempts) == count  # as it was asked to wait for an hour
        statuses[0] = 204
        replay(long_url, "again", FIRST + EVENTS - 5)
        receiver.wait(lambda receiver: receiver.blocks[-1] == FIRST + EVENTS - 1)
    assert receiver.blocks[-6:] == [receiver.blocks[-6], *range(FIRST + EVENTS - 5, FIRST + EVENTS)]
    begun = receiver.attempts.index(
        next(event["id"] for event in receiver.events if event["block_id"] == 110)
    )
    repeated = receiver.attempts.index(receiver.attempts[begun], begun + 1)
    assert receiver.attempts[repeated : repeated + 10] == receiver.attempts[begun : begun + 10]
    with pytest.raises(UsageError, match="this database has no webhook nobody"):
        replay(long_url, "nobody", 1)


def replay(url: str, name: str, first: int) -> None:
    """Replay a webhook in a session of its own."""
    with closing(Cursors(url)) as cursors:
        cursors.replay(name, first)


def test_a_webhook_begins_with_the_present_and_keeps_its_place(
    fake_node: FakeNode, database_url: str, run: Run, query: Query
) -> None:
    """A new app's webhook has all of its blocks; address, secret and filter may change, and it may rest."""
    story(fake_node, 1, 4)
    run(an_app())
    with Receiver() as receiver, Receiver() as moved:
        hooks = [webhook(receiver), webhook(receiver, "later")]
        with delivering(database_url, *hooks) as reports:
            time.sleep(0.3)
            assert receiver.events == []
            assert reports == ["webhooks wait for app later, which is not installed"]
            for _ in range(2):
                fake_node.mine([fake_node.send(b"mvoadd a"), fake_node.send(b"mvoadd b")])
            run(an_app(), an_app("later"))
            later = query("SELECT count(DISTINCT block_id) AS n FROM vc.ops WHERE app = 'later'")[0]["n"]
            receiver.wait(lambda receiver: len(receiver.events) == 2 + later)
        fake_node.mine([fake_node.send(b"mvoadd c")])
        run(an_app(), an_app("later"))
        with delivering(database_url, webhook(moved, opcodes=("o",))):
            moved.wait(lambda moved: len(moved.events) == 1)
    by_app = {app: [e["block_id"] for e in receiver.events if e["app"] == app] for app in ("plain", "later")}
    height = fake_node.height
    assert by_app["plain"] == [height - 2, height - 1]
    assert by_app["later"] == sorted(
        {op["block_id"] for op in query("SELECT block_id FROM vc.ops")} - {height}
    )
    assert (moved.blocks, moved.events[0]["changes"]) == ([height], [])


def test_an_event_waits_for_an_app_that_is_installed_again(
    fake_node: FakeNode, database_url: str, run: Run
) -> None:
    """An event whose delivery was begun is not taken for delivered because the app has nothing of it yet."""
    fake_node.mine([fake_node.send(b"mvoadd a")])
    run(an_app("other"))
    with Receiver() as receiver, closing(Cursors(database_url)) as cursors:
        hook = webhook(receiver, from_block=102)
        cursors.add([hook])
        begun = replace(cursors.look(webhook(receiver, "other"), cursors.state("plain").cursor)[0], part=0)
        assert begun.position.block_id == 102
        assert cursors.look(hook, begun) == (begun, ())
        run(an_app("other"), an_app())
        assert [message.event for message in cursors.look(hook, begun)[1]] == ["block"]


def test_a_wait_is_never_longer_than_was_decided(database_url: str, query: Query, run: Run) -> None:
    """A clock that jumps back by a day does not stop deliveries for a day."""
    run(an_app())
    with Receiver() as receiver, closing(Cursors(database_url)) as cursors:
        hook = webhook(receiver)
        cursors.add([hook])
        cursors.fail(hook, cursors.state("plain").cursor, "no", 60.0)
        assert 59 < cursors.state("plain").wait <= 60
        for shift, least, most in (("1 day", 59.0, 60.0), ("-2 days", 0.0, 0.0)):
            query(
                """UPDATE vc.webhooks SET failed_at = failed_at + %s::interval,
                next_try = next_try + %s::interval RETURNING name""",
                [shift, shift],
            )
            assert least <= cursors.state("plain").wait <= most
    assert worker.pause_after(1) == worker._FIRST_PAUSE
    assert worker.pause_after(10**6) == worker._LONGEST_PAUSE


def test_nothing_secret_is_stored_or_shown(
    database_url: str, query: Query, run: Run, fake_node: FakeNode
) -> None:
    """Neither the secret nor the path of the address is in the database, a report, a repr or the list."""
    story(fake_node, 1, 2)
    run(an_app())
    with Receiver(lambda number: 500) as receiver:
        hook = webhook(receiver, from_block=0, url=receiver.url + "?token=t0ken")
        with delivering(database_url, hook) as reports:
            receiver.wait(lambda receiver: len(receiver.attempts) > 9)
    with psycopg.connect(database_url) as connection:
        rows = listed(connection, [hook.setting])
    shown = json.dumps([rows, reports, repr(hook), query("SELECT to_jsonb(w) AS row FROM vc.webhooks AS w")])
    assert not any(secret in shown for secret in (KEY, "t0ken", "/hook", "?"))
    [row] = rows
    assert row["receiver"] == receiver.url.removesuffix("/hook")
    assert (row["failures"] > 0, row["error"]) == (True, "it answered 500 Internal Server Error")
    assert (row["is_delivered"], row["delivered"]) == (False, 0)


def test_only_an_owner_delivers(database_url: str, run: Run, fake_node: FakeNode) -> None:
    """With a reader's URL nothing is delivered, which is said once; `run` of a deliverer ends with it."""
    run(an_app())
    parts = urlsplit(database_url)
    role = f"{parts.path[1:]}:hook"
    password = grant(database_url, role, login=True).password
    url = parts._replace(
        netloc=f"{quote(role, safe='')}:{password}@{parts.netloc.rpartition('@')[2]}"
    ).geturl()
    with Receiver() as receiver:
        with delivering(url, webhook(receiver)) as reports:
            time.sleep(0.5)
        with pytest.raises(StoreError, match="permission denied"):
            Deliverer(url, [webhook(receiver)], print).run()
    assert len(reports) == 1
    assert reports[0].startswith("webhooks are not delivered: ")
    assert "permission denied" in reports[0]


def test_a_position_that_the_deployment_never_had_is_a_failure(
    database_url: str, query: Query, run: Run, fake_node: FakeNode
) -> None:
    """It is shown with its remedy, others go on, and a replay ends it."""
    story(fake_node, 1, 3)
    run(an_app())
    with (
        Receiver() as receiver,
        delivering(database_url, webhook(receiver), webhook(receiver, name="b", from_block=0)),
    ):
        receiver.wait(lambda receiver: len(receiver.events) > 0)
        query(
            "UPDATE vc.webhooks SET block_hash = '\\x"
            + "ab" * 32
            + "', version = 9 WHERE name = 'plain' RETURNING name"
        )
        receiver.wait(lambda receiver: "never had that block" in (state(query)["error"] or ""))
        replay(database_url, "plain", 0)
        receiver.wait(lambda receiver: {event["webhook"] for event in receiver.events} == {"plain", "b"})


def test_the_page_s_receiver_keeps_the_claims(
    fake_node: FakeNode, database_url: str, run: Run, query: Query
) -> None:
    """Its table has what the app's has, after events that came twice, and after a rollback."""
    names = documented()
    tables = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    with (
        psycopg.connect(database_url, autocommit=True, options="-c search_path=public") as connection,
        unreliable(3) as receiver,
        delivering(database_url, webhook(receiver, "notary", opcodes=("c",), from_block=0)),
    ):
        connection.execute(tables.encode())
        for number in range(8):
            fake_node.mine([fake_node.send(b"ntc" + bytes([number]) * 32)])
        run(notary)
        receiver.wait(lambda receiver: len(receiver.events) == 8)
        fake_node.reorg(3)
        fake_node.mine([fake_node.send(b"ntc" + b"z" * 32)])
        run(notary)
        receiver.wait(lambda receiver: receiver.blocks[-1] == fake_node.height)
        for event in [*receiver.events, *receiver.events]:
            names["receive"](connection, event)
        claims = connection.execute("SELECT sha256, sender, block_id FROM claims ORDER BY 1").fetchall()
    assert len(claims) > 5
    documents = query("SELECT sha256, owner, claimed_at FROM notary.documents ORDER BY 1")
    assert claims == [tuple(row.values()) for row in documents]

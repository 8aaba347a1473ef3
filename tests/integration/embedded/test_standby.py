"""Standbys: what they show while their primary works, and how they take over from it."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest

from tests.support.moving import an_app, story
from tests.support.servers import postmaster, reachable_folder, value
from tests.support.serving import served
from virtualchain import StateEngine, watch
from virtualchain.errors import DatabaseUnavailable, NotPrimary, StoreError, UsageError
from virtualchain.reading.events import RollbackEvent
from virtualchain.store import patience
from virtualchain.store.database import Lineage, connect_writer
from virtualchain.store.embedded import server as embedded
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.embedded.standby import copy_server
from virtualchain.store.embedded.upgrade import size_of
from virtualchain.store.migrate import migrate
from virtualchain.testing import FakeNode
from virtualchain.testing.database import installations
from virtualchain.web.login import reader_url
from virtualchain.web.sessions import Interrupted, Sessions

PATIENCE = 60.0
VERSIONS = installations()
CONTENT = (
    "SELECT s.block_id, s.consensus_hash, s.state_hash, "
    "(SELECT json_agg(m ORDER BY place)::text FROM plain.marks AS m), "
    "(SELECT json_agg(o ORDER BY name)::text FROM plain.owners AS o) "
    "FROM virtualchain.snapshots AS s ORDER BY 1"
)
LOCK = """
    DO $$
    DECLARE
        name regclass;
    BEGIN
        FOR name IN SELECT oid FROM pg_class WHERE relname IN ('marks', 'owners') AND relkind = 'r' LOOP
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', name);
        END LOOP;
    END $$
"""
DIGESTS = "SELECT block_id, block_hash, consensus_hash, state_hash FROM virtualchain.snapshots ORDER BY 1"


class Pair:
    """A server and its standby."""

    def __init__(self, folder: Path, *, binaries: Path | None = None, synchronous: bool = False) -> None:
        self.primary = EmbeddedServer(folder, binaries=binaries, durable=False)
        self.primary.start()
        self.home = folder.parent / "its standby"
        self.standby = self.primary.make_standby(self.home, synchronous=synchronous)

    @property
    def url(self) -> str:
        """The URL of both."""
        ports = [server.url.rpartition("@")[2].partition("/")[0] for server in (self.primary, self.standby)]
        login, _, rest = self.primary.url.rpartition("@")
        return f"{login}@{','.join(ports)}/{rest.partition('/')[2]}"

    def databases(self, name: str) -> tuple[str, str]:
        """Make a database; return its URLs on the primary and on the standby."""
        here = self.primary.create_database(name)
        self.catch_up()
        return here, self.standby.url_for(name)

    def catch_up(self) -> None:
        """Wait until the standby has replayed everything."""
        sent = value(self.primary.url, "SELECT pg_current_wal_insert_lsn()")
        until(lambda: value(self.standby.url, f"SELECT pg_last_wal_replay_lsn() >= '{sent}'") is True)

    def promote_unasked(self) -> None:
        """Promote the standby behind our back, as a failover manager does, while the primary still runs."""
        with self.standby.connect_superuser("postgres") as connection:
            connection.execute("SELECT pg_promote()")

    def stop(self) -> None:
        """Stop both."""
        for server in (self.standby, self.primary):
            server.stop()


@pytest.fixture(scope="module")
def shared_pair() -> Iterator[Pair]:
    """Make a server with a standby, which every test leaves as it was."""
    with reachable_folder() as folder:
        made = Pair(folder)
        yield made
        made.stop()


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Make a server with a standby; the parameter, if there is one, has options."""
    with reachable_folder() as folder:
        made = Pair(folder, **getattr(request, "param", {}))
        yield made
        made.stop()


def until(is_true: Callable[[], bool]) -> None:
    """Wait for something; errors of a server that is starting do not matter."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(psycopg.OperationalError):
            if is_true():
                return
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.02)


def read(url: str, query: str, as_of: int | None = None) -> list[tuple[Any, ...]]:
    """Read rows, as of a block."""
    with psycopg.connect(url, options=f"-c virtualchain.as_of={as_of or ''}") as connection:
        return connection.execute(query.encode()).fetchall()


@contextmanager
def working(work: Callable[[], object], stop: Callable[[], object]) -> Iterator[None]:
    """Do work in a thread, which may fail for the database's sake, and stop it."""

    def do() -> None:
        with suppress(StoreError):
            work()

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def tip(url: str) -> object:
    """Return the last block of a tape."""
    return value(url, "SELECT max(block_id) FROM virtualchain.blocks")


def test_readers_of_a_standby(shared_pair: Pair, fake_node: FakeNode) -> None:
    """Views as of a block, events, pages and API are those of the primary while it indexes and rolls back.

    A transaction sees one moment however much the primary undoes and vacuums meanwhile.
    """
    story(fake_node, 3, 40)
    pair = shared_pair
    here, there = pair.databases("readers")
    with StateEngine(an_app(), database=here, source=fake_node.url, confirmations=0) as engine:
        engine.build()
        reader_url(here)  # makes the pages' role
        pair.catch_up()
        events = watch(there, "plain", fake_node.height, poll=0.05)
        with closing(events), served(there) as base, psycopg.connect(there) as reader:
            assert next(events).block_id == fake_node.height
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            reader.execute("SET virtualchain.as_of = '120'")
            reader.commit()
            before = reader.execute(CONTENT.encode()).fetchall()
            for depth in (1, 35, 3):
                fake_node.reorg(depth)
                story(fake_node, depth, 2)
                engine.build()
                with psycopg.connect(here, autocommit=True) as connection:
                    connection.execute("VACUUM")
                pair.catch_up()
                assert reader.execute(CONTENT.encode()).fetchall() == before
                for as_of in (106, fake_node.height - 1, fake_node.height):
                    assert read(there, CONTENT, as_of) == read(here, CONTENT, as_of)
                rollback = next(event for event in events if isinstance(event, RollbackEvent))
                assert rollback.block_id <= fake_node.height - depth
                assert next(events).block_id == rollback.block_id + 1
            with urlopen(f"{base}/api/v1/apps/plain/marks?limit=1000") as answer:
                shown = json.load(answer)
            assert len(shown) == value(here, "SELECT count(*) FROM plain.marks")
            with urlopen(f"{base}/") as page:
                assert str(fake_node.height) in page.read().decode()


def test_what_a_standby_ends(shared_pair: Pair, fake_node: FakeNode) -> None:
    """A reader who keeps the standby from following is notified; the next request succeeds."""
    pair = shared_pair
    here, there = pair.databases("ended")
    story(fake_node, 3, 3)
    with StateEngine(an_app(), database=here, source=fake_node.url, confirmations=0) as engine:
        engine.build()
    reader_url(here)  # makes the pages' role
    pair.catch_up()
    with pair.standby.connect_superuser("postgres") as connection:
        connection.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
        connection.execute("SELECT pg_reload_conf()")
    with closing(Sessions(lambda: there)) as sessions:

        def ask(*, disturbed: bool) -> Any:
            with sessions.snapshot() as session:
                session.execute("SELECT count(*) FROM plain.marks")
                if disturbed:
                    with psycopg.connect(here) as connection:
                        connection.execute(LOCK.encode())
                    pair.catch_up()
                return session.execute("SELECT count(*) FROM plain.marks").fetchone()

        expected = ask(disturbed=False)
        with pytest.raises(Interrupted, match="a standby ended it, to follow its primary: ask again"):
            ask(disturbed=True)
        assert ask(disturbed=False) == expected


def test_failover(fake_node: FakeNode, database_url: str) -> None:
    """The primary is killed, the standby promoted, and the engine goes on there as if nothing had happened.

    When the primary comes back, it is left alone: by the engine that has seen its successor, by a writer that
    has just started, and by whoever starts embedded servers.
    """
    notes: list[str] = []
    story(fake_node, 5, 30)
    with reachable_folder() as folder, ExitStack() as stack:
        pair = Pair(folder, binaries=VERSIONS[min(VERSIONS)])
        stack.callback(pair.stop)
        app = an_app()
        engine = stack.enter_context(
            StateEngine(app, database=pair.url, source=fake_node.url, confirmations=0, on_wait=notes.append)
        )
        stack.enter_context(working(engine.follow, engine.stop))
        until(lambda: tip(pair.primary.url) == fake_node.height)
        pair.catch_up()
        os.kill(postmaster(pair.primary), signal.SIGKILL)
        story(fake_node, 6, 3)
        until(lambda: any("trying again" in note for note in notes))
        url = pair.standby.promote()
        until(lambda: tip(url) == fake_node.height)
        fake_node.reorg(20)
        story(fake_node, 7, 2)
        until(lambda: tip(url) == fake_node.height)

        with pytest.raises(UsageError, match="does not start, because its standby has taken over"):
            pair.primary.start()
        (folder / "successor.json").unlink()
        pair.primary.start()
        for write in (connect_writer, migrate):
            with pytest.raises(NotPrimary, match=r"has missed .*\(its timeline is 1, and .* is on 2\)"):
                write(pair.url)
        with psycopg.connect(url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ ' writer '"
            )
        until(lambda: any("has missed that a standby was promoted" in note for note in notes))
        before = read(pair.primary.url, DIGESTS)
        story(fake_node, 8, 2)
        time.sleep(0.5)
        assert read(pair.primary.url, DIGESTS) == before
        pair.primary.stop()
        until(lambda: tip(url) == fake_node.height)

        again = pair.standby.make_standby(folder.parent / "again")
        stack.callback(again.stop)
        until(lambda: tip(again.url) == fake_node.height)
        with StateEngine(app, database=database_url, source=fake_node.url, confirmations=0) as undisturbed:
            undisturbed.build()
        for place in (url, again.url):
            assert read(place, CONTENT) == read(database_url, CONTENT)


@pytest.mark.parametrize("pair", [{"synchronous": True}], indirect=True)
def test_a_writer_that_was_cut_off(pair: Pair, fake_node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a synchronous standby, what a writer commits on the old primary is never acknowledged.

    That holds far from the tip, too. The new primary is written to meanwhile.
    """
    monkeypatch.setattr(patience, "STOP_AFTER", 0.5)
    taken: list[int] = []
    story(fake_node, 5, 2)
    url = pair.primary.url
    options: dict[str, Any] = {"source": fake_node.url, "confirmations": 0}
    on_block = lambda progress: taken.append(progress.block.block_id)  # noqa: E731
    with StateEngine(an_app(), database=url, on_block=on_block, **options) as engine:
        engine.build()
        assert taken[-1] == fake_node.height
        assert pair.primary.status().replicas[0].is_synchronous
        pair.promote_unasked()
        until(lambda: value(pair.standby.url, "SELECT pg_is_in_recovery()") is False)
        until(lambda: pair.primary.status().replicas == ())
        seen, before = fake_node.height, tip(url)
        story(fake_node, 6, 40)
        with working(engine.build, engine.stop):
            with StateEngine(an_app(), database=pair.standby.url, **options) as successor:
                successor.build()
            time.sleep(1)
            assert taken[-1] == seen
            assert tip(url) == before
        assert taken[-1] == seen
    assert tip(pair.standby.url) == fake_node.height


def test_a_standby_is_written_to_only_when_promoted(shared_pair: Pair, fake_node: FakeNode) -> None:
    """Alone or after a primary that is away, it is refused, with what to do; that may succeed later."""
    pair, options = shared_pair, {"source": fake_node.url, "confirmations": 0}
    here, there = pair.databases("written")
    story(fake_node, 5, 2)
    with StateEngine(an_app(), database=here, **options) as engine:  # type: ignore[arg-type]
        engine.build()
    pair.catch_up()
    with pytest.raises(NotPrimary, match="is a standby, which is read-only: give the primary server's URL"):
        StateEngine(an_app(), database=there, **options)  # type: ignore[arg-type]
    pair.primary.stop()
    with pytest.raises(DatabaseUnavailable, match="primary's address, or promote it"):
        StateEngine(an_app(), database=pair.url, **options)  # type: ignore[arg-type]
    pair.primary.start()


def test_statuses_and_refusals(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair knows itself; what would leave two primaries is refused; a primary's new port is found."""
    here, there = pair.primary, pair.standby
    until(lambda: here.status().replicas != ())
    [replica] = here.status().replicas
    assert (replica.address, replica.is_synchronous) == ("127.0.0.1", False)
    assert (here.status().primary, here.status().is_connected) == (None, None)
    assert (there.status().primary, there.status().is_connected) == (here.folder, True)
    assert here.make_standby(pair.home, report=pytest.fail).url == there.url
    (pair.home / "other" / "postgresql" / "data").mkdir(parents=True)
    with pytest.raises(UsageError, match="has a server already"):
        here.make_standby(pair.home / "other")
    with pytest.raises(UsageError, match="is a standby itself"):
        there.make_standby(pair.home / "another")
    with pytest.raises(UsageError, match="is no standby"):
        here.promote()
    with pytest.raises(UsageError, match=r"still runs: stop it first, with `VIRTUALCHAIN_HOME="):
        there.promote()
    with pytest.raises(UsageError, match="is a standby: upgrade its primary"):
        there.upgrade()
    assert (here.status().successor, there.start()) == (None, there.url)

    here.stop()
    monkeypatch.setattr("virtualchain.store.embedded.address._free_port", free_port_but(here._port()))
    here.start()
    monkeypatch.undo()
    there.start()
    until(lambda: there.status().is_connected is True)

    here.stop()
    refused = pytest.MonkeyPatch()
    refused.setattr(EmbeddedServer, "_boot", interrupted)
    there.stop()
    with pytest.raises(KeyboardInterrupt):
        there.promote()
    refused.undo()
    with pytest.raises(UsageError, match="does not start"):  # never both
        here.start()
    assert there.status().primary == here.folder
    there.start()
    there._configure("wait_for_standbys")  # as a copy of a server with synchronous standbys has it
    assert value(there.promote(), "SELECT pg_is_in_recovery()") is False
    assert (here.status().successor, there.status().primary) == (there.folder, None)
    there.stop()
    there.start()
    with there.connect_superuser("postgres") as connection:
        assert connection.execute("SHOW primary_conninfo").fetchone() == ("",)
        assert connection.execute("SHOW synchronous_standby_names").fetchone() == ("",)


def free_port_but(port: int) -> Callable[[int], int]:
    """Return what finds another port than this one."""
    from virtualchain.store.embedded.address import _free_port

    return lambda _: next(free for free in iter(lambda: _free_port(0), None) if free != port)


def interrupted(*_: object) -> None:
    """Interrupt what is done."""
    raise KeyboardInterrupt


def test_a_copy_that_fails_leaves_nothing(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little room, and a wrong password, are reported; the next attempt is a new one.

    The log of the server, of which it keeps much for standbys, needs no room.
    """
    home = server.folder.parent / "a copy"
    free = size_of(server.folder / "data", with_log=False) + 100_000_000
    for room in (free - 1_000_000, free + 1_000_000):
        usage = SimpleNamespace(free=room)
        monkeypatch.setattr("virtualchain.store.embedded.upgrade.shutil.disk_usage", lambda _, it=usage: it)
        complaint = "choose a folder on another disk" if room < free else "authentication failed"
        monkeypatch.setattr(embedded, "copy_server", wrong_login)
        with pytest.raises(StoreError, match=complaint):
            server.make_standby(home)
        assert {path.name for path in home.rglob("*")} == {"postgresql", "run", "server.lock"}
    monkeypatch.undo()
    made = server.make_standby(home)
    made.stop()


def wrong_login(*arguments: Any) -> None:
    """Copy a server with a wrong password."""
    copy: Callable[..., None] = copy_server
    copy(*arguments[:-1], "wrong")


def test_a_lineage_knows_its_servers(server: EmbeddedServer) -> None:
    """A server that does not tell its timeline is believed; the same one is found again."""
    lineage = Lineage()
    for _ in range(2):
        connect_writer(server.url, lineage=lineage).close()
    with server.connect_superuser("virtualchain") as connection:
        connection.execute("REVOKE EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) FROM PUBLIC")
        connect_writer(server.url, lineage=lineage).close()
        connection.execute("GRANT EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) TO PUBLIC")

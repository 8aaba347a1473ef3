"""A database that is silent or away: the engine reports it, ends on `stop`, and continues when it is back."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.integration.engine.test_faults import Victim, mine
from tests.support.servers import postmaster, reachable_folder
from tests.support.tables import deployment
from virtualchain import StateEngine, watch
from virtualchain.bitcoin.node import client
from virtualchain.engine import engine as indexer
from virtualchain.errors import DatabaseUnavailable, StoreError
from virtualchain.store import patience
from virtualchain.store.database import connect_reader
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing import FakeNode


class Proxy:
    """Passes bytes between clients and a server, or swallows them while `passes` is clear."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        login = parts.netloc.rpartition("@")[0]
        port = self._listener.getsockname()[1]
        self.url = parts._replace(netloc=f"{login}@127.0.0.1:{port}").geturl()
        self.passes = threading.Event()
        self.passes.set()
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ends = (self._listener.accept()[0], socket.create_connection(self._target))
                self._sockets += ends
                for source, target in (ends, ends[::-1]):
                    threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self.passes.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close all connections."""
        self.passes.set()
        for item in self._sockets:
            item.close()


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    """Provide a way to the test's database that can become a black hole."""
    with closing(Proxy(database_url)) as made:
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits."""
    monkeypatch.setattr(client, "RETRY_PAUSES", (0.01,))
    monkeypatch.setattr(indexer, "POLL", 0.05)
    monkeypatch.setattr(indexer, "PAUSES", (0.05, 0.2))
    monkeypatch.setattr(patience, "REPORT_AFTER", 0.5)
    monkeypatch.setattr(patience, "STOP_AFTER", 0.5)


@contextmanager
def following(engine: StateEngine) -> Iterator[threading.Thread]:
    """Let an engine follow the chain in a thread; whatever it raises is raised here."""
    errors: list[BaseException] = []

    def follow() -> None:
        try:
            engine.follow()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield thread
    finally:
        engine.stop()
        thread.join(20)
    assert not thread.is_alive()
    for error in errors:
        raise error


def until(holds: Callable[[], bool], what: object = "") -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.usefixtures("impatient")
def test_silence_and_its_end_are_reported(
    fake_node: FakeNode, proxy: Proxy, database_url: str, fresh_index: Callable[..., str]
) -> None:
    """Each report has the time so far; when the server answers again, the work continues where it was."""
    mine(fake_node, 3)
    reasons: list[str] = []
    victim = Victim("commit", fake_node.height, proxy.passes.clear)
    with (
        StateEngine(
            victim.app, database=proxy.url, source=fake_node.url, confirmations=0, on_wait=reasons.append
        ) as engine,
        following(engine),
    ):
        until(lambda: sum("has not answered" in reason for reason in reasons) > 1, reasons)
        assert not any("answers again" in reason for reason in reasons)
        proxy.passes.set()
        until(lambda: engine.waits_for is not None)
    assert sum("answers again" in reason for reason in reasons) == 1
    assert not any("failed" in reason for reason in reasons)
    assert deployment(database_url) == deployment(fresh_index(Victim().app))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("step", ["commit", "final", "proceed"])
def test_stop_ends_an_engine_whose_database_is_silent(
    fake_node: FakeNode, proxy: Proxy, database_url: str, fresh_index: Callable[..., str], step: str
) -> None:
    """Wherever in a block the silence begins, `follow` ends, and the next run takes the block."""
    mine(fake_node, 3)
    reasons: list[str] = []
    victim = Victim(step, fake_node.height, proxy.passes.clear)
    with (
        StateEngine(
            victim.app, database=proxy.url, source=fake_node.url, confirmations=0, on_wait=reasons.append
        ) as engine,
        following(engine) as thread,
    ):
        until(lambda: any("has not answered" in reason for reason in reasons), reasons)
        engine.stop()
        thread.join(5)
        assert not thread.is_alive()
    assert "after the request to stop" in reasons[-1]
    proxy.close()
    with psycopg.connect(database_url, autocommit=True) as connection:  # its session may be waiting still
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name LIKE 'virtualchain writer %'"
        )
    with StateEngine(Victim().app, database=database_url, source=fake_node.url, confirmations=0) as engine:
        assert engine.build() == fake_node.height
    assert deployment(database_url) == deployment(fresh_index(Victim().app))


@contextmanager
def stopped_server(
    node: FakeNode,
) -> Iterator[tuple[EmbeddedServer, StateEngine, threading.Thread, list[str]]]:
    """Let an engine follow the node into a server of its own, and stop that server once it waits for blocks.

    Yields the server, the engine, its thread and what it reports, after several attempts to connect again.
    """
    with reachable_folder() as folder:
        server = EmbeddedServer(folder, durable=False)
        reasons: list[str] = []
        settings: dict[str, Any] = {"database": server.start(), "source": node.url, "confirmations": 0}
        with (
            StateEngine(Victim().app, **settings, on_wait=reasons.append) as engine,
            following(engine) as thread,
        ):
            until(lambda: engine.waits_for is not None)
            os.kill(postmaster(server), signal.SIGINT)
            until(lambda: sum("cannot be opened" in reason for reason in reasons) > 4, reasons)
            yield server, engine, thread, reasons


@pytest.mark.usefixtures("impatient")
def test_a_follower_waits_for_a_database_that_stays_away(
    fake_node: FakeNode, fresh_index: Callable[..., str]
) -> None:
    """However long it is away: its return is announced, and so is the node's."""
    mine(fake_node, 3)
    with stopped_server(fake_node) as (server, engine, _, reasons):
        server.start()
        until(lambda: any("connected again to the database" in reason for reason in reasons), reasons)
        fake_node.stop()
        until(lambda: any("is it running?" in reason for reason in reasons), reasons)
        fake_node.start()
        until(lambda: f"connected again: {engine._source} answers" in reasons, reasons)
        mine(fake_node, 1)
        until(lambda: engine.get_current_block() == fake_node.height)
        engine.stop()
        assert deployment(server.url) == deployment(fresh_index(Victim().app))


@pytest.mark.usefixtures("impatient")
def test_stop_ends_a_follower_whose_database_is_away(fake_node: FakeNode) -> None:
    """It does not wait for the database to come back."""
    with stopped_server(fake_node) as (_, engine, thread, _):
        engine.stop()
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("url", "is_away"),
    [
        ("postgresql://u@127.0.0.1:1/x", True),
        ("postgresql://u@no-such-host.invalid/x", True),
        ("postgresql://u@/x?host=/nowhere", True),
        ("{server}/no_such_database", False),
        ("{stranger}", False),
    ],
)
def test_what_a_connection_is_waited_for(database_url: str, url: str, is_away: bool) -> None:
    """A server that may come up is waited for, one that refuses the login or has no such database is not."""
    parts = urlsplit(database_url)
    stranger = parts._replace(netloc=f"nobody:wrong@{parts.netloc.rpartition('@')[2]}").geturl()
    server = database_url.rpartition("/")[0]
    with pytest.raises(StoreError) as raised:
        connect_reader(url.format(server=server, stranger=stranger))
    assert isinstance(raised.value, DatabaseUnavailable) is is_away, raised.value


@pytest.mark.usefixtures("impatient")
def test_closing_a_watch_ends_it_while_the_database_is_silent(
    fake_node: FakeNode, proxy: Proxy, database_url: str
) -> None:
    """It reports the silence, and does not wait for its end."""
    mine(fake_node, 2)
    with StateEngine(Victim().app, database=database_url, source=fake_node.url, confirmations=0) as engine:
        engine.build()
    reasons: list[str] = []
    events = watch(proxy.url, poll=0.05, on_wait=reasons.append)
    thread = threading.Thread(target=lambda: list(events))
    thread.start()
    try:
        proxy.passes.clear()
        until(lambda: any("has not answered" in reason for reason in reasons), reasons)
    finally:
        events.close()
        thread.join(10)
    assert not thread.is_alive()

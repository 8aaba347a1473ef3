"""One app has the same rows and digests on every supported PostgreSQL that is installed."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.support import representative
from tests.support.row_versions import history_of, versions_by_key
from tests.support.servers import value
from tests.support.state_hashes import state_hash_of_rows
from tests.support.tables import tables
from virtualchain import StateEngine
from virtualchain.errors import StoreError
from virtualchain.store.database import connect_writer
from virtualchain.store.embedded.server import DATABASE, EmbeddedServer
from virtualchain.store.migrate import migrate
from virtualchain.testing import FakeNode
from virtualchain.testing.database import installations


@contextmanager
def running(binaries: Path) -> Iterator[EmbeddedServer]:
    """Run a throwaway server with these programs."""
    folder = Path(tempfile.mkdtemp(prefix="virtualchain-tests-"))
    folder.chmod(0o711)
    server = EmbeddedServer(folder / "postgresql", binaries=binaries, durable=False)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[int, EmbeddedServer]]:
    """Run a server of each version, with the representative app at its last block."""
    with ExitStack() as stack:
        node = stack.enter_context(FakeNode())
        representative.feed(node)
        started = {}
        for version, binaries in installations().items():
            server = started[version] = stack.enter_context(running(binaries))
            migrate(server.url)
            with StateEngine(
                representative.app(), database=server.url, source=node.url, confirmations=0
            ) as engine:
                assert engine.build() == node.height
        yield started


def test_every_version_has_the_same_result(servers: dict[int, EmbeddedServer]) -> None:
    """Log, rows, history, births and digests have the same text on all versions."""
    if len(servers) < 2:
        pytest.skip(
            f"only PostgreSQL {', '.join(map(str, servers))} is installed: a comparison needs another version"
        )
    dumps = {version: tables(server.url) for version, server in servers.items()}
    first, *others = dumps.values()
    for other in others:
        assert other == first
    assert len(first["representative__1.entries_history"]) > 20
    assert len(first["vc.rejections"]) > 10
    assert len(first["vc.ops"]) > 20


def test_state_hash_is_that_of_the_rows(servers: dict[int, EmbeddedServer]) -> None:
    """On each version, the maintained hash equals the one computed from a dump of the rows."""
    hashes = {state_hash_of_rows(server.url, "representative") for server in servers.values()}
    assert len(hashes) == 1
    for server in servers.values():
        assert {value(server.url, "SELECT state_hash FROM virtualchain.apps")} == hashes


def test_rows_have_the_versions_that_the_views_show(servers: dict[int, EmbeddedServer]) -> None:
    """On each version, the history of every row is that of the views, whatever the types in its key."""
    for server in servers.values():
        options = "-c TimeZone=UTC -c IntervalStyle=iso_8601"
        with psycopg.connect(server.url, autocommit=True, options=options) as connection:
            for table, key in (("accounts", ("name", "part")), ("entries", ("id",)), ("marks", ("key",))):
                expected = versions_by_key(connection, f"representative.{table}", key, range(101, 111))
                assert len(expected) > 3
                for values, versions in expected.items():
                    place = dict(zip(key, values, strict=True))
                    assert history_of(connection, "representative", table, place) == versions


def test_reducers_have_a_role(servers: dict[int, EmbeddedServer]) -> None:
    """The app's role works with the CREATEROLE of PostgreSQL 15 and with the narrower one of 16 and later."""
    for server in servers.values():
        assert value(server.url, "SELECT role FROM virtualchain.apps") == f"{DATABASE}:representative"


def test_silenced_triggers_are_noticed(servers: dict[int, EmbeddedServer]) -> None:
    """A superuser can switch triggers off for a database; the writer then refuses to write."""
    for server in servers.values():
        connect_writer(server.url).close()
        with closing(server._connect()) as superuser:
            superuser.execute("ALTER DATABASE virtualchain SET session_replication_role TO replica")
        with pytest.raises(StoreError, match="silences the triggers that keep history"):
            connect_writer(server.url)
        with closing(server._connect()) as superuser:
            superuser.execute("ALTER DATABASE virtualchain RESET session_replication_role")

"""What others in the same server do must not stop the writer: publications, and a full queue."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from tests.support import representative
from tests.support.moving import an_app, story
from tests.support.servers import reachable_folder, value
from virtualchain import BlockEvent, RollbackEvent, StateEngine, watch
from virtualchain.audit.verify import verify
from virtualchain.checkpoint.create import create
from virtualchain.errors import StoreError
from virtualchain.reading import views
from virtualchain.store.database import connect_migrator
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.migrate import migrate
from virtualchain.store.roles import grant_reader
from virtualchain.testing import FakeNode
from virtualchain.testing.database import installations
from virtualchain.transfer.exporting import export

SETTINGS = ("wal_level = 'logical'", "log_min_messages = 'error'")


@contextmanager
def configured(binaries: Path, *settings: str) -> Iterator[EmbeddedServer]:
    """Run a server with settings of an administrator's."""
    with reachable_folder() as folder:
        server = EmbeddedServer(folder, binaries=binaries, durable=False)
        server.start()
        with server.connect_superuser("postgres") as superuser:
            for setting in settings:
                superuser.execute(f"ALTER SYSTEM SET {setting}".encode())
        server.stop()
        server.start()
        yield server


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[int, EmbeddedServer]]:
    """Run a server of each version that is installed, which can replicate and has a small queue."""
    with ExitStack() as stack:
        running = {}
        for version, binaries in installations().items():
            small = ("max_notify_queue_pages = 64",) if version >= 17 else ()
            running[version] = stack.enter_context(configured(binaries, *SETTINGS, *small))
        yield running


@pytest.fixture(params=[15, 18], ids=lambda version: f"postgresql{version}")
def server(request: pytest.FixtureRequest, servers: dict[int, EmbeddedServer]) -> EmbeddedServer:
    """Return the server of one version, with an empty database."""
    if request.param not in servers:
        pytest.skip(f"PostgreSQL {request.param} is not installed")
    server = servers[request.param]
    with server.connect_superuser("postgres") as superuser:
        superuser.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'changes'"
        )
        superuser.execute("DROP DATABASE IF EXISTS tried WITH (FORCE)")
        superuser.execute("CREATE DATABASE tried OWNER virtualchain TEMPLATE template0 LOCALE 'C'")
    migrate(server.url_for("tried"))
    return server


PUBLICATIONS = ("FOR ALL TABLES", "FOR TABLES IN SCHEMA vc, plain__1, representative__1")


@pytest.mark.parametrize(
    ("scope", "is_first"),
    [(PUBLICATIONS[0], True), (PUBLICATIONS[1], False)],
    ids=["before the apps", "after them"],
)
def test_a_publication_does_not_stop_the_writer(
    server: EmbeddedServer, fake_node: FakeNode, scope: str, is_first: bool
) -> None:
    """Updates, deletes, pruning, rollbacks and rebuilds go on, and the changes can be decoded."""
    url = server.url_for("tried")
    options = {"database": url, "source": fake_node.url, "confirmations": 0, "history": 5}
    if is_first:
        publish(server, scope)
    story(fake_node, 3, 10)
    representative.feed(fake_node)
    with StateEngine(an_app(), representative.app(), **options) as engine:  # type: ignore[arg-type]
        engine.build()
        if not is_first:
            publish(server, scope)
        story(fake_node, 4, 12)
        engine.build()
        for depth in (2, 9):
            fake_node.reorg(depth, depth + 1)
            engine.build()
    with server.connect_superuser("tried") as superuser:
        changes = superuser.execute(
            "SELECT count(*) FROM pg_logical_slot_get_binary_changes('changes', NULL, NULL, "
            "'proto_version', '1', 'publication_names', 'everything')"
        ).fetchone()
    assert changes is not None
    assert changes[0] > 100
    assert value(url, "SELECT count(*) FROM virtualchain.reorgs") == 2


def publish(server: EmbeddedServer, scope: str) -> None:
    """Publish tables, and begin to keep their changes."""
    with server.connect_superuser("tried") as superuser:
        superuser.execute(f"CREATE PUBLICATION everything {scope}".encode())
        superuser.execute("SELECT pg_create_logical_replication_slot('changes', 'pgoutput')")


def test_tables_of_an_older_version_get_an_identity(server: EmbeddedServer, fake_node: FakeNode) -> None:
    """An upgrade gives what a release before this one installed an identity, while a publication exists."""
    url = server.url_for("tried")
    options = {"database": url, "source": fake_node.url, "confirmations": 0}
    story(fake_node, 5, 6)
    with StateEngine(an_app(), **options) as engine:  # type: ignore[arg-type]
        engine.build()
    for table in ("owners_births", "marks_births"):
        value_of(url, f"ALTER TABLE plain__1.{table} REPLICA IDENTITY DEFAULT")
    publish(server, "FOR ALL TABLES")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="replica identity"):
        value_of(url, "DELETE FROM plain__1.owners_births")
    fake_node.reorg(2, 3)
    with StateEngine(an_app(), **options) as engine:  # type: ignore[arg-type]
        engine.build()
    assert value(url, "SELECT count(*) FROM virtualchain.reorgs") == 1


def test_every_table_of_a_deployment_can_be_published(server: EmbeddedServer, fake_node: FakeNode) -> None:
    """Each has a key that identifies its rows, or all of its columns do, also under a deferrable key."""
    with StateEngine(
        an_app(),
        representative.app(),
        database=server.url_for("tried"),
        source=fake_node.url,
        confirmations=0,
    ):
        pass
    with server.connect_superuser("tried") as superuser:
        tables = superuser.execute("""
            SELECT c.oid::regclass::text, c.relreplident = 'f' OR EXISTS (
                SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate)
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE c.relkind = 'r' AND (n.nspname IN ('vc', 'virtualchain') OR n.nspname LIKE '%\\_\\_%')
        """).fetchall()
    assert len(tables) > 25
    assert [name for name, is_identified in tables if not is_identified] == []


def value_of(url: str, statement: str) -> None:
    """Run a statement as the owner."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


@pytest.mark.parametrize("whose", ["DATABASE tried", "ROLE virtualchain"])
def test_a_block_to_show_does_not_leak_into_the_engine(
    server: EmbeddedServer, fake_node: FakeNode, tmp_path: Path, whose: str
) -> None:
    """A role or database may be set to show an old block: commands see the last one all the same."""
    url = server.url_for("tried")
    options = {"database": url, "source": fake_node.url, "confirmations": 0}
    story(fake_node, 9, 4)
    with StateEngine(an_app(), **options) as engine:  # type: ignore[arg-type]
        engine.build()
    try:
        with server.connect_superuser("tried") as superuser:
            superuser.execute(f"ALTER {whose} SET virtualchain.as_of = '103'".encode())
            superuser.execute(f"ALTER {whose} SET virtualchain.block_id = 'undo'".encode())
        assert value(url, "SELECT max(block_id) FROM virtualchain.blocks") == 103
        story(fake_node, 10, 2)
        with StateEngine(an_app(), **options) as engine:  # type: ignore[arg-type]
            assert engine.build() == fake_node.height
        with views.snapshot(url) as connection:
            assert views.apps(connection)[0]["block_id"] == fake_node.height
            assert create(connection, "plain", tmp_path / "file").block_id == fake_node.height
            _, shown = views.query(connection, "SELECT max(block_id) FROM blocks", as_of="104")
            assert list(shown) == [(104,)]
        done = export(url, tmp_path / "export", form="csv", what=["snapshots"])
        assert done.manifest.files[0].rows == fake_node.height + 1
        assert verify(url).faults == []
    finally:
        with server.connect_superuser("tried") as superuser:
            superuser.execute(f"ALTER {whose} RESET ALL".encode())


def test_no_password_reaches_the_servers_log(server: EmbeddedServer) -> None:
    """A server may log every statement: what it logs of a reader's password is the SCRAM hash."""
    with server.connect_superuser("tried") as superuser:
        superuser.execute("ALTER DATABASE tried SET log_statement = 'all'")
        superuser.execute("ALTER DATABASE tried SET log_min_messages = 'info'")
    try:
        with connect_migrator(server.url_for("tried")) as connection:
            reader = grant_reader(connection, "tried:secret", None, login=True)
        assert reader.password is not None
        log = server.status().log.read_text(errors="replace")
        assert "LOGIN PASSWORD 'SCRAM-SHA-256$" in log
        assert reader.password not in log
        login = f"tried%3Asecret:{reader.password}@"
        url = f"postgresql://{login}{server.url_for('tried').rpartition('@')[2]}"
        assert value(url, "SELECT count(*) FROM virtualchain.apps") == 0
    finally:
        with server.connect_superuser("tried") as superuser:
            superuser.execute('DROP OWNED BY "tried:secret"; DROP ROLE "tried:secret"')


def test_a_reader_that_could_not_read_is_refused(server: EmbeddedServer) -> None:
    """If an administrator revoked a function that views call, the grant fails and names it."""
    with server.connect_superuser("tried") as superuser:
        superuser.execute("REVOKE EXECUTE ON FUNCTION encode(bytea, text) FROM PUBLIC")
        superuser.execute("GRANT EXECUTE ON FUNCTION encode(bytea, text) TO virtualchain")
    with (
        pytest.raises(StoreError, match=r"GRANT EXECUTE ON FUNCTION (pg_catalog\.)?encode\(bytea,text\) TO"),
        connect_migrator(server.url_for("tried")) as connection,
    ):
        grant_reader(connection, "tried:never", None, login=False)


@contextmanager
def full_queue(server: EmbeddedServer) -> Iterator[psycopg.Connection]:
    """Fill the server's queue of notifications, in another database; yield the session that blocks it."""
    with (
        server.connect_superuser("postgres") as listener,
        server.connect_superuser("postgres") as speaker,
    ):
        listener.execute("SET application_name TO 'the idle one'")
        listener.execute("LISTEN something")
        listener.execute("BEGIN")
        listener.execute("SELECT 1")
        with suppress(psycopg.errors.ProgramLimitExceeded):
            while True:
                speaker.execute(
                    "SELECT pg_notify('something', repeat('x', 7900) || n) FROM generate_series(1, 20) AS n"
                )
        yield listener


def test_a_full_queue_does_not_stop_the_writer(
    servers: dict[int, EmbeddedServer], fake_node: FakeNode
) -> None:
    """Blocks and rollbacks are taken without notifications, the holder is named, and watchers see them."""
    versions = [version for version in servers if version >= 17]
    if not versions:
        pytest.skip("only PostgreSQL 17 and later can be given a small queue")
    server = servers[versions[-1]]
    with server.connect_superuser("postgres") as superuser:
        superuser.execute("DROP DATABASE IF EXISTS tried WITH (FORCE)")
        superuser.execute("CREATE DATABASE tried OWNER virtualchain TEMPLATE template0 LOCALE 'C'")
    url = server.url_for("tried")
    messages: list[str] = []
    with StateEngine(
        an_app(), database=url, source=fake_node.url, confirmations=0, on_wait=messages.append
    ) as engine:
        story(fake_node, 6, 3)
        engine.build()
        with watch(url, poll=0.2) as events:
            with full_queue(server) as listener:
                story(fake_node, 7, 3)
                assert engine.build() == fake_node.height
                assert [next(events).block_id for _ in range(3)] == list(
                    range(fake_node.height - 2, fake_node.height + 1)
                )
                fake_node.reorg(2, 3)
                assert engine.build() == fake_node.height
                first = next(events)
                assert isinstance(first, RollbackEvent)
                assert isinstance(next(events), BlockEvent)
                [message] = messages
                assert "queue of notifications is full, so blocks are taken without notifications" in message
                assert f"server process {listener.info.backend_pid} (" in message
                assert "database postgres, application the idle one" in message
            story(fake_node, 8, 1)
            engine.build()
    assert messages[1:] == ["notifications are sent again"]

"""Database sessions: pinned settings, one writer, and errors that say what to do and show no secrets."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from tests.support.servers import reachable_folder, value
from virtualchain.errors import StoreError, UsageError, WriterBusy
from virtualchain.store import database
from virtualchain.store.database import connect_reader, connect_writer, resolve
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.patience import Patience
from virtualchain.testing.database import DatabaseServer

PINNED = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    "default_toast_compression": "pglz",
}
WRITE = "import sys, time; from virtualchain.store.database import connect_writer; "
WRITE += "connection = connect_writer(sys.argv[1]); print('writing', flush=True); time.sleep(60)"


@pytest.fixture
def url(empty_database_url: str) -> str:
    """Make a database whose own settings are all unusual."""
    odd = {"TimeZone": "Asia/Tokyo", "DateStyle": "SQL, DMY", "IntervalStyle": "sql_standard"}
    odd |= {"extra_float_digits": "-3", "bytea_output": "escape", "client_encoding": "LATIN1"}
    name = sql.Identifier(urlsplit(empty_database_url).path[1:])
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        for setting, text in odd.items():
            statement = sql.SQL("ALTER DATABASE {} SET {} TO {}")
            connection.execute(statement.format(name, sql.Identifier(setting), sql.Literal(text)))
    return empty_database_url


@pytest.fixture
def holder(url: str) -> Iterator["subprocess.Popen[str]"]:
    """Run another process that is the database's writer."""
    with subprocess.Popen([sys.executable, "-c", WRITE, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def show(connection: psycopg.Connection, setting: str) -> str:
    """Return a setting of a session."""
    row = connection.execute("SELECT current_setting(%s)", [setting]).fetchone()
    assert row
    return str(row[0])


def test_settings_are_pinned_whatever_the_database_sets(url: str) -> None:
    """Both kinds of session use the one text form of values that digests depend on."""
    for connect in (connect_writer, connect_reader):
        with connect(url) as connection:
            assert {name: show(connection, name) for name in PINNED} == PINNED
            assert connection.autocommit


def test_sessions_identify_their_process(url: str) -> None:
    """pg_stat_activity names the host and the process of a session."""
    with connect_writer(url) as writer, connect_reader(url) as reader:
        process = f"{socket.gethostname()}:{os.getpid()}"
        assert show(writer, "application_name") == f"virtualchain writer {process}"[:63]
        assert show(reader, "application_name") == f"virtualchain reader {process}"[:63]


def test_reader_cannot_write(url: str) -> None:
    """A reader's transactions are read-only by default."""
    with connect_reader(url) as reader, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        reader.execute("CREATE TABLE t (a integer)")


def test_second_writer_learns_who_writes(url: str, holder: "subprocess.Popen[str]") -> None:
    """The message names the writer's host and process but no secret; readers can still connect."""
    with pytest.raises(WriterBusy) as busy:
        connect_writer(url)
    assert f"virtualchain writer {socket.gethostname()}:{holder.pid} (server process " in str(busy.value)
    assert str(urlsplit(url).password) not in str(busy.value)
    assert busy.value.exit_code == 5
    connect_reader(url).close()


def test_lock_is_free_when_its_process_was_killed(url: str, holder: "subprocess.Popen[str]") -> None:
    """A writer that dies leaves no lock behind."""
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with connect_writer(url, wait=True) as connection:
        assert value(url, "SELECT 1") == 1
        with pytest.raises(WriterBusy):
            connect_writer(url)
        assert not connection.closed


def test_a_session_that_has_just_ended_refuses_no_writer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the holder ends between the attempt and the look at who has the lock, the next attempt gets it."""
    first = connect_writer(url)
    look = database._holder
    looks: list[str | None] = []

    def end_and_look(connection: psycopg.Connection) -> str | None:
        process = first.info.backend_pid
        first.close()
        while value(url, f"SELECT count(*) FROM pg_stat_activity WHERE pid = {process}"):
            time.sleep(0.01)
        looks.append(look(connection))
        return looks[-1]

    monkeypatch.setattr(database, "_holder", end_and_look)
    with connect_writer(url) as second:
        assert not second.closed
    assert looks == [None]


def test_a_session_that_is_still_shown_refuses_no_writer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may take a moment to notice that the holder has closed its session."""
    first = connect_writer(url)
    look = database._holder
    looks: list[str | None] = []

    def look_and_end(connection: psycopg.Connection) -> str | None:
        looks.append(look(connection))
        if len(looks) == 2:
            first.close()
        return looks[-1]

    monkeypatch.setattr(database, "_holder", look_and_end)
    with connect_writer(url) as second:
        assert not second.closed
    assert None not in looks[:2]


def test_a_hidden_holder_ends_the_attempts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that stays taken although nobody is shown to have it refuses the writer in about two seconds."""
    with connect_writer(url):
        monkeypatch.setattr(database, "_holder", lambda _: None)
        started = time.monotonic()
        with pytest.raises(WriterBusy, match="a session that is not shown"):
            connect_writer(url)
        assert 1.5 < time.monotonic() - started < 15


def test_a_prepared_transaction_that_has_the_lock_is_named() -> None:
    """It has no process; the message has its name, and the lock is free once it is rolled back."""
    with reachable_folder() as folder:
        server = EmbeddedServer(folder, durable=False)
        server.start()
        with server.connect_superuser("postgres") as admin:
            admin.execute("ALTER SYSTEM SET max_prepared_transactions = 2")
        server.stop()
        url = server.start()
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("BEGIN; SELECT pg_advisory_xact_lock(1986622068, 1667784041)")
            other.execute("PREPARE TRANSACTION 'left behind'")
        with pytest.raises(WriterBusy, match="prepared transaction 'left behind', which ROLLBACK PREPARED"):
            connect_writer(url)
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("ROLLBACK PREPARED 'left behind'")
        connect_writer(url).close()


def test_waiting_writer_gets_its_turn(url: str) -> None:
    """With `wait`, a writer starts when the one that it names ends, and holds no snapshot open meanwhile."""
    reports: list[str] = []
    with ThreadPoolExecutor(1) as background, connect_writer(url) as first:
        process = first.info.backend_pid
        second = background.submit(connect_writer, url, wait=True, patience=Patience(reports.append))
        deadline = time.monotonic() + 30
        while not reports:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not second.done()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'virtualchain writer%' "
        assert value(url, waiting + "AND backend_xmin IS NOT NULL") == 0
        time.sleep(1.5)  # one more attempt
        first.close()
        second.result(timeout=30).close()
    [report] = reports
    assert f":{os.getpid()} (server process {process}" in report
    assert report.endswith("; waiting for it to end")


def test_writers_of_two_databases_do_not_conflict(url: str, database_server: DatabaseServer) -> None:
    """The lock belongs to the deployment, and so to one database of a server."""
    other = database_server.create()
    with connect_writer(url), connect_writer(other) as connection:
        assert not connection.closed
    database_server.drop(other)


def test_failed_writer_leaves_no_session(url: str, holder: "subprocess.Popen[str]") -> None:
    """The session of a refused writer is closed."""
    for _ in range(3):
        with pytest.raises(WriterBusy):
            connect_writer(url)
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'virtualchain writer%' "
    deadline = time.monotonic() + 10
    while value(url, sessions + "AND datname = current_database()") != 1:
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"password": "Secret-2b"}, "check the user and password"),
        ({"database": "nowhere"}, r'database "nowhere" does not exist \(create it first'),
        ({"port": "1"}, r"refused \(is the server running there"),
        ({"host": "no-such-host.invalid"}, "check the host name"),
    ],
)
def test_refused_connection_is_one_clear_line(url: str, change: dict[str, str], message: str) -> None:
    """A failed connection reports why and what to do, and never shows the password."""
    parts = urlsplit(url)
    new = {"host": parts.hostname, "port": parts.port, "password": parts.password, "database": parts.path[1:]}
    new |= change
    wrong = f"postgresql://{parts.username}:{new['password']}@{new['host']}:{new['port']}/{new['database']}"
    for connect in (connect_writer, connect_reader):
        with pytest.raises(StoreError, match=message) as refused:
            connect(wrong)
        assert "\n" not in str(refused.value)
        assert str(new["password"]) not in f"{refused.value}{refused.value.__cause__}"
        assert f"{new['host']}:{new['port']}" in str(refused.value)


def test_database_in_another_encoding_is_refused(database_server: DatabaseServer, url: str) -> None:
    """Text that is not UTF-8 would hash differently; the message says how to make a database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
        )
    latin = urlsplit(url)._replace(path="/latin").geturl()
    with pytest.raises(StoreError, match=r"encoded in LATIN1.*ENCODING 'UTF8'"):
        connect_writer(latin)
    database_server.drop(latin)


def test_resolve_returns_the_url_or_starts_the_embedded_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL is returned unchanged; without one, the embedded server starts, in VIRTUALCHAIN_HOME if set."""
    assert resolve("postgresql://somebody@somewhere/something") == "postgresql://somebody@somewhere/something"
    with pytest.raises(UsageError, match="cannot be read"):
        resolve("mysql://somebody@somewhere")
    with reachable_folder() as folder:
        monkeypatch.setenv("VIRTUALCHAIN_HOME", str(folder))
        quick = EmbeddedServer(folder / "postgresql", durable=False)
        quick.start()
        quick.stop()
        url = resolve(None)
        assert quick.status().running
        assert url == quick.url
        with connect_writer(url) as connection:
            assert show(connection, "TimeZone") == "UTC"
        EmbeddedServer().stop()

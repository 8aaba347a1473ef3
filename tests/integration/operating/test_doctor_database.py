"""What the doctor finds of a database: nothing if it is in order, and each disorder that it is for."""

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from tests.support.doctored import NOTARY, Clinic, login_of, not_ok, server_with
from tests.support.pooler import pooled
from tests.support.servers import reachable_folder, standby_of
from virtualchain import StateEngine
from virtualchain.examples import notary
from virtualchain.operating.doctor import server as server_checks
from virtualchain.operating.doctor import upkeep
from virtualchain.operating.doctor.examination import CHECKS
from virtualchain.settings import Settings
from virtualchain.store.roles import grant_reader
from virtualchain.testing import FakeNode
from virtualchain.testing.database import installations

PATIENCE = 10.0
WELL = {
    "archive_mode": "on",
    "archive_command": "'true'",
    "max_prepared_transactions": "4",
}
SICK = {
    "max_connections": "12",
    "max_locks_per_transaction": "10",
    "max_wal_senders": "0",
    "max_wal_size": "'64MB'",
    "shared_buffers": "'16MB'",
    "wal_level": "minimal",
}


@contextmanager
def deployment(node: FakeNode, url: str) -> Iterator[StateEngine]:
    """Follow the node's chain with one app, and leave the writer running."""
    with StateEngine(notary.app, database=url, source=node.url, confirmations=0) as engine:
        engine.build()
        yield engine


@pytest.fixture(scope="module")
def node() -> Iterator[FakeNode]:
    """Run a node with two inputs of the app."""
    with FakeNode() as node:
        node.mine([node.send(b"NOr" + bytes(32)), node.send(b"NOr" + bytes(31) + b"1")])
        yield node


@pytest.fixture(scope="module")
def well(node: FakeNode) -> Iterator[Clinic]:
    """Run the newest server that there is, set up as it should be, with a deployment and its writer."""
    versions = installations()
    newest = max(versions)
    more = {"max_notify_queue_pages": "64"} if newest >= 17 else {}
    with (
        server_with({**WELL, **more}, binaries=versions[newest]) as server,
        pytest.MonkeyPatch.context() as patch,
        deployment(node, server.url),
    ):
        patch.setenv("VIRTUALCHAIN_HOME", str(server.folder.parent))
        yield Clinic(server, Settings(database=server.url, bitcoin=(node.url,), confirmations=0, apps=NOTARY))


@pytest.fixture(scope="module")
def sick(node: FakeNode) -> Iterator[Clinic]:
    """Run the oldest server that there is, with settings that hurt."""
    versions = installations()
    with server_with(SICK, binaries=versions[min(versions)], durable=False) as server:
        with deployment(node, server.url):
            pass
        yield Clinic(server, Settings(database=server.url, bitcoin=(node.url,), confirmations=0, apps=NOTARY))


def test_a_healthy_deployment_shows_nothing(well: Clinic) -> None:
    """Every check of a deployment in order is ok, or skipped with a reason; and nothing was written."""
    before = well.value("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
    findings = well.all()
    assert well.value("SELECT pg_snapshot_xmax(pg_current_snapshot())::text") == before
    assert not_ok(findings) == {}
    assert {name for name, finding in findings.items() if finding.verdict == "skipped"} <= {
        "backups",
        "preloaded-libraries",
    }
    assert all(finding.advice is None for finding in findings.values() if finding.verdict == "ok")


def test_settings_that_hurt(sick: Clinic) -> None:
    """An old server with settings that hurt is examined to the end, and each of them is named."""
    findings = sick.all()
    expected = {
        "durability": ("problem", "fsync is off"),
        "locks": ("warning", "room for"),
        "autovacuum": ("warning", "never removed"),
        "server-memory": ("warning", "shared_buffers is 16 MB; max_wal_size is 64 MB"),
        "wal-level": ("warning", "minimal"),
        "writer": ("warning", "stopped"),
    }
    for name, (verdict, text) in expected.items():
        assert (findings[name].verdict, text in findings[name].observed) == (verdict, True), findings[name]
    assert not_ok(findings, besides=[*expected]) == {}


ROLE = "ALTER ROLE virtualchain IN DATABASE virtualchain"
DATABASE = "ALTER DATABASE virtualchain"


MANY_SAMPLES = (
    "INSERT INTO vc.progress (at, inputs, ops, rejections) "
    "SELECT now() - n * interval '1 ms', 0, 0, 0 FROM generate_series(1, 12000) AS n"
)


@dataclass(frozen=True)
class Case:
    """How to provoke a finding, how to end that, and what must be found."""

    check: str
    begin: tuple[str, ...]
    end: tuple[str, ...]
    verdict: str
    text: str
    as_superuser: bool = False


CASES = (
    Case(
        "refused-settings",
        (f"{DATABASE} SET zero_damaged_pages TO on",),
        (f"{DATABASE} RESET zero_damaged_pages",),
        "problem",
        "ALTER DATABASE virtualchain RESET zero_damaged_pages",
    ),
    Case(
        "refused-settings",
        ("ALTER TABLE vc.ops ENABLE ROW LEVEL SECURITY",),
        ("ALTER TABLE vc.ops DISABLE ROW LEVEL SECURITY",),
        "problem",
        "row security",
    ),
    Case(
        "timeouts",
        (f"{DATABASE} SET statement_timeout TO '5s'", f"{ROLE} SET idle_session_timeout TO '59s'"),
        (f"{DATABASE} RESET statement_timeout", f"{ROLE} RESET idle_session_timeout"),
        "warning",
        "statement_timeout is 5 s, idle_session_timeout is 59 s",
    ),
    Case(
        "transaction-defaults",
        (f"{ROLE} SET default_transaction_read_only TO on",),
        (f"{ROLE} RESET default_transaction_read_only",),
        "warning",
        "read-only by default",
    ),
    Case(
        "transaction-defaults",
        ("ALTER ROLE virtualchain SET default_transaction_isolation TO serializable",),
        ("ALTER ROLE virtualchain RESET default_transaction_isolation",),
        "warning",
        "serializable",
    ),
    Case(
        "connections",
        (f"{DATABASE} CONNECTION LIMIT 2",),
        (f"{DATABASE} CONNECTION LIMIT -1",),
        "warning",
        "2 of 2 connections of this database",
    ),
    Case(
        "connections",
        ("ALTER ROLE virtualchain CONNECTION LIMIT 2",),
        ("ALTER ROLE virtualchain CONNECTION LIMIT -1",),
        "warning",
        "2 of 2 connections of this user",
    ),
    Case(
        "event-triggers",
        (
            "CREATE FUNCTION public.look() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
            "CREATE EVENT TRIGGER looks ON ddl_command_end EXECUTE FUNCTION public.look()",
        ),
        ("DROP EVENT TRIGGER looks", "DROP FUNCTION public.look()"),
        "warning",
        "looks",
    ),
    Case(
        "publications",
        ("CREATE PUBLICATION everything FOR ALL TABLES",),
        ("DROP PUBLICATION everything",),
        "ok",
        "everything (all tables)",
    ),
    Case(
        "preloaded-libraries",
        (f"{DATABASE} SET session_preload_libraries TO 'plpgsql'",),
        (f"{DATABASE} RESET session_preload_libraries",),
        "ok",
        "plpgsql (session_preload_libraries)",
        as_superuser=True,
    ),
    Case(
        "setting-overrides",
        (f"{DATABASE} SET my.password TO 'hidden'",),
        (f"{DATABASE} RESET my.password",),
        "ok",
        "my.password (every role)",
    ),
    Case(
        "replication-slots",
        ("SELECT pg_create_physical_replication_slot('forgotten', true)",),
        ("SELECT pg_drop_replication_slot('forgotten')",),
        "warning",
        "'forgotten' is not read",
    ),
    Case(
        "bloat",
        (
            MANY_SAMPLES,
            "DELETE FROM vc.progress; SELECT pg_stat_force_next_flush()",
            "SELECT 1",
        ),
        ("VACUUM vc.progress",),
        "warning",
        "vc.progress (12,0",
    ),
    Case(
        "schema",
        ("UPDATE vc.alembic_version SET version_num = '9999'",),
        ("UPDATE vc.alembic_version SET version_num = (SELECT saved FROM public.saved)",),
        "problem",
        "(9999) is newer",
    ),
    Case(
        "schema",
        ("UPDATE vc.alembic_version SET version_num = '0001'",),
        ("UPDATE vc.alembic_version SET version_num = (SELECT saved FROM public.saved)",),
        "problem",
        "(0001) is older",
    ),
    Case(
        "writer-rights",
        ("ALTER ROLE virtualchain NOCREATEROLE",),
        ("ALTER ROLE virtualchain CREATEROLE",),
        "warning",
        "may not create roles",
    ),
    Case(
        "writer-rights",
        (f"{DATABASE} OWNER TO postgres",),
        (f"{DATABASE} OWNER TO virtualchain",),
        "problem",
        "may not create schemas",
    ),
    Case(
        "roles",
        ("UPDATE vc.apps SET schema = 'lost'",),
        ("UPDATE vc.apps SET schema = 'notary'",),
        "problem",
        "has lost its role",
    ),
    Case(
        "roles",
        ("DO $$BEGIN EXECUTE format('ALTER ROLE %I LOGIN', vc.role_of('notary')); END$$",),
        ("DO $$BEGIN EXECUTE format('ALTER ROLE %I NOLOGIN', vc.role_of('notary')); END$$",),
        "problem",
        "more than an app's",
    ),
    Case(
        "roles",
        ("CREATE ROLE strong CREATEDB", "INSERT INTO vc.readers VALUES ('strong', NULL)"),
        ("DELETE FROM vc.readers", "DROP OWNED BY strong", "DROP ROLE strong"),
        "warning",
        "of their privileges",
    ),
    Case(
        "roles",
        ("CREATE ROLE strong CREATEDB", "INSERT INTO vc.readers VALUES ('strong', NULL)"),
        ("DELETE FROM vc.readers", "DROP OWNED BY strong", "DROP ROLE strong"),
        "warning",
        "'strong' can do more than read: can create databases",
    ),
)


@pytest.fixture(scope="module", autouse=True)
def saved(well: Clinic) -> None:
    """Note the revision, to which cases return."""
    well.run("CREATE TABLE public.saved AS SELECT version_num AS saved FROM vc.alembic_version")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.check}: {case.text}")
def test_what_an_administrator_has_done(well: Clinic, case: Case) -> None:
    """Each disorder is found as long as it lasts."""
    url = superuser(well) if case.as_superuser else well.settings.database
    assert case.text not in well.one(case.check, database=url).observed
    try:
        well.run(*case.begin)
        finding = well.one(case.check, database=url)
    finally:
        well.run(*case.end)
    assert (finding.verdict, case.text in finding.observed) == (case.verdict, True), finding
    assert (finding.advice is not None) == (case.verdict != "ok")
    assert "hidden" not in finding.observed
    assert case.text not in well.one(case.check, database=url).observed


def until(well: Clinic, check: str, verdict: str, then: str) -> str:
    """Wait until a check has a verdict, as settings are reloaded in the background; run `then` meanwhile."""
    deadline = time.monotonic() + PATIENCE
    well.run(then)
    while (finding := well.one(check)).verdict != verdict:
        assert time.monotonic() < deadline, finding
        time.sleep(0.1)
        well.run(then)
    return finding.observed


SWITCH = "SELECT pg_logical_emit_message(true, '', ''), pg_switch_wal()"
"""Has the server archive a file; one before may have been archived by the setting of before."""
RELOADED = (
    ("synchronous-standbys", "synchronous_standby_names = 'nobody'", "SELECT 1", "none is connected"),
    ("archiving", "archive_command = 'false'", SWITCH, "archiving fails at"),
    ("durability", "full_page_writes = off", "SELECT 1", "full_page_writes is off"),
)


@pytest.mark.parametrize(("check", "setting", "then", "text"), RELOADED, ids=lambda value: value)
def test_what_the_configuration_has(well: Clinic, check: str, setting: str, then: str, text: str) -> None:
    """A setting of the whole server is noticed once it is reloaded, and once it is reset."""
    name = setting.partition(" ")[0]
    well.run(f"ALTER SYSTEM SET {setting}", "SELECT pg_reload_conf()")
    try:
        assert text in until(well, check, "problem", then)
    finally:
        old = f"SET {name} = {WELL[name]}" if name in WELL else f"RESET {name}"
        well.run(f"ALTER SYSTEM {old}", "SELECT pg_reload_conf()")
    until(well, check, "ok", then)


def test_what_holds_back_vacuum(well: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old transactions and prepared ones are named; a hostile name of a session is escaped."""
    monkeypatch.setattr(upkeep, "_HELD", 0.0)
    with psycopg.connect(well.settings.database or "", application_name="dump\x1b[2J") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1")
        finding = well.one("vacuum-holders")
        assert (finding.verdict, "the transaction of dump" in finding.observed) == ("warning", True)
        assert finding.observed.isprintable()
    well.run("BEGIN; CREATE TABLE public.left_over (); PREPARE TRANSACTION 'left over'")
    finding = well.one("vacuum-holders")
    well.run("ROLLBACK PREPARED 'left over'")
    assert "the prepared transaction left over" in finding.observed
    monkeypatch.undo()
    assert well.one("vacuum-holders").verdict == "ok"


def test_a_queue_of_notifications_that_fills_up(well: Clinic) -> None:
    """A session that listens and does not end its transaction is what the advice speaks of."""
    if well.value("SELECT current_setting('max_notify_queue_pages', true)") is None:
        pytest.skip("the queue of this server cannot be made small")
    with psycopg.connect(well.settings.database or "") as listener:
        listener.execute("LISTEN something")
        listener.commit()
        listener.execute("SELECT 1")
        for number in range(5):
            well.run(
                f"SELECT count(pg_notify('something', rpad(n::text, 7000, '{number}'))) "
                "FROM generate_series(1, 10) AS n"
            )
        finding = well.one("notifications")
    assert finding.verdict == "warning"
    assert finding.observed.startswith("the queue of notifications is ")


def test_an_index_that_was_not_finished(well: Clinic) -> None:
    """An index whose creation failed stays, and is found."""
    with pytest.raises(psycopg.errors.UniqueViolation):
        well.run("CREATE UNIQUE INDEX CONCURRENTLY broken ON vc.blocks ((block_id / 2))")
    finding = well.one("indexes")
    well.run("DROP INDEX vc.broken")
    assert (finding.verdict, finding.observed) == ("problem", "invalid: vc.broken")


def test_the_space_on_the_disk(well: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small disk is a warning, a full one a problem; so is one that lasts for days only."""

    def judged(free: float) -> tuple[str, str]:
        monkeypatch.setattr(
            "virtualchain.operating.doctor.upkeep.shutil.disk_usage",
            lambda _: SimpleNamespace(free=int(free)),
        )
        finding = well.one("disk")
        return finding.verdict, finding.observed

    assert judged(5e9)[0] == "ok"
    assert judged(5e8)[0] == "warning"
    assert judged(1e8)[0] == "problem"
    size = float(well.value("SELECT pg_database_size('virtualchain')"))
    well.run(
        "INSERT INTO vc.progress (at, block_id, inputs, ops, rejections) "
        "VALUES (now() - interval '12 hours', 0, 0, 0, 0), (now(), 0, 60, 40, 0)",
        "ANALYZE vc.blocks, vc.inputs, vc.ops, vc.rejections",
    )
    monkeypatch.setattr(upkeep, "_LITTLE", 0)
    monkeypatch.setattr(upkeep, "_NEXT_TO_NOTHING", 0)
    entries = sum(well.value(f"SELECT count(*) FROM vc.{table}") for table in ("blocks", "inputs", "ops"))
    a_day = 200 / entries * size
    for days, verdict in ((100, "ok"), (20, "warning"), (2, "problem")):
        judgment, text = judged(days * a_day * 1.001)
        assert (judgment, f"enough for {days} days" in text) == (verdict, True), text
    well.run("DELETE FROM vc.progress")


def test_old_rows(well: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """The age of the oldest rows is compared with what the server can bear."""
    assert well.one("transaction-ids").verdict == "ok"
    monkeypatch.setattr(upkeep, "_OLDEST", 10)
    assert well.one("transaction-ids").verdict == "problem"


def test_backups_that_pgbackrest_lists(well: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of pgBackRest's stanzas, the one of this server counts; what it prints may be anything."""
    identifier = well.value("SELECT system_identifier::text FROM pg_control_system()")
    program = tmp_path / "pgbackrest"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def judge(stanza: str) -> tuple[str, str]:
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{stanza}\nEND\n")
        program.chmod(0o755)
        finding = well.one("backups")
        return finding.verdict, finding.observed

    def stanza(stop: object, system: object = identifier) -> str:
        backup = f'{{"timestamp": {{"stop": {stop}}}}}'
        return f'[{{"name": "main", "db": [{{"system-id": {system}}}], "backup": [{backup}]}}]'

    now = int(time.time())
    assert judge(stanza(now - 7200)) == ("ok", "pgBackRest finished the last backup 2 hours ago")
    assert judge(stanza(now - 9 * 86400))[0] == "warning"
    assert judge(stanza('"soon"'))[0] == "problem"
    assert judge(stanza(now, 1))[0] == "skipped"
    for garbage in ("", "[]", "[1]", '[{"db": [1]}]', '[{"db": 1}]', "{", "[" * 5000):
        assert judge(garbage)[0] == "skipped", garbage


def test_a_standby(well: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a standby is ok while it follows; one that lags or is cut off is named, here and there."""
    versions = installations()
    with reachable_folder() as folder:
        standby = standby_of(well.server, versions[max(versions)], folder)
        there = Clinic(standby, replace(well.settings, database=standby.start()))
        try:
            assert not_ok(there.all(), besides=["durability", "autovacuum"]) == {}
            assert "1 connected" in well.one("replication", database=superuser(well)).observed
            assert well.one("replication").verdict == "skipped"
            there.run("SELECT pg_wal_replay_pause()")
            well.run("CREATE TABLE public.more ()", "DROP TABLE public.more")
            monkeypatch.setattr(upkeep, "_LAG_BYTES", 0)
            deadline = time.monotonic() + PATIENCE
            while well.one("replication", database=superuser(well)).verdict != "warning":
                assert time.monotonic() < deadline
            assert "this standby lags" in until(there, "replication", "warning", "SELECT 1")
            there.run(
                "SELECT pg_wal_replay_resume()",
                "ALTER SYSTEM SET primary_conninfo = ''",
                "SELECT pg_reload_conf()",
            )
            deadline = time.monotonic() + PATIENCE
            while "not connected" not in there.one("replication").observed:
                assert time.monotonic() < deadline
        finally:
            standby.stop()


def superuser(clinic: Clinic) -> str:
    """Return the superuser's URL."""
    assert clinic.settings.database is not None
    return login_of(clinic.settings.database, "postgres", clinic.server._password("postgres"))


def test_other_locales(sick: Clinic) -> None:
    """Another locale is named, and a collation that has changed since."""
    sick.run(
        "CREATE DATABASE elsewhere TEMPLATE template0 LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'und'",
    )
    url = sick.server.url_for("elsewhere")
    finding = sick.one("locale", database=url)
    assert (finding.verdict, "ICU" in finding.observed) == ("warning", True)
    sick.run("UPDATE pg_database SET datcollversion = '1' WHERE datname = 'elsewhere'")
    finding = sick.one("locale", database=url)
    assert (finding.verdict, "was version 1" in finding.observed) == ("problem", True)


def test_clocks_connections_and_versions(well: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no server on this machine can show: clocks that differ, a network in between, other versions."""
    today = date(2026, 1, 1)
    assert server_checks.judge_version(18, "18", today).verdict == "ok"
    assert server_checks.judge_version(15, "15", date(2027, 11, 12)).verdict == "warning"
    assert server_checks.judge_version(19, "19", today).verdict == "warning"
    monkeypatch.setattr(server_checks, "is_local", lambda _: False)
    assert well.one("database-encryption").verdict == "warning"
    monkeypatch.undo()
    assert [server_checks.is_local(host) for host in ("", "/run", "::1", "127.9.9.9")] == [True] * 4
    assert not any(server_checks.is_local(host) for host in ("10.0.0.1", "db.example.com", "::2"))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 60)
    assert "60.0 s" in well.one("server-clock").observed


def test_a_pooler(well: Clinic) -> None:
    """Through a pooler that shares sessions, every check has its verdict, and only the pooler is named."""
    with pooled(well.settings.database or "", "transaction") as url:
        assert [*not_ok(well.all(database=url))] == ["pooler"]


def test_users_with_fewer_rights(well: Clinic) -> None:
    """A reader and a user without any rights are shown what they may see; the rest is skipped."""
    url = well.settings.database or ""
    with well.server.connect_superuser("virtualchain") as connection, connection.transaction():
        reader = grant_reader(connection, "analyst", None, login=True)
        connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
    try:
        assert well.one("roles").verdict == "ok"
        findings = well.all(database=login_of(url, "analyst", reader.password or ""))
        assert not_ok(findings) == {}
        assert findings["writer"].verdict == findings["lag"].verdict == "ok"
        findings = well.all(database=login_of(url, "stranger", "stranger"))
        assert not_ok(findings) == {}
        assert findings["durability"].verdict == "ok"
        assert "may not see this" in findings["writer"].observed
    finally:
        well.run("DELETE FROM vc.readers", "DROP OWNED BY analyst", "DROP ROLE analyst", "DROP ROLE stranger")


def test_databases_without_a_deployment(well: Clinic, sick: Clinic) -> None:
    """An empty database, and somebody else's, are examined; a database that is not there is one problem."""
    well.run("CREATE DATABASE theirs", database="postgres")
    well.run("CREATE SCHEMA vc", "CREATE TABLE vc.apps (a text)", database="theirs")
    url = well.server.url_for("theirs")
    findings = well.all(database=url)
    assert [*not_ok(findings)] == ["schema"]
    well.run("DROP DATABASE theirs", database="postgres")
    with closing(psycopg.connect(well.settings.database or "")) as connection:
        secret = connection.info.password
    for broken in (url, url.replace(secret, "hunter2"), url.replace("127.0.0.1", "127.0.0.1.invalid")):
        findings = well.all(database=broken)
        assert [*not_ok(findings)] == ["database"]
        assert not any(word in repr(findings) for word in (secret, "hunter2"))


def test_every_check_is_described() -> None:
    """The page has every check under its name, in order, and no other."""
    page = (Path(__file__).parents[3] / "docs" / "doctor.md").read_text(encoding="utf-8")
    headings = [line.removeprefix("### ") for line in page.splitlines() if line.startswith("### ")]
    assert headings == [*CHECKS]

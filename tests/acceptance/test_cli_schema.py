"""Databases with an older or a newer schema: each command has one line for them, and exit code 3."""

import json
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from alembic import command
from sqlalchemy import create_engine, pool

from tests.acceptance.conftest import Inside, check_one_line, mine_notes, notes
from tests.integration.reading.test_readers import grant
from tests.support.schema_dumps import restore
from virtualchain.cli import session
from virtualchain.cli.progress import Reporter
from virtualchain.engine.measures import Measures
from virtualchain.errors import InUse
from virtualchain.store import giving_way, migrate
from virtualchain.store.database import connect_migrator
from virtualchain.store.patience import Patience
from virtualchain.store.revision import head, known
from virtualchain.testing import FakeNode

APP = ("--app", "apps:notes")
FIRST = known()[0]
READING = (
    *(("status",), ("ops",), ("ops", "--rejected"), ("consensus",), ("consensus", "1"), ("watch",)),
    *(("watch", "--from", "1"), ("sql", "SELECT 1"), ("sql", "--as-of", "1", "SELECT * FROM blocks")),
    *(("compare", "notes", "v2"), ("export", "there"), ("checkpoint", "create", "notes")),
    *(("resume", "notes"), ("db", "revoke-reader", "somebody")),
)
WRITING = (
    ("sync", *APP),
    ("swap", "notes", "v2"),
    ("drop", "notes", "v2"),
    ("remove", "notes"),
    ("migrate",),
)


def at_revision(url: str, revision: str) -> None:
    """Migrate an empty database to an earlier revision."""
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connect_migrator(url), poolclass=pool.NullPool
    )
    with pytest.MonkeyPatch.context() as patch, engine.connect() as connection:
        patch.setattr("virtualchain.store.builds.refresh_views", lambda _: None)
        config = migrate.alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
    engine.dispose()


@pytest.mark.parametrize("revision", known()[:-1])
def test_an_older_schema_is_not_read(inside: Inside, empty_database_url: str, revision: str) -> None:
    """The line has both revisions, and what to do."""
    at_revision(empty_database_url, revision)
    for arguments in READING if revision in {FIRST, known()[-2]} else (("status",), ("sql", "SELECT 1")):
        done = inside(*arguments, "--database", empty_database_url, code=3)
        check_one_line(done, f"schema ({revision}) is older than this virtualchain ({head()})")
        assert "run `virtualchain migrate`" in done.err


def test_writing_upgrades_an_older_schema(
    inside: Inside, fake_node: FakeNode, empty_database_url: str, options: tuple[str, ...]
) -> None:
    """Commands that write do not ask for it: they migrate."""
    at_revision(empty_database_url, FIRST)
    there = ("--database", empty_database_url)
    assert "app notes is not installed" in inside(*APP, "upgrade", "notes", *there, code=2).err
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT * FROM vc.alembic_version").fetchall() == [(head(),)]
    assert "this database has no tape yet" in inside(*APP, "advance", *there, code=2).err
    mine_notes(fake_node, "one")
    inside(*APP, *options, "sync", *there)
    assert notes(empty_database_url) == ["one"]


def test_an_upgrade_says_how_long_it_may_take(inside: Inside, empty_database_url: str) -> None:
    """`migrate --dry-run` lists the steps and changes nothing; `migrate` says it before it begins."""
    restore("0009", empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        rows = "INSERT INTO vc.inputs SELECT (jsonb_populate_record(i, jsonb_build_object('txindex', n))).* "
        rows += "FROM vc.inputs AS i, generate_series(100, 1099) AS n WHERE i.block_id = 12 AND i.txindex = 1"
        connection.execute(rows.encode())
    here = ("--database", empty_database_url)
    planned = json.loads(inside(*here, "--json", "migrate", "--dry-run").out)
    assert planned["revision"] == "0009"
    revisions = [step["revision"] for step in planned["steps"]]
    assert (revisions[0], revisions[-1]) == ("0010", head())
    assert planned["steps"][0]["locks"] == ["vc.inputs", "virtualchain.inputs"]
    assert 1000 < planned["steps"][0]["rows"]["vc.inputs"] < 9000
    text = inside(*here, "migrate", "--dry-run").out
    assert f"upgrading the schema from 0009 to {head()}: about a second; readers of apps, " in text
    assert "upgrading the schema from 0009" in inside(*here, "migrate").err
    assert inside(*here, "migrate").err == ""
    assert "is at revision" in inside(*here, "migrate", "--dry-run").out


def test_a_reader_in_the_way_of_an_upgrade_is_named_at_once(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported before the first new attempt; `run` starts once the reader is gone."""
    monkeypatch.setattr(giving_way, "_TRIES", 2)
    monkeypatch.setattr(session, "_PAUSES", (0.0,))
    at_revision(empty_database_url, FIRST)
    reasons: list[str] = []
    with psycopg.connect(empty_database_url, application_name="a dashboard") as reader:
        reader.execute("SELECT * FROM vc.apps")
        with pytest.raises(InUse):
            migrate.migrate(empty_database_url, Patience(reasons.append))
        assert len(reasons) == 2
        assert reasons[0].startswith(f"upgrading the schema from {FIRST} to {head()}: about a second")
        assert "in use by a dashboard (server process" in reasons[1]

        def attempt() -> str:
            try:
                return migrate.migrate(empty_database_url)
            finally:
                reader.rollback()

        with Reporter() as reporter:
            assert session._patiently(attempt, reporter, Measures()) == head()


def test_a_newer_schema_is_neither_read_nor_written(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """Every command says so, also those that write."""
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE vc.alembic_version SET version_num = '9999'")
    for arguments in READING + WRITING:
        done = inside(*arguments, *options, code=3)
        check_one_line(
            done, f"schema (9999) is newer than this virtualchain ({head()}): upgrade virtualchain"
        )


@pytest.fixture
def reader_url(database_url: str) -> str:
    """Return the URL of a reader of all apps."""
    parts = urlsplit(database_url)
    role = f"{parts.path[1:]}:analyst"
    made = grant(database_url, role, login=True)
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{quote(role, safe='')}:{made.password}@{place}").geturl()


def test_a_reader_is_told_as_well(inside: Inside, database_url: str, reader_url: str) -> None:
    """Although a reader cannot see the engine's own schema, another one than expected is noticed."""
    reading = (("status",), ("ops",), ("watch",), ("sql", "SELECT 1"))
    for arguments in (("ops",), ("sql", "SELECT 1")):
        inside(*arguments, "--database", reader_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE vc.alembic_version SET version_num = '9999'")
    for arguments in reading:
        check_one_line(inside(*arguments, "--database", reader_url, code=3), "schema (9999) is newer")
    with psycopg.connect(database_url) as connection:
        connection.execute("DROP FUNCTION virtualchain.revision()")
    for arguments in reading:
        done = inside(*arguments, "--database", reader_url, code=3)
        check_one_line(done, f"schema is older than this virtualchain ({head()})")

"""Attacks with the role of a reader: it reads the views that it was granted, and nothing else."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg import sql

from tests.integration.conftest import Rows
from tests.support.moving import an_app, story
from tests.support.servers import value
from virtualchain import StateEngine
from virtualchain.errors import StoreError, UsageError
from virtualchain.store.builds import remove_app
from virtualchain.store.database import connect_migrator
from virtualchain.store.migrate import migrate
from virtualchain.store.roles import Reader, grant_reader, revoke_reader
from virtualchain.testing import FakeNode

Run = Callable[..., int]
Query = Callable[..., Rows]
Grant = Callable[..., str]


@pytest.fixture
def role(database_url: str) -> str:
    """Return the name of a role that is removed with the test's database."""
    return f"{urlsplit(database_url).path[1:]}:reader"


def grant(url: str, role: str, *apps: str, login: bool = False) -> Reader:
    """Grant as the command `db grant-reader` does."""
    with connect_migrator(url) as connection:
        return grant_reader(connection, role, apps or None, login=login)


@pytest.fixture
def granted(database_url: str, role: str) -> Grant:
    """Return a function that creates a reader of some apps, or of all, and returns its URL."""

    def make(*apps: str) -> str:
        reader = grant(database_url, role, *apps, login=True)
        parts = urlsplit(database_url)
        place = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{quote(role, safe='')}:{reader.password}@{place}").geturl()

    return make


@pytest.fixture
def reader(fake_node: FakeNode, run: Run, granted: Grant) -> Iterator[psycopg.Connection]:
    """Return a session of a reader of app `one`, in a deployment that also has app `two`."""
    story(fake_node, 1, 12)
    run(an_app("one"), an_app("two"))
    with psycopg.connect(granted("one"), autocommit=True) as connection:
        yield connection


READS = (
    "SELECT * FROM one.marks",
    "SELECT * FROM one.owners JOIN one.marks USING (name)",
    "SELECT * FROM virtualchain.blocks",
    "SELECT * FROM virtualchain.inputs",
    "SELECT * FROM virtualchain.ops",
    "SELECT * FROM virtualchain.snapshots",
    "SELECT * FROM virtualchain.apps",
    "SELECT * FROM virtualchain.changes",
    "SELECT * FROM virtualchain.builds",
)
FUNCTIONS = (
    "SELECT virtualchain.revision()",
    "SELECT virtualchain.script_of('bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4')",
)


def test_a_reader_reads_its_views_at_any_block(reader: psycopg.Connection) -> None:
    """It reads the views that it was granted, now and as of a block, including the functions in them."""
    tip = reader.execute(
        "SELECT max(block_id), max(hash) FILTER (WHERE block_id = 110) FROM virtualchain.blocks"
    )
    last, block_hash = tip.fetchone() or (0, "")
    for asked in ("", str(last), "110", block_hash):
        reader.execute("SELECT set_config('virtualchain.as_of', %s, false)", [asked])
        for statement in READS:
            assert reader.execute(statement.encode()).fetchall(), (asked, statement)
    reader.execute("SET virtualchain.as_of = '999999'")
    with pytest.raises(psycopg.Error, match="block 999999 is not here"):
        reader.execute("SELECT * FROM one.marks")


ATTACKS = (
    "SELECT * FROM vc.ops",
    "SELECT * FROM vc.apps",
    "SELECT * FROM vc.readers",
    "SELECT * FROM vc.alembic_version",
    "SELECT * FROM one__1.marks",
    "SELECT * FROM one__1.marks_history",
    "SELECT * FROM two.marks",
    "SELECT * FROM two__1.marks",
    "TABLE pg_catalog.pg_authid",
    "SELECT rolpassword FROM pg_catalog.pg_authid",
    "INSERT INTO one.marks VALUES (1, 'a')",
    "UPDATE one.marks SET note = 'mine'",
    "DELETE FROM one.marks",
    "SET virtualchain.block_id = '110'; UPDATE one.marks SET note = 'mine'",
    "SET virtualchain.block_id = '110'; DELETE FROM one__1.marks",
    "SET virtualchain.block_id = 'undo'; DELETE FROM one.marks",
    "DELETE FROM virtualchain.blocks",
    "INSERT INTO virtualchain.blocks (block_id) VALUES (1)",
    "TRUNCATE one.marks",
    "BEGIN; LOCK TABLE one.marks IN ACCESS EXCLUSIVE MODE",
    "BEGIN; LOCK TABLE one.marks IN ROW EXCLUSIVE MODE",
    "BEGIN; LOCK TABLE one__1.marks IN ACCESS SHARE MODE",
    "SELECT vc.as_of('one')",
    "SELECT vc.as_of_block('110', 'one')",
    "SELECT vc.outputs(raw, 'regtest') FROM virtualchain.inputs",
    "SELECT * FROM vc.changes('two', 'marks', 110)",
    "SELECT vc.consensus_hash('one', '1', 110)",
    "SELECT vc.role_of('one')",
    "CREATE TABLE mine (a integer)",
    "CREATE TABLE public.mine (a integer)",
    "CREATE TABLE virtualchain.mine (a integer)",
    "CREATE TABLE one.mine (a integer)",
    "CREATE TEMP TABLE mine (a integer)",
    "CREATE TEMP VIEW mine AS SELECT 1",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION public.f() RETURNS integer LANGUAGE sql RETURN 1",
    "CREATE ROLE another",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('.')",
    "COPY (SELECT 1) TO '/tmp/mine'",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT lo_import('/etc/passwd')",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'virtualchain'",
    "SELECT pg_reload_conf()",
    "ALTER SYSTEM SET work_mem = '1GB'",
    "SET session_replication_role = 'replica'",
    "SET ROLE virtualchain",
    "SET SESSION AUTHORIZATION virtualchain",
    "SELECT set_config('role', 'virtualchain', false)",
    "ALTER VIEW one.marks RENAME TO other",
    "DROP VIEW one.marks",
    "COMMENT ON VIEW one.marks IS 'mine'",
    "CREATE RULE r AS ON INSERT TO one.marks DO INSTEAD NOTHING",
    "CREATE TRIGGER t INSTEAD OF INSERT ON one.marks FOR EACH ROW EXECUTE FUNCTION vc.guard_block()",
    "REFRESH MATERIALIZED VIEW one.marks",
)


@pytest.mark.parametrize("statement", ATTACKS)
def test_everything_else_is_refused(attacked: psycopg.Connection, statement: str) -> None:
    """Other rows, writes, the engine's functions, files and roles are refused, even read-write."""
    attacked.execute("SET default_transaction_read_only = off")
    with pytest.raises(psycopg.errors.DatabaseError) as refused:
        attacked.execute(statement.encode())
    assert refused.value.sqlstate in {"42501", "42809", "55000", "22023"}, refused.value
    attacked.rollback()


@pytest.fixture(scope="module")
def attacked(database_server: Any) -> Iterator[psycopg.Connection]:
    """Return a reader's session that all attacks share, as none leaves anything behind."""
    url = database_server.clone()
    node = FakeNode()
    story(node, 1, 12)
    from virtualchain import StateEngine

    with StateEngine(an_app("one"), an_app("two"), database=url, source=node.url, confirmations=0) as engine:
        engine.build()
    name = f"{urlsplit(url).path[1:]}:reader"
    made = grant(url, name, "one", login=True)
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    mine = parts._replace(netloc=f"{quote(name, safe='')}:{made.password}@{place}").geturl()
    with psycopg.connect(mine, autocommit=True) as connection, psycopg.connect(url):
        yield connection
    node.close()
    database_server.drop(url)


def test_changes_show_only_what_may_be_read(reader: psycopg.Connection, query: Query) -> None:
    """A reader sees no changes of an app that it was not granted."""
    assert {row["app"] for row in query("SELECT app FROM virtualchain.changes")} == {"one", "two"}
    assert reader.execute("SELECT DISTINCT app FROM virtualchain.changes").fetchall() == [("one",)]


def test_reading_is_all_that_a_transaction_may_do(reader: psycopg.Connection) -> None:
    """A reader's transactions are read-only by default."""
    assert reader.execute("SHOW default_transaction_read_only").fetchone() == ("on",)


def test_remaining_rights_are_reported(database_url: str, role: str) -> None:
    """Rights that our role cannot revoke are reported, such as large objects, which are a superuser's."""
    remains = grant(database_url, role).remains
    assert "create temporary tables" not in remains
    assert "create objects in schema public" not in remains
    assert "create large objects" in remains
    assert any("system catalogs" in item for item in remains)


def test_reducers_get_no_temporary_tables(
    fake_node: FakeNode, run: Run, query: Query, database_url: str, role: str
) -> None:
    """Granting a reader leaves the apps' roles without them: no reducer can make one."""
    run(an_app())
    grant(database_url, role)
    granted = query(
        "SELECT has_database_privilege(role, current_database(), 'TEMPORARY') AS may FROM virtualchain.apps"
    )
    assert granted == [{"may": False}]


def test_grants_last_and_follow(
    fake_node: FakeNode, run: Run, granted: Grant, database_url: str, role: str
) -> None:
    """A reader of all apps reads apps that are installed later, and builds that replace others."""
    story(fake_node, 1, 30)
    run(an_app("one"), history=5)
    url = granted()
    assert value(url, "SELECT count(*) FROM one.marks")
    fake_node.reorg(12)
    run(an_app("one"), an_app("two"), history=5)
    assert value(database_url, "SELECT build FROM virtualchain.apps WHERE name = 'one'") == "2"
    assert value(url, "SELECT count(*) FROM one.marks") is not None
    assert value(url, "SELECT count(*) FROM two.marks") is not None


def test_a_reader_of_one_app_reads_no_later_one(fake_node: FakeNode, run: Run, granted: Grant) -> None:
    """Named apps add up; nothing else is granted automatically."""
    run(an_app("one"))
    url = granted("one")
    run(an_app("one"), an_app("two"), an_app("three"))
    for app in ("two", "three"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            value(url, f"SELECT count(*) FROM {app}.marks")
    url = granted("three")
    assert value(url, "SELECT count(*) FROM three.marks") == 0
    assert value(url, "SELECT count(*) FROM one.marks") == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        value(url, "SELECT count(*) FROM two.marks")


def test_removing_an_app_revokes_its_grants(
    fake_node: FakeNode, run: Run, granted: Grant, database_url: str
) -> None:
    """A later app of the same name is not granted."""
    run(an_app("one"), an_app("two"))
    url = granted("one", "two")
    with connect_migrator(database_url) as connection:
        remove_app(connection, "one")
    run(an_app("one"), an_app("two"))
    assert value(url, "SELECT count(*) FROM two.marks") == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        value(url, "SELECT count(*) FROM one.marks")


def test_new_columns_are_granted_too(
    fake_node: FakeNode, run: Run, granted: Grant, database_url: str
) -> None:
    """A view whose columns changed is a new view, with the grants of the old one."""
    from virtualchain.store.projections import Projection
    from virtualchain.store.publish import publish

    run(an_app("one"))
    url = granted("one")
    with connect_migrator(database_url) as connection:
        marks = Projection("one__1", "marks", ("place", "note"), ("place",))
        publish(connection, "one", "one", [replace(marks, columns=("note", "place"))])
    assert value(url, "SELECT count(note) FROM one.marks") == 0
    with pytest.raises(psycopg.errors.UndefinedTable):
        value(url, "SELECT count(*) FROM one.owners")
    migrate(database_url)
    assert value(url, "SELECT count(*) FROM one.owners") == 0


def test_a_revoked_reader_reads_nothing(
    fake_node: FakeNode, run: Run, granted: Grant, database_url: str, role: str
) -> None:
    """Neither a later migration nor a later app grants it anything again."""
    run(an_app("one"))
    url = granted()
    with connect_migrator(database_url) as connection:
        revoke_reader(connection, role)
    run(an_app("one"), an_app("two"))
    for view in ("one.marks", "two.marks", "virtualchain.blocks"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            value(url, f"SELECT count(*) FROM {view}")
    with (
        connect_migrator(database_url) as connection,
        pytest.raises(UsageError, match="is not a reader of this deployment"),
    ):
        revoke_reader(connection, role)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("virtualchain", "can create roles"),
        ("postgres", "is a superuser"),
        ("pg_mine", "a role cannot be named pg_mine"),
    ],
)
def test_a_role_with_more_rights_is_refused(database_url: str, name: str, message: str) -> None:
    """A role that can do more than a reader is refused."""
    with pytest.raises(UsageError, match=message):
        grant(database_url, name)


def test_without_createrole_the_role_must_exist(database_url: str, role: str, query: Query) -> None:
    """The message says what an administrator can do."""
    with connect_migrator(database_url) as connection:
        connection.execute("CREATE ROLE powerless NOLOGIN")
        connection.execute(f"GRANT ALL ON DATABASE {urlsplit(database_url).path[1:]} TO powerless".encode())
        connection.execute(
            "GRANT ALL ON SCHEMA vc TO powerless; GRANT ALL ON ALL TABLES IN SCHEMA vc TO powerless"
        )
        connection.execute("GRANT powerless TO CURRENT_USER; SET ROLE powerless")
        with pytest.raises(StoreError, match="may not create the role"):
            grant_reader(connection, role, None, login=False)
        connection.rollback()


def test_functions_that_views_call_are_granted(
    empty_database_url: str, fake_node: FakeNode, role: str
) -> None:
    """An administrator may have revoked EXECUTE on new functions from everyone; a revoked reader loses it."""
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    story(fake_node, 1, 3)
    with StateEngine(
        an_app("one"), database=empty_database_url, source=fake_node.url, confirmations=0
    ) as engine:
        last = engine.build()
    reader = grant(empty_database_url, role, login=True)
    parts = urlsplit(empty_database_url)
    place = parts.netloc.rpartition("@")[2]
    url = parts._replace(netloc=f"{quote(role, safe='')}:{reader.password}@{place}").geturl()
    with psycopg.connect(url) as connection:
        for asked in ("", str(last - 1)):
            connection.execute("SELECT set_config('virtualchain.as_of', %s, false)", [asked])
            for read in (*READS[2:], "SELECT * FROM one.marks", *FUNCTIONS):
                connection.execute(read.encode())
    with connect_migrator(empty_database_url) as connection:
        revoke_reader(connection, role)
        rights = connection.execute(
            "SELECT has_function_privilege(%s, 'vc.as_of(text)', 'EXECUTE'), "
            "has_function_privilege(%s, 'virtualchain.script_of(text)', 'EXECUTE')",
            [role, role],
        ).fetchone()
    assert rights == (False, False)


def test_a_restored_copy_is_hardened_by_the_next_migration(
    granted: Grant, database_url: str, query: Query, role: str
) -> None:
    """A dump does not hold what was revoked in the database itself; the next command that writes does it."""
    granted()
    with psycopg.connect(database_url) as connection:
        name = sql.Identifier(urlsplit(database_url).path[1:])
        connection.execute(sql.SQL("GRANT TEMPORARY ON DATABASE {} TO PUBLIC").format(name))
    may = "SELECT has_database_privilege(%s, current_database(), 'TEMPORARY') AS may"
    assert query(may, [role]) == [{"may": True}]
    migrate(database_url)
    assert query(may, [role]) == [{"may": False}]

"""A deployment of 0.1.0 is upgraded in place, and then is like a new one."""

import re
from contextlib import closing
from typing import LiteralString
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.integration.store.test_migrations import described
from tests.support.old_schema import upgrade_to
from virtualchain import App
from virtualchain.app.declarations import read_contract
from virtualchain.errors import InUse
from virtualchain.store import migrate as migrations
from virtualchain.store.builds import add_build, register
from virtualchain.store.database import connect_writer
from virtualchain.store.revision import head

TABLES = """
    CREATE TABLE first (a text, b numeric, c int[], block int, PRIMARY KEY (a, b), UNIQUE (c));
    CREATE TABLE "se""cond %s" ("new" text, r int PRIMARY KEY);
    CREATE INDEX ON "se""cond %s" (lower("new")) WHERE r > 0;
"""
# The function of 0.1.0, as it was installed for each projection.
BEFORE: LiteralString = """
CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    block CONSTANT integer := vc.writing_block(TG_RELID);
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.since_block < block THEN
        INSERT INTO {history} VALUES (OLD.*, block);
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    NEW.since_block := block;
    IF TG_OP = 'INSERT' OR OLD.since_block < block OR ({old}) IS DISTINCT FROM ({new}) THEN
        INSERT INTO {births} VALUES (block, {new});
    END IF;
    RETURN NEW;
END;
$body$"""
FUNCTIONS: LiteralString = """
SELECT oid::regprocedure::text, pg_get_functiondef(oid), obj_description(oid, 'pg_proc') FROM pg_proc
WHERE pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname LIKE 'kept%') ORDER BY 1
"""


def app() -> App:
    """Return an app with two projections."""
    made = App("kept", magic=b"kp", projections=TABLES)
    made.add(b"o", parse=lambda payload: {"text": payload.decode()})
    return made


def install(url: str) -> None:
    """Install the app, with a second build beside the live one."""
    with closing(connect_writer(url)) as writer:
        contract = read_contract(app())
        with writer.transaction():
            register(writer, contract)
        with writer.transaction():
            add_build(writer, contract, "v2")


def functions(url: str) -> list[tuple[str, str, str]]:
    """Read the functions of the app's triggers."""
    with psycopg.connect(url) as connection:
        return connection.execute(FUNCTIONS).fetchall()


@pytest.fixture
def old_url(empty_database_url: str) -> str:
    """Make a deployment of 0.1.0 with the app, and with a checkpoint."""
    url = empty_database_url
    upgrade_to(url, "0003")
    # Which the code that installs has had only since 0005, 0011 and 0015 to 0017.
    columns = ("code_digest", "last_code_digest", "tracking")
    with psycopg.connect(url) as writer:
        for column in columns:
            writer.execute(f"ALTER TABLE vc.apps ADD COLUMN {column} bytea".encode())
        writer.execute("ALTER TABLE vc.apps ADD COLUMN serial bigint GENERATED ALWAYS AS IDENTITY")
        writer.execute("ALTER TABLE vc.apps ADD COLUMN tracking_from integer")
        writer.execute(
            "CREATE FUNCTION vc.as_of(app text, bigint) RETURNS integer LANGUAGE sql RETURN vc.as_of(app)"
        )
        writer.execute("CREATE TABLE vc.pending_views (schema text, name text)")
        writer.execute("ALTER TABLE vc.published ADD COLUMN versions text")
        writer.execute(
            "CREATE FUNCTION vc.newest_blocks(text, text, text[], integer) RETURNS integer "
            "LANGUAGE sql RETURN 1"
        )
    install(url)
    with psycopg.connect(url) as writer:
        writer.execute("DROP TABLE vc.pending_views")
        writer.execute("ALTER TABLE vc.published DROP COLUMN versions")
        writer.execute("DROP FUNCTION vc.newest_blocks(text, text, text[], integer)")
        # The views of 0.1.0 did not look for their build.
        for name, definition in writer.execute("SELECT name, definition FROM vc.published").fetchall():
            former = re.sub(r"vc\.as_of\('kept', \d+\)", "vc.as_of('kept')", definition)
            assert former != definition
            writer.execute(former.encode())
            writer.execute("UPDATE vc.published SET definition = %s WHERE name = %s", [former, name])
        writer.execute("DROP FUNCTION vc.as_of(text, bigint)")
        for column in (*columns, "serial", "tracking_from"):
            writer.execute(f"ALTER TABLE vc.apps DROP COLUMN {column}".encode())
        for build in ("1", "v2"):
            for table, old, new in (
                ("first", "OLD.a, OLD.b", "NEW.a, NEW.b"),
                ('se""cond %s', "OLD.r", "NEW.r"),
            ):
                names = {
                    key: f'kept__{build}."{table}_{suffix}"'
                    for key, suffix in (("name", "keep"), ("history", "history"), ("births", "births"))
                }
                writer.execute(BEFORE.format(old=old, new=new, **names).encode())
        # Versions before 0.1.0 recorded a key once a block.
        writer.execute("DROP INDEX kept__v2.first_births_since_block_idx")
        writer.execute("ALTER TABLE kept__v2.first_births ADD PRIMARY KEY (since_block, a, b)")
        writer.execute("""
            INSERT INTO vc.checkpoints (app, build, block_id, network, block_hash, consensus_hash, state_hash,
                is_migration, signers)
            VALUES ('kept', '1', 5, 'regtest', sha256(''), decode(repeat('00', 16), 'hex'), sha256(''),
                false, '{}')
        """)
    return url


def indexes(url: str) -> list[str]:
    """Read the definitions of the app's indexes, and of the engine's on its tables."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT schemaname || indexdef FROM pg_indexes WHERE schemaname LIKE 'kept%' ORDER BY 1"
        ).fetchall()
    return [text for (text,) in rows]


LATER = (
    "vc.apps.code_digest",
    "vc.apps.epoch",
    "vc.apps.last_code_digest",
    "vc.apps.serial",
    "vc.apps.tracking",
    "vc.apps.unexpected",
    "vc.published.versions",
)


def schema(url: str) -> dict[tuple[str, str], str]:
    """Describe the log's schema; the app's role is named after the database."""
    name = urlsplit(url).path[1:]
    return {
        # Dropped and added again by the fixture, these columns have later numbers.
        key: definition.partition(" | ")[2] if key[1].startswith(LATER) else definition
        for key, value in described(url).items()
        if (definition := value.replace(name, "database"))
    }


def test_it_ends_like_a_new_one(old_url: str, database_url: str) -> None:
    """The log's schema, and the triggers of every build, are those of a fresh deployment."""
    install(database_url)
    assert functions(old_url) != functions(database_url)
    assert migrations.migrate(old_url) == head()
    with closing(connect_writer(old_url)) as writer, writer.transaction():
        register(writer, read_contract(app()))  # the next start: what reducers may call since
    assert functions(old_url) == functions(database_url)
    assert len(functions(old_url)) == 4
    assert schema(old_url) == schema(database_url)
    assert indexes(old_url) == indexes(database_url)
    assert len(indexes(old_url)) == 2 * (4 + 4)
    with psycopg.connect(old_url) as connection:
        assert connection.execute("SELECT has_row_blocks FROM vc.checkpoints").fetchall() == [(False,)]


def test_a_second_upgrade_writes_nothing(old_url: str) -> None:
    """Functions that are up to date are not replaced."""
    versions = "SELECT oid, xmin::text FROM pg_proc WHERE proname LIKE '%keep' ORDER BY oid"
    migrations.migrate(old_url)
    with psycopg.connect(old_url) as connection:
        before = connection.execute(versions.encode()).fetchall()
    migrations.migrate(old_url)
    with psycopg.connect(old_url) as connection:
        assert connection.execute(versions.encode()).fetchall() == before


def test_a_fresh_installation_is_up_to_date(database_url: str) -> None:
    """Installing makes the functions that an upgrade would make, though under another search path."""
    install(database_url)
    before = functions(database_url)
    migrations.migrate(database_url)
    assert functions(database_url) == before


def test_an_idle_reader_does_not_make_others_wait(old_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade gives way to a transaction that holds a view, and names it; later readers are served."""
    monkeypatch.setattr("virtualchain.store.giving_way._TRIES", 2)
    with psycopg.connect(old_url, application_name="a dashboard") as reader:
        reader.execute("SELECT * FROM kept.first")
        with pytest.raises(InUse, match="could not be upgraded: its tables are in use by a dashboard"):
            migrations.migrate(old_url)
        with psycopg.connect(old_url, options="-c statement_timeout=3000") as other:
            other.execute("SELECT * FROM kept.first")
    assert migrations.migrate(old_url) == head()


def test_rows_without_a_build_are_removed(old_url: str) -> None:
    """What a maker wrote whose build was dropped under it goes, so that no later build continues it."""
    with psycopg.connect(old_url) as writer:
        writer.execute(
            "INSERT INTO vc.snapshots (app, build, block_id, consensus_hash) "
            "VALUES ('kept', 'gone', 5, decode(repeat('00', 16), 'hex'))"
        )
    migrations.migrate(old_url)
    with psycopg.connect(old_url) as connection:
        assert connection.execute("SELECT * FROM vc.snapshots WHERE build = 'gone'").fetchall() == []

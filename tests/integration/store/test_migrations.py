"""Migrations end at the schema that `sql/schema` describes, whoever runs them and however often."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString

import psycopg
import pytest

from virtualchain.errors import StoreError
from virtualchain.store.migrate import migrate
from virtualchain.store.revision import current, head
from virtualchain.store.sql import sql_root
from virtualchain.testing.database import DatabaseServer

# vc.alembic_version is left out: Alembic makes that table, and no schema file describes it.
OURS: LiteralString = """
WITH schemas AS (SELECT * FROM pg_namespace WHERE nspname IN ('vc', 'virtualchain')),
relations AS (
    SELECT c.*, obj_description(c.oid, 'pg_class') AS comment
    FROM pg_class AS c JOIN schemas AS s ON c.relnamespace = s.oid
    WHERE c.relname !~ '^alembic_version'
),
columns AS (
    SELECT a.*, concat_ws('.', r.oid::regclass, a.attname) AS identity, r.relkind
    FROM relations AS r
    JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
),
functions AS (SELECT p.* FROM schemas AS s JOIN pg_proc AS p ON p.pronamespace = s.oid)
"""
# One row an object: its kind, identity and definition. `object` catches kinds that no part here describes.
CATALOG: LiteralString = f"""{OURS}
SELECT 'object', pg_describe_object(d.classid, d.objid, d.objsubid), ''
FROM schemas AS s JOIN pg_depend AS d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = s.oid
WHERE pg_describe_object(d.classid, d.objid, d.objsubid) !~ 'alembic_version'
UNION ALL
SELECT 'schema', nspname, concat_ws(' | ', nspacl, obj_description(oid, 'pg_namespace')) FROM schemas
UNION ALL
SELECT 'relation', oid::regclass::text,
    concat_ws(' | ', relkind, relpersistence, relrowsecurity, reloptions, relacl, comment)
FROM relations
UNION ALL
SELECT 'column', c.identity, concat_ws(' | ', c.attnum, format_type(c.atttypid, c.atttypmod), c.attnotnull,
    c.attidentity, c.attgenerated, c.attcollation::regcollation, c.attstorage, c.attacl,
    pg_get_expr(d.adbin, d.adrelid), col_description(c.attrelid, c.attnum))
FROM columns AS c LEFT JOIN pg_attrdef AS d ON d.adrelid = c.attrelid AND d.adnum = c.attnum
UNION ALL
SELECT 'constraint', concat_ws('.', r.oid::regclass, c.conname),
    concat_ws(' | ', pg_get_constraintdef(c.oid), c.convalidated, obj_description(c.oid, 'pg_constraint'))
FROM relations AS r JOIN pg_constraint AS c ON c.conrelid = r.oid
UNION ALL
SELECT 'index', r.oid::regclass::text, concat_ws(' | ', pg_get_indexdef(r.oid), i.indisvalid)
FROM relations AS r JOIN pg_index AS i ON i.indexrelid = r.oid
UNION ALL
SELECT 'view', oid::regclass::text, pg_get_viewdef(oid) FROM relations WHERE relkind IN ('v', 'm')
UNION ALL
SELECT 'trigger', concat_ws('.', r.oid::regclass, t.tgname),
    concat_ws(' | ', pg_get_triggerdef(t.oid), t.tgenabled, obj_description(t.oid, 'pg_trigger'))
FROM relations AS r JOIN pg_trigger AS t ON t.tgrelid = r.oid AND NOT t.tgisinternal
UNION ALL
SELECT 'function', oid::regprocedure::text,
    concat_ws(' | ', pg_get_functiondef(oid), proacl, obj_description(oid, 'pg_proc'))
FROM functions
ORDER BY 1, 2
"""
COMMENTS: LiteralString = f"""{OURS}
SELECT nspname, obj_description(oid, 'pg_namespace') FROM schemas
UNION ALL
SELECT oid::regclass::text, comment FROM relations WHERE relkind IN ('r', 'p', 'v', 'm')
UNION ALL
SELECT identity, col_description(attrelid, attnum) FROM columns WHERE relkind IN ('r', 'p', 'v', 'm')
UNION ALL
SELECT oid::regprocedure::text, obj_description(oid, 'pg_proc') FROM functions
"""
COLUMNS: LiteralString = f"""{OURS}
SELECT identity, format_type(atttypid, atttypmod) FROM columns WHERE relkind = 'v'
"""
VIEWS = {
    "blocks": "block_id integer, hash text, prev_hash text, header bytea, chainwork numeric, "
    "time timestamp with time zone",
    "inputs": "block_id integer, txindex integer, txid text, raw bytea, magics bytea[], senders jsonb, "
    "outputs jsonb, fee bigint",
    "ops": "app text, block_id integer, block_hash text, txindex integer, vtxindex integer, txid text, "
    "opcode bytea, payload bytea, fields jsonb, canonical bytea[]",
    "rejections": "app text, block_id integer, txindex integer, txid text, opcode bytea, step text, "
    "reason text",
    "snapshots": "app text, block_id integer, block_hash text, ops_hash text, consensus_hash text, "
    "state_hash text",
    "apps": "name text, version text, block_id integer, block_hash text, consensus_hash text, "
    "state_hash text, status text, error jsonb",
    "reorgs": "fork_block_id integer, depth integer",
}
"""The columns that docs/protocol/interfaces.md promises for the views of schema `virtualchain`."""
MIGRATE = "import sys; from virtualchain.store.migrate import migrate; print(migrate(sys.argv[1]))"


def rows(url: str, statement: LiteralString) -> list[tuple[Any, ...]]:
    """Run a query in a session that writes every name with its schema."""
    with psycopg.connect(url, options="-c search_path=") as connection:
        return connection.execute(statement).fetchall()


def described(url: str) -> dict[tuple[str, str], str]:
    """Describe everything in our two schemas: definitions by kind and identity."""
    return {(kind, identity): definition for kind, identity, definition in rows(url, CATALOG)}


def test_migrations_end_at_the_schema_files(database_url: str, empty_database_url: str) -> None:
    """All migrations together produce exactly the schema that the files in sql/schema describe."""
    with psycopg.connect(empty_database_url) as connection:
        for file in sorted((sql_root() / "schema").glob("*.sql")):
            connection.execute(file.read_bytes())
    migrated = described(database_url)
    assert migrated == described(empty_database_url)
    kinds = {kind for kind, _ in migrated}
    assert kinds == {
        "object", "schema", "relation", "column", "constraint", "index", "view", "trigger", "function"
    }  # fmt: skip


def test_everything_has_a_comment(database_url: str) -> None:
    """Every table, view, column and function has a comment that any client can show."""
    comments: dict[str, str | None] = dict(rows(database_url, COMMENTS))
    assert {"vc", "vc.blocks", "vc.blocks.hash", "virtualchain.ops.fields", "vc.guard_block()"} <= set(
        comments
    )
    assert [name for name, comment in comments.items() if not comment] == []


def test_views_have_the_promised_columns(database_url: str) -> None:
    """The views and columns that others rely on exist, with their types."""
    actual = dict(rows(database_url, COLUMNS))
    promised = {
        f"virtualchain.{view}.{column.split(' ', 1)[0]}": column.split(" ", 1)[1]
        for view, columns in VIEWS.items()
        for column in columns.split(", ")
    }
    assert {name: actual.get(name) for name in promised} == promised


def test_migrating_again_changes_nothing(database_url: str) -> None:
    """A second run leaves every object and every row unchanged."""
    objects: LiteralString = "SELECT oid, relname, xmin::text FROM pg_class ORDER BY oid"
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO vc.deployment VALUES (true, 'regtest', sha256('genesis'))")
    before = rows(database_url, objects), rows(database_url, "SELECT xmin::text, * FROM vc.deployment")
    assert migrate(database_url) == head()
    after = rows(database_url, objects), rows(database_url, "SELECT xmin::text, * FROM vc.deployment")
    assert after == before


def test_migrating_at_the_same_time_works(database_url: str, empty_database_url: str) -> None:
    """Several processes on an empty database wait for each other; one migrates, and all succeed."""
    with psycopg.connect(empty_database_url) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(hashtext('virtualchain migrate'))")
        command = [sys.executable, "-c", MIGRATE, empty_database_url]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        deadline = time.monotonic() + 60
        while rows(empty_database_url, "SELECT count(*) FROM pg_locks WHERE NOT granted") != [(3,)]:
            assert time.monotonic() < deadline, "the processes do not wait for the lock"
            time.sleep(0.05)
    outputs = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert outputs == [head()] * 3
    assert described(empty_database_url) == described(database_url)


def test_threads_may_migrate_at_the_same_time(database_server: DatabaseServer, database_url: str) -> None:
    """Engines in threads of one process can start on different databases at the same time."""
    urls = [database_server.create() for _ in range(4)]
    with ThreadPoolExecutor(len(urls)) as threads:
        assert list(threads.map(migrate, urls)) == [head()] * len(urls)
    for url in urls:
        assert described(url) == described(database_url)
        database_server.drop(url)


def test_a_newer_schema_is_refused(database_url: str) -> None:
    """Code that is older than the database's schema does not touch it and says what to do."""
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE vc.alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match=r"schema \(9999\) is newer .* upgrade virtualchain"):
        migrate(database_url)
    with psycopg.connect(database_url) as connection:
        assert current(connection) == "9999"


def test_a_failing_step_leaves_the_database_as_it_was(empty_database_url: str) -> None:
    """If one step fails, none takes effect: a foreign schema of our name stays, and nothing is added."""
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("CREATE SCHEMA virtualchain")
    before = described(empty_database_url)
    with pytest.raises(StoreError, match='could not be upgraded: schema "virtualchain" already exists'):
        migrate(empty_database_url)
    assert described(empty_database_url) == before
    with psycopg.connect(empty_database_url) as connection:
        assert current(connection) is None


def test_a_session_that_ends_while_the_schema_is_looked_at(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the database's error, as later."""

    def end(_: psycopg.Connection) -> None:
        raise psycopg.errors.AdminShutdown("terminating connection due to administrator command")

    monkeypatch.setattr("virtualchain.store.migrate.current", end)
    with pytest.raises(StoreError, match="could not be upgraded: terminating connection"):
        migrate(database_url)

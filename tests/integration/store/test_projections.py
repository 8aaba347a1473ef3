"""Projections: who writes them, what their history keeps, and the hash of their rows."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Rows
from tests.support.state_hashes import state_hash_of_rows
from tests.support.unguarded import unguarded
from virtualchain import App, State
from virtualchain.errors import InvalidApp
from virtualchain.testing import FakeNode

Query = Callable[..., Rows]
Run = Callable[..., int]


def test_refused_projections_leave_nothing(run: Run, query: Query) -> None:
    """Nothing that the engine refuses to install remains in the database."""
    with pytest.raises(InvalidApp, match="app keep: projection t has no primary key"):
        run(an_app("CREATE TABLE t (a int)"))
    assert query("SELECT name FROM vc.apps") == []
    assert query("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'keep%'") == []


def an_app(ddl: str, commit: Callable[..., Any] | None = None) -> App:
    """Make an app whose ops are SQL statements, which its commit runs."""
    app = App("keep", magic=b"st", projections=ddl)

    def obey(op: dict[str, Any], state: State) -> None:
        for statement in op["text"].split(";"):
            state.execute(statement)

    app.add(b"o", parse=lambda payload: {"text": payload.decode()}, commit=commit or obey)
    return app


ROWS = """
    CREATE TABLE rows (a int PRIMARY KEY, b text UNIQUE DEFERRABLE);
    COMMENT ON TABLE rows IS 'Rows.';
    COMMENT ON COLUMN rows.b IS 'A text.';
"""


def test_history_keeps_rows_as_they_were(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Of several changes to a row in a block, history keeps only the row as it was before the block."""
    for text in (
        "INSERT INTO rows VALUES (1, 'one'), (2, 'two')",
        "UPDATE rows SET b = 'uno' WHERE a = 1;UPDATE rows SET b = 'eins' WHERE a = 1",
        "DELETE FROM rows WHERE a = 1;INSERT INTO rows VALUES (1, 'un');DELETE FROM rows WHERE a = 2",
        "INSERT INTO rows VALUES (7, 'x');DELETE FROM rows WHERE a = 7;UPDATE rows SET a = 3 WHERE a = 1",
    ):
        fake_node.mine([fake_node.send(b"sto" + text.encode())])
    last = run(an_app(ROWS))
    assert query("SELECT * FROM keep__1.rows") == [{"a": 3, "b": "un", "since_block": last}]
    history = query("SELECT a, b, since_block, until_block FROM keep__1.rows_history ORDER BY until_block, a")
    assert [tuple(row.values()) for row in history] == [
        (1, "one", last - 3, last - 2),
        (1, "eins", last - 2, last - 1),
        (2, "two", last - 3, last - 1),
        (1, "un", last - 1, last),
    ]
    assert query("SELECT * FROM keep.rows") == [{"a": 3, "b": "un"}]
    comments = query(
        "SELECT obj_description('keep.rows'::regclass) AS t, col_description('keep.rows'::regclass, 2) AS c"
    )
    assert comments == [{"t": "Rows.", "c": "A text."}]


def test_projections_are_written_by_reducers_alone(fake_node: FakeNode, run: Run, database_url: str) -> None:
    """The database refuses statements outside a block, and TRUNCATE everywhere."""
    fake_node.mine([fake_node.send(b"stoINSERT INTO rows VALUES (1, 'one')")])
    run(an_app(ROWS))
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement in ("DELETE FROM keep__1.rows", "INSERT INTO keep__1.rows VALUES (5)"):
            with pytest.raises(psycopg.DatabaseError, match="written by its reducers alone"):
                connection.execute(statement.encode())
        with pytest.raises(psycopg.DatabaseError, match="cannot be truncated"):
            connection.execute("TRUNCATE keep__1.rows")


TYPES = """
    CREATE TABLE many (
        id int, name text, amount numeric, flag boolean, data bytea, at timestamptz, span interval,
        list int[], doc jsonb, PRIMARY KEY (name, id)
    );
    CREATE TABLE other (id int PRIMARY KEY, many_id int);
"""


def test_state_hash_is_that_of_the_rows(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """After any mix of changes, the hash equals one computed from a dump of the rows alone."""
    dice, fresh = random.Random(7), itertools.count(100)

    def commit(op: dict[str, Any], state: State) -> None:
        for _ in range(dice.randint(1, 8)):
            key = dice.randint(1, 6)
            choice = dice.randint(1, 5)
            if choice == 1:
                state.execute("DELETE FROM many WHERE id = %s", [key])
            elif choice == 2:
                statement = "UPDATE many SET id = %s, flag = NOT flag WHERE id = %s"
                unguarded(state).execute(statement, [next(fresh), key])
            elif choice == 3:
                state.execute(
                    "INSERT INTO other VALUES (%s, %s) ON CONFLICT (id) "
                    "DO UPDATE SET many_id = other.many_id + 1",
                    [key, None if key == 2 else key],
                )
            else:
                unguarded(state).execute(
                    "INSERT INTO many VALUES (%s, %s, %s, true, %s, to_timestamp(%s), '1 day 2 hours', "
                    "'{1,NULL,3}', %s) ON CONFLICT DO NOTHING",
                    [key, f'näme "{key}"\n', "1.50", b"\x00\xff", state.block_time, '{"b": 1, "a": [null]}'],
                )

    app = an_app(TYPES, commit)
    hashes = set()
    for number in range(25):
        fake_node.mine([fake_node.send(b"sto%d" % number)])
        run(app)
        (snapshot,) = query("SELECT state_hash FROM virtualchain.snapshots ORDER BY block_id DESC LIMIT 1")
        assert snapshot["state_hash"] == state_hash_of_rows(database_url, "keep")
        hashes.add(snapshot["state_hash"])
    assert len(hashes) > 15


STRANGE = """
    CREATE TABLE "Wei""rd %s {0} 'näme'" (
        block int, old text, new text, tg_op text, "select" int, "Upper" int, upper int, "per%cent" int,
        "quo""te" text, "it's" text, "{brace}" text, "line\nbreak" text, "ключ" text, r int, b int,
        PRIMARY KEY (block, old, new, tg_op, "per%cent", "quo""te", "ключ")
    );
    CREATE TABLE "user" (writing int PRIMARY KEY);
    COMMENT ON COLUMN "user".writing IS 'it''s 100%';
"""


def test_names_may_be_anything(fake_node: FakeNode, run: Run, query: Query, database_url: str) -> None:
    """Words of SQL and of the trigger's language, quotes, percent signs and other scripts are only names."""
    table = """ "Wei""rd %s {0} 'näme'" """
    statements: tuple[Any, ...] = (
        f"""INSERT INTO {table} SELECT i, 'o', 'n', 't', 1, 2, 3, 4, 'q', 'i', NULL, 'l', 'к', 5, 6
        FROM generate_series(1, 4) AS i""",
        f'UPDATE {table} SET "Upper" = 7 WHERE block = 1',
        f'UPDATE {table} SET "per%cent" = 8, "ключ" = \'ч\' WHERE block = 2',
        f"DELETE FROM {table} WHERE block = 3",
        'INSERT INTO "user" VALUES (1)',
        'UPDATE "user" SET writing = writing + 1',
        'DELETE FROM "user"',
    )

    def commit(op: dict[str, Any], state: State) -> None:
        unguarded(state).execute(statements[op["place"]])

    app = App("keep", magic=b"st", projections=STRANGE)
    app.add(b"o", parse=lambda payload: {"place": payload[0]}, commit=commit)
    seen = set()
    for place in range(len(statements)):
        fake_node.mine([fake_node.send(b"sto" + bytes([place]))])
        run(app)
        (snapshot,) = query("SELECT state_hash FROM virtualchain.snapshots ORDER BY block_id DESC LIMIT 1")
        assert snapshot["state_hash"] == state_hash_of_rows(database_url, "keep")
        seen.add(snapshot["state_hash"])
    assert len(seen) == len(statements) - 1, "the last statement restores the state from two before"
    assert query("SELECT col_description('keep.\"user\"'::regclass, 1) AS c") == [{"c": "it's 100%"}]
    history = """SELECT count(*) FROM keep__1."Wei""rd %s {0} 'näme'_history" """
    assert query(history)[0]["count"] == 3


def test_keys_may_change_places(fake_node: FakeNode, run: Run, query: Query, database_url: str) -> None:
    """With a deferrable key two rows can swap theirs; history keeps each row once."""
    ddl = "CREATE TABLE rows (a int PRIMARY KEY DEFERRABLE, b text)"
    fake_node.mine([fake_node.send(b"stoINSERT INTO rows VALUES (1, 'one'), (2, 'two')")])
    fake_node.mine([fake_node.send(b"stoUPDATE rows SET a = 3 - a")])
    run(an_app(ddl))
    assert query("SELECT * FROM keep.rows ORDER BY a") == [{"a": 1, "b": "two"}, {"a": 2, "b": "one"}]
    kept = query("SELECT a, b FROM keep__1.rows_history ORDER BY a")
    assert kept == [{"a": 1, "b": "one"}, {"a": 2, "b": "two"}]
    (snapshot,) = query("SELECT state_hash FROM virtualchain.snapshots ORDER BY block_id DESC LIMIT 1")
    assert snapshot["state_hash"] == state_hash_of_rows(database_url, "keep")


def test_two_apps_may_have_tables_of_the_same_name(fake_node: FakeNode, run: Run, query: Query) -> None:
    """The same statement refers to each app's own table, even if the columns differ."""

    def commit(op: dict[str, Any], state: State) -> None:
        assert op
        state.execute("INSERT INTO t (a) VALUES (%s)", [state.block_id])
        assert state.query("SELECT * FROM t WHERE a = %s", [state.block_id])

    apps = []
    for name, columns in (("one", "a int PRIMARY KEY"), ("two", "b text, a bigint PRIMARY KEY")):
        app = App(name, magic=b"st", projections=f"CREATE TABLE t ({columns})")
        app.add(b"o", parse=lambda payload: {"text": payload.hex()}, commit=commit)
        apps.append(app)
    for _ in range(7):
        fake_node.mine([fake_node.send(b"sto")])
    run(*apps)
    assert query("SELECT (SELECT count(*) FROM one.t) AS one, (SELECT count(*) FROM two.t) AS two") == [
        {"one": 7, "two": 7}
    ]

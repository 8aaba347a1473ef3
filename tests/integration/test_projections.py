"""Projections: what is refused at installation, and what their history keeps."""

import itertools
import random
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Rows
from virtualchain import App, State, muhash
from virtualchain.errors import InvalidApp
from virtualchain.store.database import connect_reader
from virtualchain.testing import FakeNode

Query = Callable[..., Rows]
Run = Callable[..., int]


@pytest.mark.parametrize(
    ("ddl", "complaint"),
    [
        ("CREATE TABLE t (a int)", "projection t has no primary key"),
        ("CREATE TABLE t (a serial PRIMARY KEY)", "a sequence, t_a_seq"),
        ("CREATE TABLE t (a int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)", "column a of t is an identity"),
        (
            "CREATE TABLE t (a int PRIMARY KEY, b int GENERATED ALWAYS AS (a + 1) STORED)",
            "b of t is generated",
        ),
        ("CREATE TABLE t (a int PRIMARY KEY, b real)", "column b of t is a float"),
        ("CREATE TABLE t (a int PRIMARY KEY, b double precision[])", "column b of t is a float"),
        ("CREATE TABLE t (a int PRIMARY KEY, b timestamptz DEFAULT now())", "column b of t has a default"),
        ("CREATE TABLE t (a int PRIMARY KEY, b date DEFAULT CURRENT_DATE)", "column b of t has a default"),
        ("CREATE TABLE t (a uuid PRIMARY KEY DEFAULT gen_random_uuid())", "column a of t has a default"),
        (
            """CREATE COLLATION mine (provider = libc, locale = 'C.UTF-8');
            CREATE TABLE t (a text COLLATE mine PRIMARY KEY)""",
            "column a of t does not compare in byte order",
        ),
        ("CREATE TABLE t (a int PRIMARY KEY, since_block int)", "has a column since_block"),
        (
            "CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE t_history (a int PRIMARY KEY)",
            "needs for a twin",
        ),
        (f"CREATE TABLE {'t' * 55} (a int PRIMARY KEY)", "is longer than 54 bytes"),
        ("CREATE TABLE t (a int PRIMARY KEY); CREATE VIEW v AS SELECT 1 AS a", "a view, v"),
        ("CREATE TABLE t (a int PRIMARY KEY) PARTITION BY RANGE (a)", "a partitioned table, t"),
        ("CREATE UNLOGGED TABLE t (a int PRIMARY KEY)", "an unlogged table, t"),
        ("CREATE TABLE public.t (a int PRIMARY KEY)", "make public.t elsewhere"),
        (
            "CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE u (a int PRIMARY KEY REFERENCES t)",
            "u_a_fkey of u must be DEFERRABLE",
        ),
        (
            """CREATE TABLE t (a int PRIMARY KEY);
            CREATE TABLE u (a int PRIMARY KEY REFERENCES t ON DELETE CASCADE DEFERRABLE)""",
            "u_a_fkey of u must be DEFERRABLE",
        ),
        ("CREATE TABLE t (a int PRIMARY KEY REFERENCES vc.blocks DEFERRABLE)", "leads out of the app"),
        (
            """CREATE TABLE t (a int PRIMARY KEY);
            CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
            CREATE TRIGGER mine BEFORE INSERT ON t EXECUTE FUNCTION f()""",
            "trigger or rule of its own, mine",
        ),
        ("CREATE TABLE t (a int PRIMARY KEY", "cannot be created: syntax error"),
    ],
)
def test_what_cannot_be_kept_is_refused(run: Run, query: Query, ddl: str, complaint: str) -> None:
    """Each breach is named, and nothing of the app stays in the database."""
    with pytest.raises(InvalidApp, match=complaint):
        run(an_app(ddl))
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
    """Of several changes in a block only the first goes to history, as it was before the block."""
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
    """A statement from outside a block, and TRUNCATE from anywhere, are refused by the database."""
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
    """After any mix of changes the hash equals one computed from a dump of the rows alone."""
    dice, fresh = random.Random(7), itertools.count(100)

    def commit(op: dict[str, Any], state: State) -> None:
        for _ in range(dice.randint(1, 8)):
            key = dice.randint(1, 6)
            choice = dice.randint(1, 5)
            if choice == 1:
                state.execute("DELETE FROM many WHERE id = %s", [key])
            elif choice == 2:
                state.execute("UPDATE many SET id = %s, flag = NOT flag WHERE id = %s", [next(fresh), key])
            elif choice == 3:
                state.execute(
                    "INSERT INTO other VALUES (%s, %s) ON CONFLICT (id) "
                    "DO UPDATE SET many_id = other.many_id + 1",
                    [key, None if key == 2 else key],
                )
            else:
                state.execute(
                    "INSERT INTO many VALUES (%s, %s, %s, true, %s, to_timestamp(%s), '1 day 2 hours', "
                    "'{1,NULL,3}', %s) ON CONFLICT DO NOTHING",
                    [key, f'näme "{key}"\n', "1.50", b"\x00\xff", state.block_time, '{"b": 1, "a": [null]}'],
                )

    texts = {
        "many": ("id", "name", "amount", "flag", "data", "at", "span", "list", "doc"),
        "other": ("id", "many_id"),
    }
    app = an_app(TYPES, commit)
    hashes = set()
    for number in range(25):
        fake_node.mine([fake_node.send(b"sto%d" % number)])
        run(app)
        expected = muhash.EMPTY
        with closing(connect_reader(database_url)) as reader:
            for table, columns in texts.items():
                listed = ", ".join(f"CASE WHEN {c} IS NOT NULL THEN format('%s', {c}) END" for c in columns)
                rows = reader.execute(f"SELECT {listed} FROM keep.{table}".encode()).fetchall()
                expected = muhash.update(expected, [muhash.element(table, row) for row in rows], [])
        (snapshot,) = query("SELECT state_hash FROM virtualchain.snapshots ORDER BY block_id DESC LIMIT 1")
        assert snapshot["state_hash"] == muhash.digest(expected)
        hashes.add(snapshot["state_hash"])
    assert len(hashes) > 15


def test_two_apps_may_have_tables_of_the_same_name(fake_node: FakeNode, run: Run, query: Query) -> None:
    """The same statement means each app's own table, though its columns differ."""

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

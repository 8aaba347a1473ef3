"""Keys and index entries have a limit that depends on values alone; what fits can be changed and deleted."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from random import Random
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.integration.store.test_postgresql_versions import running
from tests.support.unguarded import unguarded
from virtualchain import App, State
from virtualchain.store.database import connect_writer
from virtualchain.store.migrate import migrate
from virtualchain.store.projections import Projection, has_long_entry, install
from virtualchain.testing import FakeNode
from virtualchain.testing.database import installations

TYPES = """
    CREATE TYPE mood AS ENUM ('a', 'quite a long label of an enum', 'c');
    CREATE DOMAIN label AS text CHECK (VALUE <> '');
    CREATE DOMAIN title AS label;
    CREATE DOMAIN labels AS text[];
"""
Elements = Callable[[Random], str]


def digit(random: Random) -> str:
    """Return a digit that is not 0."""
    return str(random.randint(1, 9))


def joined(start: str, element: Elements, end: str, separator: str = ",") -> Callable[[int, Random], str]:
    """Return a function that makes the text of a value with so many elements."""
    return lambda n, random: start + separator.join(element(random) for _ in range(n)) + end


def letters(n: int, random: Random) -> str:
    """Return text of this many bytes; a generator that always returns the same makes it compressible."""
    return "".join(random.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", k=n))


def numbered(start: str, pattern: str, end: str) -> Callable[[int, Random], str]:
    """Return a function that makes the text of a value with so many elements, of which no two are alike."""
    separator = "," if start else " "

    def make(n: int, random: Random) -> str:
        elements = (pattern.format(100_000 + 100 * i + random.randint(1, 9)) for i in range(n))
        return start + separator.join(elements) + end

    return make


ONE: dict[str, Callable[[int, Random], str]] = {
    "text": letters,
    "varchar": letters,
    'text COLLATE "C"': letters,
    "title": letters,
    "bytea": lambda n, random: "\\x" + random.randbytes(n).hex(),
    "varbit": lambda n, random: "".join(random.choices("01", k=8 * n)),
    "numeric": joined("1", digit, "", ""),
    "text[]": joined("{", digit, "}"),
    "labels": joined("{", digit, "}"),
    "bpchar[]": joined("{", digit, "}"),
    "name[]": joined("{", digit, "}"),
    "bigint[]": joined("{", digit, "}"),
    "interval[]": joined("{", digit, "}"),
    "numeric[]": joined("{", digit, "}"),
    "inet[]": joined("{", lambda random: f"::{digit(random)}", "}"),
    "mood[]": joined("{", lambda random: random.choice("ac"), "}"),
    "jsonb": joined("[", digit, "]"),
    "jsonb[]": joined("{", digit, "}"),
    "int4multirange": numbered("{", "[{0},{0}]", "}"),
    "numrange": joined("[1", digit, ",)", ""),
    "tsvector": numbered("", "w{}", ""),
}
"""Types of a key, and texts of their values by size."""
MANY = {
    "31 texts": ["text"] * 31,
    "31 names": ["text", *["name"] * 30],
    "texts and numbers": ["text", "bigint"] * 15,
    "small and large": ["text", '"char"', "uuid", "boolean", "timestamptz", "bytea", "interval"] * 4,
    "with numerics": ["text", "numeric"] * 15,
}
"""Types of keys of many columns, of which the first takes what is left."""
HEADER = 8
"""Bytes that PostgreSQL adds to text (4) or to a bit string (8)."""
SMALL = {
    "text": "é" * 20,
    "name": "x",
    "bigint": "1",
    '"char"': "x",
    "uuid": "00" * 16,
    "boolean": "t",
    "timestamptz": "2009-01-03",
    "bytea": "\\x" + "00" * 20,
    "interval": "P1D",
    "numeric": "1.5",
}


class Same(Random):
    """A generator whose values are all the same, so that what is made of them can be compressed."""

    def random(self) -> float:
        """Return the same number every time."""
        return 0.5

    def getrandbits(self, k: int, /) -> int:
        """Return the same bits every time."""
        return 1 << (k - 1) >> 1


class Table:
    """A projection in a transaction of a writer, and its blocks."""

    def __init__(self, writer: psycopg.Connection, ddl: str) -> None:
        self.writer = writer
        [self.projection] = install(writer, "sizes", "sizes", "1", TYPES + ddl)
        self.block = 0

    def run(self, statement: str, parameters: list[Any] | None = None) -> str | None:
        """Run a statement in a block of its own; return the SQLSTATE of its error, and undo it then."""
        self.block += 1
        setting = "SELECT set_config('virtualchain.block_id', %s, true)"
        self.writer.execute(setting, [str(self.block)])
        try:
            with self.writer.transaction():
                self.writer.execute(f"SET LOCAL search_path = sizes__1; {statement}".encode())
        except psycopg.Error as error:
            return error.sqlstate
        return None


@pytest.fixture(scope="module")
def writers() -> Iterator[dict[int, psycopg.Connection]]:
    """Open a writer's session on a server of each version."""
    with ExitStack() as stack:
        sessions = {}
        for version, binaries in installations().items():
            server = stack.enter_context(running(binaries))
            migrate(server.url)
            sessions[version] = stack.enter_context(closing(connect_writer(server.url)))
        yield sessions


def literal(text: str, kind: str) -> str:
    """Write a value of a type."""
    return f"'{text}'::{kind.partition(' COLLATE')[0]}"


def largest(table: Table, row: Callable[[int], str]) -> int:
    """Return the largest size of which a row can be inserted; every larger one must have the right error."""
    low, high = 1, 6_000
    while low < high:
        middle = (low + high + 1) // 2
        state = table.run(f"INSERT INTO t VALUES ({row(middle)}, 0)")
        assert state in {None, "22001"}, state
        low, high = (middle, high) if state is None else (low, middle - 1)
        table.run("DELETE FROM t")
    return low


def check_life(writer: psycopg.Connection, columns: list[str], value: Callable[[int, Random], str]) -> int:
    """Find the largest key, and change and delete rows with it; return its size."""
    names = [f"c{i}" for i in range(len(columns))]
    listed = ", ".join(f"{name} {kind}" for name, kind in zip(names, columns, strict=True))
    sizes = set()
    for random in (Random(7), Same(7)):
        with writer.transaction(force_rollback=True):
            table = Table(
                writer, f"CREATE TABLE t ({listed}, n integer NOT NULL, PRIMARY KEY ({', '.join(names)}))"
            )

            def row(size: int, random: Random = random) -> str:
                rest = [literal(SMALL[kind], kind) for kind in columns[1:]]
                return ", ".join([literal(value(size, random), columns[0]), *rest])

            most = largest(table, row)
            largest_value = literal(value(most, random), columns[0])
            writer.execute("SET LOCAL search_path = sizes__1")
            size = writer.execute(f"SELECT pg_column_size({largest_value})".encode()).fetchone()
            assert size is not None
            assert size[0] <= 2_000 + HEADER, "the limit counts on compression"
            key = row(most)
            assert table.run(f"INSERT INTO t VALUES ({key}, 1)") is None
            assert table.run("UPDATE t SET n = 2") is None
            assert table.run(f"UPDATE t SET ({', '.join(names)}) = ROW ({row(most)})") is None
            assert table.run(f"UPDATE t SET ({', '.join(names)}) = ROW ({row(most + 8)})") == "22001"
            assert not has_long_entry(writer, table.projection)
            assert table.run("DELETE FROM t") is None
            sizes.add(most)
    assert len(sizes) == 1, "the limit depends on compression"
    return sizes.pop()


@pytest.mark.parametrize("kind", ONE)
def test_a_key_that_can_be_inserted_can_be_changed_and_deleted(
    writers: dict[int, psycopg.Connection], kind: str
) -> None:
    """The largest value of each type is the same on every version, compressible or not."""
    sizes = {check_life(writer, [kind], ONE[kind]) for writer in writers.values()}
    assert len(sizes) == 1
    if kind in {"text", "varchar", 'text COLLATE "C"', "title", "bytea"}:
        assert sizes == {2000}


@pytest.mark.parametrize("case", MANY)
def test_a_key_of_many_columns(writers: dict[int, psycopg.Connection], case: str) -> None:
    """The columns count together, and padding between them leaves room for the history's key."""
    sizes = {check_life(writer, MANY[case], letters) for writer in writers.values()}
    assert len(sizes) == 1


INDEXES = {
    "unique": ("CREATE TABLE t (a int PRIMARY KEY, b text UNIQUE)", 2000),
    "plain": ("CREATE TABLE t (a int PRIMARY KEY, b text); CREATE INDEX ON t (b)", 2000),
    "two columns": ("CREATE TABLE t (a int PRIMARY KEY, b text); CREATE INDEX ON t (b, a, b)", 998),
    "included": ("CREATE TABLE t (a int, b text, PRIMARY KEY (a) INCLUDE (b))", 1996),
    "exclusion": ("CREATE TABLE t (a int PRIMARY KEY, b text, EXCLUDE USING btree (b WITH =))", 2000),
    "expression": ("CREATE TABLE t (a int PRIMARY KEY, b text); CREATE INDEX ON t (lower(b))", 2000),
    "longer": ("CREATE TABLE t (a int PRIMARY KEY, b text); CREATE INDEX ON t ((b || lower(b)))", 1000),
    "shorter": ("CREATE TABLE t (a int PRIMARY KEY, b text); CREATE INDEX ON t (substr(b, 1, 9))", 6000),
    "digest": ("CREATE TABLE t (a int PRIMARY KEY, b text); CREATE INDEX ON t USING hash (b)", 6000),
    "partial": ("CREATE TABLE t (a int PRIMARY KEY, b text); CREATE INDEX ON t (b) WHERE a = 0", 2000),
    "elsewhere": ("CREATE TABLE t (a int PRIMARY KEY, b text); CREATE INDEX ON t (b) WHERE a > 0", 6000),
    "whole row": (
        "CREATE TABLE t (a int PRIMARY KEY, b text); CREATE INDEX ON t (b) WHERE t IS NOT NULL AND a = 0",
        2000,
    ),
    "names": (
        """CREATE TABLE t (block int PRIMARY KEY, "new" text UNIQUE);
        CREATE INDEX ON t (("new" || "new")) WHERE block = 0""",
        1000,
    ),
}
"""Tables with two columns, and the longest text in the second where the first is 0."""


@pytest.mark.parametrize("case", INDEXES)
def test_entries_of_other_indexes(writers: dict[int, psycopg.Connection], case: str) -> None:
    """B-tree indexes of the app's own have the same limit, for the rows and expressions that they hold."""
    ddl, expected = INDEXES[case]
    for writer in writers.values():
        for random in (Random(3), Same(3)):
            with writer.transaction(force_rollback=True):
                table = Table(writer, ddl)
                low, high = 1, 6_000
                while low < high:
                    middle = (low + high + 1) // 2
                    state = table.run(f"INSERT INTO t VALUES (0, '{letters(middle, random)}')")
                    assert state in {None, "22001"}, state
                    low, high = (middle, high) if state is None else (low, middle - 1)
                    assert table.run("DELETE FROM t") is None
                assert low == expected
                assert table.run(f"INSERT INTO t VALUES (0, '{letters(low, random)}')") is None
                column = "a" if "a int" in ddl else "block"
                if case != "elsewhere":
                    assert table.run(f"UPDATE t SET {column} = {column} * 1") is None
                assert table.run("DELETE FROM t") is None


def test_a_row_that_was_there_before_the_limit(writers: dict[int, psycopg.Connection]) -> None:
    """Its other columns can be changed, and it can be deleted; another key of that length is refused."""
    for writer in writers.values():
        with writer.transaction(force_rollback=True):
            table = Table(writer, "CREATE TABLE t (a text PRIMARY KEY, b text UNIQUE, n int)")
            writer.execute("SELECT set_config('virtualchain.block_id', 'undo', true)")
            old, new = letters(2_400, Random(1)), letters(2_400, Random(2))
            writer.execute(f"INSERT INTO sizes__1.t VALUES ('{old}', '{old}', 0, 0)".encode())
            assert has_long_entry(writer, table.projection)
            assert table.run("UPDATE t SET n = 1") is None
            assert table.run(f"UPDATE t SET a = '{new}'") == "22001"
            assert table.run(f"UPDATE t SET b = '{new}'") == "22001"
            assert table.run("UPDATE t SET b = 'short'") is None
            assert table.run("DELETE FROM t") is None


@pytest.mark.parametrize("step", ["check", "commit"])
def test_a_long_key_is_a_rejection(fake_node: FakeNode, run: Run, query: Query, step: str) -> None:
    """Keys around both limits, the documented one and PostgreSQL's: what was inserted is deleted again."""
    app = App("keys", magic=b"ky", projections="CREATE TABLE keys (key text PRIMARY KEY, n integer)")

    def write(op: dict[str, Any], state: State) -> bool | None:
        key = letters(op["size"], Random(op["size"]))
        state.execute("INSERT INTO keys VALUES (%s, 1) ON CONFLICT DO NOTHING", [key])
        return True if step == "check" else None

    def final(ops: list[dict[str, Any]], state: State) -> None:
        unguarded(state).execute("UPDATE keys SET key = 'x' || substr(key, 2)")
        if not ops:
            state.execute("DELETE FROM keys")

    steps: dict[str, Any] = {step: write}
    app.add(b"o", parse=lambda payload: {"size": int(payload)}, **steps)
    app.final(final)
    sizes = [1_999, 2_000, 2_001, 2_048, 2_689, 2_690, 2_691, 2_692, 2_693, 2_704, 2_712, 12_000]
    fake_node.mine([fake_node.send(b"kyo" + str(size).encode()) for size in sizes])
    fake_node.mine()
    last = run(app)
    [row] = query("SELECT status, block_id FROM virtualchain.apps")
    assert (row["status"], row["block_id"]) == ("running", last)
    assert query("SELECT fields ->> 'size' AS size FROM virtualchain.ops ORDER BY vtxindex") == [
        {"size": "1999"},
        {"size": "2000"},
    ]
    rejected = query("SELECT step, reason FROM virtualchain.rejections")
    assert {row["step"] for row in rejected} == {step}
    assert {row["reason"] for row in rejected} == {"a value is out of range, too long, or divided by zero"}
    assert len(rejected) == len(sizes) - 2
    history = query("SELECT DISTINCT octet_length(key) AS n FROM keys__1.keys_history ORDER BY 1")
    assert history == [{"n": 1_999}, {"n": 2_000}]


def test_the_error_names_table_and_index(writers: dict[int, psycopg.Connection]) -> None:
    """An author reads which projection and which index a value was too long for."""
    writer = writers[max(writers)]
    with writer.transaction(force_rollback=True):
        table = Table(writer, 'CREATE TABLE "a%t" (a text PRIMARY KEY, b text CONSTRAINT "it\'s %s" UNIQUE)')
        writer.execute("SELECT set_config('virtualchain.block_id', '1', true)")
        assert isinstance(table.projection, Projection)
        for values, message in (
            ("repeat('x', 2001), ''", "a row of a%t is too long: its key takes more than 2000 bytes"),
            ("'', repeat('x', 2001)", "the values in its index it's %s take more than 2000 bytes"),
        ):
            with pytest.raises(psycopg.errors.StringDataRightTruncation) as error, writer.transaction():
                writer.execute(f'INSERT INTO sizes__1."a%t" VALUES ({values})'.encode())
            assert message in str(error.value)

"""Which projections are refused when they are installed, with which messages, and which are not."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from virtualchain.errors import InvalidApp
from virtualchain.store.database import connect_writer
from virtualchain.store.projections import install
from virtualchain.testing.database import DatabaseServer

T = "CREATE TABLE t (a int PRIMARY KEY)"
MANY = ", ".join(f"c{i}" for i in range(32))
U = f"{T}; CREATE TABLE u (a int PRIMARY KEY REFERENCES t"


@pytest.fixture(scope="module")
def writer(database_server: DatabaseServer) -> Iterator[psycopg.Connection]:
    """Open a writer's session, in a database with a table and a type of another owner."""
    url = database_server.clone()
    with closing(connect_writer(url)) as connection:
        connection.execute("CREATE SCHEMA theirs; CREATE TABLE theirs.t (a int PRIMARY KEY)")
        connection.execute("CREATE TYPE theirs.mood AS ENUM ('fine')")
        yield connection
    database_server.drop(url)


def refusal(writer: psycopg.Connection, ddl: str) -> str:
    """Return the complaints about an app's projections."""
    with pytest.raises(InvalidApp) as complaints, writer.transaction():
        install(writer, "keep", "keep", "1", ddl)
    row = writer.execute("SELECT to_regnamespace('keep'), to_regnamespace('keep__1')").fetchone()
    assert row == (None, None), "nothing of the app remains in the database"
    return str(complaints.value)


@pytest.mark.parametrize(
    ("ddl", "complaint"),
    [
        ("CREATE TABLE t (a int)", "projection t has no primary key"),
        ("CREATE TABLE t ()", "projection t has no primary key"),
        (f"CREATE TABLE t ({MANY.replace(',', ' int,')} int, PRIMARY KEY ({MANY}))", "more than 31 columns"),
        (f"CREATE TABLE {'t' * 55} (a int PRIMARY KEY)", "has a name of more than 54 bytes"),
        (f'CREATE TABLE "{"ß" * 28}" (a int PRIMARY KEY)', "has a name of more than 54 bytes"),
        (f"{T} PARTITION BY RANGE (a)", "projection t is partitioned"),
        ("CREATE UNLOGGED TABLE t (a int PRIMARY KEY)", "projection t is unlogged"),
        (f"{T}; CREATE TABLE u (b int) INHERITS (t)", "projection u inherits or is inherited"),
        (f"{T}; CREATE TABLE u (b int) INHERITS (t)", "projection t inherits or is inherited"),
        ("CREATE TYPE r AS (a int); CREATE TABLE t OF r (PRIMARY KEY (a))", "t is made of a type"),
        (f"{T}; ALTER TABLE t ENABLE ROW LEVEL SECURITY", "t has row level security"),
        (
            f"CREATE TABLE t (a int PRIMARY KEY, {', '.join(f'c{i} text' for i in range(400))})",
            "t may have rows of",
        ),
        (
            f"CREATE TABLE t (a int PRIMARY KEY, {', '.join(f'c{i} name' for i in range(130))})",
            "t may have rows of",
        ),
        (f"{T}; ALTER TABLE t ADD b text, ALTER b SET STORAGE plain", "column b of t has another storage"),
        (
            f"{T}; ALTER TABLE t ADD b numeric, ALTER b SET STORAGE external",
            "column b of t has another storage",
        ),
    ],
)
def test_tables(writer: psycopg.Connection, ddl: str, complaint: str) -> None:
    """A projection is a plain table with a key that history can store."""
    assert complaint in refusal(writer, ddl)


@pytest.mark.parametrize(
    ("ddl", "complaint"),
    [
        (f"{T}; CREATE TABLE t_history (a int PRIMARY KEY)", "the name t_history is taken"),
        (f"{T}; CREATE INDEX t_births ON t (a)", "the name t_births is taken"),
        (f"{T}; CREATE DOMAIN t_history AS int", "the name t_history is taken"),
        (
            "CREATE TABLE t (a int PRIMARY KEY, since_block int)",
            "since_block of t has a name that is reserved",
        ),
        (
            "CREATE TABLE t (a int PRIMARY KEY, until_block int)",
            "until_block of t has a name that is reserved",
        ),
    ],
)
def test_names_of_the_engine(writer: psycopg.Connection, ddl: str, complaint: str) -> None:
    """The names of what the engine adds to a projection are reserved."""
    assert complaint in refusal(writer, ddl)


@pytest.mark.parametrize(
    ("ddl", "complaint"),
    [
        ("CREATE TABLE public.t (a int PRIMARY KEY)", "make the table public.t elsewhere"),
        ("CREATE TEMP TABLE t (a int PRIMARY KEY)", "make the table pg_temp.t elsewhere"),
        ("CREATE TYPE public.mood AS ENUM ('fine')", "make the type public.mood elsewhere"),
        ("CREATE INDEX ON vc.ops (payload)", "make the index vc.ops_payload_idx elsewhere"),
        ("CREATE SCHEMA mine", "make a schema, mine"),
        (
            """CREATE FUNCTION theirs.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
            CREATE TRIGGER mine AFTER DELETE ON vc.ops FOR EACH ROW EXECUTE FUNCTION theirs.f()""",
            "make the trigger mine on vc.ops elsewhere",
        ),
        ("CREATE TABLE t (a serial PRIMARY KEY)", "make the sequence t_a_seq"),
        (f"{T}; CREATE VIEW v AS SELECT 1 AS a", "make the view v"),
        (f"{T}; CREATE MATERIALIZED VIEW v AS SELECT 1 AS a", "make the materialized view v"),
        ("CREATE TYPE r AS (a int)", "make the composite type r"),
        (
            "CREATE TYPE r AS RANGE (subtype = float8)",
            "make the function keep__1.r(double precision,double precision)",
        ),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "make the function keep__1.f()"),
        ("CREATE COLLATION \"C\" (provider = libc, locale = 'C')", 'make the collation "C"'),
        (
            f"""{T}; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
            CREATE TRIGGER mine BEFORE INSERT ON t EXECUTE FUNCTION f()""",
            "projection t has a trigger or rule of its own, mine",
        ),
        (f"{T}; CREATE RULE mine AS ON DELETE TO t DO INSTEAD NOTHING", "rule of its own, mine"),
    ],
)
def test_other_things(writer: psycopg.Connection, ddl: str, complaint: str) -> None:
    """Projections are tables and what belongs to them, in the build's schema."""
    assert complaint in refusal(writer, ddl)


@pytest.mark.parametrize(
    ("ddl", "complaint"),
    [
        (f"{U})", "foreign key u_a_fkey of u must be DEFERRABLE, and NO ACTION"),
        (f"{U} ON DELETE CASCADE DEFERRABLE)", "foreign key u_a_fkey of u must be DEFERRABLE, and NO ACTION"),
        (
            f"{U} ON UPDATE SET NULL DEFERRABLE)",
            "foreign key u_a_fkey of u must be DEFERRABLE, and NO ACTION",
        ),
        (
            "CREATE TABLE t (a int PRIMARY KEY REFERENCES theirs.t DEFERRABLE)",
            "t_a_fkey of t refers to a table outside the app, theirs.t",
        ),
    ],
)
def test_foreign_keys(writer: psycopg.Connection, ddl: str, complaint: str) -> None:
    """Foreign keys are deferrable, change no rows on their own, and stay inside the app."""
    assert complaint in refusal(writer, ddl)


@pytest.mark.parametrize(
    ("column", "complaint"),
    [
        ("int GENERATED ALWAYS AS IDENTITY", "b of t is an identity column"),
        ("int GENERATED ALWAYS AS (a + 1) STORED", "b of t is generated"),
        ("real", "b of t is a float (real): use numeric or integer"),
        ("double precision[]", "b of t is a float (double precision)"),
        ("ratio", "b of t is a float (double precision)"),
        ("ratio[]", "b of t is a float (double precision)"),
        ("point", "b of t is a float (point)"),
        ("circle", "b of t is a float (circle)"),
        ("money", "b of t has the type money"),
        ("xml", "b of t has the type xml"),
        ("regclass", "b of t has the type regclass"),
        ("theirs.mood", "b of t has the type theirs.mood"),
        ("theirs.t", "b of t has the type theirs.t"),
        ("information_schema.cardinal_number", "b of t has the type information_schema.cardinal_number"),
        ("first", "b of t has the type first"),
        ("first[]", "b of t has the type first"),
    ],
)
def test_types(writer: psycopg.Connection, column: str, complaint: str) -> None:
    """Values and their parts are exact and have the same text form on every server."""
    types = "CREATE DOMAIN ratio AS double precision; CREATE TABLE first (a int PRIMARY KEY);"
    assert complaint in refusal(writer, f"{types} CREATE TABLE t (a int PRIMARY KEY, b {column})")


@pytest.mark.parametrize(
    ("column", "complaint"),
    [
        ("timestamptz DEFAULT now()", "the default of column b of t"),
        ("date DEFAULT CURRENT_DATE", "the default of column b of t"),
        ("uuid DEFAULT gen_random_uuid()", "the default of column b of t"),
        ("numeric DEFAULT random()", "the default of column b of t"),
        ("text DEFAULT current_user", "the default of column b of t"),
        ("timestamptz DEFAULT 'now'", "the default of column b of t"),
        ("timestamp(0) DEFAULT timestamp ' Now '", "the default of column b of t"),
        ("date DEFAULT 'tomorrow'", "the default of column b of t"),
        ("time DEFAULT 'now'", "the default of column b of t"),
        ("timestamptz DEFAULT ('now'::text)::timestamptz", "the default of column b of t"),
        ("timestamptz CHECK (b < now())", "the constraint t_b_check of t"),
        ("date CHECK (b > 'yesterday')", "the constraint t_b_check of t"),
        ("int CHECK (random() < b)", "the constraint t_b_check of t"),
        ("date CHECK (b::text LIKE '2%')", "the constraint t_b_check of t"),
        ("text CHECK (b::bigint > 0)", "the constraint t_b_check of t"),  # 1_000 since PostgreSQL 16
        ("text CHECK (b::varchar::boolean)", "the constraint t_b_check of t"),
        ("text[] CHECK (b::numeric[] <> '{}')", "the constraint t_b_check of t"),
        ("text); CREATE INDEX ON t ((b::int)", "the index t_b_idx of t"),
        ("number", "the constraint number_check of number"),
        ("moment", "the default of domain moment"),
        ("past", "the constraint past_check of past"),
        ("timestamptz); CREATE INDEX ON t (a) WHERE (b < 'today'", "the index t_a_idx of t"),
    ],
)
def test_what_depends_on_more_than_the_row(writer: psycopg.Connection, column: str, complaint: str) -> None:
    """No value may depend on the clock, chance, the user, settings or the day of the installation."""
    types = """
        CREATE DOMAIN moment AS timestamptz DEFAULT now();
        CREATE DOMAIN past AS timestamptz CHECK (VALUE < CURRENT_TIMESTAMP);
        CREATE DOMAIN number AS text CHECK (VALUE::numeric > 0);
    """
    message = refusal(writer, f"{types} CREATE TABLE t (a int PRIMARY KEY, b {column})")
    assert f"{complaint} may yield other values elsewhere or later" in message


@pytest.mark.parametrize(
    "column",
    [
        "bigint CHECK (b::text <> '7')",
        "text CHECK (b::bytea <> '\\x00' AND b::varchar(9) = b)",
        "text CHECK (b::uuid::text = b)",
        "numeric CHECK (b::integer::smallint > 0)",
    ],
)
def test_casts_that_any_version_reads_alike(writer: psycopg.Connection, column: str) -> None:
    """Numbers are written as text, and text is read as bytes or as a UUID."""
    with writer.transaction():
        install(writer, "keep", "keep", "1", f"CREATE TABLE t (a int PRIMARY KEY, b {column})")
        raise psycopg.Rollback


@pytest.mark.parametrize(
    ("column", "complaint"),
    [
        ("text COLLATE mine", "column b of t has another collation than C"),
        ("text[] COLLATE mine", "column b of t has another collation than C"),
        ("named", "column b of t has another collation than C"),
        ("text); CREATE INDEX ON t (b COLLATE mine", "index t_b_idx of t has another collation than C"),
        ("text CHECK (b < 'x' COLLATE mine)", "the constraint t_b_check of t has another collation than C"),
        (
            "text); CREATE INDEX ON t (a) WHERE (b > 'x' COLLATE mine",
            "the index t_a_idx of t has another collation than C",
        ),
        ("text COLLATE pg_c_utf8", "column b of t has another collation than C"),
        ("text COLLATE ucs_basic", "column b of t has another collation than C"),
        ("text); CREATE UNIQUE INDEX ON t (lower(b) COLLATE ucs_basic", "the index t_lower_idx of t"),
        ("text); CREATE UNIQUE INDEX ON t (lower(b COLLATE mine)", "the index t_lower_idx of t"),
        ("text CHECK ((b COLLATE mine) ~ '^[[:alpha:]]+$')", "the constraint t_b_check of t has another"),
        ("text DEFAULT ('x' COLLATE mine)", "the default of column b of t has another collation than C"),
        (
            "int); CREATE DOMAIN unused AS text COLLATE mine; CREATE TABLE u (a int PRIMARY KEY",
            "the domain unused",
        ),
        (
            "int); CREATE DOMAIN upper AS text CHECK (VALUE COLLATE mine = upper(VALUE COLLATE mine)",
            "constraint",
        ),
    ],
)
def test_collations(writer: psycopg.Connection, column: str, complaint: str) -> None:
    """Text has the collation C, or nodes would disagree on order, equality and classes of characters."""
    if "pg_c_utf8" in column and writer.info.server_version < 170000:
        pytest.skip("PostgreSQL has this collation since version 17")
    types = """CREATE COLLATION mine (provider = libc, locale = 'C.UTF-8');
        CREATE DOMAIN named AS text COLLATE mine;"""
    message = refusal(writer, f"{types} CREATE TABLE t (a int PRIMARY KEY, b {column})")
    assert complaint in message
    assert 'add COLLATE "C"' in message


@pytest.mark.parametrize(
    ("ddl", "complaint"),
    [
        ("CREATE TABLE t (\n  a int PRIMARY KEY,\n  b nothing\n)", 'type "nothing" does not exist (line 3)'),
        ("CREATE TABLE t (a int PRIMARY KEY", "cannot be created: syntax error at end of input (line 1)"),
        (f"{T}; COMMIT", "cannot be created: EXECUTE of transaction commands is not implemented"),
        (f"{T}; SAVEPOINT s", "cannot be created: EXECUTE of transaction commands is not implemented"),
        (f"{T}; COPY t FROM STDIN", "cannot be created: "),
        (f"{T}; SET TimeZone = 'Asia/Tokyo'", "its projections set TimeZone"),
        (f"{T}; SET LOCAL search_path = theirs", "its projections set search_path"),
        (f"{T}; INSERT INTO t VALUES (1)", "its projections put rows into t"),
        ("CREATE TABLE t (a int PRIMARY KEY) --\x00", "cannot be created: "),
        ("CREATE TABLE t (a int PRIMARY KEY) --\ud800", "cannot be created: "),
        (
            f"CREATE TABLE t (a int PRIMARY KEY, {', '.join(f'c{i} bool' for i in range(1598))})",
            "no history can be kept of t: tables can have at most 1600 columns",
        ),
    ],
    ids=[
        "type",
        "syntax",
        "commit",
        "savepoint",
        "copy",
        "set",
        "set local",
        "rows",
        "nul",
        "surrogate",
        "wide",
    ],
)
def test_statements(writer: psycopg.Connection, ddl: str, complaint: str) -> None:
    """The DDL only makes tables: it sets nothing, writes no rows and does not touch the transaction."""
    assert complaint in refusal(writer, ddl)
    assert writer.execute("SHOW TimeZone").fetchone() == ("UTC",)


@pytest.mark.parametrize(
    "ddl",
    [
        "",
        "-- nothing yet",
        "CREATE TABLE t (a int PRIMARY KEY, b int4range, c nummultirange, d numeric(20, 8)[], e tsvector)",
        """CREATE TYPE mood AS ENUM ('now', 'later');
        CREATE TABLE t (a mood PRIMARY KEY DEFAULT 'now', b mood[], c text DEFAULT 'now')""",
        """CREATE DOMAIN hash AS bytea CHECK (octet_length(VALUE) = 32);
        CREATE TABLE t (a hash PRIMARY KEY, at timestamptz DEFAULT '2009-01-03 18:15:05+00')""",
        """CREATE TABLE t (a int, during int4range, PRIMARY KEY (a) INCLUDE (during),
            EXCLUDE USING gist (during WITH &&))""",
        """CREATE TABLE t (a int PRIMARY KEY, b text UNIQUE DEFERRABLE INITIALLY DEFERRED,
            CHECK (b IN ('x', 'y')));
        CREATE INDEX ON t (lower(b)) WHERE a > 5""",
        """CREATE TABLE t (a int PRIMARY KEY, b jsonb); CREATE INDEX ON t USING gin (b);
        CREATE STATISTICS s ON a, b FROM t; COMMENT ON TABLE t IS 'now'""",
        f"{U} DEFERRABLE, parent int REFERENCES u DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TABLE t (a int, gone int, b text PRIMARY KEY); ALTER TABLE t DROP COLUMN gone",
        f"CREATE TABLE {'t' * 54} (a int PRIMARY KEY)",
        """CREATE DOMAIN plain AS text;
        CREATE TABLE t (a text COLLATE "POSIX" PRIMARY KEY, b plain, c text COLLATE "C");
        CREATE UNIQUE INDEX ON t (lower(c)) WHERE b ~ '^[[:alpha:]]+$'""",
        f"CREATE TABLE t (a int PRIMARY KEY, {', '.join(f'c{i} text' for i in range(300))})",
    ],
)
def test_what_is_accepted(writer: psycopg.Connection, ddl: str) -> None:
    """An author may use whatever can be rolled back and is the same everywhere."""
    with writer.transaction():
        install(writer, "keep", "keep", "1", ddl)
        raise psycopg.Rollback

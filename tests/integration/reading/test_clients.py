"""Clients that analysts use, with a reader's role: psql, pandas, SQLAlchemy, and Grafana's queries."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pandas as pd
import psycopg
import pytest
import sqlalchemy
from psycopg.rows import dict_row

from tests.integration.reading.test_readers import grant
from tests.support.moving import an_app, story
from virtualchain import StateEngine
from virtualchain.cli.read import find_psql, psql_environment
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer


@pytest.fixture(scope="module")
def reader_url(database_server: DatabaseServer) -> Iterator[str]:
    """Return the URL of a deployment for a reader of all apps."""
    url = database_server.clone()
    node = FakeNode()
    story(node, 1, 20)
    with StateEngine(an_app(), database=url, source=node.url, confirmations=0) as engine:
        engine.build()
    parts = urlsplit(url)
    role = f"{parts.path[1:]}:analyst"
    place = parts.netloc.rpartition("@")[2]
    made = grant(url, role, login=True)
    yield parts._replace(netloc=f"{quote(role, safe='')}:{made.password}@{place}").geturl()
    node.close()
    database_server.drop(url)


def psql(url: str, *commands: str) -> str:
    """Return the output of psql for some commands."""
    environment = psql_environment(url, {"search_path": "plain, virtualchain"})
    arguments = [argument for command in commands for argument in ("-c", command)]
    done = subprocess.run(
        [find_psql(), "-X", "-v", "ON_ERROR_STOP=1", *arguments],
        env={**environment, "PAGER": "cat"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_psql(reader_url: str) -> None:
    """It lists views, describes them with comments, queries, copies, and travels in time."""
    assert "owners" in psql(reader_url, "\\dv plain.*")
    described = psql(reader_url, "\\d+ virtualchain.changes")
    assert "The row''s primary key" not in described
    assert "The row's primary key" in described
    assert "changes" in psql(reader_url, "\\dv+ virtualchain.*")
    now = psql(reader_url, "SELECT count(*) FROM marks")
    then = psql(reader_url, "SET virtualchain.as_of = '105'", "SELECT count(*) FROM marks")
    assert now != then.removeprefix("SET\n")
    assert (
        psql(reader_url, "COPY (SELECT block_id, hash FROM blocks) TO STDOUT (FORMAT csv)").count("\n") > 100
    )
    assert "ERROR" not in psql(reader_url, "\\dn", "\\df virtualchain.*", "\\dp plain.*", "\\du")


def test_pandas(reader_url: str) -> None:
    """A view is read as a data frame, now or as of a block."""
    engine = sqlalchemy.create_engine(reader_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        frame = pd.read_sql("SELECT * FROM plain.marks ORDER BY place", connection, index_col="place")
        assert list(frame.columns) == ["name", "note", "raw"]
        assert len(frame) > 0
        ops = pd.read_sql("SELECT time, block_id, fields FROM virtualchain.ops", connection)
        assert ops["time"].dt.tz is not None
        assert ops.groupby("block_id").size().sum() == len(ops)
        with connection.begin_nested():
            connection.exec_driver_sql("SET LOCAL virtualchain.as_of = '105'")
            early = pd.read_sql("SELECT * FROM plain.marks", connection)
        assert len(early) != len(frame)
        table = pd.read_sql_table("marks", connection, schema="plain")
        assert list(table.columns) == ["place", "name", "note", "raw"]
    engine.dispose()


def test_sqlalchemy_reflection(reader_url: str) -> None:
    """It reflects views with types and comments of their columns, and builds queries from them."""
    engine = sqlalchemy.create_engine(reader_url.replace("postgresql://", "postgresql+psycopg://"))
    inspector = sqlalchemy.inspect(engine)
    assert {"plain", "virtualchain"} <= set(inspector.get_schema_names())
    assert set(inspector.get_view_names("plain")) == {"owners", "marks"}
    assert "changes" in inspector.get_view_names("virtualchain")
    columns = {column["name"]: column for column in inspector.get_columns("ops", "virtualchain")}
    assert isinstance(columns["block_id"]["type"], sqlalchemy.Integer)
    assert str(columns["fields"]["comment"]).startswith("The op as the app committed it")
    assert inspector.get_table_comment("blocks", "virtualchain")["text"] == "Every block that was taken."
    assert "vc.as_of" in (inspector.get_view_definition("marks", "plain") or "")
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine, schema="plain", views=True)
    marks, owners = metadata.tables["plain.marks"], metadata.tables["plain.owners"]
    joined = sqlalchemy.select(owners.c.rank, marks.c.note).join(marks, marks.c.name == owners.c.name)
    with engine.connect() as connection:
        assert connection.execute(joined).all()
    engine.dispose()


PROBES = (
    "SELECT current_setting('server_version_num')::int / 100 AS version",
    "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'",
    """SELECT CASE WHEN table_schema = ANY(current_schemas(false)) THEN quote_ident(table_name)
        ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS "table"
        FROM information_schema.tables
        WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog') ORDER BY 1""",
    """SELECT quote_ident(column_name) AS "column", data_type AS type FROM information_schema.columns
        WHERE quote_ident(table_schema) || '.' || quote_ident(table_name) = 'virtualchain.ops'""",
    """SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_attribute AS a ON a.attrelid = c.oid
        WHERE c.relkind IN ('r', 'v') AND a.attnum > 0 AND n.nspname = 'plain'""",
)
PANELS = {
    "time series": """SELECT floor(extract(epoch FROM time) / 3600) * 3600 AS time, app AS metric,
        count(*) AS value
        FROM virtualchain.ops WHERE time BETWEEN '2001-01-01T00:00:00Z' AND '2100-01-01T00:00:00Z'
        GROUP BY 1, 2 ORDER BY 1, 2""",
    "time series of changes": """SELECT floor(extract(epoch FROM b.time) / 60) * 60 AS "time",
        c.action, count(*)
        FROM virtualchain.changes AS c JOIN virtualchain.blocks AS b USING (block_id)
        WHERE b.time BETWEEN '2001-01-01T00:00:00.123Z' AND '2100-01-01T00:00:00Z'
        GROUP BY 1, 2 ORDER BY 1""",
    "unix time": """SELECT extract(epoch FROM time) AS time, chainwork::float8 FROM virtualchain.blocks
        WHERE extract(epoch FROM time) >= 978307200 AND extract(epoch FROM time) <= 4102444800 ORDER BY 1""",
    "table": "SELECT * FROM plain.marks LIMIT 100",
    "annotations": """SELECT extract(epoch FROM detected_at) * 1000 AS time, cause AS text, 'rollback' AS tags
        FROM virtualchain.reorgs""",
    "variable": "SELECT DISTINCT app FROM virtualchain.ops",
    "state": "SELECT name, status, block_id FROM virtualchain.apps",
}


@pytest.mark.parametrize("statement", [*PROBES, *PANELS.values()])
def test_grafana_queries(reader_url: str, statement: str) -> None:
    """Its catalog queries and panels with expanded macros work, with time as a number or as timestamptz."""
    with psycopg.connect(reader_url, row_factory=dict_row) as connection:
        rows = connection.execute(statement.encode()).fetchall()
    if "timescaledb" not in statement and "reorgs" not in statement:
        assert rows


def test_grafana_finds_the_views_and_no_table_of_the_engine(reader_url: str) -> None:
    """It offers what the role may read."""
    with psycopg.connect(reader_url) as connection:
        offered = {name for (name,) in connection.execute(PROBES[2].encode())}
    assert {"plain.marks", "plain.owners", "virtualchain.ops", "virtualchain.changes"} <= offered
    assert not [name for name in offered if name.startswith(("vc.", "plain__"))]


def test_a_reader_copies_rows_from_views_but_cannot_dump_tables(reader_url: str) -> None:
    """A reader can COPY a query of a view, but cannot lock the tables, as pg_dump does."""
    with psycopg.connect(reader_url) as connection, connection.cursor() as cursor:
        with cursor.copy("COPY (SELECT * FROM plain.marks ORDER BY place) TO STDOUT") as copied:
            assert list(copied.rows())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            cursor.execute("LOCK TABLE plain__1.marks IN ACCESS SHARE MODE")


def test_the_documented_views_exist(reader_url: str) -> None:
    """docs/sql.md names every view of the log, and each column in order."""
    text = (Path(__file__).parents[3] / "docs" / "sql.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (`[^|]*`) \|", text, re.MULTILINE)
    documented = {view: re.findall(r"`(\w+)`", columns) for view, columns in rows}
    with psycopg.connect(reader_url) as connection:
        actual = connection.execute(
            """SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position)
            FROM information_schema.columns WHERE table_schema = 'virtualchain' GROUP BY 1"""
        ).fetchall()
    assert documented == dict(actual)

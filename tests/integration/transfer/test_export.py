"""Exports: what the files hold, how other programs read them, and how failures are handled."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest
from psycopg import sql
from pyarrow import parquet

from tests.integration.conftest import Rows
from tests.support import representative
from virtualchain import StateEngine
from virtualchain.errors import StoreError, UsageError
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer
from virtualchain.transfer import files
from virtualchain.transfer.exporting import Exported, export

Query = Callable[..., Rows]
FORMS: tuple[files.Format, ...] = ("parquet", "csv")
LOG = ["blocks", "inputs", "ops", "rejections", "snapshots"]
VIEWS = [f"representative.{name}" for name in ("accounts", "entries", "marks")]
ODD = """
    CREATE SCHEMA odd;
    CREATE TYPE odd.mood AS ENUM ('fine, thanks', '"so"');
    CREATE TABLE odd."a/b %s ""c"" d" (
        id int, "50% of" text, day date, at timestamptz, plain_at timestamp, far interval, list int[],
        texts text[], bits bit(3), mood odd.mood, amount numeric, real float8, raw bytea, doc jsonb,
        place point
    );
    INSERT INTO odd."a/b %s ""c"" d" VALUES
        (1, 'a,"b"' || chr(10) || 'ä', 'infinity', '-infinity', '10000-01-01', '-1 day', '{{1,2},{3,4}}',
            '{NULL,"",x}', B'101', 'fine, thanks', 'NaN', 'Infinity', '\\x00ff', '{"a": 1.50}', '(1,2)'),
        (2, '', '2020-01-01', '0044-03-15 BC', NULL, NULL, '[0:1]={5,6}', '{}', NULL, '"so"',
            1e300, 'NaN', '\\x', '"\\u00e4"', NULL),
        (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
"""


@pytest.fixture(scope="module")
def url(database_server: DatabaseServer) -> Iterator[str]:
    """Return a deployment of an app that uses everything an app can use, and a schema of unusual values."""
    database = database_server.clone()
    representative.deploy(database)
    with psycopg.connect(database) as connection:
        connection.execute(ODD.encode())
    yield database
    database_server.drop(database)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> files.Format:
    """Run a test with each format."""
    name: files.Format = request.param
    return name


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query, with the settings that the engine pins."""
    with psycopg.connect(url, options="-c TimeZone=UTC -c IntervalStyle=iso_8601") as connection:
        return connection.execute(statement.encode()).fetchall()


def rows_in(folder: Path, done: Exported, name: str) -> list[dict[str, Any]]:
    """Return the rows of a file, with values as its format has them."""
    file = done.manifest.file(name)
    assert file is not None
    if file.name.endswith(".parquet"):
        rows: list[dict[str, Any]] = parquet.read_table(folder / file.name).to_pylist()
    else:
        with (folder / file.name).open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    assert len(rows) == file.rows
    return rows


def test_everything_is_exported(url: str, tmp_path: Path, form: files.Format) -> None:
    """Each table of the log and each view of the apps has a file, and the manifest describes it."""
    done = export(url, tmp_path / "all", form=form, what=["all"])
    names = [f"{name}.{form}" for name in (*LOG, *VIEWS)]
    assert [file.name for file in done.manifest.files] == names
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == sorted([*names, "manifest.json"])
    content = (tmp_path / "all" / "manifest.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == done.sha256
    document = json.loads(content)
    assert document["format"] == "virtualchain-export-1"
    for file in document["files"]:
        data = (tmp_path / "all" / file["name"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        table = file["name"].removesuffix(f".{form}")
        view = table if "." in table else f"virtualchain.{table}"
        assert [(file["rows"],)] == ask(url, f"SELECT count(*) FROM {view}")
    [(block_id, block_hash)] = ask(url, "SELECT max(block_id), max(block_hash) FROM virtualchain.apps")
    assert document["blocks"]["last"] == {"block_id": block_id, "hash": block_hash}
    [app] = document["apps"]
    assert ask(url, "SELECT name, block_id, consensus_hash, state_hash FROM virtualchain.apps") == [
        tuple(app[key] for key in ("name", "block_id", "consensus_hash", "state_hash"))
    ]
    assert ask(url, "SELECT encode(fingerprint, 'hex') FROM vc.apps") == [(app["fingerprint"],)]


def test_the_same_deployment_gives_the_same_files(url: str, tmp_path: Path, form: files.Format) -> None:
    """The same tape and state yield the same files, byte for byte."""
    first, second = (export(url, tmp_path / name, form=form, what=["all"]) for name in ("one", "two"))
    assert first.sha256 == second.sha256


def test_views_of_two_nodes_are_the_same_files(
    url: str, database_url: str, fake_node: FakeNode, tmp_path: Path
) -> None:
    """Rows are in the order of their keys, not in that on disk."""
    representative.feed(fake_node)
    app = representative.app()
    with StateEngine(app, database=database_url, source=fake_node.url, confirmations=0) as engine:
        engine.build()
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT set_config('virtualchain.block_id', 'undo', true)")
        moved = sql.SQL("UPDATE representative__1.accounts SET name = name WHERE part > {}")
        connection.execute(moved.format(0))  # the same rows at other places on disk
    ours, theirs = (
        export(database, tmp_path / str(number), what=VIEWS)
        for number, database in enumerate((url, database_url))
    )
    assert ours.manifest.files == theirs.manifest.files


def test_parquet_has_types_that_fit(url: str, tmp_path: Path) -> None:
    """Hashes are hex, bytes are bytes, times are times, and exact numbers and JSON are text."""
    done = export(url, tmp_path / "all", what=["all"])
    block = rows_in(tmp_path / "all", done, "blocks")[-1]
    [expected] = ask(
        url,
        "SELECT hash, time, chainwork::text, header FROM virtualchain.blocks ORDER BY block_id DESC LIMIT 1",
    )
    assert (block["hash"], block["time"], block["chainwork"], block["header"]) == expected
    op = rows_in(tmp_path / "all", done, "ops")[0]
    assert (op["opcode"], op["canonical"]) == (b"o", [b"o:1:1,1:0,2:\xc3\x84"])
    assert json.loads(op["fields"]) == {"id": 1, "name": "Ä", "part": 1, "step": 0}
    entries = parquet.read_schema(tmp_path / "all" / "representative.entries.parquet")
    kinds = dict(zip(entries.names, map(str, entries.types), strict=True))
    assert kinds["id"] == "int64"
    assert kinds["at"] == "timestamp[us, tz=UTC]"
    assert kinds["day"] == "date32[day]"
    assert kinds["list"] == "list<element: string>"
    assert {kinds[name] for name in ("span", "doc", "place", "bits", "address", "words")} == {"string"}
    file = done.manifest.file("representative.accounts")
    assert file is not None
    total = file.columns[2]
    assert (total.name, total.type, total.parquet_type) == ("total", "numeric", "string")


def test_pandas_reads_the_files(url: str, tmp_path: Path) -> None:
    """Both formats yield the same data frame of blocks, and ops can be joined to it."""
    for form in FORMS:
        export(url, tmp_path / form, form=form)
    blocks = pd.read_parquet(tmp_path / "parquet" / "blocks.parquet")
    again = pd.read_csv(tmp_path / "csv" / "blocks.csv", parse_dates=["time"], dtype={"chainwork": "str"})
    for name in ("block_id", "hash", "prev_hash", "chainwork"):
        assert blocks[name].tolist() == again[name].tolist()
    assert (blocks["time"] == again["time"]).all()
    ops = pd.read_parquet(tmp_path / "parquet" / "ops.parquet")
    joined = ops.merge(blocks, on="block_id")
    assert (joined["block_hash"] == joined["hash"]).all()
    assert len(joined) == len(ops) > 20


def test_odd_values_and_names_are_exported(url: str, tmp_path: Path, form: files.Format) -> None:
    """Infinite dates, years out of range, arrays of two dimensions, NaN, and null and empty text are kept."""
    name = 'odd.a/b %s "c" d'
    done = export(url, tmp_path / "odd", form=form, what=[name])
    [file] = done.manifest.files
    assert file.name == f"odd.a%2Fb%20%25s%20%22c%22%20d.{form}"
    rows = rows_in(tmp_path / "odd", done, file.name.removesuffix(f".{form}"))
    assert len(rows) == 3
    first, second, third = rows
    assert (first["day"], first["at"]) == ("infinity", "-infinity")
    assert (first["plain_at"], first["far"]) == ("10000-01-01 00:00:00", "P-1D")
    assert (first["list"], second["list"]) == ("{{1,2},{3,4}}", "[0:1]={5,6}")
    assert (first["amount"], first["mood"], first["bits"]) == ("NaN", "fine, thanks", "101")
    assert (first["50% of"], second["50% of"]) == ('a,"b"\nä', "")
    assert second["at"] == "0044-03-15 00:00:00+00 BC"
    if form == "parquet":
        assert (first["texts"], second["texts"]) == ([None, "", "x"], [])
        assert set(third.values()) == {3, None}
        assert second["amount"] == "1" + "0" * 300
        assert (first["real"], first["raw"]) == (float("inf"), b"\x00\xff")
    else:
        lines = (tmp_path / "odd" / file.name).read_text(encoding="utf-8").splitlines()
        assert lines[-1] == "3" + "," * 14
        assert lines[-2].startswith('2,"",2020-01-01,')


def test_a_plain_column_keeps_its_type_beside_an_odd_one(url: str, tmp_path: Path) -> None:
    """Only a column with values that Parquet cannot represent becomes text."""
    done = export(url, tmp_path / "odd", what=['odd.a/b %s "c" d'])
    kinds = {column.name: column.parquet_type for column in done.manifest.files[0].columns}
    assert {kinds[name] for name in ("day", "at", "plain_at", "list")} == {"string"}
    assert (kinds["texts"], kinds["real"], kinds["id"]) == ("list<string>", "double", "int32")


def test_rows_are_written_in_groups(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a long table nor a large one is ever in memory as a whole."""
    monkeypatch.setattr(files, "_GROUP_ROWS", 50)
    export(url, tmp_path / "rows", what=["blocks"])
    assert parquet.ParquetFile(tmp_path / "rows" / "blocks.parquet").num_row_groups == 3
    monkeypatch.setattr(files, "_GROUP_BYTES", 2000)
    export(url, tmp_path / "bytes", what=["inputs"])
    assert parquet.ParquetFile(tmp_path / "bytes" / "inputs.parquet").num_row_groups > 10


def test_a_range_of_blocks_is_exported(url: str, tmp_path: Path) -> None:
    """Tape, log and coverage are limited to the range, and apps are described as of its last block."""
    done = export(url, tmp_path / "part", what=["tape", "ops", "snapshots"], first=103, last=105)
    for name in ("blocks", "inputs", "ops", "snapshots"):
        assert {row["block_id"] for row in rows_in(tmp_path / "part", done, name)} == {103, 104, 105}
    [row] = done.manifest.coverage
    assert (row.magic, row.from_block, row.until_block) == (b"re", 103, None)
    [app] = done.manifest.apps
    assert ask(url, "SELECT consensus_hash FROM virtualchain.snapshots WHERE block_id = 105") == [
        (app["consensus_hash"],)
    ]


def test_files_show_one_moment(fake_node: FakeNode, database_url: str, tmp_path: Path, run: Any) -> None:
    """Blocks that are taken while the first file is written are in none of the others."""
    app = representative.app()
    representative.feed(fake_node)
    tip = run(app)

    def grow(_: object) -> None:
        fake_node.mine([fake_node.send(b"reo1000 0 later")])
        run(app)

    done = export(database_url, tmp_path / "moving", what=["all"], on_file=grow)
    assert done.manifest.last is not None
    assert done.manifest.last.block_id == tip
    snapshots = rows_in(tmp_path / "moving", done, "snapshots")
    assert max(row["block_id"] for row in snapshots) == tip < fake_node.height
    entries = rows_in(tmp_path / "moving", done, "representative.entries")
    assert "later" not in {row["name"] for row in entries}


def test_a_view_that_fails_leaves_nothing(url: str, tmp_path: Path, form: files.Format) -> None:
    """A failed export leaves neither a partial file nor a folder that the next attempt would refuse."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE OR REPLACE VIEW odd.failing AS SELECT 1 / (n - 500) FROM generate_series(1, 900) n"
        )
    with pytest.raises(StoreError, match="division by zero"):
        export(url, tmp_path / "new" / "folder", form=form, what=["tape", "odd.failing"])
    assert not (tmp_path / "new" / "folder").exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(StoreError):
        export(url, tmp_path / "there", form=form, what=["tape", "odd.failing"])
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"what": ["no.such"]},
            "there is no no.such to export: choose from tape, ops, rejections, snapshots",
        ),
        ({"what": ["blokcs"]}, "there is no blokcs"),
        ({"first": 500}, "the tape has no blocks from 500 to .*: it has blocks 0 to 11"),
        ({"first": 9, "last": 3}, "the tape has no blocks from 9 to 3"),
    ],
)
def test_what_is_not_there_is_refused(
    url: str, tmp_path: Path, options: dict[str, Any], complaint: str
) -> None:
    """Unknown tables and blocks are refused before a folder is created."""
    with pytest.raises(UsageError, match=complaint):
        export(url, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_a_folder_in_use_is_refused(url: str, tmp_path: Path) -> None:
    """Neither the files in the folder nor a file of its name are touched."""
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "blocks.parquet").write_text("mine")
    with pytest.raises(UsageError, match="used is not empty"):
        export(url, tmp_path / "used")
    assert (tmp_path / "used" / "blocks.parquet").read_text() == "mine"
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file cannot be written: Not a directory"):
        export(url, tmp_path / "file")


def test_an_empty_deployment_is_exported(database_url: str, tmp_path: Path, form: files.Format) -> None:
    """Its files have columns, but no rows."""
    done = export(database_url, tmp_path / "empty", form=form, what=["all"])
    assert [file.rows for file in done.manifest.files] == [0] * len(LOG)
    assert (done.manifest.network, done.manifest.first, done.manifest.coverage) == (None, None, ())
    assert rows_in(tmp_path / "empty", done, "blocks") == []


def test_times_are_utc(url: str, tmp_path: Path) -> None:
    """Times are in UTC, whatever the time zone of the database role."""
    with psycopg.connect(url) as connection:
        connection.execute("ALTER ROLE CURRENT_USER SET TimeZone = 'Asia/Tokyo'")
    try:
        done = export(url, tmp_path / "utc", form="csv", what=["blocks"])
    finally:
        with psycopg.connect(url) as connection:
            connection.execute("ALTER ROLE CURRENT_USER RESET TimeZone")
    assert rows_in(tmp_path / "utc", done, "blocks")[0]["time"] == "2011-02-02 23:16:42+00"
    assert datetime(2011, 2, 2, 23, 16, 42, tzinfo=UTC).timestamp() == 1296688602

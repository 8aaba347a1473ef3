"""Export and import of apps that track outputs: what they have covered travels with the tape."""

import csv
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pyarrow import parquet

from tests.integration.conftest import Query, Run
from tests.integration.transfer.test_import import advance
from tests.support.exports import Lines, change_manifest, change_rows
from tests.support.ride_story import ride, ride_apps
from tests.support.rides import careless_app, coin, rides_app, spending
from tests.support.servers import value
from tests.support.tables import deployment
from virtualchain import App, StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.node.node import open_source
from virtualchain.engine.upgrade import upgrade
from virtualchain.errors import DamagedExport, NodeError
from virtualchain.store.database import connect_reader
from virtualchain.store.tape import Tape
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer
from virtualchain.transfer.exporting import export
from virtualchain.transfer.files import Format
from virtualchain.transfer.importing import import_tape

TIP = 108
SPELLINGS = pytest.mark.parametrize("by_statements", [False, True], ids=["helper", "statements"])
INPUTS = "SELECT to_jsonb(i) - 'evidence' FROM vc.inputs AS i ORDER BY block_id, txindex"


@pytest.fixture(scope="module")
def origin(database_server: DatabaseServer) -> Iterator[str]:
    """Return a deployment of the apps of the story."""
    url = database_server.clone()
    with FakeNode() as node:
        ride(node)
        with StateEngine(*ride_apps(), database=url, source=node.url, confirmations=0) as engine:
            assert engine.build() == TIP
    yield url
    database_server.drop(url)


@pytest.fixture
def exported(origin: str, tmp_path: Path) -> Path:
    """Return an export of its tape as CSV."""
    export(origin, tmp_path / "export", form="csv", what=["tape"])
    return tmp_path / "export"


def covered(url: str, app: App) -> list[tuple[int, int | None]]:
    """Return the stretches that are covered for an app that tracks outputs."""
    rule = f"tracking:{app.name}:{read_contract(app).tracking}"
    with closing(connect_reader(url)) as connection:
        rows = Tape(connection).coverage()
    return [(row.from_block, row.until_block) for row in rows if (row.magic, row.rule) == (b"", rule)]


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def same_rows(ours: str, theirs: str) -> bool:
    """Compare two deployments without their coverage, which is that of a search there and an import here."""
    dumps = [deployment(url) for url in (ours, theirs)]
    for dump in dumps:
        del dump["vc.coverage"]
    return dumps[0] == dumps[1]


@SPELLINGS
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_apps_are_derived_from_the_imported_tape_alone(
    fake_node: FakeNode,
    run: Run,
    database_url: str,
    empty_database_url: str,
    tmp_path: Path,
    form: Format,
    by_statements: bool,
) -> None:
    """Spends, heights, several payloads and coinbases arrive, and so does what the apps have covered."""
    ride(fake_node)
    apps = ride_apps(by_statements=by_statements)
    run(*apps)
    export(database_url, tmp_path / "export", form=form)
    import_tape(empty_database_url, tmp_path / "export")
    assert ask(empty_database_url, INPUTS) == ask(database_url, INPUTS)
    assert [covered(empty_database_url, app) for app in apps] == [[(0, TIP)], [(106, TIP)], [(0, TIP)]]
    assert advance(empty_database_url, tmp_path, *apps) == TIP
    assert value(empty_database_url, "SELECT count(*) FROM rides.rides") == 2
    assert same_rows(empty_database_url, database_url)


def test_the_import_continues_with_a_node(
    fake_node: FakeNode, run: Run, database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    """Outputs that were made in imported blocks are tracked in those that follow, and after a rollback."""
    story = ride(fake_node)
    run(*ride_apps())
    export(database_url, tmp_path / "export", form="csv", what=["tape"])
    import_tape(empty_database_url, tmp_path / "export")
    advance(empty_database_url, tmp_path, *ride_apps())
    story.go_on(fake_node)
    for _ in range(2):
        for url in (database_url, empty_database_url):
            run(*ride_apps(), database=url)
        assert same_rows(empty_database_url, database_url)
        fake_node.reorg(5, 6)
    assert value(empty_database_url, "SELECT count(*) FROM virtualchain.reorgs") == 1


def test_a_tape_in_parts_covers_what_the_parts_do(origin: str, database_url: str, tmp_path: Path) -> None:
    """Coverage is joined over the parts; a part alone does not cover what is in front of it."""
    [rides, several, stones] = ride_apps()
    done = export(origin, tmp_path / "one", form="csv", what=["tape"], last=104)
    assert {row.until_block for row in done.manifest.coverage if row.is_tracking} == {104}
    export(origin, tmp_path / "two", form="csv", what=["tape"], first=103)
    import_tape(database_url, tmp_path / "one")
    assert [covered(database_url, app) for app in (rides, several, stones)] == [[(0, 104)], [], [(0, 104)]]
    assert advance(database_url, tmp_path, rides, stones) == 104
    import_tape(database_url, tmp_path / "two")
    assert covered(database_url, several) == [(106, TIP)]
    assert advance(database_url, tmp_path, rides, several, stones) == TIP
    assert same_rows(database_url, origin)


@pytest.mark.parametrize(
    "other",
    [
        rides_app(needs=("height",), by_statements=True),
        rides_app(needs=("height",), version="2"),
        rides_app(),
        rides_app("riders", needs=("height",)),
    ],
    ids=["other code", "another version", "other needs", "another app"],
)
def test_other_rules_need_blocks(origin: str, database_url: str, exported: Path, other: App) -> None:
    """What other rules or other code would track is not on the tape: the app waits for a node."""
    import_tape(database_url, exported)
    assert covered(database_url, other) == []
    with pytest.raises(NodeError, match="has to be fetched"):
        advance(database_url, exported, other)
    assert ask(database_url, "SELECT block_id FROM vc.snapshots") == []


def test_what_other_code_began_covers_nothing(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """What the code of before did not track, and that of now would have, is not lost by an upgrade."""
    minted = fake_node.send(b"rim7")
    fake_node.mine([minted])
    run(careless_app())
    run(rides_app())  # it continues with the tables as they are
    moved = spending([coin(minted, 1)])
    fake_node.mine([moved])
    run(rides_app())
    assert query("SELECT * FROM rides.rides") == []
    assert (covered(database_url, careless_app()), covered(database_url, rides_app())) == ([(0, 102)], [])
    assert upgrade(database_url, read_contract(rides_app()), lambda: open_source(fake_node.url)) is not None
    assert query("SELECT txid, amount FROM rides.rides") == [{"txid": moved.txid, "amount": 7}]
    assert covered(database_url, rides_app()) == [(0, 103)]


def test_the_log_says_what_there_is_of_a_payload(origin: str, tmp_path: Path) -> None:
    """No payload is null, no opcode is empty, and a second payload has its number."""
    done = export(origin, tmp_path / "csv", form="csv", what=["ops", "rejections"])
    with (tmp_path / "csv" / "ops.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["app"] == "several"]
    assert [(row["opcode"], row["payload"], row["payload_index"]) for row in rows] == [
        (r"\x", r"\x30", "0"),
        (r"\x", r"\x33", "0"),
        (r"\x", r"\x34", "2"),
        (r"\x", r"\x30", "0"),
        (r"\x", "", "0"),
        (r"\x", r"\x30", "0"),
        (r"\x", r"\x39", "0"),
    ]
    assert [column.name for column in done.manifest.files[1].columns][-1] == "payload_index"
    export(origin, tmp_path / "parquet", what=["ops"])
    ops = parquet.read_table(tmp_path / "parquet" / "ops.parquet").to_pylist()
    assert [row["payload"] for row in ops if row["app"] == "stones"] == [b"77", None]


def test_an_export_of_an_earlier_version_is_imported(
    fake_node: FakeNode, run: Run, database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    """Without the columns of tracked outputs there are none; everything else is as before."""
    fake_node.mine([fake_node.send(b"rim7"), fake_node.send(b"ria")])
    plain = App("plain", magic=b"ri")
    plain.add(b"m", parse=lambda payload: {"payload": payload.hex()})
    run(plain)
    export(database_url, tmp_path / "export", form="csv", what=["tape"])
    as_before(tmp_path / "export")
    import_tape(empty_database_url, tmp_path / "export")
    assert ask(empty_database_url, INPUTS) == ask(database_url, INPUTS)
    advance(empty_database_url, tmp_path, plain)
    assert deployment(empty_database_url) == deployment(database_url)


def as_before(folder: Path) -> None:
    """Make an export what an earlier version would have written."""

    def drop_columns(lines: Lines) -> None:
        for line in lines:
            del line[-2:]

    def drop_from_manifest(document: dict[str, Any]) -> None:
        for file in document["files"]:
            file["columns"] = [
                column for column in file["columns"] if column["name"] not in {"spent_at", "tracked_by"}
            ]

    change_rows(folder, "inputs", drop_columns)
    change_manifest(folder, drop_from_manifest)


DAMAGE: dict[str, tuple[str, Callable[[str], str], str]] = {
    "a height too many": ("spent_at", lambda text: text[:-1] + ",4}", "spent_at has 2 places for 1"),
    "a height to come": ("spent_at", lambda _: "{9999}", "spent_at has a place that is not below"),
    "heights that are none": ("spent_at", lambda _: "{x}", "is not an array of numbers"),
    "an app twice": ("tracked_by", lambda text: text[:-1] + ",rides}", "tracked_by is not a sorted list"),
    "apps unsorted": ("tracked_by", lambda text: "{x," + text[1:], "tracked_by is not a sorted list"),
    "an app without a name": ("tracked_by", lambda _: '{""}', "tracked_by is not a sorted list"),
    "no app": ("tracked_by", lambda _: "{}", "has no magic, and no app's tracking asked for it"),
    "a null": ("tracked_by", lambda _: "{NULL}", "is not an array of texts"),
    "a missing list": ("tracked_by", lambda _: "", "is not an array of texts"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_refused(exported: Path, empty_database_url: str, case: str) -> None:
    """What an input says of tracking must be possible."""
    column, change, complaint = DAMAGE[case]

    def damage(lines: Lines) -> None:
        place = lines[0].index(column)
        [line] = [line for line in lines if line[:2] == ["103", "1"]]
        line[place] = change(line[place])

    change_rows(exported, "inputs", damage)
    with pytest.raises(DamagedExport, match=complaint):
        import_tape(empty_database_url, exported)


@pytest.mark.parametrize(
    ("place", "column", "text", "complaint"),
    [
        (["106", "0"], "tracked_by", "{several}", "a coinbase spends nothing"),
        (["106", "0"], "senders", '[{"value": 1, "script_pubkey": ""}]', "it has 0 inputs and 1 senders"),
        (["106", "0"], "txindex", "5", "it is a coinbase"),
        (["107", "1"], "txindex", "0", "is a coinbase, and it is not"),
    ],
)
def test_a_coinbase_that_spends_is_refused(
    exported: Path, empty_database_url: str, place: list[str], column: str, text: str, complaint: str
) -> None:
    """The first transaction of a block is its coinbase, and no other one is; it spends nothing."""

    def damage(lines: Lines) -> None:
        [at] = [number for number, line in enumerate(lines) if line[:2] == place]
        lines[at][lines[0].index(column)] = text
        if column == "txindex":  # it stays the only one in its block, so that rows are in order
            lines[:] = [line for number, line in enumerate(lines) if number in {0, at} or line[0] != place[0]]

    change_rows(exported, "inputs", damage)
    with pytest.raises(DamagedExport, match=complaint):
        import_tape(empty_database_url, exported)


def test_coverage_that_never_ends_ends_with_the_export(exported: Path, empty_database_url: str) -> None:
    """What an app that tracks outputs has covered does not continue with blocks, whatever a manifest says."""

    def never_end(document: dict[str, Any]) -> None:
        for row in document["coverage"]:
            row["until_block"] = None

    change_manifest(exported, never_end)
    import_tape(empty_database_url, exported)
    assert covered(empty_database_url, ride_apps()[0]) == [(0, TIP)]

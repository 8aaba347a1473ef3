"""Imports: a tape imported from files is the same tape, and apps derive the same state without a node."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from tests.integration.store.test_postgresql_versions import running
from tests.simulation import crashes
from tests.support import representative
from tests.support.servers import value
from tests.support.tables import deployment, tables
from virtualchain import App, StateEngine
from virtualchain.bitcoin.networks import NETWORKS
from virtualchain.bitcoin.source import Offline
from virtualchain.errors import NodeError, StoreError, UsageError, WriterBusy
from virtualchain.store.database import connect_writer
from virtualchain.store.tape import Tape
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer, installations
from virtualchain.transfer.exporting import export
from virtualchain.transfer.files import Format
from virtualchain.transfer.importing import import_tape

ROOT = Path(__file__).parents[3]
TAPE = ("vc.blocks", "vc.inputs", "vc.coverage", "vc.deployment")
TIP = "SELECT max(block_id) FROM vc.blocks"


class Origin(NamedTuple):
    """A deployment, and the folder of its apps' state files."""

    url: str
    tip: int
    states: Path


def apps() -> list[object]:
    """Return the apps of the deployment: two with tables of all kinds, and an opaque one."""
    return [representative.app(), crashes.table_app(), crashes.Tally()]


@pytest.fixture(scope="module")
def origin(database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    """Return a deployment of three apps."""
    url, states = database_server.clone(), tmp_path_factory.mktemp("states")
    with FakeNode() as node:
        for block in range(30):
            node.mine(
                [node.send(b"cro%d" % (number % 7), sender=f"s{number}") for number in range(block % 4)]
            )
        representative.feed(node)
        with StateEngine(
            *apps(), database=url, source=node.url, confirmations=0, state_folder=states
        ) as engine:
            tip = engine.build()
    yield Origin(url, tip, states)
    database_server.drop(url)


@pytest.fixture
def exported(origin: Origin, tmp_path: Path) -> Path:
    """Return an export of the whole tape as CSV."""
    export(origin.url, tmp_path / "export", form="csv", what=["tape"])
    return tmp_path / "export"


def advance(url: str, folder: Path, *to_run: object, network: str = "regtest") -> int:
    """Advance apps along the tape without a node."""
    source = Offline(NETWORKS[network])
    with StateEngine(*to_run, database=url, source=source, confirmations=0, state_folder=folder) as engine:
        return engine.build()


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_tape_is_exported_and_imported(
    origin: Origin, empty_database_url: str, tmp_path: Path, form: Format
) -> None:
    """Blocks, inputs and coverage are the same rows; apps derive the same log, tables and hashes."""
    export(origin.url, tmp_path / "export", form=form)
    done = import_tape(empty_database_url, tmp_path / "export")
    assert (done.network, done.first, done.last) == ("regtest", 0, origin.tip)
    assert (done.blocks, done.inputs) == (origin.tip + 1, value(origin.url, "SELECT count(*) FROM vc.inputs"))
    ours, theirs = tables(empty_database_url), tables(origin.url)
    assert {name: ours[name] for name in TAPE} == {name: theirs[name] for name in TAPE}
    assert advance(empty_database_url, tmp_path, *apps()) == origin.tip
    assert deployment(empty_database_url) == deployment(origin.url)
    assert (tmp_path / "tally.state").read_bytes() == (origin.states / "tally.state").read_bytes()


def test_apps_derive_the_hashes_of_the_manifest(
    origin: Origin, empty_database_url: str, tmp_path: Path
) -> None:
    """The manifest alone shows whether an app derived the same state."""
    done = export(origin.url, tmp_path / "export", form="csv", last=origin.tip - 3)
    import_tape(empty_database_url, tmp_path / "export")
    advance(empty_database_url, tmp_path, *apps())
    assert export(empty_database_url, tmp_path / "again", form="csv").manifest.apps == done.manifest.apps
    assert done.manifest.apps[0]["block_id"] == origin.tip - 3


def test_a_search_that_waits_does_not_cover_what_is_not_there(
    origin: Origin, fake_node: FakeNode, database_url: str, tmp_path: Path
) -> None:
    """On a database without blocks, a search was to begin with a lower block than the imported tape does."""
    app = App("early", magic=representative.app().magic, valid_transaction_window=0)
    app.add(b"x", parse=lambda payload: {})
    with StateEngine(app, database=database_url, source=fake_node.url, confirmations=10_000) as engine:
        engine.build()
    assert value(database_url, "SELECT min(from_block) FROM vc.coverage") == 0
    export(origin.url, tmp_path / "export", form="csv", what=["tape"], first=20)
    import_tape(database_url, tmp_path / "export")
    assert value(database_url, "SELECT min(from_block) FROM vc.coverage") == 20


def test_a_second_import_finds_nothing_new(origin: Origin, exported: Path, database_url: str) -> None:
    """A second import writes no row again."""
    import_tape(database_url, exported)
    before = tables(database_url, versions=True)
    assert (import_tape(database_url, exported).blocks, value(database_url, TIP)) == (0, origin.tip)
    assert tables(database_url, versions=True) == before


def test_a_tape_is_imported_in_parts(origin: Origin, database_url: str, tmp_path: Path) -> None:
    """Each part continues the tape, whether it begins after the tip or overlaps it: the tape is the same."""
    for name, first, last in (("a", None, 110), ("b", 111, 120), ("c", 100, 130), ("d", 90, None)):
        export(origin.url, tmp_path / name, what=["tape"], first=first, last=last)
    for name, tip in (("a", 110), ("b", 120), ("c", 130)):
        import_tape(database_url, tmp_path / name)
        advance(database_url, tmp_path, *apps())
        assert value(database_url, TIP) == tip
    assert import_tape(database_url, tmp_path / "a").blocks == 0
    import_tape(database_url, tmp_path / "d")
    advance(database_url, tmp_path, *apps())
    assert deployment(database_url) == deployment(origin.url)


def test_a_tape_may_begin_anywhere(origin: Origin, database_url: str, tmp_path: Path) -> None:
    """Chain work counts from the exporting deployment's first block, and no app starts before the tape."""
    export(origin.url, tmp_path / "part", what=["tape"], first=120)
    import_tape(database_url, tmp_path / "part")
    assert value(database_url, "SELECT min(block_id) FROM vc.blocks") == 120
    rows = "SELECT array_agg(format('%s', b) ORDER BY block_id) FROM vc.blocks AS b WHERE block_id >= 120"
    assert value(database_url, rows) == value(origin.url, rows)
    with pytest.raises(NodeError, match=r"block 119 has to be fetched, .* and there is no node here"):
        advance(database_url, tmp_path, representative.app())
    late = App("late", magic=b"re", first_block_id=125)
    late.add(b"o", parse=lambda payload: {"text": payload.decode()})
    assert advance(database_url, tmp_path, late) == origin.tip


def test_a_node_continues_after_an_import(database_url: str, empty_database_url: str, tmp_path: Path) -> None:
    """An imported tape that a node continues equals the tape of a node alone."""
    with FakeNode() as node:
        representative.feed(node)
        options: dict[str, Any] = {"source": node.url, "confirmations": 0, "state_folder": tmp_path}
        with StateEngine(*apps(), database=database_url, **options) as engine:
            engine.build(105)
            export(database_url, tmp_path / "export", what=["tape"])
            engine.build()
        import_tape(empty_database_url, tmp_path / "export")
        with StateEngine(*apps(), database=empty_database_url, **options) as engine:
            engine.build()
    assert deployment(empty_database_url) == deployment(database_url)


def test_an_empty_deployment_is_imported(database_url: str, empty_database_url: str, tmp_path: Path) -> None:
    """A deployment without blocks carries over its network; one that was never started, nothing."""
    export(database_url, tmp_path / "nothing")
    assert import_tape(empty_database_url, tmp_path / "nothing").network is None
    with closing(connect_writer(database_url)) as connection:
        Tape(connection).bind("signet", NETWORKS["signet"].genesis_hash)
    export(database_url, tmp_path / "network", form="csv")
    done = import_tape(empty_database_url, tmp_path / "network")
    assert (done.network, done.first, done.blocks) == ("signet", None, 0)
    assert value(empty_database_url, "SELECT network FROM vc.deployment") == "signet"
    assert advance(empty_database_url, tmp_path, representative.app(), network="signet") == -1


def test_another_network_is_refused(exported: Path, database_url: str) -> None:
    """A database that follows another chain is not changed."""
    with closing(connect_writer(database_url)) as connection:
        Tape(connection).bind("signet", NETWORKS["signet"].genesis_hash)
    before = tables(database_url, versions=True)
    with pytest.raises(StoreError, match=r"follows signet, but .* was exported from regtest"):
        import_tape(database_url, exported)
    assert tables(database_url, versions=True) == before


def test_a_gap_is_refused(origin: Origin, database_url: str, tmp_path: Path) -> None:
    """A gap is refused on either side of the tape, and the message says where to export from."""
    for name, first, last in (("middle", 50, 60), ("late", 62, 70), ("early", 40, 55)):
        export(origin.url, tmp_path / name, what=["tape"], first=first, last=last)
    import_tape(database_url, tmp_path / "middle")
    for name in ("late", "early"):
        with pytest.raises(UsageError, match=r"holds blocks 50 to 60: .* from block 61 on"):
            import_tape(database_url, tmp_path / name)
    assert value(database_url, "SELECT count(*) FROM vc.blocks") == 11


@pytest.mark.parametrize("above_fork", [None, 1, 3])
def test_another_branch_is_refused(
    fake_node: FakeNode, database_url: str, empty_database_url: str, tmp_path: Path, above_fork: int | None
) -> None:
    """Another branch is refused if the export begins below the fork, right above it, or after our tip."""
    options: dict[str, Any] = {"source": fake_node.url, "confirmations": 0}
    fake_node.mine([fake_node.send(b"reo1 0 x")], n=2)
    with StateEngine(representative.app(), database=database_url, **options) as engine:
        engine.build()
    fork = fake_node.height - 2
    fake_node.reorg(2, n=4)
    with StateEngine(representative.app(), database=empty_database_url, **options) as engine:
        engine.build()
    first = None if above_fork is None else fork + above_fork
    export(empty_database_url, tmp_path / "theirs", what=["tape"], first=first)
    before = tables(database_url, versions=True)
    with pytest.raises(UsageError, match="they follow different branches of the chain"):
        import_tape(database_url, tmp_path / "theirs")
    assert tables(database_url, versions=True) == before


def test_a_pinned_block_is_required(origin: Origin, exported: Path, database_url: str) -> None:
    """A database with a pinned block does not import another one in its place."""
    with closing(connect_writer(database_url)) as connection:
        Tape(connection).pin(50, "ab" * 32)
    with pytest.raises(UsageError, match=f"only chains with {'ab' * 32} there, which is pinned"):
        import_tape(database_url, exported)
    assert value(database_url, TIP) is None
    assert origin.tip > 50


def test_an_app_whose_magic_was_not_searched_for_waits_for_a_node(
    fake_node: FakeNode, database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    """Blocks imported without the app's magic are searched once there is a node; until then the app waits."""
    other = App("other", magic=b"ot")
    other.add(b"o", parse=lambda payload: {"text": payload.decode()})
    representative.feed(fake_node)
    fake_node.mine([fake_node.send(b"otolater")])
    options: dict[str, Any] = {"source": fake_node.url, "confirmations": 0}
    with StateEngine(representative.app(), database=empty_database_url, **options) as engine:
        engine.build()
    export(empty_database_url, tmp_path / "export", what=["tape"])
    with StateEngine(other, database=database_url, **options) as engine:
        engine.build(105)
    import_tape(database_url, tmp_path / "export")
    with pytest.raises(NodeError, match="was never searched for an app's magic, and there is no node here"):
        advance(database_url, tmp_path, other)
    with StateEngine(other, database=database_url, **options) as engine:
        engine.build()
    assert value(database_url, "SELECT array_agg(fields ->> 'text') FROM virtualchain.ops") == ["later"]


def test_searches_are_carried_over(origin: Origin, database_url: str, tmp_path: Path) -> None:
    """A search that both have continues; one that the export does not have ends, and a new one begins."""
    coverage = "SELECT array_agg(concat_ws(' ', magic, from_block, until_block) ORDER BY magic, from_block) "
    coverage += "FROM vc.coverage"
    for name, first, last in (("a", None, 100), ("b", 101, 110)):
        export(origin.url, tmp_path / name, what=["tape"], first=first, last=last)
    import_tape(database_url, tmp_path / "a")
    assert value(database_url, coverage) == ["\\x6372 0", "\\x7265 0"]
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE vc.coverage SET until_block = 70 WHERE magic = 'cr'")
        connection.execute(
            "INSERT INTO vc.coverage VALUES ('\\x01', 'last_op_return', 5), ('\\x02', 'x', 101)"
        )
    import_tape(database_url, tmp_path / "b")
    assert value(database_url, coverage) == ["\\x01 5 100", "\\x6372 0 70", "\\x6372 101", "\\x7265 0"]


def test_killed_in_the_middle_nothing_is_there(
    origin: Origin, exported: Path, database_url: str, tmp_path: Path
) -> None:
    """A killed import leaves nothing behind, and a second one yields the same tape."""
    program = (
        "import sys; from pathlib import Path; from virtualchain.transfer.importing import import_tape; "
    )
    program += "import_tape(sys.argv[1], Path(sys.argv[2]), wait=True)"
    arguments = [sys.executable, "-c", program, database_url, str(exported)]
    with psycopg.connect(database_url) as blocker:
        blocker.execute(
            "LOCK TABLE vc.coverage IN ACCESS EXCLUSIVE MODE"
        )  # the import takes it after all blocks and inputs
        process = subprocess.Popen(arguments, cwd=ROOT)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'coverage'"
        )
        deadline = time.monotonic() + 30
        while not value(database_url, waiting):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert value(database_url, "SELECT count(*) FROM vc.blocks") == 0
    assert subprocess.run(arguments, cwd=ROOT, check=False).returncode == 0
    assert {name: tables(database_url)[name] for name in TAPE} == {
        name: tables(origin.url)[name] for name in TAPE
    }


def test_one_writer_at_a_time(exported: Path, database_url: str) -> None:
    """An import is a writer, like a sync."""
    with closing(connect_writer(database_url)), pytest.raises(WriterBusy):
        import_tape(database_url, exported)


def test_an_incomplete_export_is_refused(exported: Path, database_url: str, tmp_path: Path) -> None:
    """A folder without a manifest, which is written last, is not a complete export."""
    (exported / "manifest.json").rename(exported / "manifest.json.part")
    for folder in (exported, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            UsageError, match=r"manifest.json cannot be read .*name the folder of a complete export"
        ):
            import_tape(database_url, folder)


def test_an_export_without_a_tape_is_refused(origin: Origin, database_url: str, tmp_path: Path) -> None:
    """The message says how to export a tape."""
    export(origin.url, tmp_path / "ops", what=["ops", "blocks"])
    with pytest.raises(UsageError, match="holds no tape: export one with --what tape"):
        import_tape(database_url, tmp_path / "ops")


def test_a_folder_may_be_moved(origin: Origin, exported: Path, database_url: str, tmp_path: Path) -> None:
    """An export does not depend on its path."""
    shutil.move(exported, tmp_path / "else where")
    assert import_tape(database_url, tmp_path / "else where").last == origin.tip


def test_from_an_older_postgresql_to_a_newer_one(tmp_path: Path) -> None:
    """Export and import move a deployment to another major version of the embedded server."""
    installed = installations()
    if len(installed) < 2:
        pytest.skip(f"only PostgreSQL {', '.join(map(str, installed))} is installed")
    old, *_, new = installed.values()
    with FakeNode() as node, running(old) as server:
        representative.feed(node)
        app = representative.app()
        with StateEngine(app, database=server.url, source=node.url, confirmations=0) as engine:
            tip = engine.build()
        export(server.url, tmp_path / "export")
        with running(new) as newer_server:
            import_tape(newer_server.url, tmp_path / "export")
            assert advance(newer_server.url, tmp_path, representative.app()) == tip
            assert deployment(newer_server.url) == deployment(server.url)


def test_an_offline_source_has_no_blocks() -> None:
    """An offline source reports, when asked for a block, that there is no node."""
    source = Offline(NETWORKS["regtest"])
    for ask in (source.block_hash, source.raw_block, lambda _: source.spent_outputs("00", {})):
        call: Callable[[Any], object] = ask
        with pytest.raises(NodeError, match="there is no node here"):
            call(0)
    assert source.is_invalid(0, "00") is False
    source.wake()
    source.wait(30)
    source.close()

"""A sample of blocks: what it finds, how little it reads, and that it can be repeated."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.audit.conftest import Clone
from tests.integration.conftest import Query, Run
from tests.support import damage as support
from tests.support.checkpoints import contracts, create_checkpoint, say, words
from tests.support.moving import an_app, story
from tests.support.ride_story import ride_apps
from tests.support.tables import tables
from virtualchain import App, State, StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.audit.sample import LENGTH, choose, verify_sample
from virtualchain.audit.verify import Report
from virtualchain.checkpoint.apply import apply
from virtualchain.engine.options import Listener, Options, Progress
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

NOTES = [read_contract(support.notes()), read_contract(support.Ledger())]


def sample(url: str, tmp_path: Path, *apps: Any, number: int = 4, seed: int = 1, **options: Any) -> Report:
    """Check a sample of the deployment at `url` with the code of some apps."""
    own = Options(history=2, state_folder=tmp_path)
    return verify_sample(url, number, seed, apps, options=own, **options)


@pytest.mark.parametrize("of", ["kept", "pruned"])
def test_a_whole_deployment_passes(clone: Clone, tmp_path: Path, of: str) -> None:
    """Stretches are judged again where history reaches, others are checked, and nothing is left behind."""
    url = clone(of=of)
    before = tables(url)
    report = sample(url, tmp_path, *NOTES)
    assert report.faults == []
    assert any(stretch.judged_again == ["ledger", "notes"] for stretch in report.stretches)
    assert sample(url, tmp_path).faults == []
    assert tables(url) == before
    assert list(tmp_path.iterdir()) == []


def test_apps_that_track_outputs_pass(clone: Clone, tmp_path: Path) -> None:
    """They begin a stretch with the outputs that they tracked before it."""
    report = sample(clone(of="rides"), tmp_path, *map(read_contract, ride_apps()), number=8)
    assert (report.faults, report.notes) == ([], [])
    assert {app for stretch in report.stretches for app in stretch.judged_again} == {
        "rides",
        "several",
        "stones",
    }


def test_every_first_block(clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stretch of one block, wherever it is, leads to the digests and rows that the log has."""
    monkeypatch.setattr("virtualchain.audit.sample.LENGTH", 1)
    for of, apps in (("kept", NOTES), ("rides", [read_contract(app) for app in ride_apps()])):
        report = sample(clone(of=of), tmp_path, *apps, number=12, seed=3)
        assert (report.faults, report.notes) == ([], [])
        assert len({stretch.first for stretch in report.stretches}) > 5


@pytest.mark.parametrize(
    ("statement", "message", "place"),
    [
        pytest.param(
            "UPDATE vc.inputs SET fee = fee + 1 WHERE block_id = 107 - 4 AND txindex = 1",
            "fee",
            {"block_id": 103, "txindex": 1},
            id="tape",
        ),
        pytest.param(
            "UPDATE vc.ops SET payload = 'forged' WHERE block_id = 103",
            "payload",
            {"block_id": 103, "vtxindex": 0},
            id="op",
        ),
        pytest.param(
            "UPDATE vc.snapshots SET consensus_hash = substr(sha256('x'), 1, 16) "
            "WHERE app = 'notes' AND block_id = 104",
            "consensus hash is",
            {"app": "notes", "block_id": 104},
            id="digest",
        ),
        pytest.param(
            "DELETE FROM vc.snapshots WHERE app = 'notes' AND block_id = 104",
            "digests are missing",
            {"app": "notes", "block_id": 104},
            id="digests deleted",
        ),
        pytest.param(
            "UPDATE notes__1.notes SET text = 'forged' WHERE key = 'd'",
            "do not lead",
            {"app": "notes", "block_id": 106},
            id="row",
        ),
        pytest.param(
            "DELETE FROM notes__1.notes_history WHERE key = 'b'",
            "do not lead",
            {"app": "notes", "block_id": 104},
            id="history",
        ),
        pytest.param(
            "UPDATE vc.state_files SET content = '{}' WHERE block_id = 104",
            "state hash",
            {"app": "ledger", "block_id": 104},
            id="file",
        ),
    ],
)
def test_damage_in_a_stretch_is_found(
    clone: Clone, tmp_path: Path, statement: str, message: str, place: Mapping[str, Any]
) -> None:
    """Tape, log, history and files of the stretch are checked, with code and without."""
    for code in ((), NOTES):
        faults = sample(clone(statement), tmp_path, *code).faults
        assert any(
            message in fault.message and all(getattr(fault, name) == value for name, value in place.items())
            for fault in faults
        ), faults


def test_a_verdict_that_no_digest_covers(clone: Clone, tmp_path: Path) -> None:
    """Judging the stretch again shows the reason of a rejection that was changed."""
    url = clone("UPDATE vc.rejections SET reason = 'forged' WHERE step = 'check'")
    faults = sample(url, tmp_path, *NOTES).faults
    assert {(fault.table, fault.block_id, fault.txindex) for fault in faults} == {("rejections", 102, 4)}
    assert sample(url, tmp_path).faults == []


def test_the_choice_can_be_repeated() -> None:
    """The same seed chooses the same blocks; every second stretch is where apps can judge it again."""
    first, again, other = (choose(20, seed, 0, 100_000, 99_000) for seed in (1, 1, 2))
    assert first == again != other
    assert all(stretch.first >= 99_000 for stretch in first[::2])
    assert any(stretch.first < 50_000 for stretch in first[1::2])
    assert max(stretch.last - stretch.first + 1 for stretch in first) == LENGTH
    short = choose(2000, 1, 5, 9, 900)
    assert {block for each in short for block in (each.first, each.last)} == {5, 6, 7, 8, 9}


def test_an_app_that_began_with_a_checkpoint(
    fake_node: FakeNode, run: Run, database_url: str, database_server: DatabaseServer, tmp_path: Path
) -> None:
    """What it took since then is judged again, from the checkpoint's rows on, unlike with --deep."""
    say(fake_node, "one two", "three one", "-two")
    run(words())
    create_checkpoint(database_url, tmp_path / "file")
    other = database_server.clone()
    try:
        apply(other, tmp_path / "file", contracts(words()), options=Options(state_folder=tmp_path))
        say(fake_node, "four", "one", "-three")
        run(words(), database=other)
        report = sample(other, tmp_path, *contracts(words()), number=6)
        assert (report.faults, report.notes) == ([], [])
        assert all(stretch.judged_again == ["words"] for stretch in report.stretches)
        with psycopg.connect(other) as connection:
            connection.execute("UPDATE vc.rejections SET reason = 'forged'")
            connection.execute("UPDATE vc.ops SET payload_index = 1 WHERE block_id = 106")
        assert sample(other, tmp_path, *contracts(words()), number=6).faults
    finally:
        database_server.drop(other)


def test_hashes_of_earlier_blocks(
    fake_node: FakeNode, run: Run, query: Query, database_url: str, tmp_path: Path
) -> None:
    """Callbacks that look up old hashes are answered from the live build's log, as they were before."""
    app = App("looks", magic=b"lo", projections="CREATE TABLE seen (n integer PRIMARY KEY, hash text)")

    def check(op: dict[str, Any], state: State) -> bool:
        oldest = state.consensus_hash(state.block_id - 60)
        recent = state.consensus_hash(state.block_id - 1)
        assert oldest is not None
        assert recent is not None
        return state.is_fresh(recent) and not state.is_fresh(oldest)

    def commit(op: dict[str, Any], state: State) -> None:
        old = state.consensus_hash(state.block_id - 50)
        state.execute("INSERT INTO seen VALUES (%s, %s)", [state.block_id, old])

    app.add(b"k", parse=lambda payload: {"n": len(payload)}, check=check, commit=commit)
    for _ in range(6):
        fake_node.mine([fake_node.send(b"lok")])
        fake_node.mine(n=3)
    run(app)
    assert query("SELECT count(*) AS n FROM virtualchain.ops") == [{"n": 6}]
    report = sample(database_url, tmp_path, read_contract(app), number=10)
    assert (report.faults, report.notes) == ([], [])
    assert all(stretch.judged_again for stretch in report.stretches)


def test_an_app_that_lags_is_not_damaged(
    fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path
) -> None:
    """Blocks above the last one of an app that lags, or of a build that was replaced, are not missing."""
    apps = [App("one", magic=b"lo"), App("two", magic=b"lt")]
    for app in apps:
        app.add(b"k", parse=lambda payload: {"n": len(payload)})
    run(*apps)
    last = fake_node.height
    fake_node.mine(n=30)
    run(apps[0])
    for seed in range(10):
        report = sample(database_url, tmp_path, *map(read_contract, apps), number=2, seed=seed)
        assert report.faults == []
        if any(stretch.first > last + 1 for stretch in report.stretches):
            return
    pytest.fail("no stretch is above the last block")


def test_a_writer_may_run_meanwhile(fake_node: FakeNode, database_url: str, tmp_path: Path) -> None:
    """Blocks and rollbacks that come meanwhile are not faults; what could not be judged is noted."""
    story(fake_node, 14, 12)
    with StateEngine(
        an_app(), database=database_url, source=fake_node.url, confirmations=0, history=30
    ) as engine:
        engine.build()
        steps: list[int] = []

        def on_catch_up(progress: Progress) -> None:
            steps.append(progress.block.block_id)
            if len(steps) == 2:
                story(fake_node, 15, 3)
                engine.build()
            elif len(steps) == 30:
                fake_node.reorg(2, 3)
                engine.build()

        report = sample(
            database_url, tmp_path, read_contract(an_app()), listener=Listener(on_catch_up=on_catch_up)
        )
        assert report.faults == []
        assert len(steps) > 30
    assert sample(database_url, tmp_path, read_contract(an_app())).faults == []
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT build FROM vc.apps").fetchall() == [("1",)]

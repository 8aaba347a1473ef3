"""Checkpoints and builds of apps that track outputs: the tracked set is a projection like any other."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.integration.transfer.test_import import advance
from tests.support.checkpoints import contracts, create_checkpoint
from tests.support.ride_story import ride, ride_apps
from tests.support.rides import rides_app, spending
from virtualchain import App
from virtualchain.audit.verify import verify
from virtualchain.checkpoint.apply import apply
from virtualchain.engine.compare import compare
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.options import QUIET, Options
from virtualchain.engine.rebuild import replay
from virtualchain.engine.versions import build_beside, drop, swap
from virtualchain.errors import UsageError
from virtualchain.reading import views
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer
from virtualchain.transfer.exporting import export
from virtualchain.transfer.importing import import_tape

NAMES = ("rides", "several", "stones")
SPELLINGS = pytest.mark.parametrize("by_statements", [False, True], ids=["helper", "statements"])


@pytest.fixture
def other_url(database_server: DatabaseServer) -> Iterator[str]:
    """Return the database of a second deployment."""
    url = database_server.clone()
    yield url
    database_server.drop(url)


def content(url: str, above: int) -> dict[str, list[tuple[Any, ...]]]:
    """Return the apps' rows, and their digests and ops above a block."""
    queries = {
        f"{app}.{table}": f"SELECT * FROM {app}.{table}" for app in NAMES for table in ("rides", "moves")
    }
    queries["snapshots"] = f"SELECT * FROM virtualchain.snapshots WHERE block_id > {above}"
    queries["ops"] = f"SELECT * FROM virtualchain.ops WHERE block_id > {above}"
    with psycopg.connect(url) as connection:
        rows = {name: connection.execute(text.encode()).fetchall() for name, text in queries.items()}
    return {name: sorted(some, key=str) for name, some in rows.items()}


def faults(url: str, apps: list[App]) -> list[str]:
    """Verify a deployment with and without its apps' code."""
    return [str(fault) for code in ((), contracts(*apps)) for fault in verify(url, code).faults]


@SPELLINGS
def test_apps_continue_from_checkpoints(
    fake_node: FakeNode, run: Run, database_url: str, other_url: str, tmp_path: Path, by_statements: bool
) -> None:
    """Outputs that were made below the checkpoint move above it, and again after a rollback."""
    story = ride(fake_node)
    apps = ride_apps(by_statements=by_statements)
    base = run(*apps)
    for app in NAMES:
        create_checkpoint(database_url, tmp_path / app, app)
        apply(other_url, tmp_path / app, contracts(*apps), options=Options(state_folder=tmp_path))
    assert faults(other_url, apps) == []

    def require_same() -> None:
        for url in (database_url, other_url):
            run(*apps, database=url)
        assert content(other_url, base) == content(database_url, base)
        assert len(content(other_url, base)["ops"]) >= 4
        assert faults(other_url, apps) == []

    story.go_on(fake_node)
    require_same()
    fake_node.reorg(2, 3, [spending([each]) for each in reversed(story.coins)])
    require_same()
    assert verify(other_url, contracts(*apps), deep=True).judged_again == []


def test_a_checkpoint_and_an_imported_tape(
    fake_node: FakeNode, run: Run, database_url: str, other_url: str, tmp_path: Path
) -> None:
    """What the tape has above a checkpoint is enough, without a node: its coverage begins there."""
    story = ride(fake_node)
    base = run(*ride_apps())
    for app in NAMES:
        create_checkpoint(database_url, tmp_path / app, app)
    story.go_on(fake_node)
    run(*ride_apps())
    export(database_url, tmp_path / "export", form="csv", what=["tape"], first=base + 1)
    import_tape(other_url, tmp_path / "export")
    for app in NAMES:
        apply(other_url, tmp_path / app, contracts(*ride_apps()), options=Options(state_folder=tmp_path))
    assert advance(other_url, tmp_path, *ride_apps()) == base + 2
    assert content(other_url, base) == content(database_url, base)


def test_a_replay_repairs_what_is_tracked(
    fake_node: FakeNode, run: Run, query: Query, database_url: str, tmp_path: Path
) -> None:
    """A tracked row that was changed past the engine is found and put right, from the tape alone."""
    story = ride(fake_node)
    run(*ride_apps())
    before = query("SELECT * FROM rides.rides ORDER BY txid")
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE rides__1.rides DISABLE TRIGGER USER")
        connection.execute("UPDATE rides__1.rides SET vout = 7 WHERE amount = 12")
        connection.execute("ALTER TABLE rides__1.rides ENABLE TRIGGER USER")
    options = Options(state_folder=tmp_path)
    with closing(
        Deployment(database_url, contracts(*ride_apps()), None, options, repairs="rides")
    ) as deployment:
        done = replay(deployment, "rides", QUIET)
    assert done is not None
    assert {row.table for row in done.differences} >= {"rides"}
    assert query("SELECT * FROM rides.rides ORDER BY txid") == before
    story.go_on(fake_node)
    run(*ride_apps())
    assert faults(database_url, ride_apps()) == []


def test_a_build_beside_is_compared_and_swapped(
    fake_node: FakeNode, run: Run, query: Query, database_url: str, other_url: str, tmp_path: Path
) -> None:
    """By the same rules it is derived from the tape and does not differ; swapped in, it continues."""
    story = ride(fake_node)
    run(*ride_apps(), database=other_url)
    run(*ride_apps())
    rides = ride_apps()[0]
    build_beside(database_url, contracts(rides)[0], "again", Options(state_folder=tmp_path))
    with views.snapshot(database_url) as connection:
        result = compare(connection, "rides", "again")
    assert (result.difference, result.verdict, result.row) == (None, None, None)
    assert result.rows["rides"] == (2, 2)
    swap(database_url, "rides", "again")
    story.go_on(fake_node)
    for url in (database_url, other_url):
        run(*ride_apps(), database=url)
    assert content(database_url, -1) == content(other_url, -1)
    assert faults(database_url, ride_apps()) == []
    drop(database_url, "rides", "1")
    assert faults(database_url, ride_apps()) == []
    assert query("SELECT count(*) AS n FROM vc.coverage WHERE magic = '' AND rule LIKE 'tracking:%'") == [
        {"n": 0}
    ]


def test_a_build_by_other_rules_is_not_derived_from_the_tape(
    fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path
) -> None:
    """A version that may track other outputs needs blocks: the message says which command fetches them."""
    ride(fake_node)
    run(rides_app())
    with pytest.raises(UsageError, match="`virtualchain upgrade rides` does so"):
        build_beside(database_url, contracts(rides_app(version="2"))[0], "v2", Options(state_folder=tmp_path))


def test_a_second_payload_is_named_by_a_comparison(
    fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path
) -> None:
    """Of two verdicts on one transaction, those on the same payload are compared."""
    ride(fake_node)
    run(*ride_apps())
    several = ride_apps()[1]
    build_beside(database_url, contracts(several)[0], "again", Options(state_folder=tmp_path))
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE vc.snapshots SET consensus_hash = substr(sha256('x'), 1, 16) "
            "WHERE build = 'again' AND block_id = 106"
        )
        connection.execute(
            "WITH gone AS (DELETE FROM vc.ops WHERE build = 'again' AND payload = '4' RETURNING *) "
            "INSERT INTO vc.rejections "
            "SELECT app, block_id, txindex, opcode, 'check', 'no', build, payload_index FROM gone"
        )
    with views.snapshot(database_url) as connection:
        verdict = compare(connection, "several", "again").verdict
    assert verdict is not None
    assert (verdict["txindex"], verdict["verdict"]["accepted"]) == (1, {"amount": 4, "to": 0})
    assert verdict["other_verdict"] == {"refused": "check", "reason": "no"}

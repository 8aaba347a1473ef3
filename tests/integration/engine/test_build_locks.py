"""Builds are objects with a lock: what swaps, drops and makers do at the same time loses and revives none."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.integration.engine.test_versions import an_app, mine
from tests.support.listening import once_at
from virtualchain import App, StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.audit.verify import verify
from virtualchain.checkpoint import apply as checkpoints
from virtualchain.checkpoint.create import create
from virtualchain.engine import engine as indexer
from virtualchain.engine.deployment import Deployment, Landed
from virtualchain.engine.options import Listener, Options, Progress
from virtualchain.engine.rebuild import replay
from virtualchain.engine.versions import build_beside, drop, remove, swap
from virtualchain.errors import BuildChanged, DatabaseUnavailable, InUse
from virtualchain.model import ScannedBlock
from virtualchain.reading import views
from virtualchain.store import giving_way, projections
from virtualchain.store.database import connect_builder, connect_migrator, connect_writer
from virtualchain.testing import FakeNode

LOG = ("ops", "rejections", "snapshots", "state_files", "checkpoints")
ORPHANS = " UNION ALL ".join(
    f"SELECT '{table}' AS name FROM vc.{table} AS r LEFT JOIN vc.apps AS a ON a.name = r.app "
    "AND a.build = r.build WHERE a.name IS NULL"
    for table in LOG
)


def another() -> App:
    """Make a second app with the same inputs."""
    app = an_app()
    app.name = "other"
    return app


def before_each_block(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Do something before a deployment takes a block, given its height."""
    take = Deployment.take

    def acting(self: Deployment, scanned: ScannedBlock, *, near_tip: bool) -> list[Landed]:
        act(scanned.block.block_id)
        return take(self, scanned, near_tip=near_tip)

    monkeypatch.setattr(Deployment, "take", acting)


@pytest.mark.parametrize("table", LOG)
def test_no_row_of_the_log_is_without_its_build(
    fake_node: FakeNode, run: Run, query: Query, table: str
) -> None:
    """Whoever writes, the database refuses rows of a build that does not exist, and to drop one with rows."""
    mine(fake_node, b"a")
    run(an_app())
    columns = {
        "ops": "block_id, vtxindex, txindex, opcode, payload, fields, canonical) "
        "VALUES (1, 0, 1, 'o', '', '{}', '{}'",
        "rejections": "block_id, txindex, opcode, step, reason) VALUES (1, 1, 'o', 'parse', ''",
        "snapshots": "block_id, consensus_hash) VALUES (1, decode(repeat('00', 16), 'hex')",
        "state_files": "block_id, content) VALUES (1, ''",
        "checkpoints": "block_id, network, block_hash, consensus_hash, state_hash, is_migration, signers, "
        "has_row_blocks) VALUES (1, '', decode(repeat('00', 32), 'hex'), decode(repeat('00', 16), 'hex'), "
        "decode(repeat('00', 32), 'hex'), false, '{}', true",
    }[table]
    statement = f"INSERT INTO vc.{table} (app, build, {columns}".replace(
        "VALUES (", "VALUES ('texts', 'none', "
    )
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        query(f"{statement}) RETURNING 1")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        query("DELETE FROM vc.apps RETURNING 1")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        query("UPDATE vc.apps SET build = 'none' RETURNING 1")
    if table in {"ops", "snapshots"}:
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            query(f"UPDATE vc.{table} SET build = 'none' RETURNING 1")


def test_no_input_is_without_its_block(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Whoever writes, the database refuses inputs in other blocks, and to remove a block that has some."""
    mine(fake_node, b"a")
    run(an_app())
    columns = "txindex, txid, raw, magics, spent, unusual_keys, fee"
    for statement in (
        f"INSERT INTO vc.inputs (block_id, {columns}) SELECT 7000, {columns} FROM vc.inputs",
        "UPDATE vc.inputs SET block_id = 7000",
        "UPDATE vc.blocks SET block_id = 1000000 + block_id",
        "DELETE FROM vc.blocks",
    ):
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            query(f"{statement} RETURNING 1")
    assert query("UPDATE vc.blocks SET block_id = block_id, time = time RETURNING 1")


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_whoever_does_not_see_all_rows_removes_nothing(
    fake_node: FakeNode, run: Run, database_url: str, query: Query, level: str
) -> None:
    """A transaction that began before the first rows of a build or block does not see them: it is refused."""
    run(an_app())
    with psycopg.connect(database_url) as earlier:
        earlier.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
        earlier.execute("SELECT FROM vc.ops")
        mine(fake_node, b"a")
        run(an_app())
        for statement in (
            "DELETE FROM vc.apps",
            "UPDATE vc.apps SET build = 'none'",
            "DELETE FROM vc.blocks",
        ):
            with pytest.raises(psycopg.Error) as refused, earlier.transaction():
                earlier.execute(statement.encode())
            assert refused.value.sqlstate in {"0A000", "40001"}
    assert query(ORPHANS) == []
    assert verify(database_url).faults == []


def test_only_sessions_that_append_blocks_pass_the_guards(database_url: str) -> None:
    """They say so when they connect, so that no rollback takes it back."""
    sessions: tuple[tuple[Callable[[str], psycopg.Connection], str | None], ...] = (
        (connect_writer, "blocks"),
        (partial(connect_builder, build="texts:v2"), "blocks"),
        (connect_migrator, None),
    )
    for connect, setting in sessions:
        with closing(connect(database_url)) as connection:
            connection.rollback()
            row = connection.execute("SELECT current_setting('virtualchain.appends', true)").fetchone()
        assert row == (setting,)


def test_the_audit_sees_rows_of_no_build(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """They exist if somebody has silenced the guards."""
    mine(fake_node, b"a")
    run(an_app())
    assert verify(database_url).faults == []
    for table, build in (("ops", "gone"), ("snapshots", "gone"), ("snapshots", "a"), ("snapshots", "zz")):
        with psycopg.connect(database_url) as connection:
            copied = f"CREATE TEMPORARY TABLE rows AS SELECT * FROM vc.{table} WHERE build = '1'"
            connection.execute(copied.encode())
            connection.execute("UPDATE rows SET build = %s", [build])
            connection.execute("SET virtualchain.appends = 'blocks'")
            connection.execute(f"INSERT INTO vc.{table} SELECT * FROM rows".encode())
    faults = [(fault.table, fault.app, fault.build) for fault in verify(database_url).faults]
    assert faults == [
        ("ops", "texts", "gone"),
        *(("snapshots", "texts", build) for build in ("a", "gone", "zz")),
    ]


def test_a_build_dropped_under_its_maker_leaves_nothing(
    fake_node: FakeNode, run: Run, database_url: str, query: Query, make_build: Callable[..., Any]
) -> None:
    """The maker ends with a clear error, no row remains, and the next build of that name starts afresh."""
    mine(fake_node, b"a", b"b")
    mine(fake_node, b"c")
    run(an_app())
    with pytest.raises(BuildChanged, match="build v2 of app texts was dropped by another process"):
        make_build(
            an_app("2"),
            "v2",
            on_catch_up=once_at(50, lambda: drop(database_url, "texts", "v2")),
        )
    assert query("SELECT DISTINCT build FROM vc.snapshots") == [{"build": "1"}]
    assert query(ORPHANS) == []
    make_build(an_app("2"), "v2")
    make_build(an_app("2"), "fresh")
    hashes = query("SELECT DISTINCT ON (build) consensus_hash FROM vc.snapshots WHERE build <> '1' "
                   "ORDER BY build, block_id DESC")  # fmt: skip
    assert hashes[0] == hashes[1]
    assert query("SELECT * FROM texts__v2.texts EXCEPT SELECT * FROM texts__fresh.texts") == []


def test_a_drop_waits_for_the_block_of_the_maker(
    fake_node: FakeNode, run: Run, database_url: str, query: Query, make_build: Callable[..., Any]
) -> None:
    """A drop in the middle of a maker's block takes effect after it, whole, or fails; it splits nothing."""
    mine(fake_node, b"a")
    run(an_app())
    app = an_app("2")
    thread = threading.Thread(target=lambda: drop(database_url, "texts", "v2"))

    def in_a_block(ops: Any, state: Any, block_id: int) -> None:
        if block_id == 60:
            thread.start()
            thread.join(0.5)
            assert thread.is_alive()

    app.final(in_a_block)
    with pytest.raises(BuildChanged, match="was dropped"):
        make_build(app, "v2")
    thread.join(20)
    assert query(ORPHANS) == []
    assert query("SELECT build FROM vc.apps") == [{"build": "1"}]


def test_a_killed_maker_leaves_a_build_that_continues(
    fake_node: FakeNode, run: Run, database_url: str, query: Query, make_build: Callable[..., Any]
) -> None:
    """After SIGKILL, the same build is continued, and a new one of that name after a drop starts afresh."""
    mine(fake_node, b"a", b"b")
    run(an_app())
    program = (
        "import sys, os, signal\n"
        "from tests.integration.engine.test_versions import an_app\n"
        "from virtualchain.app.declarations import read_contract\n"
        "from virtualchain.engine.options import Listener\n"
        "from virtualchain.engine.versions import build_beside\n"
        "def die(progress):\n"
        "    if progress.block.block_id == 40: os.kill(os.getpid(), signal.SIGKILL)\n"
        "build_beside(sys.argv[1], read_contract(an_app('2')), 'v2', listener=Listener(on_catch_up=die))\n"
    )
    command = [sys.executable, "-c", program, database_url]
    killed = subprocess.run(command, cwd=Path(__file__).parents[3], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert query("SELECT max(block_id) AS last FROM vc.snapshots WHERE build = 'v2'") == [{"last": 40}]
    drop(database_url, "texts", "v2")
    assert query(ORPHANS) == []
    assert make_build(an_app("2"), "v2").block_id == fake_node.height
    assert query("SELECT count(*) AS n FROM texts__v2.texts") == [{"n": 2}]


def test_a_maker_ends_when_its_build_is_swapped_in(
    fake_node: FakeNode, run: Run, database_url: str, query: Query, make_build: Callable[..., Any]
) -> None:
    """Two processes never advance one build: the writer that runs its code has it from then on."""
    mine(fake_node, b"a")
    run(an_app())
    with pytest.raises(BuildChanged, match="the views of app texts show build v2 now"):
        make_build(
            an_app("2"),
            "v2",
            on_catch_up=once_at(50, lambda: swap(database_url, "texts", "v2")),
        )
    assert run(an_app("2")) == fake_node.height
    assert query("SELECT * FROM texts.texts") == [{"text": "A", "size": 1}]


def test_an_app_removed_under_a_beginning_maker_stays_removed(
    fake_node: FakeNode, run: Run, database_url: str, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A maker that has looked before the app was removed installs no build of an app that is not there."""
    mine(fake_node, b"a")
    run(an_app())
    monkeypatch.setattr("virtualchain.engine.versions.find_build", lambda *_: remove(database_url, "texts"))
    with pytest.raises(BuildChanged, match="app texts was removed"):
        build_beside(database_url, read_contract(an_app("2")), "v2")
    assert query("SELECT * FROM vc.apps") == []


def test_a_swap_in_a_replay_stays(
    fake_node: FakeNode,
    run: Run,
    database_url: str,
    query: Query,
    tmp_path: Path,
    make_build: Callable[..., Any],
) -> None:
    """A replay replaces nothing if the views show another build by then."""
    mine(fake_node, b"a")
    run(an_app())
    make_build(an_app("2"), "v2")
    swap_in = once_at(50, lambda: swap(database_url, "texts", "v2"))
    options = Options(confirmations=0, state_folder=tmp_path)
    deployed = Deployment(database_url, [read_contract(an_app())], None, options)
    try:
        with pytest.raises(BuildChanged, match="nothing was replaced"):
            replay(deployed, "texts", Listener(on_catch_up=swap_in))
    finally:
        deployed.close()
    assert query("SELECT build FROM vc.apps WHERE is_live") == [{"build": "v2"}]
    assert query("SELECT build FROM vc.apps WHERE build = '1'") == [{"build": "1"}]


def test_a_writer_survives_the_swap_and_drop_of_its_build(
    fake_node: FakeNode, database_url: str, query: Query, tmp_path: Path, make_build: Callable[..., Any]
) -> None:
    """In the middle of a stretch, the app is left alone from its next block on, and others continue.

    When a block is reported, the next one may be in flight.
    """
    for number in range(20):
        mine(fake_node, b"t%d" % number)
    other = another()
    last: list[int] = []

    def act(progress: Progress) -> None:
        last.append(progress.block.block_id)
        if progress.block.block_id == 110:
            make_build(an_app("2"), "v2")
            swap(database_url, "texts", "v2")
            drop(database_url, "texts", "1")

    reasons: list[str] = []
    with StateEngine(
        an_app(),
        other,
        database=database_url,
        source=fake_node.url,
        confirmations=0,
        state_folder=tmp_path,
        on_block=act,
        on_wait=reasons.append,
    ) as engine:
        assert engine.build() == fake_node.height
        assert engine.halted() == {}
    assert any("texts shows another build now" in reason for reason in reasons)
    rest, swapped = query("SELECT name, build, block_id FROM virtualchain.apps ORDER BY 1")
    assert rest == {"name": "other", "build": "1", "block_id": fake_node.height}
    assert (swapped["name"], swapped["build"]) == ("texts", "v2")
    assert swapped["block_id"] in {110, 111}
    assert query(ORPHANS) == []


@pytest.mark.parametrize("payload", [None, b"vsotext"], ids=["rests", "judges"])
@pytest.mark.parametrize("near_tip", [0, 1000], ids=["in flight", "waiting"])
def test_a_build_that_was_swapped_and_back_takes_no_block(
    fake_node: FakeNode,
    database_url: str,
    query: Query,
    tmp_path: Path,
    make_build: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    payload: bytes | None,
    near_tip: int,
) -> None:
    """It lacks the blocks of the time between, which the writer learns only after it has sent later ones."""
    other = another()
    settings = partial(
        StateEngine, database=database_url, source=fake_node.url, confirmations=0, state_folder=tmp_path
    )

    def run() -> int:
        with settings(an_app(), other) as engine:
            return engine.build()

    mine(fake_node, b"first")
    run()
    make_build(an_app("2"), "v2")
    start = fake_node.height
    fake_node.mine(n=10)
    fake_node.mine([] if payload is None else [fake_node.send(payload)])
    fake_node.mine(n=20)
    monkeypatch.setattr(indexer, "NEAR_TIP", near_tip)

    def swap_at(block_id: int) -> None:
        build = {start + 8: "v2", start + 11: "1"}.get(block_id)
        if build is not None:
            time.sleep(0.2)  # the blocks before arrive
            swap(database_url, "texts", build, state_folder=tmp_path)

    with monkeypatch.context() as patched:
        before_each_block(patched, swap_at)
        assert run() == fake_node.height
    last = "SELECT max(block_id) AS last, count(*) AS n FROM vc.{} WHERE app = 'texts' AND build = '1'"
    [row] = query(last.format("snapshots"))
    assert row["last"] == start + 7
    assert query(last.format("ops")) == [{"last": start, "n": 1}]
    fake_node.mine()
    assert run() == fake_node.height
    [row] = query(last.format("snapshots"))
    assert (row["last"], row["n"]) == (fake_node.height, fake_node.height + 1)
    assert verify(database_url).faults == []


def test_history_is_dropped_of_a_build_that_is_gone(
    fake_node: FakeNode,
    database_url: str,
    query: Query,
    tmp_path: Path,
    make_build: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing was for the app in that block, so nothing else has shown that; the others go on."""
    other = another()
    mine(fake_node, b"first")
    heights = [fake_node.height + 8]
    reasons: list[str] = []

    def drop_at(block_id: int) -> None:
        if block_id in heights:
            heights.clear()
            swap(database_url, "texts", "v2", state_folder=tmp_path)
            drop(database_url, "texts", "1", state_folder=tmp_path)

    with StateEngine(
        *(an_app(), other),
        database=database_url,
        source=fake_node.url,
        confirmations=0,
        state_folder=tmp_path,
        history=5,
        on_wait=reasons.append,
    ) as engine:
        engine.build()
        make_build(an_app("2"), "v2")
        fake_node.mine(n=20)
        before_each_block(monkeypatch, drop_at)
        assert engine.build() == fake_node.height
        assert engine.halted() == {}
    assert [reason.partition(":")[0] for reason in reasons] == ["app texts shows another build now"]
    assert query("SELECT name, build FROM vc.apps ORDER BY 1") == [
        {"name": "other", "build": "1"},
        {"name": "texts", "build": "v2"},
    ]


@pytest.mark.parametrize("where", ["_run", "_add_history"])
def test_a_session_that_is_lost_while_tables_are_made(
    fake_node: FakeNode, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """It is a fault that passes, and none of the app's declarations."""
    original, left = getattr(projections, where), [1]

    def lose(connection: psycopg.Connection, *arguments: Any) -> Any:
        if left:
            left.clear()
            with psycopg.connect(database_url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
        return original(connection, *arguments)

    monkeypatch.setattr(projections, where, lose)
    settings: dict[str, Any] = {"database": database_url, "source": fake_node.url, "state_folder": tmp_path}
    with pytest.raises(DatabaseUnavailable, match="terminating connection"):
        StateEngine(an_app(), **settings)
    with StateEngine(an_app(), confirmations=0, **settings) as engine:
        assert engine.build() == fake_node.height


def test_a_swap_while_an_app_catches_up_keeps_the_old_build(
    fake_node: FakeNode, database_url: str, query: Query, tmp_path: Path, make_build: Callable[..., Any]
) -> None:
    """The status of a build that was swapped out stays, so that no start takes it for an unfinished one."""
    for number in range(20):
        mine(fake_node, b"t%d" % number)
    settings: dict[str, Any] = {"database": database_url, "source": fake_node.url, "state_folder": tmp_path}
    with StateEngine(an_app(), confirmations=0, **settings) as engine:
        engine.build(to=105)
    make_build(an_app("2"), "v2")
    with StateEngine(an_app(), confirmations=0, **settings) as engine:
        engine._follow_plan(None)
        engine._deployment.apps.running[0].cursor = 105
        swap(database_url, "texts", "v2")
        engine._deployment.catch_up(engine._listener)
    assert query("SELECT status FROM vc.apps WHERE build = '1'") == [{"status": "stopped"}]
    with StateEngine(an_app("2"), confirmations=0, **settings) as engine:
        engine.build()
    assert query("SELECT build FROM vc.apps ORDER BY 1") == [{"build": "1"}, {"build": "v2"}]


def test_drop_and_remove_give_way(
    fake_node: FakeNode,
    run: Run,
    database_url: str,
    make_build: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reader of a build's own tables, or of an app's views, is named, and nothing is half removed."""
    monkeypatch.setattr(giving_way, "_TRIES", 1)
    mine(fake_node, b"a")
    run(an_app())
    make_build(an_app("2"), "v2")
    with psycopg.connect(database_url, application_name="a dashboard") as reader:
        reader.execute("SELECT * FROM texts__v2.texts")
        with pytest.raises(InUse, match="a dashboard"):
            drop(database_url, "texts", "v2")
        reader.rollback()
        reader.execute("SELECT * FROM texts.texts")
        with pytest.raises(InUse, match="a dashboard"):
            remove(database_url, "texts")
    drop(database_url, "texts", "v2")
    remove(database_url, "texts")


def test_a_swap_while_a_checkpoint_is_applied_stays(
    fake_node: FakeNode,
    run: Run,
    database_url: str,
    query: Query,
    tmp_path: Path,
    make_build: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A checkpoint replaces the build that was live when it was read, and no other; else nothing changes."""
    mine(fake_node, b"a")
    run(an_app())
    with views.snapshot(database_url) as connection:
        create(connection, "texts", tmp_path / "a.checkpoint")
    make_build(an_app("2"), "v2")
    take_over = checkpoints._Load.take_over

    def swap_first(self: Any, *arguments: Any) -> Any:
        swap(database_url, "texts", "v2")
        return take_over(self, *arguments)

    monkeypatch.setattr(checkpoints._Load, "take_over", swap_first)
    options = Options(state_folder=tmp_path)
    with pytest.raises(BuildChanged, match="nothing was applied"):
        checkpoints.apply(database_url, tmp_path / "a.checkpoint", [read_contract(an_app())], options=options)
    assert query("SELECT build, is_live FROM vc.apps ORDER BY 1") == [
        {"build": "1", "is_live": False},
        {"build": "v2", "is_live": True},
    ]

"""What is whole passes, however an app began and whatever happened to it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Rows
from tests.support.checkpoints import contracts, create_checkpoint, say, words
from tests.support.easy_signet import easy_signet, easy_work
from tests.support.moving import an_app, story
from tests.support.ride_story import ride
from tests.support.rides import TABLES, careless_app, coin, rides_app, spending
from virtualchain import App, Rejected, State, StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.audit.log import payload_rule
from virtualchain.audit.verify import verify
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.payload import envelopes, first_op_return, last_op_return, runestone
from virtualchain.checkpoint.apply import apply
from virtualchain.engine.options import Listener, Options
from virtualchain.engine.upgrade import upgrade
from virtualchain.engine.versions import build_beside
from virtualchain.model import PayloadRule
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Query = Callable[..., Rows]
Run = Callable[..., int]


@pytest.fixture
def other_url(database_server: DatabaseServer) -> Iterator[str]:
    """Return the database of a second deployment."""
    url = database_server.clone()
    yield url
    database_server.drop(url)


def faults(url: str, *apps: object) -> list[str]:
    """Verify a deployment with and without its apps' code."""
    return [str(fault) for code in ((), contracts(*apps)) for fault in verify(url, code).faults]


@pytest.mark.parametrize("migrates", [False, True])
def test_an_app_that_began_with_a_checkpoint(
    fake_node: FakeNode, run: Run, database_url: str, other_url: str, tmp_path: Path, migrates: bool
) -> None:
    """Its series, its rows and what came later pass; it is not judged again, and a forged origin shows."""
    say(fake_node, "one two", "three one", "-two")
    run(words())
    create_checkpoint(database_url, tmp_path / "file")
    options = Options(state_folder=tmp_path)
    with easy_signet(130) as new_node:
        node = new_node if migrates else fake_node
        apply(other_url, tmp_path / "file", contracts(words()), migrates=migrates, options=options)
        assert faults(other_url, words()) == []
        say(node, "four", "one", "-three")
        run(words(), database=other_url, source=node.url)
        assert faults(other_url, words()) == []
        report = verify(other_url, contracts(words()), deep=True, options=options)
        assert report.judged_again == []
        assert "began with a checkpoint of block 104" in report.notes[0]
        with psycopg.connect(other_url) as connection:
            connection.execute("UPDATE vc.checkpoints SET consensus_hash = substr(sha256('x'), 1, 16)")
        assert "not those of the checkpoint" in faults(other_url)[0]


def test_forks_late_joiners_own_rules_and_halts(fake_node: FakeNode, run: Run, database_url: str) -> None:
    """Rollbacks by history and by rebuilding, searches of old blocks, and a halted app leave no fault."""
    story(fake_node, 11, 15)
    run(an_app("one"), history=4)
    for depth in (2, 9):
        fake_node.reorg(depth, depth + 1)
        run(an_app("one"), history=4)
    own = App("own", magic=b"mv", payload_rule=lambda outputs: b"mv" + b"x" * 3)
    own.add(b"x", parse=lambda payload: {"n": len(payload)})
    broken = App("broken", magic=b"mv")

    def fail(payload: bytes) -> dict[str, Any]:
        raise RuntimeError("out of paper")

    broken.add(b"o", parse=fail)
    apps = (an_app("one"), an_app("two", initial_snapshots={110: "00" * 16}), own, broken)
    story(fake_node, 12, 5)
    run(*apps, history=4)
    assert faults(database_url, *apps) == []


def test_a_custom_signet(fake_node: FakeNode, run: Run, database_url: str) -> None:
    """A network that is known by its message start only is one like any other."""
    story(fake_node, 16, 3)
    run(an_app(first_block_id=90))  # above block 0, which is that of another network
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE vc.deployment SET network = 'signet-01020304', genesis_hash = decode(%s, 'hex')",
            [network("signet-01020304").genesis_hash],
        )
    with easy_work():
        assert faults(database_url, an_app(first_block_id=90)) == []


@pytest.mark.parametrize("rule", [last_op_return, first_op_return(b"a", b"bc"), runestone, envelopes(b"ord")])
def test_shipped_rules_are_known_by_their_names(rule: PayloadRule) -> None:
    """What the log of an app with such a rule says of payloads is checked without its code."""
    known = payload_rule(rule.name, None)
    assert isinstance(known, PayloadRule)
    assert (known.name, known.reads_inputs, known.coinbase) == (
        rule.name,
        rule.reads_inputs,
        rule.coinbase,
    )


def test_other_rules_that_tracked_other_outputs(
    fake_node: FakeNode, run: Run, query: Query, database_url: str, tmp_path: Path
) -> None:
    """What the tape has for a former version, or for another one beside, is no fault of this one."""
    ride(fake_node).go_on(fake_node)
    run(rides_app())
    now = careless_app(version="2")
    assert upgrade(database_url, read_contract(now), lambda: open_source(fake_node.url)) is not None
    assert faults(database_url, now) == []
    assert query("SELECT count(*) AS n FROM virtualchain.ops WHERE payload IS NULL") == [{"n": 0}]
    options = Options(state_folder=tmp_path)
    build_beside(database_url, read_contract(rides_app()), "former", options)
    assert faults(database_url, now, rides_app()) == []


def test_a_rejected_spend(fake_node: FakeNode, run: Run, query: Query, database_url: str) -> None:
    """A rejection of a transaction without a payload is no fault: what was tracked went by other means."""
    app = App("closed", magic=b"cl", projections=TABLES, tracks="rides")

    class Open:
        def parse(self, payload: bytes) -> dict[str, Any]:
            return {"text": payload.hex()}

        def commit(self, op: dict[str, Any], state: State, txid: str) -> None:
            state.table("rides").put({"txid": txid, "vout": 1, "kind": "a", "amount": 1, "owner": "x"})

    class Spend:
        def parse(self, payload: bytes | None) -> dict[str, Any]:
            return {}

        def check(self, op: dict[str, Any], state: State) -> Rejected:
            return Rejected("closed")

    @app.scan
    def close(ops: list[dict[str, Any]], state: State) -> None:
        state.execute("DELETE FROM rides")

    app.opcode(b"o")(Open)
    app.spend(Spend)
    opened = fake_node.send(b"cloa")
    fake_node.mine([opened])
    fake_node.mine([spending([coin(opened, 1)])])
    run(app)
    rejected = query("SELECT block_id, opcode, payload_index, step FROM virtualchain.rejections")
    assert rejected == [{"block_id": 103, "opcode": b"", "payload_index": 0, "step": "check"}]
    assert faults(database_url, app) == []


def test_an_app_that_tracks_outputs_and_halted(
    fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path
) -> None:
    """It is judged again up to where it is, although the tape has nothing for it of the blocks above."""
    ride(fake_node)
    rides = rides_app()

    @rides.final
    def stop(ops: list[dict[str, Any]], state: State, block_id: int) -> None:
        if block_id == 109:
            raise RuntimeError("out of paper")

    fake_node.mine(n=3)
    run(rides, an_app())
    options = Options(state_folder=tmp_path)
    report = verify(database_url, contracts(rides, an_app()), deep=True, options=options)
    assert [build.block_id for build in report.builds] == [111, 108]
    assert (report.faults, report.notes, report.judged_again) == ([], [], ["plain", "rides"])


def test_an_app_that_continued_with_other_code(
    fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path
) -> None:
    """It passes; it is not judged again, because its code might have seen more; the note says so."""
    story = ride(fake_node)
    run(careless_app())
    story.go_on(fake_node)
    run(rides_app())
    assert faults(database_url, rides_app()) == []
    options = Options(state_folder=tmp_path)
    report = verify(database_url, contracts(rides_app()), deep=True, options=options)
    assert (report.faults, report.judged_again) == ([], [])
    assert "app rides was not judged again: other code has taken block 0" in report.notes[0]
    fake_node.reorg(4, 5)  # below where the code changed
    for last in (107, None):
        run(rides_app(), to=last)
        assert faults(database_url, rides_app()) == []


def test_a_build_beside_that_is_not_finished(
    fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path
) -> None:
    """It is checked as far as it has come."""
    story(fake_node, 13, 12)
    run(an_app())
    blocks = iter(range(6))
    listener = Listener(may_continue=lambda: next(blocks, None) is not None)
    build_beside(database_url, read_contract(an_app()), "v2", Options(state_folder=tmp_path), listener)
    report = verify(database_url)
    assert report.faults == []
    assert [(build.build, build.is_live) for build in report.builds] == [("1", True), ("v2", False)]
    assert report.builds[1].block_id is not None
    assert report.builds[1].block_id < fake_node.height


def test_a_writer_may_run_meanwhile(fake_node: FakeNode, database_url: str, tmp_path: Path) -> None:
    """Blocks and a rollback that come while an app is judged again do not count as faults."""
    story(fake_node, 14, 12)
    with StateEngine(
        an_app(), database=database_url, source=fake_node.url, confirmations=0, history=3
    ) as engine:
        engine.build()
        steps: list[int] = []

        def on_catch_up(progress: Any) -> None:
            steps.append(progress.block.block_id)
            if len(steps) == 4:
                story(fake_node, 15, 8)
                engine.build()

        report = verify(
            database_url,
            [read_contract(an_app())],
            deep=True,
            options=Options(history=3, state_folder=tmp_path),
            listener=Listener(on_catch_up=on_catch_up),
        )
        assert (report.faults, report.judged_again) == ([], ["plain"])
        assert steps[-1] >= fake_node.height - 3
        fake_node.reorg(2, 3)
        engine.build()
    assert faults(database_url, an_app()) == []


def test_a_deep_rollback_may_come_meanwhile(fake_node: FakeNode, database_url: str, tmp_path: Path) -> None:
    """The writer is not held up, the note says why the app was not judged again, and nothing is left."""
    story(fake_node, 14, 12)
    story(fake_node, 15, 12)
    with StateEngine(
        an_app(),
        database=database_url,
        source=fake_node.url,
        confirmations=0,
        history=3,
        state_folder=tmp_path / "writer",
    ) as engine:
        engine.build()
        steps: list[int] = []

        def on_catch_up(progress: Any) -> None:
            steps.append(progress.block.block_id)
            if progress.block.block_id == fake_node.height - 2 and len(set(steps)) == len(steps):
                fake_node.reorg(12, 13)
                engine.build()
                steps.append(progress.block.block_id)

        report = verify(
            database_url,
            [read_contract(an_app())],
            deep=True,
            options=Options(history=3, state_folder=tmp_path / "audit"),
            listener=Listener(on_catch_up=on_catch_up),
        )
    assert (report.faults, report.judged_again) == ([], [])
    assert "app plain was not judged again: another process replaced" in report.notes[0]
    assert faults(database_url, an_app()) == []
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT build FROM vc.apps").fetchall() == [("2",)]

"""Pruned inputs: what goes, what stays, and what says that it cannot be done any more."""

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.support.moving import an_app, story
from tests.support.rides import coin, rides_app, spending
from tests.support.tables import deployment
from virtualchain import StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.audit.nodes import compare_nodes
from virtualchain.audit.verify import verify
from virtualchain.bitcoin.node.node import open_source
from virtualchain.engine import prune as pruning
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.options import QUIET, Options
from virtualchain.engine.prune import prune
from virtualchain.engine.rebuild import replay
from virtualchain.engine.stretch import judged_stretch
from virtualchain.engine.upgrade import upgrade
from virtualchain.errors import DeepFork, UsageError
from virtualchain.store.tape import Tape
from virtualchain.testing import FakeNode
from virtualchain.transfer.exporting import export

PRUNED = "SELECT count(*) AS n FROM vc.inputs WHERE raw IS NULL"
SIZE = """SELECT pg_table_size('vc.inputs') AS n, sum(pg_column_size(raw) + pg_column_size(spent)) AS held
    FROM vc.inputs"""


def results(url: str) -> dict[str, list[str]]:
    """Return what the apps and the chain came to, without the tape's inputs and what was searched."""
    tables = deployment(url)
    return {name: rows for name, rows in tables.items() if name not in {"vc.inputs", "vc.coverage"}}


def replayed(url: str, folder: Path, app: object) -> Any:
    """Derive an app again from the tape."""
    contract = read_contract(app)
    with closing(Deployment(url, [contract], None, Options(state_folder=folder))) as opened:
        return replay(opened, contract.name, QUIET)


def test_a_pruned_deployment_goes_on_as_any_other(
    fake_node: FakeNode,
    run: Run,
    query: Query,
    database_url: str,
    fresh_index: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """New blocks, forks above and below what was pruned, and again: all results are a fresh index's."""
    monkeypatch.setattr(pruning, "_MOST", 4)
    story(fake_node, 1, 40)
    tip = run(an_app())
    [before] = query(SIZE)
    would = prune(database_url, keep=10, dry_run=True)
    assert query(PRUNED) == [{"n": 0}]
    done = prune(database_url, keep=10)
    assert (done, done.before) == (would, tip - 9)
    assert query(PRUNED) == [{"n": done.inputs}]
    assert done.inputs > 20
    assert query(f"{PRUNED} AND block_id >= {done.before}") == [{"n": 0}]
    assert query("SELECT pruned_below FROM virtualchain.deployment") == [{"pruned_below": tip - 9}]
    [after] = query(SIZE)
    assert before["held"] - after["held"] <= done.size < before["held"]
    assert prune(database_url, keep=10).inputs == 0
    assert verify(database_url, [read_contract(an_app())]).faults == []
    for depth in (4, 20):
        fake_node.reorg(depth)
        story(fake_node, depth, 6)
        assert run(an_app()) == fake_node.height
        assert results(database_url) == results(fresh_index(an_app()))
    prune(database_url, keep=3)
    story(fake_node, 9, 5)
    run(an_app())
    assert results(database_url) == results(fresh_index(an_app()))
    assert verify(database_url).faults == []


def test_space_is_given_back(fake_node: FakeNode, run: Run, query: Query, database_url: str) -> None:
    """What was dropped is gone from the table: rewritten, it is smaller."""
    for _ in range(4):
        fake_node.mine([fake_node.send(b"mv" + bytes([n]) * 70, f"s{n}") for n in range(60)])
    run(an_app())
    [before] = query(SIZE)
    done = prune(database_url, keep=0)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("VACUUM FULL vc.inputs")
    [after] = query(SIZE)
    assert after["held"] is None
    assert before["n"] - after["n"] > done.size / 2


def test_what_needs_pruned_inputs_says_so(
    fake_node: FakeNode, run: Run, query: Query, database_url: str, tmp_path: Path
) -> None:
    """Replay, a new version, judging a stretch again, and an export are refused; none of them begins."""
    story(fake_node, 1, 20)
    tip = run(an_app())
    prune(database_url, keep=5)
    before = query("SELECT name, build FROM vc.apps")
    note = f"inputs of blocks below {tip - 4} were pruned"
    with pytest.raises(UsageError, match=rf"{note}\).*virtualchain upgrade plain"):
        replayed(database_url, tmp_path, an_app())
    with (
        pytest.raises(UsageError, match=note),
        judged_stretch(database_url, read_contract(an_app()), tip - 8, tip, Options(state_folder=tmp_path)),
    ):
        pass
    with judged_stretch(
        database_url, read_contract(an_app()), tip - 3, tip, Options(state_folder=tmp_path)
    ) as judged:
        assert judged is not None
    report = verify(database_url, [read_contract(an_app())], deep=True)
    assert any(note in each for each in report.notes)
    assert any("was not judged again" in each for each in report.notes)
    assert report.faults == []
    with pytest.raises(UsageError, match=rf"{note}.*--from {tip - 4}"):
        export(database_url, tmp_path / "all", form="csv", what=["tape"])
    export(database_url, tmp_path / "part", form="csv", what=["tape"], first=tip - 4)
    export(database_url, tmp_path / "log", form="csv", what=["ops", "rejections", "snapshots"])
    assert query("SELECT name, build FROM vc.apps") == before


def test_a_fork_below_history_and_pruned_inputs_stops(
    fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path
) -> None:
    """Nothing is changed, and the message names the way out, which works: the node's blocks are searched."""
    story(fake_node, 1, 30)
    run(an_app(), history=5)
    prune(database_url, keep=5)
    before = deployment(database_url)
    fake_node.reorg(15)
    with pytest.raises(DeepFork, match=r"cannot be derived again, as inputs of blocks below .* were pruned"):
        run(an_app(), history=5)
    assert deployment(database_url) == before


def test_an_upgrade_fetches_what_was_pruned(
    fake_node: FakeNode, run: Run, query: Query, database_url: str, tmp_path: Path
) -> None:
    """After it the tape has the app's inputs again, and replays work."""
    story(fake_node, 1, 20)
    run(an_app())
    digests = "SELECT block_id, consensus_hash, state_hash FROM vc.snapshots ORDER BY block_id"
    before, were = query("SELECT * FROM vc.inputs ORDER BY 1, 2"), query(digests)
    prune(database_url, keep=5)
    options = Options(state_folder=tmp_path, verify="headers")
    contract = read_contract(an_app())
    done = upgrade(database_url, contract, lambda: open_source(fake_node.url), options)
    assert done is not None
    assert done.difference is None
    assert query("SELECT * FROM vc.inputs ORDER BY 1, 2") == before
    assert replayed(database_url, tmp_path, an_app()).differences == ()
    assert query(digests) == were
    assert verify(database_url, [contract], deep=True).faults == []


def test_an_app_that_joins_has_the_blocks_searched_again(
    fake_node: FakeNode, run: Run, query: Query, database_url: str, fresh_index: Callable[..., str]
) -> None:
    """It gets what it would have got, and the other one nothing twice; what it needed can be pruned again."""
    story(fake_node, 1, 20)
    run(an_app("one"))
    prune(database_url, keep=5)
    pruned = query(PRUNED)
    run(an_app("one"), an_app("two"))
    assert query(PRUNED) == [{"n": 0}]  # both have the same magic
    expected = fresh_index(an_app("one"), an_app("two"))
    assert results(database_url) == results(expected)
    prune(database_url, keep=5)
    assert query(PRUNED) == pruned
    assert compare_nodes(database_url, expected).divergence is None
    assert verify(database_url).faults == []


def test_apps_that_still_need_inputs_are_named(
    fake_node: FakeNode, run: Run, query: Query, database_url: str, make_build: Callable[..., Any]
) -> None:
    """A halted app, a build that is not finished, and blocks that are not there."""
    story(fake_node, 1, 20)
    tip = run(an_app())
    with pytest.raises(UsageError, match=f"the tape ends at block {tip}"):
        prune(database_url, before=tip + 2)
    make_build(an_app(), "v2")
    query("DELETE FROM vc.snapshots WHERE build = 'v2' AND block_id > %s RETURNING 1", (tip - 9,))
    with pytest.raises(UsageError, match=f"build v2 of app plain is at block {tip - 9} and needs the inputs"):
        prune(database_url, keep=5)
    assert query(PRUNED) == [{"n": 0}]
    assert prune(database_url, before=tip - 8).before == tip - 8


def test_a_lagging_app_has_nothing_searched_that_it_took(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """One that resumes above what was pruned continues along the tape."""
    story(fake_node, 1, 20)
    run(an_app("one"), an_app("two"))
    story(fake_node, 2, 5)
    run(an_app("one"))
    prune(database_url, keep=8)
    pruned = query(PRUNED)
    messages: list[str] = []
    assert run(an_app("one"), an_app("two"), on_wait=messages.append) == fake_node.height
    assert not [message for message in messages if "searched" in message]
    assert query(PRUNED) == pruned
    blocks = query("SELECT DISTINCT block_id FROM virtualchain.apps")
    assert blocks == [{"block_id": fake_node.height}]


def test_a_raw_transaction_that_was_not_pruned_is_missed(
    fake_node: FakeNode, run: Run, query: Query, database_url: str, tmp_path: Path
) -> None:
    """Nothing is derived from a part of a tape, whatever the coverage says, and `verify` names it."""
    story(fake_node, 1, 10)
    run(an_app())
    query(
        "UPDATE vc.inputs SET raw = NULL WHERE block_id = (SELECT max(block_id) FROM vc.inputs) RETURNING 1"
    )
    faults = [str(fault) for fault in verify(database_url).faults]
    assert any("its raw transaction is missing, and was not pruned" in fault for fault in faults)
    with pytest.raises(Exception, match="was pruned: nothing can be derived from it"):
        replayed(database_url, tmp_path, an_app())


def test_an_interrupted_prune_is_continued(
    fake_node: FakeNode, run: Run, query: Query, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part is whole: what it has dropped counts as not searched, and nothing else does."""
    monkeypatch.setattr(pruning, "_MOST", 3)
    story(fake_node, 1, 20)
    tip = run(an_app())
    answers = iter([True, True, False, False])
    done = prune(database_url, keep=5, may_continue=lambda: next(answers))
    assert not done.is_complete
    assert 0 < done.inputs < 20
    assert query("SELECT pruned_below FROM virtualchain.deployment") == [{"pruned_below": done.before}]
    assert query(f"{PRUNED} AND block_id >= {done.before}") == [{"n": 0}]
    assert verify(database_url).faults == []
    assert prune(database_url, keep=5).before == tip - 4
    story(fake_node, 2, 3)
    assert run(an_app()) == fake_node.height


def test_beside_a_writer(
    fake_node: FakeNode,
    run: Run,
    database_url: str,
    fresh_index: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks are taken meanwhile, and both end well."""
    monkeypatch.setattr(pruning, "_MOST", 1)
    story(fake_node, 1, 15)
    run(an_app())
    story(fake_node, 2, 25)
    done = threading.Event()
    failures: list[BaseException] = []

    def keep_pruning() -> None:
        try:
            while not done.is_set():
                prune(database_url, keep=1)
            prune(database_url, keep=1)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            failures.append(error)

    thread = threading.Thread(target=keep_pruning)
    thread.start()
    with StateEngine(an_app(), database=database_url, source=fake_node.url, confirmations=0) as engine:
        assert engine.build() == fake_node.height
    done.set()
    thread.join()
    assert failures == []
    assert results(database_url) == results(fresh_index(an_app()))
    assert verify(database_url).faults == []


def test_apps_that_track_outputs(
    fake_node: FakeNode, run: Run, query: Query, database_url: str, fresh_index: Callable[..., str]
) -> None:
    """What they track is in their tables: outputs that were made long ago are still seen, and undone."""
    minted = [fake_node.send(b"rim%d" % n) for n in range(4)]
    fake_node.mine(minted)
    run(rides_app())
    prune(database_url, keep=0)
    fake_node.mine([spending([coin(minted[3], 1)], outputs=2)])
    run(rides_app())
    prune(database_url, keep=0)
    assert query(PRUNED) == query("SELECT count(*) AS n FROM vc.inputs")
    fake_node.reorg(1)
    fake_node.mine([spending([coin(minted[3], 1)])])
    run(rides_app())
    assert results(database_url) == results(fresh_index(rides_app()))
    assert verify(database_url, [read_contract(rides_app())]).faults == []
    [last] = query("SELECT max(block_id) AS n FROM vc.inputs WHERE raw IS NULL")
    tape_rows = query("SELECT from_block FROM vc.coverage WHERE rule <> 'pruned'")
    assert all(row["from_block"] > last["n"] for row in tape_rows)
    with psycopg.connect(database_url) as connection:
        assert all(row.from_block > last["n"] for row in Tape(connection).coverage())

"""What status shows of the writer, the node, and the apps: on a standby, too."""

import json
import re
import signal
import time

import psycopg
import pytest

from tests.acceptance.conftest import Commands, Inside, mine_notes
from tests.acceptance.test_cli_run import at
from tests.support.servers import reachable_folder, standby_of, value
from virtualchain import __version__
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing import FakeNode
from virtualchain.testing.database import installations

APP = ("--app", "apps:notes")
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"


def test_the_writers_own_confirmations_count(
    cli: Commands, inside: Inside, fake_node: FakeNode, database_url: str
) -> None:
    """While a writer runs, status is about that one, whatever its own settings; afterwards, about these."""
    common = ("--bitcoin", fake_node.url, "--database", database_url)
    writer = cli.start("run", *APP, *common, "--confirmations", 2)
    writer.until_said("has 1 of 2 confirmations")
    for own in ((), ("--confirmations", 5)):
        printed = json.loads(inside("status", "--json", *common, *own).out)
        assert (printed["confirmations"], printed["standby"]) == (2, False)
        assert printed["waits_for"].endswith("has 1 of 2 confirmations")
        assert re.search(
            r"  writer     virtualchain writer \S+, with 2 confirmations\n", inside("status", *common).out
        )
    assert writer.signal().code == 0
    printed = json.loads(inside("status", "--json", *common).out)
    assert (printed["confirmations"], printed["writer"]) == (6, None)
    assert printed["report"]["stopped_at"] is not None
    assert "  writer     none is running\n" in cli("status", *common).out


def test_what_the_writer_reported_is_shown_without_the_node(
    cli: Commands, inside: Inside, fake_node: FakeNode, database_url: str
) -> None:
    """The node's last block, what the writer waits for, and how old that is; and that it was killed."""
    database = ("--database", database_url)
    nowhere = ("--bitcoin", "http://user:secret@127.0.0.1:1", *database)
    writer = cli.start("run", *APP, "--bitcoin", fake_node.url, *database, "--confirmations", 2)
    writer.until_said("has 1 of 2 confirmations")
    query = "SELECT waits_for FROM virtualchain.writer"
    writer.until(lambda: value(database_url, query) is not None)
    printed = json.loads(inside("status", "--json", *nowhere).out)
    assert (printed["tip"], printed["waits_for"][:8]) == (None, "the node")
    report = printed["report"]
    assert report["node"] == {"block_id": fake_node.height, "hash": fake_node.tip}
    assert report["waits_for"].endswith("has 1 of 2 confirmations")
    assert (report["version"], report["stopped_at"]) == (__version__, None)
    assert report["started_at"] <= report["seen_at"]
    assert 0 <= report["age"] < 30
    [app] = printed["apps"]
    assert app["lag"] == 2
    ago = r"reported \d+(\.\d)? s ago\n"
    shown = inside("status", *nowhere)
    assert "the node was not reached" in shown.err
    assert re.search(rf"  node       block {fake_node.height} \({fake_node.tip}\), {ago}", shown.out)
    assert re.search(rf"  waits for  .*has 1 of 2 confirmations, {ago}", shown.out)
    assert "  lag             2\n" in shown.out
    writer.signal(signal.SIGKILL)
    while value(database_url, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"):
        time.sleep(0.02)
    shown = inside("status", *nowhere)
    assert re.search(
        r"  writer     none is running; the last one ended without a word, seen .* s ago\n", shown.out
    )
    assert "confirmations, reported" not in shown.out


def test_a_standby_says_that_it_is_one(cli: Commands, inside: Inside, fake_node: FakeNode) -> None:
    """It cannot see the writer's lock, so it does not deny that there is a writer, whose K it knows."""
    binaries = next((path for path in installations().values() if (path / "pg_basebackup").is_file()), None)
    if binaries is None:
        pytest.skip("no PostgreSQL with pg_basebackup is installed")
    with reachable_folder() as folder:
        primary = EmbeddedServer(folder, binaries=binaries, durable=False)
        url = primary.start()
        standby = None
        try:
            node = ("--bitcoin", fake_node.url)
            writer = cli.start("run", *APP, *node, "--database", url, "--confirmations", 0)
            writer.until_said(at(fake_node))
            standby = standby_of(primary, binaries, folder.parent / "standby")
            copy = standby.start()
            mine_notes(fake_node, "one")
            writer.until_said(at(fake_node))
            deadline = time.monotonic() + 30
            reported = "SELECT value FROM virtualchain.metrics WHERE name = 'virtualchain_height'"
            while value(copy, reported) != fake_node.height:
                assert time.monotonic() < deadline, "the standby does not follow"
                time.sleep(0.1)
            there = (*node, "--database", copy)
            printed = json.loads(inside("status", "--json", *there).out)
            assert (printed["standby"], printed["writer"], printed["confirmations"]) == (True, None, 0)
            assert printed[
                "waits_for"
            ] == f"waiting for block {fake_node.height + 1}: the node is at block " + str(fake_node.height)
            samples = {sample["name"]: sample["value"] for sample in printed["metrics"]}
            assert (samples["virtualchain_up"], samples["virtualchain_height"]) == (1, fake_node.height)
            assert samples["virtualchain_report_age_seconds"] < 60
            assert "standby" in inside("status", *there).out
            shown = inside("status", "--bitcoin", "http://127.0.0.1:1", "--database", copy).out
            assert re.search(r"  node       block \d+ \([0-9a-f]{64}\), reported \d", shown)
            assert re.search(r"  writer     on the primary, as this is a standby, reported \d", shown)
            assert "none is running" not in inside("status", *there).out
            assert "is a standby, which is read-only" in inside("sync", *APP, *there, code=3).err
            assert '"one"' in inside("ops", "--json", *there).out
            assert writer.signal().code == 0
        finally:
            if standby is not None:
                standby.stop()
            primary.stop()


def test_a_pruned_node_is_called_so(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """Its lowest block is shown; if the next block to process is below it, that is what is waited for."""
    mine_notes(fake_node, "one", "two")
    assert json.loads(inside(*options, "--json", "status").out)["pruned_below"] is None
    inside(*APP, *options, "sync", "--to", 90)
    fake_node.prune(50)
    text = inside(*options, "status").out
    assert f"  node       block {fake_node.height} ({fake_node.tip}), pruned below 50\n" in text
    printed = json.loads(inside(*options, "--json", "status").out)
    assert (printed["pruned_below"], printed["waits_for"]) == (50, None)
    fake_node.prune(95)
    printed = json.loads(inside(*options, "--json", "status").out)
    assert printed["pruned_below"] == 95
    assert printed["waits_for"].startswith("waiting for block 91, which the node has pruned")


def test_an_app_that_starts_above_the_nodes_tip_does_not_lag(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """It has no lag, which differs from a lag of 0; once the tip is above, it counts from its first block."""
    source = (inside.folder / "apps.py").read_text()
    first = fake_node.height + 10
    (inside.folder / "apps.py").write_text(
        source.replace(
            'magic=b"st",\n    projections', f'magic=b"st", first_block_id={first},\n    projections'
        )
    )
    inside(*APP, *options, "sync")
    with psycopg.connect(database_url) as db:  # as the writer reports that it waits
        db.execute(
            "INSERT INTO vc.progress SELECT now() - seconds * interval '1 second', NULL, NULL, 0, 0, 0 "
            "FROM unnest(ARRAY[20, 30]) AS seconds"
        )
    [app] = json.loads(inside(*options, "--json", "status").out)["apps"]
    assert (app["block_id"], app["lag"]) == (None, None)
    text = inside(*options, "status").out
    assert f"  block           none yet: it starts with block {first}\n" in text
    assert "  lag             -\n" in text
    fake_node.mine(n=12)
    [app] = json.loads(inside(*options, "--json", "status").out)["apps"]
    assert (app["block_id"], app["lag"]) == (None, 3)


def test_times_and_durations_have_one_form(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """JSON has ISO 8601 and seconds, text has UTC and units."""
    mine_notes(fake_node, "one", "two")
    inside(*APP, *options, "sync")
    fake_node.reorg(1)
    inside(*APP, *options, "sync")
    reorg = json.loads(inside(*options, "--json", "status").out)["last_reorg"]
    iso = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.fullmatch(iso, reorg["detected_at"])
    assert isinstance(reorg["duration"], float)
    assert re.search(
        rf"last rollback  {TIME}, 1 block above block \d+ in \d\.\d s \(work\)",
        inside(*options, "status").out,
    )
    [op] = json.loads(inside(*options, "--json", "ops").out)
    assert re.fullmatch(iso, op["time"])

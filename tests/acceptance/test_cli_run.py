"""The command run: it follows the chain, reports what it waits for, and ends on a signal."""

import json
import signal
import time
from typing import Any

import pytest

from tests.acceptance.conftest import Commands
from tests.support.servers import reachable_folder, value
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing import FakeNode

TEXTS = "SELECT string_agg(text, ',' ORDER BY block_id) FROM notes.notes"


@pytest.fixture
def common(fake_node: FakeNode, database_url: str) -> tuple[Any, ...]:
    """Return the options of every command here."""
    node = ("--bitcoin", fake_node.url, "--confirmations", 0)
    return ("--app", "apps", "--database", database_url, *node)


def at(node: FakeNode) -> str:
    """Return the line that `run` prints once it has processed the node's tip."""
    return f"virtualchain: waiting for block {node.height + 1}: the node is at block {node.height}\n"


def test_run_follows_until_a_signal(
    cli: Commands, fake_node: FakeNode, database_url: str, common: tuple[Any, ...]
) -> None:
    """It processes a block mined later, and on SIGTERM it ends with exit code 0."""
    process = cli.start("run", *common)
    process.until_said(at(fake_node))
    [block_hash] = fake_node.mine([fake_node.send(b"stolater"), fake_node.send(b"stono")])
    process.until_said(at(fake_node))
    assert value(database_url, TEXTS) == "later"
    done = process.signal(signal.SIGTERM)
    assert (done.code, done.out) == (0, "")
    exposed, lines = done.err.splitlines()[:2], done.err.splitlines()[2:]
    assert [line.partition(" is in the process list")[0] for line in exposed] == [
        f"virtualchain: the password in --{name}" for name in ("bitcoin", "database")
    ]
    counts = "2 inputs: notes: 1 accepted, 1 rejected at check"
    assert f"virtualchain: block {fake_node.height} ({block_hash}), {counts}" in lines
    assert lines[0] == f"virtualchain: app notes is in {cli.folder / 'apps.py'}"
    assert lines[-2] == "virtualchain: app notes: 2 inputs: 1 accepted, 1 rejected at check"
    assert lines[-1] == f"virtualchain: stopped after block {fake_node.height}"
    assert len(lines) == len(set(lines))


def test_a_signal_ends_a_wait_for_the_node(
    cli: Commands, fake_node: FakeNode, common: tuple[Any, ...]
) -> None:
    """While a long poll is open and never answered, SIGTERM ends `run` within a moment."""
    fake_node.fail("hang", None, on="waitfor")
    process = cli.start("run", *common)
    process.until_said(at(fake_node))
    process.until(lambda: fake_node.calls["waitfornewblock"] > 0)
    started = time.monotonic()
    done = process.signal(signal.SIGTERM)
    assert done.code == 0
    assert time.monotonic() - started < 2.5
    fake_node.heal()


def test_run_says_once_that_no_announcements_come(
    cli: Commands, fake_node: FakeNode, common: tuple[Any, ...]
) -> None:
    """With -v it names what keeps them away; without, it only takes blocks later."""
    fake_node.fail("busy", None, on="waitfor")
    for flags in ((), ("-v",)):
        process = cli.start("run", *common, *flags)
        process.until_said(at(fake_node))
        fake_node.mine()
        process.until_said(at(fake_node))
        fake_node.mine()
        process.until_said(at(fake_node))
        assert process.signal().err.count("announces no blocks") == len(flags)
    fake_node.heal()


def test_run_refuses_an_address_that_zmq_cannot_use(cli: Commands, common: tuple[Any, ...]) -> None:
    """A mistake in --zmq ends it with the exit code of usage."""
    done = cli("run", *common, "--zmq", "localhost", code=2)
    assert "write tcp://host:port or ipc://path" in done.err


def test_run_prints_a_line_of_json_for_each_block(
    cli: Commands, fake_node: FakeNode, common: tuple[Any, ...]
) -> None:
    """With --json, standard output has one object for each block and nothing else."""
    fake_node.mine([fake_node.send(b"stoone")])
    process = cli.start("run", "--json", *common)
    process.until_said(at(fake_node))
    printed = [json.loads(line) for line in process.signal().out.splitlines()]
    assert [block["block_id"] for block in printed] == list(range(fake_node.height + 1))
    counts = {"notes": {"inputs": 1, "accepted": 1, "rejected": {}}}
    place = {"block_id": fake_node.height, "block_hash": fake_node.tip}
    assert printed[-1] == {**place, "inputs": 1, "apps": counts}


def test_run_warns_while_all_inputs_fail_alike(
    cli: Commands, fake_node: FakeNode, common: tuple[Any, ...]
) -> None:
    """After ten inputs that were rejected at one step it says so, once, and again at the end."""
    fake_node.mine([fake_node.send(b"stono") for _ in range(6)])
    process = cli.start("run", *common)
    process.until_said(at(fake_node))
    assert "failed at check" not in process.err
    for _ in range(2):
        fake_node.mine([fake_node.send(b"stono") for _ in range(6)])
        process.until_said(at(fake_node))
    start = (
        "virtualchain: app notes: all {} inputs failed at check, the last one because of: we do not take no"
    )
    lines = process.signal().err.splitlines()
    assert [line.partition(";")[0] for line in lines if "failed at check" in line] == [
        start.format(12),
        start.format(18),
    ]


def test_run_finishes_the_current_block(
    cli: Commands, fake_node: FakeNode, database_url: str, common: tuple[Any, ...]
) -> None:
    """A block that is being processed when the signal arrives is in the database afterwards."""
    fake_node.mine([fake_node.send(b"stoslow")], n=2)
    process = cli.start("run", *common)
    process.until((cli.folder / "busy").exists)
    assert process.signal().code == 0
    assert value(database_url, TEXTS) == "slow"
    assert value(database_url, "SELECT block_id FROM virtualchain.apps") == fake_node.height - 1


def test_run_waits_for_a_node_that_does_not_answer(
    cli: Commands, fake_node: FakeNode, common: tuple[Any, ...]
) -> None:
    """It reports that the node does not answer, and starts once the node does."""
    fake_node.stop()
    process = cli.start("run", *common)
    process.until_said("refused")
    fake_node.start()
    process.until_said(at(fake_node))
    assert process.signal().code == 0


def test_run_waits_for_a_database_that_is_not_up_yet(cli: Commands, fake_node: FakeNode) -> None:
    """It reports that the database cannot be opened, and starts once it can; `sync` ends at once, with 3."""
    with reachable_folder() as folder:
        server = EmbeddedServer(folder, durable=False)
        url = server.start()
        common = ("--app", "apps", "--bitcoin", fake_node.url, "--confirmations", 0, "--database", url)
        server.stop()
        assert "is the server running there?" in cli("sync", *common, code=3).err
        process = cli.start("run", *common)
        process.until_said("cannot be opened")
        process.until_said("trying again")
        server.start()
        process.until_said(at(fake_node))
        assert "virtualchain: connected: node and database answer\n" in process.err
        assert process.signal().code == 0
        server.stop()
        process = cli.start("run", *common)
        process.until_said("cannot be opened")
        assert process.signal().code == 0


def test_run_does_not_wait_for_a_database_that_refuses_it(
    cli: Commands, database_url: str, common: tuple[Any, ...]
) -> None:
    """Waiting would not create a database: it ends with 3."""
    missing = f"{database_url.rpartition('/')[0]}/no_such_database"
    assert "create it first" in cli("run", *common, "--database", missing, code=3).err


def test_run_announces_that_it_is_connected_again(
    cli: Commands, fake_node: FakeNode, common: tuple[Any, ...]
) -> None:
    """Each outage is reported once, and its end, too; a second outage is reported again."""
    process = cli.start("run", *common)
    process.until_said(at(fake_node))
    for outage in (1, 2):
        fake_node.stop()
        process.until(lambda: process.err.count("is it running?") == outage)  # noqa: B023 - used at once
        fake_node.start()
        process.until(lambda: process.err.count("connected again: http://") == outage)  # noqa: B023 - the same
    assert process.signal().code == 0


def test_run_ends_immediately_while_it_waits_for_a_node(
    cli: Commands, fake_node: FakeNode, common: tuple[Any, ...]
) -> None:
    """A signal ends it even before a node has answered."""
    fake_node.stop()
    process = cli.start("run", *common)
    process.until_said("refused")
    assert process.signal().code == 0


def test_a_second_writer_ends_with_5_or_waits(
    cli: Commands, fake_node: FakeNode, common: tuple[Any, ...]
) -> None:
    """Without --wait, it names the first writer; with --wait, it starts when the first one has ended."""
    first = cli.start("run", *common)
    first.until_said(at(fake_node))
    second = cli("sync", *common, code=5)
    assert "another writer is at work on this database: virtualchain writer " in second.err
    third = cli.start("sync", "--wait", *common)
    third.until_said("waiting for it to end")
    assert first.signal().code == 0
    done = third.end()
    assert (done.code, "0 blocks" in done.out) == (0, True)


def test_a_halted_app_is_reported_and_the_others_continue(
    cli: Commands, fake_node: FakeNode, database_url: str, common: tuple[Any, ...]
) -> None:
    """The halt is reported once, the other app continues, and Ctrl-C ends the command like SIGTERM."""
    (cli.folder / "broken").touch()
    process = cli.start("run", "--app", "apps:plain", *common)
    process.until_said(at(fake_node))
    for text in (b"stoone", b"stotwo"):
        fake_node.mine([fake_node.send(text)])
    process.until_said(at(fake_node))
    done = process.signal(signal.SIGINT)
    assert done.code == 0
    assert done.err.count("app notes is halted before block 102") == 1
    assert value(database_url, "SELECT max(block_id) FROM virtualchain.apps") == fake_node.height


def test_an_interrupted_sync_ends_quietly_with_130(
    cli: Commands, fake_node: FakeNode, common: tuple[Any, ...]
) -> None:
    """Ctrl-C in another command than run: no traceback.

    The request that hangs is one that the main thread waits for, so nothing but the signal can end the wait.
    """
    fake_node.fail("hang", None, on="/rest/headers/")
    process = cli.start("sync", *common)
    process.until(lambda: fake_node.calls["/rest/headers"] > 0)
    done = process.signal(signal.SIGINT)
    assert (done.code, done.out, done.err) == (130, "", "")

"""Commands end on one SIGTERM, whatever they wait for, and as process 1, too."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.acceptance.conftest import Commands, Done, Running
from tests.acceptance.test_cli_run import at
from virtualchain.testing import FakeNode

WRITER = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'virtualchain writer %'"


@pytest.fixture
def common(fake_node: FakeNode, database_url: str) -> tuple[Any, ...]:
    """Return the options of every command here."""
    node = ("--bitcoin", fake_node.url, "--confirmations", 0)
    return ("--app", "apps", "--database", database_url, *node)


@contextmanager
def stopped_backend(url: str) -> Iterator[None]:
    """Stop the server process of the writer's session, as a hanging machine would."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(WRITER).fetchone()
    assert row is not None, "there is a writer"
    try:
        os.kill(row[0], signal.SIGSTOP)
    except (PermissionError, ProcessLookupError):
        pytest.skip("the server's processes are not ours to stop")
    try:
        yield
    finally:
        os.kill(row[0], signal.SIGCONT)


def ended_within_10_seconds(process: Running, number: int = signal.SIGTERM) -> Done:
    """Send one signal, and check that the command ends in time."""
    started = time.monotonic()
    done = process.signal(number)
    assert time.monotonic() - started < 10, done.err
    return done


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_ends_while_the_database_hangs(
    cli: Commands, fake_node: FakeNode, database_url: str, common: tuple[Any, ...], number: int
) -> None:
    """One signal ends it, and it says what became of the block; the next run takes that."""
    process = cli.start("run", *common)
    process.until_said(at(fake_node))
    with stopped_backend(database_url):
        fake_node.mine([fake_node.send(b"stolater")])
        time.sleep(4)  # by then it has seen the block
        done = ended_within_10_seconds(process, number)
    assert done.code == 0
    assert "no answer for 5 s after the request to stop; what was not committed is undone" in done.err
    assert "1 block and 1 input" in cli("sync", *common).out


def test_run_reports_a_database_that_hangs_and_that_answers_again(
    cli: Commands, fake_node: FakeNode, database_url: str, common: tuple[Any, ...]
) -> None:
    """Silence is reported after ten seconds, and its end, too; no block is lost."""
    process = cli.start("run", *common)
    process.until_said(at(fake_node))
    with stopped_backend(database_url):
        [block_hash] = fake_node.mine([fake_node.send(b"stolater")])
        process.until_said("has not answered for 10 s: it is busy, or it hangs")
    process.until_said(f"block {fake_node.height} ({block_hash}), 1 input")
    done = process.signal()
    assert (done.code, "answers again" in done.err) == (0, True)
    assert "***@127.0.0.1" in done.err


def test_sync_ends_while_the_database_hangs(
    cli: Commands, fake_node: FakeNode, database_url: str, common: tuple[Any, ...]
) -> None:
    """It ends as if interrupted, although the database answers neither the query nor its cancellation."""
    fake_node.mine([fake_node.send(b"stoslow")], n=2)
    process = cli.start("sync", *common)
    process.until((cli.folder / "busy").exists)
    with stopped_backend(database_url):
        time.sleep(2)
        done = ended_within_10_seconds(process)
    assert (done.code, done.out) == (130, "")
    assert all(line.startswith("virtualchain: ") for line in done.err.splitlines())


def test_run_ends_while_the_node_hangs(cli: Commands, fake_node: FakeNode, common: tuple[Any, ...]) -> None:
    """A node that accepts a request and never answers it is given up, and the end is in order."""
    process = cli.start("run", *common)
    process.until_said(at(fake_node))
    fake_node.fail("hang", None)
    time.sleep(4)  # by then it has asked
    done = ended_within_10_seconds(process)
    last = f"virtualchain: stopped after block {fake_node.height}"
    assert (done.code, done.err.splitlines()[-1]) == (0, last)


@pytest.mark.parametrize("command", ["sync", "run"])
def test_a_first_process_ends_on_sigterm(
    cli: Commands, fake_node: FakeNode, common: tuple[Any, ...], command: str
) -> None:
    """As process 1, for which the kernel has no default handlers, it ends as any other does."""
    unshare = shutil.which("unshare")
    alone = (unshare or "unshare", "--pid", "--fork", "--kill-child")
    if unshare is None or subprocess.run([*alone, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no namespace of processes can be made here")
    fake_node.fail("hang", None, on="/rest/headers/")
    outer = cli.start(command, *common, before=alone)
    outer.until(lambda: fake_node.calls["/rest/headers"] > 0)
    inner = int(subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(outer.pid)], text=True))
    started = time.monotonic()
    os.kill(inner, signal.SIGTERM)
    done = outer.end()
    assert time.monotonic() - started < 10
    assert done.code == (130 if command == "sync" else 0)

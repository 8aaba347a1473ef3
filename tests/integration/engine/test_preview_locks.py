"""Previews wait for no other session, no other session waits for them, and nothing is left of them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Query, Run
from tests.support.foreseeing import Foreseeing
from virtualchain import App, State
from virtualchain.engine import preview
from virtualchain.engine.versions import remove
from virtualchain.errors import StoreError
from virtualchain.testing import FakeNode

TABLES = "CREATE TABLE counts (text text PRIMARY KEY, n integer NOT NULL)"


class Gate:
    """Holds a callback that runs in a thread."""

    def __init__(self) -> None:
        self.is_held = threading.Event()
        self.may_go = threading.Event()
        self.holds: Callable[[], bool] = lambda: False

    def __call__(self) -> None:
        """Wait, if the caller is one to be held."""
        if self.holds():
            self.is_held.set()
            assert self.may_go.wait(60)


def counting(name: str = "counting", gate: Callable[[], object] = lambda: None, **options: Any) -> App:
    """Make an app that counts texts, and passes the gate after it has written."""
    app = App(name, **{"magic": b"co", "projections": TABLES, **options})

    def commit(op: dict[str, Any], state: State) -> None:
        state.execute(
            "INSERT INTO counts VALUES (%s, 1) ON CONFLICT (text) DO UPDATE SET n = counts.n + 1",
            [op["text"]],
        )
        gate()

    app.add(b"o", parse=lambda payload: {"text": payload.decode()}, commit=commit)
    return app


@contextmanager
def beside(function: Callable[[], object]) -> Iterator[None]:
    """Run something in a thread, and wait for its end, which must be a good one."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(90)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


@contextmanager
def held_preview(
    foresee: Foreseeing, fake_node: FakeNode, name: str = "counting", text: bytes = b"a"
) -> Iterator[None]:
    """Hold a preview in the middle of its callback."""
    gate = Gate()
    gate.holds = lambda: True
    tx = fake_node.send(b"coo" + text)
    with beside(lambda: foresee(counting(name, gate), [tx])):
        assert gate.is_held.wait(30)
        try:
            yield
        finally:
            gate.may_go.set()


def test_a_preview_does_not_wait_for_a_writer(fake_node: FakeNode, run: Run, foresee: Foreseeing) -> None:
    """The writer is in the middle of a block in which it has changed the same row."""
    fake_node.mine([fake_node.send(b"cooa")])
    run(counting())
    gate = Gate()
    gate.holds = lambda: True
    fake_node.mine([fake_node.send(b"cooa")])
    with beside(lambda: run(counting("counting", gate))):
        assert gate.is_held.wait(30)
        started = time.monotonic()
        (verdict,) = foresee(counting(), [fake_node.send(b"cooa")])
        took = time.monotonic() - started
        gate.may_go.set()
    assert [change.new for change in verdict.changes] == [{"text": "a", "n": 2}]
    assert took < 10


def test_a_writer_does_not_wait_for_a_preview(
    fake_node: FakeNode, run: Run, foresee: Foreseeing, query: Query
) -> None:
    """It takes blocks with the same rows, installs another app, and rolls back."""
    fake_node.mine([fake_node.send(b"cooa")])
    run(counting())
    with held_preview(foresee, fake_node):
        started = time.monotonic()
        fake_node.mine([fake_node.send(b"cooa")])
        run(counting())
        run(counting(), counting("other"))
        fake_node.reorg(1, txs=[fake_node.send(b"coob")])
        run(counting(), counting("other"))
        assert time.monotonic() - started < 20
        assert query("SELECT text, n FROM counting.counts ORDER BY 1")[0] == {"text": "a", "n": 1}


def test_previews_do_not_wait_for_each_other(fake_node: FakeNode, run: Run, foresee: Foreseeing) -> None:
    """Not even those of one app in one process."""
    fake_node.mine()
    run(counting())
    with held_preview(foresee, fake_node), held_preview(foresee, fake_node, text=b"b"):
        (verdict,) = foresee(counting(), [fake_node.send(b"cooc")])
        assert [change.new for change in verdict.changes] == [{"text": "c", "n": 1}]


def test_a_preview_that_hangs_is_ended(
    fake_node: FakeNode, run: Run, foresee: Foreseeing, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever needs the app's tables waits for it no longer than they try, and it says so."""
    monkeypatch.setattr(preview, "LONGEST_CALL", 2)
    fake_node.mine()
    run(counting())
    is_long = pytest.raises(StoreError, match="a callback of app counting takes longer than 2 seconds")
    with is_long, held_preview(foresee, fake_node):
        remove(database_url, "counting")


def test_a_killed_preview_leaves_nothing(
    fake_node: FakeNode, run: Run, database_url: str, query: Query
) -> None:
    """Its session ends with it."""
    fake_node.mine()
    run(counting())
    before = query("SELECT relname FROM pg_class ORDER BY 1")
    raw = fake_node.send(b"cooa")
    program = (
        "import os, signal, sys\n"
        "from tests.integration.engine.test_preview_locks import counting\n"
        "from tests.support.foreseeing import Foreseeing\n"
        "from virtualchain.testing.transactions import Tx\n"
        "txs = [Tx(bytes.fromhex(raw), '') for raw in sys.argv[2:]]\n"
        "Foreseeing(sys.argv[1])(counting('counting', lambda: os.kill(os.getpid(), signal.SIGKILL)), txs)\n"
    )
    raws = [raw.raw.hex()] if raw.funding is None else [raw.funding.raw.hex(), raw.raw.hex()]
    command = [sys.executable, "-c", program, database_url, *raws]
    killed = subprocess.run(command, cwd=Path(__file__).parents[3], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while query("SELECT FROM pg_stat_activity WHERE application_name LIKE '%%preview%%'"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert query("SELECT relname FROM pg_class ORDER BY 1") == before
    assert query("SELECT nspname FROM pg_namespace WHERE nspname LIKE '%%foreseen%%'") == []

"""The guard at work: what the look at the code cannot follow is caught when it happens."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.integration.conftest import Query, Run
from virtualchain import App, State
from virtualchain.errors import AppHalted
from virtualchain.testing import FakeNode

OTHER_PACKAGE = """
import os, random, socket, threading, uuid
from os import urandom
from time import time, gmtime
def clock(): return time()
def moment(): return gmtime()
def environment(): return os.environ['PATH']
def has_environment(): return 'PATH' in os.environ
def chance(): return urandom(1)
def seeded(): return random.Random(1).random()
def unique(): return uuid.uuid4()
def directory(): return os.listdir('/')
def file(): return open('/dev/null')
def presence(): return os.path.exists('/')
def network(): return socket.socket()
def thread(): return threading.Thread(target=print).start()
def process(): return os.system('true')
def wait(): import time; time.sleep(0)
def number(): return os.getpid()
"""
CAUGHT = {
    "clock": "clock",
    "moment": "clock",
    "wait": "clock",
    "environment": "environment",
    "has_environment": "environment",
    "number": "environment",
    "chance": "randomness",
    "seeded": "randomness",
    "unique": "randomness",
    "directory": "files",
    "file": "files",
    "presence": "files",
    "network": "network",
    "thread": "threads",
    "process": "threads",
}


@pytest.fixture(scope="module")
def other() -> Iterator[ModuleType]:
    """Yield a package that an app uses: the look at the app's code does not go into it."""
    module = sys.modules["otherpackage"] = ModuleType("otherpackage")
    exec(compile(OTHER_PACKAGE, "otherpackage.py", "exec"), vars(module))
    yield module
    del sys.modules["otherpackage"]


def an_app(parse: Callable[[bytes], Any], name: str = "guarded", **steps: Any) -> App:
    """Return an app that parses so."""
    app = App(name, magic=b"gu", projections="CREATE TABLE words (word text PRIMARY KEY)")
    app.add(b"a", parse=parse, **steps)
    return app


def test_other_packages_are_watched(other: ModuleType, fake_node: FakeNode, run: Run, query: Query) -> None:
    """Each app halts alone, even if it hides the error, and the others take the block."""

    def parse(function: str) -> Callable[[bytes], Any]:
        def call(payload: bytes) -> dict[str, Any]:
            with suppress(Exception):
                getattr(other, function)()
            return {}

        return call

    healthy = an_app(lambda payload: {}, "healthy")
    fake_node.mine([fake_node.send(b"gua")])
    run(healthy, *(an_app(parse(name), name) for name in CAUGHT), guard=True)
    rows = query("SELECT name, error FROM virtualchain.apps WHERE name <> 'healthy'")
    sections = {row["name"]: row["error"]["error"].rpartition("#")[2].rstrip(")") for row in rows}
    assert sections == CAUGHT
    assert {row["error"]["callback"] for row in rows} == {"db_parse"}
    assert {row["error"]["function"] for row in rows} == set(CAUGHT)
    assert query("SELECT count(*) AS n FROM virtualchain.ops WHERE app = 'healthy'") == [{"n": 1}]


def test_what_is_done_for_a_callback_is_allowed(
    fake_node: FakeNode, run: Run, query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine's statements, logging, and an import at the first call are no mistakes."""

    def commit(op: dict[str, Any], state: State) -> None:
        import colorsys

        logging.getLogger("guarded").warning("%s", colorsys.__name__)
        state.execute("INSERT INTO words VALUES (%s) ON CONFLICT DO NOTHING", [op["word"]])
        state.query("SELECT word FROM words ORDER BY word")

    sys.modules.pop("colorsys", None)
    fake_node.mine([fake_node.send(b"guaone"), fake_node.send(b"guatwo")])
    run(an_app(lambda payload: {"word": payload.decode()}, commit=commit), guard=True)
    assert query("SELECT word FROM guarded.words ORDER BY word") == [{"word": "one"}, {"word": "two"}]
    assert [record.message for record in caplog.records if record.name == "guarded"] == ["colorsys"] * 2


def test_without_the_guard_nothing_is_watched(other: ModuleType, fake_node: FakeNode, run: Run) -> None:
    """It is off unless it is asked for, and leaves nothing that was replaced."""
    fake_node.mine([fake_node.send(b"gua")])
    app = an_app(lambda payload: {"now": int(other.clock())})
    with pytest.raises(AppHalted, match=r"docs/mistakes\.md#clock"):
        run(app, guard=True)
    assert type(time.time).__name__ == "builtin_function_or_method"
    assert vars(other)["time"] is time.time
    assert datetime.now(UTC)
    run(an_app(lambda payload: {"now": int(other.clock())}, "unguarded"))


def test_a_module_that_a_callback_imports_works_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_node: FakeNode, run: Run
) -> None:
    """It keeps what stood for the clock, which is no method where a class has it, as the clock is none."""
    (tmp_path / "late_package.py").write_text("import time\nclass Timer:\n    now = time.monotonic\n")
    monkeypatch.syspath_prepend(tmp_path)

    def parse(payload: bytes) -> dict[str, Any]:
        import late_package  # type: ignore[import-not-found]

        return {"timed": payload == b"t" and late_package.Timer().now() > 0}

    fake_node.mine([fake_node.send(b"gua")])
    app = an_app(parse)
    run(app, guard=True)
    assert sys.modules["late_package"].Timer().now() > 0
    fake_node.mine([fake_node.send(b"guat")])
    with pytest.raises(AppHalted, match=r"time\.monotonic .*docs/mistakes\.md#clock"):
        run(app, guard=True)
    del sys.modules["late_package"]


def test_state_in_an_object_is_noticed(fake_node: FakeNode, run: Run) -> None:
    """A helper that counts changes an object that the code names."""
    from collections import Counter

    counted: Counter[bytes] = Counter()

    def parse(payload: bytes) -> dict[str, Any]:
        Counter.update(counted, [payload])
        return {}

    fake_node.mine([fake_node.send(b"gua")])
    with pytest.raises(AppHalted, match=r"changing counted, which .*parse names .*docs/mistakes\.md#state"):
        run(an_app(parse), guard=True)


def test_the_command_line_has_a_switch(tmp_path: Path) -> None:
    """A flag, a variable and the file set it."""
    from virtualchain.settings import load

    (tmp_path / "virtualchain.toml").write_text("[virtualchain]\nguard = true\n")
    assert load({}, {}, tmp_path).guard
    assert not load({}, {"VIRTUALCHAIN_GUARD": "0"}, tmp_path).guard
    assert load({"guard": True}, {"VIRTUALCHAIN_GUARD": "0"}, tmp_path).guard

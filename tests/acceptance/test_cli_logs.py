"""What commands say with --log-format json: each line on standard error is one event."""

import json
import os
import signal
import urllib.request
from collections.abc import Sequence
from typing import Any

import pytest

from tests.acceptance.conftest import Commands, Inside
from virtualchain.notices import EVENTS
from virtualchain.testing import FakeNode

KEYS = ["time", "level", "event", "message"]
BROKEN = """
import logging, threading, warnings
from virtualchain import App

class Odd(Exception):
    def __str__(self):
        return "odd\\nodd\\x1b[31m\\u2028"

def parse(payload):
    return {}

logging.getLogger("apps").warning("imported\\n%s", "twice")
warnings.warn("beware")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
app = App("broken", magic=b"st")
app.add(b"o", parse=parse)
"""


@pytest.fixture
def common(fake_node: FakeNode, database_url: str) -> tuple[Any, ...]:
    """Return the options of every command here."""
    node = ("--bitcoin", fake_node.url, "--confirmations", 0)
    return ("--log-format", "json", "--app", "apps", "--database", database_url, *node)


def events(err: str) -> list[dict[str, Any]]:
    """Read standard error; every line must be an event."""
    assert err.isprintable() or err.endswith("\n")
    read = [json.loads(line) for line in err.split("\n")[:-1]]
    for event in read:
        assert list(event)[:4] == KEYS
        assert event["event"] in EVENTS
        assert event["time"].endswith("Z")
    return read


def names(read: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of events."""
    return [event["event"] for event in read]


def test_run_says_everything_as_events(
    cli: Commands, fake_node: FakeNode, common: tuple[Any, ...], database_url: str
) -> None:
    """Blocks, a fork, an outage of the node, a server beside the writer, and the end: nothing but events.

    A setting and a file that changed are among them.
    """
    cli("sync", *common)
    process = cli.start("run", *common, "--confirmations", 1, "--serve", "--port", 0)
    process.until_said('"serving"')
    fake_node.mine([fake_node.send(b"stoone"), fake_node.send(b"stono")])
    fake_node.mine()
    process.until_said(f'"block_id": {fake_node.height - 1}, "block_hash"')
    fake_node.reorg(2, 4)
    process.until_said('"rolled_back"')
    url = next(event["url"] for event in events(process.err) if event["event"] == "serving")
    with urllib.request.urlopen(f"{url}api/v1/apps") as answer:
        assert answer.status == 200
    fake_node.stop()
    process.until_said('"waiting_for_node"')
    fake_node.start()
    process.until_said('"node_connected"')
    done = process.signal(signal.SIGTERM)
    read = events(done.err)
    assert (done.code, names(read)[-1]) == (0, "stopped")
    assert [event for event in read if event["level"] == "error"] == [], "nothing was wrong"
    by_name = {event["event"]: event for event in read}
    assert by_name["settings_changed"]["changes"] == {"confirmations": [0, 1]}
    assert by_name["rolled_back"]["blocks_undone"] == 1
    assert by_name["password_exposed"]["level"] == "warning"
    [taken] = [event for event in read if event.get("inputs") == 2 and event["event"] == "block_taken"]
    assert (taken["accepted"], taken["rejected"]) == (1, 1)
    assert taken["apps"]["notes"] == {"inputs": 2, "accepted": 1, "rejected": {"check": 1}}


def test_what_is_wrong_is_an_event_too(cli: Commands, common: tuple[Any, ...], database_url: str) -> None:
    """A usage error, a database that is away, a bug with its traceback, and what libraries print."""
    [event] = events(cli("--log-format=json", "sink", code=2).err)
    assert (event["event"], event["exit_code"]) == ("usage_error", 2)
    [event] = events(cli("status", *common, "--database", "postgresql://127.0.0.1:1/x", "-v", code=3).err)
    assert (event["event"], event["error"]) == ("failed", "DatabaseUnavailable")
    assert "Traceback" in event["traceback"]
    (cli.folder / "virtualchain.toml").write_text("[virtualchain]\nlog_format = 'json'\n")
    (cli.folder / "apps.py").write_text(BROKEN)
    read = events(cli("sync", *common[2:]).err)
    assert names(read) == ["log", "python_warning", "bug"]
    assert read[0]["message"] == "imported\ntwice"
    assert read[2]["error"] == "ZeroDivisionError"
    (cli.folder / "apps.py").write_text(BROKEN.replace("app = App", "raise Odd\napp = App"))
    *_, event = events(cli("sync", *common[2:], code=2).err)
    assert "odd" in event["message"]


def test_a_bug_is_one_event(cli: Commands, common: tuple[Any, ...]) -> None:
    """Its traceback is a field, so that the line stays one."""
    (cli.folder / "sitecustomize.py").write_text(
        "import virtualchain.loading as loading\n"
        "def load_app(use): raise ZeroDivisionError('one\\ntwo')\n"
        "loading.load_app = load_app\n"
    )
    cli.environment["PYTHONPATH"] += f"{os.pathsep}{cli.folder}"
    [event] = events(cli("sync", *common, code=70).err)
    assert (event["event"], event["level"], event["error"]) == ("bug", "error", "ZeroDivisionError")
    assert "one\ntwo" in event["traceback"]


def test_a_level_leaves_out_what_matters_less(inside: Inside, database_url: str) -> None:
    """In text as well; a format or level that does not exist is reported, in text."""
    options = ("--app", "apps", "--database", database_url, "--bitcoin", "http://user:x@127.0.0.1:1")
    assert inside("sync", *options, "--log-level", "error", code=3).err.startswith("virtualchain: ")
    wrong = inside("sync", *options, "--log-format", "xml", code=2).err
    assert wrong == "virtualchain: --log-format must be text or json\n"
    wrong = inside("sync", *options, "--log-level", "loud", code=2).err
    assert wrong == "virtualchain: --log-level must be debug, info, warning or error\n"

"""The commands webhooks, and `run` with webhooks in virtualchain.toml."""

import json
import time
from pathlib import Path

from tests.acceptance.conftest import Commands, Inside, check_one_line, mine_notes
from tests.acceptance.test_cli_run import at
from tests.support.receivers import KEY, Receiver
from tests.support.servers import value
from virtualchain.testing import FakeNode

FILE = """
[virtualchain]
database = "{database}"
bitcoin = "{node}"
confirmations = 0
[[apps]]
use = "apps"
[[webhooks]]
url = "{url}?t0ken"
app = "notes"
secret_env = "HOOK_SECRET"
[[webhooks]]
name = "other"
url = "{url}"
app = "elsewhere"
secret = "x"
"""


DELIVERED = "SELECT delivered FROM virtualchain.webhooks WHERE name = 'notes'"


def configure(folder: Path, node: FakeNode, database: str, receiver: Receiver) -> Path:
    """Write the settings."""
    file = folder / "virtualchain.toml"
    file.write_text(FILE.format(database=database, node=node.url, url=receiver.url))
    file.chmod(0o600)
    return file


def test_run_delivers_and_ends_in_time(
    cli: Commands, inside: Inside, fake_node: FakeNode, database_url: str
) -> None:
    """Every block after the first start comes, and a receiver that hangs does not keep `run` from ending."""
    answers: list[float] = [0.0]

    def answer(number: int) -> int:
        time.sleep(answers[-1])
        return 204

    with Receiver(answer) as receiver:
        config = ("--config", configure(cli.folder, fake_node, database_url, receiver))
        cli.environment["HOOK_SECRET"] = KEY
        process = cli.start("run")
        process.until_said(at(fake_node))
        mine_notes(fake_node, "one", "two")
        receiver.wait(lambda receiver: len(receiver.events) == 2)
        answers.append(9.0)
        mine_notes(fake_node, "three")
        receiver.wait(lambda receiver: len(receiver.attempts) == 3)
        started = time.monotonic()
        done = process.signal()
        assert (done.code, time.monotonic() - started < 6) == (0, True)
        assert not any(secret in done.err for secret in (KEY, "t0ken"))
        answers.append(0.0)

        [notes, other] = json.loads(inside(*config, "webhooks", "list", "--json").out)
        assert (notes["name"], notes["block_id"], notes["delivered"]) == ("notes", fake_node.height, 2)
        assert (notes["receiver"], notes["is_delivered"]) == (receiver.url.removesuffix("/hook"), False)
        assert (other["app_block_id"], other["block_id"]) == (None, -1)
        lines = inside(*config, "webhooks", "list").out.splitlines()
        assert "up to date; no process delivers it" in lines[1]
        assert "there is no app elsewhere yet" in lines[2]

        process = cli.start("webhooks", "run")
        receiver.wait(lambda receiver: len(receiver.events) == 3)
        process.until(lambda: value(database_url, DELIVERED) == 3)
        assert (
            inside(*config, "webhooks", "replay", "notes", "--from", "0").out
            == "webhook notes is delivered from block 0 on\n"
        )
        receiver.wait(lambda receiver: len(receiver.attempts) >= 7)
        assert "no process" not in inside(*config, "webhooks", "list").out
        assert process.signal().code == 0
    assert receiver.attempts[-3:] == list(dict.fromkeys(receiver.attempts))
    assert [op["fields"]["text"] for event in receiver.events for op in event["ops"]] == [
        "one",
        "two",
        "three",
    ]
    assert receiver.complaints == []


def test_mistakes_are_named(inside: Inside, fake_node: FakeNode, database_url: str) -> None:
    """A secret that is missing ends `run` before anything else; other commands do not need it."""
    check_one_line(inside("webhooks", "run", code=2), "there are no [[webhooks]] in virtualchain.toml")
    with Receiver() as receiver:
        configure(inside.folder, fake_node, database_url, receiver)
    for command in (("run",), ("webhooks", "run")):
        done = inside(*command, code=2)
        check_one_line(done, "webhook notes: the environment variable HOOK_SECRET is not set")
    assert len(inside("webhooks", "list").out.splitlines()) == 3
    check_one_line(inside("webhooks", "replay", "nobody", "--from", "1", code=2), "has no webhook nobody")
    printed = json.loads(inside("webhooks", "replay", "notes", "--from", "7", "--json").out)
    assert printed == {"name": "notes", "block_id": 7}

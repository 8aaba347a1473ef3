"""Passwords, tokens and secrets: whatever a command prints, stores or shows of itself has none of them."""

import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import click
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.acceptance.conftest import Commands, Inside, Running
from tests.support.receivers import Receiver
from virtualchain.cli import log, program
from virtualchain.testing import FakeNode

SECRETS = (
    *("n0de/p@ss wörd", "wr0ng:datab@se", "pathT0ken"),
    *("h00k-secret", "url-t0ken", "c00kie-c0ntent", "l1st-t0ken"),
)
PRINTED = {"db url", "db create"}
"""These commands print a URL, because that is what they are for."""
SERVING = {"serve", "demo", "db start", "db stop", "db status"}
"""They serve whatever the database is, or need a server of their own."""
ENDLESS = {"watch", "webhooks run"}
"""They go on if the database is there."""
HOOKS = """
[[webhooks]]
url = "http://127.0.0.1:{port}/{token}"
app = "notes"
secret = "{secret}"
"""


@pytest.fixture
def node() -> Iterator[FakeNode]:
    """Provide a node with a password that must be encoded in a URL."""
    with FakeNode(password=SECRETS[0]) as node:
        node.mine(n=3)
        yield node


def forms(secret: str) -> set[str]:
    """Return how a secret may be written: as it is, encoded, or escaped."""
    return {secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1]}


def check(text: str, what: object, database: str = "") -> None:
    """Check that a text has no secret in any form."""
    password = str(conninfo_to_dict(database).get("password") or SECRETS[0]) if database else SECRETS[0]
    for secret in (*SECRETS, password):
        for form in forms(secret):
            assert form not in text, (what, form, text)


def names(group: click.Group, before: str = "") -> Iterator[str]:
    """Yield the names of all commands."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from names(command, f"{name} ")
        else:
            yield before + name


ARGUMENTS = {
    "sql": ("SELECT no_such_column",),
    "watch": ("--from", "0"),
    "serve": ("--port", "0"),
    "webhooks replay": ("notes", "--from", "1"),
    "send": ("notes", "o", "text=one"),
    "prove": ("notes", "00" * 32),
    "state-root": ("notes",),
    "prove-row": ("notes", "notes", "1", "1"),
    "check-proof": ("no-such-file", "00" * 32),
    "export": ("tape",),
    "import": ("tape",),
    "resume": ("notes",),
    "rollback": ("1",),
    "pin": ("1", "ab" * 32),
    "unpin": ("1",),
    "compare-nodes": ("http://user:wr0ng%3Adatab%40se@127.0.0.1:1",),
    "upgrade": ("notes",),
    "replay": ("notes",),
    "compare": ("notes", "1"),
    "swap": ("notes", "1"),
    "drop": ("notes", "1"),
    "remove": ("notes",),
    "checkpoint create": ("point",),
    "checkpoint show": ("point",),
    "checkpoint apply": ("point",),
    "checkpoint keygen": ("key",),
    "db grant-reader": ("nobody",),
    "db revoke-reader": ("nobody",),
}
"""What a command is called with, so that it reaches what may fail."""


def test_no_command_shows_a_secret(
    inside: Inside, node: FakeNode, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command, with tracebacks: with wrong passwords for the database and the node; as text and JSON."""
    monkeypatch.setattr(log, "_catch_others", lambda: None)
    (inside.folder / "virtualchain.toml").write_text(
        HOOKS.format(port=1, token=SECRETS[4], secret=SECRETS[3])
    )
    (inside.folder / "cookie").write_text(f"__cookie__:{SECRETS[5]}")
    right = str(conninfo_to_dict(database_url)["password"])
    wrong_database = database_url.replace(f":{right}@", f":{quote(SECRETS[1])}@")
    wrong_node = f"{node.url.replace(quote(SECRETS[0], safe=''), quote(SECRETS[1]))}/{SECRETS[2]}"
    cookie = ("--cookie", "cookie", "--bitcoin", node.url)
    url = f"http://user:{quote(SECRETS[6])}@127.0.0.1:1/list.json"
    situations = (
        ("text", wrong_database, ("--bitcoin", node.url)),
        ("json", database_url, ("--bitcoin", wrong_node)),
        ("text", database_url, cookie),
        ("json", database_url, ("--bitcoin", node.url, "--expect", url)),
    )
    apps = ("--app", "apps", "--confirmations", "0")
    inside("sync", *apps, "--database", database_url, "--bitcoin", node.url)
    for name in sorted(set(names(program)) - PRINTED - SERVING):
        for number, (form, database, source) in enumerate(situations):
            if (number == 1 and name in ENDLESS) or (number > 1 and name not in {"sync", "status"}):
                continue
            options = ("-v", *apps, "--log-format", form, "--database", database, *source)
            done = inside(*name.split(), *ARGUMENTS.get(name, ()), *options, code=None)
            check(done.out + done.err, (name, number), database_url)


def processes(first: int) -> list[int]:
    """Return the numbers of a process and those that it has started."""
    lists = Path(f"/proc/{first}/task").glob("*/children")
    children = [int(child) for listed in lists for child in listed.read_text().split()]
    return [first, *(number for child in children for number in processes(child))]


def test_a_deployment_shows_no_secret(cli: Commands, node: FakeNode, database_url: str) -> None:
    """Not in its log, the database or its sessions; nor the server beside it in the list of processes.

    One URL comes from a file, as a container's secrets do. The other one is on the command line, which the
    command warns of, and does not pass on.
    """
    (cli.folder / "database").write_text(f"{database_url}\n")
    cli.environment["VIRTUALCHAIN_DATABASE_FILE"] = "database"
    with Receiver(lambda _: 500) as receiver:
        file = cli.folder / "virtualchain.toml"
        hooks = HOOKS.format(port=receiver.port, token=SECRETS[4], secret=SECRETS[3])
        file.write_text(f'[virtualchain]\nconfirmations = 0\n[[apps]]\nuse = "apps"\n{hooks}')
        file.chmod(0o600)
        options = ("--serve", "--port", 0, "-v", "--log-format", "json", "--bitcoin", node.url)
        process = cli.start("run", *options)
        process.until_said('"serving"')
        process.until_said(f"waiting for block {node.height + 1}: the node is")
        node.mine([node.send(b"stoone")])
        process.until_said(f"waiting for block {node.height + 1}: the node is")
        receiver.wait(lambda receiver: len(receiver.attempts) > 0)
        ask(process, "api/v1/status")
        ask(process, "sql?q=SELECT+1")
        _, *others = processes(process.pid)
        assert others
        for number in others:
            check(Path(f"/proc/{number}/cmdline").read_text(), number, database_url)
        with psycopg.connect(database_url) as connection:
            for statement in (
                "SELECT * FROM pg_stat_activity WHERE datname = current_database()",
                "SELECT * FROM vc.writer",
                "SELECT * FROM virtualchain.webhooks",
            ):
                check(str(connection.execute(statement).fetchall()), statement, database_url)
        done = process.signal(signal.SIGTERM)
    assert (done.code, done.err.count("the password in --bitcoin")) == (0, 1)
    check(done.out + done.err, "run", database_url)
    for command in ("status --json", "export tape", "checkpoint create point --app notes"):
        done = cli(*command.split(), "-v")
        check(done.out + done.err, command, database_url)
    for written in (*(cli.folder / "tape").rglob("*"), *cli.folder.glob("point*")):
        if written.is_file():
            check(written.read_bytes().decode("latin-1"), written, database_url)


def ask(process: Running, path: str) -> None:
    """Ask the server for a page."""
    [url] = [json.loads(line)["url"] for line in process.err.splitlines() if '"serving"' in line]
    with urllib.request.urlopen(f"{url}{path}") as answer:
        assert answer.status == 200

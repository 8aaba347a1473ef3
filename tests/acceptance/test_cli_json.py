"""The option --json: with every command, standard output is one JSON value and nothing else."""

import json
import re
from collections.abc import Iterator

import click
import pytest

from tests.acceptance.conftest import Inside
from tests.support.servers import reachable_folder
from virtualchain.cli import program
from virtualchain.testing import FakeNode

ELSEWHERE = {
    *("run", "doctor", "demo", "dev", "resume", "rollback", "unpin"),
    *("compare-nodes", "upgrade", "replay", "compare", "swap", "drop", "remove"),
    *("prove", "state-root", "prove-row", "check-proof"),
    *("webhooks list", "webhooks replay", "webhooks run", "export", "scan", "import", "advance"),
    *("watch", "serve", "preview", "send", "db grant-reader", "db revoke-reader", "db upgrade"),
    *("checkpoint create", "checkpoint publish", "checkpoint show", "checkpoint apply", "checkpoint keygen"),
    *("init", "completion", "db standby", "db promote"),
}
"""Commands that need a scenario: their own tests cover --json."""
COMMANDS = (
    *(("migrate",), ("sync",), ("status",), ("ops",), ("ops", "--rejected"), ("consensus",), ("verify",)),
    *(("sql", "SELECT 1 AS a"), ("sql", "-"), ("pin", "1000000", "ab" * 32)),
    ("prune", "--keep", "10"),
)
SERVER = (
    *(("db", "start"), ("db", "status"), ("db", "url"), ("db", "create", "more"), ("db", "stop")),
    ("db", "drop-old"),
)


def names(group: click.Group, before: str = "") -> Iterator[str]:
    """Yield the names of all commands."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from names(command, f"{name} ")
        else:
            yield before + name


def test_no_command_is_forgotten() -> None:
    """A new command must be added to one of the lists above."""
    tried = {command[0] for command in COMMANDS} | {" ".join(command[:2]) for command in SERVER}
    assert set(names(program)) == tried | ELSEWHERE


@pytest.mark.parametrize("place", ["before", "after"])
def test_commands_print_json(inside: Inside, fake_node: FakeNode, database_url: str, place: str) -> None:
    """--json works before and after the command."""
    inside.set(VIRTUALCHAIN_DATABASE=database_url, VIRTUALCHAIN_BITCOIN=fake_node.url)
    app = ("--app", "virtualchain.examples.notary")
    for command in COMMANDS:
        arguments = ("--json", *command, *app) if place == "before" else (*command, *app, "--json")
        done = inside(*arguments, stdin="SELECT 2 AS a")
        assert isinstance(json.loads(done.out), dict | list), command
        assert done.err == ""


def test_the_embedded_servers_commands_print_json(inside: Inside) -> None:
    """They print the server's URL and whether it runs."""
    with reachable_folder() as folder:
        inside.set(VIRTUALCHAIN_HOME=str(folder.parent))
        try:
            printed = [json.loads(inside(*command, "--json").out) for command in SERVER]
        finally:
            inside("db", "stop")
    assert [server.get("running") for server in printed] == [True, True, None, None, False, None]
    assert printed[2]["url"].startswith("postgresql://virtualchain:")
    assert printed[5] == {"removed": []}
    assert printed[3]["url"] == printed[2]["url"].removesuffix("virtualchain") + "more"


def test_a_standby_takes_over_by_commands(inside: Inside) -> None:
    """Each server is found by its VIRTUALCHAIN_HOME; the old primary does not start any more."""
    with reachable_folder() as folder:
        old, new = str(folder.parent), str(folder.parent / "new")
        try:
            inside.set(VIRTUALCHAIN_HOME=old)
            url = json.loads(inside("db", "standby", new, "--synchronous", "--json").out)["url"]
            primary = json.loads(inside("db", "status", "--json").out)
            assert [each["synchronous"] for each in primary["standbys"]] == [True]
            assert re.search(
                r"  standbys +synchronous, streaming, [\d,]+ bytes behind", inside("db", "status").out
            )
            inside("db", "stop")
            inside.set(VIRTUALCHAIN_HOME=new)
            assert json.loads(inside("db", "status", "--json").out)["primary"] == f"{old}/postgresql"
            assert f"  standby of  {old}/postgresql, not connected" in inside("db", "status").out
            assert inside("db", "promote").out == f"{url}\n"
            assert "there is nothing to promote" in inside("db", "promote", code=2).err
            assert json.loads(inside("db", "status", "--json").out)["primary"] is None
            inside.set(VIRTUALCHAIN_HOME=old)
            assert json.loads(inside("db", "status", "--json").out)["successor"] == f"{new}/postgresql"
            assert f"  replaced by  {new}/postgresql: " in inside("db", "status").out
            assert f"set VIRTUALCHAIN_HOME={new}" in inside("db", "start", code=2).err
        finally:
            for home in (new, old):
                inside.set(VIRTUALCHAIN_HOME=home)
                inside("db", "stop")


def test_resume_prints_json(inside: Inside, fake_node: FakeNode, database_url: str) -> None:
    """It prints the app, its block and its new status; an error leaves standard output empty."""
    inside.set(VIRTUALCHAIN_DATABASE=database_url, VIRTUALCHAIN_BITCOIN=fake_node.url)
    (inside.folder / "broken").touch()
    fake_node.mine([fake_node.send(b"stoone")])
    sync = inside("sync", "--json", "--app", "apps", "--confirmations", 0, code=4)
    assert json.loads(sync.out)["apps"][0]["status"] == "halted"
    printed = json.loads(inside("resume", "notes", "--json").out)
    assert printed == {"name": "notes", "block_id": fake_node.height - 1, "status": "running"}
    assert inside("resume", "notes", "--json", code=2).out == ""

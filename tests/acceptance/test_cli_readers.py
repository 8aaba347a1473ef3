"""The commands db grant-reader and db revoke-reader, on the embedded server and on one that is given."""

import json
import sys
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.support.moving import an_app, story
from tests.support.servers import reachable_folder, value
from virtualchain import StateEngine
from virtualchain.cli import main
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing import FakeNode

Told = Callable[..., Any]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """Give a function that runs a command and gives its exit code and what it printed."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["virtualchain", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


def test_on_the_embedded_server_nothing_can_be_written_at_all(
    told: Told, monkeypatch: pytest.MonkeyPatch, fake_node: FakeNode
) -> None:
    """Its superuser is ours: large objects and the writer's lock are out of a reader's reach, too."""
    with reachable_folder() as folder:
        monkeypatch.setenv("VIRTUALCHAIN_HOME", str(folder.parent))
        server = EmbeddedServer(folder.parent / "postgresql", durable=False)
        try:
            url = server.start()
            story(fake_node, 1, 5)
            with StateEngine(an_app("one"), database=url, source=fake_node.url, confirmations=0) as engine:
                engine.build()
            code, out, _ = told("--json", "db", "grant-reader", "analyst", "--login")
            assert code == 0
            made = json.loads(out)
            assert made["apps"] is None
            assert not [item for item in made["remains"] if "large objects" in item or "locks" in item]
            assert value(made["url"], "SELECT count(*) FROM one.owners") is not None
            status = told("--json", "status", "--database", made["url"], "--bitcoin", fake_node.url)
            assert (status[0], json.loads(status[1])["network"]) == (0, "regtest")
            for attack in (
                "SELECT lo_create(0)",
                "SELECT lo_from_bytea(0, 'x')",
                "SELECT pg_try_advisory_lock(1986622068, 1667784041)",
                "SELECT pg_advisory_xact_lock_shared(1)",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    value(made["url"], attack)
            with StateEngine(an_app("one"), database=url, source=fake_node.url, confirmations=0) as engine:
                engine.build()  # the writer still gets its lock
            code, out, _ = told("db", "revoke-reader", "analyst")
            assert (code, out) == (0, "analyst reads nothing here any more; DROP ROLE removes it\n")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                value(made["url"], "SELECT count(*) FROM one.owners")
        finally:
            server.stop()


def test_apps_are_named_and_what_remains_is_told(told: Told, database_url: str, fake_node: FakeNode) -> None:
    """--app narrows what is granted, by name; an unknown one, or a role that is more, is refused."""
    role = f"{database_url.rpartition('/')[2]}:reader"
    with StateEngine(
        an_app("one"), an_app("two"), database=database_url, source=fake_node.url, confirmations=0
    ) as engine:
        engine.build()
    code, out, _ = told("--database", database_url, "db", "grant-reader", role, "--app", "one")
    assert code == 0
    assert out.splitlines()[0] == f"{role} reads the views of one"
    assert "may besides" in out
    granted = "SELECT has_schema_privilege('{}', '{}', 'USAGE')"
    assert value(database_url, granted.format(role, "one")) is True
    assert value(database_url, granted.format(role, "two")) is False
    code, _, err = told("--database", database_url, "db", "grant-reader", role, "--app", "none")
    assert code == 2
    assert "one, two" in err
    code, _, err = told("--database", database_url, "db", "grant-reader", "virtualchain")
    assert code == 2
    assert "the role virtualchain can create roles" in err
    code, _, err = told("--database", database_url, "db", "revoke-reader", "nobody")
    assert code == 2


def test_sql_shows_a_block(told: Told, database_url: str, fake_node: FakeNode) -> None:
    """--as-of takes a height or a hash; what cannot be shown is the user's mistake, told in one line."""
    story(fake_node, 1, 10)
    with StateEngine(an_app("one"), database=database_url, source=fake_node.url, confirmations=0) as engine:
        engine.build()
    ask = (
        "--database",
        database_url,
        "--json",
        "sql",
        "SELECT max(block_id) AS n, max(hash) AS hash FROM blocks",
    )
    assert json.loads(told(*ask, "--as-of", "105")[1])[0]["n"] == 105
    assert json.loads(told(*ask)[1])[0]["n"] == fake_node.height
    block_hash = value(database_url, "SELECT hash FROM virtualchain.blocks WHERE block_id = 104")
    assert json.loads(told(*ask, "--as-of", str(block_hash))[1])[0]["n"] == 104
    for wrong, complaint in (("100000", "block 100000 is not here"), ("soon", "is no block: 'soon'")):
        code, out, err = told(*ask, "--as-of", wrong)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert complaint in err


def test_sql_ends_what_takes_too_long(told: Told, database_url: str) -> None:
    """The message says how long it was given, and how to give it more; 0 is any time."""
    ask = ("--database", database_url, "sql", "SELECT pg_sleep(0.3)")
    code, out, err = told(*ask, "--timeout", "0.1")
    assert (code, out) == (3, "")
    assert "took more than 0.1 seconds" in err
    assert "--timeout SECONDS" in err
    assert told(*ask, "--timeout", "0")[0] == 0
    assert told(*ask)[0] == 0

"""The command demo, what it suggests to try next, and the commands of the embedded server."""

import json
import re
import shlex
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.acceptance.conftest import Commands, Inside
from tests.support.servers import value
from virtualchain.testing.database import DatabaseServer

LAST = "171fb22500ac7ee2d45dcbe0bd8433ed"
"""The consensus hash with which the demonstration ends, whoever runs it."""


@pytest.fixture
def home(cli: Commands, inside: Inside) -> Iterator[Path]:
    """Provide a home folder for the commands, which the server's user can reach."""
    home = Path(tempfile.mkdtemp(prefix="virtualchain-demo-"))
    home.chmod(0o711)
    cli.environment["VIRTUALCHAIN_HOME"] = str(home)
    inside.set(VIRTUALCHAIN_HOME=str(home))
    yield home
    inside("db", "stop")
    shutil.rmtree(home)


def test_the_first_minute(cli: Commands, inside: Inside, home: Path) -> None:
    """Two runs print the same text, and the commands that it suggests and those of the server work."""
    assert "not running" in inside("db", "status").out
    assert list(home.iterdir()) == []
    first = cli("demo")
    assert "starting the embedded PostgreSQL server" in first.err
    again = cli("demo")
    assert (again.out, again.err) == (first.out, "")
    assert "alice gives the contract to carol  accepted\n" in first.out
    assert "refused: the document belongs to carol\n" in first.out
    assert f"  consensus hash  {LAST}\n" in first.out
    assert "left everything above block 19 for a branch with more work, up to block 38" in first.out
    assert "12 blocks of the old branch had been processed. Undone: 12 blocks, 3 ops" in first.out

    url = inside("db", "url", "virtualchain_demo").out.strip()
    assert url.endswith("/virtualchain_demo")
    assert value(url, "SELECT count(*) FROM notary.documents") == 2
    inside.set(VIRTUALCHAIN_DATABASE=url)
    tried = [shlex.split(line)[1:] for line in first.out.splitlines() if line.startswith("virtualchain ")]
    assert [words[0] for words in tried] == ["sql", "ops", "consensus", "sql", "--network"]
    for words in tried[:4]:
        assert inside(*words).out

    status = json.loads(inside("db", "status", "--json").out)
    assert (status["running"], str(status["port"]) in url) == (True, True)
    assert "not running" in inside("db", "stop").out
    assert json.loads(inside("--json", "db", "start").out) == status


def test_demo_shows_itself(cli: Commands, database_server: DatabaseServer) -> None:
    """With --serve one command leads from nothing to the pages, and Ctrl-C ends it."""
    url = f"{database_server.url.rpartition('/')[0]}/pages_demo"
    running = cli.start("demo", "--database", url, "--serve", "--port", "0")
    running.until_said("the deployment is shown at ")
    [base] = re.findall(r"shown at (\S+)", running.err)
    with urlopen(f"{base}apps/notary/tables/documents?as_of=25", timeout=20) as answer:
        assert b"As of block 25" in answer.read()
    assert running.signal(signal.SIGINT).code == 0
    database_server.drop(url)


def test_demo_prints_json(inside: Inside, database_server: DatabaseServer) -> None:
    """It creates the database on another server if the name allows it, and prints one JSON object."""
    url = f"{database_server.url.rpartition('/')[0]}/shop_demo"
    printed = json.loads(inside("demo", "--json", "--database", url).out)
    assert printed.keys() == {"ops", "rejections", "documents", "consensus", "fork"}
    assert [len(printed[key]) for key in ("ops", "rejections", "documents", "consensus")] == [5, 4, 3, 3]
    assert [len(printed["fork"][key]) for key in ("ops", "rejections", "documents")] == [3, 2, 2]
    assert (printed["fork"]["reorg"]["depth"], printed["fork"]["reorg"]["cause"]) == (12, "work")
    assert printed["consensus"][-1]["consensus_hash"] == LAST
    refused = inside("demo", "--database", url.replace("_demo", ""), code=2)
    assert "takes only one whose name ends in _demo, and not 'shop'" in refused.err
    database_server.drop(url)

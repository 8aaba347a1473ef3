"""The embedded server's data is moved to a newer PostgreSQL, and never lost on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from tests.integration.store.test_released_schemas import continued
from tests.support.dumped_apps import titles, words
from tests.support.schema_dumps import END, nodes
from tests.support.servers import postmaster, reachable_folder, value
from virtualchain import StateEngine
from virtualchain.audit.verify import verify
from virtualchain.errors import StoreError, UsageError, WriterBusy
from virtualchain.store.database import connect_migrator, connect_writer
from virtualchain.store.embedded import upgrade
from virtualchain.store.embedded.host import server_account
from virtualchain.store.embedded.installation import find_binaries
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.roles import drop_role, grant_reader
from virtualchain.testing import FakeNode
from virtualchain.testing.database import installations

ADDED = "work_mem = '7MB'\n"
UPGRADE = """
import os, signal, sys
from pathlib import Path
from virtualchain.store.embedded import upgrade, server

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "switching":
    server.finish_switch = lambda folder: None
    upgrade.finish_switch = die
server.EmbeddedServer(Path(sys.argv[1]), durable=False).upgrade()
"""


@pytest.fixture(scope="module")
def served() -> Iterator[list[FakeNode]]:
    """Serve the chain of the dumps: up to block 12, and all of it."""
    chain = nodes()
    yield chain[1:]
    for node in chain:
        node.close()


@pytest.fixture
def old() -> int:
    """Return the major version that a test begins with: Debian's by default, or that of the wheel."""
    return 15


@pytest.fixture
def server(old: int, served: list[FakeNode]) -> Iterator[EmbeddedServer]:
    """Run a deployment on an old PostgreSQL, with a second database, a reader, and settings of its own."""
    versions = installations()
    if old not in versions:
        pytest.skip(f"there is no PostgreSQL {old}")
    with reachable_folder() as home:
        folder = home / "postgresql"
        server = EmbeddedServer(folder, binaries=versions[old], durable=False)
        url = server.start()
        with StateEngine(titles, words, database=url, source=served[0].url, confirmations=0) as engine:
            engine.build()
        with closing(connect_migrator(url)) as connection:
            grant_reader(connection, "analyst", None, login=True, password="own'pass")
            connection.commit()
        with psycopg.connect(server.create_database("ünï 'x")) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        with server.connect_superuser("postgres") as connection:
            connection.execute("ALTER SYSTEM SET maintenance_work_mem = '99MB'")
            connection.execute("CHECKPOINT")
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.write(ADDED)
        upgraded = EmbeddedServer(folder, durable=False)
        yield upgraded
        upgraded.stop()


def check(server: EmbeddedServer, node: FakeNode) -> None:
    """Check that nothing is missing on the upgraded server, and that its deployment continues."""
    url = server.start()
    assert value(url, "SHOW server_version_num") != "15"
    assert value(server.url_for("ünï 'x"), "SELECT answer FROM kept") == 42
    assert [value(url, f"SHOW {name}") for name in ("work_mem", "maintenance_work_mem")] == ["7MB", "99MB"]
    reader = url.replace(url.split("/")[2].split("@")[0], "analyst:own'pass")
    assert value(reader, "SELECT count(*) FROM titles.titles") != 0
    assert verify(url).faults == []
    continued(url, node)
    with closing(connect_migrator(url)) as connection:  # which administers its roles, as before
        grant_reader(connection, "analyst", ["words"], login=True, password="another")
        drop_role(connection, "words")
        gone = "SELECT to_regrole('\"virtualchain:words\"') IS NULL"
        assert connection.execute(gone.encode()).fetchone() == (True,)
        connection.rollback()
    assert value(url, "SELECT max(block_id) FROM virtualchain.blocks") == END
    assert value(url, "SELECT count(*) FROM pg_stats WHERE schemaname = 'vc'") != 0


def test_everything_is_carried_along(server: EmbeddedServer, served: list[FakeNode], old: int) -> None:
    """A server that was killed is moved with databases, roles and settings; the old data stays beside it."""
    os.kill(postmaster(server), signal.SIGKILL)
    with pytest.raises(StoreError, match="`virtualchain db upgrade` moves"):
        server.start()
    with pytest.raises(UsageError, match="does not contain PostgreSQL 15"):
        server.upgrade(find_binaries(None, server_account()))
    done = command(server, "upgrade")
    kept = server.folder / "data-15"
    assert (done["from"], done["old"]) == (old, str(kept))
    assert done["databases"] == ["postgres", "virtualchain", "ünï 'x"]
    check(server, served[1])
    assert {path.name for path in server.folder.iterdir() if path.is_dir()} == {"data", "run", "data-15"}
    with pytest.raises(UsageError, match="already, like the programs in"):
        server.upgrade()
    assert command(server, "status")["old"] == [str(kept)]
    assert command(server, "drop-old") == {"removed": [str(kept)]}
    assert not kept.exists()


def command(server: EmbeddedServer, name: str) -> dict[str, Any]:
    """Run a command of `virtualchain db`, and return what it prints."""
    environment = {**os.environ, "VIRTUALCHAIN_HOME": str(server.folder.parent)}
    arguments = [sys.executable, "-m", "virtualchain", "--json", "db", name]
    done = subprocess.run(arguments, env=environment, stdout=subprocess.PIPE, check=True)
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@pytest.mark.parametrize("old", [16])
def test_killed_attempts_lose_nothing(
    server: EmbeddedServer, served: list[FakeNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused attempt changes nothing; a killed one is begun again, or finished by the next start."""
    with (
        connect_writer(server.url),
        pytest.raises(WriterBusy, match=r"virtualchain writer .*; stop them first"),
    ):
        server.upgrade()
    with monkeypatch.context() as patch:
        patch.setattr(upgrade, "_RESERVE", 10**18)
        with pytest.raises(StoreError, match="the disk is too full: a copy of"):
            server.upgrade()
    assert value(server.url, "SELECT current_setting('server_version_num')::int / 10000") == 16
    killed(server, "converting", lambda: list(server.folder.glob("upgrade-*/data/pg_upgrade_output.d")) != [])
    assert list(server.folder.glob("upgrade-*"))
    killed(server, "switching", lambda: False)
    assert not (server.folder / "data").exists()
    check(server, served[1])
    assert sorted(path.name for path in server.folder.iterdir() if path.is_dir()) == [
        "data",
        "data-16",
        "run",
    ]


def killed(server: EmbeddedServer, step: str, is_time: Callable[[], bool]) -> None:
    """Upgrade in a process that is killed, or kills itself, at a step; what it has started goes on."""
    with subprocess.Popen([sys.executable, "-c", UPGRADE, server.folder, step]) as process:
        while process.poll() is None:
            if is_time():
                process.kill()
            time.sleep(0.01)
        assert process.returncode == -signal.SIGKILL

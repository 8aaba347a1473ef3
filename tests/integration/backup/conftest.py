"""What the rehearsals of backups share: a deployment that is written to while it is backed up."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.support.moving import an_app, story
from virtualchain import StateEngine
from virtualchain.audit.verify import verify
from virtualchain.store.embedded.host import run, server_account
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing import FakeNode

DIGESTS = "SELECT block_id, ops_hash, consensus_hash, state_hash FROM vc.snapshots WHERE app = %s ORDER BY 1"
PAGE = Path(__file__).parents[3] / "docs" / "backup.md"
ROWS = "SELECT place, name, note, raw FROM plain.marks ORDER BY place"


class Deployment:
    """A deployment of an app whose random blocks change all of its tables, and the node that it follows."""

    def __init__(self, server: EmbeddedServer, node: FakeNode, name: str = "virtualchain") -> None:
        server.start()
        self.server, self.node = server, node
        self.url = server.url if name == "virtualchain" else server.create_database(name)
        self._seed = 0

    def mine(self, blocks: int) -> None:
        """Mine further blocks of the story."""
        self._seed += 1
        story(self.node, self._seed, blocks)

    def follow(self, url: str | None = None) -> list[str]:
        """Bring this deployment, or a copy of it, to the node's tip; return what the engine reported."""
        reports: list[str] = []
        database = url or self.url
        with StateEngine(
            an_app(), database=database, source=self.node.url, confirmations=0, on_wait=reports.append
        ) as engine:
            assert engine.build() == self.node.height
        return reports

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Let the writer take blocks meanwhile."""
        done = threading.Event()
        engine = StateEngine(an_app(), database=self.url, source=self.node.url, confirmations=0)

        def write() -> None:
            while not done.is_set():
                self.mine(1)
                engine.build()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            yield
        finally:
            done.set()
            writer.join()
            engine.close()

    def check(self, url: str) -> None:
        """Check that a copy continues to the digests and rows of the deployment that nothing happened to."""
        self.follow(url)
        self.follow()
        assert state(url) == state(self.url)
        assert verify(url).faults == []


def state(url: str) -> list[Any]:
    """Read the digests of all blocks, the rows, and the rows as of an earlier block."""
    with psycopg.connect(url) as connection:
        digests, rows = (
            connection.execute(DIGESTS, ["plain"]).fetchall(),
            connection.execute(ROWS).fetchall(),
        )
        connection.execute("SELECT set_config('virtualchain.as_of', '104', true)")
        return [digests, rows, connection.execute(ROWS).fetchall()]


def run_as_server(*command: str | Path, text: str = "", folder: Path = Path("/"), **variables: str) -> str:
    """Run a program as the user that servers run as, and return its output."""
    done = run(list(command), server_account(), text=text, folder=folder, variables=variables)
    assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
    return done.stdout


def run_page(heading: str, number: int, server: EmbeddedServer, folder: Path, programs: Path) -> None:
    """Run a block of commands of `docs/backup.md` in a folder, as a superuser of a server."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    commands = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[number]
    address = server.status().address
    assert address is not None
    variables = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(address.port),
        "PGUSER": "postgres",
        "PGPASSWORD": server._password("postgres"),
    }
    run_as_server("sh", "-e", "-c", commands, folder=folder, **variables)


def superuser(server: EmbeddedServer, database: str = "virtualchain") -> str:
    """Return the URL of a server's superuser."""
    place = server.url.rpartition("@")[2].partition("/")[0]
    return f"postgresql://postgres:{server._password('postgres')}@{place}/{database}"

"""Kill a sync, and the database under it, again and again; the result must equal an undisturbed run.

    python -m tests.simulation.crashes [--kills 50] [--postmasters 10] [--seed 1]

A fake node serves a chain with ops of a SQL app and of an app with a state of its own, which grows in each
round. Processes of their own, `python -m tests.simulation.crashes sync …`, sync it, and are killed with
SIGKILL after a random time. The database is a durable embedded server, whose postmaster is killed in the same
way. At the end, every table is compared with that of an undisturbed run.
"""

# This is a program and prints:
# ruff: noqa: T201

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.support.servers import postmaster
from tests.support.tables import tables
from virtualchain import App, State, StateEngine
from virtualchain.errors import StoreError
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing import FakeNode

ROOT = Path(__file__).parents[2]


def table_app() -> App:
    """Make an app that counts texts in a table, with updates, deletions and rejections."""
    app = App(
        "counter",
        magic=b"cr",
        projections="CREATE TABLE counts (text text PRIMARY KEY, n integer NOT NULL, block_id integer)",
    )

    def commit(op: dict[str, Any], state: State, block_id: int) -> bool | None:
        state.execute(
            "INSERT INTO counts VALUES (%s, 1, %s) ON CONFLICT (text) "
            "DO UPDATE SET n = counts.n + 1, block_id = EXCLUDED.block_id",
            [op["text"], block_id],
        )
        state.execute("DELETE FROM counts WHERE n > 5")
        return None if block_id % 7 else False

    app.add(b"o", parse=lambda payload: {"text": payload.decode()}, commit=commit)
    return app


class Tally:
    """An app that counts texts in a dict of its own."""

    def get_virtual_chain_name(self) -> str:
        """Return the name."""
        return "tally"

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "1"

    def get_first_block_id(self) -> int:
        """Return the first block."""
        return 0

    def get_magic_bytes(self) -> str:
        """Return the magic."""
        return "cr"

    def get_opcodes(self) -> str:
        """Return the opcode."""
        return "o"

    def get_db_state(self, filename: str | None = None) -> dict[str, int]:
        """Create the counts, or load the saved ones."""
        counts: dict[str, int] = {} if filename is None else json.loads(Path(filename).read_text())
        return counts

    def db_parse(self, *arguments: Any) -> dict[str, str]:
        """Parse a text."""
        return {"text": arguments[2].decode()}

    def db_check(self, *_: Any) -> bool:
        """Accept the op."""
        return True

    def db_commit(self, *arguments: Any) -> None:
        """Count the text."""
        counts, text = arguments[5], arguments[2]["text"]
        counts[text] = counts.get(text, 0) + 1

    def db_save(self, _: int, filename: str, counts: dict[str, int]) -> None:
        """Save the counts."""
        Path(filename).write_text(json.dumps(counts, sort_keys=True))


def sync(database: str, source: str, folder: str) -> None:
    """Sync both apps to the node's tip."""
    with StateEngine(
        table_app(),
        Tally(),
        database=database,
        source=source,
        confirmations=0,
        wait_for_writer=True,
        state_folder=Path(folder),
    ) as engine:
        engine.build()


def run(kills: int, postmasters: int, seed: int) -> list[str]:
    """Kill syncs and postmasters; return the names of the tables that differ in the end."""
    dice = random.Random(seed)
    victims = ["sync"] * kills + ["postmaster"] * postmasters
    dice.shuffle(victims)
    with _server_and_node() as (server, node, folder):
        disturbed = _database(server, "disturbed")
        for number, victim in enumerate(victims, 1):
            _mine(node, dice)
            process = _start(disturbed, node, folder / "disturbed")
            time.sleep(dice.uniform(0.3, 2.5))
            if victim == "postmaster":
                os.kill(postmaster(server), signal.SIGKILL)
            process.kill()
            process.wait()
            server.start()
            print(f"{number}/{len(victims)}: {victim} killed at block {_height(disturbed)}", flush=True)
        actual = _finish(disturbed, node, folder / "disturbed")
        expected = _finish(_database(server, "undisturbed"), node, folder / "undisturbed")
        return [name for name in expected if expected[name] != actual[name]]


def _mine(node: FakeNode, dice: random.Random) -> None:
    for _ in range(dice.randint(50, 250)):
        texts = [dice.randint(1, 40) for _ in range(dice.choice((0, 0, 0, 1, 2, 5)))]
        node.mine([node.send(b"cro%d" % text, sender=f"s{text}") for text in texts])


@contextmanager
def _server_and_node() -> Iterator[tuple[EmbeddedServer, FakeNode, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="virtualchain-crashes-"))
    folder.chmod(0o711)
    server = EmbeddedServer(folder / "postgresql")
    try:
        server.start()
        with FakeNode() as node:
            yield server, node, folder
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _finish(database: str, node: FakeNode, folder: Path) -> dict[str, Any]:
    """Sync to the tip undisturbed; return every table, and the saved file."""
    assert _start(database, node, folder).wait() == 0, "an undisturbed sync failed"
    return {**tables(database), "tally.state": (folder / "tally.state").read_bytes()}


def _database(server: EmbeddedServer, name: str) -> str:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.url_for(name)


def _start(database: str, node: FakeNode, folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.simulation.crashes", "sync", database, node.url, str(folder)]
    return subprocess.Popen(command, cwd=ROOT)


def _height(database: str) -> int | None:
    with psycopg.connect(database) as connection:
        if connection.execute("SELECT to_regclass('vc.blocks')").fetchone() == (None,):
            return None
        row = connection.execute("SELECT max(block_id) FROM vc.blocks").fetchone()
    return row[0] if row else None


def main() -> int:
    """Run the command and return its exit code: 0 if nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--postmasters", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    differing = run(options.kills, options.postmasters, options.seed)
    print(f"differing tables: {', '.join(differing) or 'none'}")
    return 1 if differing else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["sync"]:
        try:
            sync(*sys.argv[2:5])
        except StoreError as error:  # the database was killed: one line is enough
            sys.exit(str(error))
    else:
        sys.exit(main())

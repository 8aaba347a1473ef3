"""What the engine calls durable survives SIGKILL of the server, whatever the server is configured to do."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.crashes import Tally
from tests.support.servers import postmaster, reachable_folder, value
from virtualchain import StateEngine
from virtualchain.store.database import connect_builder, connect_migrator, connect_writer
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.tape import Tape
from virtualchain.testing import FakeNode

LAZY = ("synchronous_commit = off", "wal_writer_delay = '10s'")
"""Settings of a server that does not wait for the disk, and writes the WAL only when it must."""


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """Run a server that is as lazy about the disk as its settings allow."""
    with reachable_folder() as folder:
        server = EmbeddedServer(folder)
        server.start()
        with server.connect_superuser("postgres") as connection:
            connection.autocommit = True
            for setting in LAZY:
                connection.execute(f"ALTER SYSTEM SET {setting}".encode())
            connection.execute("SELECT pg_reload_conf()")
        yield server


def kill(server: EmbeddedServer) -> None:
    """Kill the server's first process, after which all others end at once, and start it again."""
    os.kill(postmaster(server), signal.SIGKILL)
    server.start()


def mine(node: FakeNode, blocks: int) -> None:
    """Mine blocks with one op each."""
    for number in range(blocks):
        node.mine([node.send(b"cro%d" % number)])


def engine(server: EmbeddedServer, node: FakeNode, folder: Path, **options: Any) -> StateEngine:
    """Open an engine for an app that saves its state to a file."""
    settings = {"database": server.url, "source": node.url, "confirmations": 0, "state_folder": folder}
    return StateEngine(Tally(), **{**settings, **options})


@pytest.mark.parametrize("attempt", range(3))
def test_a_saved_file_is_never_ahead_of_the_database(
    server: EmbeddedServer, fake_node: FakeNode, tmp_path: Path, attempt: int
) -> None:
    """Far below the tip, a build that has returned is on disk: the saved file and the database agree."""
    mine(fake_node, 150)
    last = 120 + attempt
    with engine(server, fake_node, tmp_path) as running:
        assert running.build(to=last) == last
        saved = (tmp_path / "tally.state").read_bytes()
        kill(server)
    assert value(server.url, "SELECT max(block_id) FROM vc.blocks") == last
    assert json.loads(saved) == json.loads(
        bytes(value(server.url, "SELECT content FROM vc.state_files ORDER BY block_id DESC LIMIT 1"))  # type: ignore[call-overload]
    )


def test_blocks_near_the_tip_are_durable_from_the_first(
    server: EmbeddedServer, fake_node: FakeNode, tmp_path: Path
) -> None:
    """An engine that starts near the tip waits for the disk, even if the server is not configured to."""
    mine(fake_node, 3)
    taken: list[int] = []

    def on_block(progress: Any) -> None:
        taken.append(progress.block.block_id)
        if progress.block.block_id == fake_node.height:
            os.kill(postmaster(server), signal.SIGKILL)

    with engine(server, fake_node, tmp_path) as running:
        running.build(to=fake_node.height - 2)
    with engine(server, fake_node, tmp_path, on_block=on_block) as running:
        running._follow_plan(None)
    server.start()
    assert taken[-1] == fake_node.height
    assert value(server.url, "SELECT max(block_id) FROM vc.blocks") == fake_node.height


def test_every_writing_session_waits_for_the_disk(server: EmbeddedServer) -> None:
    """Writers, builders and migrations pin what a commit waits for, and `flush` moves the flushed WAL."""
    for connect in (connect_writer, connect_migrator, lambda url: connect_builder(url, "app:build")):
        with connect(server.url) as connection:
            row = connection.execute("SHOW synchronous_commit").fetchone()
            assert row == ("on",)
            connection.rollback()
    with connect_writer(server.url) as connection:
        tape = Tape(connection)
        tape.set_durable(durable=False)
        connection.execute("CREATE TABLE public.t ()")
        connection.execute("DROP TABLE public.t")
        written = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        tape.set_durable(durable=True)
        tape.flush()
        assert written is not None
        behind = "SELECT pg_current_wal_flush_lsn() < %s::pg_lsn"
        assert connection.execute(behind, written).fetchone() == (False,)

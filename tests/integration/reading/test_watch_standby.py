"""A standby: it takes no LISTEN, so a watch polls there; views and time travel are as on the primary."""

import shutil
import time
from itertools import islice
from pathlib import Path

import psycopg

from tests.support.moving import an_app, story
from tests.support.servers import reachable_folder, value
from virtualchain import RollbackEvent, StateEngine, watch
from virtualchain.store.embedded.host import server_account
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing import FakeNode

PATIENCE = 30.0


def standby_of(primary: EmbeddedServer, folder: Path) -> EmbeddedServer:
    """Make a server that copies a stopped one, whose place it remembers, from now on."""
    port, password = primary._port(), primary._password("postgres")
    shutil.copytree(
        primary.folder, folder, ignore=shutil.ignore_patterns("server.json", "server.log", ".s.*")
    )
    data = folder / "data"
    with (data / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"primary_conninfo = 'host=127.0.0.1 port={port} user=postgres password={password}'\n")
    (data / "standby.signal").touch()
    if account := server_account():
        for path in (folder / "data", folder / "run"):
            for item in (path, *path.rglob("*")):
                shutil.chown(item, account.uid, account.gid)
    return EmbeddedServer(folder, durable=False)


def test_a_watch_of_a_standby_polls(fake_node: FakeNode) -> None:
    """Blocks and rollbacks of the primary are told, without a notification."""
    with reachable_folder() as folder:
        primary = EmbeddedServer(folder, durable=False)
        primary.start()
        primary.stop()
        standby = standby_of(primary, folder.parent / "standby")
        url = primary.start()
        copy = standby.start()
        try:
            story(fake_node, 1, 4)
            with StateEngine(an_app(), database=url, source=fake_node.url, confirmations=0) as engine:
                engine.build()
                deadline = time.monotonic() + PATIENCE
                while value(copy, "SELECT to_regclass('plain.marks')") is None:
                    assert time.monotonic() < deadline, "the standby does not follow"
                    time.sleep(0.1)
                with watch(copy, "plain", 100, poll=0.1) as events:
                    assert events._live is not None
                    assert not events._live.listens
                    assert [event.block_id for event in islice(events, 6)] == [100, 101, 102, 103, 104, 105]
                    fake_node.reorg(2)
                    engine.build()
                    told = list(islice(events, 3))
                    assert isinstance(told[0], RollbackEvent)
                    assert [event.block_id for event in told] == [103, 104, 105]
                with psycopg.connect(copy) as connection:
                    connection.execute("SET virtualchain.as_of = '103'")
                    assert connection.execute("SELECT max(block_id) FROM virtualchain.blocks").fetchone() == (
                        103,
                    )
        finally:
            standby.stop()
            primary.stop()

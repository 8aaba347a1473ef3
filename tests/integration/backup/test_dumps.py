"""A running deployment is dumped by pg_dump and restored on another server, where it goes on."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from tests.integration.backup.conftest import Deployment, run_as_server, superuser
from tests.support.servers import reachable_folder, value
from virtualchain import BlockEvent, RollbackEvent, watch
from virtualchain.store.database import connect_migrator
from virtualchain.store.embedded.host import give_to, server_account
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.roles import grant_reader
from virtualchain.testing import FakeNode
from virtualchain.testing.database import installations


@dataclass
class Backup:
    """The dumps of a deployment, the server they are restored on, and a listener's last position."""

    deployment: Deployment
    folder: Path
    target: EmbeddedServer
    programs: Path
    position: str


@pytest.fixture(scope="module")
def backup() -> Iterator[Backup]:
    """Dump a deployment on the oldest PostgreSQL while it is written to."""
    found = list(installations().values())
    with ExitStack() as stack:
        source = EmbeddedServer(stack.enter_context(reachable_folder()), binaries=found[0], durable=False)
        target = EmbeddedServer(stack.enter_context(reachable_folder()), binaries=found[-1], durable=False)
        node = stack.enter_context(FakeNode())
        deployment = Deployment(source, node)
        target.start()
        deployment.mine(8)
        deployment.follow()
        with connect_migrator(deployment.url) as connection:
            grant_reader(connection, "analyst", None, login=True, password="as before")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="virtualchain-tests-")))
        give_to(server_account(), folder)
        programs = found[0]
        with deployment.busy():
            dump = [programs / "pg_dump", "-d", deployment.url]
            run_as_server(*dump, "--format=custom", f"--file={folder / 'custom'}")
            run_as_server(*dump, "--format=directory", "--jobs=2", f"--file={folder / 'directory'}")
            run_as_server(*dump, f"--file={folder / 'plain'}")
            roles = [found[-1] / "pg_dumpall", "--roles-only", "-d", superuser(source)]
            run_as_server(*roles, f"--file={folder / 'roles'}")
        with watch(deployment.url, from_block=node.height) as events:
            position = str(next(iter(events)).position)
        yield Backup(deployment, folder, target, found[-1], position)
        source.stop()
        target.stop()


def copied(backup: Backup, form: str) -> str:
    """Restore a dump into a database of its own, without what refers to roles."""
    url = backup.target.create_database(f"copy {form}")
    place = superuser(backup.target, f"copy%20{form}")
    if form == "plain":  # its statements about roles that are not there fail, and change nothing
        run_as_server(backup.programs / "psql", "-qX", "-d", url, text=(backup.folder / form).read_text())
    else:
        restore = [backup.programs / "pg_restore", "--exit-on-error", "--jobs=2", "--no-owner"]
        bare = ["--no-privileges", "--role=virtualchain", "-d", place]
        run_as_server(*restore, *bare, backup.folder / form)
    return url


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_without_roles_it_says_which_are_missing(backup: Backup, form: str) -> None:
    """Under another name, beside another copy: apps' roles are made again, and a missing reader is named."""
    url = copied(backup, form)
    (said,) = backup.deployment.follow(url)
    assert said.startswith("this server has no role analyst, recorded here to read this deployment: ")
    backup.deployment.check(url)
    role = f"SELECT vc.role_of(schema) = 'copy {form}:plain' AND own_role FROM vc.apps"
    assert value(url, role) is True
    with watch(url, after=backup.position) as events:
        backup.deployment.mine(1)
        backup.deployment.follow(url)
        (event,) = islice(events, 1)
    assert isinstance(event, BlockEvent)
    assert value(
        url, f"SELECT block_id < {event.block_id} FROM (VALUES ({event.block_id - 1})) AS b (block_id)"
    )


def test_with_roles_it_is_what_it_was(backup: Backup) -> None:
    """Roles, then the database under its name: readers log in with their passwords, apps have their roles."""
    target, deployment = backup.target, backup.deployment
    psql = [backup.programs / "psql", "-qX", "-d", superuser(target)]
    run_as_server(*psql, text=(backup.folder / "roles").read_text())
    for file in deployment.server.folder.glob("*.password"):  # roles have those of the other server now
        shutil.copy(file, target.folder)
    restore = [backup.programs / "pg_restore", "--exit-on-error", "--jobs=2", "-d", superuser(target)]
    run_as_server(*restore, backup.folder / "directory")
    reader = target.url.replace(target.url[13 : target.url.index("@")], "analyst:as%20before")
    assert value(reader, "SELECT count(*) FROM plain.marks") == value(
        target.url, "SELECT count(*) FROM plain.marks"
    )
    tip = value(target.url, "SELECT max(block_id) FROM virtualchain.blocks")
    assert isinstance(tip, int)
    deployment.node.reorg(deployment.node.height - tip + 2)
    assert deployment.follow(target.url) == []
    deployment.check(target.url)
    assert value(target.url, "SELECT count(*) FROM virtualchain.reorgs") == 1
    assert value(target.url, "SELECT own_role FROM vc.apps") is True
    with watch(target.url, after=backup.position) as events:
        assert isinstance(next(iter(events)), RollbackEvent)

"""A running deployment is dumped by pg_dump and restored on another server, and goes on."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
from psycopg import sql

from tests.integration.backup.conftest import Deployment, run_as_server, run_page, superuser
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
    versions = list(installations().values())
    with ExitStack() as stack:
        source = EmbeddedServer(stack.enter_context(reachable_folder()), binaries=versions[0], durable=False)
        target = EmbeddedServer(stack.enter_context(reachable_folder()), binaries=versions[-1], durable=False)
        node = stack.enter_context(FakeNode())
        deployment = Deployment(source, node, "chain")
        target.start()
        deployment.mine(8)
        deployment.follow()
        with connect_migrator(deployment.url) as connection:
            grant_reader(connection, "analyst", None, login=True, password="as before")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="virtualchain-tests-")))
        give_to(server_account(), folder)
        programs = folder / "programs"  # as the page says for two versions: the roles by the newer one's
        programs.mkdir()
        for name, place in (("pg_dump", versions[0]), ("pg_dumpall", versions[-1])):
            (programs / name).symlink_to(place / name)
        with deployment.busy():
            run_page("Dumps", 0, source, folder, programs)
            run_as_server(programs / "pg_dump", "-d", deployment.url, f"--file={folder / 'plain'}")
            parallel = ["--format=directory", "--jobs=2", f"--file={folder / 'directory'}"]
            run_as_server(programs / "pg_dump", "-d", deployment.url, *parallel)
        with watch(deployment.url, from_block=node.height) as events:
            position = str(next(iter(events)).position)
        yield Backup(deployment, folder, target, versions[-1], position)
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
        run_as_server(*map(str, restore), *bare, backup.folder / form)
    return url


@pytest.mark.parametrize("form", ["plain", "directory"])
def test_without_roles_it_says_which_are_missing(backup: Backup, form: str) -> None:
    """Under another name, beside another copy: apps' roles are made again, and a missing reader is named."""
    url = copied(backup, form)
    (report,) = backup.deployment.follow(url)
    assert report.startswith("this server has no role analyst, recorded here to read this deployment: ")
    backup.deployment.check(url)
    role = f"SELECT vc.role_of(schema) = 'copy {form}:plain' AND own_role FROM vc.apps"
    assert value(url, role) is True
    with watch(url, after=backup.position) as events:
        backup.deployment.mine(1)
        backup.deployment.follow(url)
        (event,) = islice(events, 1)
    assert isinstance(event, BlockEvent)
    assert event.block_id == int(backup.position.partition("-")[0]) + 1


def test_with_roles_it_is_what_it_was(backup: Backup) -> None:
    """By the page's commands: readers log in as before, apps have their roles, and forks are followed."""
    target, deployment = backup.target, backup.deployment
    for file in deployment.server.folder.glob("*.password"):  # chain.roles brings those of the other server
        password = file.read_text()
        with target.connect_superuser("postgres") as connection:
            change = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(file.stem), password)
            connection.execute(change)
        shutil.copy(file, target.folder)
    run_page("Dumps", 1, target, backup.folder, backup.programs)
    url = target.url_for("chain")
    reader = url.replace(url[13 : url.index("@")], "analyst:as%20before")
    assert value(reader, "SELECT count(*) FROM plain.marks") == value(url, "SELECT count(*) FROM plain.marks")
    tip = value(url, "SELECT max(block_id) FROM virtualchain.blocks")
    assert isinstance(tip, int)
    deployment.node.reorg(deployment.node.height - tip + 2)
    assert deployment.follow(url) == []
    deployment.check(url)
    assert value(url, "SELECT count(*) FROM virtualchain.reorgs") == 1
    assert value(url, "SELECT own_role FROM vc.apps") is True
    with watch(url, after=backup.position) as events:
        assert isinstance(next(iter(events)), RollbackEvent)

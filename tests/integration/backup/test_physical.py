"""Physical backups of a running deployment are restored: pg_basebackup, and pgBackRest to a point in time."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests.integration.backup.conftest import Deployment, run_as_server, run_page, superuser
from tests.support.servers import value
from virtualchain.audit.verify import verify
from virtualchain.engine.versions import remove
from virtualchain.store.embedded.host import give_to, server_account
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing import FakeNode
from virtualchain.testing.database import installations

PGBACKREST = shutil.which("pgbackrest")
CONFIGURATION = """
[global]
repo1-path={base}/repository
log-path={base}/log
lock-path={base}/lock
spool-path={base}/spool
log-level-file=off
start-fast=y
compress-type=none
archive-timeout=20

[chain]
pg1-path={base}/postgresql/data
pg1-port={port}
pg1-socket-path={base}/postgresql/run
pg1-user=postgres
"""


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """Make a folder that the server's user can write to."""
    base = Path(tempfile.mkdtemp(prefix="virtualchain-tests-"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def deployment(base: Path) -> Iterator[Deployment]:
    """Run a deployment on Debian's PostgreSQL, which keeps its log for recovery if there is pgBackRest."""
    versions = installations()
    binaries = versions.get(15, next(iter(versions.values())))
    server = EmbeddedServer(base / "postgresql", binaries=binaries, durable=False)
    with ExitStack() as stack:
        node = stack.enter_context(FakeNode())
        deployment = Deployment(server, node)
        stack.callback(server.stop)
        deployment.mine(5)
        deployment.follow()
        yield deployment


def test_a_base_backup_of_a_running_deployment_goes_on(deployment: Deployment, base: Path) -> None:
    """What `pg_basebackup` copies while blocks are taken is a deployment: with roles, and the same hashes."""
    binaries = deployment.server._binaries
    assert binaries is not None
    copied = base / "copied"
    copied.mkdir()
    give_to(server_account(), copied)
    with deployment.busy():
        run_page("Copies of a whole server", 0, deployment.server, copied, binaries)
    (copied / "base").rename(copied / "data")
    for file in deployment.server.folder.glob("*.password"):
        shutil.copy(file, copied)
    copy = EmbeddedServer(copied, binaries=binaries, durable=False)
    url = copy.start()
    try:
        assert deployment.follow(url) == []
        deployment.check(url)
        assert value(url, "SELECT own_role FROM vc.apps") is True
    finally:
        copy.stop()


@pytest.mark.skipif(PGBACKREST is None, reason="there is no pgbackrest")
def test_pgbackrest_brings_back_the_moment_before_a_mistake(deployment: Deployment, base: Path) -> None:
    """By a full and an incremental backup, and the log up to a restore point; the same hashes follow."""
    assert PGBACKREST is not None
    server, account = deployment.server, server_account()
    for name in ("repository", "log", "lock", "spool"):
        (base / name).mkdir()
        give_to(account, base / name)
    address = server.status().address
    assert address is not None
    file = base / "pgbackrest.conf"
    file.write_text(CONFIGURATION.format(base=base, port=address.port))
    (base / "pgpass").write_text(f"*:*:*:postgres:{server._password('postgres')}\n")
    (base / "pgpass").chmod(0o600)
    give_to(account, base / "pgpass")

    def pgbackrest(*command: str) -> None:
        run_as_server(
            PGBACKREST or "", f"--config={file}", "--stanza=chain", *command, PGPASSFILE=str(base / "pgpass")
        )

    with psycopg.connect(superuser(server), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET archive_mode = on")
        push = f"{PGBACKREST} --config={file} --stanza=chain archive-push %p"
        connection.execute(f"ALTER SYSTEM SET archive_command = '{push}'".encode())
    server.stop()
    server.start()
    pgbackrest("stanza-create")
    with deployment.busy():
        pgbackrest("--type=full", "backup")
    deployment.mine(2)
    deployment.follow()
    pgbackrest("--type=incr", "backup")
    deployment.mine(2)
    deployment.follow()
    tip = deployment.node.height
    with psycopg.connect(superuser(server), autocommit=True) as connection:
        connection.execute("SELECT pg_create_restore_point('before the mistake')")
        remove(deployment.url, "plain")
        segment = value(superuser(server), "SELECT pg_walfile_name(pg_current_wal_lsn())")
        connection.execute("SELECT pg_switch_wal()")
        wait_for(connection, f"SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver")
    server.stop()
    shutil.rmtree(base / "postgresql" / "data")
    (base / "postgresql" / "data").mkdir(mode=0o700)
    give_to(account, base / "postgresql" / "data")
    pgbackrest("--type=name", "--target=before the mistake", "--target-action=promote", "restore")
    url = server.start()
    with psycopg.connect(superuser(server), autocommit=True) as connection:
        wait_for(connection, "SELECT NOT pg_is_in_recovery()")
    assert value(url, "SELECT max(block_id) FROM virtualchain.blocks") == tip
    deployment.mine(2)
    deployment.check(server.create_database("undisturbed"))
    assert verify(url).faults == []


def wait_for(connection: psycopg.Connection, condition: str) -> None:
    """Wait until a condition on the server is true."""
    deadline = time.monotonic() + 30
    while connection.execute(condition.encode()).fetchone() != (True,):
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)

"""Makes the embedded server's data folder, all of it or nothing."""

import os
import secrets
import shutil
import tempfile
from pathlib import Path

from psycopg import sql

from virtualchain.errors import StoreError
from virtualchain.store.embedded.binaries import major_version
from virtualchain.store.embedded.host import Account, Command, run, write_private
from virtualchain.store.sql import queries

SUPERUSER = "postgres"
ENGINE = "virtualchain"

_LEFTOVER = "initdb-"

# For a machine of two cores with other work to do. They lie in postgresql.conf, so that a user's own win.
_SETTINGS = """
# virtualchain: below this line, and by ALTER SYSTEM, settings are yours.
shared_buffers = 256MB
work_mem = 16MB
maintenance_work_mem = 128MB
max_connections = 50
max_wal_size = 2GB
checkpoint_timeout = 15min
wal_compression = on
random_page_cost = 1.1
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
"""


def create_cluster(folder: Path, binaries: Path, account: Account | None, *, durable: bool) -> None:
    """Make `folder/data` with the engine's role in it, and both roles' passwords as files beside it.

    The caller holds the folder's lock. Raises StoreError with what the failing program said.
    """
    for leftover in folder.glob(f"{_LEFTOVER}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=_LEFTOVER, dir=folder))
    passwords = {role: secrets.token_hex(24) for role in (SUPERUSER, ENGINE)}
    try:
        password_file = work / "password"
        write_private(password_file, passwords[SUPERUSER])
        if account:
            os.chown(password_file, account.uid, account.gid)
            os.chown(work, account.uid, account.gid)
        data = work / "data"
        initdb = _initdb(binaries, account, durable=durable)
        _do([*initdb, "--pwfile", password_file, "-D", data], account)
        # Written by the server's user: root should write to no path that another user can bend.
        _do(["tee", "-a", data / "postgresql.conf"], account, _SETTINGS)
        create_role = sql.SQL(queries("database")["create_engine_role"])
        statement = create_role.format(password=sql.Literal(passwords[ENGINE])).as_string(None)
        single_user: Command = [binaries / "postgres", "--single", "-c", "exit_on_error=on", "-D", data]
        _do([*single_user, "postgres"], account, f"{statement}\n")
        for role, password in passwords.items():
            write_private(folder / f"{role}.password", password)
        data.rename(folder / "data")
        _flush(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _initdb(binaries: Path, account: Account | None, *, durable: bool) -> Command:
    """Give the command that makes a cluster whose text sorts by bytes on every machine."""
    command: Command = [binaries / "initdb", f"--username={SUPERUSER}", "--encoding=UTF8", "--locale=C"]
    if major_version(binaries, account) >= 17:
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command += ["--auth-local=scram-sha-256", "--auth-host=scram-sha-256"]
    return command if durable else [*command, "--no-sync"]


def _do(command: Command, account: Account | None, text: str = "") -> None:
    """Run one step of the making."""
    done = run(command, account, text=text)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise StoreError(f"the embedded server cannot be set up: {Path(command[0]).name}: {'; '.join(said)}")


def _flush(folder: Path) -> None:
    """Make a rename in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

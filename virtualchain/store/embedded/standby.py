"""Standbys of the embedded server: copies that PostgreSQL keeps up to date by streaming replication.

A standby is an embedded server in a home of its own. Beside the files that `server` lists there are::

    standby-*/      a copy that is being made; a later attempt removes it
    primary.json    where a standby's primary is
    run/primary     how the standby logs in there, in the form of libpq's password file
    successor.json  in a primary's folder: where its standby was promoted. The primary does not start any more

The mark in the primary's folder comes first: whatever is interrupted, never do both accept writes.
"""

import json
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from psycopg.conninfo import make_conninfo

from virtualchain.errors import StoreError, UsageError
from virtualchain.store.embedded.address import HOST, last_address
from virtualchain.store.embedded.host import Account, Command, give_to, run, write_private
from virtualchain.store.embedded.installation import ENGINE, SUPERUSER, flush

_WORK_PREFIX: Final = "standby-"
_PRIMARY: Final = "primary.json"
_SUCCESSOR: Final = "successor.json"
_SIGNAL: Final = "standby.signal"
"""PostgreSQL's own mark of a standby; it removes it when the standby is promoted."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A standby that is connected to the running server."""

    address: str
    state: str
    """What it is at: `startup`, `catchup` or `streaming`."""
    is_synchronous: bool
    """Whether commits wait for it."""
    lag: int
    """Bytes of the log that it has not replayed yet."""


def copy_server(
    primary: Path, folder: Path, binaries: Path, account: Account | None, port: int, password: str
) -> None:
    """Copy the running server of the folder `primary`, on a port of loopback, to `folder`, as its standby.

    It is made completely or not at all. The caller holds the lock of `folder`. Raises StoreError with the
    message of pg_basebackup.
    """
    for leftover in folder.glob(f"{_WORK_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=folder))
    login = folder / "run" / "primary"
    try:
        write_private(login, f"*:*:*:{SUPERUSER}:{password}\n")
        give_to(account, work, login)
        source = _conninfo(folder, port)
        copy: Command = [binaries / "pg_basebackup", "-D", work / "data", "-d", source, "--checkpoint=fast"]
        mark: Command = ["touch", work / "data" / _SIGNAL]
        for command in (copy, mark):
            done = run(command, account)
            if done.returncode != 0:
                raise StoreError(f"the standby cannot be made: {' '.join(done.stderr.split())}")
        for role in (SUPERUSER, ENGINE):
            name = f"{role}.password"
            write_private(folder / name, (primary / name).read_text(encoding="ascii"))
        write_private(folder / _PRIMARY, json.dumps({"folder": str(primary)}))
        (work / "data").rename(folder / "data")
        flush(folder)
    except BaseException:
        login.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def is_standby(folder: Path) -> bool:
    """Return whether the server in a folder is a standby, which was not promoted."""
    return (folder / "data" / _SIGNAL).exists()


def primary_of(folder: Path) -> Path | None:
    """Return the folder of a standby's primary; None if the server in `folder` is no standby of ours."""
    return _named(folder / _PRIMARY) if is_standby(folder) else None


def login_of(folder: Path) -> str | None:
    """Return how the standby in `folder` logs in to its primary; None if it is no standby of ours."""
    primary = primary_of(folder)
    address = None if primary is None else last_address(primary / "server.json")
    return None if address is None else _conninfo(folder, address.port)


def successor_of(folder: Path) -> Path | None:
    """Return the folder of the standby that took over from the server in `folder`; None if none did."""
    return _named(folder / _SUCCESSOR)


def refuse_replaced(folder: Path) -> None:
    """Raise UsageError if a standby has taken over from the server in `folder`."""
    successor = successor_of(folder)
    if successor is not None:
        raise UsageError(
            f"the embedded server in {folder} does not start, because its standby has taken over: set "
            f"VIRTUALCHAIN_HOME={successor.parent}. To use this one again, remove {folder / _SUCCESSOR}"
        )


def mark_replaced(primary: Path, folder: Path) -> None:
    """Keep the server in `primary` from being started again: its standby in `folder` takes over."""
    write_private(primary / _SUCCESSOR, json.dumps({"folder": str(folder)}))
    flush(primary)


def forget_primary(folder: Path) -> None:
    """Remove what only a standby needs, after it was promoted."""
    for file in (folder / _PRIMARY, folder / "run" / "primary"):
        with suppress(FileNotFoundError):
            file.unlink()


def _conninfo(folder: Path, port: int) -> str:
    passwords = str(folder / "run" / "primary")
    return make_conninfo(host=HOST, port=port, user=SUPERUSER, passfile=passwords)


def _named(file: Path) -> Path | None:
    """Return the folder that a file of ours names; None without such a file."""
    try:
        return Path(json.loads(file.read_text(encoding="utf-8"))["folder"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file} cannot be read: {error}") from error

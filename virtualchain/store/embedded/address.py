"""Where the embedded server listens: a port that it keeps while it can, and a socket."""

import json
import os
import shutil
import socket
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from virtualchain.errors import StoreError
from virtualchain.store.embedded.host import Account, write_private

HOST = "127.0.0.1"

_SOCKET_PATH_LIMIT = 103
"""Bytes that a socket's path may have on every system (Linux takes 107)."""


@dataclass(frozen=True, slots=True)
class Address:
    """A loopback port, and the folder of the socket where there is one."""

    port: int
    socket: Path | None


def remembered(file: Path) -> Address | None:
    """Read the address of the last start; None before the first."""
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        return Address(int(state["port"]), Path(state["socket"]) if state["socket"] else None)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file} cannot be read: {error}") from error


def choose(file: Path, run_folder: Path, account: Account | None) -> Address:
    """Choose the address of the next start and remember it: that of the last one where it is still free."""
    last = remembered(file)
    drop_socket(file, run_folder)
    address = Address(_free_port(last.port if last else 0), _socket_folder(run_folder, account))
    write_private(
        file, json.dumps({"port": address.port, "socket": str(address.socket) if address.socket else None})
    )
    return address


def drop_socket(file: Path, run_folder: Path) -> None:
    """Remove the temporary socket folder of the last start, if there was one."""
    last = remembered(file)
    if last and last.socket and last.socket != run_folder:
        shutil.rmtree(last.socket, ignore_errors=True)


def _free_port(preferred: int) -> int:
    """Give a port that nothing listens on: the preferred one if it is free."""
    for port in (preferred, 0):
        with socket.socket() as probe, suppress(OSError):
            # As the server does it: connections of its last run that still linger do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise StoreError(f"no port is free on {HOST}")


def _socket_folder(run_folder: Path, account: Account | None) -> Path | None:
    """Give a folder whose name is short enough for a socket: ours, else a temporary one, else None."""
    if _fits(run_folder):
        return run_folder
    short = Path(tempfile.mkdtemp(prefix="virtualchain-"))
    if not _fits(short):
        short.rmdir()
        return None
    if account:
        os.chown(short, account.uid, account.gid)
    return short


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / ".s.PGSQL.65535")) <= _SOCKET_PATH_LIMIT

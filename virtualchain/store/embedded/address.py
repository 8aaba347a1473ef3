"""Where the embedded server listens: a port on loopback, and a socket if its path is short enough."""

import contextlib
import json
import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from virtualchain.errors import StoreError
from virtualchain.store.embedded.host import Account, write_private

HOST = "127.0.0.1"
_SOCKET_PATH_LIMIT = 103
"""Maximum length of a socket's path that every system allows, in bytes (Linux: 107)."""


@dataclass(frozen=True, slots=True)
class Address:
    """A port on loopback, and the folder of the socket if there is one."""

    port: int
    socket: Path | None


def last_address(file: Path) -> Address | None:
    """Return the address of the last start from the state file; None before the first start."""
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        return Address(int(state["port"]), Path(state["socket"]) if state["socket"] else None)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file} cannot be read: {error}") from error


def listens(address: Address) -> bool:
    """Check whether anything accepts connections there, even if it does not answer."""
    try:
        socket.create_connection((HOST, address.port), timeout=2).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    return True


def choose_address(file: Path, run_folder: Path, account: Account | None) -> Address:
    """Choose the address of the next start and save it; the port of the last start is kept if it is free."""
    last = last_address(file)
    drop_socket_folder(file, run_folder)
    address = Address(_free_port(last.port if last else 0), _socket_folder(run_folder, account))
    write_private(
        file, json.dumps({"port": address.port, "socket": str(address.socket) if address.socket else None})
    )
    return address


def drop_socket_folder(file: Path, run_folder: Path) -> None:
    """Remove the temporary socket folder of the last start, if there was one."""
    last = last_address(file)
    if last and last.socket and last.socket != run_folder:
        shutil.rmtree(last.socket, ignore_errors=True)


def _free_port(preferred: int) -> int:
    """Return a port that nothing listens on: the preferred one if it is free."""
    for port in (preferred, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            # Like the server itself: lingering connections of its last run do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise StoreError(f"no port is free on {HOST}")


def _socket_folder(run_folder: Path, account: Account | None) -> Path | None:
    """Return a folder whose path is short enough for a socket: `run_folder`, or a temporary one, or None."""
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

"""What the embedded server needs from the machine: folders, and a user to run programs as.

PostgreSQL refuses to run as root. If root starts the server, its programs run as another user, who must be
able to reach its folders. We never change the permissions of folders that we did not make.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs

from virtualchain.errors import StoreError, UsageError

Command = list[str | Path]
"""A program and its arguments."""

_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the operating system."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """Return the user that the server runs as if we are root; None if it runs as the current user."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise UsageError(
        "PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody: "
        "start as an ordinary user, or give --database"
    )


def home() -> Path:
    """Return the folder that contains everything of the embedded server."""
    folder = os.environ.get("VIRTUALCHAIN_HOME")
    if folder:
        return Path(folder).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/virtualchain")
    return platformdirs.user_data_path("virtualchain", appauthor=False)


def run(
    command: Command,
    account: Account | None,
    *,
    text: str = "",
    folder: str | Path = "/",
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program as `account`, with `text` as its standard input; raise StoreError if it does not start.

    It runs in `folder`. Its environment is nearly empty but for `variables`: PG… variables would affect the
    server, and others may be secret.
    """
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    way = () if account is None else _way_to(account)
    user = None if way else account
    try:
        completed = subprocess.run(  # noqa: S603 - the program is PostgreSQL's or a system tool, never user input
            [*way, *command],
            env=environment | {"LC_ALL": "C"} | dict(variables or {}),
            cwd=folder,
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            umask=0o077,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
    except OSError as error:
        raise _cannot_be_run(command, account, str(error.strerror)) from error
    if way and completed.stderr.startswith("setpriv: "):
        raise _cannot_be_run(command, account, completed.stderr.strip().rpartition(": ")[2])
    return completed


@cache
def _way_to(account: Account) -> tuple[str, ...]:
    """Return what runs a program as another user, to stand in front of it; nothing if only Python can.

    Python copies the map of its memory for such a program, which takes 30 ms of a process with 400 MB.
    """
    program = shutil.which("setpriv")
    if program is None:
        return ()
    way = (program, f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups", "--")
    done = subprocess.run([*way, "true"], capture_output=True, check=False)  # noqa: S603 - a system tool
    return () if done.returncode else way  # BusyBox has one that cannot do this


def _cannot_be_run(command: Command, account: Account | None, reason: str) -> StoreError:
    user = f" as user {account.name}" if account else ""
    return StoreError(f"{command[0]} cannot be run{user}: {reason}")


def may_write(account: Account | None, folder: Path) -> bool:
    """Ask the operating system whether `account` may write to a folder."""
    return run(["test", "-w", folder], account).returncode == 0


def give_to(account: Account | None, *paths: Path) -> None:
    """Make files or folders that we made the account's own; None leaves them ours."""
    if account is not None:
        for path in paths:
            os.chown(path, account.uid, account.gid)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents: private, or open to every user if we are root."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755 if os.geteuid() == 0 else 0o700)
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be created ({error.strerror}): set VIRTUALCHAIN_HOME to a folder that can"
        ) from error


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read; others see either the whole file or none."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)

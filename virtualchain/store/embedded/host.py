"""What the embedded server needs from the machine: folders, and a user to run programs as.

PostgreSQL refuses to run as root. Started by root, everything of the server runs as another user, and that
user must reach what it works on; permissions of folders that we did not make are never changed for it.
"""

import os
import pwd
import subprocess
from contextlib import suppress
from dataclasses import dataclass
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
    """Give the user that the server runs as where we are root; None where it runs as ourselves."""
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
    """Give the folder below which everything of the embedded server lies."""
    given = os.environ.get("VIRTUALCHAIN_HOME")
    if given:
        return Path(given).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/virtualchain")
    return platformdirs.user_data_path("virtualchain", appauthor=False)


def run(command: Command, account: Account | None, *, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program as `account`, with `text` as its input; StoreError where it cannot be started.

    It gets a bare environment: PG… variables would steer the server, and others of ours may be secret.
    """
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    try:
        return subprocess.run(  # noqa: S603 - the program is PostgreSQL's or a system tool, never user input
            command,
            env=environment | {"LC_ALL": "C"},
            cwd="/",
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            umask=0o077,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except OSError as error:
        who = f" as user {account.name}" if account else ""
        raise StoreError(f"{command[0]} cannot be run{who}: {error.strerror}") from error


def may_write(account: Account | None, folder: Path) -> bool:
    """Ask the system whether `account` may write to a folder."""
    return run(["test", "-w", folder], account).returncode == 0


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents: private, or where we are root, for every user to enter."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755 if os.geteuid() == 0 else 0o700)
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be made ({error.strerror}): set VIRTUALCHAIN_HOME to a folder that can"
        ) from error


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner reads; whoever looks finds it whole or not at all."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)

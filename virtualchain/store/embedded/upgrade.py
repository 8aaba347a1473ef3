"""Move the embedded server's data to another major version of PostgreSQL.

`pg_upgrade` copies the data into a new folder. If it cannot, as for data of a minor release that is younger
than the new programs, everything is dumped by the old version's programs and restored. Either only reads the
old data, and nothing happens in place::

    upgrade-*/data  being made; a later attempt removes it
    data.new        made completely; renamed once the old data is out of the way
    data-N          the old data, of version N, which `virtualchain db drop-old` removes

A process that is killed between the last two renames leaves no `data`: whoever comes next finishes them.
"""

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import make_conninfo

from virtualchain.errors import StoreError
from virtualchain.store.embedded.host import Account, Command, give_to, run, write_private
from virtualchain.store.embedded.installation import (
    MARKER,
    SUPERUSER,
    flush,
    initialize,
    major_version,
    run_step,
)
from virtualchain.store.sql import queries

_WORK_PREFIX = "upgrade-"
_NEW = "data.new"
_LOG = "pg_wal"
_ELSEWHERE = "move the whole folder to another disk, and set VIRTUALCHAIN_HOME"
_RESERVE = 100_000_000
"""Bytes that a new, empty data folder takes, with its first log."""
_PORT = 50432
"""Of the old server's socket; the new one's is the next. No other program sees them."""
_NO_CHECKSUMS = "Data page checksum version:           0"


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What an upgrade did: between which major versions, for which databases, and where the old data is."""

    old: int
    new: int
    databases: tuple[str, ...]
    kept: Path


def size_of(data: Path, *, with_log: bool = True) -> int:
    """Return the size of a data folder in bytes, with the write-ahead log or without."""
    total = 0
    for folder, folders, files in os.walk(data):
        if not with_log and Path(folder) == data:
            folders.remove(_LOG)
        for name in files:
            with suppress(OSError):  # a running server removes files
                total += (Path(folder) / name).lstat().st_size
    return total


def require_room(folder: Path, data: Path, size: int, advice: str = _ELSEWHERE) -> None:
    """Raise StoreError, which says what else to do, if the disk does not hold so many bytes of the data."""
    needed, free = size + _RESERVE, shutil.disk_usage(folder).free
    if needed > free:
        raise StoreError(
            f"the disk is too full: a copy of {data} needs {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB "
            f"are free. Make room, or {advice}"
        )


def remove_leftovers(folder: Path, binaries: Path, account: Account | None) -> None:
    """Remove what an attempt has left that was killed, and end the servers that it had started."""
    shutil.rmtree(folder / _NEW, ignore_errors=True)
    works = list(folder.glob(f"{_WORK_PREFIX}*"))
    for data in (folder / "data", *(work / "data" for work in works)):
        _end_leftover(data, works, binaries, account)
    for work in works:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(_socket_folder(work), ignore_errors=True)


def _end_leftover(data: Path, works: list[Path], binaries: Path, account: Account | None) -> None:
    """End a server that a killed attempt had started on a data folder: its socket is in our work folder."""
    with suppress(OSError):
        lines = (data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        sockets = [Path(line) for line in lines[4:5]]
        if any(_socket_folder(work) in sockets for work in works):
            run([binaries / "pg_ctl", "stop", "-s", "-w", "-m", "fast", "-D", data], account)


def _socket_folder(work: Path) -> Path:
    """Return where the servers that an attempt starts have their sockets: the path must be short."""
    return Path("/tmp") / f"virtualchain-{work.name}"  # noqa: S108 - a random name, which mkdir must find free


def prepare(
    folder: Path,
    programs: tuple[Path, Path],
    account: Account | None,
    password: str,
    *,
    durable: bool,
    report: Callable[[str], object],
) -> None:
    """Copy the data of the stopped server in `folder` into `data.new`, in the format of the new programs.

    `programs` are the old and the new `bin` folders, `password` is the superuser's. Roles, passwords,
    databases and the settings of our part of postgresql.conf are carried along, and so are pg_hba.conf and
    what ALTER SYSTEM has set. Raises StoreError, which quotes the programs' messages, if it fails.
    """
    data, work = folder / "data", Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=folder))
    move = _Move(programs, account, (data, work / "data"), work, password, durable)
    try:
        move.begin()
        move.make(_checksums(programs, data, account))
        try:
            move.convert()
        except StoreError as error:
            report(f"{error}\ndumping and restoring everything instead, which takes longer")
            shutil.rmtree(work / "data")
            move.make([])
            move.restore()
        move.complete()
        (work / "data").rename(folder / _NEW)
        flush(folder)
    finally:
        for place in (data, work / "data"):  # an interrupted program leaves a server
            _end_leftover(place, [work], programs[1], account)
        for place in (work, _socket_folder(work)):
            shutil.rmtree(place, ignore_errors=True)


def switch(folder: Path, version: int) -> Path:
    """Put `data.new` in the place of the old data, of a major version; return where that is kept."""
    kept = folder / f"data-{version}"
    (folder / "data").rename(kept)
    finish_switch(folder)
    return kept


def finish_switch(folder: Path) -> None:
    """Put `data.new` in its place, if the old data has just been moved away."""
    if (folder / _NEW).exists() and not (folder / "data").exists():
        (folder / _NEW).rename(folder / "data")
        flush(folder)


def kept_data(folder: Path) -> list[Path]:
    """Return the folders with data that upgrades have left."""
    return sorted(path for path in folder.glob("data-*") if path.name.removeprefix("data-").isdigit())


@dataclass(frozen=True, slots=True)
class _Move:
    """The two ways in which data comes into a new folder; of each pair the first is the old server's."""

    programs: tuple[Path, Path]
    account: Account | None
    data: tuple[Path, Path]
    work: Path
    password: str
    durable: bool

    def begin(self) -> None:
        """Make what the programs need: a folder for sockets, and a file with the superuser's password."""
        sockets, passwords = _socket_folder(self.work), self.work / "pgpass"
        sockets.mkdir(mode=0o700)
        write_private(passwords, f"*:*:*:{SUPERUSER}:{self.password}\n")
        give_to(self.account, sockets, passwords)

    def make(self, options: Sequence[str]) -> None:
        """Make the new folder, with the old one's settings and nothing else."""
        (old, made), account = self.data, self.account
        settings = "".join(_read(old / "postgresql.conf", account).partition(MARKER)[1:])
        new, durable = self.programs[1], self.durable
        initialize(self.work, new, account, self.password, *options, settings=settings, durable=durable)
        for name in ("pg_hba.conf", "pg_ident.conf", "postgresql.auto.conf"):
            run_step(["tee", made / name], account, _read(old / name, account))

    def convert(self) -> None:
        """Run `pg_upgrade`."""
        command: Command = [f"--username={SUPERUSER}", f"--socketdir={_socket_folder(self.work)}"]
        for side, binaries, data in zip(("old", "new"), self.programs, self.data, strict=True):
            command += [f"--{side}-bindir={binaries}", f"--{side}-datadir={data}"]
            command += [] if self.durable else [f"--{side}-options=-c fsync=off"]
        command += [] if self.durable else ["--no-sync"]
        self._run([self.programs[1] / "pg_upgrade", *command])

    def restore(self) -> None:
        """Dump all databases with the old programs, and restore them with the new ones."""
        for side in (0, 1):
            self._start(side)
        old, new = self.programs
        # Only the new version's writes memberships as it grants them: since 16 a grantor needs ADMIN.
        roles = self._run([new / "pg_dumpall", "--globals-only", *self._at(0)])
        exists = f'CREATE ROLE "?{SUPERUSER}"?;\n'  # as in every cluster
        self._run([new / "psql", "-qX", "-v", "ON_ERROR_STOP=1", *self._at(1)], re.sub(exists, "", roles))
        listing = queries("embedded")["databases"]
        for name in self._run([old / "psql", "-qXAt", "-c", listing, *self._at(0)]).splitlines():
            dump, is_there = self.work / "dump", name == SUPERUSER
            target = ["--exit-on-error", "--jobs=2", *([] if is_there else ["--create"])]
            self._run([old / "pg_dump", "--format=custom", f"--file={dump}", *self._at(0, name)])
            self._run([new / "pg_restore", *target, *self._at(1), dump])
            dump.unlink()
        for side in (0, 1):
            self._stop(side)

    def complete(self) -> None:
        """Add what neither way carries along: the engine's right to administer its roles, and statistics."""
        self._start(1)
        grants = queries("embedded")["administer"] + " \\gexec\n"
        self._run([self.programs[1] / "psql", "-qX", "-v", "ON_ERROR_STOP=1", *self._at(1)], grants)
        self._run([self.programs[1] / "vacuumdb", "--quiet", "--all", "--analyze-only", *self._at(1)[:-1]])
        self._stop(1)

    def _start(self, side: int) -> None:
        """Start the old or the new server, on a socket alone."""
        settings = {
            "listen_addresses": "",
            "port": str(_PORT + side),
            "unix_socket_directories": str(_socket_folder(self.work)),
            **({} if self.durable else {"fsync": "off"}),
        }
        options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
        log = self.work / f"server-{side}.log"
        waiting = ["-s", "-w", "-t", "86400"]
        start: Command = [self.programs[side] / "pg_ctl", "start", *waiting, "-D", self.data[side]]
        self._run([*start, "-l", log, "-o", options], log=log)

    def _stop(self, side: int) -> None:
        self._run([self.programs[side] / "pg_ctl", "stop", "-sw", "-m", "fast", "-D", self.data[side]])

    def _at(self, side: int, database: str = SUPERUSER) -> list[str]:
        """Return the options by which a program connects to a server."""
        place = [f"--host={_socket_folder(self.work)}", f"--port={_PORT + side}", f"--username={SUPERUSER}"]
        return [*place, f"--dbname={make_conninfo(dbname=database)}"]

    def _run(self, command: Command, text: str = "", log: Path | None = None) -> str:
        """Run a program and return its output; raise StoreError with its complaints if it fails."""
        variables = {"PGPASSFILE": str(self.work / "pgpass")}
        done = run(command, self.account, text=text, folder=self.work, variables=variables)
        if done.returncode == 0:
            return done.stdout
        lines = (done.stdout + done.stderr).splitlines()[-6:]
        logs = [Path(name) for name in re.findall(r'"(/[^"]+\.(?:log|txt))"', "\n".join(lines))]
        logged = [line for file in (log, *logs) if file for line in _read(file, self.account).splitlines()]
        complaints = [line for line in logged if re.search("error:|FATAL:|parameter", line)]
        reason = "; ".join(line.strip() for line in complaints[-2:] or lines if line.strip())
        raise StoreError(f"{Path(command[0]).name} cannot move the data, which is as it was: {reason}")


def _checksums(programs: tuple[Path, Path], data: Path, account: Account | None) -> list[str]:
    """Return initdb's option for having data checksums if the old data has them, as `pg_upgrade` requires."""
    if _NO_CHECKSUMS not in run_step([programs[0] / "pg_controldata", data], account):
        return ["--data-checksums"]
    return ["--no-data-checksums"] if major_version(programs[1], account) >= 18 else []


def _read(file: Path, account: Account | None) -> str:
    """Read a file of the server as its user: root must not follow what another user can redirect."""
    return run(["cat", file], account).stdout

"""A PostgreSQL server of our own, for when no database is given.

It is an ordinary server that outlives the command that started it: the next one finds and uses it, and so do
psql and every other client through its URL. Its programs come from a wheel; its folder holds::

    data/           PostgreSQL's own; where root starts the server, owned by the user that it runs as
    run/            its socket and its log, owned likewise
    *.password      of the roles postgres and virtualchain, for the owner of the folder only
    server.json     the port, kept from one start to the next
    server.lock     held while somebody starts or stops the server
"""

import contextlib
import fcntl
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from subprocess import CompletedProcess
from urllib.parse import quote

import psycopg
from psycopg import sql

from virtualchain.errors import StoreError, UsageError
from virtualchain.store.embedded.address import HOST, Address, choose, drop_socket, remembered
from virtualchain.store.embedded.binaries import find_binaries, major_version
from virtualchain.store.embedded.cluster import ENGINE, SUPERUSER, create_cluster
from virtualchain.store.embedded.host import home, make_folder, may_write, run, server_account
from virtualchain.store.sql import queries

DATABASE = "virtualchain"

_PATIENCE = 86400
"""Seconds for a start or stop: recovery takes what it takes, and pg_ctl returns earlier when it fails."""
_GRACE = 5.0
"""Seconds that a process may be there without listening before it counts as a stranger with an old pid."""
_ATTEMPTS = 20
_LOG_LIMIT = 10_000_000


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What there is to know about the embedded server; `address` is that of its last start."""

    running: bool
    folder: Path
    address: Address | None
    log: Path


class _Answer(Enum):
    """How a data folder's server answers."""

    READY = "it is ours and takes connections"
    BUSY = "it is starting, recovering or stopping"
    SILENT = "a process has its pid and does not answer as our server"
    STOPPED = "there is no such process"


class EmbeddedServer:
    """The server in one folder; any number of processes may hold one for the same folder."""

    def __init__(
        self, folder: Path | None = None, *, binaries: Path | None = None, durable: bool = True
    ) -> None:
        """Describe the server in `folder` (default: below the user's data folder) without touching it.

        `binaries` names a `bin` folder of another PostgreSQL. With `durable` off a crash of the machine may
        destroy the data: for tests.
        """
        self.folder = (folder or home() / "postgresql").absolute()
        # pg_ctl puts it between double quotes into a shell command.
        if any(character in '"$`\\\n' for character in str(self.folder)):
            raise UsageError(f"the folder of a database server must not hold quotes, $ or \\: {self.folder}")
        self._given = binaries
        self._durable = durable
        self._account = server_account()
        self._data = self.folder / "data"
        self._run = self.folder / "run"
        self._log = self._run / "server.log"
        self._state = self.folder / "server.json"

    @property
    def url(self) -> str:
        """The URL of the database `virtualchain`; StoreError before the first start."""
        return self.url_for(DATABASE)

    def url_for(self, database: str) -> str:
        """Give the URL of a database on this server, password included; StoreError before the first start."""
        name = quote(database, safe="")
        return f"postgresql://{ENGINE}:{self._password(ENGINE)}@{HOST}:{self._port()}/{name}"

    def start(self) -> str:
        """Start the server unless it runs, make the database `virtualchain` unless it is there; give its URL.

        Waits as long as recovery takes. Raises UsageError where the server is not installed or cannot reach
        its folder, StoreError with the end of its log where it does not start.
        """
        binaries = find_binaries(self._given, self._account)
        self._make_folders()
        with self._locked():
            if not self._answers(binaries):
                if not self._made():
                    create_cluster(self.folder, binaries, self._account, durable=self._durable)
                self._check_version(binaries)
                self._boot(binaries)
            self._ensure_database()
        return self.url

    def stop(self) -> None:
        """Stop the server, ending its connections; nothing happens where it does not run."""
        if not self._made():
            return
        binaries = find_binaries(self._given, self._account)
        with self._locked():
            # Only a server that proved to be ours: pg_ctl would signal whatever has the pid by now.
            if self._answers(binaries):
                done = self._pg_ctl(binaries, "stop", "-m", "fast")
                if done.returncode != 0:
                    raise StoreError(f"the embedded server does not stop: {done.stderr.strip()}")
            drop_socket(self._state, self._run)

    def status(self) -> ServerStatus:
        """Tell whether the server takes connections now, without waiting for one that starts."""
        running = False
        if self._made():
            binaries = find_binaries(self._given, self._account)
            running = self._probe(binaries) is _Answer.READY
        return ServerStatus(running, self.folder, remembered(self._state), self._log)

    def _made(self) -> bool:
        """Whether the data folder is there."""
        try:
            return self._data.exists()
        except OSError as error:
            raise StoreError(f"{self._data} cannot be looked at: {error.strerror}") from error

    def _make_folders(self) -> None:
        make_folder(self.folder)
        make_folder(self._run)
        # Made by root, now or by a start that was cut off here; what belongs to a user stays theirs.
        if self._account and self._run.stat().st_uid == 0:
            os.chown(self._run, self._account.uid, self._account.gid)
        if not may_write(self._account, self._run):
            who = f"user {self._account.name}, as whom the server runs," if self._account else "we"
            raise UsageError(f"{who} cannot write to {self._run}: choose a folder with VIRTUALCHAIN_HOME")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time start or stop the server."""
        try:
            descriptor = os.open(self.folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(f"{self.folder} belongs to another user: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _check_version(self, binaries: Path) -> None:
        try:
            data = int((self._data / "PG_VERSION").read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{self._data} holds no PostgreSQL data ({error}): move it away") from error
        ours = major_version(binaries, self._account)
        if data != ours:
            raise StoreError(
                f"{self._data} was made by PostgreSQL {data}, but {binaries} holds PostgreSQL {ours}: "
                f"set VIRTUALCHAIN_PG_BIN to the bin folder of a PostgreSQL {data} to go on with it. To move "
                f"to {ours}, say `virtualchain export FOLDER` with that, move {self.folder} away, and then, "
                "without it, `virtualchain import FOLDER` and `virtualchain advance`; or sync again"
            )

    def _boot(self, binaries: Path) -> None:
        """Start a server that does not run."""
        if self._log.exists() and self._log.stat().st_size > _LOG_LIMIT:
            self._log.replace(self._log.with_suffix(".log.1"))
        for attempt in range(1, _ATTEMPTS + 1):
            said_before = self._log.stat().st_size if self._log.exists() else 0
            options = self._options(choose(self._state, self._run, self._account))
            done = self._pg_ctl(binaries, "start", "-l", self._log, "-o", options)
            if done.returncode == 0:
                return
            said = self._log_since(said_before) or done.stderr.strip()
            # Somebody took the port in between, or backends of a killed server are still on their way out.
            passing = "could not bind" in said or "pre-existing shared memory block" in said
            if not passing or attempt == _ATTEMPTS:
                tail = "\n".join(said.splitlines()[-10:])
                raise StoreError(f"the embedded server does not start; its log {self._log} ends:\n{tail}")
            time.sleep(0.5)

    def _options(self, address: Address) -> str:
        """Give the settings that hold for this start only, as pg_ctl hands them to a shell."""
        settings = {
            "listen_addresses": HOST,
            "port": str(address.port),
            # A list of quoted names: a folder may hold commas and spaces.
            "unix_socket_directories": f'"{address.socket}"' if address.socket else "",
        }
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
            # Its workers would be in the way of dropping a database, and we may not end them.
            settings["autovacuum"] = "off"
        return " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())

    def _pg_ctl(self, binaries: Path, verb: str, *arguments: str | Path) -> CompletedProcess[str]:
        waiting = ["-s", "-w", "-t", str(_PATIENCE)]
        return run([binaries / "pg_ctl", verb, *waiting, "-D", self._data, *arguments], self._account)

    def _probe(self, binaries: Path) -> _Answer:
        """Find out how the server answers now."""
        if self._pg_ctl(binaries, "status").returncode != 0:
            return _Answer.STOPPED
        try:
            with self._connect() as connection:
                row = connection.execute(queries("database")["data_directory"]).fetchone()
        except psycopg.OperationalError as error:
            # libpq gives no SQLSTATE for a refused connection; all of class 57P0 begin like this.
            return _Answer.BUSY if "the database system is" in str(error) else _Answer.SILENT
        return _Answer.READY if row and Path(row[0]) == self._data.resolve() else _Answer.SILENT

    def _answers(self, binaries: Path) -> bool:
        """Whether our server takes connections; waits for one that is about to."""
        silent_until = time.monotonic() + _GRACE
        while True:
            answer = self._probe(binaries)
            if answer is _Answer.READY:
                return True
            if answer is _Answer.STOPPED or (answer is _Answer.SILENT and time.monotonic() > silent_until):
                return False
            time.sleep(0.1)

    def _ensure_database(self) -> None:
        named = queries("database")
        with self._connect() as connection:
            row = connection.execute(named["database_exists"], {"name": DATABASE}).fetchone()
            if not (row and row[0]):
                connection.execute(sql.SQL(named["create_database"]).format(name=sql.Identifier(DATABASE)))

    def connect_superuser(self, database: str) -> psycopg.Connection:
        """Open a session of the running server's superuser, for what the engine's role may not do."""
        return self._connect(database)

    def _connect(self, database: str = SUPERUSER) -> psycopg.Connection:
        """Connect as superuser; only a server with this folder's passwords lets us in."""
        return psycopg.connect(
            host=HOST,
            port=self._port(),
            dbname=database,
            user=SUPERUSER,
            password=self._password(SUPERUSER),
            sslmode="disable",
            gssencmode="disable",
            connect_timeout=10,
            autocommit=True,
        )

    def _port(self) -> int:
        address = remembered(self._state)
        if address is None:
            raise StoreError(f"the embedded server in {self.folder} was never started")
        return address.port

    def _password(self, role: str) -> str:
        file = self.folder / f"{role}.password"
        try:
            return file.read_text(encoding="ascii")
        except OSError as error:
            raise StoreError(
                f"the embedded server's {file} cannot be read ({error.strerror}): was it ever started?"
            ) from error

    def _log_since(self, offset: int) -> str:
        if not self._log.exists():
            return ""
        return self._log.read_bytes()[offset:].decode("utf-8", "replace").strip()

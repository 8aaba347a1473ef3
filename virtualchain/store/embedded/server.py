"""The embedded PostgreSQL server, which is used if no database is given.

It is an ordinary server that outlives the command that started it: the next command finds and uses it, and so
do psql and every other client through its URL. Its folder contains::

    data/           PostgreSQL's data folder; if root starts the server, owned by the user that it runs as
    run/            its socket and its log, with the same owner
    data-N/         what an upgrade from major version N left, until `db drop-old`
    *.password      passwords of the roles postgres and virtualchain, readable by the folder's owner only
    server.json     the address of the last start; the port is reused
    server.lock     locked while a process starts or stops the server

A standby is such a server, too: `standby` lists the files that it has besides.
"""

import contextlib
import fcntl
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from subprocess import CompletedProcess
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from virtualchain.errors import StoreError, UsageError, WriterBusy, quoted
from virtualchain.store.embedded.address import (
    HOST,
    Address,
    choose_address,
    drop_socket_folder,
    last_address,
    listens,
)
from virtualchain.store.embedded.host import (
    home,
    make_folder,
    may_write,
    run,
    server_account,
)
from virtualchain.store.embedded.installation import (
    ENGINE,
    SUPERUSER,
    create_cluster,
    find_binaries,
    find_version,
    major_version,
)
from virtualchain.store.embedded.standby import (
    Replica,
    copy_server,
    forget_primary,
    is_standby,
    login_of,
    mark_replaced,
    primary_of,
    refuse_replaced,
    successor_of,
)
from virtualchain.store.embedded.upgrade import (
    Upgraded,
    finish_switch,
    kept_data,
    prepare,
    remove_leftovers,
    require_room,
    size_of,
    switch,
)
from virtualchain.store.sql import queries

DATABASE = "virtualchain"

_MOVE = (
    "set VIRTUALCHAIN_PG_BIN to the bin folder of a PostgreSQL {old} to keep using it. To move to this one "
    "all the same, run `virtualchain export FOLDER` with that setting, move {folder} away, unset it, and run "
    "`virtualchain import FOLDER` and `virtualchain advance`; or sync again"
)
_TIMEOUT = 86400
"""Seconds for a start or stop: recovery may take long, and pg_ctl returns earlier if it fails."""
_GRACE = 5.0
"""Seconds until a process that does not listen counts as an unrelated one that has reused the pid."""
_LONGEST_NAME = 63
"""Bytes of a database's name: PostgreSQL would cut a longer one."""
_ATTEMPTS = 20
_LOG_LIMIT = 10_000_000


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The state of the embedded server; `address` is that of its last start."""

    running: bool
    folder: Path
    address: Address | None
    log: Path
    programs: Path | None
    """The `bin` folder of the PostgreSQL that runs it; None before the first start."""
    old: tuple[Path, ...]
    """Data that upgrades have left."""
    primary: Path | None
    """The folder of its primary; None if it is no standby."""
    successor: Path | None
    """The folder of the standby that has taken over from it, so that it does not start any more."""
    is_connected: bool | None
    """Whether a running standby is connected to its primary; None if it is none."""
    replicas: tuple[Replica, ...]
    """The standbys that are connected to it while it runs."""


class _Answer(Enum):
    """How a data folder's server answers."""

    READY = "it is ours and accepts connections"
    BUSY = "it is starting, recovering or stopping"
    SILENT = "a process has its pid but does not answer as our server"
    STOPPED = "there is no such process"


class EmbeddedServer:
    """The server in one folder; any number of processes may use an instance for the same folder."""

    def __init__(
        self, folder: Path | None = None, *, binaries: Path | None = None, durable: bool = True
    ) -> None:
        """Describe the server in `folder` (default: below the user's data folder) without touching it.

        `binaries` is the `bin` folder of another PostgreSQL. If `durable` is false, which is for tests, a
        crash of the machine may destroy the data.
        """
        self.folder = (folder or home() / "postgresql").absolute()
        # pg_ctl puts the path between double quotes into a shell command.
        if any(character in '"$`\\\n' for character in str(self.folder)):
            raise UsageError(f"a database server's folder must not contain quotes, $ or \\: {self.folder}")
        self._binaries = binaries
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
        """Return the URL, with password, of a database on this server; StoreError before the first start."""
        name = quote(database, safe="")
        return f"postgresql://{ENGINE}:{self._password(ENGINE)}@{HOST}:{self._port()}/{name}"

    def database_at(self, url: str) -> str | None:
        """Return the database that `url` leads to if that is one of this server's, else None."""
        parameters = conninfo_to_dict(url)
        name = str(parameters.get("dbname") or "")
        try:
            ours = conninfo_to_dict(self.url_for(name))
        except StoreError:  # it was never started, or is another user's
            return None
        return name if ours.items() <= parameters.items() else None

    def start(self) -> str:
        """Start the server and create the database `virtualchain`, unless they exist; return its URL.

        Waits as long as recovery takes. Raises UsageError if the server is not installed or cannot reach its
        folder, or if its standby was promoted, StoreError with the end of its log if it does not start.
        """
        binaries = find_binaries(self._binaries, self._account)
        self._make_folders()
        with self._locked():
            refuse_replaced(self.folder)
            if self._answers(binaries):
                self._find_primary(binaries)
            else:
                finish_switch(self.folder)
                if not self._exists():
                    create_cluster(self.folder, binaries, self._account, durable=self._durable)
                self._check_version(binaries)
                self._boot(binaries)
            self._ensure_database()
        return self.url

    def stop(self) -> None:
        """Stop the server and end its connections; do nothing if it is not running."""
        if not self._exists():
            return
        binaries = find_binaries(self._binaries, self._account)
        with self._locked():
            # Only a server that has proved to be ours: pg_ctl would signal any process that has the pid now.
            if self._answers(binaries):
                self._halt(binaries)
            drop_socket_folder(self._state, self._run)

    def make_standby(
        self, home: Path, *, synchronous: bool = False, report: Callable[[str], object] = lambda _: None
    ) -> "EmbeddedServer":
        """Make and start a standby of this server, whose VIRTUALCHAIN_HOME is to be `home`; return it.

        Commits wait for it if it is `synchronous`. One that is there already is started. Raises UsageError if
        there is another server, or this one is a standby itself, StoreError if it cannot be copied.
        """
        self.start()
        if is_standby(self.folder):
            raise UsageError(f"{self.folder} is a standby itself: make standbys of its primary")
        binaries = find_binaries(self._binaries, self._account)
        standby = EmbeddedServer(home / "postgresql", binaries=self._binaries, durable=self._durable)
        standby._make_folders()
        with standby._locked():
            if not standby._exists():
                size = size_of(self._data, with_log=False)
                require_room(standby.folder, self._data, size, "choose a folder on another disk")
                self._configure("keep_for_standbys")
                report(f"copying {size / 1e6:,.0f} MB to {standby.folder}")
                login = self._port(), self._password(SUPERUSER)
                copy_server(self.folder, standby.folder, binaries, self._account, *login)
            elif primary_of(standby.folder) != self.folder:
                raise UsageError(f"{standby.folder} has a server already: choose another, or remove it")
        standby.start()
        if synchronous:
            self._configure("wait_for_standbys")
        return standby

    def promote(self) -> str:
        """Have a standby accept writes, and its primary never start again; return its URL.

        Raises UsageError if it is no standby, or if its primary still runs.
        """
        binaries = find_binaries(self._binaries, self._account)
        if not is_standby(self.folder):
            raise UsageError(f"{self.folder} is no standby: there is nothing to promote")
        with self._locked():
            self._end_primary(binaries)
            if not self._answers(binaries):
                self._boot(binaries)
            self._configure("wait_for_nobody")
            done = self._pg_ctl(binaries, "promote")
            if done.returncode != 0:
                raise StoreError(f"the standby is not promoted: {' '.join(done.stderr.split())}")
            forget_primary(self.folder)
        return self.url

    def _end_primary(self, binaries: Path) -> None:
        """Keep the primary of this standby from being started again; UsageError if it runs."""
        folder = primary_of(self.folder)
        if folder is None or not folder.is_dir():
            return
        primary = EmbeddedServer(folder, binaries=self._binaries, durable=self._durable)
        with primary._locked():
            if primary._may_run(binaries):
                raise UsageError(
                    f"the primary in {folder} still runs: stop it first, with `VIRTUALCHAIN_HOME="
                    f"{shlex.quote(str(folder.parent))} virtualchain db stop`, or end its process"
                )
            mark_replaced(folder, self.folder)

    def _may_run(self, binaries: Path) -> bool:
        """Check whether the server accepts connections, or may do so again: a stopped process goes on."""
        answer, address = self._probe(binaries), last_address(self._state)
        if answer is _Answer.SILENT:  # a process has its number: a new one, or one that died and stays listed
            return address is not None and listens(address)
        return answer is not _Answer.STOPPED

    def _find_primary(self, binaries: Path) -> None:
        """Start a running standby again if its primary has another address now."""
        login = login_of(self.folder)
        if login is not None:
            with self._connect() as connection:
                row = connection.execute(queries("embedded")["following"]).fetchone()
            if row is not None and row[0] != login:
                self._halt(binaries)
                self._boot(binaries)

    def _configure(self, *changes: str) -> None:
        """Change settings of the running server for good, by the names of statements."""
        with self._connect() as connection:
            for name in (*changes, "reload"):
                connection.execute(queries("embedded")[name])

    def upgrade(
        self, old_binaries: Path | None = None, report: Callable[[str], object] = lambda _: None
    ) -> Upgraded:
        """Move the data to the major version of the binaries, keep the former data, and start the server.

        `old_binaries` is the `bin` folder of the data's version; by default it is looked for. If anything
        fails, or the process is killed, the data stays as it was, and this may be called again. Raises
        UsageError if there is nothing to move or no way to, WriterBusy if a writer is connected, StoreError
        if a program fails or the disk is too full.
        """
        binaries = find_binaries(self._binaries, self._account)
        if not self.folder.is_dir():
            raise UsageError(f"there is no embedded server in {self.folder}: nothing is to be moved")
        with self._locked():
            finish_switch(self.folder)
            if not self._exists():
                raise UsageError(f"there is no embedded server in {self.folder}: nothing is to be moved")
            version = self._refuse_upgrade(binaries)
            former = find_binaries(old_binaries, self._account) if old_binaries else None
            former = former or find_version(version, self._account)
            if major_version(former, self._account) != version:
                raise UsageError(f"{former} does not contain PostgreSQL {version}, which made {self._data}")
            remove_leftovers(self.folder, binaries, self._account)
            size = size_of(self._data)
            require_room(self.folder, self._data, size)
            # Also if it does not run: it recovers then, and only data of a server that ended well is moved.
            if not self._answers(binaries):
                self._boot(former)
            databases = self._refuse_writers()
            report(
                f"moving {len(databases)} databases ({size / 1e6:,.0f} MB) from PostgreSQL "
                f"{version} to {major_version(binaries, self._account)}"
            )
            self._halt(binaries)
            prepare(
                self.folder,
                (former, binaries),
                self._account,
                self._password(SUPERUSER),
                durable=self._durable,
                report=report,
            )
            kept = switch(self.folder, version)
            self._boot(binaries)
        return Upgraded(version, major_version(binaries, self._account), tuple(databases), kept)

    def drop_old(self) -> list[Path]:
        """Remove the data that upgrades have left, complete or not; return the folders of former versions."""
        if not self.folder.is_dir():
            return []
        with self._locked():
            finish_switch(self.folder)
            remove_leftovers(self.folder, find_binaries(self._binaries, self._account), self._account)
            folders = kept_data(self.folder)
            for folder in folders:
                shutil.rmtree(folder.resolve())
                if folder.is_symlink():
                    folder.unlink()
        return folders

    def _refuse_upgrade(self, binaries: Path) -> int:
        """Return the version of the data; raise UsageError if it cannot be moved to that of the binaries."""
        refuse_replaced(self.folder)
        if is_standby(self.folder):
            raise UsageError(f"{self.folder} is a standby: upgrade its primary, and make the standby again")
        old, new = self._data_version(), major_version(binaries, self._account)
        if old == new:
            raise UsageError(
                f"{self._data} is of PostgreSQL {new} already, like the programs in {binaries}: nothing is "
                "to be moved. VIRTUALCHAIN_PG_BIN names the programs of another version"
            )
        if old > new:
            raise UsageError(
                f"{self._data} is of PostgreSQL {old}, and cannot be moved back to {new}, which {binaries} "
                f"contains: {_MOVE.format(old=old, folder=self.folder)}"
            )
        if kept_data(self.folder):
            names = " and ".join(str(folder) for folder in kept_data(self.folder))
            raise UsageError(
                f"an earlier upgrade has left {names}: remove it first, with `virtualchain db drop-old`"
            )
        return old

    def _refuse_writers(self) -> list[str]:
        """Return the names of all databases; raise WriterBusy if a writer is connected to one."""
        with self._connect() as connection:
            writers = connection.execute(queries("embedded")["writers"]).fetchall()
            if writers:
                busy = " and ".join(f"{quoted(session)} on database {name}" for name, session in writers)
                raise WriterBusy(f"writers are at work on the embedded server: {busy}; stop them first")
            return [name for (name,) in connection.execute(queries("embedded")["databases"]).fetchall()]

    def _halt(self, binaries: Path) -> None:
        """Stop a server that has proved to be ours."""
        done = self._pg_ctl(binaries, "stop", "-m", "fast")
        if done.returncode != 0:
            raise StoreError(f"the embedded server does not stop: {done.stderr.strip()}")

    def status(self) -> ServerStatus:
        """Return the server's status now: `running` is false for a server that is still starting."""
        running, binaries = False, None
        if self._exists():
            binaries = find_binaries(self._binaries, self._account)
            running = self._probe(binaries) is _Answer.READY
        is_connected: bool | None = None
        replicas: tuple[Replica, ...] = ()
        if running:
            is_connected, replicas = self._replication()
        return ServerStatus(
            running,
            self.folder,
            last_address(self._state),
            self._log,
            binaries,
            tuple(kept_data(self.folder)),
            primary_of(self.folder),
            successor_of(self.folder),
            is_connected,
            replicas,
        )

    def _replication(self) -> tuple[bool | None, tuple[Replica, ...]]:
        """Return whether a standby is connected to its primary, and the standbys of a primary."""
        with self._connect() as connection:
            if is_standby(self.folder):
                row = connection.execute(queries("embedded")["following"]).fetchone()
                return bool(row and row[1]), ()
            rows = connection.execute(queries("embedded")["replicas"]).fetchall()
        return None, tuple(Replica(*row) for row in rows)

    def _exists(self) -> bool:
        """Check whether the data folder exists."""
        try:
            return self._data.exists()
        except OSError as error:
            raise StoreError(f"{self._data} cannot be accessed: {error.strerror}") from error

    def _make_folders(self) -> None:
        make_folder(self.folder)
        make_folder(self._run)
        # Root made it, now or in a start that was interrupted here; a folder of another user stays theirs.
        if self._account and self._run.stat().st_uid == 0:
            os.chown(self._run, self._account.uid, self._account.gid)
        if not may_write(self._account, self._run):
            user = f"user {self._account.name}, who runs the server," if self._account else "we"
            raise UsageError(f"{user} cannot write to {self._run}: choose a folder with VIRTUALCHAIN_HOME")

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

    def _data_version(self) -> int:
        """Return the major version that made the data."""
        try:
            return int((self._data / "PG_VERSION").read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{self._data} contains no PostgreSQL data ({error}): move it away") from error

    def _check_version(self, binaries: Path) -> None:
        data, ours = self._data_version(), major_version(binaries, self._account)
        if data < ours:
            raise StoreError(
                f"{self._data} was made by PostgreSQL {data}, but {binaries} contains PostgreSQL {ours}: "
                f"`virtualchain db upgrade` moves the data to {ours}. To stay with {data}, set "
                f"VIRTUALCHAIN_PG_BIN to the bin folder of a PostgreSQL {data}"
            )
        if data > ours:
            raise StoreError(
                f"{self._data} was made by PostgreSQL {data}, but {binaries} contains PostgreSQL {ours}: "
                f"{_MOVE.format(old=data, folder=self.folder)}"
            )

    def _boot(self, binaries: Path) -> None:
        """Start a server that is not running."""
        if self._log.exists() and self._log.stat().st_size > _LOG_LIMIT:
            self._log.replace(self._log.with_suffix(".log.1"))
        for attempt in range(1, _ATTEMPTS + 1):
            log_size = self._log.stat().st_size if self._log.exists() else 0
            options = self._options(choose_address(self._state, self._run, self._account))
            done = self._pg_ctl(binaries, "start", "-l", self._log, "-o", options)
            if done.returncode == 0:
                return
            output = self._log_since(log_size) or done.stderr.strip()
            # Another program took the port in between, or backends of a killed server have not ended yet.
            is_transient = "could not bind" in output or "pre-existing shared memory block" in output
            if not is_transient or attempt == _ATTEMPTS:
                tail = "\n".join(output.splitlines()[-10:])
                raise StoreError(f"the embedded server does not start; its log {self._log} ends:\n{tail}")
            time.sleep(0.5)

    def _options(self, address: Address) -> str:
        """Return the settings for this start only, quoted for the shell that pg_ctl passes them to."""
        settings = {
            "listen_addresses": HOST,
            "port": str(address.port),
            # A list of quoted names, because a path may contain commas and spaces.
            "unix_socket_directories": f'"{address.socket}"' if address.socket else "",
        }
        login = login_of(self.folder)
        if login is not None:
            # With feedback, the primary keeps the rows that readers here still look at.
            settings |= {"primary_conninfo": login, "hot_standby_feedback": "on"}
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
            # Its workers would keep databases from being dropped, and we may not end them.
            settings["autovacuum"] = "off"
        return " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())

    def _pg_ctl(self, binaries: Path, verb: str, *arguments: str | Path) -> CompletedProcess[str]:
        waiting = ["-s", "-w", "-t", str(_TIMEOUT)]
        return run([binaries / "pg_ctl", verb, *waiting, "-D", self._data, *arguments], self._account)

    def _probe(self, binaries: Path) -> _Answer:
        """Find out how the server answers now."""
        if self._pg_ctl(binaries, "status").returncode != 0:
            return _Answer.STOPPED
        try:
            with self._connect() as connection:
                row = connection.execute(queries("database")["data_directory"]).fetchone()
        except psycopg.OperationalError as error:
            # libpq reports no SQLSTATE for a refused connection; all messages of class 57P0 begin like this.
            return _Answer.BUSY if "the database system is" in str(error) else _Answer.SILENT
        return _Answer.READY if row and Path(row[0]) == self._data.resolve() else _Answer.SILENT

    def _answers(self, binaries: Path) -> bool:
        """Check whether our server accepts connections; waits while it is starting or stopping."""
        silent_until = time.monotonic() + _GRACE
        while True:
            answer = self._probe(binaries)
            if answer is _Answer.READY:
                return True
            if answer is _Answer.STOPPED or (answer is _Answer.SILENT and time.monotonic() > silent_until):
                return False
            time.sleep(0.1)

    def create_database(self, name: str) -> str:
        """Create another database for a deployment on the running server; return its URL.

        Raises UsageError if there is one already, or none can have this name.
        """
        if not 1 <= len(name.encode()) <= _LONGEST_NAME or not name.isprintable():
            raise UsageError(
                f"{quoted(name)} cannot name a database: use 1 to {_LONGEST_NAME} bytes of printable text"
            )
        with self._locked(), self._connect() as connection:
            if self.has_database(name):
                raise UsageError(
                    f"the embedded server has a database {name} already: `virtualchain db url` prints its URL"
                )
            self._create(connection, name)
        return self.url_for(name)

    def has_database(self, name: str) -> bool:
        """Check whether the running server has a database of this name."""
        with self._connect() as connection:
            row = connection.execute(queries("database")["database_exists"], {"name": name}).fetchone()
        return bool(row and row[0])

    def _ensure_database(self) -> None:
        if not self.has_database(DATABASE):
            with self._connect() as connection:
                self._create(connection, DATABASE)

    def _create(self, connection: psycopg.Connection, name: str) -> None:
        statement = sql.SQL(queries("database")["create_engine_database"])
        connection.execute(statement.format(name=sql.Identifier(name)))

    def connect_superuser(self, database: str) -> psycopg.Connection:
        """Connect to the running server as its superuser, for what the engine's role may not do."""
        return self._connect(database)

    def _connect(self, database: str = SUPERUSER) -> psycopg.Connection:
        """Connect as superuser; only a server with this folder's passwords accepts that."""
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
        address = last_address(self._state)
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

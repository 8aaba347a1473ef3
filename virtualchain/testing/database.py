"""Databases for tests: one server per session, one new database per test, cloned from a migrated template."""

import importlib
import importlib.util
import itertools
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from virtualchain.store.database import OLDEST_SERVER
from virtualchain.store.embedded.host import run, server_account
from virtualchain.store.embedded.installation import ENGINE, major_version, program_folders
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.migrate import migrate
from virtualchain.store.sql import queries
from virtualchain.store.state_files import forget

_NAMED = queries("testing")
_DISCONNECT_SECONDS = 10.0
"""How long a closed session may take to disappear from the server."""
_IMAGE = "postgres:18-alpine"
_INITDB = "--encoding=UTF8 --locale=C"


class DatabaseServer:
    """A server for tests, and the databases created on it."""

    def __init__(self, url: str, prefix: str = "test", template: str | None = None) -> None:
        """Take the URL of any database, for a role that may create databases, and a prefix for their names.

        `template` names the template of another process, which several may share.
        """
        self.url = url
        self._prefix = prefix
        self._numbers = itertools.count(1)
        self._template = template

    def create(self) -> str:
        """Create an empty database and return its URL."""
        name = self._new_name()
        self._run("create_database", name=name)
        return self._url_for(name)

    def clone(self) -> str:
        """Create a database with the current schema and return its URL."""
        name = self._new_name()
        self._run("clone_database", name=name, template=self.template())
        return self._url_for(name)

    def template(self) -> str:
        """Return the name of the database that is cloned; the first call creates it."""
        if self._template is None:
            template = self.create()
            migrate(template)
            self._template = _name_of(template)
        return self._template

    def drop_template(self) -> None:
        """Drop the database that is cloned, if there is one."""
        if self._template is not None:
            self._run("drop_database", name=self._template)
            self._template = None

    def drop(self, url: str) -> None:
        """Drop a database, its remaining connections, and its apps' roles and saved files."""
        deadline = time.monotonic() + _DISCONNECT_SECONDS
        with psycopg.connect(self.url, autocommit=True) as connection:
            while True:
                try:
                    _run(connection, "drop_database", name=_name_of(url))
                    break
                except psycopg.errors.InsufficientPrivilege:
                    # A session of another role, which this role may not terminate, has not quite ended.
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
            roles = connection.execute(_NAMED["roles_of_database"], {"name": _name_of(url)}).fetchall()
            for (role,) in roles:
                _run(connection, "drop_role", name=role)
        forget(url)

    def version(self) -> int:
        """Return the server's major version."""
        with psycopg.connect(self.url) as connection:
            return connection.info.server_version // 10_000

    def _new_name(self) -> str:
        return f"{self._prefix}_{os.getpid()}_{next(self._numbers)}"

    def _run(self, statement: str, **names: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            _run(connection, statement, **names)

    def _url_for(self, name: str) -> str:
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()


@contextmanager
def running_server() -> Iterator[DatabaseServer]:
    """Run a throw-away server: of VIRTUALCHAIN_PG_BIN, else a container if Docker answers, else embedded."""
    is_chosen = bool(os.environ.get("VIRTUALCHAIN_PG_BIN"))
    with _container() if not is_chosen and _docker_answers() else embedded_server() as url:
        yield DatabaseServer(url)


@contextmanager
def other_version(server: DatabaseServer) -> Iterator[DatabaseServer | None]:
    """Run a throw-away server of the installed version that differs most; yield None if there is none."""
    own = server.version()
    others = {version: folder for version, folder in installations().items() if version != own}
    if not others:
        yield None
        return
    farthest = max(others, key=lambda version: abs(version - own))
    with embedded_server(others[farthest]) as url:
        yield DatabaseServer(url, prefix="other")


def installations() -> dict[int, Path]:
    """Find the `bin` folders of the PostgreSQL versions that a throw-away server can be of, oldest first.

    They are those of the embedded server's wheel and of Debian's packages, if the server's user can run them.
    """
    account = server_account()
    able = [
        folder
        for folder in program_folders()
        if run(["test", "-x", folder / "initdb"], account).returncode == 0
    ]
    by_version = {major_version(folder, account): folder for folder in sorted(able)}
    return {version: by_version[version] for version in sorted(by_version) if version >= OLDEST_SERVER}


def _run(connection: psycopg.Connection[Any], statement: str, **names: str) -> None:
    quoted = {key: sql.Identifier(name) for key, name in names.items()}
    connection.execute(sql.SQL(_NAMED[statement]).format(**quoted))


def _name_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


@contextmanager
def embedded_server(binaries: Path | None = None) -> Iterator[str]:
    """Run a throw-away embedded server, of another PostgreSQL if its programs are given; yield its URL."""
    folder = Path(tempfile.mkdtemp(prefix="virtualchain-tests-"))
    # If root runs the tests, the server runs as another user, who needs access.
    folder.chmod(0o711)
    server = EmbeddedServer(folder / "postgresql", binaries=binaries, durable=False)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder)


@contextmanager
def _container() -> Iterator[str]:
    container = _postgres_container()(_IMAGE, driver=None).with_env("POSTGRES_INITDB_ARGS", _INITDB)
    with container.with_command(
        "postgres -c fsync=off -c jit=off -c autovacuum=off -c max_connections=50"
    ) as running:
        admin = running.get_connection_url()
        role = sql.SQL(queries("database")["create_engine_role"]).format(password=sql.Literal(ENGINE))
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(role)
        address = urlsplit(admin).netloc.rpartition("@")[2]
        yield urlsplit(admin)._replace(netloc=f"{ENGINE}:{ENGINE}@{address}").geturl()


def _postgres_container() -> Any:  # noqa: ANN401 - the library is optional and moved the class between releases
    try:
        module = importlib.import_module("testcontainers.community.postgres")
    except ImportError:
        module = importlib.import_module("testcontainers.postgres")
    return module.PostgresContainer


def _docker_answers() -> bool:
    """Check for a Docker engine, and for the library that starts containers on it.

    The engine is probed without that library, whose client leaks a socket if there is no answer; that would
    fail a strict test run.
    """
    if importlib.util.find_spec("testcontainers") is None:
        return False
    host = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    try:
        if host.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(host.path)
        else:
            socket.create_connection((host.hostname or "", host.port or 2375), timeout=5).close()
    except OSError:
        return False
    return True

"""The databases of a project: one for each load of the app, of which two are there at a time.

While the app is loaded, the state that it had before stays in the other one. A third one is empty but for the
schema: it is copied, which is faster than making the schema again.
"""

import threading
from typing import Final
from urllib.parse import quote, urlsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from virtualchain.errors import StoreError, UsageError, quoted
from virtualchain.store.database import redact, resolve
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.migrate import migrate
from virtualchain.store.sql import queries

_SUFFIX: Final = "_dev"
_MOST: Final = 55
"""Bytes of the part of a database's name that all have: PostgreSQL cuts a longer one."""
_Q: Final = {**queries("database"), **queries("dev")}


def base_url(database: str | None, name: str) -> str:
    """Return the URL from which those of a project's databases are made.

    That is `database`, whose name must end in _dev because databases that begin with it are dropped; or one
    called `name` on the embedded server, which is started. Raises UsageError, StoreError.
    """
    if database is None:
        server = EmbeddedServer()
        server.start()
        return server.url_for(name)
    own = str(conninfo_to_dict(resolve(database)).get("dbname") or "")
    if not own.endswith(_SUFFIX) or len(own.encode()) > _MOST:
        raise UsageError(
            f"dev drops and makes databases whose names begin with that of --database, so it takes only one "
            f"that ends in {_SUFFIX} and has at most {_MOST} bytes, and not {quoted(own)}: use such a name, "
            "which need not exist, or leave out --database"
        )
    return database


class Databases:
    """Hands out a new database for each load; the one before is dropped once a load has succeeded."""

    def __init__(self, url: str) -> None:
        """Take a URL as from `base_url`; raises StoreError if its user may not create databases."""
        self._url = url
        self._base = str(conninfo_to_dict(url)["dbname"])
        self._empty = f"{self._base}_0"
        self._lock = threading.Lock()
        self._number = 0
        self._ready: str | None = None
        """The database that is made already."""
        self._making: threading.Thread | None = None
        with self._lock, _explained(url):
            self._make(self._empty)
            migrate(self._url_of(self._empty))
        self.prepare()

    def take(self) -> str:
        """Return the URL of a new database with the schema; the one taken last stays as it is."""
        self._wait()
        if self._ready is None:
            with _explained(self._url):
                self._copy()
        assert self._ready is not None, "it was made"
        taken, self._ready = self._ready, None
        return self._url_of(taken)

    def prepare(self, *, keeps: str | None = None) -> None:
        """Make the next database, in a thread of its own; the one at the URL `keeps` stays."""
        self._wait()
        if self._ready is not None:
            return
        if keeps is not None:
            self._number = int(str(conninfo_to_dict(keeps)["dbname"]).rpartition("_")[2])

        def work() -> None:
            try:
                self._copy()
            except psycopg.Error:
                self._ready = None  # `take` tries again, and reports it

        self._making = threading.Thread(target=work, name="databases", daemon=True)
        self._making.start()

    def close(self) -> None:
        """Wait for what is being made; the databases stay."""
        self._wait()

    def _copy(self) -> None:
        name = f"{self._base}_{2 if self._number == 1 else 1}"
        with self._lock:
            self._run("drop_database", name=name)
            self._run("copy_database", name=name, template=self._empty)
        self._ready = name

    def _make(self, name: str) -> None:
        self._run("drop_database", name=name)
        self._run("create_database", name=name)

    def _run(self, statement: str, **names: str) -> None:
        quoted_names = {key: sql.Identifier(name) for key, name in names.items()}
        with psycopg.connect(make_conninfo(self._url, dbname="postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL(_Q[statement]).format(**quoted_names))

    def _url_of(self, name: str) -> str:
        parts = urlsplit(self._url)
        if parts.scheme and "dbname=" not in parts.query:
            return parts._replace(path=f"/{quote(name, safe='')}").geturl()
        return make_conninfo(self._url, dbname=name)

    def _wait(self) -> None:
        if self._making is not None:
            self._making.join()
            self._making = None


class _explained:  # noqa: N801 - used as `with _explained(url):`
    """Says of an error which server it is about, and what to do."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, psycopg.Error):
            may_not = isinstance(error, psycopg.errors.InsufficientPrivilege)
            advice = (
                "; its user needs the right to create databases (ALTER ROLE … CREATEDB)" if may_not else ""
            )
            raise StoreError(
                f"no database can be made at {redact(self._url)}: {' '.join(str(error).split())}{advice}"
            ) from error

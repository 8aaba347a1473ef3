"""What other processes do to a deployment while its writer works: builds, checkpoints, pins, open snapshots.

Each runs in a process of its own, so that it may wait for the writer, and the writer for it.
"""

import os
from contextlib import closing, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import psycopg
from psycopg import sql

from tests.simulation.apps import make_apps
from tests.simulation.jobs import context
from virtualchain.app.declarations import read_contract
from virtualchain.checkpoint.create import create
from virtualchain.engine.options import Options
from virtualchain.engine.versions import build_beside, drop, swap
from virtualchain.errors import BuildChanged, InUse, UsageError
from virtualchain.reading import views
from virtualchain.store import giving_way
from virtualchain.store.database import connect_migrator
from virtualchain.store.tape import Tape

OTHERS: Final = ("make", "swap", "drop", "pin")
"""What may strike in the middle of the writer's work."""
BUILD: Final = "v"
"""The name of the build that is made beside the live one."""
_PATIENCE: Final = 0.3
"""Seconds that the writer stands still for another process, which may in turn wait for the writer."""


def begin(kind: str, settings: dict[str, Any], app: str) -> BaseProcess:
    """Start another process that does one thing, and let it do so for a moment."""
    process = context().Process(target=_perform, args=(kind, settings, app), daemon=True)
    process.start()
    process.join(_PATIENCE)
    return process


def end(process: BaseProcess) -> None:
    """Wait for another process; it must have ended in an orderly way."""
    process.join(120)
    assert process.exitcode == 0, f"another process ended with {process.exitcode}"


def perform(kind: str, settings: dict[str, Any], app: str) -> None:
    """Do one thing, which may turn out to be impossible."""
    url = settings["database"]
    with suppress(UsageError, BuildChanged, InUse), patch.object(giving_way, "_TRIES", 3):
        if kind == "make":
            [made] = make_apps(lambda step: None, (app,))
            options = Options(history=settings["history"], state_folder=settings["state_folder"])
            build_beside(url, read_contract(made), BUILD, options)
        elif kind == "swap":
            swap(url, app, other_build(url, app))
        elif kind == "drop":
            drop(url, app, other_build(url, app))
        else:
            with closing(connect_migrator(url)) as connection:
                tape = Tape(connection)
                tip = tape.tip()
                if tip is not None and not tape.pins():
                    tape.pin(tip.block_id, tip.hash)
                connection.commit()


def other_build(url: str, app: str) -> str:
    """Return a build of an app that is not live, or a name that none has."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT build FROM vc.apps WHERE name = %s AND NOT is_live ORDER BY build DESC LIMIT 1", [app]
        ).fetchone()
    return "none" if row is None else str(row[0])


def _perform(kind: str, settings: dict[str, Any], app: str) -> None:
    try:
        perform(kind, settings, app)
    except psycopg.OperationalError:
        os._exit(0)  # the database was restarted meanwhile


def checkpoint(url: str, app: str, file: Path) -> bool:
    """Create a checkpoint of an app, if it has taken a block."""
    with suppress(UsageError), views.snapshot(url) as connection:
        create(connection, app, file)
        return True
    return False


class Reader:
    """A transaction with an open snapshot, which knows what it must read."""

    def __init__(self, url: str, app: str, *, holds: bool) -> None:
        """Open it; with `holds` it reads the views now, and so holds them."""
        self.holds = holds
        self._app = app
        self._connection = psycopg.connect(url, application_name="a simulated reader")
        self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        row = self._connection.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None
        if holds:
            self._expected = _rows(self._connection, app)
            return
        with psycopg.connect(url) as other:
            other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            other.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(row[0])))
            self._expected = _rows(other, app)

    def close(self) -> str | None:
        """Read again; return a complaint if the rows differ, or are refused although it holds the views."""
        try:
            rows = _rows(self._connection, self._app)
        except psycopg.OperationalError:
            return None  # the database was restarted meanwhile
        except psycopg.Error as error:
            if error.sqlstate == "VC007" and not self.holds:
                return None
            return f"a reader of {self._app} was refused: {error}"
        else:
            return None if rows == self._expected else f"a reader of {self._app} sees other rows than before"
        finally:
            self._connection.close()


def _rows(connection: psycopg.Connection[Any], app: str) -> list[Any]:
    """Read an app's views, and its part of the log."""
    app_views = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = 'v' ORDER BY 1",
        [app],
    ).fetchall()
    statements = [
        sql.SQL("SELECT format('%s', t) FROM {} AS t ORDER BY 1").format(sql.Identifier(app, name))
        for (name,) in app_views
    ]
    digests = "SELECT block_id, state_hash FROM virtualchain.snapshots WHERE app = %s ORDER BY 1"
    return [
        *(connection.execute(statement).fetchall() for statement in statements),
        connection.execute(digests, [app]).fetchall(),
    ]

"""A new version of an app beside the running one: built from the tape, compared, put in its place, dropped.

A build is made by a process of its own, with the new code, while the writer goes on with the old one. What it
writes is its build's alone; of the tape it holds the block that it works on, so that a rollback by the writer
waits for it, and where a rollback came first, it stands anew behind that.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.engine.coverage import gaps, rule_of
from virtualchain.engine.deployment import along_tape
from virtualchain.engine.machine import Machine
from virtualchain.errors import StoreError, UsageError
from virtualchain.model import Block
from virtualchain.store.builds import (
    Build,
    add_build,
    as_begun,
    builds,
    drop_build,
    give_way_soon,
    make_live,
    remove_app,
)
from virtualchain.store.database import connect_builder, connect_migrator, connect_writer
from virtualchain.store.log import AppLog
from virtualchain.store.tape import Tape

OnBlock = Callable[[str, Block, int, int], None]
"""Told of each block that the build takes: the app, the block, its inputs, the tape's last block."""

_NAME: Final = re.compile(r"[a-z][a-z0-9]{0,15}")
"""What a build may be called; numbers are the engine's own."""
_LOCK_TRIES: Final = 20
_PAUSE: Final = 0.5
"""Seconds between two tries to take the place of views that somebody reads."""


def build_beside(
    url: str,
    contract: Contract,
    build: str,
    *,
    state_folder: Path,
    history: int | None,
    may_go_on: Callable[[], bool] = lambda: True,
    on_block: OnBlock | None = None,
) -> Build:
    """Derive an app from the tape, by the rules of `contract`, into a build beside the live one.

    It goes up to the tape's last block, or to where `may_go_on` ends it; said again, it goes on. Raises
    UsageError where the app is not installed, the build is one of other rules, or the tape was not searched
    for its inputs; AppHalted where a callback fails; WriterBusy where another process makes this build.
    """
    if not _NAME.fullmatch(build):
        raise UsageError(f"{build!r} is no name for a build: a letter, then up to 15 letters and digits")
    with closing(connect_builder(url, f"{contract.name}:{build}")) as connection:
        begun = _install(connection, contract, build)
        file = state_folder / f"{contract.schema}.{build}.state"
        machine = Machine(connection, begun, build, file, history)
        tape = Tape(connection)
        while may_go_on() and (tip := tape.tip()) is not None and machine.cursor < tip.block_id:
            for block, inputs, _ in along_tape(connection, machine, tip.block_id, beside_writer=True):
                if on_block is not None:
                    on_block(contract.name, block, inputs, tip.block_id)
                if not may_go_on():
                    break
        machine.settle()
        return _find(connection, contract.name, build)


def _install(connection: psycopg.Connection, contract: Contract, build: str) -> Contract:
    """Install the build, or check that it is of these rules; give the contract as the live build began."""
    rows = [row for row in builds(connection) if row.name == contract.name]
    live = next((row for row in rows if row.is_live), None)
    if live is None:
        raise UsageError(f"app {contract.name} is not installed: the first sync or run installs it")
    if live.began_with_checkpoint:
        raise UsageError(
            f"app {contract.name} began with a checkpoint of block {live.base_block_id}: the tape does not "
            "hold what came before, so no version can be built from it"
        )
    lacking = gaps(Tape(connection), contract)
    if lacking:
        raise UsageError(
            f"blocks {lacking[0][0]} to {lacking[0][1]} were not searched for the inputs of version "
            f"{contract.version}: run it under a name of its own first, so that they are"
        )
    found = next((row for row in rows if row.build == build), None)
    if found is None:
        with connection.transaction():
            add_build(connection, contract, rule_of(contract), build)
    elif found.is_live or found.fingerprint != contract.fingerprint():
        what = "is the live one" if found.is_live else "was made by other rules"
        raise UsageError(f"build {build} of app {contract.name} {what}: choose another name, or drop it")
    return as_begun(connection, contract, build)


def swap(url: str, app: str, build: str, on_wait: Callable[[str], None] | None = None) -> Build:
    """Let the views of an app show another build; give the one that they showed, which stays.

    One short transaction: where somebody reads the views for long, it gives way and tries again. Raises
    UsageError where there is no such build, or something depends on a view that the other build has not;
    StoreError where the views stay in use.
    """
    with closing(connect_migrator(url)) as connection:
        connection.autocommit = True
        _find(connection, app, build)
        before = next(row for row in builds(connection) if row.name == app and row.is_live)
        if before.build == build:
            raise UsageError(f"the views of app {app} show build {build} already")
        for _ in range(_LOCK_TRIES):
            try:
                with connection.transaction(), _explained(app):
                    give_way_soon(connection)
                    make_live(connection, app, build)
                    AppLog(connection, app, build).set_status("running")
            except psycopg.errors.LockNotAvailable:
                if on_wait is not None:
                    on_wait(f"the views of app {app} are in use: trying again")
                time.sleep(_PAUSE)
            else:
                return before
    raise StoreError(f"the views of app {app} stay in use: end the long readers, and say it again")


def drop(url: str, app: str, build: str) -> None:
    """Remove a build that is not live: its tables, and its rows of the log."""
    with closing(connect_migrator(url)) as connection:
        if _find(connection, app, build).is_live:
            raise UsageError(f"the views of app {app} show build {build}: swap in another one first")
        with _explained(app):
            drop_build(connection, app, build)
        connection.commit()


def remove(url: str, app: str) -> None:
    """Remove an app with all its builds, its views, and its part of the log; the tape stays as it is.

    Raises UsageError where there is none, or something depends on it, WriterBusy while there is a writer.
    """
    with closing(connect_writer(url)) as connection:
        if not any(row.name == app for row in builds(connection)):
            raise UsageError(f"there is no app {app} in this database")
        with connection.transaction(), _explained(app):
            remove_app(connection, app)


def _find(connection: psycopg.Connection, app: str, build: str) -> Build:
    rows = [row for row in builds(connection) if row.name == app]
    found = next((row for row in rows if row.build == build), None)
    if found is None:
        there = ", ".join(row.build for row in rows) or "none"
        raise UsageError(f"app {app} has no build {build}; its builds are: {there}")
    return found


@contextmanager
def _explained(app: str) -> Iterator[None]:
    """Say what stands in the way where something of the user's depends on what is to go."""
    try:
        yield
    except psycopg.errors.DependentObjectsStillExist as error:
        detail = (error.diag.message_detail or "").replace("\n", "; ")
        raise UsageError(f"something else depends on tables or views of app {app}: {detail}") from error

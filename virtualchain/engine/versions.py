"""A new version of an app beside the running one: built from the tape, swapped in, dropped, removed.

A build is made by a process of its own, with the new code, while the writer continues with the old one. What
that process writes belongs to its build alone. It holds the block of the tape that it works on, so that a
rollback by the writer waits for it; if a rollback came first, it continues from there.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.engine.coverage import gaps
from virtualchain.engine.machine import Machine
from virtualchain.engine.options import DEFAULTS, QUIET, Listener, Options
from virtualchain.engine.rebuild import advance_to
from virtualchain.errors import StoreError, UsageError
from virtualchain.store.builds import (
    Build,
    add_build,
    builds,
    contract_of_build,
    drop_build,
    find_build,
    identify,
    is_by,
    live_build,
    make_live,
    remove_app,
    set_short_lock_timeout,
)
from virtualchain.store.database import connect_builder, connect_migrator, connect_writer
from virtualchain.store.log import AppLog
from virtualchain.store.state_files import default_folder, discard
from virtualchain.store.tape import Tape

_NAME: Final = re.compile(r"[a-z][a-z0-9]{0,15}")
"""What a build may be called; numbers are the engine's own."""
_LOCK_TRIES: Final = 20
_PAUSE: Final = 0.5
"""Seconds between two attempts to replace views that someone reads."""


def build_beside(
    url: str,
    contract: Contract,
    build: str,
    options: Options = DEFAULTS,
    listener: Listener = QUIET,
    search: Callable[[Contract], None] | None = None,
) -> Build:
    """Derive an app from the tape, by the rules of `contract`, into a build beside the live one.

    It advances to the tape's last block, or to where the listener ends it; a second call continues. Blocks
    that were not searched for its inputs are searched by `search`. Raises UsageError if the app is not
    installed, the build is of other rules, or blocks were not searched and `search` is None; AppHalted if a
    callback fails; WriterBusy if another process makes this build.
    """
    if not _NAME.fullmatch(build):
        raise UsageError(f"{build!r} is not a build's name: use a letter, then up to 15 letters and digits")
    with closing(connect_builder(url, f"{contract.name}:{build}")) as connection:
        contract = _install(connection, contract, build, search)
        machine = Machine(connection, contract, build, options.for_database(url), is_live=False)
        tape = Tape(connection)
        while listener.may_continue() and machine.cursor < (last := _last_searched(tape, contract)):
            advance_to(machine, last, listener, beside_writer=True)
        machine.settle()
        return _require_build(connection, contract.name, build)


def _last_searched(tape: Tape, contract: Contract) -> int:
    """Return the last block of the tape up to which all were searched for an app's inputs.

    A writer that does not run these rules may append others meanwhile.
    """
    tip, unsearched = tape.tip(), gaps(tape, contract)
    if unsearched:
        return unsearched[0][0] - 1
    return -1 if tip is None else tip.block_id


def _install(
    connection: psycopg.Connection, contract: Contract, name: str, search: Callable[[Contract], None] | None
) -> Contract:
    """Install the build, or check that it has these rules; return the contract as the live build began."""
    app = contract.name
    live = live_build(connection, app)
    if live is None:
        raise UsageError(f"app {app} is not installed: the first sync or run installs it")
    if live.began_with_checkpoint:
        raise UsageError(
            f"app {app} began with a checkpoint of block {live.base_block_id}: the tape does not hold what "
            "came before, so no version can be built from it; apply a checkpoint that a deployment with that "
            "version created"
        )
    unsearched = gaps(Tape(connection), contract)
    if unsearched and search is not None:
        search(contract)
    elif unsearched:
        raise UsageError(
            f"blocks {unsearched[0][0]} to {unsearched[0][1]} were not searched for the inputs of version "
            f"{contract.version}: `virtualchain upgrade {app}` does so, and puts that version in place"
        )
    build = find_build(connection, app, name)
    if build is None:
        with connection.transaction():
            add_build(connection, contract, name)
    elif build.is_live or not is_by(connection, build, contract):
        why = "is the live one" if build.is_live else "was made by other rules"
        raise UsageError(f"build {name} of app {app} {why}: choose another name, or drop it")
    elif build.code_digest not in {None, contract.code_digest()}:
        raise UsageError(
            f"build {name} of app {app} was begun with other code: choose another name, or drop it"
        )
    else:
        with connection.transaction():
            identify(connection, build, contract)
    return contract_of_build(connection, contract, name)


def swap(
    url: str,
    app: str,
    build: str,
    on_wait: Callable[[str], None] | None = None,
    *,
    state_folder: Path | None = None,
) -> Build:
    """Point the views of an app at another build; return the one that they showed, which stays.

    This is one short transaction: if a long reader holds the views, it gives way and tries again. Raises
    UsageError if there is no such build, or something depends on a view that the other build does not have;
    StoreError if the views stay in use.
    """
    with closing(connect_migrator(url)) as connection:
        connection.autocommit = True
        _require_build(connection, app, build)
        before = live_build(connection, app)
        assert before is not None, "an app with a build has a live one"
        if before.name == build:
            raise UsageError(f"the views of app {app} show build {build} already")
        for _ in range(_LOCK_TRIES):
            try:
                with connection.transaction(), _naming_dependents(app):
                    set_short_lock_timeout(connection)
                    make_live(connection, app, build)
                    AppLog(connection, app, build).set_status("running")
            except psycopg.errors.LockNotAvailable:
                if on_wait is not None:
                    on_wait(f"the views of app {app} are in use: trying again")
                time.sleep(_PAUSE)
            else:
                discard(state_folder or default_folder(url), before.schema, build, is_live=False)
                return before
    raise StoreError(f"the views of app {app} stay in use: end the long readers, and run it again")


def drop(url: str, app: str, build: str, *, state_folder: Path | None = None) -> None:
    """Remove a build that is not live: its tables, its rows of the log, and its saved file."""
    with closing(connect_migrator(url)) as connection:
        row = _require_build(connection, app, build)
        if row.is_live:
            raise UsageError(f"the views of app {app} show build {build}: swap in another one first")
        with _naming_dependents(app):
            drop_build(connection, app, build)
        connection.commit()
        discard(state_folder or default_folder(url), row.schema, build, is_live=False)


def remove(url: str, app: str, *, state_folder: Path | None = None) -> None:
    """Remove an app with all its builds, views and files, and its part of the log; the tape stays as it is.

    Raises UsageError if there is none, or something depends on it, WriterBusy while there is a writer.
    """
    with closing(connect_writer(url)) as connection:
        rows = builds(connection, app)
        if not rows:
            raise UsageError(f"there is no app {app} in this database")
        with connection.transaction(), _naming_dependents(app):
            remove_app(connection, app)
        for row in rows:
            discard(state_folder or default_folder(url), row.schema, row.name, is_live=row.is_live)


def _require_build(connection: psycopg.Connection, app: str, name: str) -> Build:
    build = find_build(connection, app, name)
    if build is None:
        names = ", ".join(row.name for row in builds(connection, app)) or "none"
        raise UsageError(f"app {app} has no build {name}; its builds are: {names}")
    return build


@contextmanager
def _naming_dependents(app: str) -> Iterator[None]:
    """Raise UsageError, naming the objects, if a user's object depends on what is to be removed."""
    try:
        yield
    except psycopg.errors.DependentObjectsStillExist as error:
        detail = (error.diag.message_detail or "").replace("\n", "; ")
        raise UsageError(f"something else depends on tables or views of app {app}: {detail}") from error

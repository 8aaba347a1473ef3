"""A new version of an app beside the running one: built from the tape, swapped in, dropped, removed.

A build is made by a process of its own, with the new code, while the writer continues with the old one. What
that process writes belongs to its build alone. It holds the block of the tape that it works on, so that a
rollback by the writer waits for it; if a rollback came first, it continues from there.
"""

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.engine.coverage import gaps, pruned_note
from virtualchain.engine.machine import Machine
from virtualchain.engine.options import CHUNK, DEFAULTS, QUIET, Listener, Options
from virtualchain.engine.rebuild import advance_to, report_steps
from virtualchain.errors import BuildChanged, DamagedTables, UsageError, quoted
from virtualchain.model import Block, ScannedBlock
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
    lock_builds,
    make_live,
    remove_app,
)
from virtualchain.store.database import connect_builder, connect_migrator, connect_writer
from virtualchain.store.giving_way import give_way
from virtualchain.store.log import AppLog
from virtualchain.store.sql import queries
from virtualchain.store.state_files import default_folder, discard
from virtualchain.store.tape import Tape

_NAME: Final = re.compile(r"[a-z][a-z0-9]{0,15}")
"""What a build may be called; numbers are the engine's own."""
TEMPORARY: Final = "_again"
"""What `judged_again` and `judged_stretch` make: no user's and no engine's build can have this name."""
_Q = queries("builds")


def build_beside(
    url: str,
    contract: Contract,
    build: str,
    options: Options = DEFAULTS,
    listener: Listener = QUIET,
    search: Callable[[Contract], None] | None = None,
    fetch: Callable[[Contract, Sequence[Block]], Generator[ScannedBlock, None, None]] | None = None,
) -> Build:
    """Derive an app from the tape, by the rules of `contract`, into a build beside the live one.

    It advances to the tape's last block, or to where the listener ends it; a second call continues. Blocks
    that were not searched for its inputs are searched by `search`. If it tracks outputs, those that no build
    by the same rules and code has taken are fetched by `fetch`. Raises UsageError if the app is not
    installed, the build is of other rules, or blocks were not searched and `search` is None; AppHalted if a
    callback fails; WriterBusy if another process makes this build; BuildChanged if one swaps it in or drops
    it meanwhile.
    """
    if not _NAME.fullmatch(build):
        raise UsageError(
            f"{quoted(build)} is not a build's name: use a letter, then up to 15 letters and digits"
        )
    with closing(connect_builder(url, f"{contract.name}:{build}")) as connection:
        tape = Tape(connection)
        contract = _install(connection, contract, build, search)
        machine = Machine(connection, contract, build, options.for_database(url), is_live=False)
        while listener.may_continue():
            last, tip = _last_searched(tape, contract), tape.tip()
            if machine.cursor < last:
                advance_to(machine, last, listener, beside_writer=True)
            elif contract.tracks is not None and fetch and tip and machine.cursor < tip.block_id:
                headers = tape.blocks(machine.cursor + 1, min(machine.cursor + CHUNK, tip.block_id))
                with closing(fetch(contract, headers)) as scanned_blocks:
                    steps = machine.advance_over(scanned_blocks, beside_writer=True)
                    report_steps(machine, steps, tip.block_id, listener, with_tallies=True)
            else:
                break
        machine.settle()
        return _require_build(builds(connection, contract.name), contract.name, build)


@contextmanager
def judged_again(
    url: str, contract: Contract, options: Options = DEFAULTS, listener: Listener = QUIET
) -> Iterator[tuple[psycopg.Connection, Build, Build] | None]:
    """Derive an app from the tape into a build of its own, which is dropped afterwards.

    Yields a connection in a transaction that sees one moment, the live build, and the other one, which is at
    its last block or at one that its history shows; None if the listener ended the work early. Raises what
    `build_beside` raises, and DamagedTables if the tape does not have all of its blocks.
    """
    app = contract.name
    with closing(connect_builder(url, f"{app}:{TEMPORARY}")) as connection:
        drop_temporary(connection, app)  # of a process that was killed
        live = require_live(connection, app)
        require_tape(connection, live.base_block_id + 1, live.block_id)
        contract = _install(connection, contract, TEMPORARY, None, last=live.block_id)
        machine = Machine(connection, contract, TEMPORARY, options.for_database(url), is_live=False)
        try:
            while listener.may_continue():
                last = require_live(connection, app).block_id
                if not advance_to(machine, last, listener, beside_writer=True):
                    break
                with connection.transaction():
                    connection.execute(_Q["one_moment"])
                    live, other = require_live(connection, app), find_build(connection, app, TEMPORARY)
                    assert other is not None, "this process holds its lock"
                    if max(live.history_from, min(live.block_id, other.block_id)) == other.block_id:
                        yield connection, live, other
                        return
            yield None
        finally:
            machine.forget_file()
            drop_temporary(connection, app)


def require_tape(connection: psycopg.Connection, first: int, last: int) -> None:
    """Raise DamagedTables if a block between `first` and `last` is missing on the tape."""
    row = connection.execute(_Q["missing_block"], {"first": first, "last": last}).fetchone()
    if row is not None and row[0] is not None:
        raise DamagedTables(f"block {row[0]} is missing on the tape")


def drop_temporary(connection: psycopg.Connection, app: str) -> None:
    """Drop what is left of judging an app again, if anything."""
    with connection.transaction():
        if any(build.name == TEMPORARY for build in lock_builds(connection, app)):
            drop_build(connection, app, TEMPORARY)


def require_live(connection: psycopg.Connection, app: str) -> Build:
    """Return an app's live build; raise UsageError if it is not installed."""
    live = live_build(connection, app)
    if live is None:
        raise UsageError(f"app {app} is not installed: the first sync or run installs it")
    return live


def _last_searched(tape: Tape, contract: Contract) -> int:
    """Return the last block of the tape up to which all were searched for an app's inputs.

    A writer that does not run these rules may append others meanwhile.
    """
    tip, unsearched = tape.tip(), gaps(tape, contract)
    if unsearched:
        return unsearched[0][0] - 1
    return -1 if tip is None else tip.block_id


def _install(
    connection: psycopg.Connection,
    contract: Contract,
    name: str,
    search: Callable[[Contract], None] | None,
    *,
    last: int | None = None,
) -> Contract:
    """Install the build, or check that it has these rules; return the contract as the live build began.

    The tape must have what it needs up to block `last`, by default all of it.
    """
    app = contract.name
    live = require_live(connection, app)
    if live.began_with_checkpoint:
        raise UsageError(
            f"app {app} began with a checkpoint of block {live.base_block_id}: the tape does not hold what "
            "came before, so no version can be built from it; apply a checkpoint that a deployment with that "
            "version created"
        )
    contract = contract.on(Tape(connection).network)
    unsearched = gaps(Tape(connection), contract)
    if unsearched and search is not None:
        search(contract)
    elif unsearched and (last is None or unsearched[0][0] <= last):
        raise UsageError(
            f"blocks {unsearched[0][0]} to {unsearched[0][1]} were not searched for the inputs of version "
            f"{contract.version}{pruned_note(Tape(connection))}: `virtualchain upgrade {app}` does so, and "
            "puts that version in place"
        )
    build = find_build(connection, app, name)
    if build is None:
        with connection.transaction():
            if not any(row.is_live for row in lock_builds(connection, app)):
                raise BuildChanged(f"app {app} was removed by another process")
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
            log = AppLog(connection, app, name)
            log.join(is_live=False)
            log.hold()
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
    UsageError if there is no such build, it is not finished, or something depends on a view that it does not
    have; InUse if the views stay in use.
    """
    with closing(connect_migrator(url)) as connection:
        connection.autocommit = True

        def change() -> Build:
            current = lock_builds(connection, app)
            row = _require_build(current, app, build)
            before = next((item for item in current if item.is_live), None)
            assert before is not None, "an app with a build has a live one"
            if row.is_live:
                raise UsageError(f"the views of app {app} show build {build} already")
            if row.is_unfinished:
                raise UsageError(f"build {build} of app {app} is not finished: the engine is at work on it")
            make_live(connection, app, build)
            AppLog(connection, app, build).set_status("running")
            return before

        with naming_dependents(app):
            before = give_way(connection, [app], change, on_wait)
    discard(state_folder or default_folder(url), before.schema, build, is_live=False)
    return before


def drop(
    url: str,
    app: str,
    build: str,
    on_wait: Callable[[str], None] | None = None,
    *,
    state_folder: Path | None = None,
) -> None:
    """Remove a build that is not live: its tables, its rows of the log, and its saved file.

    A process that is making it ends at its next block. Raises UsageError if there is no such build, or it is
    live, or something depends on its tables; InUse if they stay in use.
    """
    with closing(connect_migrator(url)) as connection:
        connection.autocommit = True

        def change() -> Build:
            row = _require_build(lock_builds(connection, app), app, build)
            if row.is_live:
                raise UsageError(f"the views of app {app} show build {build}: swap in another one first")
            drop_build(connection, app, build)
            return row

        with naming_dependents(app):
            dropped = give_way(connection, [app], change, on_wait)
    discard(state_folder or default_folder(url), dropped.schema, build, is_live=False)


def remove(
    url: str, app: str, on_wait: Callable[[str], None] | None = None, *, state_folder: Path | None = None
) -> None:
    """Remove an app with all its builds, views and files, and its part of the log; the tape stays as it is.

    Raises UsageError if there is none, or something depends on it, WriterBusy while there is a writer, InUse
    if its views or tables stay in use.
    """
    with closing(connect_writer(url)) as connection:

        def change() -> list[Build]:
            rows = lock_builds(connection, app)
            if not rows:
                raise UsageError(f"there is no app {app} in this database")
            remove_app(connection, app)
            return rows

        with naming_dependents(app):
            removed = give_way(connection, [app], change, on_wait)
    for row in removed:
        discard(state_folder or default_folder(url), row.schema, row.name, is_live=row.is_live)


def _require_build(current: Sequence[Build], app: str, name: str) -> Build:
    build = next((row for row in current if row.name == name), None)
    if build is None:
        names = ", ".join(row.name for row in current) or "none"
        raise UsageError(f"app {app} has no build {name}; its builds are: {names}")
    return build


@contextmanager
def naming_dependents(app: str) -> Iterator[None]:
    """Raise UsageError, naming the objects, if a user's object depends on what is to be removed."""
    try:
        yield
    except psycopg.errors.DependentObjectsStillExist as error:
        detail = (error.diag.message_detail or "").replace("\n", "; ")
        raise UsageError(f"something else depends on tables or views of app {app}: {detail}") from error

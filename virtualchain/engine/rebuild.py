"""Derive a build of an app from the tape: for a deep rollback, for `replay`, and for a new version.

The tables that people read stay in place meanwhile. A derivation that is interrupted is kept, and the next
one continues it.
"""

from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Final

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.bitcoin.source import BlockSource
from virtualchain.engine.backfill import scan_for
from virtualchain.engine.compare import RowDifference, first_difference, first_verdict, row_differences
from virtualchain.engine.coverage import gaps, require_searched
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.machine import Advanced, Machine
from virtualchain.engine.options import CHUNK, Listener, Progress
from virtualchain.errors import BuildChanged, MissingData, StoreError, UpstreamLacks, UsageError
from virtualchain.store.builds import (
    Build,
    Replacement,
    add_build,
    builds,
    drop_build,
    find_build,
    forget_builds,
    live_build,
    lock_builds,
    next_build,
    replace_views,
    set_live,
)
from virtualchain.store.giving_way import give_way
from virtualchain.store.log import AppLog

MOST_DIFFERENCES: Final = 1000
"""Rows of each table that a replay reports as different."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of a replay: the app's last block, its state hash before and now, and what was wrong."""

    block_id: int
    state_hash_before: str | None
    state_hash: str | None
    differences: tuple[RowDifference, ...]
    """The rows that the old build did not have as the new one has them; of each table the first ones."""


def replay(deployment: Deployment, app: str, listener: Listener) -> Replayed | None:
    """Derive an app again from the tape, up to its last block, and replace its tables by the result.

    This repairs damaged tables, and reports every row that was not as the tape leads to it. Returns None if
    the listener ended it early: what was derived is kept for the next time. Raises StoreError if the
    consensus hashes differ, BuildChanged if another process swaps or drops one of the two builds, InUse if
    readers do not let go of the views, UsageError if the app began with a checkpoint, AppHalted.
    """
    live = live_build(deployment.connection, app)
    if live is None:
        raise UsageError(f"there is no app {app} in this database")
    if live.began_with_checkpoint:
        raise UsageError(
            f"app {app} began with a checkpoint of block {live.base_block_id}: the tape does not hold what "
            "came before, so apply the checkpoint again"
        )
    contract = next(item.contract for item in deployment.apps.machines if item.contract.name == app)
    try:
        rebuilt = derive(deployment, live, contract, live.block_id, listener)
    except BuildChanged as error:
        raise BuildChanged(f"{error}; nothing was replaced: run it again") from error
    if rebuilt is None:
        return None
    before, now = (
        AppLog(deployment.connection, app, build).snapshot(live.block_id).state_hash
        if live.is_above(live.base_block_id)
        else None
        for build in (live.name, rebuilt.build)
    )
    made = find_build(deployment.connection, app, rebuilt.build)
    assert made is not None, "it was derived"
    differences = tuple(row_differences(deployment.connection, live, made, MOST_DIFFERENCES))
    deployment.be_durable()
    with deployment.connection.transaction():
        put_in_place(deployment.connection, live, rebuilt.build, listener)
    deployment.reload_after_rollback([rebuilt])
    return Replayed(live.block_id, before, now, differences)


def put_in_place(connection: psycopg.Connection, live: Build, successor: str, listener: Listener) -> None:
    """Replace an app's live build by another one, and drop it, in the caller's transaction.

    Raises BuildChanged if another process swapped or dropped one of them, InUse if readers do not let go of
    the views.
    """
    app = live.app
    current = {build.name: build for build in lock_builds(connection, app)}
    if live.name not in current or not current[live.name].is_live or successor not in current:
        raise BuildChanged(
            f"another process swapped or dropped a build of app {app} meanwhile: nothing was replaced"
        )
    replacement = replace_build(connection, live, current[successor])
    give_way(
        connection,
        [app],
        lambda: replace_views(connection, [replacement]),
        listener.on_wait,
        listener.may_continue,
    )


def derive(
    deployment: Deployment,
    live: Build,
    contract: Contract,
    last: int,
    listener: Listener,
    source: BlockSource | None = None,
) -> Machine | None:
    """Derive an app up to block `last` from the tape, into a new build or an unfinished one.

    If it tracks outputs, and its code is another one by now, what the tape lacks is fetched from `source`.
    Returns the new build's machine, or None if the listener ended it early. Raises StoreError if it has other
    consensus hashes than the live build, AppHalted, UsageError if the tape lacks something and nothing can
    fetch it, and what the source raises.
    """
    connection = deployment.connection
    if source is None or contract.tracks is None:
        require_searched(deployment.tape, contract, last)
    name = _unfinished_build(connection, live, contract, last) or _begin_build(connection, contract)
    machine = Machine(connection, contract, name, deployment.options, is_live=False)
    while machine.cursor < last:
        unsearched = gaps(deployment.tape, contract, machine.cursor)
        searched = min(last, unsearched[0][0] - 1) if unsearched else last
        if machine.cursor < searched:
            goes_on = advance_to(machine, searched, listener)
        else:
            assert source is not None, "the tape has all of it"
            goes_on = _advance_over(deployment, machine, source, last, listener)
        if not goes_on:
            return None
    difference = first_difference(connection, live.app, live.name, machine.build, with_state=False)
    if difference is not None:
        verdict = first_verdict(connection, live, machine.build, difference.block_id)
        cause = "" if verdict is None else f", first by its verdict on transaction {verdict['txid']}"
        raise StoreError(
            f"app {live.app}, derived again from the tape, has consensus hash "
            f"{difference.other_consensus_hash} at block {difference.block_id} and had "
            f"{difference.consensus_hash}{cause}: its code changed without a new version, or is not "
            "deterministic, or the log is damaged, which `virtualchain verify` shows. Its tables are "
            f"unchanged; `virtualchain upgrade {live.app}` replaces them, if the new code is meant to judge "
            "otherwise"
        )
    return machine


def _advance_over(
    deployment: Deployment, machine: Machine, source: BlockSource, last: int, listener: Listener
) -> bool:
    """Advance along a chunk of blocks up to `last` that are fetched again; return as `advance_to` does."""
    contract = machine.contract
    headers = deployment.tape.blocks(machine.cursor + 1, min(machine.cursor + CHUNK, last))
    try:
        with closing(scan_for(deployment, contract, source, headers)) as scanned_blocks:
            steps = machine.advance_over(scanned_blocks)
            return report_steps(machine, steps, last, listener, with_tallies=False)
    except (MissingData, UpstreamLacks) as error:  # it is not to be waited for
        raise MissingData(
            f"app {contract.name} must be derived again, and the tape does not have what its code of today "
            f"needs: {error}; use a node that has all blocks, or its files (--blocks)"
        ) from error


def advance_to(machine: Machine, last: int, listener: Listener, *, beside_writer: bool = False) -> bool:
    """Advance a machine along the tape up to block `last`; return False if the listener ended it early.

    With `beside_writer` it may end before `last`, as `Machine.advance` says, and what became of the inputs
    is reported; without, they were counted when the live build took them.
    """
    steps = machine.advance(last, beside_writer=beside_writer)
    return report_steps(machine, steps, last, listener, with_tallies=beside_writer)


def report_steps(
    machine: Machine, steps: Iterable[Advanced], last: int, listener: Listener, *, with_tallies: bool
) -> bool:
    """Let a machine take steps towards block `last`; return False if the listener ended it early."""
    name = machine.contract.name
    if not listener.may_continue():
        return False
    for step in steps:
        tallies = {name: step.tally} if with_tallies else {}
        listener.on_catch_up(Progress(step.block, step.inputs, last, name, tallies))
        if not listener.may_continue():
            return False
    return True


def replace_build(connection: psycopg.Connection, old: Build, rebuilt: Build | None) -> Replacement:
    """Drop a build from the log, in the caller's transaction; a live one leaves `rebuilt` place and status.

    Returns what remains to be done to views and tables, by `replace_views`.
    """
    if not old.is_live:
        return forget_builds(connection, old.app, [old])
    assert rebuilt is not None, "a live build is never dropped without a successor"
    log = AppLog(connection, old.app, old.name)
    status, error = log.status(), log.error()
    replacement = set_live(connection, rebuilt, [old])
    AppLog(connection, rebuilt.app, rebuilt.name).set_status(status, error)
    return replacement


def drop_unfinished(connection: psycopg.Connection) -> None:
    """Drop builds that were begun for a rollback that turned out not to be needed.

    One whose tables somebody reads stays until the next time.
    """
    for app in {build.app for build in builds(connection) if build.is_unfinished}:
        with suppress(psycopg.errors.LockNotAvailable), connection.transaction():
            for build in lock_builds(connection, app):
                if build.is_unfinished:
                    drop_build(connection, app, build.name)


def _unfinished_build(
    connection: psycopg.Connection, live: Build, contract: Contract, last: int
) -> str | None:
    """Return a build by the same rules and code that was begun and never used, and has not passed `last`."""
    for build in builds(connection, live.app):
        is_same = (build.fingerprint, build.code_digest) == (live.fingerprint, contract.code_digest())
        if build.is_unfinished and is_same and not build.is_above(last):
            return build.name
    return None


def _begin_build(connection: psycopg.Connection, contract: Contract) -> str:
    with connection.transaction():
        name = next_build(connection, contract.name)
        add_build(connection, contract, name)
    return name

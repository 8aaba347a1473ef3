"""Derive a build of an app from the tape: for a deep rollback, for `replay`, and for a new version.

The tables that people read stay in place meanwhile. A derivation that is interrupted is kept, and the next
one continues it.
"""

from dataclasses import dataclass

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.engine.compare import first_difference, first_verdict
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.machine import Machine
from virtualchain.engine.options import Listener, Progress
from virtualchain.errors import StoreError, UsageError
from virtualchain.store.builds import Build, add_build, builds, drop_build, live_build, make_live, next_build
from virtualchain.store.log import AppLog


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of a replay: the app's last block, and its state hash before and now."""

    block_id: int
    state_hash_before: str | None
    state_hash: str | None


def replay(deployment: Deployment, app: str, listener: Listener) -> Replayed | None:
    """Derive an app again from the tape, up to its last block, and replace its tables by the result.

    This repairs damaged tables, and shows that they follow from the tape. Returns None if the listener ended
    it early: what was derived is kept for the next time. Raises StoreError if the consensus hashes differ,
    UsageError if the app began with a checkpoint, AppHalted.
    """
    live = live_build(deployment.connection, app)
    if live is None:
        raise UsageError(f"there is no app {app} in this database")
    if live.began_with_checkpoint:
        raise UsageError(
            f"app {app} began with a checkpoint of block {live.base_block_id}: the tape does not hold what "
            "came before, so apply the checkpoint again"
        )
    contract = next(item.contract for item in deployment.machines if item.contract.name == app)
    rebuilt = derive(deployment, live, contract, live.block_id, listener)
    if rebuilt is None:
        return None
    before, now = (
        AppLog(deployment.connection, app, build).snapshot(live.block_id).state_hash
        if live.is_above(live.base_block_id)
        else None
        for build in (live.name, rebuilt.build)
    )
    deployment.be_durable()
    with deployment.connection.transaction():
        replace_build(deployment.connection, live, rebuilt)
    deployment.reload_after_rollback([rebuilt])
    return Replayed(live.block_id, before, now)


def derive(
    deployment: Deployment, live: Build, contract: Contract, last: int, listener: Listener
) -> Machine | None:
    """Derive an app up to block `last` from the tape, into a new build or an unfinished one.

    Returns the new build's machine, or None if the listener ended it early. Raises StoreError if it has other
    consensus hashes than the live build, AppHalted.
    """
    connection = deployment.connection
    name = _unfinished_build(connection, live, contract, last) or _begin_build(connection, contract)
    machine = Machine(connection, contract, name, deployment.options, is_live=False)
    if not advance_to(machine, last, listener):
        return None
    difference = first_difference(connection, live.app, live.name, machine.build, with_state=False)
    if difference is not None:
        verdict = first_verdict(connection, live, machine.build, difference.block_id)
        cause = "" if verdict is None else f", first by its verdict on transaction {verdict['txid']}"
        raise StoreError(
            f"app {live.app}, derived again from the tape, has consensus hash "
            f"{difference.other_consensus_hash} at block {difference.block_id} and had "
            f"{difference.consensus_hash}{cause}: its code changed without a new version, or is not "
            f"deterministic. Its tables are unchanged; `virtualchain upgrade {live.app}` replaces them, if "
            "the new code is meant to judge otherwise"
        )
    return machine


def advance_to(machine: Machine, last: int, listener: Listener, *, beside_writer: bool = False) -> bool:
    """Advance a machine along the tape up to block `last`; return False if the listener ended it early.

    With `beside_writer` it may end before `last`, as `Machine.advance` says, and what became of the inputs
    is reported; without, they were counted when the live build took them.
    """
    name = machine.contract.name
    if not listener.may_continue():
        return False
    for step in machine.advance(last, beside_writer=beside_writer):
        tallies = {name: step.tally} if beside_writer else {}
        listener.on_catch_up(Progress(step.block, step.inputs, last, name, tallies))
        if not listener.may_continue():
            return False
    return True


def replace_build(connection: psycopg.Connection, old: Build, rebuilt: Machine | None) -> None:
    """Drop a build, in the caller's transaction; if it is live, `rebuilt` takes its place and status."""
    if old.is_live:
        assert rebuilt is not None, "a live build is never dropped without a successor"
        old_log = AppLog(connection, old.app, old.name)
        rebuilt.log.set_status(old_log.status(), old_log.error())
        make_live(connection, old.app, rebuilt.build)
    drop_build(connection, old.app, old.name)


def drop_unfinished(connection: psycopg.Connection) -> None:
    """Drop builds that were begun for a rollback that turned out not to be needed."""
    for build in builds(connection):
        if build.is_unfinished:
            with connection.transaction():
                drop_build(connection, build.app, build.name)


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

"""Come back from a deep fork: undo blocks for all apps at once, by history or, below it, from the tape.

What happens at a deep fork is each app's policy, and the strictest among the apps that it concerns decides
for the whole deployment, before anything is undone (house.md, Deep forks).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.engine import planner
from virtualchain.engine.compare import first_difference
from virtualchain.engine.coverage import rule_of
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.machine import Machine
from virtualchain.errors import DeepFork, StoreError, UsageError
from virtualchain.model import Block
from virtualchain.store.builds import Build, add_build, builds, drop_build, make_live, next_build
from virtualchain.store.log import AppLog
from virtualchain.store.rollback import Reorg, Undone, record, undo

OnBlock = Callable[[str, Block, int, int], None]
"""Told of each block in which an app is derived anew: the app, the block, its inputs, the last block."""

_STRICTNESS: Final = ("rollback", "checkpoint", "halt")


def deep_fork(reorg: planner.Reorg) -> str:
    """Say what happened to the chain, for the operator."""
    why = {
        "work": "and the node follows one with more work",
        "invalid": "which the node calls invalid",
        "pin": "which lacks a pinned block",
    }[reorg.cause]
    new = reorg.new_tip
    theirs = f"its tip is block {new.block_id} ({new.hash})" if new else "it has no block above the fork"
    taken = "1 block was" if reorg.depth == 1 else f"{reorg.depth} blocks were"
    return (
        f"deep fork above block {reorg.fork_block_id}: {taken} taken from another branch, "
        f"up to block {reorg.old_tip.block_id} ({reorg.old_tip.hash}), {why}; {theirs}"
    )


def refuse_by_policy(connection: psycopg.Connection, reorg: planner.Reorg) -> None:
    """Raise DeepFork where an app that has taken a replaced block wants an operator to decide."""
    above = [row for row in builds(connection) if row.stands_above(reorg.fork_block_id)]
    lost = _beyond_checkpoint(above, reorg.fork_block_id, parts_below=reorg.fork_hash is None)
    if lost is not None:
        raise DeepFork(f"{deep_fork(reorg)}. Nothing was changed, because {lost}")
    concerned = [row for row in above if row.is_live]
    policy = max((row.on_deep_fork for row in concerned), key=_STRICTNESS.index, default="rollback")
    if policy == "rollback":
        return
    names = ", ".join(row.name for row in concerned if row.on_deep_fork == policy)
    what = {
        "halt": f"`virtualchain rollback {reorg.fork_block_id}` undoes them",
        "checkpoint": f"`virtualchain checkpoint apply FILE --rollback {reorg.fork_block_id}` goes on from a "
        f"checkpoint that you accept, `virtualchain rollback {reorg.fork_block_id}` undoes them",
    }[policy]
    raise DeepFork(
        f"{deep_fork(reorg)}. Nothing was changed, because on_deep_fork of {names} is {policy}: {what}, and "
        f"`virtualchain pin {reorg.old_tip.block_id} {reorg.old_tip.hash}` stays on this branch"
    )


def roll_back(
    deployment: Deployment,
    reorg: Reorg,
    may_go_on: Callable[[], bool] = lambda: True,
    on_block: OnBlock | None = None,
    *,
    replaces: str | None = None,
    replace: Callable[[], None] = lambda: None,
) -> Undone | None:
    """Undo every block above the fork for all apps and the log, in one transaction.

    An app whose history does not reach the fork is derived anew from the tape first, into a new build, which
    takes the old one's place in that transaction. None where `may_go_on` ended that early: what was derived
    is kept. The app `replaces` needs no way back, because `replace` puts something else in its place, first
    in that transaction. Raises UsageError where that needs an app which is not loaded, or goes below a
    checkpoint, AppHalted where a callback fails meanwhile, StoreError where the app comes to other hashes
    than before.
    """
    started = time.monotonic()
    fork = reorg.fork_block_id
    above = [
        row
        for row in builds(deployment.connection)
        if row.stands_above(fork) and not (row.name == replaces and (row.is_live or row.is_unfinished))
    ]
    lost = _beyond_checkpoint(above, fork)
    if lost is not None:
        raise UsageError(lost)
    too_deep = [row for row in above if row.reaches > fork]
    code = {row.name: _contract(deployment, row, fork) for row in too_deep if row.is_live}
    rebuilt = [
        _derive(deployment, row, code[row.name], fork, may_go_on, on_block) for row in too_deep if row.is_live
    ]
    if not may_go_on():
        return None
    deployment.be_durable()
    with deployment.connection.transaction():
        replace()
        for row in too_deep:
            _replace(deployment, row, rebuilt)
        undone = undo(deployment.connection, fork)
        record(deployment.connection, reorg, undone, time.monotonic() - started)
    deployment.stand_anew(rebuilt)
    return undone


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to: the app's last block, and its state hash before and now."""

    block_id: int
    state_hash_before: str | None
    state_hash: str | None


def replay(
    deployment: Deployment,
    name: str,
    may_go_on: Callable[[], bool] = lambda: True,
    on_block: OnBlock | None = None,
) -> Replayed | None:
    """Derive an app anew from the tape, up to where it stands, and put that in its tables' place.

    This mends tables that were damaged, and shows that they follow from the tape. None where `may_go_on`
    ended it early: what was derived is kept for the next time. Raises StoreError where it comes to other
    consensus hashes, UsageError where it began with a checkpoint, AppHalted.
    """
    row = next((row for row in builds(deployment.connection) if row.is_live and row.name == name), None)
    if row is None:
        raise UsageError(f"there is no app {name} in this database")
    if row.began_with_checkpoint:
        raise UsageError(
            f"app {name} began with a checkpoint of block {row.base_block_id}: the tape does not hold what "
            "came before, so apply the checkpoint again"
        )
    contract = next(item.contract for item in deployment.machines if item.contract.name == name)
    machine = _derive(deployment, row, contract, row.block_id, may_go_on, on_block)
    if not may_go_on():
        return None
    states = {
        build: AppLog(deployment.connection, name, build).snapshot(row.block_id).state_hash
        if row.stands_above(row.base_block_id)
        else None
        for build in (row.build, machine.build)
    }
    deployment.be_durable()
    with deployment.connection.transaction():
        _replace(deployment, row, [machine])
    deployment.stand_anew([machine])
    return Replayed(row.block_id, states[row.build], states[machine.build])


def tidy(deployment: Deployment) -> None:
    """Drop what was begun for a rollback that turned out not to be needed."""
    for row in builds(deployment.connection):
        if row.is_unfinished:
            with deployment.connection.transaction():
                drop_build(deployment.connection, row.name, row.build)


def _beyond_checkpoint(above: list[Build], fork: int, *, parts_below: bool = False) -> str | None:
    """Say which app cannot be brought back, because the tape does not hold what it began with.

    `parts_below`: the tape begins behind the fork, and not even the block before it is on both chains.
    """
    for row in above:
        lowest = fork - 1 if parts_below and row.shares_base else fork
        if row.is_live and row.began_with_checkpoint and row.reaches > lowest:
            return (
                f"app {row.name} began with a checkpoint of block {row.base_block_id} and can be brought "
                f"back to block {row.reaches} at the lowest, not to block {lowest}: `virtualchain checkpoint "
                f"apply FILE --rollback {fork}` goes on from another checkpoint of it"
            )
    return None


def _contract(deployment: Deployment, row: Build, fork: int) -> Contract:
    """Give the code of an app that must be derived anew."""
    contract = next(
        (
            machine.contract
            for machine in deployment.machines
            if (machine.contract.name, machine.build) == (row.name, row.build)
        ),
        None,
    )
    if contract is None:
        raise UsageError(
            f"the history of app {row.name} begins at block {row.history_from}: to bring it back to block "
            f"{fork}, it must be derived anew by its own code: name it with --app"
        )
    return contract


def _derive(
    deployment: Deployment,
    row: Build,
    contract: Contract,
    last: int,
    may_go_on: Callable[[], bool],
    on_block: OnBlock | None,
) -> Machine:
    """Derive an app up to a block from the tape, into a new build, or go on where that was broken off."""
    machine = deployment.machine(contract, _unfinished(deployment, row, contract, last))
    for block, inputs, _ in deployment.advance(machine, last):
        if on_block is not None:
            on_block(row.name, block, inputs, last)
        if not may_go_on():
            return machine
    found = first_difference(deployment.connection, row.name, row.build, machine.build, with_state=False)
    if found is not None:
        raise StoreError(
            f"app {row.name}, derived anew from the tape, has consensus hash {found.other_consensus_hash} at "
            f"block {found.block_id} and had {found.consensus_hash}: its code changed without a new version, "
            "or leaves something to chance. Its tables are as they were"
        )
    return machine


def _unfinished(deployment: Deployment, row: Build, contract: Contract, fork: int) -> str:
    """Give a build that was begun and not yet used, or begin one."""
    for other in builds(deployment.connection):
        is_such = other.is_unfinished and (other.name, other.fingerprint) == (row.name, row.fingerprint)
        if is_such and not other.stands_above(fork):
            return other.build
    with deployment.connection.transaction():
        build = next_build(deployment.connection, row.name)
        add_build(deployment.connection, contract, rule_of(contract), build)
    return build


def _replace(deployment: Deployment, row: Build, rebuilt: Sequence[Machine]) -> None:
    """Drop a build whose history does not reach; what was derived anew takes a live one's place."""
    for machine in (item for item in rebuilt if row.is_live and item.log.app == row.name):
        old = AppLog(deployment.connection, row.name, row.build)
        machine.log.set_status(old.status(), old.error())
        make_live(deployment.connection, row.name, machine.build)
    drop_build(deployment.connection, row.name, row.build)

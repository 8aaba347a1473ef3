"""Come back from a deep fork: undo blocks for all apps at once, by history or, below it, from the tape.

What happens at a deep fork is each app's policy, and the strictest among the apps that it concerns decides
for the whole deployment, before anything is undone (house.md, Deep forks).
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from virtualchain import chain
from virtualchain.contract import Contract
from virtualchain.coverage import rule_of
from virtualchain.deployment import Deployment
from virtualchain.errors import DeepFork, StoreError, UsageError
from virtualchain.machine import Machine
from virtualchain.model import Block
from virtualchain.store.builds import Build, add_build, builds, drop_build, make_live, next_build
from virtualchain.store.log import AppLog
from virtualchain.store.rollback import Reorg, Undone, record, undo

OnBlock = Callable[[str, Block, int, int], None]
"""Told of each block in which an app is derived anew: the app, the block, its inputs, the last block."""

_STRICTNESS: Final = ("rollback", "checkpoint", "halt")


def deep_fork(reorg: chain.Reorg) -> str:
    """Say what happened to the chain, for the operator."""
    why = {
        "work": "and the node follows one with more work",
        "invalid": "which the node calls invalid",
        "pin": "which lacks a pinned block",
    }[reorg.cause]
    new = reorg.new_tip
    theirs = f"its tip is block {new.block_id} ({new.hash})" if new else "it has no block above the fork"
    return (
        f"deep fork above block {reorg.fork_block_id}: {reorg.depth} blocks were taken from another branch, "
        f"up to block {reorg.old_tip.block_id} ({reorg.old_tip.hash}), {why}; {theirs}"
    )


def refuse_by_policy(deployment: Deployment, reorg: chain.Reorg) -> None:
    """Raise DeepFork where an app that has taken a replaced block wants an operator to decide."""
    above = [row for row in builds(deployment.connection) if row.stands_above(reorg.fork_block_id)]
    lost = _beyond_checkpoint(above, reorg.fork_block_id)
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
    above = [row for row in builds(deployment.connection) if row.stands_above(fork) and row.name != replaces]
    lost = _beyond_checkpoint(above, fork)
    if lost is not None:
        raise UsageError(lost)
    too_deep = [row for row in above if row.reaches > fork]
    code = {row.name: _contract(deployment, row, fork) for row in too_deep if row.is_live}
    rebuilt = [
        _rebuild(deployment, row, code[row.name], fork, may_go_on, on_block)
        for row in too_deep
        if row.is_live
    ]
    if not may_go_on():
        return None
    deployment.be_durable()
    with deployment.connection.transaction():
        replace()
        for row in too_deep:
            _replace(
                deployment,
                row,
                [machine for machine in rebuilt if row.is_live and machine.log.app == row.name],
            )
        undone = undo(deployment.connection, fork)
        record(deployment.connection, reorg, undone, time.monotonic() - started)
    deployment.stand_anew(rebuilt)
    return undone


def tidy(deployment: Deployment) -> None:
    """Drop what was begun for a rollback that turned out not to be needed."""
    for row in builds(deployment.connection):
        if row.is_unfinished:
            with deployment.connection.transaction():
                drop_build(deployment.connection, row.name, row.build)


def _beyond_checkpoint(above: list[Build], fork: int) -> str | None:
    """Say which app cannot be brought back, because the tape does not hold what it began with."""
    for row in above:
        if row.is_live and row.began_with_checkpoint and row.reaches > fork:
            return (
                f"app {row.name} began with a checkpoint of block {row.base_block_id} and can be brought back "
                f"to block {row.reaches} at the lowest, not to block {fork}: `virtualchain checkpoint apply "
                f"FILE --rollback {fork}` goes on from another checkpoint of it"
            )
    return None


def _contract(deployment: Deployment, row: Build, fork: int) -> Contract:
    """Give the code of an app that must be derived anew."""
    contract = next(
        (machine.contract for machine in deployment.machines if machine.contract.name == row.name), None
    )
    if contract is None:
        raise UsageError(
            f"the history of app {row.name} begins at block {row.history_from}: to bring it back to block "
            f"{fork}, it must be derived anew by its own code: name it with --app"
        )
    return contract


def _rebuild(
    deployment: Deployment,
    row: Build,
    contract: Contract,
    fork: int,
    may_go_on: Callable[[], bool],
    on_block: OnBlock | None,
) -> Machine:
    """Derive an app up to the fork from the tape, into a new build, or go on where that was broken off."""
    machine = deployment.machine(contract, _unfinished(deployment, row, contract, fork))
    for block, inputs, _ in deployment.advance(machine, fork):
        if on_block is not None:
            on_block(row.name, block, inputs, fork)
        if not may_go_on():
            return machine
    before, after = (
        AppLog(deployment.connection, row.name, build).consensus_at([fork]).get(fork)
        for build in (row.build, machine.build)
    )
    if before != after:
        raise StoreError(
            f"app {row.name}, derived anew from the tape, has consensus hash {after} at block {fork} and had "
            f"{before}: its code changed without a new version, or leaves something to chance. "
            "Nothing was undone"
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

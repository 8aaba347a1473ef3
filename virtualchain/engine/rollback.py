"""Undo blocks for all apps at once: by history, or below what history keeps, by deriving builds again.

Each app has a policy for deep forks. The strictest one among the apps that a fork affects decides for the
whole deployment, before anything is undone (docs/architecture.md, The life of a fork).
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.bitcoin.source import BlockSource
from virtualchain.engine.coverage import gaps
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.machine import Machine
from virtualchain.engine.options import QUIET, Listener
from virtualchain.engine.rebuild import derive, replace_build
from virtualchain.errors import BuildChanged, DeepFork, InUse, UsageError
from virtualchain.model import Reorg
from virtualchain.store.builds import Build, Replacement, builds, find_build, lock_builds, replace_views
from virtualchain.store.giving_way import give_way
from virtualchain.store.patience import clock_of
from virtualchain.store.rollback import NOTHING, Counts, Undone, count_replaced, record, undo
from virtualchain.store.tape import Tape

_STRICTNESS: Final = ("rollback", "checkpoint", "halt")


def describe_fork(reorg: Reorg) -> str:
    """Describe for the operator what happened to the chain."""
    why = {
        "work": "and the node follows one with more work",
        "invalid": "which the node calls invalid",
        "pin": "which does not have a pinned block",
        "operator": "which an operator undoes",
    }[reorg.cause]
    new = reorg.new_tip
    theirs = f"its tip is block {new.block_id} ({new.hash})" if new else "it has no block above the fork"
    taken = "1 block was" if reorg.depth == 1 else f"{reorg.depth} blocks were"
    return (
        f"deep fork above block {reorg.fork_block_id}: {taken} taken from another branch, "
        f"up to block {reorg.old_tip.block_id} ({reorg.old_tip.hash}), {why}; {theirs}"
    )


def operators_reorg(tape: Tape, fork_block_id: int) -> Reorg:
    """Return the reorg that undoes every block above one, as an operator asks for it.

    Raises UsageError if the tape has no block above it.
    """
    tip = tape.tip()
    if tip is None or fork_block_id >= tip.block_id:
        ends = "is empty" if tip is None else f"ends with block {tip.block_id}"
        raise UsageError(f"there is nothing above block {fork_block_id} to undo: the tape {ends}")
    fork = tape.block(fork_block_id)
    return Reorg(fork_block_id, None if fork is None else fork.hash, tip, None, "operator")


def refuse_by_policy(connection: psycopg.Connection, reorg: Reorg, deepest: int | None = None) -> None:
    """Raise DeepFork if an operator must decide: for an app that took a replaced block, or as it is too deep.

    `deepest` is how many blocks may be undone without an operator; None: any number.
    """
    above = [build for build in builds(connection) if build.is_above(reorg.fork_block_id)]
    beyond = _beyond_checkpoint(above, reorg.fork_block_id, parts_below=reorg.fork_hash is None)
    if beyond is not None:
        raise DeepFork(f"{describe_fork(reorg)}. Nothing was changed, because {beyond}")
    affected = [build for build in above if build.is_live]
    policy = max((build.on_deep_fork for build in affected), key=_STRICTNESS.index, default="rollback")
    is_too_deep = deepest is not None and reorg.depth > deepest
    if policy == "rollback" and not is_too_deep:
        return
    names = ", ".join(build.app for build in affected if build.on_deep_fork == policy)
    why = f"on_deep_fork of {names} is {policy}"
    if policy == "rollback":
        why, policy = f"--deepest-rollback is {deepest}", "halt"
    fork = reorg.fork_block_id
    choices = {
        "halt": f"`virtualchain rollback {fork}` undoes them",
        "checkpoint": f"`virtualchain checkpoint apply FILE --rollback {fork}` continues from a checkpoint "
        f"that you accept, `virtualchain rollback {fork}` undoes them",
    }[policy]
    raise DeepFork(
        f"{describe_fork(reorg)}. Nothing was changed, because {why}: "
        f"{choices}, and `virtualchain pin {reorg.old_tip.block_id} {reorg.old_tip.hash}` stays on this "
        "branch"
    )


def refuse_without_code(connection: psycopg.Connection, reorg: Reorg, apps: Collection[str]) -> None:
    """Raise DeepFork if an app must be derived again, and its code is not among that of `apps`."""
    for build in builds(connection):
        if build.is_live and _is_too_deep(build, reorg.fork_block_id) and build.app not in apps:
            needs = _needs_code(build, reorg.fork_block_id)
            raise DeepFork(
                f"{describe_fork(reorg)}. Nothing was changed, because {needs}, or remove the app with "
                f"`virtualchain remove {build.app}`"
            )


def refuse_below_pruned(deployment: Deployment, reorg: Reorg) -> None:
    """Raise DeepFork if an app must be derived again, and the tape does not have what that needs."""
    until = deployment.tape.pruned_until()
    if until is None:
        return
    for build in builds(deployment.connection):
        if not build.is_live or not _is_too_deep(build, reorg.fork_block_id):
            continue
        unsearched = gaps(deployment.tape, _contract(deployment, build, reorg.fork_block_id))
        if unsearched and unsearched[0][0] <= reorg.fork_block_id:
            raise DeepFork(
                f"{describe_fork(reorg)}. Nothing was changed, because the history of app {build.app} begins "
                f"at block {build.history_from}, and it cannot be derived again, as inputs of blocks below "
                f"{until + 1} were pruned: `virtualchain upgrade {build.app}` searches the node's blocks for "
                f"them, and `virtualchain checkpoint apply FILE --rollback {reorg.fork_block_id}` continues "
                "from a checkpoint of it"
            )


def _is_too_deep(build: Build, fork: int) -> bool:
    """Return whether a build has taken blocks above the fork, and its history does not reach down to it."""
    return build.is_above(fork) and build.lowest_rollback > fork


def _needs_code(build: Build, fork: int) -> str:
    return (
        f"the history of app {build.app} begins at block {build.history_from}: to roll it back to block "
        f"{fork}, it must be derived again by its own code: name it with --app"
    )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A rollback that can be applied in one transaction."""

    reorg: Reorg
    too_deep: Sequence[Build]
    """Builds whose history does not reach the fork: they are dropped."""
    rebuilt: Sequence[Machine]
    """Builds that were derived again up to the fork, to replace those that are live."""
    started: float
    replaces: str | None


def roll_back(
    deployment: Deployment,
    reorg: Reorg,
    listener: Listener = QUIET,
    still_holds: Callable[[], bool] = lambda: True,
    source: BlockSource | None = None,
) -> Undone | None:
    """Undo every block above the fork for all apps and the log, in one transaction.

    If another process swaps or drops builds meanwhile, it prepares again. Returns None if the listener ended
    it early, or `still_holds`, which is asked in that transaction, returns False: then nothing is undone, and
    what was derived is kept. Raises what `prepare` raises, and InUse if readers do not let go of views.
    """
    while True:
        try:
            prepared = prepare(deployment, reorg, listener, source)
            if prepared is None:
                return None
            deployment.be_durable()
            with deployment.connection.transaction():
                if not still_holds():
                    return None
                undone = apply(deployment.connection, prepared, listener)
        except BuildChanged:
            continue
        except InUse:
            if listener.may_continue():
                raise
            return None
        deployment.notifier.rollback(reorg.fork_block_id)
        deployment.reload_after_rollback(prepared.rebuilt)
        return undone


def prepare(
    deployment: Deployment,
    reorg: Reorg,
    listener: Listener,
    source: BlockSource | None = None,
    *,
    replaces: str | None = None,
) -> Prepared | None:
    """Derive again, up to the fork, each app whose history does not reach it; nothing is undone yet.

    Blocks that were not searched for what an app's code of today needs are fetched from `source`; without one
    this raises UsageError. The app `replaces` needs no way back, because its caller replaces it in the same
    transaction. Returns None if the listener ended the work early. Raises UsageError if that needs an app
    that is not loaded, or the fork is below a checkpoint, AppHalted if a callback fails meanwhile,
    BuildChanged if another process drops what is derived, StoreError if an app arrives at other hashes than
    before, and what the source raises.
    """
    started = time.monotonic()
    fork = reorg.fork_block_id
    too_deep = _too_deep(builds(deployment.connection), fork, replaces)
    live = [build for build in too_deep if build.is_live]
    contracts = [_contract(deployment, build, fork) for build in live]  # all, before the first is derived
    rebuilt: list[Machine] = []
    for build, contract in zip(live, contracts, strict=True):
        machine = derive(deployment, build, contract, fork, listener, source)
        if machine is None:
            return None
        rebuilt.append(machine)
    prepared = Prepared(reorg, too_deep, rebuilt, started, replaces)
    return prepared if listener.may_continue() else None


def apply(
    connection: psycopg.Connection,
    prepared: Prepared,
    listener: Listener,
    replaced: Sequence[Replacement] = (),
    replaced_rows: Counts = NOTHING,
) -> Undone:
    """Undo the blocks, in the caller's transaction.

    `replaced` are builds that the caller has replaced by others in the same transaction, and `replaced_rows`
    what that undid. After the commit the caller must call `Deployment.reload_after_rollback`. Raises
    BuildChanged if another process has swapped or dropped a build since `prepare`, InUse if readers do not
    let go of views.
    """
    fork = prepared.reorg.fork_block_id
    current = lock_builds(connection)
    names = [(build.app, build.name, build.is_live) for build in prepared.too_deep]
    if names != [(b.app, b.name, b.is_live) for b in _too_deep(current, fork, prepared.replaces)]:
        raise BuildChanged("another process swapped or dropped a build meanwhile: nothing was undone")
    successors: dict[str, Build] = {}
    for machine in prepared.rebuilt:
        row = find_build(connection, machine.contract.name, machine.build)
        if row is None or row.is_live or not row.is_unfinished:
            raise BuildChanged(f"build {machine.build} of app {machine.contract.name} was swapped or dropped")
        successors[row.app] = row
    counts, replacements = replaced_rows, list(replaced)
    for build in prepared.too_deep:
        successor = successors.get(build.app) if build.is_live else None
        if successor is not None:
            counts += count_replaced(connection, build, successor, fork)
        replacements.append(replace_build(connection, build, successor))
    undone = undo(connection, fork, counts)
    if replacements:
        with clock_of(connection).waiting("readers"):
            give_way(
                connection,
                sorted({item.app for item in replacements}),
                lambda: replace_views(connection, replacements),
                listener.on_wait,
                listener.may_continue,
            )
    record(connection, prepared.reorg, undone, time.monotonic() - prepared.started)
    return undone


def _too_deep(current: Sequence[Build], fork: int, replaces: str | None) -> list[Build]:
    """Return the builds whose history does not reach the fork, except those that the caller replaces.

    Raises UsageError if one that is live cannot be derived again.
    """
    above = [
        build
        for build in current
        if build.is_above(fork) and not (build.app == replaces and (build.is_live or build.is_unfinished))
    ]
    beyond = _beyond_checkpoint(above, fork)
    if beyond is not None:
        raise UsageError(beyond)
    return [build for build in above if build.lowest_rollback > fork]


def _beyond_checkpoint(above: Sequence[Build], fork: int, *, parts_below: bool = False) -> str | None:
    """Name an app that cannot be rolled back, because the tape does not hold what it began with.

    `parts_below`: the tape begins after the fork, and not even the block before it is on both chains.
    """
    for build in above:
        target = fork - 1 if parts_below and build.shares_base else fork
        if build.is_live and build.began_with_checkpoint and build.lowest_rollback > target:
            return (
                f"app {build.app} began with a checkpoint of block {build.base_block_id} and can be rolled "
                f"back to block {build.lowest_rollback} at the lowest, not to block {target}: "
                f"`virtualchain checkpoint apply FILE --rollback {fork}` continues from another checkpoint "
                "of it"
            )
    return None


def _contract(deployment: Deployment, build: Build, fork: int) -> Contract:
    """Return the code of an app that must be derived again."""
    for machine in deployment.apps.machines:
        if (machine.contract.name, machine.build) == (build.app, build.name):
            return machine.contract
    raise UsageError(_needs_code(build, fork))

"""`StateEngine`: follow a chain and keep apps' states in PostgreSQL.

It asks the source what there is, lets the planner say what to do, and hands the blocks to the
deployment. It holds no state of its own: whatever fails, it starts again from what the database says.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self, get_args

import psycopg

from virtualchain.app.contract import read_contract
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.prefetch import prefetch
from virtualchain.bitcoin.source import BlockSource
from virtualchain.engine import backfill as joining
from virtualchain.engine import planner
from virtualchain.engine import rollback as recovery
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.look import held_tip, make_plan
from virtualchain.engine.machine import Machine
from virtualchain.engine.options import check, policies
from virtualchain.errors import (
    AppHalted,
    MissingData,
    NodeError,
    NodeUnavailable,
    StoreError,
    UsageError,
)
from virtualchain.model import Block, Json
from virtualchain.settings import HISTORY, Policy, Verification
from virtualchain.store.database import resolve
from virtualchain.store.failures import is_passing
from virtualchain.store.migrate import migrate
from virtualchain.store.rollback import Reorg as Rollback
from virtualchain.store.rollback import Undone
from virtualchain.store.state_files import default_folder

NEAR_TIP = 10
"""Blocks below the stable tip from which on commits wait for the disk and listeners are told."""
_STRETCH = 500
"""Blocks that an app which is behind is advanced by while others have new blocks to take."""
POLL = 3.0
"""Seconds between two looks at the node."""
_GARBLED = 3
"""Senseless answers of the node in a row that a follower gets over."""
_PATIENCE = (0.2, 1.0, 3.0, 10.0, 30.0)
"""Seconds before each further attempt after a passing fault of the database."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Told after each block: which it was, what it held, and where the stable tip is.

    Of an app that catches up along the tape: its name, and the tape's tip in place of the stable one.
    """

    block: Block
    inputs: int
    stable_tip: int
    app: str | None = None


class StateEngine:
    """Runs apps on a chain.

    ::

        with StateEngine(app, source="http://user:password@127.0.0.1:8332") as engine:
            engine.build()

    `apps` are implementations (`App` objects, modules, classes); without any, the engine itself is one: a
    subclass that has the callbacks. `database` is a PostgreSQL URL; None means the embedded server.
    `source` is a node's URL or a BlockSource. A block is taken once `confirmations` blocks stand on it.
    `verify="merkle"` compares each block's transactions with its Merkle root before anything of it is taken.
    `on_block` is told of each block behind its transaction, `on_catch_up` of each that an app behind
    the others takes from the tape, `on_wait` what is about to be waited for.
    Apps with a state of their own have it saved to `state_folder` (default: the user's data folder).
    `history` is for how many blocks every app can be brought back by what is kept (None: all); below that
    it is derived anew from the tape. `on_deep_fork` says what happens where taken blocks are replaced:
    rollback, checkpoint or halt, for all apps or by app; an app that it does not name keeps its policy,
    rollback at first. `on_rollback` is told of each rollback, behind it.

    Raises UsageError for what cannot be run so, StoreError, NodeError.
    """

    def __init__(
        self,
        *apps: object,
        database: str | None = None,
        source: BlockSource | str,
        confirmations: int = 6,
        verify: Verification | None = None,
        wait_for_writer: bool = False,
        on_block: Callable[[Progress], None] | None = None,
        on_catch_up: Callable[[Progress], None] | None = None,
        on_wait: Callable[[str], None] | None = None,
        on_rollback: Callable[[planner.Reorg, Undone], None] | None = None,
        state_folder: Path | None = None,
        history: int | None = HISTORY,
        on_deep_fork: Policy | Mapping[str, Policy] | None = None,
    ) -> None:
        self._contracts = [read_contract(app) for app in apps or (self,)]
        self._confirmations = confirmations
        if verify not in {None, *get_args(Verification)}:
            raise UsageError(f"verify={verify!r}: choose {' or '.join(get_args(Verification))}")
        self._verify = verify is not None
        check(self._contracts, confirmations)
        self._wait_for_writer = wait_for_writer
        self._on_block = on_block
        self._on_catch_up = on_catch_up
        self._on_wait = on_wait
        self._on_rollback = on_rollback
        self._history = history
        self._on_deep_fork = policies(self._contracts, on_deep_fork)
        self._stopping = False  # plain, because a signal handler sets it: an Event's lock may be held then
        self._tidied = False
        self._waits_for: str | None = None
        self._url = resolve(database)
        self._state_folder = state_folder or default_folder(self._url)
        migrate(self._url)
        self._source = open_source(source) if isinstance(source, str) else source
        try:
            self._deployment = self._open()
        except BaseException:
            self._source.close()
            raise
        self._scanner = Scanner(self._deployment.watches, self._source.network)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database and the node."""
        self._deployment.close()
        self._source.close()

    def stop(self) -> None:
        """End `build` or `follow` behind the block at hand; for signal handlers and other threads."""
        self._stopping = True
        self._source.wake()

    def build(self, to: int | None = None) -> int:
        """Process blocks up to `to`, or to the stable tip; give the last block processed.

        Where no block was processed ever, that is the one before the first. Where the node has left our
        branch, what was taken of it is undone first. Raises DeepFork where an app's policy forbids that,
        AppHalted where no app is left that can go on, StoreError, NodeError.
        """
        failures = 0
        while True:
            try:
                while not self._stopping and self._advance(to):
                    failures = 0
                self._deployment.settle()
                return self._last_block()
            except psycopg.Error as error:
                told = f"the database failed: {' '.join(str(error).split())}"
                if not is_passing(error) or failures == len(_PATIENCE):
                    raise StoreError(told) from error
                if self._on_wait is not None:
                    self._on_wait(f"{told}; trying again")
                self._reopen(_PATIENCE[failures:])
                failures += 1

    def follow(self) -> None:
        """Build, wait for new blocks, and build again, until `stop`.

        A node that is away is waited for. One whose answers make no sense is asked a few times more: what
        stands between may garble one. Raises what `build` raises, but for that.
        """
        garbled = 0
        while not self._stopping:
            try:
                self.build()
                garbled = 0
            except NodeUnavailable as error:
                self._waits_for = str(error)
            except NodeError as error:
                self._waits_for = str(error)
                garbled += 1
                if garbled > _GARBLED:
                    raise
            if not self._deployment.running:
                return
            if not self._stopping:
                if self._on_wait is not None and self._waits_for is not None:
                    self._on_wait(self._waits_for)
                self._source.wait(POLL)

    @property
    def waits_for(self) -> str | None:
        """What the engine waits for; None while it has blocks to process."""
        return self._waits_for

    def halted(self) -> dict[str, AppHalted]:
        """Give what happened to each app that is halted, by its name."""
        return {
            machine.contract.name: _halted(machine.contract.name, record)
            for machine in self._deployment.machines
            if machine not in self._deployment.running and (record := machine.log.error()) is not None
        }

    def get_consensus_at(self, block_id: int, app: str | None = None) -> str | None:
        """Give an app's consensus hash (32 hex digits) at a block; None where it has none there."""
        return self._machine(app).log.consensus_at([block_id]).get(block_id)

    def get_valid_consensus_hashes(self, block_id: int, app: str | None = None) -> list[str]:
        """Give the hashes that are fresh at a block: those of the last S blocks and its own, oldest first."""
        machine = self._machine(app)
        return machine.log.consensus_between(block_id - machine.contract.window, block_id)

    def is_consensus_hash_valid(self, block_id: int, consensus_hash: str, app: str | None = None) -> bool:
        """Tell whether a hash is fresh at a block."""
        return consensus_hash in self.get_valid_consensus_hashes(block_id, app)

    def get_current_block(self, app: str | None = None) -> int:
        """Give the last block that an app was advanced to, or the one before its first."""
        return self._machine(app).cursor

    def _machine(self, app: str | None) -> Machine:
        found = [item for item in self._deployment.machines if app in {None, item.contract.name}]
        if len(found) == 1:
            return found[0]
        names = ", ".join(item.contract.name for item in self._deployment.machines)
        raise UsageError(
            f"name one app of {names}" if app is None else f"there is no app {app} among {names}"
        )

    def _open(self) -> Deployment:
        try:
            deployment = Deployment(
                self._url,
                self._contracts,
                self._source.network,
                state_folder=self._state_folder,
                wait=self._wait_for_writer,
                history=self._history,
                on_deep_fork=self._on_deep_fork,
            )
            with ExitStack() as opened:
                opened.callback(deployment.close)
                deployment.search()
                opened.pop_all()
        except psycopg.Error as error:
            raise StoreError(f"the database failed: {' '.join(str(error).split())}") from error
        return deployment

    def _reopen(self, pauses: Sequence[float]) -> None:
        """Get a new session after a passing fault: all that was under way is forgotten."""
        self._deployment.close()
        for place, pause in enumerate(pauses):
            self._source.wait(pause)
            try:
                self._deployment = self._open()
            except StoreError:  # WriterBusy, too: the server may not know yet that our old session has ended
                if place == len(pauses) - 1:
                    raise
            else:
                return

    def _last_block(self) -> int:
        tip = held_tip(self._deployment.tape)
        return self._deployment.first_block_id() - 1 if tip is None else tip.block_id

    def _advance(self, to: int | None) -> bool:
        """Take the next stretch of blocks, and bring apps that are behind nearer; tell whether any moved."""
        for name in self._deployment.part_with_swapped():
            if self._on_wait is not None:
                self._on_wait(f"app {name} shows another build now: start again with the code of that one")
        moved = bool(self._deployment.running) and self._extend(to)
        moved = self._catch_up(most=_STRETCH if moved else None) or moved
        if not self._deployment.running:
            self._raise_halted()
            return False
        return moved

    def _extend(self, to: int | None) -> bool:
        deployment = self._deployment
        node_tip = self._source.tip().block_id
        plan = make_plan(
            deployment.tape,
            self._source,
            first_block_id=deployment.first_block_id(),
            node_tip=node_tip,
            confirmations=self._confirmations,
        )
        match plan:
            case planner.Wait(reason=reason):
                self._waits_for = reason
                return False
            case planner.Reorg():
                self._roll_back(plan)
                return True
            case planner.Extend(blocks=blocks):
                self._waits_for = None
                if not self._tidied:
                    recovery.tidy(deployment)
                    self._tidied = True
                wanted = [block for block in blocks if to is None or block.block_id <= to]
                self._take(wanted, node_tip - self._confirmations)
                return bool(wanted)

    def _catch_up(self, most: int | None) -> bool:
        """Let the apps that are behind search what was not searched for them, or advance along the tape."""
        moved = False
        for machine in self._deployment.behind():
            if self._stopping:
                return moved
            try:
                searched = joining.search_on(self._deployment, self._source, machine.contract)
            except MissingData as error:
                self._deployment.halt(machine, joining.lacks_blocks(machine, error))
                continue
            if searched is not None:
                moved = True
                if self._on_wait is not None:
                    self._on_wait(joining.told(machine, *searched))
        before = {machine: machine.cursor for machine in self._deployment.behind()}
        self._deployment.catch_up(lambda: not self._stopping, self._caught_up, most)
        return moved or any(machine.cursor != cursor for machine, cursor in before.items())

    def _roll_back(self, reorg: planner.Reorg) -> None:
        """Undo what the node's chain does not hold, then plan again."""
        self._tidied = False
        recovery.refuse_by_policy(self._deployment.connection, reorg)
        new = reorg.new_tip
        wanted = Rollback(
            reorg.fork_block_id,
            (reorg.old_tip.block_id, reorg.old_tip.hash),
            None if new is None else (new.block_id, new.hash),
            reorg.cause,
        )
        undone = recovery.roll_back(self._deployment, wanted, lambda: not self._stopping, self._caught_up)
        if undone is not None and self._on_rollback is not None:
            self._on_rollback(reorg, undone)

    def _caught_up(self, app: str, block: Block, inputs: int, tip: int) -> None:
        if self._on_catch_up is not None:
            self._on_catch_up(Progress(block, inputs, tip, app))

    def _take(self, blocks: Sequence[Block], stable_tip: int) -> None:
        with closing(prefetch(self._source, self._scanner, blocks, verify=self._verify)) as scanned_blocks:
            for scanned in scanned_blocks:
                near_tip = scanned.block.block_id > stable_tip - NEAR_TIP
                self._deployment.take(scanned, near_tip=near_tip)
                if self._on_block is not None:
                    self._on_block(Progress(scanned.block, len(scanned.inputs), stable_tip))
                if self._stopping or not self._deployment.running:
                    return

    def _raise_halted(self) -> None:
        for halted in self.halted().values():
            raise halted


def _halted(name: str, record: Json) -> AppHalted:
    error = record["error"].splitlines()[0]
    return AppHalted(
        f"app {name} is halted before block {record['block_id']}: {record['callback']} failed "
        f"with {error}; mend it, then say `virtualchain resume {name}`",
        record,
    )

"""A node, a database and an engine, and the actions on them that a simulation consists of."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import psycopg

from tests.simulation.apps import APPS, make_apps, random_payloads
from tests.simulation.compare import differences
from tests.simulation.faults import allowed, strike
from tests.simulation.jobs import Job, perform, perform_and_kill
from tests.simulation.others import Reader, begin, checkpoint, end
from tests.simulation.steps import MONITOR, Trap
from tests.support.rides import coin, spending
from virtualchain import StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.checkpoint.apply import apply
from virtualchain.engine.options import Options
from virtualchain.engine.versions import drop, remove
from virtualchain.errors import (
    AppHalted,
    DeepFork,
    InUse,
    InvalidCheckpoint,
    UsageError,
    VirtualchainError,
)
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer
from virtualchain.testing.tree import StoredBlock
from virtualchain.testing.wire import read_transaction

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

HEAVY = 0x200FFFFF
"""Bits for eight times the work of regtest's."""


class Differs(AssertionError):
    """The engine's result differs from a fresh index."""


@dataclass(frozen=True)
class Setup:
    """Settings of the engine and the node of a simulation."""

    history: int | None = 10
    confirmations: int = 0
    rest: bool = True
    spent: bool = True
    apps: tuple[str, ...] = APPS
    """All apps that are present in the end."""
    joining: tuple[str, ...] = ()
    """Those that are not present at first."""

    @classmethod
    def draw(cls, dice: Random) -> "Setup":
        """Draw settings at random."""
        apps = dice.choice(
            (APPS, APPS, ("plain", "tally"), ("plain", "early", "riding"), ("late", "tally", "plain"))
        )
        joining = tuple(name for name in apps if name in {"early", "late", "tally"} and dice.random() < 0.4)
        return cls(
            history=dice.choice((10, 10, 10, 1000, 1000, None)),
            confirmations=dice.choice((0, 0, 0, 1, 3)),
            rest=dice.random() < 0.7,
            spent=dice.random() < 0.8,
            apps=apps,
            joining=joining,
        )


@dataclass
class World:
    """One simulation. `restart` restarts the database server, if the simulation has its own."""

    server: DatabaseServer
    folder: Path
    setup: Setup
    log: Callable[[str], None] = lambda line: None
    restart: Callable[[str], None] | None = None
    struck: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each fault struck at each step."""
    missed: int = 0
    """Faults whose step was not reached."""

    def __post_init__(self) -> None:
        self.node = FakeNode(rest=self.setup.rest, spent_outputs=self.setup.spent)
        self.url = self.server.clone()
        self.engine: StateEngine | None = None
        self.policies: Mapping[str, Any] = {}
        self._work: dict[str, int] = {}
        self.present = tuple(name for name in self.setup.apps if name not in self.setup.joining)
        self.has_joined = False
        self._errors: tuple[type[Exception], ...] = ()
        self._others: list[BaseProcess] = []
        self._readers: list[Reader] = []
        self.from_checkpoint: set[str] = set()
        """Apps that began with a checkpoint, and cannot be rolled back below it."""

    def close(self) -> None:
        """Close engine and node, and drop the database."""
        self.restart_engine()
        for reader in self._readers:
            reader.close()
        self.node.close()
        self.server.drop(self.url)

    # The chain

    def mine(self, blocks: int, seed: int, *, heavy: bool = False) -> None:
        """Mine blocks of random ops."""
        dice = Random(seed)
        with self.node._lock:
            for _ in range(blocks):
                self._mine_one(dice, heavy=heavy)
        self._remember_work()

    def mine_empty(self, blocks: int) -> None:
        """Mine blocks without ops."""
        self.node.mine(n=blocks)
        self._remember_work()

    def fork(self, depth: int, blocks: int, seed: int, *, heavy: bool = False) -> None:
        """Replace blocks by others; if these have less work, let the node forget the old ones."""
        dice = Random(seed)
        tree = self.node.chain.tree
        with self.node._lock:
            tree.show_hidden()
            depth = max(1, min(depth, self.node.height - 102))
            old, first = tree.tip, tree.chain[-depth]
            tree.activate(tree.chain[-depth - 1])
            for _ in range(blocks):
                self._mine_one(dice, heavy=heavy)
            if tree.tip.chainwork < old.chainwork:
                self._remember_work(old)
                tree.forget(first)
        self._remember_work()

    def return_to_branch(self, index: int, seed: int) -> None:
        """Return to a branch that the node left, and extend it until it has the most work."""
        dice = Random(seed)
        tree = self.node.chain.tree
        with self.node._lock:
            tree.show_hidden()
            others = [tip.stored for tip in tree.tips() if tip.status == "valid-fork"]
            if not others:
                return
            old = tree.tip
            tree.activate(others[index % len(others)])
            while tree.tip.chainwork <= old.chainwork:
                self._mine_one(dice, heavy=old.chainwork - tree.tip.chainwork > 60)
        self._remember_work()

    def invalidate(self, depth: int) -> None:
        """Mark the last blocks as invalid, without a replacement."""
        if self.node.height > 103:
            self.node.invalidate(max(103, self.node.height - depth + 1))

    def lag(self, depth: int) -> None:
        """Let the node fall behind."""
        self.node.fall_behind(max(1, min(depth, self.node.height - 102)))

    def catch_up(self) -> None:
        """Let the node have all its blocks again."""
        with self.node._lock:
            self.node.catch_up()

    def disturb_node(self, fault: str, seed: int) -> None:
        """Let a fault of the node happen."""
        dice = Random(seed)
        if fault == "node down":
            self.node.stop()
        elif fault == "fork":
            depth = dice.choice((1, 1, 2, 3, 6, 15))
            self.fork(depth, depth + 1, seed)
        elif fault == "lag":
            self.lag(dice.choice((1, 2, 9)))
        else:
            self.invalidate(dice.choice((1, 2, 9)))

    # Other processes

    def disturb_builds(self, kind: str, seed: int) -> None:
        """Let another process make, swap or drop a build, or set a pin, while the engine is at work."""
        self._others.append(begin(kind, self.settings(), self._app(seed)))

    def other(self, kind: str, seed: int) -> None:
        """Let another process do the same while the engine waits."""
        end(begin(kind, self.settings(), self._app(seed)))
        self.restart_engine()

    def _app(self, seed: int) -> str:
        """Return an app; most builds are of one, so that there is something to swap and to drop."""
        return Random(seed).choice(("plain", "plain", *self.present))

    def unpin(self) -> None:
        """Remove all pins."""
        with psycopg.connect(self.url) as connection:
            if connection.execute("SELECT to_regclass('vc.pins')").fetchone() != (None,):
                connection.execute("DELETE FROM vc.pins")

    def open_reader(self, *, holds: bool) -> None:
        """Open a transaction that reads now or later."""
        with psycopg.connect(self.url) as connection:
            is_there = connection.execute("SELECT to_regclass('plain.owners')").fetchone() != (None,)
        if is_there:
            self._readers.append(Reader(self.url, "plain", holds=holds))

    def close_readers(self) -> None:
        """Let all readers read again, and end; raise Differs if one sees what it must not see."""
        while self._readers:
            if complaint := self._readers.pop().close():
                raise Differs(complaint)

    def apply_checkpoint(self, app: str, *, undo: int) -> None:
        """Let an app begin again with a checkpoint of itself, after some blocks were taken or undone."""
        self.restart_engine()
        file = self.folder / f"{app}.checkpoint"
        file.unlink(missing_ok=True)
        if app not in self.present or not checkpoint(self.url, app, file):
            return
        self.run()
        self.restart_engine()
        contracts = [read_contract(item) for item in make_apps(MONITOR.reach, self.present)]
        options = Options(history=self.setup.history, state_folder=self.folder)
        with psycopg.connect(self.url) as connection:
            row = connection.execute("SELECT max(block_id) FROM vc.blocks").fetchone()
        rollback = row[0] - undo if row and row[0] and undo else None
        try:
            applied = apply(self.url, file, contracts, rollback=rollback, options=options)
        except (UsageError, InUse, InvalidCheckpoint) as error:
            self.log(f"    {type(error).__name__}: {str(error).splitlines()[0][:150]}")
        else:
            assert applied is not None
            self.from_checkpoint.add(app)

    def _remove_checkpoints(self) -> None:
        """Remove the apps that began with a checkpoint: the tape has all that they need to begin again."""
        self.restart_engine()
        self.close_readers()
        for app in self.from_checkpoint:
            remove(self.url, app)
        self.from_checkpoint = set()
        self.has_joined = True

    def _waits_for_checkpoint(self) -> bool:
        """Return whether the tape was rolled back below the block that an app began with, and is there yet.

        Such an app stays as it is until then.
        """
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "SELECT max(base_block_id) > max(block_id) FROM vc.apps, vc.blocks"
            ).fetchone()
        return row is not None and bool(row[0])

    # The engine

    def run(
        self,
        job: Job = ("build", None),
        fault: str | None = None,
        step: str = "",
        nth: int = 1,
        seed: int = 0,
    ) -> None:
        """Run a job in the engine; a fault strikes when it reaches a step for the nth time."""
        trap = Trap(step, nth, lambda trap: self._strike(trap, str(fault), seed))
        self._errors = (*self._expected_errors(), *(allowed(fault, job) if fault else ()))
        MONITOR.set_traps(*([trap] if fault else []))
        try:
            self._run(job)
        finally:
            MONITOR.set_traps()
            self.node.heal()
            self.node.start()
            if self._others:
                self.restart_engine()
                while self._others:
                    end(self._others.pop())
        if fault:
            self.missed += not trap.is_sprung
            place = f"struck at {trap.place}" if trap.is_sprung else "did not strike"
            self.log(f"    {fault} {place}; at {self._position()}")

    def kill(self, step: str, nth: int, job: Job = ("build", None)) -> None:
        """Run a job in another process, which is killed when it reaches a step for the nth time."""
        self.restart_engine()
        place = perform_and_kill(self.present, self.settings(), job, Trap(step, nth))
        self.missed += place is None
        if place is not None:
            self.struck["kill", place] += 1
        self.log(f"    killed at {place}" if place else "    not killed")

    def resume(self) -> None:
        """Resume halted apps."""
        self.restart_engine()
        with psycopg.connect(self.url) as connection:
            connection.execute("UPDATE vc.apps SET status = 'running', error = NULL WHERE status = 'halted'")

    def leave(self, app: str) -> None:
        """Leave out an app from now on, unless it is the last one."""
        self.restart_engine()
        self.present = tuple(name for name in self.present if name != app) or self.present

    def join(self) -> None:
        """Run all apps from now on."""
        self.restart_engine()
        self.has_joined |= self.present != self.setup.apps
        self.present = self.setup.apps

    def policy(self, app: str, policy: str) -> None:
        """Set an app's policy for deep forks."""
        self.restart_engine()
        self.policies = {**self.policies, app: policy}

    def restart_engine(self) -> None:
        """Close the engine; the next run opens another one."""
        if self.engine is not None:
            self.engine.close()
            self.engine = None

    def restart_database(self, mode: str) -> None:
        """Stop the database server in a mode of `pg_ctl stop`, and start it again."""
        assert self.restart is not None, "the database server is shared"
        self.restart(mode)

    # The end

    def finish(self) -> None:
        """End all faults, run to the tip, and compare with a fresh index; raises Differs."""
        self.node.heal()
        self.node.start()
        self.catch_up()
        self.policies = dict.fromkeys(self.setup.apps, "rollback")
        self.close_readers()
        self.unpin()
        self.join()
        self._check_halts()
        self.resume()
        self.mine(1, 0)  # with a block to take, the engine drops unfinished builds
        self._make_stable()
        self.run()
        if self.from_checkpoint and (self.engine is None or self._waits_for_checkpoint()):
            self._remove_checkpoints()  # the chain has another block there, or none yet
            self.run()
        self._check_positions()
        self.restart_engine()
        self._drop_other_builds()
        if lines := differences(self):
            raise Differs("\n".join(lines))

    def _check_halts(self) -> None:
        """Raise Differs if an app is halted although no callback has failed."""
        with psycopg.connect(self.url) as connection:
            halted = connection.execute("SELECT name, error FROM vc.apps WHERE status = 'halted'").fetchall()
        if halted and not any(fault == "halt" for fault, _ in self.struck):
            raise Differs(f"halted, though no callback failed: {halted}")

    def _check_positions(self) -> None:
        """Raise Differs unless the tape ends at the stable tip, and every app at the tape's end."""
        assert self.engine is not None
        deployment = self.engine._deployment
        tip, first = deployment.tape.tip(), deployment.first_block_id()
        stable = self.node.height - self.setup.confirmations
        last = first - 1 if tip is None else tip.block_id
        if last != max(stable, first - 1):
            raise Differs(f"the tape ends at block {last}, not {stable}: {self.engine.waits_for}")
        for machine in deployment.apps.machines:
            if machine.cursor != max(last, machine.contract.start - 1):
                raise Differs(f"app {machine.contract.name} is at block {machine.cursor}, the tape at {last}")

    def _drop_other_builds(self) -> None:
        with psycopg.connect(self.url) as connection:
            rows = connection.execute("SELECT name, build FROM vc.apps WHERE NOT is_live").fetchall()
        for app, build in rows:
            drop(self.url, app, build)

    def settings(self) -> dict[str, Any]:
        """Return the engine's settings."""
        return {
            "database": self.url,
            "source": self.node.url,
            "confirmations": self.setup.confirmations,
            "history": self.setup.history,
            "state_folder": self.folder,
            "on_deep_fork": {name: policy for name, policy in self.policies.items() if name in self.present},
            "wait_for_writer": True,
        }

    def connection(self) -> psycopg.Connection[Any]:
        """Return the engine's database session."""
        assert MONITOR.connection is not None
        return MONITOR.connection

    def ask_to_stop(self) -> None:
        """Stop the engine as a signal handler does."""
        if self.engine is not None:
            self.engine.stop()

    def _open(self) -> StateEngine:
        if self.engine is None:
            self.engine = StateEngine(*make_apps(MONITOR.reach, self.present), **self.settings())
        return self.engine

    def _run(self, job: Job) -> None:
        try:
            engine = self._open()
            perform(engine, job)
        except (VirtualchainError, psycopg.Error) as error:
            self.restart_engine()
            if not isinstance(error, self._errors):
                raise
            self.log(f"    {type(error).__name__}: {str(error).splitlines()[0][:150]}")
        except BaseException:
            self.restart_engine()
            raise
        else:
            if engine._stopping:
                self.restart_engine()

    def _expected_errors(self) -> tuple[type[Exception], ...]:
        errors: list[type[Exception]] = []
        if any(fault == "halt" for fault, _ in self.struck):
            errors.append(AppHalted)
        if any(policy != "rollback" for policy in self.policies.values()):
            errors.append(DeepFork)
        if self.present != self.setup.apps:
            errors += [DeepFork, UsageError]  # an app that is not present cannot be rebuilt
        if self.from_checkpoint:
            errors += [DeepFork, UsageError]
        if any(reader.holds for reader in self._readers):
            errors.append(InUse)
        return tuple(errors)

    def _strike(self, trap: Trap, fault: str, seed: int) -> None:
        self.struck[fault, trap.place] += 1
        strike(self, fault, trap.step, seed)

    def _mine_one(self, dice: Random, *, heavy: bool) -> None:
        fresh = self._recent_hash(dice) if dice.random() < 0.3 else None
        payloads = random_payloads(dice, self.node.height + 1, fresh=fresh)
        txs = [self.node.send(payload) for payload in payloads]
        if dice.random() < 0.5:  # for apps that track outputs: spent in the block that made them, or later
            txs.append(self.node.send())
        txs += [
            spending([coin(tx, len(read_transaction(tx.raw).outputs) - 1)])
            for tx in txs
            if dice.random() < 0.3
        ]
        self.node.mine(txs, bits=HEAVY if heavy else None)

    def _recent_hash(self, dice: Random) -> str | None:
        """Return a recent consensus hash of the engine's, which may still be fresh."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "SELECT encode(consensus_hash, 'hex') FROM vc.snapshots WHERE app = 'plain' "
                "ORDER BY block_id DESC OFFSET %s LIMIT 1",
                [dice.randrange(9)],
            ).fetchone()
        return None if row is None else row[0]

    def _remember_work(self, *tips: StoredBlock) -> None:
        """Remember the chain work of all blocks, as the node may forget them."""
        for tip in (*tips, self.node.chain.tree.tip):
            stored: StoredBlock | None = tip
            while stored is not None and stored.block.hash not in self._work:
                self._work[stored.block.hash] = stored.chainwork
                stored = stored.parent

    def _make_stable(self) -> None:
        """Mine until the node's chain has the most work, and what the engine keeps of its own is stable."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "SELECT block_id, encode(hash, 'hex') FROM vc.blocks ORDER BY block_id DESC LIMIT 1"
            ).fetchone()
        if row is None:
            return
        block_id, block_hash = row
        tree = self.node.chain.tree
        stored = tree.find(block_hash)
        if stored is None or not (tree.is_active(stored) or stored.invalid):
            while tree.tip.chainwork <= self._work[block_hash]:
                self.mine(1, 0, heavy=self._work[block_hash] - tree.tip.chainwork > 60)
        while self.node.height < block_id + self.setup.confirmations:
            self.mine(1, 0)

    def _position(self) -> str:
        last = "?"
        if self.engine is not None:
            tip = self.engine._deployment.tape.tip()
            last = "nothing" if tip is None else f"{tip.block_id}"
        return f"block {last} of {self.node.height}"

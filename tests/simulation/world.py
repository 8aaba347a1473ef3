"""A node, a database and an engine, and what can be done to them: the verbs of a simulation."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import psycopg
import urllib3

from tests.simulation import child
from tests.simulation.apps import APPS, make_apps
from tests.simulation.blocks import sign, some_ops
from tests.simulation.compare import differences
from tests.simulation.faults import allowed, strike
from tests.simulation.jobs import Job, perform
from tests.simulation.options import Options
from tests.simulation.probe import PROBE, Trap, meet
from virtualchain import StateEngine
from virtualchain.bitcoin.node import rest, retry, rpc
from virtualchain.errors import AppHalted, DeepFork, UsageError, VirtualchainError
from virtualchain.store import database
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer
from virtualchain.testing.tree import StoredBlock

HEAVY = 0x200FFFFF
"""A target that stands for eight times the work of regtest's."""


class Differs(AssertionError):
    """What the engine left is not what a fresh index has."""


@dataclass
class World:
    """One simulation. `restart` restarts the database server, where it is ours alone."""

    server: DatabaseServer
    folder: Path
    options: Options
    say: Callable[[str], None] = lambda text: None
    restart: Callable[[str], None] | None = None
    met: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each fault met each step."""
    unmet: int = 0
    """Traps that did not go off."""

    def __post_init__(self) -> None:
        self.node = FakeNode(rest=self.options.rest, spent_outputs=self.options.spent)
        self.url = self.server.clone()
        self.engine: StateEngine | None = None
        self.policies: Mapping[str, Any] = {}
        self._work: dict[str, int] = {}
        self.there = tuple(name for name in self.options.apps if name not in self.options.join)
        self.was_joined = False
        self._errors: tuple[type[Exception], ...] = ()

    def close(self) -> None:
        """Leave nothing behind."""
        self.restart_engine()
        self.node.close()
        self.server.drop(self.url)

    # The chain

    def mine(self, blocks: int, seed: int, *, heavy: bool = False) -> None:
        """Mine blocks with ops of users and strangers."""
        dice = Random(seed)
        with self.node._lock:
            for _ in range(blocks):
                self._mine_one(dice, heavy=heavy)
        self._look()

    def mine_empty(self, blocks: int) -> None:
        """Mine many blocks without an op."""
        self.node.mine(n=blocks)
        self._look()

    def fork(self, depth: int, blocks: int, seed: int, *, heavy: bool = False) -> None:
        """Replace blocks by others; where these have less work, the node has never known the old ones."""
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
                self._look(old)
                tree.forget(first)
        self._look()

    def back(self, place: int, seed: int) -> None:
        """Go back to a branch that was left, which grows until it has the most work."""
        dice = Random(seed)
        tree = self.node.chain.tree
        with self.node._lock:
            tree.show_hidden()
            others = [tip.stored for tip in tree.tips() if tip.status == "valid-fork"]
            if not others:
                return
            old = tree.tip
            tree.activate(others[place % len(others)])
            while tree.tip.chainwork <= old.chainwork:
                self._mine_one(dice, heavy=old.chainwork - tree.tip.chainwork > 60)
        self._look()

    def invalidate(self, depth: int) -> None:
        """Call the last blocks invalid, without a replacement."""
        if self.node.height > 103:
            self.node.invalidate(max(103, self.node.height - depth + 1))

    def lag(self, depth: int) -> None:
        """Have the node fall behind."""
        self.node.fall_behind(max(1, min(depth, self.node.height - 102)))

    def catch_up(self) -> None:
        """Have the node know again what it knew."""
        with self.node._lock:
            self.node.catch_up()

    def upset(self, fault: str, seed: int) -> None:
        """Do to the node what a trap says."""
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

    # The engine

    def run(
        self,
        job: Job = ("build", None),
        fault: str | None = None,
        step: str = "",
        nth: int = 1,
        seed: int = 0,
    ) -> None:
        """Have the engine do something; a fault strikes when it meets a step for the nth time."""
        trap = Trap(step, nth, lambda trap: self._spring(trap, str(fault), seed))
        self._errors = (*self._expected_errors(), *(allowed(fault, job) if fault else ()))
        PROBE.set(*([trap] if fault else []))
        try:
            self._run(job)
        finally:
            PROBE.set()
            self.node.heal()
            self.node.start()
        if fault:
            self.unmet += not trap.met
            self.say(f"    {fault} {'at ' + trap.where if trap.met else 'was not met'}; at {self._at()}")

    def kill(self, step: str, nth: int, job: Job = ("build", None)) -> None:
        """Have another process do something, which is killed when it meets a step for the nth time."""
        self.restart_engine()
        where = child.run(self.there, self.settings(), job, Trap(step, nth))
        self.unmet += where is None
        if where is not None:
            self.met["kill", where] += 1
        self.say(f"    killed at {where}" if where else "    not killed")

    def resume(self) -> None:
        """Let halted apps go on."""
        self.restart_engine()
        with psycopg.connect(self.url) as connection:
            connection.execute("UPDATE vc.apps SET status = 'running', error = NULL WHERE status = 'halted'")

    def leave(self, app: str) -> None:
        """Do without an app from now on, unless it is the last."""
        self.restart_engine()
        self.there = tuple(name for name in self.there if name != app) or self.there

    def join(self) -> None:
        """Have all apps there from now on."""
        self.restart_engine()
        self.was_joined |= self.there != self.options.apps
        self.there = self.options.apps

    def policy(self, app: str, policy: str) -> None:
        """Say what happens at a deep fork."""
        self.restart_engine()
        self.policies = {**self.policies, app: policy}

    def restart_engine(self) -> None:
        """Close the engine; the next run opens another one."""
        if self.engine is not None:
            self.engine.close()
            self.engine = None

    def restart_database(self, mode: str) -> None:
        """Stop the database server so, and start it."""
        assert self.restart is not None, "the server is not ours alone"
        self.restart(mode)

    # The end

    def finish(self) -> None:
        """Let all that was wrong be well, and compare with a fresh index; raises Differs."""
        self.node.heal()
        self.node.start()
        self.catch_up()
        self.policies = dict.fromkeys(self.options.apps, "rollback")
        self.join()
        self._check_halts()
        self.resume()
        self.mine(1, 0)  # with a block to take, what was begun and is not needed goes
        self._win()
        self.run()
        self._check_places()
        self.restart_engine()
        if found := differences(self):
            raise Differs("\n".join(found))

    # Inside

    def _check_halts(self) -> None:
        """Raise Differs where an app is halted, and no callback of any has failed."""
        with psycopg.connect(self.url) as connection:
            halted = connection.execute("SELECT name, error FROM vc.apps WHERE status = 'halted'").fetchall()
        if halted and not any(fault == "halt" for fault, _ in self.met):
            raise Differs(f"halted, though no callback failed: {halted}")

    def _check_places(self) -> None:
        """Raise Differs where the tape does not end at the stable tip, or an app not with the tape."""
        assert self.engine is not None
        deployment = self.engine._deployment
        tip, first = deployment.tape.tip(), deployment.first_block_id()
        stable = self.node.height - self.options.confirmations
        last = first - 1 if tip is None else tip.block_id
        if last != max(stable, first - 1):
            raise Differs(f"the tape ends at block {last}, not {stable}: {self.engine.waits_for}")
        for machine in deployment.machines:
            if machine.cursor != max(last, machine.contract.start - 1):
                raise Differs(
                    f"app {machine.contract.name} stands at block {machine.cursor}, the tape at {last}"
                )

    def settings(self) -> dict[str, Any]:
        """Return the engine's settings."""
        return {
            "database": self.url,
            "source": self.node.url,
            "confirmations": self.options.confirmations,
            "history": self.options.history,
            "state_folder": self.folder,
            "on_deep_fork": {name: policy for name, policy in self.policies.items() if name in self.there},
            "wait_for_writer": True,
        }

    def connection(self) -> psycopg.Connection[Any]:
        """Return the engine's session."""
        assert PROBE.connection is not None
        return PROBE.connection

    def ask_to_stop(self) -> None:
        """Do what a signal handler does."""
        if self.engine is not None:
            self.engine.stop()

    def _open(self) -> StateEngine:
        if self.engine is None:
            self.engine = StateEngine(*make_apps(meet, self.there), **self.settings())
        return self.engine

    def _run(self, job: Job) -> None:
        try:
            engine = self._open()
            perform(engine, job)
        except (VirtualchainError, psycopg.Error) as error:
            self.restart_engine()
            if not isinstance(error, self._errors):
                raise
            self.say(f"    {type(error).__name__}: {str(error).splitlines()[0][:150]}")
        except BaseException:
            self.restart_engine()
            raise
        else:
            if engine._stopping:
                self.restart_engine()

    def _expected_errors(self) -> tuple[type[Exception], ...]:
        found: list[type[Exception]] = []
        if any(fault == "halt" for fault, _ in self.met):
            found.append(AppHalted)
        if any(policy != "rollback" for policy in self.policies.values()):
            found.append(DeepFork)
        if self.there != self.options.apps:
            found.append(UsageError)  # an app that is not there cannot be derived anew
        return tuple(found)

    def _spring(self, trap: Trap, fault: str, seed: int) -> None:
        self.met[fault, trap.where] += 1
        strike(self, fault, trap.step, seed)

    def _mine_one(self, dice: Random, *, heavy: bool) -> None:
        fresh = self._fresh(dice) if dice.random() < 0.3 else None
        self.node.mine(
            sign(self.node, some_ops(dice, self.node.height + 1, fresh=fresh)), bits=HEAVY if heavy else None
        )

    def _fresh(self, dice: Random) -> str | None:
        """Return a consensus hash that may still be fresh, from where the engine is."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "SELECT encode(consensus_hash, 'hex') FROM vc.snapshots WHERE app = 'plain' "
                "ORDER BY block_id DESC OFFSET %s LIMIT 1",
                [dice.randrange(9)],
            ).fetchone()
        return None if row is None else row[0]

    def _look(self, *tips: StoredBlock) -> None:
        """Remember how much work stands behind blocks: the node may forget them."""
        for tip in (*tips, self.node.chain.tree.tip):
            at: StoredBlock | None = tip
            while at is not None and at.block.hash not in self._work:
                self._work[at.block.hash] = at.chainwork
                at = at.parent

    def _win(self) -> None:
        """Let the node's chain win, and where it is the engine's, let the engine's last block be stable."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "SELECT block_id, encode(hash, 'hex') FROM vc.blocks ORDER BY block_id DESC LIMIT 1"
            ).fetchone()
        if row is None:
            return
        block_id, block_hash = row
        tree = self.node.chain.tree
        held = tree.find(block_hash)
        if held is None or not (tree.is_active(held) or held.invalid):
            while tree.tip.chainwork <= self._work[block_hash]:
                self.mine(1, 0, heavy=self._work[block_hash] - tree.tip.chainwork > 60)
        while (
            held is not None
            and tree.is_active(held)
            and self.node.height < block_id + self.options.confirmations
        ):
            self.mine(1, 0)

    def _at(self) -> str:
        held = "?"
        if self.engine is not None:
            tip = self.engine._deployment.tape.tip()
            held = "nothing" if tip is None else f"{tip.block_id}"
        return f"block {held} of {self.node.height}"


@contextmanager
def hurried() -> Iterator[None]:
    """Have the engine wait less than it does for a real node and database."""
    with (
        patch.object(retry, "PAUSES", (0.0, 0.01, 0.03, 0.1)),
        patch.object(rest, "_TIMEOUT", urllib3.Timeout(connect=2.0, read=1.0)),
        patch.object(rpc, "TIMEOUT", 1.0),
        patch.object(database, "_POLL", 0.02),
        patch("virtualchain.engine.engine.PAUSES", (0.02, 0.1, 0.3, 1.0, 3.0)),
    ):
        yield


__all__ = ["APPS", "Differs", "Options", "World", "hurried"]

"""A simulation from a seed, from which alone its actions, and the faults and their steps, are drawn."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.simulation.faults import FAULTS, possible
from tests.simulation.jobs import Job, short_waits
from tests.simulation.others import OTHERS
from tests.simulation.steps import NAMES, watch_steps
from tests.simulation.world import Setup, World
from virtualchain.testing.database import DatabaseServer

Action = tuple[str, dict[str, Any]]
"""The name of a method of `World`, and its arguments."""

_ROLLBACK: Final = (
    *("roll back", "begin rebuild", "replace build", "make live", "replace views", "undo", "truncate"),
    *("undo tables", "record reorg", "reload"),
)
"""Steps that occur in a rollback only."""
_REBUILD: Final = ("begin rebuild", "replace build", "make live", "replace views")
"""Those that occur if the rollback goes below the history."""
_JOINING: Final = ("search", "prepend", "add coverage")
"""Steps that occur if an app joins an existing tape."""
_RARE: Final = (
    *(
        "open",
        "register",
        "start check",
        "start searches",
        "load",
        "drop unfinished",
        "plan",
        "tip",
        "headers",
        "settle",
        "flush",
    ),
    *("fork search", "chain tips", "load state", "status", *_ROLLBACK, *_JOINING),
)
"""Steps that occur once or twice in a run of the engine."""
_DEPTHS: Final = (1, 1, 1, 2, 2, 3, 5, 8, 12, 20, 40, 80)
_RESTARTS: Final = ("restart", "crash")


def simulate(
    seed: int,
    server: DatabaseServer,
    folder: Path,
    log: Callable[[str], None],
    restart: Callable[[str], None] | None = None,
    steps: int | None = None,
) -> World:
    """Run one simulation to its end; raises Differs, or an error that the engine should not raise."""
    dice = Random(seed)
    setup = Setup.draw(dice)
    log(f"seed {seed}: {setup}")
    started = time.monotonic()
    with short_waits(), watch_steps():
        world = World(server, folder, setup, log, restart)
        try:
            if dice.random() < 0.03:
                act(world, ("mine_empty", {"blocks": 1150}))
            act(world, ("mine", {"blocks": dice.randint(5, 30), "seed": dice.getrandbits(32)}))
            for _ in range(steps if steps is not None else dice.randint(6, 16)):
                for action in draw(dice, can_restart=restart is not None):
                    act(world, action)
            world.finish()
        finally:
            world.close()
    log(f"seed {seed}: no difference at block {world.node.height}, {time.monotonic() - started:.1f} s")
    return world


def sweep(
    step: str,
    server: DatabaseServer,
    folder: Path,
    log: Callable[[str], None],
    restart: Callable[[str], None] | None = None,
) -> World:
    """Let every possible fault strike at one step, in situations that reach the step; then compare."""
    dice = Random(step)
    log(f"step {step!r}")
    setup = Setup(history=10, apps=("plain", "tally", "forgetful", "early"))
    with short_waits(), watch_steps():
        world = World(server, folder, setup, log, restart)
        draws = _Draws(dice, restart is not None)
        try:
            act(world, ("mine", {"blocks": 20, "seed": draws.seed()}))
            act(world, ("run", {}))
            for fault in FAULTS:
                if possible(fault, step) and (restart is not None or fault not in _RESTARTS):
                    for action in draws.pair(fault, step):
                        act(world, action)
            world.finish()
        finally:
            world.close()
    log(f"step {step!r}: no difference at block {world.node.height}")
    return world


def act(world: World, action: Action) -> None:
    """Log an action, in the form of a call, and perform it."""
    name, arguments = action
    world.log(f"  {name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})")
    getattr(world, name)(**arguments)


def draw(dice: Random, *, can_restart: bool) -> list[Action]:
    """Draw the next action, after those that it needs."""
    draws = _Draws(dice, can_restart)
    kinds = draws.kinds()
    return dice.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]()


@dataclass(frozen=True)
class _Draws:
    """The kinds of actions that may come next."""

    dice: Random
    can_restart: bool

    def kinds(self) -> list[tuple[Callable[[], list[Action]], int]]:
        """Return the kinds with their weights."""
        return [
            (lambda: [self.mine()], 10),
            (lambda: [self.fork(), *self.perhaps_run()], 10),
            (lambda: [("run", {})], 8),
            (lambda: [("run", {"job": ("build", self.dice.randint(100, 150))})], 2),
            (self.fault, 24),
            (self.kill, 6),
            (self.heavy, 3),
            (self.return_to_branch, 4),
            (lambda: [("invalidate", {"depth": min(self.depth(), 12)}), *self.perhaps_run()], 3),
            (lambda: [("lag", {"depth": self.depth()}), *self.perhaps_run()], 2),
            (lambda: [("catch_up", {})], 2),
            (lambda: [("restart_engine", {})], 3),
            (self.halt, 2),
            (lambda: [("resume", {})], 2),
            (self.policy, 1),
            (lambda: [("leave", {"app": self.dice.choice(("early", "tally", "late", "plain"))})], 2),
            (lambda: [("join", {})], 3),
            (lambda: [("other", {"kind": self.dice.choice(OTHERS), "seed": self.seed()})], 4),
            (self.other_in_a_rollback, 10),
            (lambda: [("unpin", {}), *self.perhaps_run()], 2),
            (lambda: [("open_reader", {"holds": self.dice.random() < 0.4})], 4),
            (lambda: [("close_readers", {})], 3),
            (self.checkpoint, 1),
            (lambda: self.by_hand(("undo", self.depth())), 3),
            (lambda: self.by_hand(("replay", self.dice.choice(("plain", "plain", "tally")))), 3),
        ]

    def mine(self) -> Action:
        return "mine", {"blocks": self.dice.choice((1, 1, 2, 5, 12)), "seed": self.seed()}

    def fork(self) -> Action:
        """Draw a new branch, mostly with one block more, now and then one that does not win."""
        depth = self.depth()
        blocks = max(1, depth + self.dice.choice((1, 1, 1, 2, 5, 0, -1)))
        return "fork", {"depth": depth, "blocks": blocks, "seed": self.seed()}

    def heavy(self) -> list[Action]:
        depth = self.depth()
        fork = {"depth": depth, "blocks": max(1, depth // 3), "seed": self.seed(), "heavy": True}
        return [("fork", fork), ("run", {})]

    def return_to_branch(self) -> list[Action]:
        arguments = {"index": self.dice.randrange(5), "seed": self.seed()}
        return [("return_to_branch", arguments), *self.perhaps_run()]

    def fault(self) -> list[Action]:
        faults = [fault for fault in FAULTS if fault != "kill"]
        fault = self.one_of({fault: self.weight(fault) for fault in faults})
        step = self.step_of(fault)
        run: Action = ("run", {"fault": fault, "step": step, "nth": self.nth(step), "seed": self.seed()})
        if step in _JOINING:
            return [*self.join_later(), run]
        if step in {*_ROLLBACK, "fork search", "chain tips"}:
            return [("run", {}), self.fork(), run]
        if self.dice.random() < 0.5:
            return [self.mine(), run]
        return [("restart_engine", {}), self.fork(), run]

    def other_in_a_rollback(self) -> list[Action]:
        """Let another process interfere with a rollback, mostly with one below the history."""
        kind = self.dice.choice(OTHERS)
        step = self.dice.choice([*_ROLLBACK, "snapshot", "enter"])
        strike = {"fault": kind, "step": step, "nth": self.nth(step), "seed": self.seed()}
        depth = self.dice.choice((12, 15, 20))
        fork = {"depth": depth, "blocks": depth + 1, "seed": self.seed()}
        make: Action = ("other", {"kind": "make", "seed": self.seed()})
        before: list[Action] = [("mine", {"blocks": 12, "seed": self.seed()}), ("run", {})]
        return [*before, *([make] if kind in {"swap", "drop"} else []), ("fork", fork), ("run", strike)]

    def checkpoint(self) -> list[Action]:
        apply: Action = (
            "apply_checkpoint",
            {"app": self.dice.choice(("plain", "plain", "tally")), "undo": self.dice.choice((0, 0, 1, 3))},
        )
        return [("run", {}), apply, *self.perhaps_run()]

    def pair(self, fault: str, step: str) -> list[Action]:
        """Let a fault strike at a step, after the actions that the step needs."""
        job: Job = ("build", None)
        if step == "prepend":
            empty: Action = ("run", {"job": ("undo", 1_000)})
            before = [("resume", {}), empty, ("leave", {"app": "early"}), ("run", {}), ("join", {})]
        elif step in (*_JOINING, "status"):
            before = self.join_later()
        elif step in {*_ROLLBACK, "fork search", "chain tips"}:
            depth = 16 if step in _REBUILD else 3
            fork = {"depth": depth, "blocks": depth + 1, "seed": self.seed()}
            mine = {"blocks": depth, "seed": self.seed()}
            before = [("resume", {}), ("catch_up", {}), ("mine", mine), ("run", {}), ("fork", fork)]
        elif step == "flush":
            before = [("mine", {"blocks": 30, "seed": self.seed()})]
            job = ("part", 3)
        else:
            before = [("resume", {}), ("mine", {"blocks": 12, "seed": self.seed()})]
        if fault == "kill":
            return [*before, ("kill", {"step": step, "nth": 1, "job": job}), ("run", {})]
        arguments = {"job": job, "fault": fault, "step": step, "nth": 1, "seed": self.seed()}
        return [*before, ("run", arguments), ("run", {})]

    def kill(self) -> list[Action]:
        step = self.step_of("kill")
        kill: Action = ("kill", {"step": step, "nth": self.nth(step)})
        if step in _JOINING:
            return [*self.join_later(), kill]
        return [("run", {}), self.fork(), kill] if step in _ROLLBACK else [self.mine(), kill]

    def halt(self) -> list[Action]:
        step = self.step_of("halt")
        return [self.mine(), ("run", {"fault": "halt", "step": step, "nth": self.nth(step)})]

    def policy(self) -> list[Action]:
        policy = self.dice.choice(("halt", "checkpoint", "rollback", "rollback"))
        return [("policy", {"app": "plain", "policy": policy})]

    def join_later(self) -> list[Action]:
        """Let an app miss some blocks, and join."""
        leave: Action = ("leave", {"app": "early"})
        return [leave, self.mine(), ("run", {}), self.mine(), ("join", {})]

    def by_hand(self, job: Job) -> list[Action]:
        """Let an operator run a job, mostly undisturbed."""
        chance = self.dice.random()
        if chance < 0.5:
            return [("run", {"job": job}), *self.perhaps_run()]
        if chance < 0.7:
            step = self.step_of("kill")
            return [("kill", {"step": step, "nth": self.nth(step), "job": job})]
        faults = ("ended", "full", "unanswered", "stop", *_RESTARTS)
        fault = self.one_of({fault: self.weight(fault) for fault in faults})
        step = self.step_of(fault)
        arguments = {"job": job, "fault": fault, "step": step, "nth": self.nth(step), "seed": self.seed()}
        return [("run", arguments), *self.perhaps_run()]

    def perhaps_run(self) -> list[Action]:
        return [("run", {})] if self.dice.random() < 0.6 else []

    def seed(self) -> int:
        return self.dice.getrandbits(32)

    def depth(self) -> int:
        return self.dice.choice(_DEPTHS)

    def nth(self, step: str) -> int:
        return self.dice.choice((1, 1, 2) if step in _RARE else (1, 1, 2, 3, 5, 9, 20))

    def step_of(self, fault: str) -> str:
        return self.dice.choice([step for step in NAMES if possible(fault, step)])

    def weight(self, fault: str) -> float:
        return (0.5 if self.can_restart else 0.0) if fault in _RESTARTS else 1.0

    def one_of(self, weights: dict[str, float]) -> str:
        return self.dice.choices(list(weights), list(weights.values()))[0]

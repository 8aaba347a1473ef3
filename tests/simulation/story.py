"""A simulation from a seed: which verbs, and which fault meets which step, is drawn from it alone."""

import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.simulation.faults import FAULTS, possible
from tests.simulation.options import Options
from tests.simulation.probe import NAMES, watch
from tests.simulation.world import World, hurried
from virtualchain.testing.database import DatabaseServer

Verb = tuple[str, dict[str, object]]

_ROLLBACK = (
    "roll back", "replace build", "make live", "drop build", "undo", "truncate", "undo tables", "record reorg",
    "stand anew", "begin rebuild",
)  # fmt: skip
_SELDOM = {
    "open", "register", "start check", "cover", "load", "tidy", "plan", "tip", "headers", "settle", "flush", *_ROLLBACK,
    "fork search", "chain tips", "load state", "status",
}  # fmt: skip
"""Steps that come once or twice in a run of the engine."""
_DEPTHS = (1, 1, 1, 2, 2, 3, 5, 8, 12, 20, 40, 80)
_KINDS = (
    ("mine", 10), ("fork", 10), ("run", 10), ("fault", 24), ("kill", 5), ("restart", 3), ("lag", 2), ("catch up", 2),
    ("invalidate", 3), ("back", 4), ("halt", 2), ("resume", 2), ("policy", 1), ("undo", 2), ("heavy", 3), ("part", 2),
)  # fmt: skip


def simulate(
    seed: int,
    server: DatabaseServer,
    folder: Path,
    say: Callable[[str], None],
    restart: Callable[[str], None] | None = None,
    steps: int | None = None,
) -> World:
    """Run one simulation to its end; raises Differs, or what the engine should not have raised."""
    dice = Random(seed)
    options = Options.of(dice)
    say(f"seed {seed}: {options}")
    with hurried(), watch():
        world = World(server, folder, options, say, restart)
        started = time.monotonic()
        try:
            if dice.random() < 0.04:
                play(world, ("mine_empty", {"blocks": 1150}))
            play(world, ("mine", {"blocks": dice.randint(5, 30), "seed": dice.getrandbits(32)}))
            for _ in range(steps if steps is not None else dice.randint(6, 16)):
                for verb in draw(dice, can_restart=restart is not None):
                    play(world, verb)
            world.finish()
        finally:
            world.close()
        say(f"seed {seed}: no difference at block {world.node.height}, {time.monotonic() - started:.1f} s")
    return world


def play(world: World, verb: Verb) -> None:
    """Say what is done, in the form of a call, and do it."""
    name, arguments = verb
    world.say(f"  {name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})")
    getattr(world, name)(**arguments)


def draw(dice: Random, *, can_restart: bool) -> list[Verb]:  # noqa: C901, PLR0911, PLR0912 - a table
    """Draw what comes next: mostly one verb, or what it needs in front."""
    names, weights = zip(*_KINDS, strict=True)
    kind = dice.choices(names, weights)[0]
    seed = dice.getrandbits(32)
    depth = dice.choice(_DEPTHS)
    match kind:
        case "mine":
            return [("mine", {"blocks": dice.choice((1, 1, 2, 5, 12)), "seed": seed})]
        case "fork":
            return [("fork", _fork(dice, depth, seed)), *_after(dice)]
        case "heavy":
            fork = {"depth": depth, "blocks": max(1, depth // 3), "seed": seed, "heavy": True}
            return [("fork", fork), ("run", {})]
        case "run":
            return [("run", {})]
        case "part":
            return [("run", {"to": dice.randint(100, 150)})]
        case "fault":
            return _fault(dice, depth, seed, can_restart=can_restart)
        case "kill":
            step = dice.choice([step for step in NAMES if possible("kill", step)])
            before: list[Verb] = [("fork", _fork(dice, depth, seed))] if step in _ROLLBACK else []
            return [*before, ("kill", {"step": step, "nth": _nth(dice, step)})]
        case "restart":
            return [("restart_engine", {})]
        case "lag":
            return [("lag", {"depth": depth}), *_after(dice)]
        case "catch up":
            return [("catch_up", {})]
        case "invalidate":
            return [("invalidate", {"depth": min(depth, 12)}), *_after(dice)]
        case "back":
            return [("back", {"place": dice.randrange(5), "seed": seed}), *_after(dice)]
        case "halt":
            step = dice.choice([step for step in NAMES if possible("halt", step)])
            return [("halt", {"step": step, "nth": _nth(dice, step)})]
        case "resume":
            return [("resume", {})]
        case "policy":
            policy = dice.choice(("halt", "checkpoint", "rollback", "rollback"))
            return [("policy", {"app": "plain", "policy": policy})]
        case _:
            return [("undo_by_hand", {"depth": depth}), *_after(dice)]


def _fault(dice: Random, depth: int, seed: int, *, can_restart: bool) -> list[Verb]:
    slow = {"restart", "crash"}
    faults = [fault for fault in FAULTS if fault != "kill"]
    weights = [(0.5 if can_restart else 0) if fault in slow else 1 for fault in faults]
    fault = dice.choices(faults, weights)[0]
    step = dice.choice([step for step in NAMES if possible(fault, step)])
    run: Verb = ("run", {"fault": fault, "step": step, "nth": _nth(dice, step), "seed": seed})
    if step in {*_ROLLBACK, "fork search", "chain tips"}:
        return [("run", {}), ("fork", _fork(dice, depth, seed)), run]
    if dice.random() < 0.5:
        return [("mine", {"blocks": dice.choice((1, 3, 9)), "seed": seed}), run]
    return [("restart_engine", {}), ("fork", _fork(dice, depth, seed)), run]


def _fork(dice: Random, depth: int, seed: int) -> dict[str, object]:
    """Choose a new branch: mostly one more block, now and then one that does not win."""
    more = dice.choice((1, 1, 1, 2, 5, 0, -1))
    return {"depth": depth, "blocks": max(1, depth + more), "seed": seed}


def _nth(dice: Random, step: str) -> int:
    return dice.choice((1, 1, 2) if step in _SELDOM else (1, 1, 2, 3, 5, 9, 20))


def _after(dice: Random) -> list[Verb]:
    return [("run", {})] if dice.random() < 0.6 else []

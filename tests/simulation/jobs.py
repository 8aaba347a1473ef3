"""What an engine can be asked to do: in this process, or in another one that is killed meanwhile."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any
from unittest.mock import patch

from tests.simulation.apps import make_apps
from tests.simulation.steps import Trap, watch_steps
from virtualchain import StateEngine
from virtualchain.bitcoin.node import client, transport
from virtualchain.engine.rebuild import replay
from virtualchain.engine.rollback import operators_reorg, roll_back
from virtualchain.errors import AppHalted, BuildChanged, DeepFork, InUse, UsageError
from virtualchain.store import database, giving_way

Job = tuple[str, str | int | None]
"""`build` to a block or the tip, `part`: build some blocks, `undo` some blocks, or `replay` an app."""


def perform(engine: StateEngine, job: Job) -> None:
    """Do a job with an engine."""
    kind, argument = job
    deployment = engine._deployment
    if kind == "build":
        assert not isinstance(argument, str)
        engine.build(argument)
    elif kind == "part":
        tip = deployment.tape.tip()
        engine.build(int(str(argument)) + (deployment.first_block_id() if tip is None else tip.block_id))
    elif kind == "replay":
        names = [machine.contract.name for machine in deployment.apps.machines]
        app = str(argument) if argument in names else names[0]
        replay(deployment, app, engine._listener)
    else:
        tip, bottom = deployment.tape.tip(), deployment.tape.bottom()
        if tip is not None and bottom is not None:
            to = max(bottom.block_id - 1, tip.block_id - int(str(argument)))
            try:
                roll_back(deployment, operators_reorg(deployment.tape, to), engine._listener)
            except UsageError as error:
                # Code that changed in place, of an app that tracks outputs, needs a node (docs/outputs.md).
                if "was not searched for what this code needs" not in str(error):
                    raise


@contextmanager
def short_waits() -> Iterator[None]:
    """Shorten the engine's waits for the node and the database."""
    with (
        patch.object(client, "RETRY_PAUSES", (0.0, 0.01, 0.03, 0.1)),
        patch.object(transport, "CONNECT_TIMEOUT", 2.0),
        patch.object(client, "READ_TIMEOUT", 1.0),
        patch.object(database, "_POLL", 0.02),
        patch.object(giving_way, "_TRIES", 2),
        patch.object(giving_way, "_PAUSE", 0.05),
        patch("virtualchain.engine.engine.PAUSES", (0.02, 0.1, 0.3, 1.0, 3.0)),
    ):
        yield


def perform_and_kill(apps: tuple[str, ...], settings: dict[str, Any], job: Job, trap: Trap) -> str | None:
    """Do a job in a process that kills itself at the trap; return the place, or None if it ended before."""
    receiver, sender = context().Pipe(duplex=False)
    arguments = (sender, apps, settings, job, trap)
    process = context().Process(target=_perform_in_child, args=arguments, daemon=True)
    process.start()
    sender.close()
    process.join()
    message = ""
    with receiver, suppress(EOFError):
        message = receiver.recv()
    if process.exitcode == -signal.SIGKILL:
        return message
    assert process.exitcode == 0, f"the engine's process ended with {process.exitcode}: {message}"
    return None


@cache
def context() -> ForkServerContext:
    """Return a context that starts processes fast: it forks them from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.simulation.jobs"])
    return context


def _perform_in_child(
    sender: Connection, apps: tuple[str, ...], settings: dict[str, Any], job: Job, trap: Trap
) -> None:
    def die(trap: Trap) -> None:
        sender.send(trap.place)
        os.kill(os.getpid(), signal.SIGKILL)

    trap.action = die
    try:
        with short_waits(), watch_steps() as monitor:
            monitor.set_traps(trap)
            with StateEngine(*make_apps(monitor.reach, apps), **settings) as engine:
                perform(engine, job)
    except (AppHalted, DeepFork, UsageError, InUse, BuildChanged):
        pass
    except BaseException as error:
        sender.send(repr(error))
        raise

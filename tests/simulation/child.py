"""An engine in a process of its own, which kills itself where it is told to."""

import multiprocessing
import os
import signal
from contextlib import suppress
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

from tests.simulation.apps import make_apps
from tests.simulation.jobs import Job, perform
from tests.simulation.probe import Trap, meet, watch
from virtualchain import StateEngine
from virtualchain.errors import AppHalted, DeepFork, UsageError


def run(names: tuple[str, ...], settings: dict[str, Any], job: Job, trap: Trap) -> str | None:
    """Have a process do a job; give where it was killed, None where it came to its end before."""
    receiver, sender = _context().Pipe(duplex=False)
    process = _context().Process(target=_work, args=(sender, names, settings, job, trap), daemon=True)
    process.start()
    sender.close()
    process.join()
    said = ""
    with receiver, suppress(EOFError):
        said = receiver.recv()
    if process.exitcode == -signal.SIGKILL:
        return said
    assert process.exitcode == 0, f"the engine's process ended with {process.exitcode}: {said}"
    return None


@cache
def _context() -> ForkServerContext:
    """Return what starts processes fast: they are forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.simulation.world"])
    return context


def _work(sender: Connection, names: tuple[str, ...], settings: dict[str, Any], job: Job, trap: Trap) -> None:
    from tests.simulation.world import hurried

    def die(trap: Trap) -> None:
        sender.send(trap.where)
        os.kill(os.getpid(), signal.SIGKILL)

    trap.spring = die
    try:
        with hurried(), watch() as probe:
            probe.set(trap)
            with StateEngine(*make_apps(meet, names), **settings) as engine:
                perform(engine, job)
    except (AppHalted, DeepFork, UsageError):
        pass
    except BaseException as error:
        sender.send(repr(error))
        raise

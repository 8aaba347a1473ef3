"""The steps of the engine, as places where a simulation may let something happen.

`watch` wraps the functions that the steps consist of. Each tells the probe of this process that its step is
about to begin; the probe's trap goes off where it was set. So a fault meets a step and not a moment, and the
same seed meets the same one.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import psycopg

from virtualchain.bitcoin import prefetch
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.engine import deployment, engine, rebuild, rollback
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.machine import Machine
from virtualchain.engine.states import OpaqueState, TableState
from virtualchain.store.history import History
from virtualchain.store.log import AppLog
from virtualchain.store.state_files import StateFiles
from virtualchain.store.tape import Tape

Place = tuple[object, str, str]
"""A class or module, the name of what is called there, and the step that it is."""

REQUESTS: tuple[Place, ...] = (
    (NodeSource, "tip", "tip"),
    (NodeSource, "headers_after", "headers"),
    (NodeSource, "block_hash", "fork search"),
    (NodeSource, "is_invalid", "chain tips"),
    (NodeSource, "raw_block", "fetch"),
    (NodeSource, "spent_outputs", "spent"),
)
"""The steps that ask the node; some in threads that read ahead."""

STEPS: tuple[Place, ...] = (
    (deployment, "connect_writer", "open"),
    (deployment, "register", "register"),
    (deployment, "check_consistency", "start check"),
    (Deployment, "start_searches", "cover"),
    (Machine, "load", "load"),
    (engine, "drop_unfinished", "tidy"),
    (engine, "make_plan", "plan"),
    *REQUESTS,
    (Scanner, "scan", "scan of bytes"),
    (prefetch, "fetch", "read ahead"),
    (Tape, "append", "append"),
    (engine, "backfill_chunk", "search"),
    (Tape, "prepend", "prepend"),
    (Tape, "add_coverage", "searched"),
    (AppLog, "enter", "enter"),
    (AppLog, "leave", "constraints"),
    (TableState, "digest", "digest of tables"),
    (OpaqueState, "digest", "digest of a state"),
    (AppLog, "add", "log"),
    (AppLog, "add_snapshot", "snapshot"),
    (TableState, "prune", "prune tables"),
    (OpaqueState, "prune", "prune files"),
    (AppLog, "set_history_from", "history's end"),
    (AppLog, "set_status", "status"),
    (Tape, "notify", "notify"),
    (Deployment, "_after_commit", "after the commit"),
    (StateFiles, "_place", "place file"),
    (Deployment, "settle", "settle"),
    (Tape, "flush", "flush"),
    (engine, "roll_back", "roll back"),
    (rebuild, "_unfinished_build", "begin rebuild"),
    (rollback, "replace_build", "replace build"),
    (rebuild, "make_live", "make live"),
    (rebuild, "drop_build", "drop build"),
    (rollback, "undo", "undo"),
    (Tape, "truncate", "truncate"),
    (History, "undo", "undo tables"),
    (rollback, "record", "record reorg"),
    (Deployment, "reload_after_rollback", "reload"),
)
CONTEXTS: tuple[Place, ...] = (
    (rollback, "derive", "rebuild"),
    (rebuild, "derive", "rebuild"),
    (Deployment, "catch_up", "catch up"),
)
"""What consists of the steps of other blocks: these are told with its name."""
COMMIT = "commit of the transaction"
ANSWER = "answer of the commit"
CALLBACKS = (
    "load state",
    "parse",
    "scan",
    "check",
    "commit",
    "commit, behind its statements",
    "final",
    "save",
    "continue",
)
NAMES: tuple[str, ...] = (*(step for _, _, step in STEPS), COMMIT, ANSWER, *CALLBACKS)
"""Every step."""


@dataclass
class Trap:
    """What happens when a step is met for the nth time; with a context, only in there."""

    step: str
    nth: int
    spring: Callable[["Trap"], None] | None = None
    where: str = ""
    """`step`, with its context; known once it was met."""
    met: bool = False


@dataclass
class Probe:
    """What this process meets."""

    traps: list[Trap] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    context: list[str] = field(default_factory=list)
    connection: psycopg.Connection[Any] | None = None
    """The session that writes."""
    lock: Any = field(default_factory=threading.Lock)

    def set(self, *traps: Trap) -> None:
        """Count from here on, and wait for these."""
        with self.lock:
            self.seen.clear()
            self.traps = list(traps)

    def meet(self, step: str) -> None:
        """Learn that a step is about to begin."""
        inside = threading.current_thread() is threading.main_thread() and self.context
        where = f"{step} ({self.context[-1]})" if inside else step
        with self.lock:
            self.seen[step] += 1
            if where != step:
                self.seen[where] += 1
            going_off = [
                trap
                for trap in self.traps
                if not trap.met and trap.step in {step, where} and self.seen[trap.step] >= trap.nth
            ]
            for trap in going_off:
                trap.met, trap.where = True, where
        for trap in going_off:
            if trap.spring is not None:
                trap.spring(trap)


PROBE = Probe()
"""The one of this process."""


@contextmanager
def watch() -> Iterator[Probe]:
    """Tell the probe of every step, until the end."""
    patches = [patch.object(owner, name, _told(getattr(owner, name), step)) for owner, name, step in STEPS]
    patches += [
        patch.object(owner, name, _within(getattr(owner, name), step)) for owner, name, step in CONTEXTS
    ]
    patches.append(patch.object(psycopg.Transaction, "__exit__", _commit(psycopg.Transaction.__exit__)))
    for each in patches:
        each.start()
    try:
        yield PROBE
    finally:
        PROBE.set()
        for each in patches:
            each.stop()


def meet(app: str, step: str) -> None:
    """Take what an app's callback tells."""
    PROBE.meet(step)


def _told(function: Callable[..., Any], step: str) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        PROBE.meet(step)
        result = function(*arguments, **named)
        if isinstance(result, psycopg.Connection):
            PROBE.connection = result
        return result

    return wrapped


def _within(function: Callable[..., Any], context: str) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        PROBE.context.append(context)
        try:
            return function(*arguments, **named)
        finally:
            PROBE.context.pop()

    return wrapped


def _commit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Tell of the outermost transaction's end, where it ends well, and of its answer."""

    def wrapped(transaction: Any, kind: Any, error: Any, trace: Any) -> Any:
        commits = kind is None and not transaction._savepoint_name
        if commits:
            try:
                PROBE.meet(COMMIT)
            except BaseException as fault:
                function(transaction, type(fault), fault, fault.__traceback__)
                raise
        result = function(transaction, kind, error, trace)
        if commits:
            PROBE.meet(ANSWER)
        return result

    return wrapped

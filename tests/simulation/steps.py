"""The steps of the engine, at which a simulation can make something happen.

`watch_steps` wraps the functions that the steps consist of. Each reports to this process's monitor that its
step is about to begin, and the monitor springs the traps set for it. A fault therefore strikes at a step and
not at a point in time, and the same seed strikes at the same one.
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
from virtualchain.engine import backfill, deployment, engine, rebuild, rollback, roster
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.look import Look
from virtualchain.engine.machine import Machine
from virtualchain.engine.states import OpaqueState, TableState
from virtualchain.store.block_transaction import BlockTransaction
from virtualchain.store.history import History
from virtualchain.store.log import AppLog
from virtualchain.store.notifications import Notifier
from virtualchain.store.state_files import StateFiles
from virtualchain.store.tape import Tape

Place = tuple[object, str, str]
"""A class or module, the name of a function in it, and the step that the function begins."""

REQUESTS: tuple[Place, ...] = (
    (NodeSource, "tip", "tip"),
    (NodeSource, "headers_after", "headers"),
    (NodeSource, "block_hash", "fork search"),
    (NodeSource, "is_invalid", "chain tips"),
    (NodeSource, "raw_block", "fetch"),
    (NodeSource, "spent_outputs", "spent"),
)
"""The steps that send a request to the node, some of them in threads that read ahead."""

STEPS: tuple[Place, ...] = (
    (deployment, "connect_writer", "open"),
    (roster, "register", "register"),
    (deployment, "check_consistency", "start check"),
    (Deployment, "start_searches", "start searches"),
    (Machine, "load", "load"),
    (engine, "drop_unfinished", "drop unfinished"),
    (Look, "plan", "plan"),
    *REQUESTS,
    (Scanner, "scan", "scan of bytes"),
    (prefetch, "fetch", "read ahead"),
    (backfill, "backfill_chunk", "search"),
    (Tape, "prepend", "prepend"),
    (Tape, "add_coverage", "add coverage"),
    (AppLog, "enter", "enter"),
    (AppLog, "leave", "constraints"),
    (TableState, "digest", "digest of tables"),
    (OpaqueState, "digest", "digest of a state"),
    (BlockTransaction, "begin", "begin"),
    (BlockTransaction, "take", "log"),
    (BlockTransaction, "commit", "write"),
    (TableState, "prune", "prune tables"),
    (OpaqueState, "prune", "prune files"),
    (AppLog, "set_history_from", "set history"),
    (AppLog, "set_status", "status"),
    (Deployment, "_after_commit", "after the commit"),
    (Notifier, "block", "notify"),
    (StateFiles, "_place", "place file"),
    (Deployment, "settle", "settle"),
    (Tape, "flush", "flush"),
    (engine, "roll_back", "roll back"),
    (rebuild, "_unfinished_build", "begin rebuild"),
    (rollback, "replace_build", "replace build"),
    (rebuild, "set_live", "make live"),
    (rollback, "replace_views", "replace views"),
    (rollback, "undo", "undo"),
    (Tape, "truncate", "truncate"),
    (History, "undo", "undo tables"),
    (rollback, "record", "record reorg"),
    (Notifier, "rollback", "notify of a rollback"),
    (Deployment, "reload_after_rollback", "reload"),
)
CONTEXTS: tuple[Place, ...] = (
    (rollback, "derive", "rebuild"),
    (rebuild, "derive", "rebuild"),
    (Deployment, "catch_up", "catch up"),
)
"""Functions that run the steps of other blocks; these steps are reported with the context's name."""
COMMIT = "commit of the transaction"
ANSWER = "answer of the commit"
CALLBACKS = (
    "load state",
    "parse",
    "scan",
    "check",
    "commit",
    "commit, after its statements",
    "final",
    "save",
    "continue",
)
NAMES: tuple[str, ...] = (*(step for _, _, step in STEPS), COMMIT, ANSWER, *CALLBACKS)
"""Every step."""


@dataclass
class Trap:
    """An action for the nth time that a step is reached; if `step` names a context, only within it."""

    step: str
    nth: int
    action: Callable[["Trap"], None] | None = None
    place: str = ""
    """`step` with its context; set when the trap is sprung."""
    is_sprung: bool = False


@dataclass
class Monitor:
    """Counts the steps that this process reaches, and springs the traps set for them."""

    traps: list[Trap] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    contexts: list[str] = field(default_factory=list)
    connection: psycopg.Connection[Any] | None = None
    """The session that writes."""
    lock: Any = field(default_factory=threading.Lock)

    def set_traps(self, *traps: Trap) -> None:
        """Replace the traps, and count from zero."""
        with self.lock:
            self.counts.clear()
            self.traps = list(traps)

    def reach(self, step: str) -> None:
        """Report that a step is about to begin."""
        has_context = threading.current_thread() is threading.main_thread() and self.contexts
        place = f"{step} ({self.contexts[-1]})" if has_context else step
        with self.lock:
            self.counts[step] += 1
            if place != step:
                self.counts[place] += 1
            sprung = [
                trap
                for trap in self.traps
                if not trap.is_sprung and trap.step in {step, place} and self.counts[trap.step] >= trap.nth
            ]
            for trap in sprung:
                trap.is_sprung, trap.place = True, place
        for trap in sprung:
            if trap.action is not None:
                trap.action(trap)


MONITOR = Monitor()
"""This process's monitor."""


@contextmanager
def watch_steps() -> Iterator[Monitor]:
    """Report every step to the monitor within the context."""
    patches = [
        patch.object(owner, name, _reported(getattr(owner, name), step)) for owner, name, step in STEPS
    ]
    patches += [
        patch.object(owner, name, _in_context(getattr(owner, name), step)) for owner, name, step in CONTEXTS
    ]
    patches.append(patch.object(psycopg.Transaction, "__exit__", _commit(psycopg.Transaction.__exit__)))
    for each in patches:
        each.start()
    try:
        yield MONITOR
    finally:
        MONITOR.set_traps()
        for each in patches:
            each.stop()


def _reported(function: Callable[..., Any], step: str) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        MONITOR.reach(step)
        result = function(*arguments, **named)
        if isinstance(result, psycopg.Connection):
            MONITOR.connection = result
        return result

    return wrapped


def _in_context(function: Callable[..., Any], context: str) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        MONITOR.contexts.append(context)
        try:
            return function(*arguments, **named)
        finally:
            MONITOR.contexts.pop()

    return wrapped


def _commit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Report the commit of an outermost transaction, and then its answer."""

    def wrapped(transaction: Any, kind: Any, error: Any, trace: Any) -> Any:
        commits = kind is None and not transaction._savepoint_name
        if commits:
            try:
                MONITOR.reach(COMMIT)
            except BaseException as fault:
                function(transaction, type(fault), fault, fault.__traceback__)
                raise
        result = function(transaction, kind, error, trace)
        if commits:
            MONITOR.reach(ANSWER)
        return result

    return wrapped

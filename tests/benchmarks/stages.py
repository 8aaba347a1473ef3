"""Time spent in each stage of the engine, measured from outside: the engine itself keeps no clock.

A stage's time excludes the stages that it calls. Measuring costs about a microsecond a call, so rates come
from runs without it, and shares from runs with it.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final

import psycopg

from virtualchain.bitcoin import block, prefetch
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.judge import _Judge
from virtualchain.engine.machine import Machine
from virtualchain.store.block_transaction import BlockTransaction
from virtualchain.store.history import History
from virtualchain.store.state import State
from virtualchain.store.tape import Tape

STAGES: Final[dict[str, tuple[tuple[Any, str], ...]]] = {
    "fetch": ((NodeSource, "raw_block"),),
    "spent outputs": ((NodeSource, "spent_outputs"),),
    "check of form": ((CheckedBlock, "__post_init__"),),
    "scan": ((Scanner, "scan"),),
    "decode": ((block, "read_transaction"), (prefetch, "inputs")),
    "reading the tape": ((Tape, "inputs"),),
    "parse": ((_Judge, "_parse"),),
    "check": ((_Judge, "_check"),),
    "commit": ((_Judge, "_commit"),),
    "reducers' statements": ((State, "execute"), (State, "query"), (State, "one")),
    "rows of tape and log": (
        (BlockTransaction, "take"),
        (BlockTransaction, "commit"),
        (BlockTransaction, "send_commit"),
    ),
    "state hash": ((History, "state_number"),),
    "the rest of a step": ((Machine, "step"),),
    "database commit": ((psycopg.Transaction, "__exit__"),),
    "the rest of a block": ((Deployment, "take"),),
}
"""The functions that make up each stage."""


class Stages:
    """Seconds by stage, of all threads together."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._open = threading.local()

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure every call inside."""
        originals = [
            (owner, name, getattr(owner, name)) for parts in STAGES.values() for owner, name in parts
        ]
        for stage, parts in STAGES.items():
            for owner, name in parts:
                setattr(owner, name, self._timed(stage, getattr(owner, name)))
        try:
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)

    def _timed(self, stage: str, function: Any) -> Any:
        @wraps(function)
        def timed(*args: object, **options: object) -> object:
            stack: list[float] = self._open.__dict__.setdefault("stack", [])
            stack.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                whole = time.perf_counter() - start
                inner = stack.pop()
                if stack:
                    stack[-1] += whole
                with self._lock:
                    self.seconds[stage] += whole - inner

        return timed
